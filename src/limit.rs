//! How often something may happen: the generic cell rate algorithm (ITU-T I.371), and what is limited by address
//! and by user.

use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use crate::address::neighbourhood;
use crate::bounded::{Bounded, Fading};
use crate::clock::Clock;
use crate::error::Error;
use crate::id::UserId;

/// A bucket of so many, which fills up evenly, all of it in the window. All of them may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub limit: u32,
    pub window: Duration,
}

impl Rate {
    /// Nanoseconds in which one comes back; rounded up, so that no window has one too many.
    fn one(self) -> u64 {
        nanos(self.window).div_ceil(u64::from(self.limit.max(1)))
    }

    /// Nanoseconds in which an empty bucket fills up.
    fn all(self) -> u64 {
        self.one().saturating_mul(u64::from(self.limit.max(1)))
    }

    fn quota(self, missing: u64) -> Quota {
        let left = (self.all() - missing) / self.one().max(1);
        Quota { policy: self, remaining: u32::try_from(left).unwrap_or(u32::MAX), reset: Duration::from_nanos(missing) }
    }
}

/// What is left in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub policy: Rate,
    pub remaining: u32,
    /// Until everything is there again.
    pub reset: Duration,
}

impl Quota {
    /// Until one is there again, if there is none.
    pub fn retry_after(&self) -> Duration {
        self.reset.saturating_sub(Duration::from_nanos(self.policy.all() - self.policy.one()))
    }
}

/// When a subject's bucket is full again, by [`Clock::elapsed`].
#[derive(Clone, Copy, Default)]
struct FullAt(Duration);

impl Fading for FullAt {
    fn over_at(&self) -> Duration {
        self.0
    }
}

impl FullAt {
    /// In nanoseconds. Of a rate that was another one before, all is missing at the worst, from now on.
    fn missing(&mut self, rate: Rate, now: Duration) -> u64 {
        let missing = nanos(self.0.saturating_sub(now)).min(rate.all());
        self.0 = now + Duration::from_nanos(missing);
        missing
    }
}

/// The buckets of many subjects.
pub struct Limiter {
    buckets: Bounded<FullAt>,
}

impl Limiter {
    /// `subjects`: how many are known at once. Of more, those that have spent least are forgotten.
    pub fn new(subjects: usize) -> Limiter {
        Limiter { buckets: Bounded::new(subjects) }
    }

    /// Takes one out of the subject's bucket, if there is one. `now`: [`Clock::elapsed`]. `Err`: there is none.
    pub fn spend(&self, subject: &impl Hash, rate: Rate, now: Duration) -> Result<Quota, Quota> {
        self.buckets.with(subject, now, |full_at| {
            let missing = full_at.missing(rate, now);
            if missing + rate.one() > rate.all() {
                return Err(rate.quota(missing));
            }
            *full_at = FullAt(now + Duration::from_nanos(missing + rate.one()));
            Ok(rate.quota(missing + rate.one()))
        })
    }

    /// What is left, without taking anything.
    pub fn look(&self, subject: &impl Hash, rate: Rate, now: Duration) -> Quota {
        self.buckets.with(subject, now, |full_at| rate.quota(full_at.missing(rate, now)))
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What is counted by the address that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    SignUp,
    LogIn,
    Refresh,
    FailedKey,
    /// Of these, those that the store was asked for.
    FailedLookup,
}

/// How much of each an address may do; `None`: as much as it likes.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressRates {
    pub sign_up: Option<Rate>,
    pub log_in: Option<Rate>,
    pub refresh: Option<Rate>,
    pub failed_keys: Option<Rate>,
}

/// Addresses that are known at once, counted anew for each thing that is limited.
const ADDRESSES: usize = 128 * 1024;

pub struct AddressLimits {
    rates: AddressRates,
    limiter: Limiter,
    clock: Clock,
}

impl AddressLimits {
    pub fn new(rates: AddressRates, clock: Clock) -> AddressLimits {
        AddressLimits { rates, limiter: Limiter::new(ADDRESSES), clock }
    }

