//! The settings of this room.

use std::time::Duration;

#[derive(Clone, Copy, Debug, Default)]
pub struct KeySettings {
    /// How many keys one owner may have, not counting those that have ended.
    pub max_keys: u32,
    /// How long a key is kept after it has ended.
    pub retention: Duration,
    /// How long the hourly counts of use are kept.
    pub usage_retention: Duration,
}
