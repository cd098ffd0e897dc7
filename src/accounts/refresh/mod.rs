//! What a refresh token means: [`rotation`] says it of each generation of a session (the grace, lost answers, theft),
//! [`orphans`] are the generations that a retry replaced, [`decision`] is what a refresh does with the stored session.

pub mod decision;
pub mod orphans;
pub mod rotation;
