//! Failed logins: how often a password may be guessed before whoever guesses has to wait.
//!
//! Failures are counted for each account from each address, and for each account as a whole. What is counted is kept in
//! memory by each instance, as hashes, and an account without a user like one with. A new password is another account to
//! this count: what was guessed about the old one says nothing about it, and whoever was locked out can use it at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use log::warn;
use uuid::Uuid;

use crate::accounts::passwords::{PasswordHash, Passwords};
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

/// After so many failures of an account from an address, one after the other, that address waits so long. The last wait
/// follows each further failure.
const WAITS: [(u32, Duration); 5] =
    [(7, MINUTE), (10, Duration::from_secs(10 * 60)), (15, Duration::from_secs(15 * 60)), (20, HOUR), (25, DAY)];

/// Failures are forgotten so long after the last one, and the wait for it.
const REMEMBERED: Duration = DAY;

/// An account's failures from all addresses together. Spent, one comes back every 3.6 s: nobody is locked out for longer
/// by others, and nobody at all where he has logged in before.
const BACKSTOP: Rate = Rate { limit: 1000, window: HOUR };

/// Accounts with an address, and accounts, whose failures are known at once.
const KNOWN: usize = 128 * 1024;

/// The account's latest addresses among which one is looked for.
const ADDRESSES: i64 = 200;

/// Somebody tries a password.
pub struct PasswordAttempt<'a> {
    pub email: &'a str,
    /// The account's, if there is one, active or not: a deactivation that ended a wait would tell that there is.
    pub user: Option<UserId>,
    pub hash: Option<&'a PasswordHash>,
    /// A password of one who is not active is never right.
    pub is_active: bool,
    pub by: &'a By,
    /// How the audit trail calls a failure.
    pub failure: Kind,
}

impl PasswordAttempt<'_> {
    fn account(&self) -> (&str, Option<&str>) {
        (self.email, self.hash.map(PasswordHash::as_str))
    }

    fn pair(&self) -> ((&str, Option<&str>), IpAddr) {
        (self.account(), client_network(self.by.ip()))
    }
}

/// Failures one after the other.
#[derive(Clone, Copy, Default)]
struct Failures {
    count: u32,
    /// When the last one was, or the wait for it ends; by [`Clock::elapsed`].
    until: Duration,
}

impl Fading for Failures {
    fn over_at(&self) -> Duration {
        if self.count == 0 { Duration::ZERO } else { self.until + REMEMBERED }
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

pub struct LoginThrottle {
    store: Arc<dyn SessionStore>,
    passwords: Arc<Passwords>,
    events: Arc<Events>,
    pairs: Bounded<Failures>,
    accounts: Limiter,
    clock: Clock,
}

impl LoginThrottle {
    pub fn new(
        store: Arc<dyn SessionStore>,
        passwords: Arc<Passwords>,
        events: Arc<Events>,
        clock: Clock,
    ) -> LoginThrottle {
        let (pairs, accounts) = (Bounded::new(KNOWN), Limiter::new(KNOWN));
        LoginThrottle { store, passwords, events, pairs, accounts, clock }
    }

    /// Whether the password is right, after the same work whatever it is. An error: it is not, which counts, or whoever
    /// throttle has to wait.
    pub fn verify(&self, attempt: &PasswordAttempt<'_>, password: &str) -> Result<(), Error> {
        let failed = || self.events.note_failure(attempt.failure, attempt.user, attempt.by);
        // Whoever hammers on during his wait is to be seen in the trail.
        self.admit(attempt).inspect_err(|error| {
            if matches!(error, Error::TooMany { .. }) {
                failed();
            }
        })?;
        let right = self.passwords.verify(password.to_string(), attempt.hash.filter(|_| attempt.is_active))?;
        self.settle(attempt, right).inspect_err(|_| failed())
    }

    /// Asked before the password is verified. An error: there is a wait; it gets no longer for being asked.
    fn admit(&self, attempt: &PasswordAttempt<'_>) -> Result<(), Error> {
        let now = self.clock.elapsed();
        self.pairs.with(&attempt.pair(), now, |failures| failures.wait(now)).map_err(too_many)?;
        let all = self.accounts.look(&attempt.account(), BACKSTOP, now);
        if all.remaining > 0 || self.has_logged_in_there(attempt)? { Ok(()) } else { Err(too_many(all.retry_after())) }
    }

    /// Counts a failure, or forgets those from this address. Of throttle that were verified at the same time, those that
    /// come after a wait has begun are refused whatever they are: nobody learns more by asking faster.
    fn settle(&self, attempt: &PasswordAttempt<'_>, right: bool) -> Result<(), Error> {
        let now = self.clock.elapsed();
        let counted = self.pairs.with(&attempt.pair(), now, |failures| {
            failures.wait(now)?;
            if right {
                *failures = Failures::default();
            } else {
                failures.add(now);
            }
            Ok(failures.wait(now).err())
        });
        let wait = counted.map_err(too_many)?;
        if right {
            return Ok(());
        }
        if let Some(wait) = wait {
            warn!("too many failed logins to one account from {}: it waits {} s", attempt.by.ip(), wait.as_secs());
        }
        // Whether there was one left has been asked before.
        let _ = self.accounts.spend(&attempt.account(), BACKSTOP, now);
        Err(Error::invalid_credentials())
    }

    /// Whether the account has had a session there lately, ended or not. An account that does not exist is looked up all
    /// the same, and takes as long.
    fn has_logged_in_there(&self, attempt: &PasswordAttempt<'_>) -> Result<bool, Error> {
        let addresses = self.store.addresses_of(attempt.user.unwrap_or(UserId(Uuid::nil())), ADDRESSES)?;
        let place = client_network(attempt.by.ip());
        Ok(addresses.iter().any(|address| address.parse().is_ok_and(|ip| client_network(ip) == place)))
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
