//! Failures: wrong guesses at the password of an account. How they are counted, and how long they make a client wait.
//!
//! They are counted twice: for each account and address together, and for each account. Both counts are kept in the
//! store, under ids that are keyed hashes.

use std::time::Duration;

use uuid::Uuid;

use crate::base::clock::Timestamp;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// After this many failures in a row for one account from one address, the address has to wait this long. Each failure
/// after the last step is followed by the last wait.
const WAITS: [(i64, Duration); 5] =
    [(7, MINUTE), (10, Duration::from_secs(10 * 60)), (15, Duration::from_secs(15 * 60)), (20, HOUR), (25, DAY)];

/// Failures in a row are forgotten this long after the last one and its wait.
pub(crate) const FORGOTTEN_AFTER: Duration = DAY;

/// How many accounts and addresses have failures in a row at most. Beyond it, those that would be forgotten soonest are
/// forgotten early. So an attacker who makes up addresses fills some 150 MB of the database.
pub(crate) const MOST: i64 = 1_000_000;

/// How many failures an account may have from all addresses together. At the limit, one more is allowed whenever one is
/// restored: every 3.6 s. The limit does not apply where the user has logged in before; at a new address, an attack can
/// make them wait.
const ACCOUNT_LIMIT: u32 = 1000;
const RESTORED_IN: Duration = HOUR;

/// Under what the failures of an attempt are counted.
#[derive(Clone, Copy, Debug)]
pub struct FailureIds {
    pub at_address: Uuid,
    pub account: Uuid,
}

/// What is counted at a time, which is the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    pub now: Timestamp,
    pub at_address: InARow,
    pub of_account: OfAccount,
}

impl Failures {
    /// With one more.
    pub fn add(self) -> Failures {
        Failures { at_address: self.at_address.add(self.now), of_account: self.of_account.add(self.now), ..self }
    }

    /// How long the address has to wait. Until then, nothing is counted.
    pub fn wait_at_address(&self) -> Option<Duration> {
        self.at_address.wait(self.now)
    }

    /// How long everybody has to wait at addresses where the user has not logged in before.
    pub(crate) fn wait_elsewhere(&self) -> Option<Duration> {
        self.of_account.wait(self.now)
    }
}

/// Failures in a row, at an account from one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InARow {
    pub count: i64,
    /// When the last one was, or when its wait ends.
    pub until: Timestamp,
}

impl InARow {
    pub const NONE: InARow = InARow { count: 0, until: Timestamp::EPOCH };

    fn wait(self, now: Timestamp) -> Option<Duration> {
        left(self.until, DAY, now)
    }

    fn add(self, now: Timestamp) -> InARow {
        let is_forgotten = self.until.plus(FORGOTTEN_AFTER) <= now;
        let count = if is_forgotten { 1 } else { self.count.saturating_add(1) };
        let step = WAITS.iter().rfind(|(step, _)| *step <= count);
        let wait = step.filter(|(step, wait)| *step == count || *wait == DAY).map_or(Duration::ZERO, |step| step.1);
        InARow { count, until: now.plus(wait) }
    }
}

/// Failures at an account from all addresses, by the generic cell rate algorithm (ITU-T I.371).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfAccount {
    /// When all of them will have been restored.
    pub over_at: Timestamp,
}

impl OfAccount {
    pub const NONE: OfAccount = OfAccount { over_at: Timestamp::EPOCH };

    const ONE: Duration = Duration::from_millis(RESTORED_IN.as_millis() as u64 / ACCOUNT_LIMIT as u64);

    fn missing(self, now: Timestamp) -> Duration {
        left(self.over_at, RESTORED_IN, now).unwrap_or_default()
    }

    fn wait(self, now: Timestamp) -> Option<Duration> {
        let wait = self.missing(now).saturating_sub(RESTORED_IN - OfAccount::ONE);
        (!wait.is_zero()).then_some(wait)
    }

    /// At the limit it stays as it is.
    fn add(self, now: Timestamp) -> OfAccount {
        match self.wait(now) {
            None => OfAccount { over_at: now.plus(self.missing(now) + OfAccount::ONE) },
            Some(_) => self,
        }
    }
}

/// How long it is until then, which is at most `longest`. What seems longer was counted before the clock was set back,
/// and what seems far longer by a clock that was wrong: that counts nothing.
fn left(until: Timestamp, longest: Duration, now: Timestamp) -> Option<Duration> {
    let left = Duration::from_millis(u64::try_from(until.millis().saturating_sub(now.millis())).unwrap_or(0));
    (!left.is_zero() && left <= longest * 2).then(|| left.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::parse("2026-01-01T00:00:00Z").unwrap().plus(Duration::from_secs(seconds))
    }

    #[test]
    fn each_step_waits_longer_and_the_last_one_stays() {
        let (mut failures, mut waits) = (InARow::NONE, Vec::new());
        for _ in 0..27 {
            failures = failures.add(at(1));
            waits.extend(failures.wait(at(1)).map(|wait| (failures.count, wait.as_secs())));
        }
        assert_eq!(waits, [(7, 60), (10, 600), (15, 900), (20, 3600), (25, 86_400), (26, 86_400), (27, 86_400)]);
    }

    #[test]
    fn failures_in_a_row_are_forgotten_a_day_after_the_last_one_and_its_wait() {
        const DAY: u64 = 86_400;
        let six = (0..6).fold(InARow::NONE, |failures, second| failures.add(at(second)));
        assert_eq!(six.add(at(5 + DAY - 1)).wait(at(5 + DAY - 1)), Some(MINUTE));
        assert_eq!(six.add(at(5 + DAY)), InARow { count: 1, until: at(5 + DAY) });
        let seven = six.add(at(5));
        assert_eq!([seven.wait(at(64)), seven.wait(at(65))], [Some(Duration::from_secs(1)), None]);
        assert_eq!(seven.add(at(65 + DAY - 1)).count, 8);
        assert_eq!(seven.add(at(65 + DAY)).count, 1);
    }

    #[test]
    fn an_account_has_a_thousand_and_one_more_every_three_and_a_half_seconds() {
        let mut account = OfAccount::NONE;
        for number in 0..1000 {
            assert_eq!(account.wait(at(0)), None, "{number}");
            account = account.add(at(0));
        }
        let wait = |account: OfAccount, seconds| account.wait(at(seconds)).map(|wait| wait.as_millis());
        assert_eq!([wait(account, 0), wait(account, 3), wait(account, 4)], [Some(3600), Some(600), None]);
        assert_eq!(account.add(at(3)), account);
        assert_eq!(wait(account.add(at(4)), 4), Some(3200));
        // After an hour, all are back.
        let all = (0..999).fold(account, |account, _| account.add(at(3600)));
        assert_eq!((wait(all, 3600), wait(all.add(at(3600)), 3600)), (None, Some(3600)));
    }

    #[test]
    fn a_clock_that_was_wrong_makes_nobody_wait_for_longer_than_a_wait() {
        const DAY: u64 = 86_400;
        let seven = (0..7).fold(InARow::NONE, |failures, _| failures.add(at(10 * DAY)));
        let wait = |seconds| seven.wait(at(seconds)).map(|wait| wait.as_secs());
        assert_eq!([wait(10 * DAY - 60), wait(9 * DAY), wait(0)], [Some(120), Some(DAY), None]);
        let full = (0..1000).fold(OfAccount::NONE, |account, _| account.add(at(10 * DAY)));
        let wait = |seconds| full.wait(at(seconds)).map(|wait| wait.as_millis());
        assert_eq!([wait(10 * DAY - 60), wait(9 * DAY)], [Some(3600), None]);
    }
}
