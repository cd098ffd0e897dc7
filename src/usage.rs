//! When keys were used: noted in memory by requests, written to the store once a second by one thread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Timestamp;
use crate::error::Error;
use crate::id::KeyId;
use crate::store::Store;

/// Enough that threads seldom meet.
const SHARDS: usize = 16;

pub struct Usage {
    shards: [Mutex<HashMap<KeyId, Timestamp>>; SHARDS],
    store: Arc<dyn Store>,
}

impl Usage {
    pub fn new(store: Arc<dyn Store>) -> Usage {
        Usage { shards: std::array::from_fn(|_| Mutex::default()), store }
    }

    pub fn note(&self, key: KeyId, at: Timestamp) {
        let mut shard = self.shard(key);
        let last = shard.entry(key).or_insert(at);
        *last = at.max(*last);
    }

    /// The last use that is not written yet.
    pub fn pending(&self, key: KeyId) -> Option<Timestamp> {
        self.shard(key).get(&key).copied()
    }

    /// Writes what was noted, in one transaction. What cannot be written is kept for the next time.
    pub fn flush(&self) -> Result<(), Error> {
        // Read first, forget afterwards: in between, `pending` must not lose sight of a use.
        let mut uses: Vec<(KeyId, Timestamp)> = Vec::new();
        for shard in &self.shards {
            uses.extend(lock(shard).iter().map(|(key, at)| (*key, *at)));
        }
        if uses.is_empty() {
            return Ok(());
        }
        // The same order in every instance, so that no two of them wait for each other's rows.
        uses.sort_unstable();
        self.store.record_uses(&uses)?;
        for (key, at) in uses {
            let mut shard = self.shard(key);
            if shard.get(&key) == Some(&at) {
                shard.remove(&key);
            }
        }
        Ok(())
    }

    fn shard(&self, key: KeyId) -> MutexGuard<'_, HashMap<KeyId, Timestamp>> {
        // The last bytes of a version 7 id are random.
        lock(&self.shards[usize::from(key.0.as_bytes()[15]) % SHARDS])
    }
}

fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
