//! When something is tried again.

use std::time::Duration;

use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::outbox::delivery::Outcome;

const SECOND: u64 = 1;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * 60;

/// Between one try and the next.
const PAUSES: [u64; 9] =
    [5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];

/// How long to wait after so many failed tries. `None`: it is not tried again.
///
/// Up to a tenth is added, which depends on what is delivered, so that what failed together does not come back together.
pub(crate) fn pause(failed: u32, delivery: Uuid) -> Option<Duration> {
    let pause = Duration::from_secs(*PAUSES.get(usize::try_from(failed.checked_sub(1)?).ok()?)?);
    // The last bytes of our ids are random.
    let random = u32::from(delivery.as_bytes()[15]);
    Some(pause + pause / 10 * random / 255)
}

/// How long something rests that may not be sent now.
pub(crate) const REST: Duration = Duration::from_secs(60);

/// What becomes of a delivery after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    pub tries: u32,
    /// `None`: it is over.
    pub next_at: Option<Timestamp>,
    /// How it ended, if it has.
    pub ended: Option<&'static str>,
}

/// After a try at `now`, before which it was tried so often.
pub(crate) fn next(outcome: &Outcome, tries: u32, delivery: Uuid, now: Timestamp) -> Next {
    let ended = |tries, how| Next { tries, next_at: None, ended: Some(how) };
    match outcome {
        Outcome::Delivered(_) => ended(tries + 1, "delivered"),
        Outcome::Gone(_) => ended(tries + 1, "gone"),
        Outcome::Dropped => ended(tries, "dropped"),
        Outcome::Paused => Next { tries, next_at: Some(now.plus(REST)), ended: None },
        Outcome::Failed { .. } => match pause(tries + 1, delivery) {
            None => ended(tries + 1, "failed"),
            Some(pause) => Next { tries: tries + 1, next_at: Some(now.plus(pause)), ended: None },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::delivery::Answer;

    #[test]
    fn a_try_ends_a_delivery_or_says_when_the_next_is() {
        let now = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        let failed = Outcome::Failed { answer: Answer::default(), reason: String::new(), timed_out: false };
        let after = |span| Some(now.plus(Duration::from_secs(span)));
        for (outcome, tries, expected) in [
            (Outcome::Delivered(Answer::default()), 0, (1, None, Some("delivered"))),
            (Outcome::Gone(Answer::default()), 0, (1, None, Some("gone"))),
            (Outcome::Dropped, 3, (3, None, Some("dropped"))),
            (Outcome::Paused, 3, (3, after(60), None)),
            (failed.clone(), 0, (1, after(5), None)),
            (failed.clone(), 8, (9, after(24 * 3600), None)),
            (failed, 9, (10, None, Some("failed"))),
        ] {
            let Next { tries, next_at, ended } = next(&outcome, tries, Uuid::nil(), now);
            assert_eq!((tries, next_at, ended), expected, "{outcome:?}");
        }
    }

    #[test]
    fn ten_tries_are_made_ever_further_apart() {
        for (last, tenths) in [(0, 10), (255, 11)] {
            let mut bytes = [0; 16];
            bytes[15] = last;
            let delivery = Uuid::from_bytes(bytes);
            let pauses: Vec<u64> =
                (1..).map_while(|failed| pause(failed, delivery)).map(|pause| pause.as_secs()).collect();
            let hours = [5, 10, 14, 20, 24].map(|hours| hours * 3600);
            let expected: Vec<u64> =
                [5, 300, 1800, 7200].into_iter().chain(hours).map(|pause| pause * tenths / 10).collect();
            assert_eq!(pauses, expected);
        }
        assert_eq!(pause(0, Uuid::nil()), None);
    }
}
