//! What a refresh token means: the rules of rotation, over plain data.
//!
//! A session has a generation, and each refresh moves it to the next one. The generation that a move left is the parent
//! of the one that it made. An honest client has one newest token, which its tabs share, and ignores an answer that
//! comes later than the grace. Such a client never loses its session, however many answers are lost. If somebody else
//! holds a copy of a token, the two cannot both stay at the newest generation: the next use of the older token shows
//! the theft, and the session ends.

use std::time::Duration;

use crate::accounts::refresh::orphans::Orphans;
use crate::base::clock::Timestamp;

/// The first generation of a session.
pub(crate) const FIRST: i64 = 1;

/// How many moves' times are kept.
const MOVES: usize = 8;

/// The settings of rotation.
#[derive(Clone, Copy, Debug, Default)]
pub struct RotationRules {
    /// How long after a move the tokens that it left still get the current pair: for other tabs, or a lost answer.
    pub grace: Duration,
    /// How long the previous token may replace a move whose pair was never refreshed: for an answer that was lost for
    /// longer. `None`: never.
    pub retry: Option<Duration>,
}

/// The generations of a session, as they are stored. Times are the store's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    pub generation: i64,
    /// The generation whose token made the current one. Generations between the two are orphans.
    pub parent: i64,
    /// When a move first left the parent.
    pub left_at: Option<Timestamp>,
    /// When a pair of the current generation was last given out.
    pub given_at: Option<Timestamp>,
    /// The times of the latest moves, newest first.
    pub moves: Vec<Timestamp>,
    pub orphans: Orphans,
}

/// What a refresh token means for its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// The session moves to the next generation.
    Forward(Rotation),
    /// The session moves from the parent once more. The current generation becomes an orphan.
    Retried(Rotation),
    /// The session stays at its generation; the client gets another pair of it.
    Again(Rotation),
    /// Two parties hold the session: it ends.
    Theft,
    /// The session never was at this generation, as far as the database knows: a backup was restored.
    Ahead,
}

impl Rotation {
    /// The start of a session, before its first refresh.
    pub fn start() -> Rotation {
        Rotation {
            generation: FIRST,
            parent: FIRST - 1,
            left_at: None,
            given_at: None,
            moves: Vec::new(),
            orphans: Orphans::default(),
        }
    }

    /// From the columns of a row. An earlier version of Keyward sets only the generation and when it was reached
    /// (`rotated_at`): after that, the generation before is the parent, and nothing is known of older ones.
    pub(crate) fn from_stored(
        generation: i64,
        rotated_at: Option<Timestamp>,
        parent: Option<i64>,
        left_at: Option<Timestamp>,
        given_at: Option<Timestamp>,
        moves: Vec<Timestamp>,
        orphans: Orphans,
    ) -> Rotation {
        match parent {
            Some(parent) if moves.first() == rotated_at.as_ref() => {
                Rotation { generation, parent, left_at, given_at, moves, orphans }
            }
            _ => Rotation {
                generation,
                parent: generation - 1,
                left_at: rotated_at,
                given_at: rotated_at,
                moves: rotated_at.into_iter().collect(),
                orphans,
            },
        }
    }

    /// What the refresh token of a generation means at `now`.
    pub fn judge(&self, presented: i64, now: Timestamp, rules: &RotationRules) -> Move {
        if presented > self.generation {
            return Move::Ahead;
        }
        if presented == self.generation {
            return Move::Forward(self.moved(Rotation { parent: presented, left_at: Some(now), ..self.clone() }, now));
        }
        if presented > self.parent || self.orphans.contains(presented) {
            return Move::Theft;
        }
        let is_parent = presented == self.parent;
        let in_grace = |at: &Timestamp| *at >= now.minus(rules.grace);
        let later = usize::try_from(self.generation - presented).unwrap_or(usize::MAX);
        let all_later_in_grace = self.moves.get(..later).is_some_and(|moves| moves.iter().all(in_grace));
        if all_later_in_grace || (is_parent && self.moves.first().is_some_and(in_grace)) {
            return Move::Again(self.given(now));
        }
        let in_time = |span| self.left_at.is_some_and(|at| at >= now.minus(span));
        if !is_parent || !rules.retry.is_some_and(in_time) {
            return Move::Theft;
        }
        // The answer may still be on its way, and the client would use its tokens: they must not become orphans.
        if self.given_at.as_ref().is_some_and(in_grace) {
            return Move::Again(self.given(now));
        }
        let orphans = self.orphans.with(self.generation);
        Move::Retried(self.moved(Rotation { orphans, ..self.clone() }, now))
    }

