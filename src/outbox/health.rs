//! What the tries say about an endpoint.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::outbox::delivery::Outcome;
use crate::outbox::store::Tried;

/// How many deliveries may wait for one endpoint.
pub const MOST_WAITING: i64 = 10_000;
/// For how long every try may fail.
const PATIENCE: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// How the last tries went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Every try since then has failed.
    pub failing_since: Option<Timestamp>,
    /// The last one was slow.
    pub is_slow: bool,
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
    pub(crate) fn after<'a>(self, tries: impl Iterator<Item = (Timestamp, &'a Tried)>) -> (Health, Option<GivenUp>) {
        let (mut health, mut given_up) = (self, None);
        for (at, Tried { outcome, is_slow, .. }) in tries {
            match outcome {
                Outcome::Delivered(_) => (health, given_up) = (Health { failing_since: None, is_slow: *is_slow }, None),
                Outcome::Failed { .. } => {
                    let since = *health.failing_since.get_or_insert(at);
                    health.is_slow = *is_slow;
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
    use crate::base::id::DeliveryId;
    use crate::outbox::delivery::{Answer, ChannelKind, Delivery};
    use crate::outbox::store::Due;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn failed(timed_out: bool) -> Outcome {
        Outcome::Failed { answer: Answer::default(), reason: String::new(), timed_out }
    }

    fn tried(outcome: Outcome, is_slow: bool) -> Tried {
        let delivery = Delivery {
            id: DeliveryId::new(),
            channel: ChannelKind::Webhook,
            receiver: uuid::Uuid::nil(),
            kind: "key.created".to_string(),
            event: None,
            body: None,
            count: 1,
            created_at: Timestamp::EPOCH,
            tries: 0,
        };
        Tried { due: Due { place: 1, until: None, delivery }, outcome, is_slow }
    }

    #[test]
    fn an_endpoint_is_given_up_when_it_says_so_or_has_failed_for_five_days() {
        let day = |days: u32| Timestamp::EPOCH.plus(DAY * days);
        let (quick, slow) = (|outcome| tried(outcome, false), |outcome| tried(outcome, true));
        let (failure, success) = (|| quick(failed(false)), || quick(Outcome::Delivered(Answer::default())));
        let since = |days| Health { failing_since: Some(day(days)), is_slow: false };
        let well_but_slow = Health { failing_since: None, is_slow: true };
        let cases = [
            ("the first failure", Health::default(), vec![(1, failure())], since(1), None),
            ("a further one", since(1), vec![(5, failure())], since(1), None),
            ("after five days", since(1), vec![(6, failure())], since(1), Some(GivenUp::Failing)),
            ("and then a success", since(1), vec![(6, failure()), (6, success())], Health::default(), None),
            (
                "gone",
                Health::default(),
                vec![(1, quick(Outcome::Gone(Answer::default())))],
                Health::default(),
                Some(GivenUp::Gone),
            ),
            ("dropped", since(1), vec![(9, quick(Outcome::Dropped))], since(1), None),
            ("silent", since(1), vec![(2, slow(failed(true)))], Health { is_slow: true, ..since(1) }, None),
            ("loud again", Health { is_slow: true, ..since(1) }, vec![(2, failure())], since(1), None),
            (
                "a success that takes long",
                since(1),
                vec![(2, slow(Outcome::Delivered(Answer::default())))],
                well_but_slow,
                None,
            ),
        ];
        for (case, before, tries, health, given_up) in cases {
            let tries = tries.iter().map(|(at, tried)| (day(*at), tried));
            assert_eq!(before.after(tries), (health, given_up), "{case}");
        }
    }
}
