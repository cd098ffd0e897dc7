//! HTTP: bytes on a socket to a [`request::Request`], and a [`response::Response`] back to bytes.
//!
//! Only [`server`], [`connection`] and the private modules know hyper, h2, rustls and tokio; everything above them is
//! synchronous.

pub mod access_log;
mod ambiguity;
pub mod client_address;
mod client_memory;
pub mod connection;
pub mod cors;
mod exchange;
pub mod form;
mod front;
pub mod lanes;
pub mod limits;
pub mod page_headers;
pub mod request;
mod request_body;
pub mod response;
pub mod route;
pub mod router;
pub mod server;
pub mod settings;
pub mod tls;