    fn given(&self, now: Timestamp) -> Rotation {
        Rotation { given_at: Some(now), ..self.clone() }
    }

    fn moved(&self, next: Rotation, now: Timestamp) -> Rotation {
        let moves = std::iter::once(now).chain(self.moves.iter().copied()).take(MOVES).collect();
        Rotation { generation: self.generation + 1, given_at: Some(now), moves, ..next }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const GRACE: u64 = 10;
    const RETRY: u64 = 3600;
    const RULES: RotationRules =
        RotationRules { grace: Duration::from_secs(GRACE), retry: Some(Duration::from_secs(RETRY)) };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(seconds))
    }

    /// A session to which this was presented, at these seconds.
    fn after(uses: &[(u64, i64)]) -> Rotation {
        uses.iter().fold(Rotation::start(), |rotation, (seconds, generation)| {
            match rotation.judge(*generation, at(*seconds), &RULES) {
                Move::Forward(next) | Move::Retried(next) | Move::Again(next) => next,
                other => panic!("{generation} at {seconds} s: {other:?}"),
            }
        })
    }

    /// What is done, in a word, and the generation that the holder gets.
    fn outcome(rotation: &Rotation, generation: i64, seconds: u64, rules: &RotationRules) -> (&'static str, i64) {
        match rotation.judge(generation, at(seconds), rules) {
            Move::Forward(next) => ("forward", next.generation),
            Move::Retried(next) => ("retried", next.generation),
            Move::Again(next) => ("again", next.generation),
            Move::Theft => ("theft", 0),
            Move::Ahead => ("ahead", 0),
        }
    }

    #[test]
    fn each_case_of_the_rules() {
        let once = [(0, 1)];
        let thrice = [(0, 1), (4, 2), (8, 3)];
        let retried = [(0, 1), (60, 1)];
        let retried_and_used = [(0, 1), (60, 1), (62, 3)];
        for (uses, generation, seconds, expected) in [
            (&[][..], 1, 0, ("forward", 2)),
            (&once, 2, 5000, ("forward", 3)),
            (&[], 2, 0, ("ahead", 0)),
            (&once, 3, 0, ("ahead", 0)),
            // The parent: other tabs, then a lost answer, then theft.
            (&once, 1, 10, ("again", 2)),
            (&once, 1, 11, ("retried", 3)),
            (&once, 1, 3600, ("retried", 3)),
            (&once, 1, 3601, ("theft", 0)),
            // Older ones: all later moves lie within the grace, or not.
            (&thrice, 1, 10, ("again", 4)),
            (&thrice, 1, 11, ("theft", 0)),
            (&thrice, 2, 14, ("again", 4)),
            (&thrice, 2, 15, ("theft", 0)),
            (&thrice, 3, 18, ("again", 4)),
            (&thrice, 3, 19, ("retried", 5)),
            // What a retry put aside is nobody's, at once and for good.
            (&retried, 2, 60, ("theft", 0)),
            (&retried, 2, 5000, ("theft", 0)),
            (&retried_and_used, 2, 62, ("theft", 0)),
            (&retried, 3, 61, ("forward", 4)),
            // An answer that was given again is waited for as long.
            (&[(0, 1), (9, 1)], 1, 11, ("again", 2)),
            (&[(0, 1), (9, 1)], 1, 19, ("again", 2)),
            (&[(0, 1), (9, 1)], 1, 20, ("retried", 3)),
            // The parent goes on to count from when it was left first.
            (&retried, 1, 70, ("again", 3)),
            (&retried, 1, 71, ("retried", 4)),
            (&retried, 1, 3600, ("retried", 4)),
            (&retried, 1, 3601, ("theft", 0)),
            (&retried_and_used, 1, 63, ("theft", 0)),
            (&retried_and_used, 3, 73, ("retried", 5)),
        ] {
            let rotation = after(uses);
            assert_eq!(
                outcome(&rotation, generation, seconds, &RULES),
                expected,
                "{uses:?}, {generation} at {seconds}"
            );
        }
        let off = RotationRules { retry: None, ..RULES };
        assert_eq!(outcome(&after(&once), 1, 10, &off), ("again", 2));
        assert_eq!(outcome(&after(&once), 1, 11, &off), ("theft", 0));
    }

    #[test]
    fn a_row_that_an_earlier_version_moved_last_has_the_generation_before_as_its_parent() {
        let known = after(&[(0, 1), (60, 1), (100, 3)]);
        let stored = |rotated_at, parent| {
            let Rotation { generation, left_at, given_at, moves, orphans, .. } = known.clone();
            Rotation::from_stored(generation, rotated_at, parent, left_at, given_at, moves, orphans)
        };
        assert_eq!(stored(Some(at(100)), Some(known.parent)), known);
        for moved_by_an_earlier_version in [stored(Some(at(200)), Some(known.parent)), stored(Some(at(200)), None)] {
            let expected = Rotation {
                parent: known.generation - 1,
                left_at: Some(at(200)),
                given_at: Some(at(200)),
                moves: vec![at(200)],
                ..known.clone()
            };
            assert_eq!(moved_by_an_earlier_version, expected);
        }
        let never_moved = Rotation::from_stored(FIRST, None, None, None, None, Vec::new(), Orphans::default());
        assert_eq!(never_moved, Rotation::start());
    }

    #[test]
    fn an_answer_may_be_lost_any_number_of_times_within_the_hour() {
        let uses: Vec<(u64, i64)> = (0..300).map(|number| (number * 12, 1)).collect();
        let rotation = after(&uses);
        assert_eq!((rotation.generation, rotation.parent, rotation.moves.len()), (301, 1, MOVES));
        assert_eq!(rotation.orphans.ranges(), [(2, 300)]);
    }

    /// What happens, in any order.
    #[derive(Clone, Debug)]
    enum Step {
        Pass {
            seconds: u64,
        },
        /// The client's tabs refresh; the answer comes so many seconds later, or never.
        Refresh {
            answer: Option<u64>,
        },
        /// A tab that has not heard yet of the newest token.
        Late {
            behind: i64,
        },
        /// Somebody takes a copy of what the client holds.
        Steal,
        /// They refresh, with the newest of what they have or with an older one.
        Abuse {
            behind: usize,
            answered: bool,
        },
    }

    fn seconds() -> impl Strategy<Value = u64> {
        prop_oneof![0..=2u64, 3..=GRACE, GRACE + 1..120, 1000..2 * RETRY]
    }

    fn honest() -> impl Strategy<Value = Step> {
        let answer = prop_oneof![Just(None), Just(Some(0)), (1..=GRACE).prop_map(Some)];
        prop_oneof![
            seconds().prop_map(|seconds| Step::Pass { seconds }),
            answer.prop_map(|answer| Step::Refresh { answer }),
            (1..4i64).prop_map(|behind| Step::Late { behind }),
        ]
    }

    fn anyone() -> impl Strategy<Value = Step> {
        let abuse = (0..3usize, any::<bool>()).prop_map(|(behind, answered)| Step::Abuse { behind, answered });
        prop_oneof![3 => honest(), 1 => Just(Step::Steal), 2 => abuse]
    }

    /// A session, an honest client, and perhaps a thief.
    struct World {
        /// `None`: it has ended.
        session: Option<Rotation>,
        now: u64,
        client: i64,
        /// Answers on their way to the client, with when they arrive.
        answers: Vec<(u64, i64)>,
        /// In the order in which they came.
        thief: Vec<i64>,
        /// What a retry put aside.
        put_aside: Vec<i64>,
    }

    impl World {
        fn new() -> World {
            let session = Some(Rotation::start());
            World { session, now: 0, client: 1, answers: Vec::new(), thief: Vec::new(), put_aside: Vec::new() }
        }

        /// The generation that is given out; `None`: refused.
        fn present(&mut self, generation: i64) -> Option<i64> {
            let session = self.session.take()?;
            let next = match session.judge(generation, at(self.now), &RULES) {
                Move::Forward(next) | Move::Again(next) => next,
                Move::Retried(next) => {
                    self.put_aside.push(session.generation);
                    next
                }
                Move::Theft | Move::Ahead => return None,
            };
            assert!(!self.put_aside.contains(&generation), "an orphan is good for something");
            Some(self.session.insert(next).generation)
        }

        fn pass(&mut self, seconds: u64) {
            self.now += seconds;
            let arrived = self.answers.iter().filter(|(at, _)| *at <= self.now).map(|(_, generation)| *generation);
            self.client = arrived.fold(self.client, i64::max);
            self.answers.retain(|(at, _)| *at > self.now);
        }

        fn refresh(&mut self, answer: Option<u64>) {
            let given = self.present(self.client);
            self.answers.extend(given.zip(answer).map(|(generation, delay)| (self.now + delay, generation)));
            self.pass(0);
        }

        fn abuse(&mut self, behind: usize, answered: bool) {
            let Some(generation) = self.thief.iter().rev().nth(behind).or(self.thief.first()).copied() else { return };
            let given = self.present(generation).filter(|_| answered);
            self.thief.extend(given);
        }

        fn take(&mut self, step: &Step) {
            match *step {
                Step::Pass { seconds } => self.pass(seconds),
                Step::Refresh { answer } => self.refresh(answer),
                Step::Late { behind } => {
                    let since = at(self.now).minus(RULES.grace);
                    let heard = |session: &Rotation| {
                        let moves = session.moves.iter().take_while(|at| **at >= since).count() as i64;
                        session.generation - moves
                    };
                    let oldest = self.session.as_ref().map_or(self.client, heard);
                    let generation = (self.client - behind).max(oldest).min(self.client);
                    if !self.put_aside.contains(&generation) {
                        self.present(generation);
                    }
                }
                Step::Steal => self.thief.push(self.client),
                Step::Abuse { behind, answered } => self.abuse(behind, answered),
            }
        }

        /// No outage of the client's lasts so long that a retry comes too late.
        fn end_outage(&mut self, seconds: u64) {
            let left_at = self.session.as_ref().and_then(|session| session.left_at);
            let is_behind = self.session.as_ref().is_some_and(|session| session.generation != self.client);
            if is_behind && left_at.is_some_and(|left_at| left_at < at(self.now + seconds).minus(RULES.retry.unwrap()))
            {
                self.refresh(Some(0));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_honest_client_alone_is_never_out(steps in vec(honest(), 1..40)) {
            let mut world = World::new();
            for step in &steps {
                if let Step::Pass { seconds } = step {
                    world.end_outage(*seconds);
                }
                world.take(step);
                prop_assert!(world.session.is_some(), "out after {step:?}");
            }
        }

        #[test]
        fn a_client_and_a_thief_are_both_out_when_whoever_lost_uses_the_token_again(
            steps in vec(anyone(), 1..40),
            thief_first in any::<bool>(),
        ) {
            let mut world = World::new();
            steps.iter().for_each(|step| world.take(step));
            if world.thief.is_empty() {
                return Ok(());
            }
            // Each in turn uses the newest token that they have, when no tab can be meant.
            world.pass(GRACE + 1);
            for turn in 0..3 {
                if (turn % 2 == 0) == thief_first {
                    world.abuse(0, true);
                } else {
                    world.refresh(Some(0));
                }
                world.pass(GRACE + 1);
            }
            prop_assert!(world.session.is_none(), "both go on: {:?}", world.session);
        }
    }
}
