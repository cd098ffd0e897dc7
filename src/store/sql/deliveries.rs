//! The statements of those who deliver: whose turn it is, what is due, and what became of a try.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::SqlStore;
use super::events::{event, record, select};
use super::outbox::delete_places;
use crate::audit::event::{Actor, By, Event, Kind, Subject};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::{DeliveryId, EventId, UserId, WebhookId};
use crate::mail::kinds::MailKind;
use crate::outbox::body::body;
use crate::outbox::delivery::{ChannelKind, Delivery, Outcome};
use crate::outbox::health::{GivenUp, Health, MOST_WAITING};
use crate::outbox::outlet::{CALL, Outlet};
use crate::outbox::store::{Due, Found, OutboxStore, Then, Tried, Turn, Wanted};
use crate::outbox::tries::{Next, REST, next};
use crate::store::driver::{Column, Driver, Row, Transaction, Value, first, unexpected};
use crate::webhooks::webhook::DisabledReason;

/// For how long a turn is somebody's after a try was recorded. Longer than a try takes.
const TURN: Duration = Duration::from_secs(20);
/// A turn that seems longer was taken while a clock was wrong, and holds nobody up.
const LONGEST: Duration = Duration::from_secs(2 * REST.as_secs());
const _: () = assert!(TURN.as_secs() < LONGEST.as_secs());
/// How long after its time an event may be stored, because its transaction waited.
const STORED_LATE: Duration = Duration::from_secs(5);
/// For how long taken mails are somebody's. After 15 s no more of them is begun, and each takes 30 s at most.
const MAIL_TURN: Duration = Duration::from_secs(60);

/// Goes from one endpoint for which something waits to the next, so that much for one of them costs the others nothing.
/// Scalar subqueries, because PostgreSQL could turn others into joins with the whole table.
const DUE_ENDPOINTS: &str = "WITH RECURSIVE waiting (receiver) AS ( \
        SELECT (SELECT receiver FROM deliveries WHERE channel = 'webhook' AND next_at IS NOT NULL AND receiver > $1 \
                ORDER BY receiver LIMIT 1) \
        UNION ALL \
        SELECT (SELECT receiver FROM deliveries WHERE channel = 'webhook' AND next_at IS NOT NULL \
                AND receiver > waiting.receiver ORDER BY receiver LIMIT 1) \
        FROM waiting WHERE waiting.receiver IS NOT NULL) \
    SELECT waiting.receiver, CASE WHEN is_operators THEN NULL ELSE webhooks.user_id END FROM waiting \
    LEFT JOIN webhooks ON webhooks.id = waiting.receiver \
    WHERE waiting.receiver IS NOT NULL AND COALESCE(is_slow, FALSE) = $2 \
    AND (SELECT next_at FROM deliveries WHERE channel = 'webhook' AND deliveries.receiver = waiting.receiver \
         AND next_at IS NOT NULL ORDER BY next_at LIMIT 1) <= $3 \
    AND (SELECT until FROM delivery_leases WHERE delivery_leases.receiver = waiting.receiver AND until > $3 \
         AND until <= $4) IS NULL \
    LIMIT $5";

const NEXT_DUE: &str = "SELECT \
    (SELECT next_at FROM deliveries WHERE channel = 'webhook' AND next_at > $1 ORDER BY next_at LIMIT 1), \
    (SELECT next_at FROM deliveries WHERE channel = 'mail' AND next_at > $1 ORDER BY next_at LIMIT 1)";

macro_rules! due_columns {
    () => {
        "place, id, receiver, kind, event_id, body, count, created_at, tries"
    };
}

fn due(row: &mut Row, channel: ChannelKind, until: Option<Timestamp>) -> Result<Due, StoreError> {
    let delivery = Delivery {
        id: DeliveryId(row.uuid(1)?),
        channel,
        receiver: row.uuid(2)?,
        kind: row.text(3)?,
        event: row.optional_uuid(4)?.map(EventId),
        body: row.optional_text(5)?,
        count: u64::try_from(row.int(6)?).unwrap_or(0),
        created_at: row.timestamp(7)?,
        tries: u32::try_from(row.int(8)?).map_err(|_| unexpected(8))?,
    };
    Ok(Due { place: row.int(0)?, until, delivery })
}

