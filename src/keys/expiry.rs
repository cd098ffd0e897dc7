//! When and what an owner is told of a key that expires: 7 days before, 1 day before, and when it has. Plain data in, a
//! decision out; the store finds the keys whose time has come, and records what is decided.

use std::time::Duration;

use crate::audit::event::{Actor, By, Event, Kind, Subject};
use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, UserId};
use crate::base::period::DAY;

/// How long before its expiry a key is told of, the longest first.
const STEPS: [Duration; 3] = [Duration::from_secs(7 * 24 * 60 * 60), DAY, Duration::ZERO];

/// The first step that lies ahead. A step that was over when the key was made, or when its expiry was changed, is never
/// told. `None`: no step lies ahead.
pub(crate) fn next_step(expires_at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let expires_at = expires_at?;
    STEPS.iter().map(|before| expires_at.minus(*before)).find(|step| *step > now)
}

/// A key of which a step is over, as it is stored now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DueKey {
    pub id: KeyId,
    pub owner: UserId,
    pub expires_at: Option<Timestamp>,
    /// Neither paused nor revoked.
    pub is_active: bool,
    /// A rotation has made another key in its place.
    pub is_replaced: bool,
    pub owner_is_active: bool,
}

impl DueKey {
    /// What is recorded. If several steps are over, because no server was running, it is the last one alone. `None`: the
    /// expiry ends nothing that works, or that its owner has not ended themselves.
    pub(crate) fn event(&self, now: Timestamp) -> Option<Event> {
        let expires_at = self.expires_at?;
        if !self.is_active || self.is_replaced || !self.owner_is_active {
            return None;
        }
        let by = By { actor: Actor::System, origin: None };
        let told = |kind| {
            Event::new(kind, self.owner, &by, now).on(Subject::Key(self.id)).with("expiresAt", expires_at.to_string())
        };
        if expires_at <= now {
            return Some(told(Kind::KeyExpired));
        }
        // Counted from now, so that a notice that is late says what is still so.
        let left = (expires_at.millis() - now.millis()).unsigned_abs();
        let days = left.div_ceil(DAY.as_millis() as u64);
        (expires_at.minus(STEPS[0]) <= now).then(|| told(Kind::KeyExpiring).with("days", days))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 100 * 24;

    fn at(hours: u64) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(hours * 60 * 60))
    }

    #[test]
    fn the_next_step_is_the_first_one_ahead() {
        for (expires_in, next) in [
            (Some(30 * 24), Some(23 * 24)),
            (Some(7 * 24 + 1), Some(1)),
            (Some(7 * 24), Some(6 * 24)),
            (Some(25), Some(1)),
            (Some(24), Some(24)),
            (Some(2), Some(2)),
            (Some(0), None),
            (None, None),
        ] {
            let expires_at = expires_in.map(|hours: u64| at(NOW + hours));
            assert_eq!(next_step(expires_at, at(NOW)), next.map(|hours: u64| at(NOW + hours)), "{expires_in:?}");
        }
        assert_eq!(next_step(Some(at(NOW - 1)), at(NOW)), None);
    }

    fn due(expires_at: u64) -> DueKey {
        DueKey {
            id: KeyId::new(),
            owner: UserId::new(),
            expires_at: Some(at(expires_at)),
            is_active: true,
            is_replaced: false,
            owner_is_active: true,
        }
    }

    #[test]
    fn what_is_told_is_what_is_so_now() {
        for (expires_at, kind, days) in [
            (NOW + 7 * 24 + 1, None, None),
            (NOW + 7 * 24, Some(Kind::KeyExpiring), Some(7)),
            (NOW + 6 * 24 + 1, Some(Kind::KeyExpiring), Some(7)),
            (NOW + 6 * 24, Some(Kind::KeyExpiring), Some(6)),
            (NOW + 24, Some(Kind::KeyExpiring), Some(1)),
            (NOW + 1, Some(Kind::KeyExpiring), Some(1)),
            (NOW, Some(Kind::KeyExpired), None),
            (NOW - 1000, Some(Kind::KeyExpired), None),
        ] {
            let key = due(expires_at);
            let event = key.event(at(NOW));
            assert_eq!(event.as_ref().map(|event| event.kind), kind, "{expires_at}");
            let Some(event) = event else { continue };
            assert_eq!((event.user, event.subject), (Some(key.owner), Some(Subject::Key(key.id))));
            assert_eq!((event.actor, event.ip, event.at), (Actor::System, None, at(NOW)));
            assert_eq!(event.details["expiresAt"], json!(at(expires_at)));
            assert_eq!(event.details.get("days"), days.map(|days: u64| json!(days)).as_ref());
        }
    }

    #[test]
    fn nothing_is_told_of_a_key_that_does_not_work_or_is_replaced() {
        let key = due(NOW);
        for key in [
            DueKey { is_active: false, ..key },
            DueKey { is_replaced: true, ..key },
            DueKey { owner_is_active: false, ..key },
            DueKey { expires_at: None, ..key },
        ] {
            assert!(key.event(at(NOW)).is_none(), "{key:?}");
        }
    }
}
