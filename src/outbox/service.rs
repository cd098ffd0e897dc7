//! Keeping the outbox small.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::outbox::store::OutboxStore;

pub struct Outbox {
    store: Arc<dyn OutboxStore>,
    retention: Duration,
    clock: Clock,
}

impl Outbox {
    pub(crate) fn new(store: Arc<dyn OutboxStore>, retention: Duration, clock: Clock) -> Outbox {
        Outbox { store, retention, clock }
    }

    /// Deletes a part of the deliveries that are older than the retention. False: there were none.
    pub fn prune(&self) -> Result<bool, Error> {
        Ok(self.store.prune_deliveries(self.clock.now().minus(self.retention))?)
    }
}
