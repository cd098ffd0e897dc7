//! The suite: the real server, on a real socket, with a real database; each story on SQLite and on PostgreSQL.
//!
//! [`service`] starts servers, [`openapi`] watches every answer, the other modules tell the stories.

mod audit;
mod auth;
mod authz;
mod client_address;
mod command_line;
mod cors;
mod ended_keys;
mod fairness;
mod front;
mod gateways;
mod guessing;
mod http2;
mod instances;
mod introspection;
mod key_life;
mod key_limits;
mod keys;
mod losers;
mod openapi;
mod passwords;
mod patience;
mod plans;
mod pooler;
mod process;
mod protected;
mod readme;
mod refresh;
mod service_tokens;
mod sessions;
mod sqlite_files;
mod static_files;
mod stores;
mod tls;
mod tokens;
mod usage;
mod verification;
mod writes;