    /// Counts one more of these. An error: it is one too many.
    pub fn spend(&self, what: Limited, client: IpAddr) -> Result<(), Error> {
        let Some(rate) = self.rate(what) else { return Ok(()) };
        let spent = self.limiter.spend(&(what, neighbourhood(client)), rate, self.clock.elapsed());
        spent.map(drop).map_err(|quota| what.too_many(quota))
    }

    /// Counts a key that is no good. An error: it is one too many.
    pub fn spend_on_key(&self, was_looked_up: bool, client: IpAddr) -> Result<(), Error> {
        if was_looked_up {
            // Whether there was one left has been asked before.
            let _ = self.spend(Limited::FailedLookup, client);
        }
        self.spend(Limited::FailedKey, client)
    }

    /// Whether one more of these would be admitted.
    pub fn check(&self, what: Limited, client: IpAddr) -> Result<(), Error> {
        let Some(rate) = self.rate(what) else { return Ok(()) };
        let quota = self.limiter.look(&(what, neighbourhood(client)), rate, self.clock.elapsed());
        if quota.remaining > 0 { Ok(()) } else { Err(what.too_many(quota)) }
    }

    fn rate(&self, what: Limited) -> Option<Rate> {
        match what {
            Limited::SignUp => self.rates.sign_up,
            Limited::LogIn => self.rates.log_in,
            Limited::Refresh => self.rates.refresh,
            Limited::FailedKey | Limited::FailedLookup => self.rates.failed_keys,
        }
    }
}

impl Limited {
    fn too_many(self, quota: Quota) -> Error {
        let message = match self {
            Limited::FailedKey | Limited::FailedLookup => {
                "Too many invalid API keys from this address, try again later"
            }
            _ => "Too many requests from this address, try again later",
        };
        Error::TooMany { message, wait: quota.retry_after() }
    }
}

/// What is counted of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Counted apart: whoever has got hold of a session is not to keep its owner from logging in and ending it.
    LogIn,
    /// Whatever else makes or changes something. To end something is not counted, and never refused.
    Change,
}

/// Users that are known at once.
const USERS: usize = 128 * 1024;

/// How much each user may write, wherever it comes from.
pub struct WriteLimits {
    /// `None`: as much as they like.
    rate: Option<Rate>,
    limiter: Limiter,
    clock: Clock,
}

impl WriteLimits {
    pub fn new(rate: Option<Rate>, clock: Clock) -> WriteLimits {
        WriteLimits { rate, limiter: Limiter::new(USERS), clock }
    }

