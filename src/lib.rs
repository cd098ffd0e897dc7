//! Keyward answers two questions for the services around it: *which user is this?* (a JWT) and *which
//! service is this?* (an API key).
//!
//! A request goes down these layers once and comes back once; no layer calls upwards:
//!
//! - [`http`]: the socket, the route table, the thread pools, JSON in and out.
//! - [`guard`]: turns the credentials of a request into a [`principal::Principal`].
//! - [`address`]: whose request it is, behind proxies.
//! - [`api`]: one file a resource; a handler parses, makes one call and answers.
//! - [`user`], [`session`], [`key`], [`scope`], [`password`], [`token`], [`usage`], [`verification`], [`event`]:
//!   the rules, by noun; no HTTP, no SQL.
//! - [`jws`], [`secrets`]: how tokens are signed, and where the keys for it come from.
//! - [`limit`], [`guess`]: how often a key and an address may ask, and how often a password may be guessed.
//! - [`trust`]: whom we believe as a client in TLS.
//! - [`cache`]: what the hot path remembers of keys and sessions.
//! - [`store`]: the trait [`store::Store`] and its two databases.
//!
//! [`app`] wires them together, [`maintenance`] does what nobody waits for, [`config`] holds every setting, [`cli`] is the
//! command line. Start reading at [`http::router::ROUTES`], the whole API at a glance.

pub mod address;
pub mod api;
pub mod app;
pub mod bounded;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod deadline;
pub mod duration;
pub mod error;
pub mod event;
pub mod guard;
pub mod guess;
pub mod http;
pub mod id;
pub mod jws;
pub mod key;
pub mod limit;
pub mod logging;
pub mod maintenance;
mod owner;
pub mod password;
pub mod pool;
pub mod principal;
pub mod scope;
pub mod secrets;
pub mod session;
pub mod sharded;
pub mod store;
pub mod token;
pub mod trust;
pub mod usage;
pub mod user;
pub mod verification;