/// Records what became of deliveries that nobody else has meanwhile.
fn record_outcomes<'a>(
    transaction: &mut dyn Transaction,
    tried: impl Iterator<Item = &'a Tried>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut rows = tried.map(|Tried { due, outcome, .. }| {
        let Delivery { id, tries, .. } = due.delivery;
        let Next { tries, next_at, ended } = next(outcome, tries, id.0, now);
        let (answer, reason) = match outcome {
            Outcome::Delivered(answer) | Outcome::Gone(answer) => (Some(answer), None),
            Outcome::Failed { answer, reason, .. } => (Some(answer), Some(reason.clone())),
            Outcome::Dropped | Outcome::Paused => (None, None),
        };
        vec![
            Value::Int(due.place),
            Value::or_null(due.until, Value::Timestamp),
            Value::or_null(next_at, Value::Timestamp),
            Value::Int(i64::from(tries)),
            Value::Timestamp(now),
            Value::or_null(ended, |name| Value::Text(name.to_string())),
            Value::or_null(answer.and_then(|answer| answer.status), |status| Value::Int(i64::from(status))),
            Value::or_null(answer.and_then(|answer| answer.text.clone()), Value::Text),
            Value::or_null(reason, Value::Text),
            Value::Int(i64::try_from(due.delivery.count).unwrap_or(i64::MAX)),
        ]
    });
    transaction.execute_with_rows(
        "WITH given (place, until, next_at, tries, now, outcome, status, answer, reason, count) AS (ROWS) \
         UPDATE deliveries SET next_at = given.next_at, tries = given.tries, tried_at = given.now, \
         ended_at = CASE WHEN given.outcome IS NULL THEN NULL ELSE given.now END, outcome = given.outcome, \
         status = given.status, answer = given.answer, reason = given.reason \
         FROM given WHERE deliveries.place = given.place AND deliveries.next_at IS NOT NULL \
         AND (given.until IS NULL OR deliveries.next_at = given.until) \
         AND (given.outcome IS NULL OR deliveries.count = given.count)",
        &[
            Column::Int,
            Column::Timestamp,
            Column::Timestamp,
            Column::Int,
            Column::Timestamp,
            Column::Text,
            Column::Int,
            Column::Text,
            Column::Text,
            Column::Int,
        ],
        &mut rows,
    )
}

/// How the endpoint does after these tries. Disables it if it is given up: then it is told nothing any more.
fn judge(
    transaction: &mut dyn Transaction,
    endpoint: Uuid,
    tried: &[Tried],
    then: Then,
    now: Timestamp,
) -> Result<(), StoreError> {
    let id = Value::Uuid(endpoint);
    let rows = transaction.query(
        "SELECT user_id, failing_since, is_slow, is_active FROM webhooks WHERE id = $1",
        std::slice::from_ref(&id),
    )?;
    let Some(mut row) = first(rows) else { return Ok(()) };
    let owner = UserId(row.uuid(0)?);
    let before = Health { failing_since: row.optional_timestamp(1)?, is_slow: row.bool(2)? };
    let is_active = row.bool(3)?;
    let (after, mut given_up) = before.after(tried.iter().map(|tried| (now, tried)));
    if after != before {
        transaction.execute(
            "UPDATE webhooks SET failing_since = $2, is_slow = $3 WHERE id = $1",
            &[id.clone(), Value::or_null(after.failing_since, Value::Timestamp), Value::Bool(after.is_slow)],
        )?;
    }
    if given_up.is_none() && then != Then::GoOn && is_full(transaction, &id)? {
        given_up = Some(GivenUp::Full);
    }
    let Some(given_up) = given_up else { return Ok(()) };
    let reason = match given_up {
        GivenUp::Gone => DisabledReason::Gone,
        GivenUp::Failing => DisabledReason::Failing,
        GivenUp::Full => DisabledReason::Full,
    };
    let name = Value::Text(reason.as_str().to_string());
    let disabled = transaction.execute(
        "UPDATE webhooks SET is_active = $3, disabled_at = $4, disabled_reason = $2 WHERE id = $1 AND is_active",
        &[id.clone(), name, Value::Bool(false), Value::Timestamp(now)],
    )?;
    if given_up == GivenUp::Full {
        // Otherwise it would be full again as soon as it is switched on. Each can be sent again by hand.
        transaction.execute(
            "UPDATE deliveries SET next_at = NULL, ended_at = $2, outcome = 'dropped' \
             WHERE channel = 'webhook' AND receiver = $1 AND next_at IS NOT NULL",
            &[id, Value::Timestamp(now)],
        )?;
    }
    if is_active && disabled > 0 {
        let by = By { actor: Actor::System, origin: None };
        let event = Event::new(Kind::WebhookDisabled, owner, &by, now)
            .on(Subject::Webhook(WebhookId(endpoint)))
            .with("reason", reason.as_str());
        record(transaction, &event)?;
    }
    Ok(())
}

