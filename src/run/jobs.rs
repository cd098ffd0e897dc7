//! What nobody waits for: uses of keys and failed logins are written once a second, and chores are done now and then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::error::Error;

/// The thread that does it.
pub struct Maintenance {
    stop: Sender<()>,
    stopped: Receiver<()>,
}

const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// For those who wait to write.
const BETWEEN_PARTS: Duration = Duration::from_millis(10);
/// A store that is away at the end is not waited for any longer.
const LAST_FLUSH: Duration = Duration::from_secs(5);

impl Maintenance {
    /// `believed`: a time up to which the clock was right, for all that is stored.
    pub fn start(app: Arc<App>, believed: Timestamp) -> Result<Maintenance, String> {
        let (stop, stopping) = channel();
        let (done, stopped) = channel();
        std::thread::Builder::new()
            .name("maintenance".to_string())
            .spawn(move || {
                maintain(&app, Belief::new(believed, app.clock.elapsed()), &stopping);
                let _ = done.send(());
            })
            .map_err(|error| format!("the maintenance thread cannot be started: {error}"))?;
        Ok(Maintenance { stop, stopped })
    }

    pub fn stop(self) {
        drop(self.stop);
        if self.stopped.recv_timeout(LAST_FLUSH).is_err() {
            warn!("the store does not answer: the last uses of keys and failed logins are not written");
        }
    }
}

fn maintain(app: &App, mut belief: Belief, stopping: &Receiver<()>) {
    let mut flushed = Instant::now();
    let mut chores = chores();
    // One line when the store goes away, one when it is back.
    let mut failing = false;
    let mut is_right = true;
    loop {
        let busy = chores.iter().any(|chore| chore.has_more && (is_right || !chore.deletes));
        let pause = if busy { BETWEEN_PARTS } else { FLUSH_EVERY };
        let last = matches!(stopping.recv_timeout(pause), Err(RecvTimeoutError::Disconnected));
        if last || flushed.elapsed() >= FLUSH_EVERY {
            let (uses, failures) = (caught(|| app.usage.flush()), caught(|| app.events.flush()));
            match uses.and(failures) {
                Ok(()) if failing => {
                    info!("uses of keys and failed logins are written again");
                    failing = false;
                }
                Err(error) if !failing => {
                    warn!("uses of keys and failed logins cannot be written, they are kept: {error:?}");
                    failing = true;
                }
                _ => {}
            }
            flushed = Instant::now();
        }
        if last {
            return;
        }
        let (now, elapsed) = (app.clock.now(), app.clock.elapsed());
        is_right = belief.holds(now, elapsed);
        for chore in chores.iter_mut().filter(|chore| is_right || !chore.deletes) {
            chore.attend(elapsed, |act| act(app));
        }
    }
}

/// A panic costs no more than what it happened in; its hook has logged it.
fn caught<T>(act: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err(Error::Internal("it panicked".to_string())))
}

/// Some of it; whether there is more.
type Part = fn(&App) -> Result<bool, Error>;

/// Something that is done from time to time, a part at a time: others want to write, too. One that fails is tried again
/// soon, and holds up no other.
struct Chore {
    /// As the log has it.
    name: &'static str,
    act: Part,
    every: Duration,
    /// Whether it deletes for good what has had its time by the clock.
    deletes: bool,
    /// By [`crate::base::clock::Clock::elapsed`].
    due: Duration,
    has_more: bool,
    failing: bool,
}

const HOUR: Duration = Duration::from_secs(60 * 60);
const MINUTE: Duration = Duration::from_secs(60);

fn chores() -> Vec<Chore> {
    let chore = |name, act| Chore {
        name,
        act,
        every: HOUR,
        deletes: true,
        due: Duration::ZERO,
        has_more: true,
        failing: false,
    };
    vec![
        Chore {
            deletes: false,
            ..chore("to read what the stored password hashes cost", |app| Ok(app.users.note_costs().map(|()| false)?))
        },
        Chore {
            deletes: false,
            every: MINUTE,
            ..chore("to delete what deleted users have left", |app| app.users.sweep())
        },
        chore("to delete expired sessions", |app| app.sessions.prune()),
        chore("to delete old counts of use", |app| app.usage.prune(app.clock.now())),
        chore("to delete old events", |app| app.events.prune()),
        chore("to delete keys that ended long ago", |app| app.keys.prune()),
        chore("to delete ended keys that are too many", |app| app.keys.trim()),
    ]
}

