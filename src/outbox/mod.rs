//! The outbox: what is to be delivered to webhooks and by mail. It is written in the transaction of the change that it tells
//! of.

pub mod body;
pub mod deliverer;
pub mod delivery;
pub mod health;
pub mod mail_turns;
pub mod outlet;
pub mod service;
pub mod settings;
mod shared;
mod slots;
pub mod store;
pub mod tries;
mod turns;
