//! What a connection is doing, and by when it must get on.

use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Sleep;

use crate::base::sharded::lock;
use crate::http::limits::Limits;

/// What a connection is doing, and by when it must get on.
pub(crate) struct ConnectionState {
    started: Instant,
    phase: AtomicU8,
    /// `started` by the coarse clock.
    started_coarse: Duration,
    /// Milliseconds after `started`.
    deadline: AtomicU64,
    /// When a frame that has begun must be complete, in milliseconds after `started`; [`NEVER`]: none has begun.
    frame_deadline: AtomicU64,
    /// The length of the current request's body; [`UNKNOWN`]: it has none, or does not announce its length.
    body_length: AtomicU64,
    /// Another client needs the slot: the connection ends as soon as it is idle.
    dismissed: AtomicBool,
    /// The connection ends now, whatever it is doing.
    cut: AtomicBool,
    /// The connection's task.
    task: Mutex<Option<Waker>>,
    head: Duration,
    idle: Duration,
    unread_answer: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A head is being read.
    Head,
    /// A request is being answered. Reading its body and waiting for other threads have limits of their own.
    Busy,
    /// The answer is being sent.
    Answering,
    /// Kept alive; what arrives begins a head.
    Idle,
    /// Kept alive, over HTTP/2: what arrives need not belong to a request.
    Quiet,
    /// The client has been told that the connection ends (HTTP/2).
    Leaving,
    /// We have sent all we had. What still arrives is read and discarded, or the client might lose our answer.
    Lingering,
}

impl Phase {
    pub(crate) fn overdue(self) -> &'static str {
        match self {
            Phase::Head => "the request's head did not arrive in time",
            Phase::Busy => "busy for too long",
            Phase::Answering => "the answer was not read in time",
            Phase::Idle | Phase::Quiet => "idle",
            Phase::Leaving | Phase::Lingering => "the client did not close its side",
        }
    }
}

/// Longer than any request takes, and short enough for a forgotten connection to end.
const BUSY: Duration = Duration::from_secs(600);
/// How long, and how many bytes, we read on after an answer, so that the client gets to see it.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
pub(crate) const LINGER_BYTES: usize = 1024 * 1024;

/// Bytes a second that a client must take of an answer on average, after a start. Without a minimum, a client could
/// hold an answer for ever by taking a byte now and then.
const SLOWEST: u64 = 4096;

/// By when a client must have taken more of what is sent.
#[derive(Clone, Copy)]
pub(crate) struct SendDeadline {
    limit: Duration,
    end: Instant,
}

impl SendDeadline {
    /// `limit`: how long the client may take nothing.
    pub(crate) fn new(limit: Duration) -> SendDeadline {
        SendDeadline { limit, end: Instant::now() + limit }
    }

    pub(crate) fn end(&self) -> Instant {
        self.end
    }

    /// The client has taken so many more bytes.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.end = (self.end + earned(bytes)).min(Instant::now() + self.limit);
    }
}

/// The time that a client may take for so many bytes.
fn earned(bytes: usize) -> Duration {
    Duration::from_millis(bytes as u64 * 1000 / SLOWEST)
}

const NEVER: u64 = u64::MAX;
const UNKNOWN: u64 = u64::MAX;

/// The coarse clock is behind by less than this.
const COARSENESS: Duration = Duration::from_millis(50);

/// The time to a few milliseconds. It is read several times a request, and costs a fraction of the exact time.
fn coarse_now() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::MonotonicCoarse;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let now = clock_gettime(CLOCK);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

impl ConnectionState {
    pub(crate) fn new(limits: &Limits) -> ConnectionState {
        let state = ConnectionState {
            started: Instant::now(),
            started_coarse: coarse_now(),
            phase: AtomicU8::new(0),
            deadline: AtomicU64::new(0),
            frame_deadline: AtomicU64::new(NEVER),
            body_length: AtomicU64::new(UNKNOWN),
            dismissed: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            task: Mutex::new(None),
            head: limits.head,
            idle: limits.idle,
            unread_answer: limits.unread_answer,
        };
        state.enter(Phase::Head);
        state
    }

