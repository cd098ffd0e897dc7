//! What every room may use: the clock, ids, errors, threads and files. It uses no other room.

pub mod clock;
pub mod data_key;
pub mod deadline;
pub mod duration;
pub mod error;
pub mod files;
pub mod form_encoding;
pub mod id;
pub(crate) mod kept;
pub mod logging;
pub mod metadata;
pub mod network;
pub mod page;
pub mod period;
pub mod pool;
pub(crate) mod random;
pub mod roots;
pub mod sealing;
pub mod secret;
pub mod sharded;
pub mod tls_verifier;
