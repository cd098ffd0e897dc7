//! The hostile suite: everything that a network or a machine does to a server which stands at its edge, done to the real
//! program.
//!
//! What a network does is done to one process that lives through all of these cases ([`target`]): after each of them it is
//! the same process, has never had more than 200 MB, and serves a normal client. `--nocapture` shows its peak. Cases about
//! HTTP/2, descriptors, disks and databases have a process of their own each, and ask the same of it; `unicode`,
//! `forged_tokens` and errors of PostgreSQL's own are told of a server within the test.

// The processes are looked at through /proc.
#![cfg(target_os = "linux")]

mod target;

mod crowds;
mod descriptors;
mod forged_tokens;
mod garbage;
mod heads;
mod json_bodies;
mod paths;
mod pipelines;
mod slow_clients;
mod smuggling;
mod streams;
mod unicode;
mod unread_answers;

mod disks;
mod frozen_postgres;
mod hanging_store;
mod load;
mod postgres;
mod postgres_pair;
