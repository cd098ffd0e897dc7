//! Keeping the outbox small.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::sharded::lock;
use crate::outbox::health::MOST_WAITING;
use crate::outbox::store::OutboxStore;

/// How many deliveries that have ended are kept of an endpoint: as many as may wait for it.
const MOST_ENDED: i64 = MOST_WAITING;

pub struct Outbox {
    store: Arc<dyn OutboxStore>,
    retention: Duration,
    /// The endpoint with which [`Outbox::trim`] continues.
    trimming: Mutex<Uuid>,
    clock: Clock,
}

impl Outbox {
    pub(crate) fn new(store: Arc<dyn OutboxStore>, retention: Duration, clock: Clock) -> Outbox {
        Outbox { store, retention, trimming: Mutex::new(Uuid::nil()), clock }
    }

    /// Deletes a part of the deliveries that are older than the retention. False: there were none.
    pub fn prune(&self) -> Result<bool, Error> {
        Ok(self.store.prune_deliveries(self.clock.now().minus(self.retention))?)
    }

    /// Goes from endpoint to endpoint and deletes a part of the ended deliveries that exceed the number that is kept of each.
    /// Each call continues where the last one stopped. False: all endpoints have been seen.
    pub fn trim(&self) -> Result<bool, Error> {
        let mut trimming = lock(&self.trimming);
        let next = self.store.trim_deliveries(*trimming, MOST_ENDED)?;
        *trimming = next.unwrap_or_default();
        Ok(next.is_some())
    }
}
