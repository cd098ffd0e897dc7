//! Rate limits, by the generic cell rate algorithm (ITU-T I.371).

use std::hash::Hash;
use std::time::Duration;

use crate::memory::bounded::{Bounded, Fading};

/// So many in a window of time: a bucket of `limit` tokens that refills evenly within `window`. A full bucket may be
/// spent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub limit: u32,
    pub window: Duration,
}

impl Rate {
    /// Nanoseconds in which one token comes back; rounded up, so that no window has one too many.
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

/// What is left in a bucket of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub policy: Rate,
    pub remaining: u32,
    /// Until the bucket is full.
    pub reset: Duration,
}

impl Quota {
    /// Until there is a token, if there is none now.
    pub(crate) fn retry_after(&self) -> Duration {
        self.reset.saturating_sub(Duration::from_nanos(self.policy.all() - self.policy.one()))
    }
}

/// When a subject's bucket is full again, by [`crate::base::clock::Clock::elapsed`].
#[derive(Clone, Copy, Default)]
struct FullAt(Duration);

impl Fading for FullAt {
    fn over_at(&self) -> Duration {
        self.0
    }
}

impl FullAt {
    /// How long until the bucket is full, in nanoseconds. After a change of the rate, that is at most one full bucket.
    fn missing(&mut self, rate: Rate, now: Duration) -> u64 {
        let missing = nanos(self.0.saturating_sub(now)).min(rate.all());
        self.0 = now + Duration::from_nanos(missing);
        missing
    }
}

/// The buckets of many subjects.
pub(crate) struct Limiter {
    buckets: Bounded<FullAt>,
}

impl Limiter {
    /// `subjects`: how many are remembered. If there are more, those that have spent least are forgotten.
    pub(crate) fn new(subjects: usize) -> Limiter {
        Limiter { buckets: Bounded::new(subjects) }
    }

    /// Takes a token from the subject's bucket. `Err`: there is none. `now` is [`crate::base::clock::Clock::elapsed`].
    pub(crate) fn spend(&self, subject: &impl Hash, rate: Rate, now: Duration) -> Result<Quota, Quota> {
        self.buckets.with(subject, now, |full_at| {
            let missing = full_at.missing(rate, now);
            if missing + rate.one() > rate.all() {
                return Err(rate.quota(missing));
            }
            *full_at = FullAt(now + Duration::from_nanos(missing + rate.one()));
            Ok(rate.quota(missing + rate.one()))
        })
    }

    /// What is left, without taking a token.
    pub(crate) fn look(&self, subject: &impl Hash, rate: Rate, now: Duration) -> Quota {
        self.buckets.with(subject, now, |full_at| rate.quota(full_at.missing(rate, now)))
    }

    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.buckets.places()
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {

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
