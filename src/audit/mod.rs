//! The audit trail: what happened to accounts, sessions and keys, by whom and from where.

pub mod event;
pub mod events;
pub mod settings;
pub mod store;
