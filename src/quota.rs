//! Rate limits of keys, by the generic cell rate algorithm: a bucket of `limit` requests that fills up evenly, all of it
//! in `window`. Counted in the memory of this instance, apart from what is remembered of keys.

use std::collections::HashMap;
use std::time::Duration;

use crate::id::KeyId;
use crate::sharded::Sharded;

/// So many requests at once, and as many again in each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    limit: u32,
    /// In whole seconds.
    window: Duration,
}

impl RateLimit {
    pub const MOST: u32 = 1_000_000;
    pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    /// `None`: one of the two is none, or too much.
    pub fn new(limit: u32, window: Duration) -> Option<RateLimit> {
        let is_good =
            (1..=RateLimit::MOST).contains(&limit) && (Duration::from_secs(1)..=RateLimit::LONGEST).contains(&window);
        is_good.then_some(RateLimit { limit, window })
    }

    pub fn limit(self) -> u32 {
        self.limit
    }

    pub fn window(self) -> Duration {
        self.window
    }

    /// Nanoseconds in which one request comes back; rounded up, so that a window never has one too many.
    fn interval(self) -> u64 {
        nanos(self.window).div_ceil(u64::from(self.limit))
    }

    /// Nanoseconds in which an empty bucket fills up.
    fn filling(self) -> u64 {
        self.interval() * u64::from(self.limit)
    }

    fn quota(self, missing: u64) -> Quota {
        let left = (self.filling() - missing) / self.interval();
        Quota { policy: self, remaining: u32::try_from(left).unwrap_or(u32::MAX), reset: Duration::from_nanos(missing) }
    }
}

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub policy: RateLimit,
    pub remaining: u32,
    /// Until everything is there again.
    pub reset: Duration,
}

impl Quota {
    /// Until one request is there again, if there is none.
    pub fn retry_after(&self) -> Duration {
        let one = self.policy.filling() - self.policy.interval();
        self.reset.saturating_sub(Duration::from_nanos(one))
    }
}

/// Keys whose state is kept in one shard; all of them together are a few ten megabytes.
const KEPT: usize = 8192;
/// No tidying up below this.
const FEW: usize = 64;

/// What is spent of the limits of keys. A key is known as long as something of its limit is missing.
#[derive(Default)]
pub struct Limiter {
    spent: Sharded<Buckets>,
}

#[derive(Default)]
struct Buckets {
    spent: HashMap<KeyId, Spent>,
    /// As many as were left when those that are full were taken out last.
    left: usize,
}

/// All in nanoseconds.
#[derive(Clone, Copy)]
struct Spent {
    /// When something was taken last.
    at: u64,
    /// How long the bucket took from then on to be full again.
    missing: u64,
}

impl Spent {
    fn full_at(self) -> u64 {
        self.at.saturating_add(self.missing)
    }
}

impl Limiter {
    /// Takes one request out of the key's bucket, if there is one. `now`: any time that does not go back. `Err`: there is none.
    pub fn spend(&self, key: KeyId, limit: RateLimit, now: Duration) -> Result<Quota, Quota> {
        let mut buckets = self.spent.of(key.0);
        // Another thread may have read the time later and come here earlier.
        let now = buckets.spent.get(&key).map_or(nanos(now), |spent| spent.at.max(nanos(now)));
        let missing = buckets.missing(key, limit, now);
        if missing + limit.interval() > limit.filling() {
            return Err(limit.quota(missing));
        }
        let missing = missing + limit.interval();
        buckets.tidy_up(now);
        buckets.spent.insert(key, Spent { at: now, missing });
        Ok(limit.quota(missing))
    }

    /// What is left, without taking anything.
    pub fn look(&self, key: KeyId, limit: RateLimit, now: Duration) -> Quota {
        limit.quota(self.spent.of(key.0).missing(key, limit, nanos(now)))
    }
}

impl Buckets {
    /// Of a limit that was changed meanwhile, all was missing at the worst.
    fn missing(&self, key: KeyId, limit: RateLimit, now: u64) -> u64 {
        self.spent
            .get(&key)
            .map_or(0, |spent| spent.missing.min(limit.filling()).saturating_sub(now.saturating_sub(spent.at)))
    }