fn is_full(transaction: &mut dyn Transaction, endpoint: &Value) -> Result<bool, StoreError> {
    let beyond = transaction.query(
        "SELECT place FROM deliveries WHERE channel = 'webhook' AND receiver = $1 AND next_at IS NOT NULL \
         ORDER BY next_at, place LIMIT 1 OFFSET $2",
        &[endpoint.clone(), Value::Int(MOST_WAITING)],
    )?;
    Ok(!beyond.is_empty())
}

impl<D: Driver> OutboxStore for SqlStore<D> {
    fn outlet(&self) -> Arc<Outlet> {
        self.driver.outlet().clone()
    }

    fn due_endpoints(&self, holder: Uuid, wanted: &[Wanted]) -> Result<Found, StoreError> {
        let now = self.driver.now(&self.clock)?;
        let mut found = Found::default();
        for Wanted { after, most, is_slow } in wanted {
            let most = Value::Int(i64::try_from(*most).unwrap_or(i64::MAX));
            let rows = self.driver.query(
                DUE_ENDPOINTS,
                &[
                    Value::Uuid(*after),
                    Value::Bool(*is_slow),
                    Value::Timestamp(now),
                    Value::Timestamp(now.plus(LONGEST)),
                    most,
                ],
            )?;
            let turn = |mut row: Row| {
                let reader = row.optional_uuid(1)?.map(UserId);
                Ok(Turn { endpoint: row.uuid(0)?, holder, reader, is_slow: *is_slow })
            };
            found.endpoints.push(rows.into_iter().map(turn).collect::<Result<_, StoreError>>()?);
        }
        if let Some(mut row) = first(self.driver.query(NEXT_DUE, &[Value::Timestamp(now)])?) {
            let next = [row.optional_timestamp(0)?, row.optional_timestamp(1)?].into_iter().flatten().min();
            let millis = next.map(|next| next.millis().saturating_sub(now.millis()));
            found.next_in = millis.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis);
        }
        Ok(found)
    }

    fn take_turn(&self, turn: &Turn) -> Result<bool, StoreError> {
        let now = self.driver.now(&self.clock)?;
        // In one statement, so that an instance that freezes holds no lock.
        let taken = self.driver.execute(
            "INSERT INTO delivery_leases (receiver, holder, until) VALUES ($1, $2, $3) ON CONFLICT (receiver) \
             DO UPDATE SET holder = excluded.holder, until = excluded.until \
             WHERE delivery_leases.until <= $4 OR delivery_leases.until > $5",
            &[
                Value::Uuid(turn.endpoint),
                Value::Uuid(turn.holder),
                Value::Timestamp(now.plus(TURN)),
                Value::Timestamp(now),
                Value::Timestamp(now.plus(LONGEST)),
            ],
        )?;
        Ok(taken > 0)
    }

    fn due_for(&self, turn: &Turn) -> Result<Vec<Due>, StoreError> {
        let now = self.driver.now(&self.clock)?;
        let rows = self.driver.query(
            concat!(
                "SELECT ",
                due_columns!(),
                " FROM deliveries WHERE channel = 'webhook' AND receiver = $1 AND next_at <= $2 \
                 ORDER BY next_at, place LIMIT 100"
            ),
            &[Value::Uuid(turn.endpoint), Value::Timestamp(now)],
        )?;
        let found = rows.into_iter().map(|mut row| due(&mut row, ChannelKind::Webhook, None));
        let mut found = found.collect::<Result<Vec<_>, _>>()?;
        for Due { delivery, .. } in &mut found {
            if let (None, Some(id)) = (&delivery.body, delivery.event) {
                let told = first(self.driver.query(select!("id = $1"), &[Value::Uuid(id.0)])?);
                // One that a newer version has written cannot be told.
                delivery.body =
                    told.and_then(|row| event(row).ok()).map(|event| body(event, turn.reader)).transpose()?;
            }
        }
        Ok(found)
    }

    fn record_tries(&self, turn: &Turn, tried: &[Tried], then: Then) -> Result<bool, StoreError> {
        self.driver.transaction(|transaction| {
            let now = transaction.now(&self.clock)?;
            let (receiver, holder) = (Value::Uuid(turn.endpoint), Value::Uuid(turn.holder));
            let until = match then {
                Then::GoOn => now.plus(TURN),
                Then::End => now,
                Then::Rest => now.plus(REST),
            };
            // Others may have taken the turn since it ran out.
            let held = transaction.execute(
                "UPDATE delivery_leases SET until = $3 WHERE receiver = $1 AND holder = $2",
                &[receiver.clone(), holder.clone(), Value::Timestamp(until)],
            )?;
            if held == 0 {
                return Ok(false);
            }
            record_outcomes(transaction, tried.iter(), now)?;
            judge(transaction, turn.endpoint, tried, then, now)?;
            if then == Then::End {
                let end = "DELETE FROM delivery_leases WHERE receiver = $1 AND holder = $2";
                transaction.execute(end, &[receiver, holder])?;
            }
            Ok(true)
        })
    }

    fn take_mail(&self, most: usize) -> Result<Vec<Due>, StoreError> {
        self.driver.transaction(|transaction| {
            let now = transaction.now(&self.clock)?;
            let until = now.plus(MAIL_TURN);
            let rows = transaction.query(
                concat!(
                    "SELECT ",
                    due_columns!(),
                    " FROM deliveries WHERE channel = 'mail' AND next_at <= $1 ORDER BY next_at, place LIMIT $2 \
                     FOR UPDATE SKIP LOCKED"
                ),
                &[Value::Timestamp(now), Value::Int(i64::try_from(most).unwrap_or(i64::MAX))],
            )?;
            let mails = rows.into_iter().map(|mut row| due(&mut row, ChannelKind::Mail, Some(until)));
            let mails = mails.collect::<Result<Vec<_>, _>>()?;
            let taken = "WITH given (place, next_at) AS (ROWS) UPDATE deliveries SET next_at = given.next_at FROM given \
                         WHERE deliveries.place = given.place";
            let mut rows = mails.iter().map(|mail| vec![Value::Int(mail.place), Value::Timestamp(until)]);
            transaction.execute_with_rows(taken, &[Column::Int, Column::Timestamp], &mut rows)?;
            Ok(mails)
        })
    }

    fn record_mail(&self, tried: &Tried) -> Result<(), StoreError> {
        self.driver.transaction(|transaction| {
            let now = transaction.now(&self.clock)?;
            record_outcomes(transaction, std::iter::once(tried), now)?;
            let Tried { due: Due { place, until: Some(until), delivery }, outcome, .. } = tried else { return Ok(()) };
            if matches!(outcome, Outcome::Failed { .. } | Outcome::Paused) {
                return Ok(());
            }
            // What was added since it was taken goes out with the next. What happened a little before may be told again.
            let Some(kind) = MailKind::parse(&delivery.kind) else { return Ok(()) };
            transaction.execute(
                "UPDATE deliveries SET count = count - $3, created_at = $4, next_at = $5, tries = 0 \
                 WHERE place = $1 AND next_at = $2 AND count > $3",
                &[
                    Value::Int(*place),
                    Value::Timestamp(*until),
                    Value::Int(i64::try_from(delivery.count).unwrap_or(i64::MAX)),
                    Value::Timestamp(until.minus(MAIL_TURN).minus(STORED_LATE)),
                    Value::Timestamp(now.plus(kind.pause())),
                ],
            )?;
            Ok(())
        })
    }

    fn return_mail(&self, mails: &[Due]) -> Result<(), StoreError> {
        self.driver.transaction(|transaction| {
            // Those that nobody else has taken meanwhile.
            let returned = "WITH given (place, until, next_at) AS (ROWS) UPDATE deliveries SET next_at = given.next_at \
                            FROM given WHERE deliveries.place = given.place AND deliveries.next_at = given.until";
            let mut rows = mails.iter().map(|mail| {
                let until = Value::or_null(mail.until, Value::Timestamp);
                vec![Value::Int(mail.place), until, Value::Timestamp(Timestamp::EPOCH)]
            });
            transaction.execute_with_rows(returned, &[Column::Int, Column::Timestamp, Column::Timestamp], &mut rows)
        })
    }

    fn call_others(&self) -> Result<(), StoreError> {
        self.driver.transaction(|transaction| transaction.notify(CALL))
    }

    fn prune_deliveries(&self, before: Timestamp) -> Result<bool, StoreError> {
        self.driver.transaction(|transaction| {
            let old = "SELECT place FROM deliveries WHERE created_at < $1 ORDER BY created_at, place LIMIT 1000 FOR UPDATE SKIP LOCKED";
            let found = transaction.query(old, &[Value::Timestamp(before)])?;
            delete_places(transaction, places(found)?)
        })
    }

    fn trim_deliveries(&self, from: Uuid, most: i64) -> Result<Option<Uuid>, StoreError> {
        // Counts from the first one of `from` on. The endpoint of the one that exceeds the bound may have too many; those
        // before it have not.
        let beyond = self.driver.query(
            "SELECT receiver FROM deliveries WHERE channel = 'webhook' AND next_at IS NULL AND receiver >= $1 \
             ORDER BY receiver, place LIMIT 1 OFFSET $2",
            &[Value::Uuid(from), Value::Int(most)],
        )?;
        match first(beyond).map(|mut row| row.uuid(0)).transpose()? {
            Some(endpoint) if endpoint == from => Ok(self.trim_endpoint(from, most)?.then_some(from)),
            next => Ok(next),
        }
    }
}

