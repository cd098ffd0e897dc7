//! When and how often keys are used: noted in memory by requests, written to the store once a second by one thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::Error;
use crate::id::KeyId;
use crate::store::Store;

pub const HOUR: Duration = Duration::from_secs(60 * 60);
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How the presentation of a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Allowed,
    /// Revoked, or its owner is inactive.
    Disabled,
    Expired,
}

impl Outcome {
    /// As stored.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Allowed => "allowed",
            Outcome::Disabled => "disabled",
            Outcome::Expired => "expired",
        }
    }

    pub fn parse(name: &str) -> Option<Outcome> {
        [Outcome::Allowed, Outcome::Disabled, Outcome::Expired].into_iter().find(|outcome| outcome.name() == name)
    }
}

/// How many presentations of one key ended so in the hour that begins at `hour`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub hour: Timestamp,
    pub outcome: Outcome,
    pub count: u64,
}

/// What is to be written of one key.
#[derive(Clone, Debug, Default)]
pub struct KeyUse {
    pub last_allowed: Option<Timestamp>,
    pub counts: Vec<Count>,
}

impl KeyUse {
    fn add(&mut self, hour: Timestamp, outcome: Outcome, count: u64) {
        // One or two hours, few outcomes: shorter than any map.
        match self.counts.iter_mut().find(|known| known.hour == hour && known.outcome == outcome) {
            Some(known) => known.count += count,
            None => self.counts.push(Count { hour, outcome, count }),
        }
    }

    fn merge(&mut self, other: &KeyUse) {
        self.last_allowed = self.last_allowed.max(other.last_allowed);
        for count in &other.counts {
            self.add(count.hour, count.outcome, count.count);
        }
    }
}

type Uses = HashMap<KeyId, KeyUse>;

/// More than there are I/O threads, so that no two of them share one.
const SHARDS: usize = 64;
/// Keys of which uses are kept while the store is away; those of further keys are not counted.
const KEPT: usize = 200_000;

pub struct Usage {
    /// Each thread notes in its own.
    shards: Vec<Mutex<Uses>>,
    /// What has been taken from the shards and is not known to be written.
    unwritten: Mutex<Uses>,
    /// Odd while something is being written: in that time it may be seen twice, in memory and in the store.
    writes: AtomicU64,
    store: Arc<dyn Store>,
}

impl Usage {
    pub fn new(store: Arc<dyn Store>) -> Usage {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Usage { shards, unwritten: Mutex::default(), writes: AtomicU64::new(0), store }
    }

    pub fn note(&self, key: KeyId, outcome: Outcome, at: Timestamp) {
        thread_local! {
            static SHARD: usize = {
                static NEXT: AtomicUsize = AtomicUsize::new(0);
                NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
            };
        }
        let mut shard = lock(&self.shards[SHARD.with(|shard| *shard)]);
        let known = shard.entry(key).or_default();
        if outcome == Outcome::Allowed {
            known.last_allowed = known.last_allowed.max(Some(at));
        }
        known.add(at.start_of(HOUR), outcome, 1);
    }

    /// What is not written yet of this key.
    fn pending(&self, key: KeyId) -> KeyUse {
        let mut pending = KeyUse::default();
        for uses in self.shards.iter().chain([&self.unwritten]) {
            if let Some(known) = lock(uses).get(&key) {
                pending.merge(known);
            }
        }
        pending
    }

    /// Reads from the store, and gives it together with what is pending of these keys: nothing is missed, and nothing
    /// counted twice.
    pub fn with_pending<T>(
        &self,
        read: impl Fn() -> Result<T, Error>,
        keys: impl Fn(&T) -> Vec<KeyId>,
    ) -> Result<(T, Vec<KeyUse>), Error> {
        // A store that hangs while it writes is not waited for.
        const TRIES: usize = 50;
        let mut tried = 0;
        loop {
            let before = self.writes.load(Ordering::SeqCst);
            let stored = read()?;
            let pending = keys(&stored).into_iter().map(|key| self.pending(key)).collect();
            tried += 1;
            if (before.is_multiple_of(2) && before == self.writes.load(Ordering::SeqCst)) || tried == TRIES {
                return Ok((stored, pending));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Writes what was noted, in one transaction. What cannot be written is kept for the next time.
    pub fn flush(&self) -> Result<(), Error> {
        let mut unwritten = lock(&self.unwritten);
        for shard in &self.shards {
            // Under both locks: `pending` never misses what moves from one to the other.
            let mut shard = lock(shard);
            for (key, noted) in shard.drain() {
                let full = unwritten.len() >= KEPT;
                match unwritten.get_mut(&key) {
                    Some(known) => known.merge(&noted),
                    None if full => {}
                    None => {
                        unwritten.insert(key, noted);
                    }
                }
            }
        }
        if unwritten.is_empty() {
            return Ok(());
        }
        // The same order in every instance, so that no two of them wait for each other's rows.
        let mut uses: Vec<(KeyId, KeyUse)> = unwritten.iter().map(|(key, noted)| (*key, noted.clone())).collect();
        drop(unwritten);
        uses.sort_unstable_by_key(|(key, _)| *key);
        self.writes.fetch_add(1, Ordering::SeqCst);
        let outcome = self.store.record_uses(&uses);
        if outcome.is_ok() {
            // Only this thread adds to it.
            lock(&self.unwritten).clear();
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        Ok(outcome?)
    }

    /// Forgets what was counted before this time.
    pub fn prune(&self, before: Timestamp) -> Result<(), Error> {
        Ok(self.store.prune_usage(before)?)
    }
}

fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
