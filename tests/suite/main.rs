//! The stories: the real server, on a real socket, with a real database; most of them on SQLite and on PostgreSQL.
//!
//! The harness starts the servers, and holds every answer against `static/openapi.json`. What a hostile network or a failing
//! machine does is in `tests/hostile`.

mod admin;
mod algorithms;
mod audit;
mod auth;
mod authz;
mod bearer_keys;
mod client_address;
mod command_line;
mod concurrent_changes;
mod cors;
mod discovery;
mod documents;
mod ended_keys;
mod fairness;
mod front;
mod gateways;
mod grants;
mod http2;
mod instances;
mod introspection;
mod key_addresses;
mod key_details;
mod key_expiry;
mod key_life;
mod key_limits;
mod key_lists;
mod key_prefix;
mod keys;
mod lock_waits;
mod mail;
mod openapi;
mod outbox;
mod passwords;
mod pgbouncer;
mod process;
mod protected;
mod query_plans;
mod refresh;
mod second_factor;
mod service_tokens;
mod sessions;
mod spellings;
mod sqlite_files;
mod static_files;
mod stores;
mod throttling;
mod tls;
mod tokens;
mod usage;
mod verification;
mod webhook_addresses;
mod webhooks;
mod write_limits;
