//! The statements of endpoints.

use super::events::{record, record_all};
use super::operators::lock_asking;
use super::outbox::delete_some_deliveries;
use super::webhook_rows::{FURTHER, held, holder_value, owner_may, secrets, webhook, webhook_columns};
use super::{SqlStore, sessions};
use crate::audit::event::{Actor, By, Kind};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, StoreError};
use crate::base::id::{DeliveryId, UserId, WebhookId};
use crate::store::driver::{Driver, Row, Transaction, Value, first};
use crate::webhooks::rules;
use crate::webhooks::sent::SentDelivery;
use crate::webhooks::store::WebhookStore;
use crate::webhooks::webhook::{Holder, SealedSecrets, StoredTarget, Webhook, WebhookChange, WebhookRefusal};

/// Locks the row of an active user until the transaction ends. False: there is none, or their session that asks has ended
/// since the guard judged: who knew a password that was just replaced must not have events sent to them.
fn lock_user(transaction: &mut dyn Transaction, user: UserId, by: &By) -> Result<bool, StoreError> {
    let lock = "UPDATE users SET is_active = is_active WHERE id = $1 AND is_active";
    if transaction.execute(lock, &[Value::Uuid(user.0)])? == 0 {
        return Ok(false);
    }
    match by.actor {
        Actor::User { session_id } => sessions::has_not_ended(transaction, session_id, user),
        _ => Ok(true),
    }
}

/// Locks what a holder has, so that counts hold until the transaction ends. False: as for [`lock_user`],
/// and for operators as for [`lock_asking`].
fn lock_holder(transaction: &mut dyn Transaction, holder: Holder, by: &By) -> Result<bool, StoreError> {
    match holder {
        Holder::User(user) => lock_user(transaction, user, by),
        Holder::Operators => {
            if !lock_asking(transaction, by)? {
                return Ok(false);
            }
            transaction.query("SELECT name FROM locks WHERE name = 'webhooks' FOR UPDATE", &[])?;
            Ok(true)
        }
    }
}

/// An endpoint of the holder's, whose row is locked until the transaction ends: what becomes of tries changes it too.
fn held_webhook(
    transaction: &mut dyn Transaction,
    holder: Holder,
    id: WebhookId,
) -> Result<Option<Webhook>, StoreError> {
    let rows = transaction.query(concat!(one!(), " FOR UPDATE"), &[holder_value(holder), Value::Uuid(id.0)])?;
    first(rows).map(|mut row| webhook(&mut row)).transpose()
}

/// Locks the holder and reads one of their endpoints.
fn locked(
    transaction: &mut dyn Transaction,
    holder: Holder,
    id: WebhookId,
    by: &By,
) -> Result<Option<Webhook>, StoreError> {
    if lock_holder(transaction, holder, by)? { held_webhook(transaction, holder, id) } else { Ok(None) }
}

macro_rules! one {
    () => {
        concat!("SELECT ", webhook_columns!(), " FROM webhooks WHERE ", held!(), " AND id = $2")
    };
}
use one;

const ALL_OF_USER: &str = concat!(
    "SELECT ",
    webhook_columns!(),
    " FROM webhooks WHERE user_id = $1 AND NOT is_operators AND deleted_at IS NULL ORDER BY created_at, id"
);

const ALL_OF_OPERATORS: &str = concat!(
    "SELECT ",
    webhook_columns!(),
    " FROM webhooks WHERE is_operators AND deleted_at IS NULL ORDER BY created_at, id"
);

/// The statement that finds all endpoints of a holder, and its parameters. Two statements, because each has its index.
fn all_of(holder: Holder) -> (&'static str, Vec<Value>) {
    match holder {
        Holder::User(user) => (ALL_OF_USER, vec![Value::Uuid(user.0)]),
        Holder::Operators => (ALL_OF_OPERATORS, Vec::new()),
    }
}

/// Deletes an endpoint: nothing of it can be read any more, and nothing new is queued for it. What was queued goes later, in
/// parts.
fn delete(transaction: &mut dyn Transaction, id: WebhookId, now: Timestamp) -> Result<(), StoreError> {
    transaction.execute(
        "UPDATE webhooks SET deleted_at = $2, is_active = $3, url = '', types = NULL, description = NULL, secret = $4, \
         previous_secret = NULL, previous_until = NULL WHERE id = $1",
        &[Value::Uuid(id.0), Value::Timestamp(now), Value::Bool(false), Value::Bytes(Vec::new())],
    )?;
    Ok(())
}

