//! How often something may happen: the generic cell rate algorithm (ITU-T I.371), and what is limited by address.

use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use crate::address::neighbourhood;
use crate::bounded::{Bounded, Fading};
use crate::clock::{Clock, Timestamp};
use crate::error::Error;

/// So many in a window. All of them may come at once; what is spent comes back evenly, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub limit: u32,
    pub window: Duration,
}

impl Rate {
    /// In nanoseconds: until one comes back, and until all have. Rounded up, so that no window admits one too many.
    fn spans(self) -> (i64, i64) {
        let limit = i64::from(self.limit.max(1));
        let window = i64::try_from(self.window.as_nanos()).unwrap_or(i64::MAX / 2);
        let one = window / limit + i64::from(window % limit > 0);
        (one, one.saturating_mul(limit))
    }
}

/// What a subject has spent: the moment at which all of it has come back, in nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default)]
struct Spent(i64);

impl Fading for Spent {
    fn over_at(&self) -> i64 {
        // Rounded up: to forget a little late is right.
        self.0 / NANOS_A_MILLI + 1
    }
}

const NANOS_A_MILLI: i64 = 1_000_000;

impl Spent {
    /// Spends one. The error is how long until there is one to spend; nothing is spent then.
    fn spend(&mut self, rate: Rate, now: Timestamp) -> Result<(), Duration> {
        let (one, all) = rate.spans();
        let now = now.millis().saturating_mul(NANOS_A_MILLI);
        // Never more than all: the clock may have been set back, the rate lowered.
        let spent = self.0.saturating_sub(now).clamp(0, all);
        let wait = spent + one - all;
        if wait > 0 {
            return Err(Duration::from_nanos(wait.unsigned_abs()));
        }
        self.0 = now + spent + one;
        Ok(())
    }
}

/// Who has spent how much.
pub struct Limiter {
    spent: Bounded<Spent>,
}

impl Limiter {
    /// `subjects`: how many are known at once. Of more, those that have spent least are forgotten.
    pub fn new(subjects: usize) -> Limiter {
        Limiter { spent: Bounded::new(subjects) }
    }

    /// Spends one of the subject's. The error is how long until there is one to spend; nothing is spent then.
    pub fn spend(&self, subject: &impl Hash, rate: Rate, now: Timestamp) -> Result<(), Duration> {
        self.spent.with(subject, now, |spent| spent.spend(rate, now))
    }

    /// Whether the subject has one to spend, or how long until it has.
    pub fn check(&self, subject: &impl Hash, rate: Rate, now: Timestamp) -> Result<(), Duration> {
        self.spent.with(subject, now, |spent| { *spent }.spend(rate, now))
    }
}

