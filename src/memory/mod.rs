//! What the hot path remembers, so that a verified request touches no database: found values and when they changed,
//! buckets of rate limits, bounded tables.

pub mod bounded;
pub mod changes;
pub mod limiter;
pub mod lookup;
pub mod settings;