impl Chore {
    /// Does a part if it is time to.
    fn attend(&mut self, elapsed: Duration, act: impl FnOnce(Part) -> Result<bool, Error>) {
        if elapsed < self.due {
            return;
        }
        let name = self.name;
        let outcome = caught(|| act(self.act));
        self.has_more = matches!(outcome, Ok(true));
        match outcome {
            Ok(more) => {
                if self.failing {
                    info!("it is possible again {name}");
                }
                self.failing = false;
                self.due = if more { elapsed } else { elapsed + self.every };
            }
            Err(error) => {
                if !self.failing {
                    warn!("it is not possible {name}, it is tried again every minute: {error:?}");
                }
                self.failing = true;
                self.due = elapsed + MINUTE;
            }
        }
    }
}

/// Whether the clock is right, as far as can be told: what is deleted because its time is over cannot be had again when
/// the clock is set right.
struct Belief {
    /// The time was this ...
    time: Timestamp,
    /// ... when the process had been there for so long.
    elapsed: Duration,
    doubted_since: Option<Duration>,
}

/// How far the clock may be ahead of what it was believed to be, and how long it is doubted then: it may as well be that
/// nothing has happened for so long, and nobody looks.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl Belief {
    fn new(time: Timestamp, elapsed: Duration) -> Belief {
        Belief { time, elapsed, doubted_since: None }
    }

    fn holds(&mut self, now: Timestamp, elapsed: Duration) -> bool {
        let expected = self.time.plus(elapsed.saturating_sub(self.elapsed));
        if now > expected.plus(WEEK) {
            let since = *self.doubted_since.get_or_insert_with(|| {
                warn!(
                    "the clock says {now}, but the last that is known to have happened is of {expected}: nothing is \
                     deleted for a week. If the clock is wrong, set it right and start again before that"
                );
                elapsed
            });
            if elapsed.saturating_sub(since) < WEEK {
                return false;
            }
        }
        *self = Belief::new(now, elapsed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chore(name: &'static str) -> Chore {
        let mut chore = chores().pop().unwrap();
        chore.name = name;
        chore
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_fails_or_panics_is_done_again_after_a_minute_and_what_is_done_after_an_hour() {
        type Turn = fn() -> Result<bool, Error>;
        let failing: Turn = || Err(Error::Unavailable("away".to_string()));
        let panicking: Turn = || panic!("on purpose");
        for (turn, next) in [(failing, 60), (panicking, 60), (|| Ok(false), 3600), (|| Ok(true), 0)] {
            let mut chore = chore("of the test");
            chore.attend(at(5), |_| turn());
            let is_done = |chore: &mut Chore, elapsed| {
                let mut done = false;
                chore.attend(elapsed, |_| {
                    done = true;
                    Ok(false)
                });
                done
            };
            assert!(next == 0 || !is_done(&mut chore, at(5 + next - 1)), "{next}");
            assert_eq!(chore.has_more, next == 0);
            assert!(is_done(&mut chore, at(5 + next)), "{next}");
        }
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_believed_again_when_it_is_set_right_or_after_a_week() {
        let start = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        let mut belief = Belief::new(start, at(0));
        assert!(belief.holds(start.plus(WEEK), at(1)));
        // However long it runs without anything that happens.
        assert!(belief.holds(start.plus(WEEK).plus(at(90 * 86_400)), at(90 * 86_400)));
        let (jumped, now) = (start.plus(at(1000 * 86_400)), at(90 * 86_400 + 5));
        assert!(!belief.holds(jumped, now));
        assert!(!belief.holds(jumped.plus(WEEK - at(1)), now + WEEK - at(1)));
        assert!(belief.holds(start.plus(WEEK).plus(now), now + at(1)));
        assert!(!belief.holds(jumped, now + at(2)));
        assert!(!belief.holds(jumped, now + at(1) + WEEK));
        assert!(belief.holds(jumped, now + at(2) + WEEK));
        assert!(belief.holds(jumped, now + at(3) + WEEK));
    }
}
