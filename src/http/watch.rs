//! The times that a client may take on a connection: what the connection is at, by when it must have moved on, and the
//! socket that tells.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::config::Limits;
use crate::sharded::lock;

/// Where a connection is, and by when it must have moved on.
pub struct Watch {
    started: Instant,
    phase: AtomicU8,
    /// `started`, as the coarse clock had it.
    started_coarse: Duration,
    /// Milliseconds after `started`.
    deadline: AtomicU64,
    /// Somebody else needs the place: it ends as soon as it is idle, and waits for nothing more.
    dismissed: AtomicBool,
    /// The connection's task.
    task: Mutex<Option<Waker>>,
    head: Duration,
    idle: Duration,
    unread_answer: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A head is on its way.
    Head,
    /// A request is being answered; its body and each wait for another thread have times of their own.
    Busy,
    /// The answer is on its way.
    Answering,
    /// Kept alive; whatever arrives begins a head.
    Idle,
    /// Kept alive, with HTTP/2: what arrives need not belong to a request.
    Quiet,
    /// The client was told that the connection ends, with HTTP/2.
    Leaving,
    /// We have said our last; what the client still sends is read and thrown away, or it might lose our answer.
    Lingering,
}

impl Phase {
    pub fn overdue(self) -> &'static str {
        match self {
            Phase::Head => "the request's head did not arrive in time",
            Phase::Busy => "busy for too long",
            Phase::Answering => "the answer was not read in time",
            Phase::Idle | Phase::Quiet => "idle",
            Phase::Leaving | Phase::Lingering => "the client did not close its side",
        }
    }
}

/// Longer than any request can take, short enough that a forgotten connection goes some day.
const BUSY: Duration = Duration::from_secs(600);
/// How long, and how much, is read of a client who was answered, so that he gets to see it.
pub const LINGER: Duration = Duration::from_secs(2);
pub const LINGER_BYTES: usize = 1024 * 1024;

/// Bytes of an answer that are copied together.
const TOGETHER: usize = 2048;

/// More than the coarse clock is ever behind.
const COARSENESS: Duration = Duration::from_millis(50);

/// The time to a few milliseconds: several times a request, at a fraction of what the exact time costs.
fn coarse_now() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::MonotonicCoarse;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let now = clock_gettime(CLOCK);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

impl Watch {
    pub fn new(limits: &Limits) -> Watch {
        let watch = Watch {
            started: Instant::now(),
            started_coarse: coarse_now(),
            phase: AtomicU8::new(0),
            deadline: AtomicU64::new(0),
            dismissed: AtomicBool::new(false),
            task: Mutex::new(None),
            head: limits.head,
            idle: limits.idle,
            unread_answer: limits.unread_answer,
        };
        watch.enter(Phase::Head);
        watch
    }

    // All of this happens on the task of the one connection, but for `idle_until` and `dismiss`; the atomics are there
    // because the task moves between threads.
    pub fn enter(&self, phase: Phase) {
        let span = match phase {
            Phase::Head => self.head,
            Phase::Busy => BUSY,
            Phase::Answering => self.unread_answer,
            Phase::Idle | Phase::Quiet if self.is_dismissed() => Duration::ZERO,
            Phase::Idle | Phase::Quiet => self.idle,
            Phase::Leaving | Phase::Lingering => LINGER,
        };
        let deadline = (coarse_now().saturating_sub(self.started_coarse) + span).as_millis() as u64;
        self.deadline.store(deadline, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub fn phase(&self) -> Phase {
        const PHASES: [Phase; 7] =
            [Phase::Head, Phase::Busy, Phase::Answering, Phase::Idle, Phase::Quiet, Phase::Leaving, Phase::Lingering];
        PHASES[self.phase.load(Ordering::Relaxed) as usize]
    }

    /// By when an idle connection ends, by the coarse clock; `None`: it is not idle, or is about to go.
    pub fn idle_until(&self) -> Option<Duration> {
        (matches!(self.phase(), Phase::Idle | Phase::Quiet) && !self.is_dismissed()).then(|| self.due())
    }

    /// Ends an idle connection. One on which a request has just begun ends after it.
    pub fn dismiss(&self) {
        self.dismissed.store(true, Ordering::SeqCst);
        if matches!(self.phase(), Phase::Idle | Phase::Quiet) {
            self.deadline.store(0, Ordering::SeqCst);
        }
        if let Some(task) = lock(&self.task).as_ref() {
            task.wake_by_ref();
        }
    }

    /// Whether somebody else needs the place.
    pub fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Relaxed)
    }

