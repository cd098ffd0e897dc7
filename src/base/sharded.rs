//! A value in many parts (shards), each with its own lock, so that threads which change it rarely wait for each other.
//! To read the whole value, lock one shard after the other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// More than most machines have busy threads. Two threads that share a shard only wait for each other at times.
pub(crate) const SHARDS: usize = 64;

pub(crate) struct Sharded<T> {
    shards: Vec<Shard<T>>,
}

/// Aligned to cache lines, so that threads which use neighbouring shards do not slow each other down.
#[repr(align(128))]
struct Shard<T>(Mutex<T>);

impl<T: Default> Default for Sharded<T> {
    fn default() -> Sharded<T> {
        Sharded { shards: (0..SHARDS).map(|_| Shard(Mutex::default())).collect() }
    }
}

impl<T> Sharded<T> {
    /// The shard of this thread.
    pub(crate) fn mine(&self) -> MutexGuard<'_, T> {
        thread_local! {
            static INDEX: usize = {
                static NEXT: AtomicUsize = AtomicUsize::new(0);
                NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
            };
        }
        lock(&self.shards[INDEX.with(|index| *index)].0)
    }

    /// The shard for this number.
    pub(crate) fn of(&self, number: usize) -> MutexGuard<'_, T> {
        lock(&self.shards[number % SHARDS].0)
    }

    /// All shards, to be locked one after the other.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Mutex<T>> {
        self.shards.iter().map(|shard| &shard.0)
    }
}

/// Ignores poisoning: what is kept behind these locks is never half changed when a thread panics.
pub(crate) fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
