//! A value for each of many subjects, in a fixed amount of memory.
//!
//! A subject is kept as a hash, keyed at random in each process, in one of many small sets. In a full set, a new
//! subject replaces the one whose value expires soonest. So an attacker with a million subjects makes the table forget
//! the values that matter least; the table never grows, waits or refuses.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use crate::base::sharded::{SHARDS, Sharded};

/// A value that expires.
pub(crate) trait Fading: Copy + Default {
    /// From this time on (by [`crate::base::clock::Clock::elapsed`]) the value counts as [`Default::default`].
    fn over_at(&self) -> Duration;
}

pub(crate) struct Bounded<V> {
    hasher: RandomState,
    /// A shard is allocated with its first value.
    shards: Sharded<Vec<Slot<V>>>,
    sets_a_shard: usize,
}

#[derive(Clone, Copy, Default)]
struct Slot<V> {
    subject: u64,
    value: V,
}

/// Places in a set.
const WAYS: usize = 8;

impl<V: Fading> Bounded<V> {
    /// A table for this many subjects, rounded up.
    pub(crate) fn new(subjects: usize) -> Bounded<V> {
        Bounded {
            hasher: RandomState::new(),
            shards: Sharded::default(),
            sets_a_shard: subjects.div_ceil(SHARDS * WAYS).max(1),
        }
    }

    /// Reads and changes a subject's value under a lock.
    pub(crate) fn with<R>(&self, subject: &impl Hash, now: Duration, act: impl FnOnce(&mut V) -> R) -> R {
        let subject = self.hasher.hash_one(subject);
        let number = subject as usize;
        let mut shard = self.shards.of(number);
        if shard.is_empty() {
            shard.resize(self.sets_a_shard * WAYS, Slot::default());
        }
        let first = number / SHARDS % self.sets_a_shard * WAYS;
        let set = &mut shard[first..first + WAYS];
        let known = set.iter_mut().find(|slot| slot.subject == subject && slot.value.over_at() > now);
        if let Some(slot) = known {
            return act(&mut slot.value);
        }
        let mut value = V::default();
        let outcome = act(&mut value);
        // Expired values are replaced first.
        let soonest = set.iter_mut().min_by_key(|slot| slot.value.over_at());
        if let Some(slot) = soonest.filter(|_| value.over_at() > now) {
            *slot = Slot { subject, value };
        }
        outcome
    }

    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.shards.all().map(|shard| crate::base::sharded::lock(shard).capacity()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Default)]
    struct Until(Duration);

    impl Fading for Until {
        fn over_at(&self) -> Duration {
            self.0
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_value_is_kept_until_it_is_over() {
        let bounded: Bounded<Until> = Bounded::new(100);
        bounded.with(&"a", at(10), |value| value.0 = at(20));
        assert_eq!(bounded.with(&"a", at(19), |value| value.0), at(20));
        assert_eq!(bounded.with(&"b", at(19), |value| value.0), Duration::ZERO);
        assert_eq!(bounded.with(&"a", at(20), |value| value.0), Duration::ZERO);
    }

    #[test]
    fn a_million_subjects_take_no_more_memory_and_push_out_none_that_has_longer_to_go() {
        let bounded: Bounded<Until> = Bounded::new(4096);
        for subject in 0..100 {
            bounded.with(&("heavy", subject), at(1), |value| value.0 = at(60));
        }
        for subject in 0..1_000_000 {
            bounded.with(&("light", subject), at(1), |value| value.0 = at(2));
        }
        assert_eq!(bounded.places(), 4096);
        let is_kept = |subject: &i32| bounded.with(&("heavy", *subject), at(1), |value| value.0) == at(60);
        assert_eq!((0..100).filter(is_kept).count(), 100);
    }
}
