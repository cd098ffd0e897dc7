//! What the hot path remembers.

use super::read::whole_number;
use crate::config::setting::{ALWAYS, Setting};

pub(super) static SETTINGS: &[Setting] = &[Setting {
    name: "CACHE_ENTRIES",
    default: Some("100000"),
    accepts: "1 to 10000000",
    meaning: "Most API keys that are remembered; the same number of sessions, and of verified access tokens",
    secret: false,
    counts: ALWAYS,
    read: |config, value| whole_number(value, 1..=10_000_000).map(|entries| config.memory.cache_entries = entries),
}];
