//! The jobs that a server does in the background: `jobs` is the table of them, [`Jobs`] the thread that does them in
//! turn.
//!
//! Jobs share one thread, so a job works in parts that are short, and other jobs and requests get their turn in
//! between. Two threads are not jobs, because they must not wait for a deletion or a slow store: the store's listening
//! for changes (see [`crate::store::Store::listen`]; with SQLite it looks every 100 ms) and the TLS certificate's
//! renewal (see [`crate::http::tls`]; it also starts at a signal, and its files may be on a slow disk).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::error::Error;
use crate::run::clock_check::ClockCheck;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// All jobs, in the order of their turns.
fn jobs() -> Vec<Job> {
    vec![
        Job::every(SECOND, "write the uses of keys", |app| whole(app.usage.flush())).also_at_the_end(),
        Job::every(SECOND, "write failed logins", |app| whole(app.events.flush())).also_at_the_end(),
        Job::every(SECOND, "write the number of logins", |app| whole(app.statistics.flush())).also_at_the_end(),
        Job::every(HOUR, "read the costs of stored password hashes", |app| whole(app.users.note_costs())),
        Job::every(HOUR, "encrypt secrets anew by DATA_KEY", |app| app.sealing.renew()),
        Job::every(MINUTE, "delete the rows of deleted users", |app| app.users.delete_rows_of_deleted_users()),
        Job::every(MINUTE, "delete what is left of deleted webhooks", |app| app.webhooks.prune()),
        // Also while the clock is doubted: what it says has expired is refused meanwhile, and its owner should know.
        Job::every(MINUTE, "tell of keys that expire", |app| app.keys.tell_of_expiry()),
        Job::every(HOUR, "delete expired sessions", |app| app.sessions.prune()).while_the_clock_is_right(),
        Job::every(HOUR, "delete expired one-time tokens", |app| app.recovery.prune()).while_the_clock_is_right(),
        Job::every(MINUTE, "forget old failed logins", |app| app.users.prune_failures()).while_the_clock_is_right(),
        Job::every(HOUR, "delete old counts of use", |app| app.usage.prune(app.clock.now())).while_the_clock_is_right(),
        Job::every(HOUR, "delete old figures", |app| app.statistics.prune()).while_the_clock_is_right(),
        Job::every(HOUR, "delete old events", |app| app.events.prune()).while_the_clock_is_right(),
        Job::every(HOUR, "delete old deliveries", |app| app.outbox.prune()).while_the_clock_is_right(),
        Job::every(HOUR, "delete surplus ended deliveries", |app| app.outbox.trim()),
        Job::every(HOUR, "delete keys that ended long ago", |app| app.keys.prune()).while_the_clock_is_right(),
        Job::every(HOUR, "delete surplus ended keys", |app| app.keys.trim()).while_the_clock_is_right(),
    ]
}

/// Does a part of a job, and says whether more is left.
type Part = fn(&App) -> Result<bool, Error>;

/// For a job of a single part.
fn whole<E>(outcome: Result<(), E>) -> Result<bool, Error>
where
    Error: From<E>,
{
    outcome?;
    Ok(false)
}

/// Work that is done once in every period. A failure or a panic costs one turn: the job is tried again every minute, or
/// in its usual period if that is shorter, and other jobs go on meanwhile. The log has one line when a job begins to
/// fail and one when it works again.
struct Job {
    /// What it does: "cannot {name}" in the log.
    name: &'static str,
    period: Duration,
    part: Part,
    /// Whether it deletes rows because of their age. Then it pauses while the clock is doubted: a deleted row does not come
    /// back when the clock is set right.
    needs_right_clock: bool,
    /// Whether it is done once more when the server stops, because it writes what is only in memory.
    at_the_end: bool,
    /// When its next part is due, since the start of the thread.
    due: Duration,
    is_failing: bool,
}

impl Job {
    fn every(period: Duration, name: &'static str, part: Part) -> Job {
        Job { name, period, part, needs_right_clock: false, at_the_end: false, due: Duration::ZERO, is_failing: false }
    }

