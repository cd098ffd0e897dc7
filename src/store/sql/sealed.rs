//! The statements of sealed values, whatever they are for. The indexes of migration 0018 are by the same beginnings.

use uuid::Uuid;

use super::SqlStore;
use crate::base::error::StoreError;
use crate::base::sealing::{Renewed, Sealed, SealedStore};
use crate::store::driver::{Driver, Value, first};

/// There is one for each key.
const HEADS: usize = 100;

impl<D: Driver> SealedStore for SqlStore<D> {
    fn heads(&self, of: Sealed) -> Result<Vec<Vec<u8>>, StoreError> {
        let sql = match of {
            Sealed::SecondFactors => {
                "SELECT SUBSTR(secret, 1, 5) FROM second_factors WHERE SUBSTR(secret, 1, 5) > $1 \
                 ORDER BY SUBSTR(secret, 1, 5) LIMIT 1"
            }
            Sealed::Webhooks => {
                "SELECT SUBSTR(secret, 1, 5) FROM webhooks WHERE SUBSTR(secret, 1, 5) > $1 \
                 ORDER BY SUBSTR(secret, 1, 5) LIMIT 1"
            }
        };
        // From each to the next one, along the index.
        let (mut heads, mut last) = (Vec::new(), Vec::new());
        while heads.len() < HEADS {
            let Some(mut row) = first(self.driver.query(sql, &[Value::Bytes(last)])?) else { break };
            last = row.bytes(0)?;
            heads.push(last.clone());
        }
        Ok(heads)
    }

    fn sealed_by(&self, of: Sealed, head: &[u8], after: Uuid, limit: i64) -> Result<Vec<(Uuid, Vec<u8>)>, StoreError> {
        let sql = match of {
            Sealed::SecondFactors => {
                "SELECT user_id, secret FROM second_factors WHERE SUBSTR(secret, 1, 5) = $1 AND user_id > $2 \
                 ORDER BY user_id LIMIT $3"
            }
            Sealed::Webhooks => {
                "SELECT id, secret FROM webhooks WHERE SUBSTR(secret, 1, 5) = $1 AND id > $2 ORDER BY id LIMIT $3"
            }
        };
        let parameters = [Value::Bytes(head.to_vec()), Value::Uuid(after), Value::Int(limit)];
        let rows = self.driver.query(sql, &parameters)?;
        rows.into_iter().map(|mut row| Ok((row.uuid(0)?, row.bytes(1)?))).collect()
    }

    fn replace_sealed(&self, of: Sealed, values: &[Renewed]) -> Result<(), StoreError> {
        let sql = match of {
            Sealed::SecondFactors => "UPDATE second_factors SET secret = $3 WHERE user_id = $1 AND secret = $2",
            Sealed::Webhooks => "UPDATE webhooks SET secret = $3 WHERE id = $1 AND secret = $2",
        };
        self.driver.transaction(|transaction| {
            for Renewed { row, old, new } in values {
                let parameters = [Value::Uuid(*row), Value::Bytes(old.clone()), Value::Bytes(new.clone())];
                transaction.execute(sql, &parameters)?;
            }
            Ok(())
        })
    }
}
