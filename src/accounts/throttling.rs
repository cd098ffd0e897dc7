//! Login throttling: after several wrong passwords, the client has to wait before it may try the next one.
//!
//! Failures are counted twice: for each account and address together, and for each account. Each instance keeps its own
//! counts in memory, as hashes. E-mails without a user are counted like all others, so that a wait does not reveal
//! whether there is a user. A new password starts new counts: wrong guesses at the old one say nothing about it, and
//! its user need not wait.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use log::warn;
use uuid::Uuid;

use crate::accounts::passwords::{PasswordHash, Passwords, Typed};
use crate::accounts::session_address::is_known_address;
use crate::accounts::store::SessionStore;
use crate::audit::event::{By, Kind};
use crate::audit::events::Events;
use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::id::UserId;
use crate::base::network::client_network;
use crate::memory::bounded::{Bounded, Fading};
use crate::memory::limiter::{Limiter, Rate};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// After this many failures in a row for one account from one address, the address has to wait this long. Each failure
/// after the last step is followed by the last wait.
const WAITS: [(u32, Duration); 5] =
    [(7, MINUTE), (10, Duration::from_secs(10 * 60)), (15, Duration::from_secs(15 * 60)), (20, HOUR), (25, DAY)];

/// Failures are forgotten this long after the last one and its wait.
const FORGOTTEN_AFTER: Duration = DAY;

/// How many failures an account may have from all addresses together. At the limit, one more is allowed every 3.6 s.
/// The limit does not apply where the user has logged in before; at a new address, an attack can make them wait.
const ACCOUNT_LIMIT: Rate = Rate { limit: 1000, window: HOUR };

/// How many counts are kept of each kind.
const COUNTS: usize = 128 * 1024;

/// How many of a user's latest login addresses are searched.
const ADDRESSES: i64 = 200;

/// Someone tries a password.
pub(crate) struct PasswordAttempt<'a> {
    /// The user's as it is stored, or the normal form of one that nobody has: however it is typed, it is counted once.
    pub email: &'a str,
    /// The user with this e-mail, active or not. Inactive users count too: otherwise deactivating a user would end a
    /// wait, and so reveal that there is one.
    pub user: Option<UserId>,
    pub hash: Option<&'a PasswordHash>,
    /// No password is right for an inactive user.
    pub is_active: bool,
    pub by: &'a By,
    /// What a failure is recorded as in the audit trail.
    pub failure: Kind,
}

impl PasswordAttempt<'_> {
    fn account(&self) -> (&str, Option<&str>) {
        (self.email, self.hash.map(PasswordHash::as_str))
    }

    fn account_at_address(&self) -> ((&str, Option<&str>), IpAddr) {
        (self.account(), client_network(self.by.ip()))
    }
}

/// The password was right.
pub(crate) struct Right {
    pub typed: Typed,
    /// Whether failures from this address are counted, which [`LoginThrottle::clear`] clears.
    has_failures: bool,
}

/// Failures in a row.
#[derive(Clone, Copy, Default)]
struct Failures {
    count: u32,
    /// When the last one was, or when its wait ends; by [`Clock::elapsed`].
    until: Duration,
}

impl Fading for Failures {
    fn over_at(&self) -> Duration {
        if self.count == 0 { Duration::ZERO } else { self.until + FORGOTTEN_AFTER }
    }
}

impl Failures {
    fn wait(&self, now: Duration) -> Result<(), Duration> {
        let left = self.until.saturating_sub(now);
        if left.is_zero() { Ok(()) } else { Err(left) }
    }

    fn add(&mut self, now: Duration) {
        self.count = self.count.saturating_add(1);
        let step = WAITS.iter().rfind(|(count, _)| *count <= self.count);
        let wait =
            step.filter(|(count, wait)| *count == self.count || *wait == DAY).map_or(Duration::ZERO, |step| step.1);
        self.until = now + wait;
    }
}

pub(crate) struct LoginThrottle {
    store: Arc<dyn SessionStore>,
    passwords: Arc<Passwords>,
    events: Arc<Events>,
    /// Of an account from one address.
    failures: Bounded<Failures>,
    /// Of an account from all addresses.
    account_limit: Limiter,
    clock: Clock,
}

