//! The statements of the audit trail.

use std::net::IpAddr;

use uuid::Uuid;

use super::SqlStore;
use super::outbox;
use super::statistics::{self, Counted, Figures};
use crate::audit::event::{Actor, Credential, Event, Filter, Kind, Subject};
use crate::audit::store::EventStore;
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::{EventId, KeyId, SessionId, UserId, WebhookId};
use crate::base::period::HOUR;
use crate::store::driver::{Column, Driver, Row, Transaction, Value, first, unexpected};

/// Writes an event of what the transaction changes.
pub(crate) fn record(transaction: &mut dyn Transaction, event: &Event) -> Result<(), StoreError> {
    record_all(transaction, std::slice::from_ref(event))
}

/// If an event is already stored (failures of this minute), its count is added. What is to be told of them is queued.
pub(crate) fn record_all(transaction: &mut dyn Transaction, events: &[Event]) -> Result<(), StoreError> {
    transaction.execute_with_rows(
        "INSERT INTO events (id, at, kind, user_id, actor, actor_id, subject, subject_id, ip, request_id, details, \
         count, actor_user_id) ROWS ON CONFLICT (id) DO UPDATE SET count = events.count + excluded.count",
        &[
            Column::Uuid,
            Column::Timestamp,
            Column::Text,
            Column::Uuid,
            Column::Text,
            Column::Uuid,
            Column::Text,
            Column::Uuid,
            Column::Text,
            Column::Text,
            Column::Text,
            Column::Int,
            Column::Uuid,
        ],
        &mut events.iter().map(columns),
    )?;
    outbox::deliver(transaction, events)
}

/// An operator over HTTP, by a session. One by a key, and one on the command line or whose session is not shown.
const OPERATOR_SESSION: &str = "operator session";
const OPERATOR_KEY: &str = "operator key";
const OPERATOR: &str = "operator";

/// actor, actor_id, actor_user_id
fn actor_columns(actor: Actor) -> (&'static str, Option<Uuid>, Option<Uuid>) {
    match actor {
        Actor::Anonymous => ("anonymous", None, None),
        Actor::User { session_id } => ("user", Some(session_id.0), None),
        Actor::Key { key_id } => ("key", Some(key_id.0), None),
        Actor::Operator => (OPERATOR, None, None),
        Actor::UserAsOperator { user_id, by } => match by {
            None => (OPERATOR, None, Some(user_id.0)),
            Some(Credential::Session { session_id }) => (OPERATOR_SESSION, Some(session_id.0), Some(user_id.0)),
            Some(Credential::Key { key_id }) => (OPERATOR_KEY, Some(key_id.0), Some(user_id.0)),
        },
        Actor::System => ("system", None, None),
    }
}

/// As [`actor_columns`] wrote it.
fn actor(kind: &str, id: Option<Uuid>, user: Option<Uuid>) -> Option<Actor> {
    let as_operator = |user, by| Actor::UserAsOperator { user_id: UserId(user), by };
    Some(match (kind, id, user) {
        ("anonymous", _, _) => Actor::Anonymous,
        ("user", Some(id), _) => Actor::User { session_id: SessionId(id) },
        ("key", Some(id), _) => Actor::Key { key_id: KeyId(id) },
        (OPERATOR, _, None) => Actor::Operator,
        (OPERATOR, _, Some(user)) => as_operator(user, None),
        (OPERATOR_SESSION, Some(id), Some(user)) => {
            as_operator(user, Some(Credential::Session { session_id: SessionId(id) }))
        }
        (OPERATOR_KEY, Some(id), Some(user)) => as_operator(user, Some(Credential::Key { key_id: KeyId(id) })),
        ("system", _, _) => Actor::System,
        _ => return None,
    })
}

