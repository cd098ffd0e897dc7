//! What the audit trail needs of a database. The other stores record the events of their changes themselves.
//!
//! Every method is one transaction: done as a whole when it returns `Ok`, not at all or unknown when it returns an
//! error.

use crate::audit::event::{Event, Filter};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::{EventId, UserId};

/// Events.
pub trait EventStore: Send + Sync {
    /// Writes events of failures. The count of one that is already stored is added to it.
    fn record_failures(&self, failures: &[Event]) -> Result<(), StoreError>;

    /// Up to `limit` events of the user's account, newest first, from the one before `before`. If `before` is not
    /// an event of theirs, there are none.
    fn events_of(&self, user: UserId, before: Option<EventId>, limit: i64) -> Result<Vec<Event>, StoreError>;

    /// Up to `limit` events that pass the filter, oldest first, from the one after `after`.
    fn events(
        &self,
        filter: &Filter,
        after: Option<(Timestamp, EventId)>,
        limit: i64,
    ) -> Result<Vec<Event>, StoreError>;

    /// Up to `limit` events that pass the filter, newest first, from the one after `after` in this order. `None`: there
    /// is no event `after`.
    fn newest_events(
        &self,
        filter: &Filter,
        after: Option<EventId>,
        limit: i64,
    ) -> Result<Option<Vec<Event>>, StoreError>;

    /// Deletes up to a thousand events from before `before`. False: there were none.
    fn prune_events(&self, before: Timestamp) -> Result<bool, StoreError>;
}
