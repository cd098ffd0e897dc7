//! Endpoints of users and operators that are told what happens: where they may be, and what is sent to them.

pub mod addresses;
pub mod origin;
pub mod rules;
pub mod secret;
pub mod sending;
pub mod sent;
pub mod service;
pub mod settings;
pub mod store;
pub mod types;
pub mod url;
pub mod webhook;
