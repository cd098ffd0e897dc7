//! API keys.

use super::read::{LIFETIMES, lifetime, whole_number};
use crate::config::setting::{ALWAYS, Setting};
use crate::keys::written_form::KeyPrefix;

pub(super) static SETTINGS: &[Setting] = &[
    Setting {
        name: "KEY_PREFIX",
        default: Some("sk"),
        accepts: "1 to 24 lower-case letters, digits and underscores",
        meaning: "What new API keys begin with, before a `_`; with another one than sk, they end in a checksum",
        secret: false,
        counts: ALWAYS,
        read: |config, value| KeyPrefix::parse(value).map(|prefix| config.keys.prefix = prefix).map_err(str::to_string),
    },
    Setting {
        name: "MAX_KEYS_PER_USER",
        default: Some("100"),
        accepts: "1 to 1000000",
        meaning: "Most API keys of one user, not counting revoked and expired ones",
        secret: false,
        counts: ALWAYS,
        read: |config, value| whole_number(value, 1..=1_000_000).map(|keys| config.keys.max_keys = keys),
    },
    Setting {
        name: "KEY_RETENTION",
        default: Some("90d"),
        accepts: LIFETIMES,
        meaning: "How long revoked and expired keys are kept; of one user, at most 10 times MAX_KEYS_PER_USER",
        secret: false,
        counts: ALWAYS,
        read: |config, value| lifetime(value).map(|span| config.keys.retention = span),
    },
    Setting {
        name: "USAGE_RETENTION",
        default: Some("90d"),
        accepts: LIFETIMES,
        meaning: "How long the hourly counts of each key's use are kept",
        secret: false,
        counts: ALWAYS,
        read: |config, value| lifetime(value).map(|span| config.keys.usage_retention = span),
    },
];
