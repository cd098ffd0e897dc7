//! Sessions as they are stored, and how long they live.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::accounts::refresh::orphans::Orphans;
use crate::base::clock::Timestamp;
use crate::base::id::{SessionId, UserId};
use crate::keys::grants::Grants;
use crate::memory::lookup::Cacheable;

/// A new session.
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
    /// The time of the login or the last refresh. Use of access tokens is not recorded.
    pub last_used_at: Timestamp,
    pub expires_at: Timestamp,
    pub ip: String,
    pub user_agent: Option<String>,
}

/// How long sessions live. Only logins and refreshes count as use.
#[derive(Clone, Copy, Debug)]
pub struct Lifespan {
    /// From the login or the last refresh.
    pub unrenewed: Duration,
    /// From the login, however often the session is refreshed.
    pub max_age: Option<Duration>,
}

impl Lifespan {
    pub(crate) fn end(&self, created_at: Timestamp, renewed_at: Timestamp) -> Timestamp {
        let end = renewed_at.plus(self.unrenewed);
        self.max_age.map_or(end, |age| end.min(created_at.plus(age)))
    }
}

/// A session that has not ended and belongs to an active user.
#[derive(Clone, Debug)]
pub struct LiveSession {
    pub id: SessionId,
    pub user: UserId,
    pub email: Arc<str>,
    pub email_verified: bool,
    /// The user has to verify their e-mail before they are admitted to more than their own account.
    pub awaits_verification: bool,
    /// What the user has now, whatever their token says.
    pub scopes: Arc<Grants>,
    pub expires_at: Timestamp,
    /// Generations whose access tokens are refused.
    pub orphans: Orphans,
}

impl Cacheable for LiveSession {
    fn ids(&self) -> [Uuid; 2] {
        [self.id.0, self.user.0]
    }

    fn text_bytes(&self) -> usize {
        self.email.len() + self.scopes.as_str().len()
    }
}
