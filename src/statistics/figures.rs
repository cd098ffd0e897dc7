//! The figures.

use crate::base::clock::Timestamp;
use crate::keys::usage::Counts;

/// What the installation has at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// People who can log in.
    pub active_users: u64,
    pub inactive_users: u64,
    /// Service accounts, active or not.
    pub services: u64,
    /// Sessions that have neither ended nor expired.
    pub sessions: u64,
    /// Keys that would be admitted now.
    pub usable_keys: u64,
    /// Those of them that expire soon.
    pub expiring_keys: u64,
}

/// What everyone together did from `start` on: in an hour, or in a step of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    pub start: Timestamp,
    pub uses: Counts,
    pub logins: u64,
    pub failed_logins: u64,
}

impl Activity {
    pub(crate) fn none(start: Timestamp) -> Activity {
        Activity { start, uses: Counts::default(), logins: 0, failed_logins: 0 }
    }

    pub(crate) fn add(&mut self, other: &Activity) {
        self.uses.add_all(&other.uses);
        self.logins = self.logins.saturating_add(other.logins);
        self.failed_logins = self.failed_logins.saturating_add(other.failed_logins);
    }
}
