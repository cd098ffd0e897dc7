//! The audit trail: what happened to accounts, sessions and keys, by whom and from where.
//!
//! Every change in the store is made [`By`] somebody, and the store writes an [`Event`] of it in the same transaction.
//! Failed attempts change nothing; they are counted in memory and written once a second, so that an attacker who makes
//! many causes few writes. An event names accounts, sessions and keys by their ids, and settings by their names. It
//! holds no secret, no e-mail address and no text from a client except the request id.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::base::clock::Timestamp;
use crate::base::id::{EventId, KeyId, SessionId, UserId, WebhookId};

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
    /// All the user's sessions have ended; details: how many.
    UserDeactivated = "user.deactivated",
    UserDeleted = "user.deleted",
    /// Details: the scopes that were granted and withdrawn.
    UserScopesChanged = "user.scopes_changed",
    /// By an operator, or by the user themselves. Details: the names of the changed fields.
    UserChanged = "user.changed",
    /// By an operator: created without a password, which a reset token is to set.
    UserInvited = "user.invited",
    /// By the operator. All the user's sessions have ended; details: how many.
    UserPasswordSet = "user.password_set",
    /// By the user. All their sessions have ended (details: how many), and a new one is opened.
    PasswordChanged = "password.changed",
    /// Somebody wants a token that sets a new password: an operator, or who says that they have forgotten theirs.
    PasswordResetRequested = "password.reset_requested",
    /// A token has set a new password. All the user's sessions have ended; details: how many.
    PasswordReset = "password.reset",
    /// The account's e-mail turned out to be its owner's.
    EmailVerified = "email.verified",
    /// The user wants another e-mail, to which a token is sent.
    EmailChangeRequested = "email.change_requested",
    /// The new e-mail turned out to be its owner's, and is the account's now.
    EmailChanged = "email.changed",
    /// A second factor is asked for from now on.
    TotpEnabled = "totp.enabled",
    TotpDisabled = "totp.disabled",
    /// A wrong one-time code. Gathered, but for the one after which codes rest: it has [`RESTS_UNTIL`].
    TotpFailed = "totp.failed",
    RecoveryCodeUsed = "recovery_code.used",
    /// A wrong password where one confirms a change or a deletion. Gathered.
    PasswordFailed = "password.failed",
    /// A login with a wrong password, to an inactive account, or to an account that does not exist. Gathered.
    LoginFailed = "login.failed",
    /// Details: [`NEW_ADDRESS`], if it is one.
    SessionOpened = "session.opened",
    /// One session of a user, or several (details: how many). `reason` is `limit` if a login exceeded the limit.
    SessionEnded = "session.ended",
    /// A refresh token was used again because its answer had been lost; the pair of the lost answer is refused now.
    SessionRetried = "session.retried",
    /// A used refresh token came back; the session has ended.
    SessionReuseDetected = "session.reuse_detected",
    KeyCreated = "key.created",
    /// Details: the names of the changed settings.
    KeyChanged = "key.changed",
    /// Details: the new key that replaces it.
    KeyRotated = "key.rotated",
    KeyRevoked = "key.revoked",
    /// The key expires soon. Details: when.
    KeyExpiring = "key.expiring",
    KeyExpired = "key.expired",
    WebhookCreated = "webhook.created",
    /// Details: the names of the changed settings.
    WebhookChanged = "webhook.changed",
    WebhookDeleted = "webhook.deleted",
    /// By Keyward itself, because nothing could be delivered. Details: why.
    WebhookDisabled = "webhook.disabled",
}

/// The detail of `session.opened`, `true`: the user has not logged in from this address lately.
pub const NEW_ADDRESS: &str = "newAddress";

/// The detail of `totp.failed`, a time: there were so many wrong codes in a row that until then none is taken.
pub const RESTS_UNTIL: &str = "restsUntil";

