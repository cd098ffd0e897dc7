//! Mail: what Keyward writes to users, and how it is sent.

pub mod kinds;
pub mod notices;
