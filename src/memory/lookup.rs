//! A cache of keys and sessions in front of the store.
//!
//! An entry is used for [`crate::memory::changes::MAX_AGE`] at most, and not after what it holds has changed (see
//! [`Changes`]); a value that was read before a change but arrives after it is dropped. Callers who miss the same key
//! share one query, and keys that wait at the same time are fetched with one query.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use uuid::Uuid;

use crate::base::error::{Error, StoreError};
use crate::memory::changes::{Changes, Moment};

/// A value that [`Lookup`] can keep.
pub trait Cacheable: Send + Sync + 'static {
    /// The ids whose change makes the value out of date.
    fn ids(&self) -> [Uuid; 2];

    /// The length of its texts in bytes.
    fn text_bytes(&self) -> usize;
}

/// How many entries a value with so much text counts for, so that long texts do not take more memory than short ones.
pub(crate) fn places(text_bytes: usize) -> u64 {
    const A_PLACE: usize = 512;
    1 + (text_bytes / A_PLACE) as u64
}

#[derive(Clone)]
struct ByText;

impl<K, V: Cacheable> Weighter<K, (Moment, Arc<V>)> for ByText {
    fn weight(&self, _: &K, (_, value): &(Moment, Arc<V>)) -> u64 {
        places(value.text_bytes())
    }
}

/// The ids of a value that does not exist. Creating it needs no invalidation: ids and keys are random, so nobody asks
/// for one before it exists.
pub(crate) const NOTHING: [Uuid; 2] = [Uuid::nil(); 2];

/// Fetches the values of these keys from the store; a key without a value is left out.
pub(crate) type Fetch<K, V> = Box<dyn Fn(&[K]) -> Result<Vec<(K, V)>, StoreError> + Send + Sync>;

pub(crate) type Found<V> = Result<Option<Arc<V>>, Error>;

/// Called with what was found. It must return quickly.
pub(crate) type Answer<V> = Box<dyn FnOnce(Found<V>) + Send>;

fn wait_for<V>(receiver: Receiver<Found<V>>) -> Found<V> {
    receiver.recv().unwrap_or_else(|_| Err(Error::Internal("a lookup was dropped".to_string())))
}

/// The most keys in one query.
const BATCH: usize = 256;
/// The most callers that may wait; further ones get an error at once.
const WAITING: usize = 16 * 1024;
/// The most keys that are remembered not to exist. They have a table of their own, so that they do not displace others.
const UNKNOWN: usize = 4096;

/// Remembers values by key, and fetches them on threads of its own, once it is started.
pub struct Lookup<K, V> {
    shared: Arc<Shared<K, V>>,
}

struct Shared<K, V> {
    known: Cache<K, (Moment, Arc<V>), ByText>,
    unknown: Cache<K, Moment>,
    changes: Arc<Changes>,
    fetch: Fetch<K, V>,
    queue: Mutex<Queue<K, V>>,
    arrived: Condvar,
}

struct Queue<K, V> {
    /// The callers that wait for each key, also while it is being fetched.
    waiting: HashMap<K, Vec<Answer<V>>>,
    /// The keys that are not being fetched yet, in order.
    next: Vec<K>,
    waiters: usize,
    /// Sleeping threads. Waking costs a system call even if none sleeps.
    idle: usize,
    /// Whether there are threads that fetch. Not before the start, and not after the end.
    is_open: bool,
}

