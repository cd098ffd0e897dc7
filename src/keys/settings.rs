//! The settings of this room.

use std::time::Duration;

use crate::keys::written_form::KeyPrefix;

#[derive(Clone, Debug, Default)]
pub struct KeySettings {
    /// What new keys begin with.
    pub prefix: KeyPrefix,
    /// How many keys one owner may have, not counting those that have ended.
    pub max_keys: u32,
    /// How long a key is kept after it has ended.
    pub retention: Duration,
    /// How long the hourly counts of use are kept.
    pub usage_retention: Duration,
}
