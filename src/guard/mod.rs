//! Who asks: from the credentials of a request to a principal.

pub mod credentials;
pub mod judge;
pub mod principal;
pub mod requirements;
