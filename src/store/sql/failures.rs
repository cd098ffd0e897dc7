//! The statements of wrong guesses at passwords.

use super::SqlStore;
use crate::accounts::failures::{FORGOTTEN_AFTER, FailureIds, Failures, InARow, OfAccount};
use crate::accounts::store::FailureStore;
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::store::driver::{Driver, Row, Transaction, Value, first, unexpected};

const FIND: &str = "SELECT (SELECT count FROM failures WHERE id = $1), (SELECT until FROM failures WHERE id = $1), \
    (SELECT over_at FROM account_failures WHERE id = $2)";

// These make the row if there is none, and lock it.
const LOCK_IN_A_ROW: &str = "INSERT INTO failures (id, count, until) VALUES ($1, 0, $2) \
    ON CONFLICT (id) DO UPDATE SET count = failures.count RETURNING count, until";

const LOCK_OF_ACCOUNT: &str = "INSERT INTO account_failures (id, over_at) VALUES ($1, $2) \
    ON CONFLICT (id) DO UPDATE SET over_at = account_failures.over_at RETURNING over_at";

const DELETE: &str = "DELETE FROM failures WHERE id IN (ROWS)";

/// `Err`: nothing came back of a row that is there.
fn locked(transaction: &mut dyn Transaction, sql: &'static str, id: Value, none: Timestamp) -> Result<Row, StoreError> {
    first(transaction.query(sql, &[id, Value::Timestamp(none)])?).ok_or_else(|| unexpected(0))
}

impl<D: Driver> FailureStore for SqlStore<D> {
    fn failures(&self, of: &FailureIds) -> Result<Failures, StoreError> {
        // Read first, so that a wait that begins in between is not over too soon.
        let now = self.driver.now(&self.clock)?;
        let rows = self.driver.query(FIND, &[Value::Uuid(of.at_address), Value::Uuid(of.account)])?;
        let mut row = first(rows).ok_or_else(|| unexpected(0))?;
        let at_address = match (row.optional_int(0)?, row.optional_timestamp(1)?) {
            (Some(count), Some(until)) => InARow { count, until },
            _ => InARow::NONE,
        };
        let of_account = row.optional_timestamp(2)?.map_or(OfAccount::NONE, |over_at| OfAccount { over_at });
        Ok(Failures { now, at_address, of_account })
    }

    fn add_failure(&self, of: &FailureIds) -> Result<Failures, StoreError> {
        let (at_address, account) = (Value::Uuid(of.at_address), Value::Uuid(of.account));
        self.driver.transaction(|transaction| {
            let mut row = locked(transaction, LOCK_IN_A_ROW, at_address.clone(), InARow::NONE.until)?;
            let in_a_row = InARow { count: row.int(0)?, until: row.timestamp(1)? };
            let mut row = locked(transaction, LOCK_OF_ACCOUNT, account.clone(), OfAccount::NONE.over_at)?;
            let of_account = OfAccount { over_at: row.timestamp(0)? };
            // Read with the locks held, so that it is later than every earlier failure.
            let before = Failures { now: transaction.now(&self.clock)?, at_address: in_a_row, of_account };
            if before.wait_at_address().is_some() {
                return Ok(before);
            }
            let after = before.add();
            transaction.execute(
                "UPDATE failures SET count = $2, until = $3 WHERE id = $1",
                &[at_address, Value::Int(after.at_address.count), Value::Timestamp(after.at_address.until)],
            )?;
            transaction.execute(
                "UPDATE account_failures SET over_at = $2 WHERE id = $1",
                &[account, Value::Timestamp(after.of_account.over_at)],
            )?;
            Ok(before)
        })
    }

    fn clear_failures(&self, of: &FailureIds) -> Result<(), StoreError> {
        self.driver.execute("DELETE FROM failures WHERE id = $1", &[Value::Uuid(of.at_address)])?;
        Ok(())
    }

    fn prune_failures(&self, most: i64, now: Timestamp) -> Result<bool, StoreError> {
        const OLDEST: &str =
            "SELECT id FROM failures WHERE until <= $1 ORDER BY until LIMIT 1000 FOR UPDATE SKIP LOCKED";
        let forgotten = self.delete(OLDEST, Value::Timestamp(now.minus(FORGOTTEN_AFTER)), DELETE)?;
        let restored = self.delete(
            "SELECT id FROM account_failures WHERE over_at <= $1 ORDER BY over_at LIMIT 1000 FOR UPDATE SKIP LOCKED",
            Value::Timestamp(now),
            "DELETE FROM account_failures WHERE id IN (ROWS)",
        )?;
        if forgotten || restored {
            return Ok(true);
        }
        let surplus = self
            .driver
            .query("SELECT until FROM failures ORDER BY until DESC LIMIT 1 OFFSET $1", &[Value::Int(most)])?;
        let Some(mut latest) = first(surplus) else { return Ok(false) };
        self.delete(OLDEST, Value::Timestamp(latest.timestamp(0)?), DELETE)
    }
}
