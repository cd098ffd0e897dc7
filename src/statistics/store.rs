//! What the figures need of a database. The other stores add to them when they write uses of keys and failed logins.
//!
//! Every method is one transaction: done as a whole when it returns `Ok`, not at all or unknown when it returns an
//! error.

use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::statistics::figures::{Activity, Inventory};

/// Figures of the whole installation.
pub trait StatisticsStore: Send + Sync {
    /// Counts what there is at `now`, and the usable keys that expire before `soon`. Reads all of it.
    fn inventory(&self, now: Timestamp, soon: Timestamp) -> Result<Inventory, StoreError>;

    /// The hours from `from` up to `to` in which something was counted, in order.
    fn activity(&self, from: Timestamp, to: Timestamp) -> Result<Vec<Activity>, StoreError>;

    /// Adds successful logins, by the hour.
    fn record_logins(&self, logins: &[(Timestamp, u64)]) -> Result<(), StoreError>;

    /// Deletes up to a thousand figures of hours before `before`. False: there were none.
    fn prune_activity(&self, before: Timestamp) -> Result<bool, StoreError>;
}