    // Everything but `idle_until`, `dismiss` and `cut` is called by the connection's own task; atomics are needed
    // because the task moves between threads.
    pub(crate) fn enter(&self, phase: Phase) {
        let span = match phase {
            Phase::Head => self.head,
            Phase::Busy => BUSY,
            Phase::Answering => self.unread_answer,
            Phase::Idle | Phase::Quiet => self.idle,
            Phase::Leaving | Phase::Lingering => LINGER,
        };
        self.deadline.store(self.after(span), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// This long from now, in milliseconds after `started`.
    fn after(&self, span: Duration) -> u64 {
        (coarse_now().saturating_sub(self.started_coarse) + span).as_millis() as u64
    }

    /// A frame has begun and must be complete within this time. `None`: all frames that have begun are complete.
    pub(crate) fn expect_frame(&self, within: Option<Duration>) {
        self.frame_deadline.store(within.map_or(NEVER, |within| self.after(within)), Ordering::Relaxed);
    }

    /// A request's head has been read. `length`: that of its body, if it is known and not 0.
    pub(crate) fn expect_body(&self, length: Option<u64>) {
        self.body_length.store(length.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    /// The length of the body of the request under way; `None`: it has none, or its length is not known.
    pub(crate) fn body_length(&self) -> Option<u64> {
        Some(self.body_length.load(Ordering::Relaxed)).filter(|length| *length != UNKNOWN)
    }

    pub(crate) fn phase(&self) -> Phase {
        const PHASES: [Phase; 7] =
            [Phase::Head, Phase::Busy, Phase::Answering, Phase::Idle, Phase::Quiet, Phase::Leaving, Phase::Lingering];
        PHASES[self.phase.load(Ordering::Relaxed) as usize]
    }

    /// The client has taken so many more bytes of the answer.
    pub(crate) fn took(&self, bytes: usize) {
        let earned = self.deadline.load(Ordering::Relaxed) + earned(bytes).as_millis() as u64;
        self.deadline.store(earned.min(self.after(self.unread_answer)), Ordering::Relaxed);
    }

    /// When an idle connection ends, by the coarse clock. `None`: it is not idle, or is about to end.
    pub(crate) fn idle_until(&self) -> Option<Duration> {
        let is_idle = matches!(self.phase(), Phase::Idle | Phase::Quiet) && !self.is_dismissed();
        is_idle.then(|| self.started_coarse + Duration::from_millis(self.deadline.load(Ordering::Relaxed)))
    }

    /// Ends an idle connection. If a request has just begun, it ends after that: its own task decides.
    pub(crate) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Ends the connection at once, whatever it is doing.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        if let Some(task) = lock(&self.task).as_ref() {
            task.wake_by_ref();
        }
    }

    /// Why the connection is cut, for the log.
    pub(crate) fn overdue(&self) -> &'static str {
        if self.is_cut() {
            "it holds more memory than there is for it"
        } else if self.frame_deadline.load(Ordering::Relaxed) < self.deadline.load(Ordering::Relaxed) {
            "a frame did not arrive in time"
        } else {
            self.phase().overdue()
        }
    }

    /// Whether another client needs the slot.
    pub(crate) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Relaxed)
    }

    /// Sets the task to wake when the connection has to end. It is always the same one.
    pub(crate) fn belongs_to(&self, task: &Waker) {
        *lock(&self.task) = Some(task.clone());
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.phase() == Phase::Idle
    }

    fn next_deadline(&self) -> Duration {
        if self.is_dismissed() && matches!(self.phase(), Phase::Idle | Phase::Quiet) {
            return Duration::ZERO;
        }
        let next = self.deadline.load(Ordering::Relaxed).min(self.frame_deadline.load(Ordering::Relaxed));
        Duration::from_millis(next)
    }

    fn deadline(&self) -> Instant {
        self.started + self.next_deadline()
    }

    /// The deadline, by the coarse clock.
    fn due(&self) -> Duration {
        self.started_coarse + self.next_deadline()
    }
}

/// Wakes the connection's task when the connection's deadline has passed.
pub(crate) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// When the timer fires, by the coarse clock. `None`: it has not been polled yet.
    rings: Option<Duration>,
}

impl Alarm {
    pub(crate) fn new(state: &ConnectionState) -> Alarm {
        Alarm { sleep: Box::pin(tokio::time::sleep_until(state.deadline().into())), rings: None }
    }

    /// Ready when the deadline has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, state: &ConnectionState) -> Poll<()> {
        if state.is_cut() {
            return Poll::Ready(());
        }
        // The timer is only moved to fire earlier; if it fires too early, it is set again. So a request on a busy
        // connection costs no timer.
        let due = state.due();
        if self.rings.is_some_and(|rings| rings <= due && coarse_now() + COARSENESS < rings) {
            return Poll::Pending;
        }
        self.sleep.as_mut().reset(state.deadline().into());
        self.rings = Some(due);
        while self.sleep.as_mut().poll(cx).is_ready() {
            let deadline = state.deadline();
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(deadline.into());
            self.rings = Some(state.due());
        }
        Poll::Pending
    }
}
