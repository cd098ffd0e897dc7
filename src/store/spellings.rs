//! What migration 0011 does beside its SQL: it notes which accounts are stored under another spelling of their e-mail
//! than new ones are.

use log::warn;
use uuid::Uuid;

use super::driver::{Column, Transaction, Value};
use crate::accounts::email::Email;
use crate::base::error::StoreError;

pub(crate) const MIGRATION: i64 = 11;

/// How many users are read at once.
const PART: usize = 1000;

/// How many users the warning names.
const NAMED: i64 = 20;

/// Only a domain in Punycode and letters outside ASCII can be spelled in several ways.
const SPELLED: &str = "SELECT id, email FROM users \
    WHERE id > $1 AND (email LIKE '%xn--%' OR OCTET_LENGTH(email) > LENGTH(email)) \
    ORDER BY id LIMIT $2";

const NOTE: &str = "WITH noted (id, email) AS (ROWS) \
    UPDATE users SET normal_email = noted.email FROM noted WHERE users.id = noted.id";

/// Accounts stored otherwise that share their e-mail, and those stored as new ones are that share it with them.
macro_rules! shared {
    () => {
        "(SELECT id, normal_email AS address FROM users AS one WHERE normal_email IS NOT NULL \
            AND (EXISTS (SELECT 1 FROM users WHERE email = one.normal_email) \
            OR EXISTS (SELECT 1 FROM users AS other WHERE other.normal_email = one.normal_email AND other.id <> one.id)) \
        UNION ALL SELECT id, email FROM users \
            WHERE email IN (SELECT normal_email FROM users WHERE normal_email IS NOT NULL)) AS shared"
    };
}

const COUNT_SHARED: &str = concat!("SELECT COUNT(*) FROM ", shared!());

const FIRST_SHARED: &str = concat!("SELECT id FROM ", shared!(), " ORDER BY address, id LIMIT $1");

/// Warns if accounts have the same e-mail. If the transaction fails, the next attempt warns again, so the warning is
/// never lost.
pub(crate) fn note(transaction: &mut dyn Transaction) -> Result<(), StoreError> {
    let mut after = Uuid::nil();
    loop {
        let rows = transaction.query(SPELLED, &[Value::Uuid(after), Value::Int(PART as i64)])?;
        let mut noted = Vec::new();
        let count = rows.len();
        for mut row in rows {
            let (id, stored) = (row.uuid(0)?, row.text(1)?);
            after = id;
            if let Ok(email) = Email::parse(&stored)
                && email.as_str() != stored
            {
                noted.push(vec![Value::Uuid(id), Value::Text(email.to_string())]);
            }
        }
        transaction.execute_with_rows(NOTE, &[Column::Uuid, Column::Text], &mut noted.into_iter())?;
        if count < PART {
            break;
        }
    }
    let shared = transaction.query(COUNT_SHARED, &[])?.pop().map_or(Ok(0), |mut row| row.int(0))?;
    if shared > 0 {
        let first = transaction.query(FIRST_SHARED, &[Value::Int(NAMED)])?;
        let first = first.into_iter().map(|mut row| Ok(row.uuid(0)?.to_string()));
        let first = first.collect::<Result<Vec<_>, StoreError>>()?.join(", ");
        let more = if shared > NAMED { ", …" } else { "" };
        warn!(
            "{shared} accounts have an e-mail that is also another account's, in another spelling: {first}{more}. They \
             stay separate, and each logs in under its own spelling; `keyward user list --same-email` lists them"
        );
    }
    Ok(())
}
