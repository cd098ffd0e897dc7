//! HTTP: bytes on a socket to a [`request::Request`], and a [`response::Response`] back to bytes.
//!
//! Only [`server`], [`connection`] and the private modules know hyper, h2, rustls and tokio; everything above them is
//! synchronous.

pub mod access_log;
pub mod client_address;
pub mod connection;
pub mod cors;
mod exchange;
pub mod form;
mod heads;
mod held;
mod http1;
mod http2;
pub mod lanes;
pub mod limits;
mod places;
pub mod request;
pub mod response;
pub mod router;
pub mod server;
pub mod settings;
pub mod tls;
mod watch;