impl LoginThrottle {
    pub(crate) fn new(
        store: Arc<dyn SessionStore>,
        passwords: Arc<Passwords>,
        events: Arc<Events>,
        clock: Clock,
    ) -> LoginThrottle {
        let (failures, account_limit) = (Bounded::new(COUNTS), Limiter::new(COUNTS));
        LoginThrottle { store, passwords, events, failures, account_limit, clock }
    }

    /// An error: the password is wrong, which counts as a failure, or the client has to wait. A wrong password takes the
    /// same time whether there is such a user or not. A right one clears no failures: it may not be all that is asked
    /// for.
    pub(crate) fn verify(&self, attempt: &PasswordAttempt<'_>, password: &str) -> Result<Right, Error> {
        let failed = || self.events.note_failure(attempt.failure, attempt.user, attempt.by);
        // Attempts during a wait are recorded too, so that an attack that goes on shows in the audit trail.
        self.check_waits(attempt).inspect_err(|error| {
            if matches!(error, Error::TooMany { .. }) {
                failed();
            }
        })?;
        let typed = self.passwords.verify(password.to_string(), attempt.hash.filter(|_| attempt.is_active))?;
        self.count(attempt, typed).inspect_err(|_| failed())
    }

    /// Clears the failures from this address: all that was asked for is right.
    pub(crate) fn clear(&self, attempt: &PasswordAttempt<'_>, right: &Right) -> Result<(), Error> {
        if right.has_failures {
            let now = self.clock.elapsed();
            self.failures.with(&attempt.account_at_address(), now, |failures| *failures = Failures::default());
        }
        Ok(())
    }

    /// Called before the password is verified. An error: the client has to wait; asking does not make the wait longer.
    fn check_waits(&self, attempt: &PasswordAttempt<'_>) -> Result<(), Error> {
        let now = self.clock.elapsed();
        self.failures.with(&attempt.account_at_address(), now, |failures| failures.wait(now)).map_err(too_many)?;
        let all = self.account_limit.look(&attempt.account(), ACCOUNT_LIMIT, now);
        if all.remaining > 0 || self.is_known_address(attempt)? { Ok(()) } else { Err(too_many(all.retry_after())) }
    }

    /// Counts a failure. Attempts may be verified at the same time: once one of them has started a wait, the others are
    /// refused even if they are right, so parallel attempts gain nothing.
    fn count(&self, attempt: &PasswordAttempt<'_>, right: Option<Typed>) -> Result<Right, Error> {
        let now = self.clock.elapsed();
        let counted = self.failures.with(&attempt.account_at_address(), now, |failures| {
            failures.wait(now)?;
            if right.is_none() {
                failures.add(now);
            }
            Ok((failures.count > 0, failures.wait(now).err()))
        });
        let (has_failures, wait) = counted.map_err(too_many)?;
        if let Some(typed) = right {
            return Ok(Right { typed, has_failures });
        }
        if let Some(wait) = wait {
            warn!("too many failed logins to one account from {}: it waits {} s", attempt.by.ip(), wait.as_secs());
        }
        // `check_waits` has refused the attempt if the account is at its limit.
        let _ = self.account_limit.spend(&attempt.account(), ACCOUNT_LIMIT, now);
        Err(Error::invalid_credentials())
    }

    /// Whether the user has opened one of their latest sessions from this network, even if it has ended. An e-mail
    /// without a user is looked up too, so that it takes as long.
    fn is_known_address(&self, attempt: &PasswordAttempt<'_>) -> Result<bool, Error> {
        let addresses = self.store.addresses_of(attempt.user.unwrap_or(UserId(Uuid::nil())), ADDRESSES)?;
        Ok(is_known_address(&addresses, &attempt.by.ip().to_string()))
    }
}

fn too_many(wait: Duration) -> Error {
    Error::TooMany { message: "Too many failed attempts, try again later", wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_waits_longer_and_the_last_one_stays() {
        let mut failures = Failures::default();
        let now = Duration::from_secs(1);
        let mut waits = Vec::new();
        for _ in 0..27 {
            failures.add(now);
            waits.extend(failures.wait(now).err().map(|wait| (failures.count, wait.as_secs())));
        }
        assert_eq!(waits, [(7, 60), (10, 600), (15, 900), (20, 3600), (25, 86_400), (26, 86_400), (27, 86_400)]);
    }
}
