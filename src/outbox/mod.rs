//! The outbox: what is to be delivered to webhooks and by mail. It is written in the transaction of the change that it tells of.

pub mod delivery;