fn columns(event: &Event) -> Vec<Value> {
    let text = |text: &str| Value::Text(text.to_string());
    let (actor, actor_id, actor_user_id) = actor_columns(event.actor);
    let (subject, subject_id) = match event.subject {
        None => (Value::Null, Value::Null),
        Some(Subject::User(id)) => (text("user"), Value::Uuid(id.0)),
        Some(Subject::Session(id)) => (text("session"), Value::Uuid(id.0)),
        Some(Subject::Key(id)) => (text("key"), Value::Uuid(id.0)),
        Some(Subject::Webhook(id)) => (text("webhook"), Value::Uuid(id.0)),
    };
    vec![
        Value::Uuid(event.id.0),
        Value::Timestamp(event.at),
        text(event.kind.as_str()),
        Value::or_null(event.user, |id| Value::Uuid(id.0)),
        text(actor),
        Value::or_null(actor_id, Value::Uuid),
        subject,
        subject_id,
        Value::or_null(event.ip, |ip| Value::Text(ip.to_string())),
        Value::or_null(event.request_id.clone(), Value::Text),
        Value::Text(serde_json::Value::Object(event.details.clone()).to_string()),
        Value::Int(i64::try_from(event.count).unwrap_or(i64::MAX)),
        Value::or_null(actor_user_id, Value::Uuid),
    ]
}

/// A row of [`select`].
pub(super) fn event(mut row: Row) -> Result<Event, StoreError> {
    let (kind, id, user) = (row.text(4)?, row.optional_uuid(5)?, row.optional_uuid(12)?);
    let actor = actor(&kind, id, user).ok_or_else(|| unexpected(4))?;
    let subject = match (row.optional_text(6)?.as_deref(), row.optional_uuid(7)?) {
        (None, _) => None,
        (Some("user"), Some(id)) => Some(Subject::User(UserId(id))),
        (Some("session"), Some(id)) => Some(Subject::Session(SessionId(id))),
        (Some("key"), Some(id)) => Some(Subject::Key(KeyId(id))),
        (Some("webhook"), Some(id)) => Some(Subject::Webhook(WebhookId(id))),
        _ => return Err(unexpected(6)),
    };
    let ip: Option<IpAddr> = row.optional_text(8)?.map(|text| text.parse()).transpose().map_err(|_| unexpected(8))?;
    Ok(Event {
        id: EventId(row.uuid(0)?),
        at: row.timestamp(1)?,
        kind: Kind::parse(&row.text(2)?).ok_or_else(|| unexpected(2))?,
        user: row.optional_uuid(3)?.map(UserId),
        actor,
        subject,
        ip,
        request_id: row.optional_text(9)?,
        details: serde_json::from_str(&row.text(10)?).map_err(|_| unexpected(10))?,
        count: u64::try_from(row.int(11)?).unwrap_or(0),
    })
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, at, kind, user_id, actor, actor_id, subject, subject_id, ip, request_id, details, count, \
             actor_user_id FROM events WHERE ",
            $rest
        )
    };
}

pub(super) use select;

impl<D: Driver> EventStore for SqlStore<D> {
    fn record_failures(&self, failures: &[Event]) -> Result<(), StoreError> {
        let mut figures = Figures::new();
        for failure in failures.iter().filter(|failure| failure.kind == Kind::LoginFailed) {
            *figures.entry((failure.at.start_of(HOUR), Counted::FailedLogin)).or_default() += failure.count;
        }
        self.driver.transaction(|transaction| {
            record_all(transaction, failures)?;
            statistics::add(transaction, &figures)
        })
    }

    fn events_of(&self, user: UserId, before: Option<EventId>, limit: i64) -> Result<Vec<Event>, StoreError> {
        let (at, id) = match before {
            None => (Timestamp::LAST, Uuid::max()),
            Some(id) => {
                let rows = self.driver.query(
                    "SELECT at FROM events WHERE id = $1 AND user_id = $2",
                    &[Value::Uuid(id.0), Value::Uuid(user.0)],
                )?;
                let Some(mut row) = first(rows) else { return Ok(Vec::new()) };
                (row.timestamp(0)?, id.0)
            }
        };
        let rows = self.driver.query(
            select!("user_id = $1 AND (at, id) < ($2, $3) ORDER BY at DESC, id DESC LIMIT $4"),
            &[Value::Uuid(user.0), Value::Timestamp(at), Value::Uuid(id), Value::Int(limit)],
        )?;
        rows.into_iter().map(event).collect()
    }

