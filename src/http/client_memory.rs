//! What is held in memory for clients: the heads, bodies and answers of all connections on one account, and each
//! connection's part of it.
//!
//! It is in bytes of memory. Requests that are answered at once, and small answers with HTTP/1.1, of which a connection has
//! one, are not booked: they would cost every request something.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::base::error::Error;
use crate::base::sharded::lock;
use crate::http::lanes::STORE_THREADS;
use crate::http::response::Response;

/// What may be held on a connection, and on all of them together. While more is held on all, the slowest connections are
/// cut, and each gets no more than [`AT_LEAST`] on top of its only request or answer.
pub const ON_ONE: usize = 2 * 1024 * 1024;
pub const ON_ALL: usize = 64 * 1024 * 1024;
pub const AT_LEAST: usize = 64 * 1024;
/// Nobody is cut for so little.
const A_TRIFLE: usize = 4 * 1024;
/// Large answers that are made at once: as many as one user may have threads of the store's.
const MADE_AT_ONCE: usize = STORE_THREADS / 2;
/// The most of a body that a request's own claim is for. What comes beyond it is booked when it is there.
pub const A_BODY: usize = 16 * 1024;
/// What a field of a head takes beside its text, and the head of an answer.
pub const A_FIELD: usize = 128;
const A_HEAD: usize = 1024;

/// What is held for all clients.
pub struct MemoryAccount {
    held: AtomicUsize,
    /// How many claims there have been. A claim's number tells how old it is.
    claims: AtomicU64,
    /// More is held than may be.
    pub overdrawn: Notify,
    /// Answers that may be large and are being made.
    making: Mutex<usize>,
    made: Condvar,
}

/// What is held for one connection.
pub struct ClientMemory {
    account: Arc<MemoryAccount>,
    bytes: AtomicUsize,
    /// The part of it that is answers.
    answers: AtomicUsize,
    /// The numbers of its claims.
    claims: Mutex<BTreeSet<u64>>,
    /// Requests at once that wait for the store: as many as it can answer.
    turns: Semaphore,
    taken: Notify,
}

/// Something that is held, until this is dropped.
pub struct Claim {
    memory: Arc<ClientMemory>,
    bytes: usize,
    answer: bool,
    number: u64,
}

impl MemoryAccount {
    pub fn open() -> Arc<MemoryAccount> {
        Arc::new(MemoryAccount {
            held: AtomicUsize::new(0),
            claims: AtomicU64::new(0),
            overdrawn: Notify::new(),
            making: Mutex::new(0),
            made: Condvar::new(),
        })
    }

    /// Waits on this thread until few enough others make an answer that may be large: until it is made nobody knows what it
    /// takes. `None`: not by then.
    fn begin(&self, until: Instant) -> Option<Making<'_>> {
        let patience = until.saturating_duration_since(Instant::now());
        let wait = self.made.wait_timeout_while(lock(&self.making), patience, |making| *making >= MADE_AT_ONCE);
        let (mut making, wait) = wait.unwrap_or_else(PoisonError::into_inner);
        if wait.timed_out() {
            return None;
        }
        *making += 1;
        Some(Making(self))
    }

    /// By how much more is held than may be.
    pub fn excess(&self) -> usize {
        self.held.load(Ordering::Relaxed).saturating_sub(ON_ALL)
    }

    fn add(&self, bytes: usize) {
        if self.held.fetch_add(bytes, Ordering::Relaxed) + bytes > ON_ALL {
            self.overdrawn.notify_one();
        }
    }
}

struct Making<'a>(&'a MemoryAccount);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        *lock(&self.0.making) -= 1;
        self.0.made.notify_one();
    }
}

impl ClientMemory {
    pub fn new(account: Arc<MemoryAccount>) -> Arc<ClientMemory> {
        Arc::new(ClientMemory {
            account,
            bytes: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            claims: Mutex::default(),
            turns: Semaphore::new(STORE_THREADS),
            taken: Notify::new(),
        })
    }

