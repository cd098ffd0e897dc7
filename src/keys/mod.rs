//! API keys: what one is, its scopes and its limit, how it is verified, and how often it is used.

pub mod allowed_ips;
pub(crate) mod expiry;
pub mod grants;
pub mod key;
pub mod listing;
pub mod rules;
pub mod scopes;
pub mod service;
pub mod settings;
pub mod store;
pub mod usage;
pub mod usage_counter;
pub mod verification;
pub mod written_form;
