//! When what changed last, so that nothing that was read before is used any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// The longest that a verdict is given from memory.
pub const MAX_AGE: Duration = Duration::from_secs(5);

/// A point in the process's own time, which nobody can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// What may have become another than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key, session or user with this id.
    Of(Uuid),
    Everything,
}

/// When what was changed last, without a lock and in a fixed amount of memory.
///
/// Ids share slots: a change makes a few things that have not changed be read again.
pub struct Changes {
    started: Instant,
    slots: Box<[AtomicU64]>,
    /// What was read up to this moment is worth nothing.
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
    pub fn now(&self) -> Moment {
        // From 1 on: 0 is the moment of a change that has not come yet.
        Moment(self.started.elapsed().as_nanos() as u64 + 1)
    }

    /// When this returns, nothing that was read before is used any more.
    pub fn note(&self, change: Change) {
        let slot = match change {
            Change::Of(id) => self.slot(id),
            Change::Everything => &self.everything,
        };
        slot.fetch_max(self.now().0, Ordering::SeqCst);
    }

    /// Whether what was read at `read` of these ids may still be used: it is not too old, and nothing of it has changed.
    pub fn still_holds(&self, read: Moment, ids: [Uuid; 2]) -> bool {
        age(read, self.now()) < MAX_AGE
            && read.0 > self.everything.load(Ordering::SeqCst)
            && ids.iter().all(|id| read.0 > self.slot(*id).load(Ordering::SeqCst))
    }

    fn slot(&self, id: Uuid) -> &AtomicU64 {
        // The last bytes of our ids are random.
        let bytes = id.as_bytes();
        &self.slots[usize::from(u16::from_be_bytes([bytes[14], bytes[15]])) % SLOTS]
    }
}

fn age(of: Moment, now: Moment) -> Duration {
    Duration::from_nanos(now.0.saturating_sub(of.0))
}