/// Deletes all endpoints that a user has or has made, whose row is locked. `reason`: what takes them away.
pub(super) fn delete_all_of(
    transaction: &mut dyn Transaction,
    user: UserId,
    reason: Kind,
    by: &By,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rows = transaction.query(
        concat!(
            "SELECT ",
            webhook_columns!(),
            " FROM webhooks WHERE user_id = $1 AND deleted_at IS NULL ORDER BY created_at, id"
        ),
        &[Value::Uuid(user.0)],
    )?;
    let mut events = Vec::with_capacity(rows.len());
    for mut row in rows {
        let webhook = webhook(&mut row)?;
        delete(transaction, webhook.id, now)?;
        events.push(rules::event(Kind::WebhookDeleted, &webhook, by, now).with("reason", reason.as_str()));
    }
    record_all(transaction, &events)
}

/// Deletes a part of the rows of the endpoint that `find` gives, and of what was and is to be sent to it. False: there is none.
fn delete_rows(
    transaction: &mut dyn Transaction,
    find: &'static str,
    parameters: &[Value],
) -> Result<bool, StoreError> {
    let Some(mut row) = first(transaction.query(find, parameters)?) else { return Ok(false) };
    let id = row.uuid(0)?;
    if !delete_some_deliveries(transaction, id)? {
        transaction.execute("DELETE FROM webhooks WHERE id = $1", &[Value::Uuid(id)])?;
    }
    Ok(true)
}

/// Deletes a part of the rows of the endpoints of a user who is deleted. False: there were none.
pub(super) fn delete_some_rows_of(transaction: &mut dyn Transaction, user: &[Value]) -> Result<bool, StoreError> {
    delete_rows(transaction, "SELECT id FROM webhooks WHERE user_id = $1 ORDER BY created_at, id LIMIT 1", user)
}

