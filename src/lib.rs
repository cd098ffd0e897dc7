//! Keyward answers two questions for the services around it: *which user is this?* (a JWT) and *which
//! service is this?* (an API key).
//!
//! Each folder is a room with one purpose. A request goes down this list once and comes back once:
//!
//! - [`http`]: bytes on a socket to requests and back; finds the route, runs its handler in the route's lane.
//! - [`guard`]: from the credentials of a request to a [`guard::principal::Principal`].
//! - [`api`]: one file a resource; a handler parses, makes one call and answers. Start reading at
//!   [`api::routes::ROUTES`], the whole API at a glance.
//! - [`app`]: the services, as one struct.
//! - the nouns, each with its records, its rules and its service; no HTTP, no SQL:
//!   [`accounts`] (users, sessions, passwords), [`keys`], [`tokens`], [`audit`], [`outbox`], [`webhooks`], [`mail`].
//! - [`store`]: what the nouns need of a database, kept in SQLite or PostgreSQL.
//! - [`memory`]: what the hot path remembers, so that a verified request touches no database.
//! - [`base`]: the clock, ids, errors, threads: what every room may use.
//!
//! Above them, [`run`] makes a running server of the settings in [`config`], and [`cli`] is the command line.

pub mod accounts;
pub mod api;
pub mod app;
pub mod audit;
pub mod base;
pub mod cli;
pub mod config;
pub mod guard;
pub mod http;
pub mod keys;
pub mod mail;
pub mod memory;
pub mod outbox;
pub mod run;
pub mod statistics;
pub mod store;
pub mod tokens;
pub mod webhooks;
