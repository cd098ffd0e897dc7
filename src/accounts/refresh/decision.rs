//! What a refresh does with a session: one decision over the stored row, which the store then carries out.

use crate::accounts::refresh::rotation::{Move, Rotation, RotationRules};
use crate::accounts::session::Lifespan;
use crate::audit::event::Kind;
use crate::base::clock::Timestamp;

/// A session that has not ended, as it is stored when one of its refresh tokens is used.
#[derive(Clone, Debug)]
pub(crate) struct StoredSession {
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub rotation: Rotation,
}

/// What becomes of the session, and of the token that was used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// The session has expired, or it never reached the token's generation. Nothing changes; the token is refused.
    Refused,
    /// The session moves on and lives until `expires_at`; the token gets a pair of the new generation. `retried`: the
    /// move replaces an earlier one whose answer was lost, so the tokens of that answer are refused from now on.
    Moved { rotation: Rotation, expires_at: Timestamp, retried: bool },
    /// The session stays where it is; the token gets another pair of the current generation. `is_later`: now is
    /// later than the stored time at which such a pair was last given out, so now is stored.
    Repeated { generation: i64, expires_at: Timestamp, is_later: bool },
    /// Two parties hold the session: it ends, and the token is refused.
    Ended,
}

impl StoredSession {
    /// Decides about a refresh token of this generation. The session is judged by today's settings, whatever they were
    /// when it was last refreshed.
    pub(crate) fn refresh(
        &self,
        generation: i64,
        now: Timestamp,
        lifespan: &Lifespan,
        rules: &RotationRules,
    ) -> Refresh {
        let renewed_at = self.rotation.moves.first().copied().unwrap_or(self.created_at);
        if self.expires_at.min(lifespan.end(self.created_at, renewed_at)) <= now {
            return Refresh::Refused;
        }
        let expires_at = lifespan.end(self.created_at, now);
        match self.rotation.judge(generation, now, rules) {
            Move::Forward(rotation) => Refresh::Moved { rotation, expires_at, retried: false },
            Move::Retried(rotation) => Refresh::Moved { rotation, expires_at, retried: true },
            Move::Again(rotation) => Refresh::Repeated {
                generation: rotation.generation,
                expires_at: self.expires_at,
                is_later: rotation != self.rotation,
            },
            Move::Ahead => Refresh::Refused,
            Move::Theft => Refresh::Ended,
        }
    }
}

impl Refresh {
    /// Whether it counts against the user's limit of changes: it writes something. Ending a stolen session never does.
    pub(crate) fn is_a_change(&self) -> bool {
        match self {
            Refresh::Moved { .. } => true,
            Refresh::Repeated { is_later, .. } => *is_later,
            Refresh::Refused | Refresh::Ended => false,
        }
    }

    /// Whether a token of the session that was good is refused from now on, on every instance.
    pub(crate) fn revokes(&self) -> bool {
        matches!(self, Refresh::Moved { retried: true, .. } | Refresh::Ended)
    }

