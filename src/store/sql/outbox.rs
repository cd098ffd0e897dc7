//! The statements that put into the outbox what is to be delivered, in the transaction of the change that it tells of.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::webhook_rows::owner_may;
use crate::audit::event::{Event, Kind};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::{DeliveryId, UserId};
use crate::mail::kinds::MailKind;
use crate::mail::notices::notice_of;
use crate::outbox::body::{body, gathered_until, must_be_named};
use crate::outbox::mail_turns::{self, LastMail, Queued};
use crate::store::driver::{Column, Row, Transaction, Value, first};

/// An endpoint that is told of events.
struct Endpoint {
    id: Uuid,
    /// `None`: it is the operators'.
    owner: Option<UserId>,
    /// `None`: all that are not gathered.
    types: Option<String>,
}

impl Endpoint {
    fn is_told_of(&self, event: &Event) -> bool {
        let is_theirs = match self.owner {
            None => true,
            // Nobody is left to be told.
            Some(owner) => event.user == Some(owner) && event.kind != Kind::UserDeleted,
        };
        let is_named = || match &self.types {
            None => !must_be_named(event.kind),
            Some(types) => types.split(' ').any(|kind| kind == event.kind.as_str()),
        };
        is_theirs && is_named()
    }

    fn delivery(&self, event: &Event) -> Result<Vec<Value>, StoreError> {
        let until = gathered_until(event);
        // What is gathered is counted further.
        let body = if until.is_some() { None } else { Some(body(event.clone(), self.owner)?) };
        Ok(vec![
            Value::Uuid(DeliveryId::new().0),
            Value::Uuid(self.id),
            Value::Text(event.kind.as_str().to_string()),
            Value::Uuid(event.id.0),
            Value::or_null(body, Value::Text),
            Value::Timestamp(event.at),
            Value::Timestamp(until.unwrap_or(Timestamp::EPOCH)),
        ])
    }
}

// Subqueries, because PostgreSQL could read all users for a join.
const ENDPOINTS_OF_OPERATORS: &str = concat!(
    "SELECT webhooks.id, NULL, types FROM webhooks WHERE is_operators AND is_active AND deleted_at IS NULL AND (SELECT ",
    owner_may!(),
    " FROM users WHERE users.id = webhooks.user_id) ORDER BY created_at, id"
);

const ENDPOINTS_OF_USERS: &str = concat!(
    "SELECT webhooks.id, webhooks.user_id, types FROM webhooks \
     WHERE user_id = ANY($1) AND NOT is_operators AND is_active AND deleted_at IS NULL AND (SELECT ",
    owner_may!(),
    " FROM users WHERE users.id = webhooks.user_id)"
);

fn endpoint(mut row: Row) -> Result<Endpoint, StoreError> {
    Ok(Endpoint { id: row.uuid(0)?, owner: row.optional_uuid(1)?.map(UserId), types: row.optional_text(2)? })
}

