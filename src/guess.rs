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

use crate::address::neighbourhood;
use crate::bounded::{Bounded, Fading};
use crate::clock::{Clock, Timestamp};
use crate::error::Error;
use crate::id::UserId;
use crate::limit::{Limiter, Rate};
use crate::password::PasswordHash;
use crate::store::Store;

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
pub struct Guess<'a> {
    pub email: &'a str,
    /// The account's, if there is one, active or not: a deactivation that ended a wait would tell that there is.
    pub user: Option<UserId>,
    pub hash: Option<&'a PasswordHash>,
    pub from: IpAddr,
}

impl Guess<'_> {
    fn account(&self) -> (&str, Option<&str>) {
        (self.email, self.hash.map(PasswordHash::as_str))
    }

    fn pair(&self) -> ((&str, Option<&str>), IpAddr) {
        (self.account(), neighbourhood(self.from))
    }
}

/// Failures one after the other.
#[derive(Clone, Copy, Default)]
struct Failures {
    count: u32,
    /// When the last one was, or the wait for it ends; in milliseconds since the epoch.
    until: i64,
}

impl Fading for Failures {
    fn over_at(&self) -> i64 {
        self.until.saturating_add(REMEMBERED.as_millis() as i64)
    }
}

impl Failures {
    fn wait(&self, now: Timestamp) -> Result<(), Duration> {
        let left = u64::try_from(self.until.saturating_sub(now.millis())).unwrap_or(0);
        // Never longer than the longest: the clock may have been set back.
        if left == 0 { Ok(()) } else { Err(Duration::from_millis(left).min(DAY)) }
    }

    fn add(&mut self, now: Timestamp) {
        self.count = self.count.saturating_add(1);
        let step = WAITS.iter().rfind(|(count, _)| *count <= self.count);
        let wait =
            step.filter(|(count, wait)| *count == self.count || *wait == DAY).map_or(Duration::ZERO, |step| step.1);
        self.until = now.plus(wait).millis();
    }
}

pub struct Guesses {
    store: Arc<dyn Store>,
    pairs: Bounded<Failures>,
    accounts: Limiter,
    clock: Clock,
}

impl Guesses {
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Guesses {
        Guesses { store, pairs: Bounded::new(KNOWN), accounts: Limiter::new(KNOWN), clock }
    }

    /// To be asked before the password is verified. An error: there is a wait; it gets no longer for being asked.
    pub fn admit(&self, guess: &Guess<'_>) -> Result<(), Error> {
        let now = self.clock.now();
        self.pairs.with(&guess.pair(), now, |failures| failures.wait(now)).map_err(too_many)?;
        match self.accounts.check(&guess.account(), BACKSTOP, now) {
            Err(_) if self.has_logged_in_there(guess)? => Ok(()),
            judged => judged.map_err(too_many),
        }
    }

    /// Counts a failure, or forgets those from this address. Of guesses that were verified at the same time, those that
    /// come after a wait has begun are refused whatever they are: nobody learns more by asking faster.
    pub fn settle(&self, guess: &Guess<'_>, right: bool) -> Result<(), Error> {
        let now = self.clock.now();
        let counted = self.pairs.with(&guess.pair(), now, |failures| {
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
            warn!("too many failed logins to one account from {}: it waits {} s", guess.from, wait.as_secs());
        }
        // Whether there was one left has been asked before.
        let _ = self.accounts.spend(&guess.account(), BACKSTOP, now);
        Err(Error::invalid_credentials())
    }

    /// Whether the account has had a session there lately, ended or not. An account that does not exist is looked up all
    /// the same, and takes as long.
    fn has_logged_in_there(&self, guess: &Guess<'_>) -> Result<bool, Error> {
        let addresses = self.store.addresses_of(guess.user.unwrap_or(UserId(Uuid::nil())), ADDRESSES)?;
        let place = neighbourhood(guess.from);
        Ok(addresses.iter().any(|address| address.parse().is_ok_and(|ip| neighbourhood(ip) == place)))
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
        let now = Timestamp::from_millis(1_700_000_000_000).unwrap();
        let mut waits = Vec::new();
        for _ in 0..27 {
            failures.add(now);
            waits.extend(failures.wait(now).err().map(|wait| (failures.count, wait.as_secs())));
        }
        assert_eq!(waits, [(7, 60), (10, 600), (15, 900), (20, 3600), (25, 86_400), (26, 86_400), (27, 86_400)]);
    }
}
