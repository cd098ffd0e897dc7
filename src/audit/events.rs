//! Writing and reading the audit trail.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest;
use serde_json::Map;

use crate::audit::event::{Actor, By, Event, Filter, Kind, Subject};
use crate::audit::store::EventStore;
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::Error;
use crate::base::id::{EventId, UserId};
use crate::base::network::client_network;
use crate::base::page::Page;
use crate::base::sharded::lock;

/// Failures that are counted in one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Failures {
    kind: Kind,
    user: Option<UserId>,
    actor: Actor,
    /// For an IPv6 client, the first address of its network.
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

    /// All instances compute the same id for the same failures, so their counts add up in one row.
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

/// At most this many rows wait to be written; failures that need a further row are not counted. Every failure costs a
/// password hash, so a second has far fewer.
const KEPT: usize = 10_000;

pub struct Events {
    store: Arc<dyn EventStore>,
    failed: Mutex<HashMap<Failures, u64>>,
    retention: Duration,
    clock: Clock,
}

impl Events {
    pub(crate) fn new(store: Arc<dyn EventStore>, retention: Duration, clock: Clock) -> Events {
        Events { store, failed: Mutex::default(), retention, clock }
    }

    /// Counts a failure; [`Events::flush`] writes it. Takes the same time whether there is such a user or not.
    pub fn note_failure(&self, kind: Kind, user: Option<UserId>, by: &By) {
        // One network of a client is one row, however many of its addresses an attacker uses.
        let ip = by.origin.as_ref().map(|origin| client_network(origin.ip));
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

    /// Writes the counted failures in one transaction. If that fails, they are kept for the next time.
    pub fn flush(&self) -> Result<(), Error> {
        let taken = std::mem::take(&mut *lock(&self.failed));
        if taken.is_empty() {
            return Ok(());
        }
        let mut events: Vec<Event> = taken.iter().map(|(failures, count)| failures.event(*count)).collect();
        // All instances write in the same order, so that no two of them deadlock.
        events.sort_unstable_by_key(|event| event.id);
        let outcome = self.store.record_failures(&events);
        if outcome.is_err() {
            taken.into_iter().for_each(|(failures, count)| self.add(failures, count));
        }
        Ok(outcome?)
    }

    /// Up to `limit` events of the user's account, newest first, from the one before `before`. None if `before` is not
    /// an event of this account.
    pub fn of_user(&self, user: UserId, before: Option<EventId>, limit: i64) -> Result<Vec<Event>, Error> {
        let events = self.store.events_of(user, before, limit)?;
        Ok(events.into_iter().map(|event| event.seen_by(user)).collect())
    }

    /// Up to `limit` events, oldest first, from the one after `after`.
    pub fn list(&self, filter: &Filter, after: Option<&Event>, limit: i64) -> Result<Vec<Event>, Error> {
        Ok(self.store.events(filter, after.map(|event| (event.at, event.id)), limit)?)
    }

    /// A page of at most `limit` events, newest first. `None`: there is no event `after`.
    pub fn newest(&self, filter: &Filter, after: Option<EventId>, limit: usize) -> Result<Option<Page<Event>>, Error> {
        let events = self.store.newest_events(filter, after, Page::<Event>::read(limit))?;
        Ok(events.map(|events| Page::cut(events, limit)))
    }

    /// Deletes a part of the events that are older than the retention. False: there were none.
    pub fn prune(&self) -> Result<bool, Error> {
        Ok(self.store.prune_events(self.clock.now().minus(self.retention))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::SessionId;

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
