//! Who asks: from the credentials of a request to a principal. Never blocks.

pub mod credentials;
pub mod judge;
pub mod principal;
pub mod requirements;
