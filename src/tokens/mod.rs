//! Tokens: what they claim, how they are signed, and where the keys for it come from.

pub mod algorithm;
pub mod claims;
pub mod discovery;
pub mod jws;
pub mod key_files;
pub mod payloads;
pub mod service;
pub mod settings;
pub mod signing_keys;