    /// Counts one more of these. An error: it is one too many.
    pub fn spend(&self, what: Write, user: UserId) -> Result<(), Error> {
        let Some(rate) = self.rate else { return Ok(()) };
        let message = match what {
            Write::LogIn => "Too many logins to this account, try again later",
            Write::Change => "Too many changes to this account, try again later",
        };
        let spent = self.limiter.spend(&(what, user), rate, self.clock.elapsed());
        spent.map(drop).map_err(|quota| Error::TooMany { message, wait: quota.retry_after() })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn limiter() -> Limiter {
        Limiter::new(10)
    }

    fn rate(limit: u32, millis: u64) -> Rate {
        Rate { limit, window: Duration::from_millis(millis) }
    }

    fn rates() -> impl Strategy<Value = Rate> {
        (1..50_u32, 1..=120_000_u64).prop_map(|(limit, millis)| rate(limit, millis))
    }

    #[test]
    fn all_may_come_at_once_and_come_back_one_by_one() {
        let limiter = limiter();
        let rate = rate(3, 3000);
        let outcome = |spent: Result<Quota, Quota>| spent.map(|left| left.remaining).map_err(|none| none.retry_after());
        let spend = |millis| outcome(limiter.spend(&"a", rate, Duration::from_millis(millis)));
        assert_eq!([spend(0), spend(0), spend(0)], [Ok(2), Ok(1), Ok(0)]);
        assert_eq!(spend(0), Err(Duration::from_millis(1000)));
        // What was refused has spent nothing.
        assert_eq!(spend(999), Err(Duration::from_millis(1)));
        assert_eq!((spend(1000), spend(1000)), (Ok(0), Err(Duration::from_millis(1000))));
        assert_eq!(outcome(limiter.spend(&"b", rate, Duration::from_millis(1000))), Ok(2));
        let look = |subject| limiter.look(&subject, rate, Duration::from_millis(1000)).remaining;
        assert_eq!((look("b"), look("b"), look("a")), (2, 2, 0));
    }

    #[test]
    fn a_million_addresses_take_no_more_memory_and_free_none_that_has_spent_more() {
        let limits = AddressLimits::new(AddressRates::default(), Clock::default());
        let now = Duration::from_secs(1);
        let spend = |client: IpAddr| limits.limiter.spend(&(Limited::LogIn, client), rate(60, 60_000), now).is_ok();
        let guesser = IpAddr::from([198, 51, 100, 7]);
        assert_eq!((0..100).filter(|_| spend(guesser)).count(), 60);
        for number in 0..1_000_000 {
            // Nobody is refused for what others do.
            assert!(spend(IpAddr::V4(Ipv4Addr::from_bits(number))));
        }
        assert!(!spend(guesser));
        assert_eq!(limits.limiter.buckets.places(), ADDRESSES);
    }

    #[test]
    fn what_is_off_is_not_counted() {
        let limits = AddressLimits::new(AddressRates::default(), Clock::default());
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!((0..1000).all(|_| limits.spend(Limited::Refresh, client).is_ok()));
        assert_eq!(limits.limiter.buckets.places(), 0);
    }

    proptest! {
        #[test]
        fn no_span_of_time_has_more_than_the_limit_and_what_comes_back_in_it(
            rate in rates(),
            pauses in prop::collection::vec(0..4_000_u64, 1..300),
        ) {
            let limiter = limiter();
            let mut now = Duration::ZERO;
            let mut admitted = Vec::new();
            for pause in pauses {
                // Mostly in bursts.
                now += Duration::from_millis(pause.saturating_sub(2_000));
                match limiter.spend(&"a", rate, now) {
                    Ok(_) => admitted.push(nanos(now)),
                    // It is refused only while nothing is there, and told when something is.
                    Err(quota) => {
                        let wait = quota.retry_after();
                        prop_assert!(quota.remaining == 0 && wait > Duration::ZERO);
                        let before = now + wait - Duration::from_nanos(1);
                        prop_assert_eq!(limiter.look(&"a", rate, before).remaining, 0);
                        prop_assert_eq!(limiter.look(&"a", rate, now + wait).remaining, 1);
                    }
                }
            }
            for (index, first) in admitted.iter().enumerate() {
                for (count, last) in (1..).zip(&admitted[index..]) {
                    let back = u128::from(last - first) * u128::from(rate.limit) / rate.window.as_nanos();
                    prop_assert!(count <= u128::from(rate.limit) + back);
                }
            }
        }

        #[test]
        fn after_its_reset_all_of_a_limit_is_there(rate in rates(), spent in 1..60_u32) {
            let limiter = limiter();
            for _ in 0..spent {
                let _ = limiter.spend(&"a", rate, Duration::ZERO);
            }
            let quota = limiter.look(&"a", rate, Duration::ZERO);
            prop_assert_eq!(quota.remaining, rate.limit.saturating_sub(spent));
            prop_assert_eq!(limiter.look(&"a", rate, quota.reset).remaining, rate.limit);
            let before = quota.reset - Duration::from_nanos(1);
            prop_assert!(limiter.look(&"a", rate, before).remaining < rate.limit);
        }

        #[test]
        fn a_changed_limit_keeps_nobody_out_for_longer_than_it_takes_to_come_back(old in rates(), new in rates()) {
            let limiter = limiter();
            while limiter.spend(&"a", old, Duration::ZERO).is_ok() {}
            let quota = limiter.look(&"a", new, Duration::ZERO);
            prop_assert!(limiter.spend(&"a", new, quota.retry_after()).is_ok());
            prop_assert!(quota.retry_after().as_nanos() <= new.window.as_nanos() + u128::from(new.limit));
        }
    }
}
