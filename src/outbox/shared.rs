//! What the threads that deliver share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::base::sharded::lock;
use crate::outbox::outlet::Outlet;
use crate::outbox::slots::{Slots, Use};
use crate::outbox::store::{Due, OutboxStore};

/// What the threads share.
pub(super) struct Shared {
    pub store: Arc<dyn OutboxStore>,
    pub outlet: Arc<Outlet>,
    slots: Mutex<Slots>,
    /// Mails that were taken and of which nothing is recorded yet.
    mails: Mutex<Vec<Due>>,
    is_stopping: AtomicBool,
}

impl Shared {
    pub(super) fn new(store: Arc<dyn OutboxStore>, at_once: usize) -> Shared {
        let outlet = store.outlet();
        let slots = Mutex::new(Slots::new(at_once));
        Shared { store, outlet, slots, mails: Mutex::default(), is_stopping: AtomicBool::new(false) }
    }

    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// How many slots are free for this.
    pub(super) fn free(&self, what: Use) -> usize {
        lock(&self.slots).free(what)
    }

    pub(super) fn used(&self) -> usize {
        lock(&self.slots).used()
    }

    /// Remembers mails that were taken.
    pub(super) fn hold(&self, mails: &[Due]) {
        lock(&self.mails).extend_from_slice(mails);
    }

    /// Forgets the mails of these places.
    pub(super) fn let_go(&self, places: &[i64]) {
        lock(&self.mails).retain(|due| !places.contains(&due.place));
    }

    pub(super) fn held(&self) -> Vec<Due> {
        lock(&self.mails).clone()
    }

    pub(super) fn note_mail(&self, is_slow: bool) {
        lock(&self.slots).mail_is_slow = is_slow;
    }
}

/// A slot that is given back when this is dropped.
pub(super) struct Slot {
    pub shared: Arc<Shared>,
    what: Use,
}

impl Slot {
    pub(super) fn take(shared: &Arc<Shared>, what: Use) -> Slot {
        lock(&shared.slots).take(what);
        Slot { shared: shared.clone(), what }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.shared.slots).give_back(self.what);
        self.shared.outlet.wake();
    }
}
