//! Connections: which clients get one, what each is doing and by when it must get on, and the two versions of HTTP on
//! it.

mod heads;
mod http1;
mod http2;
mod http2_body;
mod http2_frames;
pub mod serve;
mod socket;
mod state;
pub mod table;
