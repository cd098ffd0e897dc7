//! The second factor: codes of an app that shares a secret with Keyward (RFC 6238), and recovery codes for those who have
//! lost it.

pub mod codes;
pub mod decision;
pub mod service;
pub mod shown;
pub mod totp;
