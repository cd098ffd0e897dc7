//! Who asks: what a guard finds and everything behind it works with.

use std::sync::Arc;

use uuid::Uuid;

use crate::error::Error;
use crate::event::Actor;
use crate::id::{KeyId, SessionId, UserId};

/// Who asks, and by which credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    Anonymous,
    User(User),
    Service(Service),
}

/// A user, by an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub email: Arc<str>,
    pub session: SessionId,
}

/// A service, by an API key. It acts for the user who made the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub key: KeyId,
    pub owner: UserId,
    pub email: Arc<str>,
}

impl Principal {
    /// What has to stay as it is for this principal to stay good; `None` for one that presented nothing.
    pub fn ids(&self) -> Option<[Uuid; 2]> {
        match self {
            Principal::Anonymous => None,
            Principal::User(user) => Some([user.session.0, user.id.0]),
            Principal::Service(service) => Some([service.key.0, service.owner.0]),
        }
    }

    /// The service behind a route that takes keys only.
    pub fn service(&self) -> Result<&Service, Error> {
        match self {
            Principal::Service(service) => Ok(service),
            _ => Err(Error::Internal("a route without a key guard asked for its service".to_string())),
        }
    }

    /// As the audit trail names it.
    pub fn actor(&self) -> Actor {
        match self {
            Principal::Anonymous => Actor::Anonymous,
            Principal::User(user) => Actor::User { session_id: user.session },
            Principal::Service(service) => Actor::Key { key_id: service.key },
        }
    }

    /// The user behind a route that takes JWTs only.
    pub fn user(&self) -> Result<&User, Error> {
        match self {
            Principal::User(user) => Ok(user),
            _ => Err(Error::Internal("a route without a JWT guard asked for its user".to_string())),
        }
    }
}
