//! The use of a key: how each presentation ended, counted by the hour.

use crate::base::clock::Timestamp;

/// How the presentation of a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Allowed,
    /// Revoked or paused, or its owner is inactive.
    Disabled,
    Expired,
    /// The client's address is not among those that the key allows.
    ForbiddenAddress,
    /// It lacks a required scope.
    InsufficientScope,
    RateLimited,
}

impl Outcome {
    pub(crate) const ALL: [Outcome; 6] = [
        Outcome::Allowed,
        Outcome::Disabled,
        Outcome::Expired,
        Outcome::ForbiddenAddress,
        Outcome::InsufficientScope,
        Outcome::RateLimited,
    ];

    /// Whether the key itself is valid. A key over its rate limit, without a required scope or at
    /// another address than it allows is valid.
    pub(crate) fn is_of_good_key(self) -> bool {
        !matches!(self, Outcome::Disabled | Outcome::Expired)
    }
}

const OUTCOMES: usize = Outcome::ALL.len();

/// How often a key was presented, by how that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; OUTCOMES]);

impl Counts {
    pub(crate) fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
    }

    pub(crate) fn add(&mut self, outcome: Outcome, count: u64) {
        let known = &mut self.0[outcome as usize];
        *known = known.saturating_add(count);
    }

    pub(crate) fn add_all(&mut self, other: &Counts) {
        for (known, count) in self.0.iter_mut().zip(other.0) {
            *known = known.saturating_add(count);
        }
    }
}

/// The use of one key in the hour that begins at `hour`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourOfUse {
    pub hour: Timestamp,
    pub counts: Counts,
    pub last_allowed: Option<Timestamp>,
}

impl HourOfUse {
    pub(crate) fn new(hour: Timestamp) -> HourOfUse {
        HourOfUse { hour, counts: Counts::default(), last_allowed: None }
    }
}