    fn while_the_clock_is_right(self) -> Job {
        Job { needs_right_clock: true, ..self }
    }

    fn also_at_the_end(self) -> Job {
        Job { at_the_end: true, ..self }
    }

    /// Does a part and decides when the next one is due.
    fn run(&mut self, now: impl Fn() -> Duration, act: impl FnOnce(Part) -> Result<bool, Error>) {
        let outcome = self.attempt(act);
        // A part that takes long must be followed by the same rest as a short one: others need the store, too.
        let now = now();
        match outcome {
            Ok(more) => {
                if self.is_failing {
                    info!("can {} again", self.name);
                }
                self.is_failing = false;
                self.due = if more { now } else { now + self.period };
            }
            Err(error) => {
                let retry = self.period.min(MINUTE);
                if !self.is_failing {
                    warn!("cannot {}, trying again every {} s: {error:?}", self.name, retry.as_secs());
                }
                self.is_failing = true;
                self.due = now + retry;
            }
        }
    }

    /// Does it as the last thing.
    fn finish(&self, act: impl FnOnce(Part) -> Result<bool, Error>) {
        if let Err(error) = self.attempt(act) {
            warn!("cannot {}, and the server stops: {error:?}", self.name);
        }
    }

    fn attempt(&self, act: impl FnOnce(Part) -> Result<bool, Error>) -> Result<bool, Error> {
        // The panic hook has logged the panic.
        catch_unwind(AssertUnwindSafe(|| act(self.part)))
            .unwrap_or_else(|_| Err(Error::Internal("it panicked".to_string())))
    }
}

/// The thread that does the jobs.
pub(crate) struct Jobs {
    stop: Sender<()>,
    stopped: Receiver<()>,
}

/// Between two parts, others may write.
const BETWEEN_PARTS: Duration = Duration::from_millis(10);
/// How long the jobs at the end may take, if the store does not answer.
const AT_THE_END: Duration = Duration::from_secs(5);

impl Jobs {
    /// `latest`: the time of the last thing that is stored, or now if nothing is.
    pub(crate) fn start(app: Arc<App>, latest: Timestamp) -> Result<Jobs, String> {
        let (stop, stopping) = channel();
        let (done, stopped) = channel();
        std::thread::Builder::new()
            .name("jobs".to_string())
            .spawn(move || {
                work(&app, ClockCheck::new(latest, app.clock.elapsed()), &stopping);
                let _ = done.send(());
            })
            .map_err(|error| format!("the thread for background jobs cannot be started: {error}"))?;
        Ok(Jobs { stop, stopped })
    }

    /// Lets the part under way finish, and does the jobs that are due at the end.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.stopped.recv_timeout(AT_THE_END).is_err() {
            warn!("the store does not answer: the last uses of keys and failed logins are not written");
        }
    }
}

fn work(app: &App, mut clock_check: ClockCheck, stopping: &Receiver<()>) {
    let mut jobs = jobs();
    let started = Instant::now();
    let is_stopping = |pause| matches!(stopping.recv_timeout(pause), Err(RecvTimeoutError::Disconnected));
    loop {
        let is_right = clock_check.is_right(app.clock.now(), app.clock.elapsed());
        let allowed = jobs.iter_mut().filter(|job| is_right || !job.needs_right_clock);
        // Real time, also while a test stops the clock; a test that advances the clock does not wait for periods.
        let (elapsed, advanced) = (|| started.elapsed(), || app.clock.advanced());
        let pause = take_turns(allowed, elapsed, advanced, || is_stopping(Duration::ZERO), |part| part(app));
        if is_stopping(pause) {
            break;
        }
    }
    for job in jobs.iter().filter(|job| job.at_the_end) {
        job.finish(|part| part(app));
    }
}

