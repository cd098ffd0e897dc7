//! HTTP: bytes on a socket to a [`request::Request`], and a [`response::Response`] back to bytes.
//!
//! Only [`server`], [`connection`], `exchange` and `watch` know hyper and tokio; everything above them is synchronous.

pub mod connection;
mod exchange;
pub mod lanes;
pub mod request;
pub mod response;
pub mod router;
pub mod server;
mod watch;
