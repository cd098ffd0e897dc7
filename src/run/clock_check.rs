//! Whether the clock can be trusted, as far as this can be told. What is deleted because of a wrong time does not come
//! back when the clock is set right.

use std::time::Duration;

use log::warn;

use crate::base::clock::Timestamp;

/// How far the clock may jump ahead without being doubted, and how long it is doubted after a longer jump. Then it is
/// believed, because nobody may be there to confirm it: perhaps the server was off for that long.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(crate) struct ClockCheck {
    /// The last time that was believed.
    time: Timestamp,
    /// When that was, by [`crate::base::clock::Clock::elapsed`].
    elapsed: Duration,
    doubted_since: Option<Duration>,
}

impl ClockCheck {
    pub(crate) fn new(time: Timestamp, elapsed: Duration) -> ClockCheck {
        ClockCheck { time, elapsed, doubted_since: None }
    }

    pub(crate) fn is_right(&mut self, now: Timestamp, elapsed: Duration) -> bool {
        let expected = self.time.plus(elapsed.saturating_sub(self.elapsed));
        if now > expected.plus(WEEK) {
            let since = *self.doubted_since.get_or_insert_with(|| {
                warn!(
                    "the clock says {now}, but the last thing that is known to have happened was at {expected}: \
                     nothing is deleted for a week. If the clock is wrong, set it right and restart before that"
                );
                elapsed
            });
            if elapsed.saturating_sub(since) < WEEK {
                return false;
            }
        }
        *self = ClockCheck::new(now, elapsed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_believed_again_when_it_is_set_right_or_after_a_week() {
        let start = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        let mut check = ClockCheck::new(start, at(0));
        assert!(check.is_right(start.plus(WEEK), at(1)));
        // However long it runs without anything that happens.
        assert!(check.is_right(start.plus(WEEK).plus(at(90 * 86_400)), at(90 * 86_400)));
        let (jumped, now) = (start.plus(at(1000 * 86_400)), at(90 * 86_400 + 5));
        assert!(!check.is_right(jumped, now));
        assert!(!check.is_right(jumped.plus(WEEK - at(1)), now + WEEK - at(1)));
        assert!(check.is_right(start.plus(WEEK).plus(now), now + at(1)));
        assert!(!check.is_right(jumped, now + at(2)));
        assert!(!check.is_right(jumped, now + at(1) + WEEK));
        assert!(check.is_right(jumped, now + at(2) + WEEK));
        assert!(check.is_right(jumped, now + at(3) + WEEK));
    }
}
