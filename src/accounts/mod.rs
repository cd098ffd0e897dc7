//! Users and their sessions: signing up, logging in, passwords, and how often a password may be guessed.

pub mod address_change;
pub mod addresses;
pub mod changing;
pub mod creating;
pub mod email;
pub mod ending;
pub mod failures;
pub mod granting;
pub mod limits;
pub mod links;
pub mod mailed_links;
pub mod one_time;
pub mod operators;
pub mod passwords;
pub mod purposes;
pub mod recovery;
pub mod refresh;
pub mod second_factor;
pub mod session;
pub mod session_address;
pub mod sessions;
pub mod settings;
pub mod store;
pub mod throttling;
pub mod user;
pub mod users;
mod words;