    /// The task to wake when it is to end. One connection's task is always the same.
    pub fn belongs_to(&self, task: &Waker) {
        *lock(&self.task) = Some(task.clone());
    }

    fn is_idle(&self) -> bool {
        self.phase() == Phase::Idle
    }

    fn deadline(&self) -> Instant {
        self.started + Duration::from_millis(self.deadline.load(Ordering::Relaxed))
    }

    /// The deadline, by the coarse clock.
    fn due(&self) -> Duration {
        self.started_coarse + Duration::from_millis(self.deadline.load(Ordering::Relaxed))
    }
}

/// Wakes the connection's task by a watch's deadline.
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// When it rings, by the coarse clock; `None`: it does not know yet whom to wake.
    rings: Option<Duration>,
}

impl Alarm {
    pub fn new(watch: &Watch) -> Alarm {
        Alarm { sleep: Box::pin(tokio::time::sleep_until(watch.deadline().into())), rings: None }
    }

    /// Ready when the deadline has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<()> {
        // It is moved only when it must ring earlier; when it rings early, it is set anew. So a request on a busy
        // connection costs no timer.
        let due = watch.due();
        if self.rings.is_some_and(|rings| rings <= due && coarse_now() + COARSENESS < rings) {
            return Poll::Pending;
        }
        self.sleep.as_mut().reset(watch.deadline().into());
        self.rings = Some(due);
        while self.sleep.as_mut().poll(cx).is_ready() {
            let deadline = watch.deadline();
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(deadline.into());
            self.rings = Some(watch.due());
        }
        Poll::Pending
    }
}

/// A stream to the client, telling the watch what passes through it.
pub struct Socket<'a, S> {
    inner: S,
    watch: &'a Watch,
    /// The server stops: nobody lingers.
    stopping: &'a AtomicBool,
    discarded: usize,
}

impl<'a, S> Socket<'a, S> {
    pub fn new(stream: S, watch: &'a Watch, stopping: &'a AtomicBool) -> Socket<'a, S> {
        Socket { inner: stream, watch, stopping, discarded: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if outcome.is_ready() && self.watch.is_idle() {
            self.watch.enter(Phase::Head);
        }
        outcome
    }
}

impl<S> Socket<'_, S> {
    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        if matches!(outcome, Poll::Ready(Ok(_))) && self.watch.phase() == Phase::Answering {
            self.watch.enter(Phase::Answering);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.wrote(&outcome);
        outcome
    }

    /// hyper hands on head and body as they are. It would copy them together otherwise, and the copies of large answers
    /// would wait for clients who do not read.
    fn is_write_vectored(&self) -> bool {
        true
    }

    /// An answer is mostly small: cheaper to copy head and body together than to hand both to the system.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut together = [0; TOGETHER];
        let mut length = 0;
        for part in parts {
            let Some(place) = together.get_mut(length..length + part.len()) else {
                let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, parts);
                self.wrote(&outcome);
                return outcome;
            };
            place.copy_from_slice(part);
            length += part.len();
        }
        self.poll_write(cx, &together[..length])
    }

    /// hyper flushes when it has written all it had: in the answering phase, the whole answer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        if outcome.is_ready() && self.watch.phase() == Phase::Answering {
            self.watch.enter(Phase::Idle);
        }
        outcome
    }

    /// Closes our side, then reads on until the client closes his. To close both at once while he is still sending
    /// would reset the connection, and he might never see the answer that says why (RFC 9112 §9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.watch.phase() != Phase::Lingering {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            self.watch.enter(Phase::Lingering);
        }
        let mut discard = [0; 4096];
        while self.discarded < LINGER_BYTES && !self.stopping.load(Ordering::SeqCst) && !self.watch.is_dismissed() {
            let mut buffer = ReadBuf::new(&mut discard);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
            match buffer.filled().len() {
                0 => break,
                read => self.discarded += read,
            }
        }
        Poll::Ready(Ok(()))
    }
}