/// Does a part of each of these jobs that is due, until the server stops. Returns how long to rest before the next turns.
fn take_turns<'a>(
    jobs: impl Iterator<Item = &'a mut Job>,
    elapsed: impl Fn() -> Duration,
    advanced: impl Fn() -> Duration,
    is_stopping: impl Fn() -> bool,
    mut act: impl FnMut(Part) -> Result<bool, Error>,
) -> Duration {
    let mut pause = SECOND;
    for job in jobs {
        if is_stopping() {
            break;
        }
        // A clock that is advanced during a part makes the job due; it is no time that the part took.
        let before = advanced();
        if job.due <= elapsed() + before {
            job.run(|| elapsed() + before, &mut act);
        }
        pause = pause.min(job.due.saturating_sub(elapsed() + advanced()));
    }
    pause.max(BETWEEN_PARTS)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    type Turn = fn() -> Result<bool, Error>;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn run(job: &mut Job, seconds: u64, turn: Turn) {
        job.run(|| at(seconds), |_| turn());
    }

    #[test]
    fn what_fails_or_panics_is_done_again_after_a_minute_and_what_is_done_after_its_period() {
        let failing: Turn = || Err(Error::Unavailable("away".to_string()));
        let panicking: Turn = || panic!("on purpose");
        for (period, turn, next) in [
            (HOUR, failing, 60),
            (HOUR, panicking, 60),
            (HOUR, || Ok(false), 3600),
            (HOUR, || Ok(true), 0),
            (SECOND, failing, 1),
            (SECOND, || Ok(false), 1),
        ] {
            let mut job = Job::every(period, "be a test", |_| Ok(false));
            run(&mut job, 5, turn);
            assert_eq!(job.due, at(5 + next));
            run(&mut job, 100, || Ok(false));
            assert_eq!(job.due, at(100) + period, "as ever when it works again");
        }
    }

    #[test]
    fn others_get_their_turn_after_a_part_however_long_it_took() {
        for (turn, rest) in [
            ((|| Ok(false)) as Turn, SECOND),
            (|| Err(Error::Unavailable("away".to_string())), SECOND),
            (|| Ok(true), Duration::ZERO),
        ] {
            let now = Cell::new(at(5));
            let mut job = Job::every(SECOND, "be a test", |_| Ok(false));
            let part = |_: Part| {
                now.set(at(8));
                turn()
            };
            job.run(|| now.get(), part);
            assert_eq!(job.due, at(8) + rest);
        }
    }

    #[test]
    fn a_stop_lets_only_the_part_under_way_finish() {
        for parts_before_the_stop in 0..3 {
            let (done, mut jobs) = (Cell::new(0), [(); 3].map(|()| Job::every(SECOND, "be a test", |_| Ok(false))));
            let part = |_: Part| {
                done.set(done.get() + 1);
                Ok(false)
            };
            let no_time = || Duration::ZERO;
            take_turns(jobs.iter_mut(), no_time, no_time, || done.get() == parts_before_the_stop, part);
            assert_eq!(done.get(), parts_before_the_stop);
        }
    }

    #[test]
    fn a_clock_that_is_advanced_during_a_part_makes_the_job_due() {
        let (advanced, mut jobs) = (Cell::new(Duration::ZERO), [Job::every(HOUR, "be a test", |_| Ok(false))]);
        let part = |_: Part| {
            advanced.set(HOUR);
            Ok(false)
        };
        let pause = take_turns(jobs.iter_mut(), || at(5), || advanced.get(), || false, part);
        assert_eq!((jobs[0].due, pause), (at(5) + HOUR, BETWEEN_PARTS));
    }

    #[test]
    fn what_deletes_by_the_clock_pauses_while_it_is_doubted_and_what_is_only_in_memory_is_written_at_the_end() {
        let names = |is: fn(&Job) -> bool| jobs().iter().filter(|job| is(job)).map(|job| job.name).collect::<Vec<_>>();
        let deleting = [
            "delete expired sessions",
            "delete expired one-time tokens",
            "forget old failed logins",
            "delete old counts of use",
            "delete old figures",
            "delete old events",
            "delete old deliveries",
            "delete keys that ended long ago",
            "delete surplus ended keys",
        ];
        assert_eq!(names(|job| job.needs_right_clock), deleting);
        assert_eq!(
            names(|job| job.at_the_end),
            ["write the uses of keys", "write failed logins", "write the number of logins"]
        );
    }
}
