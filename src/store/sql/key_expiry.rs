//! The statements that find keys whose owners have to be told of their expiry.

use super::SqlStore;
use super::events::record_all;
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::{KeyId, UserId};
use crate::keys::expiry::{DueKey, next_step};
use crate::store::driver::{Column, Driver, Row, Value};

/// How many keys one transaction tells of.
const PART: usize = 100;

fn due_key(mut row: Row) -> Result<DueKey, StoreError> {
    Ok(DueKey {
        id: KeyId(row.uuid(0)?),
        owner: UserId(row.uuid(1)?),
        expires_at: row.optional_timestamp(2)?,
        is_active: row.bool(3)?,
        is_replaced: row.optional_uuid(4)?.is_some(),
        owner_is_active: row.bool(5)?,
    })
}

impl<D: Driver> SqlStore<D> {
    pub(super) fn tell_of_due_keys(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.driver.transaction(|transaction| {
            // A locked key is being changed, or another instance tells of it.
            let rows = transaction.query(
                "SELECT id, user_id, expires_at, is_active AND revoked_at IS NULL, replaced_by, \
                 (SELECT users.is_active AND deleted_at IS NULL FROM users WHERE users.id = api_keys.user_id) \
                 FROM api_keys WHERE notice_at <= $1 ORDER BY notice_at, id LIMIT $2 FOR UPDATE SKIP LOCKED",
                &[Value::Timestamp(now), Value::Int(PART as i64)],
            )?;
            let keys = rows.into_iter().map(due_key).collect::<Result<Vec<_>, _>>()?;
            let next = |key: &DueKey| {
                vec![Value::Uuid(key.id.0), Value::or_null(next_step(key.expires_at, now), Value::Timestamp)]
            };
            transaction.execute_with_rows(
                "WITH told (id, next) AS (ROWS) UPDATE api_keys SET notice_at = told.next FROM told \
                 WHERE api_keys.id = told.id",
                &[Column::Uuid, Column::Timestamp],
                &mut keys.iter().map(next),
            )?;
            let events: Vec<_> = keys.iter().filter_map(|key| key.event(now)).collect();
            record_all(transaction, &events)?;
            Ok(keys.len() == PART)
        })
    }
}
