//! The statements of what was and is to be sent to one endpoint.

use super::SqlStore;
use super::webhook_rows::{held, holder_value};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::{DeliveryId, EventId, WebhookId};
use crate::store::driver::{Driver, Row, Transaction, Value, first, unexpected};
use crate::webhooks::sent::{DeliveryState, SentDelivery};
use crate::webhooks::webhook::{Holder, TEST, WebhookRefusal};

const IS_ACTIVE: &str = concat!("SELECT is_active FROM webhooks WHERE ", held!(), " AND id = $2");

fn may_queue(
    transaction: &mut dyn Transaction,
    holder: Holder,
    id: WebhookId,
) -> Result<Result<(), WebhookRefusal>, StoreError> {
    let rows = transaction.query(IS_ACTIVE, &[holder_value(holder), Value::Uuid(id.0)])?;
    Ok(match first(rows).map(|mut row| row.bool(0)).transpose()? {
        None => Err(WebhookRefusal::Gone),
        Some(false) => Err(WebhookRefusal::SwitchedOff),
        Some(true) => Ok(()),
    })
}

fn sent(mut row: Row) -> Result<SentDelivery, StoreError> {
    let created_at = row.timestamp(4)?;
    // What is due at once is stored as due long ago.
    let next_try_at = row.optional_timestamp(6)?.map(|at| at.max(created_at));
    let state = match (next_try_at, row.optional_text(9)?.as_deref()) {
        (Some(_), _) => DeliveryState::Pending,
        (None, Some("delivered")) => DeliveryState::Delivered,
        (None, _) => DeliveryState::Failed,
    };
    Ok(SentDelivery {
        id: DeliveryId(row.uuid(0)?),
        event: row.optional_uuid(1)?.map(EventId),
        kind: row.text(2)?,
        body: row.optional_text(3)?,
        created_at,
        state,
        tries: u32::try_from(row.int(5)?).map_err(|_| unexpected(5))?,
        last_tried_at: row.optional_timestamp(7)?,
        next_try_at,
        status: row.optional_int(8)?.map(|status| u16::try_from(status).map_err(|_| unexpected(8))).transpose()?,
        answer: row.optional_text(10)?,
        reason: row.optional_text(11)?,
    })
}

impl<D: Driver> SqlStore<D> {
    /// [`crate::webhooks::store::WebhookStore::queue_test`]
    pub(super) fn queue_test_delivery(
        &self,
        holder: Holder,
        id: WebhookId,
        delivery: DeliveryId,
        body: String,
        now: Timestamp,
    ) -> Result<Result<(), WebhookRefusal>, StoreError> {
        self.driver.transaction(|transaction| {
            if let Err(refusal) = may_queue(transaction, holder, id)? {
                return Ok(Err(refusal));
            }
            transaction.wake_deliverers()?;
            transaction.execute(
                "INSERT INTO deliveries (id, channel, receiver, kind, body, count, created_at, next_at, tries) \
                 VALUES ($1, 'webhook', $2, $3, $4, 1, $5, $6, 0)",
                &[
                    Value::Uuid(delivery.0),
                    Value::Uuid(id.0),
                    Value::Text(TEST.to_string()),
                    Value::Text(body),
                    Value::Timestamp(now),
                    Value::Timestamp(Timestamp::EPOCH),
                ],
            )?;
            Ok(Ok(()))
        })
    }

    /// [`crate::webhooks::store::WebhookStore::deliveries_to`]
    pub(super) fn page_of_deliveries(
        &self,
        holder: Holder,
        id: WebhookId,
        after: Option<DeliveryId>,
        limit: i64,
    ) -> Result<Result<Option<Vec<SentDelivery>>, WebhookRefusal>, StoreError> {
        let is_held = self.driver.query(IS_ACTIVE, &[holder_value(holder), Value::Uuid(id.0)])?;
        if is_held.is_empty() {
            return Ok(Err(WebhookRefusal::Gone));
        }
        let before = match after {
            None => i64::MAX,
            Some(after) => {
                let place = "SELECT place FROM deliveries WHERE id = $1 AND receiver = $2";
                let rows = self.driver.query(place, &[Value::Uuid(after.0), Value::Uuid(id.0)])?;
                let Some(mut row) = first(rows) else { return Ok(Ok(None)) };
                row.int(0)?
            }
        };
        let rows = self.driver.query(
            "SELECT id, event_id, kind, body, created_at, tries, next_at, tried_at, status, outcome, answer, reason \
             FROM deliveries WHERE receiver = $1 AND place < $2 ORDER BY place DESC LIMIT $3",
            &[Value::Uuid(id.0), Value::Int(before), Value::Int(limit)],
        )?;
        rows.into_iter().map(sent).collect::<Result<_, _>>().map(|found| Ok(Some(found)))
    }

    /// [`crate::webhooks::store::WebhookStore::resend`]
    pub(super) fn resend_delivery(
        &self,
        holder: Holder,
        id: WebhookId,
        delivery: DeliveryId,
    ) -> Result<Result<(), WebhookRefusal>, StoreError> {
        self.driver.transaction(|transaction| {
            if let Err(refusal) = may_queue(transaction, holder, id)? {
                return Ok(Err(refusal));
            }
            transaction.wake_deliverers()?;
            let found = transaction.execute(
                "UPDATE deliveries SET next_at = $3, tries = 0, ended_at = NULL, outcome = NULL \
                 WHERE id = $1 AND receiver = $2",
                &[Value::Uuid(delivery.0), Value::Uuid(id.0), Value::Timestamp(Timestamp::EPOCH)],
            )?;
            Ok(if found == 0 { Err(WebhookRefusal::NoSuchDelivery) } else { Ok(()) })
        })
    }
}
