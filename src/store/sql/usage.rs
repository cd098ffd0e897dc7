//! The statements of the use of keys.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::SqlStore;
use super::statistics::{self, Counted, Figures, hour, start_of};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::{KeyId, UserId};
use crate::keys::store::UsageStore;
use crate::keys::usage::{HourOfUse, Outcome};
use crate::store::driver::{Column, Driver, Value, first};

pub(crate) const DELETE_HOURS: &str = "DELETE FROM key_hours WHERE (key_id, hour) IN (ROWS)";

impl<D: Driver> UsageStore for SqlStore<D> {
    fn record_uses(&self, uses: &[(KeyId, HourOfUse)]) -> Result<(), StoreError> {
        let row = |(key, noted): &(KeyId, HourOfUse)| {
            let count = |outcome| Value::Int(i64::try_from(noted.counts.of(outcome)).unwrap_or(i64::MAX));
            vec![
                Value::Uuid(key.0),
                hour(noted.hour),
                count(Outcome::Allowed),
                count(Outcome::Disabled),
                count(Outcome::Expired),
                count(Outcome::ForbiddenAddress),
                count(Outcome::InsufficientScope),
                count(Outcome::RateLimited),
                Value::or_null(noted.last_allowed, Value::Timestamp),
            ]
        };
        let mut figures = Figures::new();
        for (_, noted) in uses {
            for outcome in Outcome::ALL {
                *figures.entry((noted.hour, Counted::Use(outcome))).or_default() += noted.counts.of(outcome);
            }
        }
        self.driver.transaction(|transaction| {
            transaction.execute_with_rows(
                // The key may have been deleted meanwhile. Its counts are seen by nobody and deleted with the old ones;
                // checking for the key would cost more than all the rest.
                "INSERT INTO key_hours \
                 (key_id, hour, allowed, disabled, expired, forbidden_address, insufficient_scope, rate_limited, \
                 last_allowed_at) ROWS \
                 ON CONFLICT (key_id, hour) DO UPDATE SET \
                 allowed = key_hours.allowed + excluded.allowed, \
                 disabled = key_hours.disabled + excluded.disabled, \
                 expired = key_hours.expired + excluded.expired, \
                 forbidden_address = key_hours.forbidden_address + excluded.forbidden_address, \
                 insufficient_scope = key_hours.insufficient_scope + excluded.insufficient_scope, \
                 rate_limited = key_hours.rate_limited + excluded.rate_limited, \
                 last_allowed_at = CASE WHEN key_hours.last_allowed_at IS NULL \
                 OR excluded.last_allowed_at > key_hours.last_allowed_at \
                 THEN excluded.last_allowed_at ELSE key_hours.last_allowed_at END",
                &[
                    Column::Uuid,
                    Column::Int,
                    Column::Int,
                    Column::Int,
                    Column::Int,
                    Column::Int,
                    Column::Int,
                    Column::Int,
                    Column::Timestamp,
                ],
                &mut uses.iter().map(row),
            )?;
            statistics::add(transaction, &figures)
        })
    }

    fn usage_of(
        &self,
        owner: UserId,
        key: KeyId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Vec<HourOfUse>>, StoreError> {
        // The join gives a row for the key even if nothing was counted.
        let rows = self.driver.query(
            "SELECT hour, allowed, disabled, expired, insufficient_scope, rate_limited, forbidden_address \
             FROM api_keys LEFT JOIN key_hours ON key_hours.key_id = api_keys.id AND hour >= $3 AND hour <= $4 \
             WHERE id = $1 AND user_id = $2",
            &[Value::Uuid(key.0), Value::Uuid(owner.0), hour(from), hour(to)],
        )?;
        if rows.is_empty() {
            return Ok(None);
        }
        let mut hours = Vec::new();
        for mut row in rows {
            let Some(number) = row.optional_int(0)? else { continue };
            let mut noted = HourOfUse::new(start_of(number)?);
            for (column, outcome) in [
                (1, Outcome::Allowed),
                (2, Outcome::Disabled),
                (3, Outcome::Expired),
                (4, Outcome::InsufficientScope),
                (5, Outcome::RateLimited),
                (6, Outcome::ForbiddenAddress),
            ] {
                noted.counts.add(outcome, u64::try_from(row.int(column)?).unwrap_or(0));
            }
            hours.push(noted);
        }
        Ok(Some(hours))
    }

    fn prune_usage(&self, before: Timestamp) -> Result<bool, StoreError> {
        self.driver.transaction(|transaction| {
            let rows = transaction.query(
                "SELECT key_id, hour, last_allowed_at FROM key_hours WHERE hour < $1 ORDER BY hour LIMIT 1000",
                &[hour(before)],
            )?;
            let mut old = Vec::with_capacity(rows.len());
            let mut last_uses: BTreeMap<Uuid, Timestamp> = BTreeMap::new();
            for mut row in rows {
                let (key, hour, at) = (row.uuid(0)?, row.int(1)?, row.optional_timestamp(2)?);
                if let Some(at) = at {
                    let known = last_uses.entry(key).or_insert(at);
                    *known = at.max(*known);
                }
                old.push(vec![Value::Uuid(key), Value::Int(hour)]);
            }
            let any = !old.is_empty();
            transaction.execute_with_rows(DELETE_HOURS, &[Column::Uuid, Column::Int], &mut old.into_iter())?;
            transaction.execute_with_rows(
                "WITH noted (key_id, at) AS (ROWS) INSERT INTO key_last_use (key_id, at) SELECT key_id, at \
                 FROM noted WHERE EXISTS (SELECT 1 FROM api_keys WHERE api_keys.id = noted.key_id) \
                 ON CONFLICT (key_id) DO UPDATE SET at = excluded.at WHERE key_last_use.at < excluded.at",
                &[Column::Uuid, Column::Timestamp],
                &mut last_uses.into_iter().map(|(key, at)| vec![Value::Uuid(key), Value::Timestamp(at)]),
            )?;
            Ok(any)
        })
    }
}

impl<D: Driver> SqlStore<D> {
    /// The latest hour with a count.
    pub(crate) fn latest_use(&self) -> Result<Option<Timestamp>, StoreError> {
        let rows = self.driver.query("SELECT hour FROM key_hours ORDER BY hour DESC LIMIT 1", &[])?;
        first(rows).map(|mut row| start_of(row.int(0)?)).transpose()
    }
}
