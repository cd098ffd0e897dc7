//! A value in many parts, one for each thread or for some subjects each, so that threads which change it do not wait for each
//! other; whoever wants all of them looks at one after the other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// More than there are busy threads on most machines: two that share one merely wait for each other at times.
pub const SHARDS: usize = 64;

pub struct Sharded<T> {
    shards: Vec<Shard<T>>,
}

/// On cache lines of its own: threads must not slow each other by being neighbours.
#[repr(align(128))]
struct Shard<T>(Mutex<T>);

impl<T: Default> Default for Sharded<T> {
    fn default() -> Sharded<T> {
        Sharded { shards: (0..SHARDS).map(|_| Shard(Mutex::default())).collect() }
    }
}

impl<T> Sharded<T> {
    /// This thread's own.
    pub fn mine(&self) -> MutexGuard<'_, T> {
        thread_local! {
            static INDEX: usize = {
                static NEXT: AtomicUsize = AtomicUsize::new(0);
                NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
            };
        }
        lock(&self.shards[INDEX.with(|index| *index)].0)
    }

    /// The one of this number.
    pub fn of(&self, number: usize) -> MutexGuard<'_, T> {
        lock(&self.shards[number % SHARDS].0)
    }

    /// All of them, each to be locked in its turn.
    pub fn all(&self) -> impl Iterator<Item = &Mutex<T>> {
        self.shards.iter().map(|shard| &shard.0)
    }
}

/// Whoever panicked left nothing half done: changes are small, and the values counts and lines.
pub fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
