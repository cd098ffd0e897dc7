//! Sessions as they are kept: how long they live, and which end when there are too many.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::accounts::rotation::{Orphans, RotationRules};
use crate::base::clock::Timestamp;
use crate::base::id::{SessionId, UserId};
use crate::memory::lookup::Cacheable;

/// A session that is about to be stored.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub id: SessionId,
    pub user: UserId,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub ip: String,
    pub user_agent: Option<String>,
}

/// A session as its user sees it.
#[derive(Clone, Debug)]
pub struct Session {
    pub id: SessionId,
    pub created_at: Timestamp,
    /// The login or the last refresh; what was done with an access token since then is not noted.
    pub last_used_at: Timestamp,
    pub expires_at: Timestamp,
    pub ip: String,
    pub user_agent: Option<String>,
}

/// A session that has not ended, as far as it matters to which of too many end.
#[derive(Clone, Debug)]
pub struct OpenSession {
    pub id: SessionId,
    pub created_at: Timestamp,
    pub rotated_at: Option<Timestamp>,
    pub expires_at: Timestamp,
}

/// Those that are to end, where there may be `most`, but never the `new` one: first what has expired, then what was never
/// refreshed, so that a script's logins do not push out browsers, then the others, in the order of their last use.
pub fn surplus(mut open: Vec<OpenSession>, new: SessionId, most: usize, now: Timestamp) -> Vec<SessionId> {
    let count = open.len().saturating_sub(most);
    open.retain(|session| session.id != new);
    open.sort_by_key(|session| {
        let last_used_at = session.rotated_at.unwrap_or(session.created_at);
        (session.expires_at > now, session.rotated_at.is_some(), last_used_at)
    });
    open.into_iter().take(count).map(|session| session.id).collect()
}

/// How long sessions live. Only logins and refreshes are noted: what happens with an access token in between is not.
#[derive(Clone, Copy, Debug)]
pub struct Lifespan {
    /// From its login or last refresh.
    pub unrenewed: Duration,
    /// From its login, however often it is refreshed.
    pub max_age: Option<Duration>,
}

impl Lifespan {
    pub fn end(&self, created_at: Timestamp, renewed_at: Timestamp) -> Timestamp {
        let end = renewed_at.plus(self.unrenewed);
        self.max_age.map_or(end, |age| end.min(created_at.plus(age)))
    }

    /// A session of an earlier login is over at `now`.
    pub fn oldest(&self, now: Timestamp) -> Option<Timestamp> {
        self.max_age.map(|age| now.minus(age))
    }
}

/// What the operator has decided.
#[derive(Clone, Copy, Debug)]
pub struct SessionRules {
    pub lifespan: Lifespan,
    pub rotation: RotationRules,
    /// Sessions that one user may have.
    pub most: u32,
    /// Whether anyone may sign up.
    pub signup_open: bool,
}

/// A session that has not ended, of an active user.
#[derive(Clone, Debug)]
pub struct LiveSession {
    pub id: SessionId,
    pub user: UserId,
    pub email: Arc<str>,
    pub expires_at: Timestamp,
    /// An access token of one of these is worth nothing.
    pub orphans: Orphans,
}

impl Cacheable for LiveSession {
    fn ids(&self) -> [Uuid; 2] {
        [self.id.0, self.user.0]
    }

    fn text_bytes(&self) -> usize {
        self.email.len()
    }
}