/// What is counted by the address that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    SignUp,
    LogIn,
    Refresh,
    FailedKey,
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
        self.judge(what, |rate| self.limiter.spend(&(what, neighbourhood(client)), rate, self.clock.now()))
    }

    /// Whether one more of these would be admitted.
    pub fn check(&self, what: Limited, client: IpAddr) -> Result<(), Error> {
        self.judge(what, |rate| self.limiter.check(&(what, neighbourhood(client)), rate, self.clock.now()))
    }

    fn judge(&self, what: Limited, ask: impl FnOnce(Rate) -> Result<(), Duration>) -> Result<(), Error> {
        let rate = match what {
            Limited::SignUp => self.rates.sign_up,
            Limited::LogIn => self.rates.log_in,
            Limited::Refresh => self.rates.refresh,
            Limited::FailedKey => self.rates.failed_keys,
        };
        let message = match what {
            Limited::FailedKey => "Too many invalid API keys from this address, try again later",
            _ => "Too many requests from this address, try again later",
        };
        rate.map_or(Ok(()), ask).map_err(|wait| Error::TooMany { message, wait })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_700_000_000_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(START + millis).unwrap()
    }

    fn rate(limit: u32, millis: u64) -> Rate {
        Rate { limit, window: Duration::from_millis(millis) }
    }

    #[test]
    fn all_may_come_at_once_and_come_back_one_by_one() {
        let limiter = Limiter::new(10);
        let rate = rate(3, 3000);
        let spend = |millis| limiter.spend(&"a", rate, at(millis));
        assert_eq!([spend(0), spend(0), spend(0)], [Ok(()); 3]);
        assert_eq!(spend(0), Err(Duration::from_millis(1000)));
        // What was refused has spent nothing.
        assert_eq!(spend(999), Err(Duration::from_millis(1)));
        assert_eq!((spend(1000), spend(1000)), (Ok(()), Err(Duration::from_millis(1000))));
        assert_eq!(limiter.spend(&"b", rate, at(1000)), Ok(()));
        assert_eq!((limiter.check(&"b", rate, at(1000)), limiter.check(&"a", rate, at(1000)).is_err()), (Ok(()), true));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let limiter = Limiter::new(10);
        let rate = rate(2, 2000);
        let spend = |millis| limiter.spend(&"a", rate, at(millis));
        assert_eq!((spend(3_600_000), spend(3_600_000)), (Ok(()), Ok(())));
        assert_eq!(spend(0), Err(Duration::from_millis(1000)));
    }

    #[test]
    fn a_million_addresses_take_no_more_memory_and_free_none_that_has_spent_more() {
        let rates = AddressRates { log_in: Some(rate(60, 60_000)), ..AddressRates::default() };
        let limits = AddressLimits::new(rates, Clock::default());
        let now = limits.clock.now();
        let spend = |client: IpAddr| limits.limiter.spend(&(Limited::LogIn, client), rate(60, 60_000), now).is_ok();
        let guesser = IpAddr::from([198, 51, 100, 7]);
        assert_eq!((0..100).filter(|_| spend(guesser)).count(), 60);
        for number in 0..1_000_000 {
            // Nobody is refused for what others do.
            assert!(spend(IpAddr::V4(Ipv4Addr::from_bits(number))));
        }
        assert!(!spend(guesser));
        assert_eq!(limits.limiter.spent.places(), ADDRESSES);
    }

    #[test]
    fn what_is_off_is_not_counted() {
        let limits = AddressLimits::new(AddressRates::default(), Clock::default());
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!((0..1000).all(|_| limits.spend(Limited::Refresh, client).is_ok()));
        assert_eq!(limits.limiter.spent.places(), 0);
    }

    proptest! {
        /// In any window: no more than the limit, and the burst.
        #[test]
        fn no_window_admits_more_than_the_limit_and_a_burst(
            limit in 1_u32..50,
            window in 1_u64..10_000,
            steps in prop::collection::vec(0_i64..2_000, 1..400),
        ) {
            let (limiter, rate) = (Limiter::new(10), rate(limit, window));
            let mut now = 0;
            let mut admitted: Vec<i64> = Vec::new();
            for step in steps {
                // Mostly in bursts.
                now += if step < 1000 { 0 } else { step - 1000 };
                match limiter.spend(&"a", rate, at(now)) {
                    Ok(()) => admitted.push(now),
                    Err(wait) => {
                        // The time that is told is the right one, to the millisecond.
                        let millis = i64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap();
                        prop_assert!(limiter.check(&"a", rate, at(now + millis - 1)).is_err());
                        prop_assert_eq!(limiter.check(&"a", rate, at(now + millis)), Ok(()));
                    }
                }
            }
            let window = i64::try_from(window).unwrap();
            for (index, start) in admitted.iter().enumerate() {
                let within = admitted[index..].iter().filter(|time| **time < start + window).count();
                prop_assert!(within <= 2 * limit as usize, "{within} in a window, the limit is {limit}");
            }
            // A burst alone is never more than the limit.
            let at_once = admitted.chunk_by(|one, next| one == next).map(<[i64]>::len).max();
            prop_assert!(at_once.unwrap_or_default() <= limit as usize);
        }
    }
}
