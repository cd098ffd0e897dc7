//! How sessions end: which ones when a user has too many, for which reason, and what is recorded.

use crate::audit::event::{By, Event, Kind, Subject};
use crate::base::clock::Timestamp;
use crate::base::id::{SessionId, UserId};

/// Why a single session ended, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// Its user has ended it.
    Logout,
    /// At a login its user had too many.
    Limit,
    /// A used refresh token came back.
    Reuse,
}

impl EndReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            EndReason::Logout => "logout",
            EndReason::Limit => "limit",
            EndReason::Reuse => "reuse",
        }
    }
}

/// What [`surplus`] needs to know of a session that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct OpenSession {
    pub id: SessionId,
    pub created_at: Timestamp,
    pub rotated_at: Option<Timestamp>,
    pub expires_at: Timestamp,
}

/// Which sessions end when a user may have `most`; never the `new` one. First those that have expired, then those that
/// were never refreshed (so that a script's logins do not end browsers' sessions), then the others; within each, the
/// least recently used first.
pub(crate) fn surplus(mut open: Vec<OpenSession>, new: SessionId, most: usize, now: Timestamp) -> Vec<SessionId> {
    let count = open.len().saturating_sub(most);
    open.retain(|session| session.id != new);
    open.sort_by_key(|session| {
        let last_used_at = session.rotated_at.unwrap_or(session.created_at);
        (session.expires_at > now, session.rotated_at.is_some(), last_used_at)
    });
    open.into_iter().take(count).map(|session| session.id).collect()
}

/// The event of one session that its user has ended.
pub(crate) fn ended_one(session: SessionId, user: UserId, by: &By, at: Timestamp) -> Event {
    Event::new(Kind::SessionEnded, user, by, at).on(Subject::Session(session))
}

/// The event of the other sessions that a user has ended, if there were any.
pub(crate) fn ended_others(count: u64, user: UserId, by: &By, at: Timestamp) -> Option<Event> {
    (count > 0).then(|| Event::new(Kind::SessionEnded, user, by, at).with("sessions", count))
}

/// The event of the sessions that a login has ended because there were too many, if it has.
pub(crate) fn ended_by_limit(ended: &[SessionId], user: UserId, by: &By, at: Timestamp) -> Option<Event> {
    let event = Event::new(Kind::SessionEnded, user, by, at).with("reason", EndReason::Limit.as_str());
    match ended {
        [] => None,
        [one] => Some(event.on(Subject::Session(*one))),
        _ => Some(event.with("sessions", ended.len())),
    }
}

/// The event of something that ends all of a user's sessions: `kind` is what that was.
pub(crate) fn ended_all(kind: Kind, count: u64, user: UserId, by: &By, at: Timestamp) -> Event {
    Event::new(kind, user, by, at).with("sessions", count)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    const NOW: u64 = 1000;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(seconds))
    }

    fn session(created: u64, rotated: Option<u64>, expires: u64) -> OpenSession {
        OpenSession {
            id: SessionId::new(),
            created_at: at(created),
            rotated_at: rotated.map(at),
            expires_at: at(expires),
        }
    }

    /// Which of these end, by their place; the last one is new.
    fn ending(sessions: &[OpenSession], most: usize) -> Vec<usize> {
        let new = sessions.last().unwrap().id;
        let ids = surplus(sessions.to_vec(), new, most, at(NOW));
        let place = |id: &SessionId| sessions.iter().position(|session| session.id == *id).unwrap();
        ids.iter().map(place).collect()
    }

    #[test]
    fn of_too_many_sessions_the_expired_end_first_then_those_never_refreshed_then_the_least_recently_used() {
        let sessions = [
            session(10, Some(900), NOW + 1),
            session(20, Some(100), NOW + 1),
            session(30, None, NOW + 1),
            session(40, None, NOW),
            session(50, Some(950), NOW - 1),
            session(25, None, NOW + 1),
            // The new one.
            session(NOW, None, NOW + 1),
        ];
        for (most, expected) in [
            (8, &[][..]),
            (7, &[]),
            (6, &[3]),
            (5, &[3, 4]),
            (4, &[3, 4, 5]),
            (3, &[3, 4, 5, 2]),
            (2, &[3, 4, 5, 2, 1]),
            (1, &[3, 4, 5, 2, 1, 0]),
            // Never the new one.
            (0, &[3, 4, 5, 2, 1, 0]),
        ] {
            assert_eq!(ending(&sessions, most), expected, "{most}");
        }
    }

    #[test]
    fn what_is_recorded_when_sessions_end() {
        let (user, by) = (UserId::new(), By::operator());
        let (one, other) = (SessionId::new(), SessionId::new());
        let recorded = |event: &Event| (event.kind, event.subject, Value::Object(event.details.clone()));
        let (of_user, of_one) = (Some(Subject::User(user)), Some(Subject::Session(one)));

        assert_eq!(recorded(&ended_one(one, user, &by, at(NOW))), (Kind::SessionEnded, of_one, json!({})));

        assert!(ended_others(0, user, &by, at(NOW)).is_none());
        let others = ended_others(2, user, &by, at(NOW)).unwrap();
        assert_eq!(recorded(&others), (Kind::SessionEnded, of_user, json!({ "sessions": 2 })));

        assert!(ended_by_limit(&[], user, &by, at(NOW)).is_none());
        let limit = ended_by_limit(&[one], user, &by, at(NOW)).unwrap();
        assert_eq!(recorded(&limit), (Kind::SessionEnded, of_one, json!({ "reason": "limit" })));
        let limit = ended_by_limit(&[one, other], user, &by, at(NOW)).unwrap();
        assert_eq!(recorded(&limit), (Kind::SessionEnded, of_user, json!({ "reason": "limit", "sessions": 2 })));

        let all = ended_all(Kind::UserDeactivated, 0, user, &by, at(NOW));
        assert_eq!(recorded(&all), (Kind::UserDeactivated, of_user, json!({ "sessions": 0 })));
    }
}