    /// Takes out those that are full again, when there are twice as many as there were left the last time; and of too
    /// many the half that would be full first, which loses least.
    fn tidy_up(&mut self, now: u64) {
        if self.spent.len() < (2 * self.left).clamp(FEW, KEPT) {
            return;
        }
        self.spent.retain(|_, spent| spent.full_at() > now);
        if self.spent.len() >= KEPT {
            let mut times: Vec<u64> = self.spent.values().map(|spent| spent.full_at()).collect();
            let (_, median, _) = times.select_nth_unstable(KEPT / 2);
            let median = *median;
            self.spent.retain(|_, spent| spent.full_at() > median);
        }
        self.spent.shrink_to(FEW);
        self.left = self.spent.len();
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn key(number: u128) -> KeyId {
        KeyId(Uuid::from_u128(number))
    }

    fn limits() -> impl Strategy<Value = RateLimit> {
        (1..50_u32, 1..=120_u64)
            .prop_map(|(limit, seconds)| RateLimit::new(limit, Duration::from_secs(seconds)).unwrap())
    }

    proptest! {
        #[test]
        fn no_span_of_time_has_more_than_the_limit_and_what_comes_back_in_it(
            limit in limits(),
            pauses in prop::collection::vec(0..4_000_u64, 1..300),
        ) {
            let limiter = Limiter::default();
            let mut now = Duration::ZERO;
            let mut admitted = Vec::new();
            for pause in pauses {
                now += Duration::from_millis(pause);
                match limiter.spend(key(1), limit, now) {
                    Ok(_) => admitted.push(nanos(now)),
                    // It is refused only while nothing is there, and told when something is.
                    Err(quota) => {
                        prop_assert_eq!(quota.remaining, 0);
                        prop_assert!(quota.retry_after() > Duration::ZERO);
                        let limiter_then = limiter.look(key(1), limit, now + quota.retry_after());
                        prop_assert_eq!(limiter_then.remaining, 1);
                    }
                }
            }
            for (index, first) in admitted.iter().enumerate() {
                for (count, last) in (1..).zip(&admitted[index..]) {
                    let back = u128::from(last - first) * u128::from(limit.limit()) / limit.window().as_nanos();
                    prop_assert!(count <= u128::from(limit.limit()) + back);
                }
            }
        }

        #[test]
        fn after_its_reset_all_of_a_limit_is_there(limit in limits(), spent in 1..60_u32) {
            let limiter = Limiter::default();
            for _ in 0..spent {
                let _ = limiter.spend(key(1), limit, Duration::ZERO);
            }
            let quota = limiter.look(key(1), limit, Duration::ZERO);
            prop_assert_eq!(quota.remaining, limit.limit().saturating_sub(spent));
            prop_assert_eq!(limiter.look(key(1), limit, quota.reset).remaining, limit.limit());
            if !quota.reset.is_zero() {
                let before = quota.reset - Duration::from_nanos(1);
                prop_assert!(limiter.look(key(1), limit, before).remaining < limit.limit());
            }
        }

        #[test]
        fn a_changed_limit_keeps_nobody_out_for_longer_than_it_takes_to_come_back(old in limits(), new in limits()) {
            let limiter = Limiter::default();
            while limiter.spend(key(1), old, Duration::ZERO).is_ok() {}
            let quota = limiter.look(key(1), new, Duration::ZERO);
            prop_assert!(limiter.spend(key(1), new, quota.retry_after()).is_ok());
            prop_assert!(quota.retry_after() <= new.window());
        }
    }

    #[test]
    fn tidying_up_forgets_no_key_of_which_something_is_missing() {
        let limiter = Limiter::default();
        let limit = RateLimit::new(2, Duration::from_secs(1000)).unwrap();
        let shards: u128 = 64;
        for number in 0..1000 {
            // All in one shard.
            limiter.spend(key(number * shards), limit, Duration::from_secs(number as u64)).unwrap();
        }
        // Half a bucket takes 500 s to come back.
        for number in 0..1000 {
            let quota = limiter.look(key(number * shards), limit, Duration::from_secs(999));
            assert_eq!(quota.remaining, if number <= 499 { 2 } else { 1 }, "{number}");
        }
        let known: usize = limiter.spent.all().map(|buckets| buckets.lock().unwrap().spent.len()).sum();
        assert!(known < 1000, "{known}");
    }

    #[test]
    fn a_million_keys_are_kept_in_bounded_memory_and_the_emptiest_stay() {
        let limiter = Limiter::default();
        let limit = RateLimit::new(1000, Duration::from_secs(1000)).unwrap();
        let exhausted = key(7);
        while limiter.spend(exhausted, limit, Duration::ZERO).is_ok() {}
        for number in 1000..1_001_000 {
            limiter.spend(key(number), limit, Duration::ZERO).unwrap();
        }
        assert_eq!(limiter.look(exhausted, limit, Duration::ZERO).remaining, 0);
        let known: usize = limiter.spent.all().map(|buckets| buckets.lock().unwrap().spent.len()).sum();
        assert!(known <= 64 * KEPT, "{known}");
    }
}
