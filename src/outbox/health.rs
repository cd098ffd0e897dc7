//! What the tries say about an endpoint.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::outbox::delivery::Outcome;

/// How many deliveries may wait for one endpoint.
pub const MOST_WAITING: i64 = 10_000;
/// For how long every try may fail.
const PATIENCE: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// How the last tries went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Every try since then has failed.
    pub failing_since: Option<Timestamp>,
    pub timed_out: bool,
}

/// Why nothing more is sent to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// It wants no more.
    Gone,
    /// Every try has failed for long.
    Failing,
    /// Too much waits for it.
    Full,
}

impl Health {
    /// After these tries, in their order.
    pub(crate) fn after<'a>(self, tries: impl Iterator<Item = (Timestamp, &'a Outcome)>) -> (Health, Option<GivenUp>) {
        let (mut health, mut given_up) = (self, None);
        for (at, outcome) in tries {
            match outcome {
                Outcome::Delivered(_) => (health, given_up) = (Health::default(), None),
                Outcome::Failed { timed_out, .. } => {
                    let since = *health.failing_since.get_or_insert(at);
                    health.timed_out = *timed_out;
                    if at >= since.plus(PATIENCE) {
                        given_up = given_up.or(Some(GivenUp::Failing));
                    }
                }
                Outcome::Gone(_) => given_up = Some(GivenUp::Gone),
                Outcome::Dropped | Outcome::Paused => {}
            }
        }
        (health, given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::delivery::Answer;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn failed(timed_out: bool) -> Outcome {
        Outcome::Failed { answer: Answer::default(), reason: String::new(), timed_out }
    }

    #[test]
    fn an_endpoint_is_given_up_when_it_says_so_or_has_failed_for_five_days() {
        let day = |days: u32| Timestamp::EPOCH.plus(DAY * days);
        let delivered = Outcome::Delivered(Answer::default());
        let gone = Outcome::Gone(Answer::default());
        let since = |days| Health { failing_since: Some(day(days)), timed_out: false };
        let cases = [
            ("the first failure", Health::default(), vec![(1, failed(false))], since(1), None),
            ("a further one", since(1), vec![(5, failed(false))], since(1), None),
            ("after five days", since(1), vec![(6, failed(false))], since(1), Some(GivenUp::Failing)),
            ("and then a success", since(1), vec![(6, failed(false)), (6, delivered.clone())], Health::default(), None),
            ("gone", Health::default(), vec![(1, gone)], Health::default(), Some(GivenUp::Gone)),
            ("dropped", since(1), vec![(9, Outcome::Dropped)], since(1), None),
            ("silent", since(1), vec![(2, failed(true))], Health { timed_out: true, ..since(1) }, None),
            ("loud again", Health { timed_out: true, ..since(1) }, vec![(2, failed(false))], since(1), None),
        ];
        for (case, before, tries, health, given_up) in cases {
            let tries: Vec<_> = tries.into_iter().map(|(at, outcome)| (day(at), outcome)).collect();
            let tries = tries.iter().map(|(at, outcome)| (*at, outcome));
            assert_eq!(before.after(tries), (health, given_up), "{case}");
        }
    }
}
