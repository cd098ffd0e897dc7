//! Who asks: from the credentials of a request to a principal. Never blocks.

pub mod judge;
pub mod principal;