impl<D: Driver> SqlStore<D> {
    /// Deletes some of the endpoint's ended deliveries beyond those that are kept. False: there were none, or they are busy.
    fn trim_endpoint(&self, endpoint: Uuid, most: i64) -> Result<bool, StoreError> {
        let newest = self.driver.query(
            "SELECT place FROM deliveries WHERE channel = 'webhook' AND next_at IS NULL AND receiver = $1 \
             ORDER BY receiver DESC, place DESC LIMIT 1 OFFSET $2",
            &[Value::Uuid(endpoint), Value::Int(most)],
        )?;
        let Some(mut newest) = first(newest) else { return Ok(false) };
        let newest = newest.int(0)?;
        self.driver.transaction(|transaction| {
            // What is locked is being sent again.
            let found = transaction.query(
                "SELECT place FROM deliveries WHERE channel = 'webhook' AND next_at IS NULL AND receiver = $1 \
                 AND place <= $2 ORDER BY receiver, place LIMIT 1000 FOR UPDATE SKIP LOCKED",
                &[Value::Uuid(endpoint), Value::Int(newest)],
            )?;
            delete_places(transaction, places(found)?)
        })
    }
}

fn places(found: Vec<Row>) -> Result<Vec<i64>, StoreError> {
    found.into_iter().map(|mut row| row.int(0)).collect()
}
