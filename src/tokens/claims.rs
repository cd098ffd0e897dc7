//! What a valid token says.

use std::sync::Arc;

use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, SessionId, UserId};
use crate::keys::grants::Grants;
use crate::keys::scopes::Scopes;

/// What an access token says of its user, as of when it is made.
#[derive(Clone, Debug)]
pub struct UserClaims {
    pub id: UserId,
    pub email: String,
    pub email_verified: bool,
    pub name: Option<String>,
    pub scopes: Grants,
}

/// The claims of a user's valid access token.
#[derive(Clone, Copy, Debug)]
pub struct AccessClaims {
    pub sub: UserId,
    pub sid: SessionId,
    /// Missing in tokens of earlier versions.
    pub generation: Option<i64>,
    pub issue: Issue,
}

/// The claims of a valid token that was derived from a key.
#[derive(Clone, Debug)]
pub struct ServiceClaims {
    pub key: KeyId,
    /// The key may have lost some of them since.
    pub scopes: Scopes,
    pub issue: Issue,
}

/// The claims of a valid token that was sent as `Authorization: Bearer`.
#[derive(Clone, Debug)]
pub enum Claims {
    User(AccessClaims),
    Service(Arc<ServiceClaims>),
}

impl Claims {
    pub(crate) fn issue(&self) -> Issue {
        match self {
            Claims::User(claims) => claims.issue,
            Claims::Service(claims) => claims.issue,
        }
    }
}

/// The claims that identify a token and say when it is valid.
#[derive(Clone, Copy, Debug)]
pub struct Issue {
    pub jti: Uuid,
    /// In Unix seconds.
    pub iat: i64,
    pub lifetime: Lifetime,
}

/// When a token is valid, in Unix seconds: from `nbf` on, until before `exp`.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    pub nbf: Option<i64>,
    pub exp: i64,
}

impl Lifetime {
    /// RFC 7519 §4.1.4 and §4.1.5, without leeway. `iat` is not checked: the RFC does not ask for it, and another
    /// instance's clock may be a little ahead.
    pub(crate) fn includes(self, now: Timestamp) -> bool {
        now.seconds() < self.exp && self.nbf.is_none_or(|start| start <= now.seconds())
    }
}

/// The claims of a valid refresh token: its session, and the generation of the session that it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct RefreshClaims {
    pub sid: SessionId,
    pub generation: i64,
}
