//! The audit trail: what happened to accounts, sessions and keys, by whom and from where.
//!
//! Whatever changes something in the store is told [`By`] whom, and the store writes an [`Event`] of it in the same
//! transaction. Failures change nothing; they are gathered in memory and written once a second, so that whoever guesses
//! in masses writes little. An event names accounts, sessions and keys by their ids and settings by their names: it
//! holds no secret, no e-mail and no text of a client's but the request id that he may choose.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::address::neighbourhood;
use crate::clock::{Clock, Timestamp};
use crate::error::Error;
use crate::id::{EventId, KeyId, SessionId, UserId};
use crate::sharded::lock;
use crate::store::Store;

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

/// Failures that are gathered in one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Failures {
    kind: Kind,
    user: Option<UserId>,
    actor: Actor,
    /// Of an IPv6 client the first of its network.
    ip: Option<IpAddr>,
    minute: Timestamp,
}

impl Failures {
    fn event(&self, count: u64) -> Event {
        let Failures { kind, user, actor, ip, minute } = *self;
        let subject = user.map(Subject::User);
        let mut details = Map::new();
        if let Some(IpAddr::V6(first)) = ip {
            details.insert("network".to_string(), format!("{first}/64").into());
        }
        Event { id: self.id(), at: minute, kind, user, actor, subject, ip, request_id: None, details, count }
    }

    /// The same for the same failures, in every instance, so that their counts come together in one row.
    fn id(&self) -> EventId {
        let Failures { kind, user, actor, ip, minute } = self;
        let hash = digest::digest(&digest::SHA256, format!("{} {user:?} {actor:?} {ip:?}", kind.as_str()).as_bytes());
        let mut unique = [0; 10];
        unique.copy_from_slice(&hash.as_ref()[..10]);
        let millis = u64::try_from(minute.millis()).unwrap_or(0);
        EventId(uuid::Builder::from_unix_timestamp_millis(millis, &unique).into_uuid())
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Rows that wait to be written, at most; what would need a further one is not counted. Each failure costs a hash, so
/// there are far fewer in a second.
const KEPT: usize = 10_000;

pub struct Events {
    store: Arc<dyn Store>,
    failed: Mutex<HashMap<Failures, u64>>,
    retention: Duration,
    clock: Clock,
}

impl Events {
    pub fn new(store: Arc<dyn Store>, retention: Duration, clock: Clock) -> Events {
        Events { store, failed: Mutex::default(), retention, clock }
    }

    /// Takes the same time whether there is such a user or not.
    pub fn note_failure(&self, kind: Kind, user: Option<UserId>, by: &By) {
        // Whoever guesses from a network of his own makes one row of it.
        let ip = by.origin.as_ref().map(|origin| neighbourhood(origin.ip));
        let minute = self.clock.now().start_of(MINUTE);
        self.add(Failures { kind, user, actor: by.actor, ip, minute }, 1);
    }

    fn add(&self, failures: Failures, count: u64) {
        let mut failed = lock(&self.failed);
        let full = failed.len() >= KEPT;
        match failed.get_mut(&failures) {
            Some(known) => *known = known.saturating_add(count),
            None if full => {}
            None => {
                failed.insert(failures, count);
            }
        }
    }

    /// Writes the failures that were noted, in one transaction. What cannot be written is kept for the next time.
    pub fn flush(&self) -> Result<(), Error> {
        let taken = std::mem::take(&mut *lock(&self.failed));
        if taken.is_empty() {
            return Ok(());
        }
        let mut events: Vec<Event> = taken.iter().map(|(failures, count)| failures.event(*count)).collect();
        // The same order in every instance, so that no two of them wait for each other's rows.
        events.sort_unstable_by_key(|event| event.id);
        let outcome = self.store.record_failures(&events);
        if outcome.is_err() {
            taken.into_iter().for_each(|(failures, count)| self.add(failures, count));
        }
        Ok(outcome?)
    }

    /// Up to `limit` events of the user's account, newest first, from the one before `before`. There are none before an
    /// event that is not his.
    pub fn of_user(&self, user: UserId, before: Option<EventId>, limit: i64) -> Result<Vec<Event>, Error> {
        Ok(self.store.events_of(user, before, limit)?)
    }

    /// Up to `limit` events, oldest first, from the one after `after`.
    pub fn list(&self, filter: &Filter, after: Option<&Event>, limit: i64) -> Result<Vec<Event>, Error> {
        Ok(self.store.events(filter, after.map(|event| (event.at, event.id)), limit)?)
    }

    /// Forgets some events that are kept no longer. False: there were none.
    pub fn prune(&self) -> Result<bool, Error> {
        Ok(self.store.prune_events(self.clock.now().minus(self.retention))?)
    }
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

    #[test]
    fn the_same_failures_have_the_same_id_and_others_another() {
        let failures = Failures {
            kind: Kind::LoginFailed,
            user: Some(UserId::new()),
            actor: Actor::Anonymous,
            ip: Some(IpAddr::from([127, 0, 0, 1])),
            minute: Timestamp::parse("2026-01-01T00:01:00Z").unwrap(),
        };
        assert_eq!(failures.id(), { failures }.id());
        let later = Timestamp::parse("2026-01-01T00:02:00Z").unwrap();
        for other in [
            Failures { kind: Kind::PasswordFailed, ..failures },
            Failures { user: None, ..failures },
            Failures { actor: Actor::User { session_id: SessionId::new() }, ..failures },
            Failures { ip: Some(IpAddr::from([127, 0, 0, 2])), ..failures },
            Failures { minute: later, ..failures },
        ] {
            assert_ne!(failures.id(), other.id(), "{other:?}");
        }
    }
}
