//! Between the transactions that write deliveries and the thread that looks for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::base::sharded::lock;
use crate::outbox::settings::Reach;

/// What instances send each other in place of the id of something that changed: there are deliveries.
pub(crate) const CALL: Uuid = Uuid::nil();

/// What a transaction knows of the outbox, and how its commit wakes the deliverer of this process.
#[derive(Debug, Default)]
pub struct Outlet {
    reach: Reach,
    is_woken: Mutex<bool>,
    woken: Condvar,
    is_served: AtomicBool,
}

impl Outlet {
    pub fn new(reach: Reach) -> Outlet {
        Outlet { reach, ..Outlet::default() }
    }

    pub(crate) fn reach(&self) -> Reach {
        self.reach
    }

    /// Whether this process has a deliverer. If it has none, the others have to be called.
    pub(crate) fn is_served(&self) -> bool {
        self.is_served.load(Ordering::Relaxed)
    }

    pub(crate) fn serve(&self, is_served: bool) {
        self.is_served.store(is_served, Ordering::Relaxed);
    }

    pub(crate) fn wake(&self) {
        *lock(&self.is_woken) = true;
        self.woken.notify_all();
    }

    /// Waits to be woken, at most so long. False: it was not.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        let end = Instant::now() + at_most;
        let mut is_woken = lock(&self.is_woken);
        while !*is_woken {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            is_woken = self.woken.wait_timeout(is_woken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *is_woken = false;
        true
    }
}
