//! The audit trail: what happened to accounts, sessions and keys, by whom and from where.
//!
//! Whatever changes something in the store is told [`By`] whom, and the store writes an [`Event`] of it in the same
//! transaction. Failures change nothing; they are gathered in memory and written once a second, so that whoever guesses
//! in masses writes little. An event names accounts, sessions and keys by their ids and settings by their names: it
//! holds no secret, no e-mail and no text of a client's but the request id that he may choose.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::base::clock::Timestamp;
use crate::base::id::{EventId, KeyId, SessionId, UserId};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $name,)+
        }

        impl Kind {
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)+];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Kind::$name => $text,)+
                }
            }
        }
    };
}

kinds! {
    UserSignedUp = "user.signed_up",
    /// By the operator.
    UserCreated = "user.created",
    UserActivated = "user.activated",
    /// All his sessions have ended; details: how many.
    UserDeactivated = "user.deactivated",
    UserDeleted = "user.deleted",
    /// By the operator. All his sessions have ended; details: how many.
    UserPasswordSet = "user.password_set",
    /// By the user. All their sessions have ended (details: how many), and another one is opened.
    PasswordChanged = "password.changed",
    /// The password that confirms a change or a deletion was another one. Gathered.
    PasswordFailed = "password.failed",
    /// A login with the wrong password, to an inactive account or to none. Gathered.
    LoginFailed = "login.failed",
    SessionOpened = "session.opened",
    /// One session, or several of a user; details, then: how many. Of too many at a login: `reason` is `limit`.
    SessionEnded = "session.ended",
    /// A refresh token was used once more, as its answer had been lost for longer; what that gave is worth nothing now.
    SessionRetried = "session.retried",
    /// A used refresh token came back; the session has ended.
    SessionReuseDetected = "session.reuse_detected",
    KeyCreated = "key.created",
    /// Details: which of its settings.
    KeyChanged = "key.changed",
    /// Details: the key that replaces it, which is made by this.
    KeyRotated = "key.rotated",
    KeyRevoked = "key.revoked",
}

impl Kind {
    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Who does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum Actor {
    /// Whoever showed no good credential.
    Anonymous,
    /// The user, by one of his sessions.
    User { session_id: SessionId },
    /// A service, by one of the user's keys.
    Key { key_id: KeyId },
    /// On the command line.
    Operator,
}

/// What something is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", content = "id", rename_all = "lowercase")]
pub enum Subject {
    User(UserId),
    Session(SessionId),
    Key(KeyId),
}

/// Where a request comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    pub ip: IpAddr,
    pub user_agent: Option<String>,
    pub request_id: String,
}

/// By whom something is done, and from where.
#[derive(Clone, Debug)]
pub struct By {
    pub actor: Actor,
    /// `None`: no request, but the command line.
    pub origin: Option<Origin>,
}

impl By {
    /// Someone who has just shown that he is the user, by the session that this opens.
    pub fn user(session_id: SessionId, origin: Origin) -> By {
        By { actor: Actor::User { session_id }, origin: Some(origin) }
    }

    pub fn operator() -> By {
        By { actor: Actor::Operator, origin: None }
    }

    /// The client's address; the unspecified one where there is no client.
    pub fn ip(&self) -> IpAddr {
        self.origin.as_ref().map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |origin| origin.ip)
    }
}

/// Something that happened, as it is stored and shown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub id: EventId,
    /// Of what is gathered: the start of the minute.
    pub at: Timestamp,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Whose account it concerns; `None` for a login to an account that does not exist.
    #[serde(rename = "userId")]
    pub user: Option<UserId>,
    pub actor: Actor,
    pub subject: Option<Subject>,
    pub ip: Option<IpAddr>,
    pub request_id: Option<String>,
    pub details: Map<String, Value>,
    /// How often; more than once only of what is gathered.
    pub count: u64,
}

impl Event {
    /// Something that is done to a user's account, or with [`Event::on`] to what belongs to it.
    pub fn new(kind: Kind, user: UserId, by: &By, at: Timestamp) -> Event {
        Event {
            id: EventId::new(),
            at,
            kind,
            user: Some(user),
            actor: by.actor,
            subject: Some(Subject::User(user)),
            ip: by.origin.as_ref().map(|origin| origin.ip),
            request_id: by.origin.as_ref().map(|origin| origin.request_id.clone()),
            details: Map::new(),
            count: 1,
        }
    }

    pub fn on(mut self, subject: Subject) -> Event {
        self.subject = Some(subject);
        self
    }

    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Event {
        self.details.insert(name.to_string(), value.into());
        self
    }
}

/// Which events are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    pub user: Option<UserId>,
    pub kind: Option<Kind>,
    pub since: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_as_it_is_written() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(*kind));
        }
        assert_eq!(Kind::parse("user"), None);
    }
}