    /// Books what is held already, however much it is.
    pub fn claim(self: &Arc<ClientMemory>, bytes: usize) -> Claim {
        let number = self.account.claims.fetch_add(1, Ordering::Relaxed);
        lock(&self.claims).insert(number);
        let mut claim = Claim { memory: self.clone(), bytes: 0, answer: false, number };
        claim.resize(bytes);
        claim
    }

    /// Books it if there is room. The only thing on a connection always has it.
    pub fn try_claim(self: &Arc<ClientMemory>, bytes: usize) -> Option<Claim> {
        let mut claim = self.claim(0);
        claim.try_grow(bytes).then_some(claim)
    }

    fn has_room(&self, more: usize) -> bool {
        let held = self.bytes.load(Ordering::Relaxed);
        held == 0 || held + more <= self.most(more)
    }

    /// Books an answer that waits for the client. Its bytes and the claim end together, wherever they are then.
    pub fn claim_answer(self: &Arc<ClientMemory>, response: Response) -> Response {
        let mut claim = self.claim(0);
        claim.answer = true;
        claim.resize(A_HEAD + own_memory(response.body()));
        response.map(|body| if body.is_empty() { body } else { Bytes::from_owner(Answer { body, _claim: claim }) })
    }

    /// Has an answer made that may be large, and books it at once. It may block until then.
    pub fn make_large(
        self: &Arc<ClientMemory>,
        until: Instant,
        make: impl FnOnce() -> Result<Response, Error>,
    ) -> Result<Response, Error> {
        let making = self.account.begin(until);
        if making.is_none() || self.account.excess() > 0 {
            return Err(Error::Unavailable("too much is held for clients".to_string()));
        }
        Ok(self.claim_answer(make()?))
    }

    /// What may be held on this connection when so much more is wanted.
    fn most(&self, more: usize) -> usize {
        if self.account.held.load(Ordering::Relaxed) + more > ON_ALL { AT_LEAST } else { ON_ONE }
    }

    /// Returns when the store may be asked for another answer on this connection: those that are there must go first.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.turns.acquire().await.ok()?;
        loop {
            let taken = self.taken.notified();
            let answers = self.answers.load(Ordering::Relaxed);
            if answers == 0 || answers < self.most(0) {
                return Some(permit);
            }
            taken.await;
        }
    }

    /// How old the oldest of it is, the older the smaller, and how much there is to gain by a cut. `None`: it is not worth
    /// it.
    pub fn worth(&self) -> Option<(u64, usize)> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let oldest = *lock(&self.claims).first().filter(|_| bytes > A_TRIFLE)?;
        Some((oldest, bytes))
    }
}

impl Claim {
    /// Books that it takes so much now, if there is room.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.bytes || self.memory.has_room(bytes - self.bytes);
        if fits {
            self.resize(bytes);
        }
        fits
    }

    pub fn resize(&mut self, bytes: usize) {
        let ClientMemory { account, bytes: all, answers, taken, .. } = &*self.memory;
        let more = bytes.saturating_sub(self.bytes);
        let less = self.bytes.saturating_sub(bytes);
        all.fetch_add(more, Ordering::Relaxed);
        all.fetch_sub(less, Ordering::Relaxed);
        if self.answer {
            answers.fetch_add(more, Ordering::Relaxed);
            if answers.fetch_sub(less, Ordering::Relaxed) >= less && less > 0 {
                taken.notify_waiters();
            }
        }
        account.held.fetch_sub(less, Ordering::Relaxed);
        if more > 0 {
            account.add(more);
        }
        self.bytes = bytes;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.resize(0);
        lock(&self.memory.claims).remove(&self.number);
    }
}

/// What the bytes of an answer take. Those that everyone gets are there anyway.
fn own_memory(body: &Bytes) -> usize {
    if body.is_unique() { body.len() } else { 0 }
}

/// Whether an answer is worth booking where a connection has only one.
pub fn is_large(response: &Response) -> bool {
    own_memory(response.body()) > A_TRIFLE
}

struct Answer {
    body: Bytes,
    _claim: Claim,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}
