//! When and how often keys are used: noted in memory by requests, written to the store once a second by one thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::error::Error;
use crate::base::id::{KeyId, UserId};
use crate::base::sharded::{Sharded, lock};
use crate::keys::store::UsageStore;
use crate::keys::usage::{HOUR, HourOfUse, Outcome};

/// What is to be written of one key.
struct KeyUse {
    latest: HourOfUse,
    /// Few: hours that began while the store was away.
    earlier: Vec<HourOfUse>,
}

impl KeyUse {
    fn new(hour: Timestamp) -> KeyUse {
        KeyUse { latest: HourOfUse::new(hour), earlier: Vec::new() }
    }

    fn of_hour(&mut self, hour: Timestamp) -> &mut HourOfUse {
        if self.latest.hour != hour {
            match self.earlier.iter().position(|known| known.hour == hour) {
                Some(index) => std::mem::swap(&mut self.latest, &mut self.earlier[index]),
                None => self.earlier.push(std::mem::replace(&mut self.latest, HourOfUse::new(hour))),
            }
        }
        &mut self.latest
    }

    fn add(&mut self, noted: &HourOfUse) {
        let known = self.of_hour(noted.hour);
        known.counts.add_all(&noted.counts);
        known.last_allowed = known.last_allowed.max(noted.last_allowed);
    }

    fn hours(&self) -> impl Iterator<Item = &HourOfUse> {
        self.earlier.iter().chain([&self.latest])
    }
}

type Uses = HashMap<KeyId, KeyUse>;

/// Keys of which uses are kept while the store is away; those of further keys are not counted.
const KEPT: usize = 200_000;
/// Keys for which memory is kept while nothing happens.
const ROOM: usize = 1024;

pub struct UsageCounter {
    noted: Sharded<Uses>,
    /// What has been taken from the shards and is not known to be written.
    unwritten: Mutex<Uses>,
    /// Odd while something is on its way from the shards to the store: in that time it may be seen twice.
    writes: AtomicU64,
    store: Arc<dyn UsageStore>,
    /// How long counts are kept.
    retention: Duration,
}

/// While it is there, [`UsageCounter::writes`] is odd; also when it goes with a panic.
struct Writing<'a>(&'a AtomicU64);

impl Writing<'_> {
    fn begin(writes: &AtomicU64) -> Writing<'_> {
        writes.fetch_add(1, Ordering::SeqCst);
        Writing(writes)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl UsageCounter {
    pub fn new(store: Arc<dyn UsageStore>, retention: Duration) -> UsageCounter {
        UsageCounter {
            noted: Sharded::default(),
            unwritten: Mutex::default(),
            writes: AtomicU64::new(0),
            store,
            retention,
        }
    }

    pub fn note(&self, key: KeyId, outcome: Outcome, at: Timestamp) {
        let hour = at.start_of(HOUR);
        let mut noted = self.noted.mine();
        let known = noted.entry(key).or_insert_with(|| KeyUse::new(hour)).of_hour(hour);
        known.counts.add(outcome, 1);
        if outcome == Outcome::Allowed {
            known.last_allowed = known.last_allowed.max(Some(at));
        }
    }

    /// What is not written yet of this key; an hour may be there more than once.
    fn pending(&self, key: KeyId) -> Vec<HourOfUse> {
        let mut pending = Vec::new();
        for uses in self.noted.all().chain([&self.unwritten]) {
            if let Some(known) = lock(uses).get(&key) {
                pending.extend(known.hours());
            }
        }
        pending
    }

    /// Reads from the store, and gives it together with what is pending of these keys: nothing is missed, and nothing
    /// counted twice.
    pub fn with_pending<T>(
        &self,
        read: impl Fn() -> Result<T, Error>,
        keys: impl Fn(&mut T) -> Vec<KeyId>,
    ) -> Result<(T, Vec<Vec<HourOfUse>>), Error> {
        // A store that hangs while it writes is not waited for.
        const TRIES: usize = 5;
        let mut tried = 0;
        loop {
            let before = self.writes.load(Ordering::SeqCst);
            let mut stored = read()?;
            let pending = keys(&mut stored).into_iter().map(|key| self.pending(key)).collect();
            tried += 1;
            if (before.is_multiple_of(2) && before == self.writes.load(Ordering::SeqCst)) || tried == TRIES {
                return Ok((stored, pending));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is written of the use of the owner's key from `from` up to `to`. `None`: they have no such key.
    pub fn stored(
        &self,
        owner: UserId,
        key: KeyId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Vec<HourOfUse>>, Error> {
        Ok(self.store.usage_of(owner, key, from, to)?)
    }

    /// Writes what was noted, in one transaction. What cannot be written is kept for the next time.
    pub fn flush(&self) -> Result<(), Error> {
        let _writing = Writing::begin(&self.writes);
        self.write()
    }

    fn write(&self) -> Result<(), Error> {
        let mut unwritten = lock(&self.unwritten);
        for shard in self.noted.all() {
            // Under both locks: `pending` never misses what moves from one to the other.
            let mut noted = lock(shard);
            for (key, uses) in noted.drain() {
                let full = unwritten.len() >= KEPT;
                match unwritten.get_mut(&key) {
                    Some(known) => uses.hours().for_each(|hour| known.add(hour)),
                    None if full => {}
                    None => {
                        unwritten.insert(key, uses);
                    }
                }
            }
            // A burst is over some day, and its memory is to be had again.
            noted.shrink_to(ROOM);
        }
        if unwritten.is_empty() {
            unwritten.shrink_to(ROOM);
            return Ok(());
        }
        let mut uses: Vec<(KeyId, HourOfUse)> =
            unwritten.iter().flat_map(|(key, uses)| uses.hours().map(|hour| (*key, *hour))).collect();
        drop(unwritten);
        // The same order in every instance, so that no two of them wait for each other's rows.
        uses.sort_unstable_by_key(|(key, noted)| (*key, noted.hour));
        self.store.record_uses(&uses)?;
        // Only this thread adds to it.
        lock(&self.unwritten).clear();
        Ok(())
    }

    /// Forgets some of what is kept no longer. False: there was nothing.
    pub fn prune(&self, now: Timestamp) -> Result<bool, Error> {
        Ok(self.store.prune_usage(now.minus(self.retention))?)
    }
}
