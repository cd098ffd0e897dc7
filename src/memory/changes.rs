//! When each key, session and user changed last, so that what was read before is not used any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// For how long something is answered from memory.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(5);

/// A point in the process's own monotonic time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The key, session or user with this id.
    Of(Uuid),
    Everything,
}

/// The time of the last change of each id, without a lock and in a fixed amount of memory.
///
/// Ids share slots, so a change also makes a few unchanged things be read again.
pub struct Changes {
    started: Instant,
    slots: Box<[AtomicU64]>,
    /// Everything that was read before this moment is out of date.
    everything: AtomicU64,
}

const SLOTS: usize = 4096;

impl Default for Changes {
    fn default() -> Changes {
        Changes {
            started: Instant::now(),
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            everything: AtomicU64::new(0),
        }
    }
}

impl Changes {
    pub(crate) fn now(&self) -> Moment {
        // Starts at 1, because 0 stands for "never changed".
        Moment(self.started.elapsed().as_nanos() as u64 + 1)
    }

    /// Records a change. Nothing that was read before is used once this returns.
    pub(crate) fn note(&self, change: Change) {
        let slot = match change {
            Change::Of(id) => self.slot(id),
            Change::Everything => &self.everything,
        };
        slot.fetch_max(self.now().0, Ordering::SeqCst);
    }

    /// Whether what was read at `read` may still be used: it is not too old, and none of these ids has changed since.
    pub(crate) fn still_holds(&self, read: Moment, ids: [Uuid; 2]) -> bool {
        age(read, self.now()) < MAX_AGE
            && read.0 > self.everything.load(Ordering::SeqCst)
            && ids.iter().all(|id| read.0 > self.slot(*id).load(Ordering::SeqCst))
    }

    fn slot(&self, id: Uuid) -> &AtomicU64 {
        // The last bytes of our ids are random, so they spread evenly.
        let bytes = id.as_bytes();
        &self.slots[usize::from(u16::from_be_bytes([bytes[14], bytes[15]])) % SLOTS]
    }
}

fn age(of: Moment, now: Moment) -> Duration {
    Duration::from_nanos(now.0.saturating_sub(of.0))
}
