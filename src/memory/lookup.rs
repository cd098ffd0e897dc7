//! What the hot path remembers of keys and sessions, so that a verified request touches no database.
//!
//! Nothing is remembered for longer than [`crate::memory::changes::MAX_AGE`]. [`Changes`] knows when what was changed: whatever was read before
//! is worth nothing, also when it arrives afterwards. [`Lookup`] remembers, and fetches what
//! it does not know: one query for all who ask for the same, and one for those that wait together.

use std::collections::HashMap;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use uuid::Uuid;

use crate::base::error::{Error, StoreError};
use crate::memory::changes::{Changes, Moment};

/// What is remembered of something.
pub trait Cacheable: Send + Sync + 'static {
    /// The ids whose change makes it worthless.
    fn ids(&self) -> [Uuid; 2];

    /// The length of the texts in it, in bytes.
    fn text_bytes(&self) -> usize;
}

/// As how many entries one with so much text counts: whoever has long texts is not to have more memory.
pub fn places(text_bytes: usize) -> u64 {
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

/// The ids of what is not there. That it is made changes nothing: nobody can ask for a key or a session that nobody knows
/// yet.
pub const NOTHING: [Uuid; 2] = [Uuid::nil(); 2];

/// Fetches the values of these keys; a key without a value is left out.
pub type Fetch<K, V> = Box<dyn Fn(&[K]) -> Result<Vec<(K, V)>, StoreError> + Send + Sync>;

pub type Found<V> = Result<Option<Arc<V>>, Error>;

/// Called with what was found, on a thread that must not be held up.
pub type Answer<V> = Box<dyn FnOnce(Found<V>) + Send>;

fn wait_for<V>(receiver: Receiver<Found<V>>) -> Found<V> {
    receiver.recv().unwrap_or_else(|_| Err(Error::Internal("a lookup was dropped".to_string())))
}

/// Keys that are fetched with one query.
const BATCH: usize = 256;
/// Those who may wait for an answer; more are turned away at once.
const WAITING: usize = 16 * 1024;
/// Keys known not to exist. They are few, so that they push out nothing of worth.
const UNKNOWN: usize = 4096;

/// Remembers values by key, and fetches them on threads of its own.
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
    /// Who waits for what; also while it is being fetched.
    waiting: HashMap<K, Vec<Answer<V>>>,
    /// What is not being fetched yet, in order.
    next: Vec<K>,
    waiters: usize,
    /// Threads with nothing to fetch. To wake one is a system call, also when there is none.
    idle: usize,
    closing: bool,
}

impl<K, V> Lookup<K, V>
where
    K: Copy + Eq + Hash + Send + Sync + 'static,
    V: Cacheable,
{
    /// `fetchers`: queries at once, at most.
    pub fn new(name: &str, entries: usize, fetchers: usize, changes: Arc<Changes>, fetch: Fetch<K, V>) -> Lookup<K, V> {
        let queue = Queue { waiting: HashMap::new(), next: Vec::new(), waiters: 0, idle: 0, closing: false };
        let shared = Arc::new(Shared {
            known: Cache::with_weighter(entries, entries as u64, ByText),
            unknown: Cache::new(UNKNOWN),
            changes,
            fetch,
            queue: Mutex::new(queue),
            arrived: Condvar::new(),
        });
        for number in 0..fetchers {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || shared.work())
                .expect("a thread can be started");
        }
        Lookup { shared }
    }

    /// What is remembered of this key: its value, or that it has none. `None`: it has to be asked for.
    pub fn recall(&self, key: &K) -> Option<Option<Arc<V>>> {
        let Shared { known, unknown, changes, .. } = &*self.shared;
        if let Some((read, value)) = known.get(key) {
            return changes.still_holds(read, value.ids()).then_some(Some(value));
        }
        let read = unknown.get(key)?;
        changes.still_holds(read, NOTHING).then_some(None)
    }

    /// Whether the key had a value when it was read last, however long ago. Some are forgotten.
    pub fn has_known(&self, key: &K) -> bool {
        self.shared.known.contains_key(key)
    }

    /// What is known of these keys, in their order. Waits for what has to be fetched: not on an I/O thread.
    pub fn get(&self, keys: &[K]) -> Result<Vec<Option<Arc<V>>>, Error> {
        // All are asked for before the first is waited for: they are fetched together.
        let asked: Vec<_> = keys.iter().map(|key| self.recall(key).ok_or_else(|| self.request(*key))).collect();
        asked.into_iter().map(|known| known.or_else(wait_for)).collect()
    }

    /// What is stored of this key, whatever is remembered. Waits: not on an I/O thread.
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

    /// Finds out; `answer` is called on another thread, or at once when too many wait already.
    pub fn ask(&self, key: K, answer: Answer<V>) {
        let mut queue = self.shared.lock();
        if queue.waiters >= WAITING || queue.closing {
            drop(queue);
            return answer(Err(Error::Unavailable("too many requests wait for the store".to_string())));
        }
        queue.wait_for(key, answer);
        let wake = queue.idle > 0;
        drop(queue);
        if wake {
            self.shared.arrived.notify_one();
        }
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
            // A panic has been logged by its hook; it must not cost the thread.
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
            if queue.closing {
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
        // The lock is held for as little as possible: everyone who asks wants it.
        let waiting: Vec<Vec<Answer<V>>> = {
            let mut queue = self.lock();
            keys.iter().map(|key| queue.answers(key)).collect()
        };
        for (key, answers) in keys.iter().zip(waiting) {
            let value = found.get(key);
            let ids = value.map_or(NOTHING, |value| value.ids());
            // Looked at after they were taken from the queue: whoever has joined the wait since a change must not get
            // what was read before it. It is read again.
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
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        self.shared.arrived.notify_all();
    }
}