impl<D: Driver> WebhookStore for SqlStore<D> {
    fn create_webhook(
        &self,
        webhook: &Webhook,
        secret: &[u8],
        by: &By,
    ) -> Result<Result<(), WebhookRefusal>, StoreError> {
        let holder = webhook.holder();
        self.driver.transaction(|transaction| {
            if !lock_user(transaction, webhook.owner, by)? || !lock_holder(transaction, holder, by)? {
                return Ok(Err(WebhookRefusal::Gone));
            }
            let (sql, parameters) = all_of(holder);
            if transaction.query(sql, &parameters)?.len() >= holder.most() {
                return Ok(Err(WebhookRefusal::TooMany(holder.most())));
            }
            // Before the endpoint is there, so that it is told only of what comes after it.
            record(transaction, &rules::event(Kind::WebhookCreated, webhook, by, webhook.created_at))?;
            transaction.execute(
                "INSERT INTO webhooks (id, user_id, is_operators, url, types, description, secret, is_active, \
                 created_at, is_slow) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                &[
                    Value::Uuid(webhook.id.0),
                    Value::Uuid(webhook.owner.0),
                    Value::Bool(webhook.is_operators),
                    Value::Text(webhook.url.as_str().to_string()),
                    Value::or_null(webhook.types.as_ref(), |types| Value::Text(types.stored())),
                    Value::or_null(webhook.description.clone(), Value::Text),
                    Value::Bytes(secret.to_vec()),
                    Value::Bool(webhook.is_active),
                    Value::Timestamp(webhook.created_at),
                    Value::Bool(rules::counts_as_slow(webhook)),
                ],
            )?;
            Ok(Ok(()))
        })
    }

    fn webhooks_of(&self, holder: Holder) -> Result<Vec<Webhook>, StoreError> {
        let (sql, parameters) = all_of(holder);
        let rows = self.driver.query(sql, &parameters)?;
        rows.into_iter().map(|mut row| webhook(&mut row)).collect()
    }

    fn webhook(&self, holder: Holder, id: WebhookId) -> Result<Option<Webhook>, StoreError> {
        let rows = self.driver.query(one!(), &[holder_value(holder), Value::Uuid(id.0)])?;
        first(rows).map(|mut row| webhook(&mut row)).transpose()
    }

    fn change_webhook(
        &self,
        holder: Holder,
        id: WebhookId,
        change: &WebhookChange,
        by: &By,
        now: Timestamp,
    ) -> Result<Result<Webhook, WebhookRefusal>, StoreError> {
        self.driver.transaction(|transaction| {
            let Some(old) = locked(transaction, holder, id, by)? else { return Ok(Err(WebhookRefusal::Gone)) };
            let new = rules::change(&old, change);
            transaction.execute(
                "UPDATE webhooks SET url = $2, types = $3, description = $4, is_active = $5, disabled_at = $6, \
                 disabled_reason = $7 WHERE id = $1",
                &[
                    Value::Uuid(id.0),
                    Value::Text(new.url.as_str().to_string()),
                    Value::or_null(new.types.as_ref(), |types| Value::Text(types.stored())),
                    Value::or_null(new.description.clone(), Value::Text),
                    Value::Bool(new.is_active),
                    Value::or_null(new.disabled, |(at, _)| Value::Timestamp(at)),
                    Value::or_null(new.disabled, |(_, reason)| Value::Text(reason.as_str().to_string())),
                ],
            )?;
            if rules::starts_afresh(&old, &new) {
                transaction.execute(
                    "UPDATE webhooks SET failing_since = NULL, is_slow = $2 WHERE id = $1",
                    &[Value::Uuid(id.0), Value::Bool(rules::counts_as_slow(&new))],
                )?;
            }
            if let Some(event) = rules::change_event(&new, change.names(), by, now) {
                record(transaction, &event)?;
            }
            Ok(Ok(new))
        })
    }

    fn delete_webhook(
        &self,
        holder: Holder,
        id: WebhookId,
        by: &By,
        now: Timestamp,
    ) -> Result<Result<(), WebhookRefusal>, StoreError> {
        self.driver.transaction(|transaction| {
            let Some(webhook) = locked(transaction, holder, id, by)? else { return Ok(Err(WebhookRefusal::Gone)) };
            delete(transaction, id, now)?;
            record(transaction, &rules::event(Kind::WebhookDeleted, &webhook, by, now))?;
            Ok(Ok(()))
        })
    }

    fn replace_webhook_secret(
        &self,
        holder: Holder,
        id: WebhookId,
        replace: &dyn Fn(&[u8]) -> Result<SealedSecrets, Error>,
        by: &By,
        now: Timestamp,
    ) -> Result<Result<Webhook, WebhookRefusal>, StoreError> {
        self.driver.transaction(|transaction| {
            if locked(transaction, holder, id, by)?.is_none() {
                return Ok(Err(WebhookRefusal::Gone));
            }
            let rows = transaction.query("SELECT secret FROM webhooks WHERE id = $1", &[Value::Uuid(id.0)])?;
            let Some(old) = first(rows).map(|mut row| row.bytes(0)).transpose()? else {
                return Ok(Err(WebhookRefusal::Gone));
            };
            let new =
                replace(&old).map_err(|error| StoreError::Internal(format!("a secret is not replaced: {error:?}")))?;
            let (previous, until) = match new.previous {
                Some((secret, until)) => (Value::Bytes(secret), Value::Timestamp(until)),
                None => (Value::Null, Value::Null),
            };
            transaction.execute(
                "UPDATE webhooks SET secret = $2, previous_secret = $3, previous_until = $4 WHERE id = $1",
                &[Value::Uuid(id.0), Value::Bytes(new.current), previous, until],
            )?;
            let Some(webhook) = held_webhook(transaction, holder, id)? else { return Ok(Err(WebhookRefusal::Gone)) };
            if let Some(event) = rules::change_event(&webhook, vec!["secret"], by, now) {
                record(transaction, &event)?;
            }
            Ok(Ok(webhook))
        })
    }

    fn queue_test(
        &self,
        holder: Holder,
        id: WebhookId,
        delivery: DeliveryId,
        body: String,
        now: Timestamp,
    ) -> Result<Result<(), WebhookRefusal>, StoreError> {
        self.queue_test_delivery(holder, id, delivery, body, now)
    }

    fn deliveries_to(
        &self,
        holder: Holder,
        id: WebhookId,
        after: Option<DeliveryId>,
        limit: i64,
    ) -> Result<Result<Option<Vec<SentDelivery>>, WebhookRefusal>, StoreError> {
        self.page_of_deliveries(holder, id, after, limit)
    }

    fn resend(
        &self,
        holder: Holder,
        id: WebhookId,
        delivery: DeliveryId,
    ) -> Result<Result<(), WebhookRefusal>, StoreError> {
        self.resend_delivery(holder, id, delivery)
    }

    fn webhook_target(&self, id: WebhookId) -> Result<Option<StoredTarget>, StoreError> {
        let rows = self.driver.query(
            concat!(
                "SELECT ",
                webhook_columns!(),
                ", secret, previous_secret, ",
                owner_may!(),
                " FROM webhooks JOIN users ON users.id = webhooks.user_id \
                 WHERE webhooks.id = $1 AND webhooks.deleted_at IS NULL"
            ),
            &[Value::Uuid(id.0)],
        )?;
        let target = |mut row: Row| {
            let webhook = webhook(&mut row)?;
            let secrets = secrets(&mut row, FURTHER, &webhook)?;
            Ok(StoredTarget { webhook, secrets, owner_may: row.bool(FURTHER + 2)? })
        };
        first(rows).map(target).transpose()
    }

    fn prune_webhooks(&self) -> Result<bool, StoreError> {
        self.driver.transaction(|transaction| {
            let oldest = "SELECT id FROM webhooks WHERE deleted_at IS NOT NULL ORDER BY deleted_at, id LIMIT 1";
            delete_rows(transaction, oldest, &[])
        })
    }
}
