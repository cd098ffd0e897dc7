//! The hostile suite: everything that a network or a machine does to a server which stands at its edge, done to the real
//! program.
//!
//! What a network does is done to one process that lives through all of these cases ([`target`]): after each of them it is
//! the same process, has never had more than 200 MB, and serves a normal client. `--nocapture` shows its peak. Cases about
//! HTTP/2, descriptors, disks and databases have a process of their own each, and ask the same of it; `unicode` and errors
//! of PostgreSQL's own are told of a server within the test.

// The processes are looked at through /proc.
#![cfg(target_os = "linux")]

mod target;

mod crowds;
mod descriptors;
mod garbage;
mod heads;
mod json;
mod paths;
mod pipelines;
mod slow;
mod smuggling;
mod streams;
mod unicode;
mod untaken;

mod disks;
mod frozen;
mod load;
mod postgres;
mod postgres_pair;
mod waiting;

#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the harness of tests/suite, of which this suite uses a part"
)]
#[path = "../suite"]
mod harness {
    pub mod http_client;
    pub mod postgres_cluster;
    pub mod process {
        pub mod program;
    }
    pub mod relay;
    pub mod service;
    pub mod tls_client;
    pub mod wire;
}
use harness::{http_client, postgres_cluster, process, relay, service, tls_client, wire};

/// Answers are held against the API's description in `tests/suite`; here it counts that they come.
mod openapi {
    pub fn check(_: &str, _: &str, _: &crate::http_client::Answer) {}
}
