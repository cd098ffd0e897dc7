//! Accounts for the memory that is held for clients: heads, bodies and answers, for each connection and for all
//! together.
//!
//! Requests that are answered at once are not accounted for, nor are small answers over HTTP/1.1, of which a connection
//! has one: it would cost every request something.

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

/// The most bytes that may be held for one connection, and for all. While more is held for all, the slowest connections
/// are closed, and each may hold no more than [`AT_LEAST`], unless it holds a single request or answer.
pub(crate) const ON_ONE: usize = 2 * 1024 * 1024;
pub(crate) const ON_ALL: usize = 64 * 1024 * 1024;
pub(crate) const AT_LEAST: usize = 64 * 1024;
/// A connection that holds less than this is not worth cutting.
const A_TRIFLE: usize = 4 * 1024;
/// How many large answers may be made at once: as many as one user may have threads of the store.
const MADE_AT_ONCE: usize = STORE_THREADS / 2;
/// How much of a body the claim of its request covers. More is claimed as it arrives.
pub(crate) const A_BODY: usize = 16 * 1024;
/// What a header field costs beside its text, and what the head of an answer costs.
pub(crate) const A_FIELD: usize = 128;
const A_HEAD: usize = 1024;

/// The memory held for all clients.
pub(crate) struct MemoryAccount {
    held: AtomicUsize,
    /// The number of claims so far. A claim's number tells its age.
    claims: AtomicU64,
    /// Notified when more is held than allowed.
    pub overdrawn: Notify,
    /// How many answers that may be large are being made.
    making: Mutex<usize>,
    made: Condvar,
}

/// The memory held for one connection.
pub(crate) struct ClientMemory {
    account: Arc<MemoryAccount>,
    bytes: AtomicUsize,
    /// How much of it is answers.
    answers: AtomicUsize,
    /// The numbers of its claims.
    claims: Mutex<BTreeSet<u64>>,
    /// Limits how many requests of the connection wait for the store at once: as many as the store can answer.
    turns: Semaphore,
    taken: Notify,
}

/// Memory that is accounted for until this is dropped.
pub(crate) struct Claim {
    memory: Arc<ClientMemory>,
    bytes: usize,
    answer: bool,
    number: u64,
}

impl MemoryAccount {
    pub(crate) fn open() -> Arc<MemoryAccount> {
        Arc::new(MemoryAccount {
            held: AtomicUsize::new(0),
            claims: AtomicU64::new(0),
            overdrawn: Notify::new(),
            making: Mutex::new(0),
            made: Condvar::new(),
        })
    }

    /// Blocks this thread until few enough other answers that may be large are being made: the size of an answer is
    /// only known once it is made. `None`: the deadline has passed.
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

    /// How many bytes more are held than allowed.
    pub(crate) fn excess(&self) -> usize {
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
    pub(crate) fn new(account: Arc<MemoryAccount>) -> Arc<ClientMemory> {
        Arc::new(ClientMemory {
            account,
            bytes: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            claims: Mutex::default(),
            turns: Semaphore::new(STORE_THREADS),
            taken: Notify::new(),
        })
    }

    /// Claims memory that is in use already, whatever its size.
    pub(crate) fn claim(self: &Arc<ClientMemory>, bytes: usize) -> Claim {
        let number = self.account.claims.fetch_add(1, Ordering::Relaxed);
        lock(&self.claims).insert(number);
        let mut claim = Claim { memory: self.clone(), bytes: 0, answer: false, number };
        claim.resize(bytes);
        claim
    }

    /// Claims memory if there is room. The only claim of a connection always succeeds.
    pub(crate) fn try_claim(self: &Arc<ClientMemory>, bytes: usize) -> Option<Claim> {
        let mut claim = self.claim(0);
        claim.try_grow(bytes).then_some(claim)
    }

    fn has_room(&self, more: usize) -> bool {
        let held = self.bytes.load(Ordering::Relaxed);
        held == 0 || held + more <= self.most(more)
    }

    /// Claims an answer that waits for the client. The claim ends when the answer's bytes are dropped, wherever that
    /// is.
    pub(crate) fn claim_answer(self: &Arc<ClientMemory>, response: Response) -> Response {
        let mut claim = self.claim(0);
        claim.answer = true;
        claim.resize(A_HEAD + own_memory(response.body()));
        response.map(|body| if body.is_empty() { body } else { Bytes::from_owner(Answer { body, _claim: claim }) })
    }

    /// Makes an answer that may be large, and claims it. Blocks until the deadline at most.
    pub(crate) fn make_large(
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

    /// The most that may be held for this connection when so much more is wanted.
    fn most(&self, more: usize) -> usize {
        if self.account.held.load(Ordering::Relaxed) + more > ON_ALL { AT_LEAST } else { ON_ONE }
    }

    /// Returns when the connection may ask the store for another answer: the client has to take earlier ones first.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
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

    /// The age of its oldest claim (older ones have smaller numbers), and how many bytes a cut would free. `None`: too
    /// few.
    pub(crate) fn worth(&self) -> Option<(u64, usize)> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let oldest = *lock(&self.claims).first().filter(|_| bytes > A_TRIFLE)?;
        Some((oldest, bytes))
    }
}

impl Claim {
    /// Changes the claim to this size if there is room.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.bytes || self.memory.has_room(bytes - self.bytes);
        if fits {
            self.resize(bytes);
        }
        fits
    }

    pub(crate) fn resize(&mut self, bytes: usize) {
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

/// What the bytes of an answer cost. Those that are shared by all answers cost nothing.
fn own_memory(body: &Bytes) -> usize {
    if body.is_unique() { body.len() } else { 0 }
}

/// Whether an answer is large enough to be claimed when a connection has only one.
pub(crate) fn is_large(response: &Response) -> bool {
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
