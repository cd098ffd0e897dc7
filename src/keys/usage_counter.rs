//! When and how often keys are used. Requests note it in memory; a job writes it to the store once a second.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::error::Error;
use crate::base::id::{KeyId, UserId};
use crate::base::period::HOUR;
use crate::base::sharded::{Sharded, lock};
use crate::keys::store::UsageStore;
use crate::keys::usage::{HourOfUse, Outcome};

/// The unwritten use of one key.
struct KeyUse {
    latest: HourOfUse,
    /// Usually none. While the store cannot be reached, earlier hours stay unwritten.
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

/// How many keys' uses are kept while the store cannot be reached. Uses of further keys are not counted.
const KEPT: usize = 200_000;
/// For how many keys each table keeps its memory after their uses are written.
const ROOM: usize = 1024;

pub struct UsageCounter {
    noted: Sharded<Uses>,
    /// Uses that have been taken from the shards and may not be written yet.
    unwritten: Mutex<Uses>,
    /// Odd while uses move from the shards to the store. A reader may see them in both meanwhile.
    writes: AtomicU64,
    store: Arc<dyn UsageStore>,
    /// How long counts are kept.
    retention: Duration,
}

/// [`UsageCounter::writes`] is odd until this is dropped, which a panic does too.
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
    pub(crate) fn new(store: Arc<dyn UsageStore>, retention: Duration) -> UsageCounter {
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

    /// The key's unwritten uses. An hour may be in it more than once.
    fn pending(&self, key: KeyId) -> Vec<HourOfUse> {
        let mut pending = Vec::new();
        for uses in self.noted.all().chain([&self.unwritten]) {
            if let Some(known) = lock(uses).get(&key) {
                pending.extend(known.hours());
            }
        }
        pending
    }

    /// Reads from the store, and returns that with the keys' unwritten uses. Reads again if a write happens meanwhile,
    /// so that no use is missed and none counted twice.
    pub(crate) fn with_pending<T>(
        &self,
        read: impl Fn() -> Result<T, Error>,
        keys: impl Fn(&mut T) -> Vec<KeyId>,
    ) -> Result<(T, Vec<Vec<HourOfUse>>), Error> {
        // A write may hang. After these tries, the result may count uses twice.
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
    pub(crate) fn stored(
        &self,
        owner: UserId,
        key: KeyId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Vec<HourOfUse>>, Error> {
        Ok(self.store.usage_of(owner, key, from, to)?)
    }

    /// Writes the noted uses in one transaction. If that fails, they are kept for the next time.
    pub fn flush(&self) -> Result<(), Error> {
        let _writing = Writing::begin(&self.writes);
        self.write()
    }

    fn write(&self) -> Result<(), Error> {
        let mut unwritten = lock(&self.unwritten);
        for shard in self.noted.all() {
            // Uses move under both locks, so `pending` never misses one.
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
            // Frees what a burst has allocated.
            noted.shrink_to(ROOM);
        }
        if unwritten.is_empty() {
            unwritten.shrink_to(ROOM);
            return Ok(());
        }
        let mut uses: Vec<(KeyId, HourOfUse)> =
            unwritten.iter().flat_map(|(key, uses)| uses.hours().map(|hour| (*key, *hour))).collect();
        drop(unwritten);
        // All instances write in the same order, so that no two of them deadlock.
        uses.sort_unstable_by_key(|(key, noted)| (*key, noted.hour));
        self.store.record_uses(&uses)?;
        // Only this thread, which runs the jobs, adds to it.
        lock(&self.unwritten).clear();
        Ok(())
    }

    /// Deletes a part of the counts that are older than the retention. False: there were none.
    pub fn prune(&self, now: Timestamp) -> Result<bool, Error> {
        Ok(self.store.prune_usage(now.minus(self.retention))?)
    }
}