impl Kind {
    pub(crate) fn parse(text: &str) -> Option<Kind> {
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
    /// Somebody without a valid credential.
    Anonymous,
    /// The user, by one of their sessions.
    User { session_id: SessionId },
    /// A service, by one of the user's keys.
    Key { key_id: KeyId },
    /// An operator on the command line.
    Operator,
    /// A user who is an operator, over HTTP.
    #[serde(rename = "operator")]
    UserAsOperator {
        user_id: UserId,
        #[serde(flatten)]
        by: Option<Credential>,
    },
    /// Keyward itself, as at an upgrade.
    System,
}

/// What a user showed to prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum Credential {
    Session { session_id: SessionId },
    Key { key_id: KeyId },
}

/// What something is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", content = "id", rename_all = "lowercase")]
pub enum Subject {
    User(UserId),
    Session(SessionId),
    Key(KeyId),
    Webhook(WebhookId),
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
    /// `None`: the command line, not a request.
    pub origin: Option<Origin>,
}

impl By {
    /// The user who has just logged in or signed up, by their new session.
    pub fn user(session_id: SessionId, origin: Origin) -> By {
        By { actor: Actor::User { session_id }, origin: Some(origin) }
    }

    pub fn operator() -> By {
        By { actor: Actor::Operator, origin: None }
    }

    /// The client's address; the unspecified address if there is no client.
    pub(crate) fn ip(&self) -> IpAddr {
        self.origin.as_ref().map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |origin| origin.ip)
    }
}

/// Something that happened, as it is stored and shown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub id: EventId,
    /// For gathered events, the start of the minute.
    pub at: Timestamp,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The account; `None` for a login to an account that does not exist.
    #[serde(rename = "userId")]
    pub user: Option<UserId>,
    pub actor: Actor,
    pub subject: Option<Subject>,
    pub ip: Option<IpAddr>,
    pub request_id: Option<String>,
    pub details: Map<String, Value>,
    /// How often it happened; more than once only for gathered events.
    pub count: u64,
}

impl Event {
    /// An event on a user's account; [`Event::on`] names a session or a key of it.
    pub(crate) fn new(kind: Kind, user: UserId, by: &By, at: Timestamp) -> Event {
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

    pub(crate) fn on(mut self, subject: Subject) -> Event {
        self.subject = Some(subject);
        self
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Event {
        self.details.insert(name.to_string(), value.into());
        self
    }

    /// As this user may see it: of an operator's session, only the operator's own events tell the id.
    pub(crate) fn seen_by(mut self, reader: UserId) -> Event {
        if let Actor::UserAsOperator { user_id, by: by @ Some(Credential::Session { .. }) } = &mut self.actor
            && *user_id != reader
        {
            *by = None;
        }
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kind_is_read_as_it_is_written() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(*kind));
        }
        assert_eq!(Kind::parse("user"), None);
    }

    #[test]
    fn an_operators_session_is_shown_to_themselves_alone() {
        let (ann, bob, session, key) = (UserId::new(), UserId::new(), SessionId::new(), KeyId::new());
        let shown = |credential: Credential, reader: UserId| {
            let by = By { actor: Actor::UserAsOperator { user_id: ann, by: Some(credential) }, origin: None };
            let event = Event::new(Kind::UserChanged, bob, &by, Timestamp::EPOCH).seen_by(reader);
            serde_json::to_value(event.actor).unwrap()
        };
        let by_session = Credential::Session { session_id: session };
        let by_key = Credential::Key { key_id: key };
        let whole = json!({ "type": "operator", "userId": ann, "sessionId": session });
        assert_eq!(shown(by_session, ann), whole);
        assert_eq!(shown(by_session, bob), json!({ "type": "operator", "userId": ann }));
        assert_eq!(shown(by_key, bob), json!({ "type": "operator", "userId": ann, "keyId": key }));
        assert_eq!(serde_json::to_value(Actor::Operator).unwrap(), json!({ "type": "operator" }));
    }
}
