//! What a thread does that delivers: the due deliveries of one endpoint one after the other, or some mails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use log::{error, warn};

use crate::base::error::StoreError;
use crate::outbox::delivery::{Answer, Channel, Outcome};
use crate::outbox::shared::Shared;
use crate::outbox::store::{Due, Then, Tried, Turn};

/// How long a turn lasts: then it is another's. A try that takes longer is slow.
const TURN: Duration = Duration::from_secs(2);
/// How much is recorded together, and how long a try may wait for it. It may be made again if the process dies before.
const TOGETHER: usize = 100;
const WITHIN: Duration = Duration::from_millis(250);
/// How long mails are begun that were taken together. The store holds them long enough for the last try after it.
const MAIL_TURN: Duration = Duration::from_secs(15);
/// How long and how often it is tried to record something, while the store is away.
const RECORDING: Duration = Duration::from_secs(10);
const STORE_PAUSE: Duration = Duration::from_millis(250);

/// One try. A channel that panics has failed; the panic's hook has logged it.
fn attempt(channel: &dyn Channel, due: Due) -> Tried {
    let started = Instant::now();
    // Otherwise the event that it would tell of is deleted.
    let is_there = due.delivery.event.is_none() || due.delivery.body.is_some();
    let outcome = if is_there { try_once(channel, &due) } else { Outcome::Dropped };
    let is_slow = matches!(outcome, Outcome::Failed { timed_out: true, .. }) || started.elapsed() > TURN;
    Tried { due, outcome, is_slow }
}

fn try_once(channel: &dyn Channel, due: &Due) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| channel.deliver(&due.delivery))).unwrap_or_else(|_| Outcome::Failed {
        answer: Answer::default(),
        reason: "an internal error".to_string(),
        timed_out: false,
    })
}

/// Does it again while the store is away. `None`: it stayed away.
fn patiently<T>(shared: &Shared, act: impl Fn() -> Result<T, StoreError>) -> Option<T> {
    let started = Instant::now();
    loop {
        match act() {
            Ok(value) => return Some(value),
            Err(StoreError::Unavailable(_)) if started.elapsed() < RECORDING && !shared.is_stopping() => {
                std::thread::sleep(STORE_PAUSE);
            }
            Err(StoreError::Unavailable(error)) => {
                warn!("a delivery is made again, its outcome cannot be recorded: {error}");
                return None;
            }
            Err(error) => {
                error!("a delivery is made again, its outcome cannot be recorded: {error}");
                return None;
            }
        }
    }
}

/// Delivers what is due for an endpoint.
pub(super) fn deliver_turn(shared: &Shared, channel: &dyn Channel, turn: &Turn) {
    let started = Instant::now();
    let record = |tried: &mut Vec<Tried>, then| {
        let outcome = patiently(shared, || shared.store.record_tries(turn, tried, then));
        tried.clear();
        outcome == Some(true)
    };
    let (mut tried, mut since): (Vec<Tried>, _) = (Vec::new(), started);
    'turn: while let Some(due) = patiently(shared, || shared.store.due_for(turn)) {
        if due.is_empty() {
            break;
        }
        for due in due {
            if shared.is_stopping() || started.elapsed() > TURN {
                break 'turn;
            }
            let one = attempt(channel, due);
            if one.outcome == Outcome::Paused {
                record(&mut tried, Then::Rest);
                return;
            }
            if tried.is_empty() {
                since = Instant::now();
            }
            let is_last = one.is_slow || matches!(one.outcome, Outcome::Gone(_));
            tried.push(one);
            if is_last {
                break 'turn;
            }
            if (tried.len() >= TOGETHER || since.elapsed() > WITHIN) && !record(&mut tried, Then::GoOn) {
                return;
            }
        }
        // Before it is asked what is due.
        if !tried.is_empty() && !record(&mut tried, Then::GoOn) {
            return;
        }
    }
    record(&mut tried, Then::End);
}

/// Delivers mails that were taken.
pub(super) fn deliver_mail(shared: &Shared, channel: &dyn Channel, mails: Vec<Due>) {
    let started = Instant::now();
    let mut mails = mails.into_iter();
    while !shared.is_stopping() && started.elapsed() < MAIL_TURN {
        let Some(due) = mails.next() else { break };
        let place = due.place;
        let tried = attempt(channel, due);
        let is_slow = matches!(tried.outcome, Outcome::Failed { timed_out: true, .. });
        shared.note_mail(is_slow);
        let is_recorded = patiently(shared, || shared.store.record_mail(&tried)).is_some();
        shared.let_go(&[place]);
        if is_slow || !is_recorded {
            break;
        }
    }
    let left: Vec<Due> = mails.collect();
    if !left.is_empty() {
        patiently(shared, || shared.store.return_mail(&left));
        shared.let_go(&left.iter().map(|due| due.place).collect::<Vec<_>>());
    }
}
