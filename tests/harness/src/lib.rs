//! What the stories (`tests/suite`), the hostile suite (`tests/hostile`), the benchmarks and the fuzz targets share.
//!
//! - [`service`] starts a server in the process of the test, [`program`] the program as its users run it.
//! - [`old_database`] puts a service's data into a database of an earlier version.
//! - [`postgres_cluster`] gives a fresh database to each of them, [`relay`] takes the link away.
//! - [`http_client`], [`tls_client`], [`wire`] and [`http2`] talk to a server: in whole requests, over TLS, byte by byte, and
//!   frame by frame.
//! - [`openapi`] holds each answer against the API's description.
//! - [`authenticator`] shows one-time codes.
//! - [`mail_server`] takes mail.
//! - [`forge`] makes tokens that the server would not sign.
//! - [`tools`] skips tests for want of a program that is not installed, and says so when the run ends.

pub mod authenticator;
pub mod forge;
pub mod http2;
pub mod http_client;
pub mod mail_server;
pub mod old_database;
pub mod openapi;
pub mod postgres_cluster;
pub mod program;
pub mod receiver;
pub mod relay;
pub mod service;
pub mod tls_client;
pub mod tools;
pub mod wire;
