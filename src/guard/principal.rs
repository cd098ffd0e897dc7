//! Who asks, as a guard has found.

use std::sync::Arc;

use uuid::Uuid;

use crate::audit::event::{Actor, Credential};
use crate::base::error::Error;
use crate::base::id::{SessionId, UserId};
use crate::keys::grants::Grants;
use crate::keys::key::KnownKey;
use crate::tokens::claims::ServiceClaims;

/// Who asks, and by which credential.
#[derive(Clone, Debug)]
pub enum Principal {
    Anonymous,
    User(AuthenticatedUser),
    Service(AuthenticatedService),
}

/// A user with an access token.
#[derive(Clone, Debug)]
pub struct AuthenticatedUser {
    pub id: UserId,
    pub email: Arc<str>,
    pub email_verified: bool,
    pub scopes: Arc<Grants>,
    pub session: SessionId,
}

/// A service with an API key. It acts for the key's owner.
#[derive(Clone, Debug)]
pub struct AuthenticatedService {
    pub key: Arc<KnownKey>,
    /// The claims of the derived token, if one was presented.
    pub derived: Option<Arc<ServiceClaims>>,
}

impl AuthenticatedService {
    /// The key's scopes; with a derived token, those that the token has too.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = &str> {
        let granted = self.derived.as_ref().map(|claims| &claims.scopes);
        self.key.scopes.iter().filter(move |scope| granted.is_none_or(|granted| granted.contains(scope)))
    }
}

impl Principal {
    /// The ids whose change ends this principal's validity. `None`: nothing was presented.
    pub fn ids(&self) -> Option<[Uuid; 2]> {
        match self {
            Principal::Anonymous => None,
            Principal::User(user) => Some([user.session.0, user.id.0]),
            Principal::Service(service) => Some([service.key.id.0, service.key.owner.0]),
        }
    }

    /// The account: a service acts for the owner of its key.
    pub(crate) fn account(&self) -> Option<UserId> {
        match self {
            Principal::Anonymous => None,
            Principal::User(user) => Some(user.id),
            Principal::Service(service) => Some(service.key.owner),
        }
    }

    /// The service, on a route that only accepts keys.
    pub(crate) fn service(&self) -> Result<&AuthenticatedService, Error> {
        match self {
            Principal::Service(service) => Ok(service),
            _ => Err(Error::Internal("a route without a key guard asked for its service".to_string())),
        }
    }

    /// How the audit trail names it.
    pub(crate) fn actor(&self) -> Actor {
        match self {
            Principal::Anonymous => Actor::Anonymous,
            Principal::User(user) => Actor::User { session_id: user.session },
            Principal::Service(service) => Actor::Key { key_id: service.key.id },
        }
    }

    /// How the audit trail names it where it acts as an operator. A key acts for its owner.
    pub(crate) fn operator(&self) -> Actor {
        let (user_id, by) = match self {
            Principal::Anonymous => return Actor::Anonymous,
            Principal::User(user) => (user.id, Credential::Session { session_id: user.session }),
            Principal::Service(service) => (service.key.owner, Credential::Key { key_id: service.key.id }),
        };
        Actor::UserAsOperator { user_id, by: Some(by) }
    }

    /// The user, on a route that only accepts JWTs.
    pub(crate) fn user(&self) -> Result<&AuthenticatedUser, Error> {
        match self {
            Principal::User(user) => Ok(user),
            _ => Err(Error::Internal("a route without a JWT guard asked for its user".to_string())),
        }
    }
}