    fn events(
        &self,
        filter: &Filter,
        after: Option<(Timestamp, EventId)>,
        limit: i64,
    ) -> Result<Vec<Event>, StoreError> {
        let since = filter.since.unwrap_or(Timestamp::EPOCH);
        let (at, id) = after.map_or((since, Uuid::nil()), |(at, id)| (at, id.0));
        let mut parameters = vec![Value::Timestamp(at), Value::Uuid(id), Value::Int(limit)];
        parameters.extend(filter.user.map(|user| Value::Uuid(user.0)));
        parameters.extend(filter.kind.map(|kind| Value::Text(kind.as_str().to_string())));
        // One statement for each case: a common one would search all events for the few of a user or a kind.
        let sql = match (filter.user, filter.kind) {
            (None, None) => select!("(at, id) > ($1, $2) ORDER BY at, id LIMIT $3"),
            (Some(_), None) => select!("user_id = $4 AND (at, id) > ($1, $2) ORDER BY at, id LIMIT $3"),
            // Written so that the index of kinds is used: by the index of times, a rare kind would be searched for
            // among all events.
            (None, Some(_)) => {
                select!("(kind, at, id) > ($4, $1, $2) AND kind <= $4 ORDER BY kind, at, id LIMIT $3")
            }
            (Some(_), Some(_)) => {
                select!("user_id = $4 AND (kind, at, id) > ($5, $1, $2) AND kind <= $5 ORDER BY kind, at, id LIMIT $3")
            }
        };
        self.driver.query(sql, &parameters)?.into_iter().map(event).collect()
    }

    fn newest_events(
        &self,
        filter: &Filter,
        after: Option<EventId>,
        limit: i64,
    ) -> Result<Option<Vec<Event>>, StoreError> {
        let (at, id) = match after {
            None => (Timestamp::LAST, Uuid::max()),
            Some(id) => {
                let rows = self.driver.query("SELECT at FROM events WHERE id = $1", &[Value::Uuid(id.0)])?;
                let Some(mut row) = first(rows) else { return Ok(None) };
                (row.timestamp(0)?, id.0)
            }
        };
        let since = filter.since.unwrap_or(Timestamp::EPOCH);
        let mut parameters = vec![Value::Timestamp(at), Value::Uuid(id), Value::Timestamp(since), Value::Int(limit)];
        parameters.extend(filter.user.map(|user| Value::Uuid(user.0)));
        parameters.extend(filter.kind.map(|kind| Value::Text(kind.as_str().to_string())));
        // The statements of `events`, backwards.
        let sql = match (filter.user, filter.kind) {
            (None, None) => select!("(at, id) < ($1, $2) AND at >= $3 ORDER BY at DESC, id DESC LIMIT $4"),
            (Some(_), None) => {
                select!("user_id = $5 AND (at, id) < ($1, $2) AND at >= $3 ORDER BY at DESC, id DESC LIMIT $4")
            }
            (None, Some(_)) => select!(
                "(kind, at, id) < ($5, $1, $2) AND (kind, at) >= ($5, $3) \
                 ORDER BY kind DESC, at DESC, id DESC LIMIT $4"
            ),
            (Some(_), Some(_)) => select!(
                "user_id = $5 AND (kind, at, id) < ($6, $1, $2) AND (kind, at) >= ($6, $3) \
                 ORDER BY kind DESC, at DESC, id DESC LIMIT $4"
            ),
        };
        self.driver.query(sql, &parameters)?.into_iter().map(event).collect::<Result<_, _>>().map(Some)
    }

    fn prune_events(&self, before: Timestamp) -> Result<bool, StoreError> {
        self.delete(
            "SELECT id FROM events WHERE at < $1 ORDER BY at, id LIMIT 1000",
            Value::Timestamp(before),
            "DELETE FROM events WHERE id IN (ROWS)",
        )
    }
}