/// Queues what the events are to be told to endpoints and people.
pub(super) fn deliver(transaction: &mut dyn Transaction, events: &[Event]) -> Result<(), StoreError> {
    let reach = transaction.outlet().reach();
    let mut found = Vec::new();
    if reach.operators {
        found.append(&mut transaction.query(ENDPOINTS_OF_OPERATORS, &[])?);
    }
    if reach.users {
        let users: BTreeSet<UserId> = events.iter().filter_map(|event| event.user).collect();
        let mut users: Vec<Value> = users.into_iter().map(|user| Value::Uuid(user.0)).collect();
        // Whether there is such an account must not show in the time that the answer takes.
        if users.is_empty() && events.iter().any(|event| event.kind == Kind::PasswordResetRequested) {
            users.push(Value::Uuid(Uuid::nil()));
        }
        if !users.is_empty() {
            found.append(&mut transaction.query(ENDPOINTS_OF_USERS, &[Value::List(users)])?);
        }
    }
    let endpoints = found.into_iter().map(endpoint).collect::<Result<Vec<_>, _>>()?;
    let told = |event| endpoints.iter().filter(move |endpoint| endpoint.is_told_of(event));
    let rows = events.iter().flat_map(|event| told(event).map(move |endpoint| endpoint.delivery(event)));
    let mut failed = None;
    let mut rows = rows.map_while(|row| row.map_err(|error| failed = Some(error)).ok()).peekable();
    if rows.peek().is_some() {
        transaction.wake_deliverers()?;
        transaction.execute_with_rows(
            "WITH given (id, receiver, kind, event_id, body, created_at, next_at) AS (ROWS) \
             INSERT INTO deliveries (id, channel, receiver, kind, event_id, body, count, created_at, next_at, tries) \
             SELECT id, 'webhook', receiver, kind, event_id, body, 1, created_at, next_at, 0 FROM given WHERE TRUE \
             ON CONFLICT DO NOTHING",
            &[
                Column::Uuid,
                Column::Uuid,
                Column::Text,
                Column::Uuid,
                Column::Text,
                Column::Timestamp,
                Column::Timestamp,
            ],
            &mut rows,
        )?;
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if reach.mail {
        queue_notices(transaction, events)?;
    }
    Ok(())
}

/// Queues what the events are to be told to people. Each account has one mail of a kind, and everybody goes through them in
/// the same order: otherwise two transactions that tell the same accounts could wait for each other.
fn queue_notices(transaction: &mut dyn Transaction, events: &[Event]) -> Result<(), StoreError> {
    let mut notices: BTreeMap<(Uuid, &str), Notices> = BTreeMap::new();
    for event in events {
        if let (Some(user), Some(kind)) = (event.user, notice_of(event)) {
            let notices = notices.entry((user.0, kind.as_str())).or_insert(Notices { kind, count: 0, first: event.at });
            notices.count += 1;
            notices.first = notices.first.min(event.at);
        }
    }
    notices.into_iter().try_for_each(|((account, _), notices)| queue_some(transaction, account, &notices))
}

/// Of one kind, to one account.
struct Notices {
    kind: MailKind,
    count: i64,
    /// When the first happened.
    first: Timestamp,
}

/// Queues a mail to an account, unless the one before it says the same. The same statements whether there is such an account
/// or not. Does nothing if no mail can be sent.
pub(crate) fn queue_mail(
    transaction: &mut dyn Transaction,
    account: Uuid,
    kind: MailKind,
    now: Timestamp,
) -> Result<(), StoreError> {
    queue_some(transaction, account, &Notices { kind, count: 1, first: now })
}

fn queue_some(transaction: &mut dyn Transaction, account: Uuid, notices: &Notices) -> Result<(), StoreError> {
    let Notices { kind, count, first: now } = *notices;
    if !transaction.outlet().reach().mail {
        return Ok(());
    }
    let (receiver, name) = (Value::Uuid(account), Value::Text(kind.as_str().to_string()));
    let last = transaction.query(
        "SELECT created_at, ended_at FROM deliveries WHERE channel = 'mail' AND receiver = $1 AND kind = $2 \
         ORDER BY place DESC LIMIT 1",
        &[receiver.clone(), name.clone()],
    )?;
    let last = first(last).map(|mut row| {
        Ok::<_, StoreError>(LastMail { created_at: row.timestamp(0)?, ended_at: row.optional_timestamp(1)? })
    });
    let next = match mail_turns::turn(kind.is_gathered(), kind.pause(), last.transpose()?, now) {
        Queued::Covered => return Ok(()),
        // Only counted, unless it has been sent meanwhile.
        Queued::Together => now.plus(kind.pause()),
        Queued::At(next) => next,
    };
    transaction.wake_deliverers()?;
    let sql = if kind.is_gathered() {
        // What is told begins with the earliest, which is not stored first if its transaction waited.
        concat!(
            queue!(),
            "DO UPDATE SET count = deliveries.count + excluded.count, created_at = CASE WHEN excluded.created_at < \
             deliveries.created_at THEN excluded.created_at ELSE deliveries.created_at END"
        )
    } else {
        concat!(queue!(), "DO NOTHING")
    };
    let id = Value::Uuid(DeliveryId::new().0);
    transaction
        .execute(sql, &[id, receiver, name, Value::Int(count), Value::Timestamp(now), Value::Timestamp(next)])?;
    Ok(())
}

macro_rules! queue {
    () => {
        "INSERT INTO deliveries (id, channel, receiver, kind, count, created_at, next_at, tries) \
         VALUES ($1, 'mail', $2, $3, $4, $5, $6, 0) \
         ON CONFLICT (receiver, kind) WHERE channel = 'mail' AND next_at IS NOT NULL "
    };
}
use queue;

/// Deletes a part of what was and is to be delivered to a receiver that is gone. False: there was nothing.
pub(super) fn delete_some_deliveries(transaction: &mut dyn Transaction, receiver: Uuid) -> Result<bool, StoreError> {
    let receiver = [Value::Uuid(receiver)];
    transaction.execute("DELETE FROM delivery_leases WHERE receiver = $1", &receiver)?;
    let found =
        transaction.query("SELECT place FROM deliveries WHERE receiver = $1 ORDER BY place LIMIT 1000", &receiver)?;
    let places = found.into_iter().map(|mut row| row.int(0)).collect::<Result<_, _>>()?;
    delete_places(transaction, places)
}

/// False: there were none.
pub(super) fn delete_places(transaction: &mut dyn Transaction, places: Vec<i64>) -> Result<bool, StoreError> {
    let any = !places.is_empty();
    let mut rows = places.into_iter().map(|place| vec![Value::Int(place)]);
    transaction.execute_with_rows("DELETE FROM deliveries WHERE place IN (ROWS)", &[Column::Int], &mut rows)?;
    Ok(any)
}
