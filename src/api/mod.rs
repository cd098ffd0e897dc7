//! One file a resource. A handler parses, makes one call and answers; the rules are elsewhere.

pub mod account;
pub mod account_pages;
pub mod admin;
pub mod auth;
pub mod authz;
pub mod discovery;
mod docs;
pub mod events;
pub mod health;
pub mod jwks;
pub mod keys;
pub mod oauth;
mod paging;
pub mod protected;
pub mod routes;
pub mod sessions;
pub mod totp;
mod usage;
pub mod verification;
pub mod webhooks;