    /// The event that the audit trail records; an ordinary refresh has none.
    pub(crate) fn event(&self) -> Option<Kind> {
        match self {
            Refresh::Moved { retried: true, .. } => Some(Kind::SessionRetried),
            Refresh::Ended => Some(Kind::SessionReuseDetected),
            Refresh::Moved { retried: false, .. } | Refresh::Repeated { .. } | Refresh::Refused => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::accounts::refresh::rotation::FIRST;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::parse("2026-01-01T00:00:00Z").unwrap().plus(Duration::from_secs(seconds))
    }

    const RULES: RotationRules =
        RotationRules { grace: Duration::from_secs(10), retry: Some(Duration::from_secs(3600)) };
    const LIFESPAN: Lifespan = Lifespan { unrenewed: Duration::from_secs(7000), max_age: None };

    /// A session that was opened at 0 and refreshed at these times, each time with its newest token.
    fn session(moves: &[u64]) -> StoredSession {
        let mut session =
            StoredSession { created_at: at(0), expires_at: LIFESPAN.end(at(0), at(0)), rotation: Rotation::start() };
        for seconds in moves {
            let generation = session.rotation.generation;
            match session.refresh(generation, at(*seconds), &LIFESPAN, &RULES) {
                Refresh::Moved { rotation, expires_at, retried: false } => {
                    session = StoredSession { rotation, expires_at, ..session };
                }
                other => panic!("{other:?}"),
            }
        }
        session
    }

    /// In a word, with the generation that the client gets, when the session expires, and the three questions' answers.
    fn outcome(refresh: &Refresh) -> (&'static str, i64, bool, bool, Option<Kind>) {
        let (word, generation) = match refresh {
            Refresh::Refused => ("refused", 0),
            Refresh::Moved { rotation, retried: false, .. } => ("moved", rotation.generation),
            Refresh::Moved { rotation, retried: true, .. } => ("retried", rotation.generation),
            Refresh::Repeated { generation, .. } => ("repeated", *generation),
            Refresh::Ended => ("ended", 0),
        };
        (word, generation, refresh.is_a_change(), refresh.revokes(), refresh.event())
    }

    #[test]
    fn each_token_has_its_outcome_and_what_is_written_follows_from_it() {
        let (retried, stolen) = (Some(Kind::SessionRetried), Some(Kind::SessionReuseDetected));
        for (moves, generation, now, expected) in [
            // The newest token.
            (&[][..], FIRST, 100, ("moved", 2, true, false, None)),
            (&[100], 2, 200, ("moved", 3, true, false, None)),
            // Another tab, within the grace; the time of the first answer is known already at the same instant.
            (&[100], 1, 100, ("repeated", 2, false, false, None)),
            (&[100], 1, 105, ("repeated", 2, true, false, None)),
            // A lost answer, after the grace.
            (&[100], 1, 200, ("retried", 3, true, true, retried)),
            // Later than a retry may be.
            (&[100], 1, 100 + 3601, ("ended", 0, false, true, stolen)),
            // An older token.
            (&[100, 200], 1, 300, ("ended", 0, false, true, stolen)),
            // A generation that the session never had.
            (&[100], 9, 200, ("refused", 0, false, false, None)),
        ] {
            let refresh = session(moves).refresh(generation, at(now), &LIFESPAN, &RULES);
            assert_eq!(outcome(&refresh), expected, "{moves:?} {generation} {now}");
        }
    }

    #[test]
    fn a_move_renews_the_session_and_another_pair_of_the_same_generation_does_not() {
        let session = session(&[100]);
        assert_eq!(session.expires_at, at(7100));
        let expiry = |generation, now| match session.refresh(generation, at(now), &LIFESPAN, &RULES) {
            Refresh::Moved { expires_at, .. } | Refresh::Repeated { expires_at, .. } => expires_at,
            other => panic!("{other:?}"),
        };
        assert_eq!(expiry(2, 200), at(7200));
        assert_eq!(expiry(1, 105), at(7100));
    }

    #[test]
    fn an_expired_session_refuses_every_token_and_records_no_theft() {
        let shorter = Lifespan { unrenewed: Duration::from_secs(50), ..LIFESPAN };
        let limited = Lifespan { max_age: Some(Duration::from_secs(120)), ..LIFESPAN };
        for (lifespan, last, over) in [(LIFESPAN, 7099, 7100), (shorter, 149, 150), (limited, 119, 120)] {
            let session = session(&[100]);
            for generation in [1, 2, 9] {
                assert_eq!(session.refresh(generation, at(over), &lifespan, &RULES), Refresh::Refused);
            }
            assert_ne!(session.refresh(2, at(last), &lifespan, &RULES), Refresh::Refused);
        }
        // Today's settings may be longer than those of its last refresh: what was promised then still ends.
        let longer = Lifespan { unrenewed: Duration::from_secs(70_000), ..LIFESPAN };
        assert_eq!(session(&[100]).refresh(2, at(7100), &longer, &RULES), Refresh::Refused);
    }
}