impl<K, V> Lookup<K, V>
where
    K: Copy + Eq + Hash + Send + Sync + 'static,
    V: Cacheable,
{
    pub(crate) fn new(entries: usize, changes: Arc<Changes>, fetch: Fetch<K, V>) -> Lookup<K, V> {
        let queue = Queue { waiting: HashMap::new(), next: Vec::new(), waiters: 0, idle: 0, is_open: false };
        let shared = Arc::new(Shared {
            known: Cache::with_weighter(entries, entries as u64, ByText),
            unknown: Cache::new(UNKNOWN),
            changes,
            fetch,
            queue: Mutex::new(queue),
            arrived: Condvar::new(),
        });
        Lookup { shared }
    }

    /// Starts the threads. `fetchers`: how many queries may run at once. A fetch before this gets an error.
    pub(crate) fn start(&self, name: &str, fetchers: usize) -> io::Result<()> {
        self.shared.lock().is_open = true;
        for number in 0..fetchers {
            let shared = self.shared.clone();
            std::thread::Builder::new().name(format!("{name}-{number}")).spawn(move || shared.work())?;
        }
        Ok(())
    }

    /// What is remembered: a value, or that there is none. `None`: nothing is remembered; ask the store.
    pub(crate) fn recall(&self, key: &K) -> Option<Option<Arc<V>>> {
        let Shared { known, unknown, changes, .. } = &*self.shared;
        if let Some((read, value)) = known.get(key) {
            return changes.still_holds(read, value.ids()).then_some(Some(value));
        }
        let read = unknown.get(key)?;
        changes.still_holds(read, NOTHING).then_some(None)
    }

    /// Whether the key had a value when it was last read, however long ago, as far as is remembered.
    pub(crate) fn has_known(&self, key: &K) -> bool {
        self.shared.known.contains_key(key)
    }

    /// The values of these keys, in their order, from memory or the store. Blocks: not for I/O threads.
    pub(crate) fn get(&self, keys: &[K]) -> Result<Vec<Option<Arc<V>>>, Error> {
        // All are requested before the first is waited for, so that they are fetched together.
        let asked: Vec<_> = keys.iter().map(|key| self.recall(key).ok_or_else(|| self.request(*key))).collect();
        asked.into_iter().map(|known| known.or_else(wait_for)).collect()
    }

    /// The value of this key from the store, whatever is remembered. Blocks: not for I/O threads.
    pub fn fetch(&self, key: K) -> Found<V> {
        wait_for(self.request(key))
    }

    fn request(&self, key: K) -> Receiver<Found<V>> {
        let (sender, receiver) = channel();
        let answer = move |found| {
            let _ = sender.send(found);
        };
        self.ask(key, Box::new(answer));
        receiver
    }

    /// Fetches the value and calls `answer` with it on another thread. If too many wait, or there are no threads that
    /// fetch, it calls `answer` with an error at once.
    pub(crate) fn ask(&self, key: K, answer: Answer<V>) {
        let mut queue = self.shared.lock();
        let refusal = match &*queue {
            Queue { is_open: false, .. } => "keys and sessions are not being fetched",
            Queue { waiters, .. } if *waiters >= WAITING => "too many requests wait for the store",
            _ => {
                queue.wait_for(key, answer);
                let wake = queue.idle > 0;
                drop(queue);
                if wake {
                    self.shared.arrived.notify_one();
                }
                return;
            }
        };
        drop(queue);
        answer(Err(Error::Unavailable(refusal.to_string())));
    }
}

impl<K: Copy + Eq + Hash, V> Queue<K, V> {
    fn wait_for(&mut self, key: K, answer: Answer<V>) {
        self.waiters += 1;
        let Queue { waiting, next, .. } = self;
        waiting
            .entry(key)
            .or_insert_with(|| {
                next.push(key);
                Vec::new()
            })
            .push(answer);
    }
}

impl<K, V> Shared<K, V>
where
    K: Copy + Eq + Hash + Send + Sync + 'static,
    V: Cacheable,
{
    fn lock(&self) -> MutexGuard<'_, Queue<K, V>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(keys) = self.next_batch() {
            let read = self.changes.now();
            // The panic hook has logged it; the thread goes on.
            let fetched = catch_unwind(AssertUnwindSafe(|| (self.fetch)(&keys)));
            let fetched = fetched.unwrap_or_else(|_| Err(StoreError::Internal("a fetch panicked".to_string())));
            match fetched {
                Ok(found) => self.deliver(&keys, read, found),
                Err(error) => self.fail(&keys, &error),
            }
        }
    }

    fn next_batch(&self) -> Option<Vec<K>> {
        let mut queue = self.lock();
        loop {
            if !queue.next.is_empty() {
                let count = queue.next.len().min(BATCH);
                return Some(queue.next.drain(..count).collect());
            }
            if !queue.is_open {
                return None;
            }
            queue.idle += 1;
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn deliver(&self, keys: &[K], read: Moment, found: Vec<(K, V)>) {
        let found: HashMap<K, Arc<V>> = found.into_iter().map(|(key, value)| (key, Arc::new(value))).collect();
        for key in keys {
            if let Some(value) = found.get(key) {
                self.known.insert(*key, (read, value.clone()));
            } else {
                self.known.remove(key);
                self.unknown.insert(*key, read);
            }
        }
        // The lock is held briefly: every miss needs it.
        let waiting: Vec<Vec<Answer<V>>> = {
            let mut queue = self.lock();
            keys.iter().map(|key| queue.answers(key)).collect()
        };
        for (key, answers) in keys.iter().zip(waiting) {
            let value = found.get(key);
            let ids = value.map_or(NOTHING, |value| value.ids());
            // Checked after the callers were taken from the queue: one who joined after a change must not get a value
            // that was read before it. Then it is read again.
            if self.changes.still_holds(read, ids) {
                answers.into_iter().for_each(|answer| answer(Ok(value.cloned())));
            } else {
                let mut queue = self.lock();
                answers.into_iter().for_each(|answer| queue.wait_for(*key, answer));
                self.arrived.notify_one();
            }
        }
    }

    fn fail(&self, keys: &[K], error: &StoreError) {
        let answers: Vec<Answer<V>> = {
            let mut queue = self.lock();
            keys.iter().flat_map(|key| queue.answers(key)).collect()
        };
        for answer in answers {
            answer(Err(error.clone().into()));
        }
    }
}

impl<K: Eq + Hash, V> Queue<K, V> {
    fn answers(&mut self, key: &K) -> Vec<Answer<V>> {
        let answers = self.waiting.remove(key).unwrap_or_default();
        self.waiters -= answers.len();
        answers
    }
}

impl<K, V> Drop for Lookup<K, V> {
    fn drop(&mut self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).is_open = false;
        self.shared.arrived.notify_all();
    }
}
