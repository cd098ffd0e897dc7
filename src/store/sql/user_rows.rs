//! How rows are read as users, and the pages of users.

use uuid::Uuid;

use super::SqlStore;
use super::events::record;
use super::key_rows::metadata;
use crate::accounts::user::{User, UserFilter, UserKind};
use crate::audit::event::{By, Event, Kind};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::UserId;
use crate::keys::grants::Grants;
use crate::store::driver::{Driver, Row, Transaction, Value, first, unexpected};

/// The columns that [`user`] reads.
macro_rules! user_columns {
    () => {
        "id, email, name, is_active, created_at, last_login_at, kind, email_verified, scopes, metadata, max_keys, \
         password_hash <> '', needs_verified_email"
    };
}
pub(super) use user_columns;

/// The first column after [`user_columns`].
pub(crate) const FURTHER: usize = 13;

pub(crate) fn user(row: &mut Row) -> Result<User, StoreError> {
    Ok(User {
        id: UserId(row.uuid(0)?),
        email: row.text(1)?,
        name: row.optional_text(2)?,
        is_active: row.bool(3)?,
        created_at: row.timestamp(4)?,
        last_login_at: row.optional_timestamp(5)?,
        kind: UserKind::parse(&row.text(6)?).ok_or_else(|| unexpected(6))?,
        email_verified: row.bool(7)?,
        scopes: Grants::from_stored(row.text(8)?),
        metadata: metadata(row, 9)?,
        max_keys: max_keys(row, 10)?,
        has_password: row.bool(11)?,
        needs_verified_email: row.bool(12)?,
    })
}

/// The user, whose row is locked until the transaction ends.
pub(super) fn locked_user(transaction: &mut dyn Transaction, id: UserId) -> Result<Option<User>, StoreError> {
    let parameters = [Value::Uuid(id.0)];
    // Two statements: after a wait for the lock, only the second sees the row as it then is.
    let lock = "UPDATE users SET is_active = is_active WHERE id = $1 AND deleted_at IS NULL";
    if transaction.execute(lock, &parameters)? == 0 {
        return Ok(None);
    }
    let rows = transaction.query(concat!("SELECT ", user_columns!(), " FROM users WHERE id = $1"), &parameters)?;
    first(rows).map(|mut row| user(&mut row)).transpose()
}

/// The user's e-mail is verified from now on, if it was not yet.
pub(super) fn mark_verified(
    transaction: &mut dyn Transaction,
    user: &User,
    by: &By,
    now: Timestamp,
) -> Result<(), StoreError> {
    if user.email_verified {
        return Ok(());
    }
    let verified = [Value::Uuid(user.id.0), Value::Bool(true)];
    transaction.execute("UPDATE users SET email_verified = $2 WHERE id = $1", &verified)?;
    record(transaction, &Event::new(Kind::EmailVerified, user.id, by, now))
}

/// Whether no older account of anybody else has this e-mail in another spelling. That none has it as it is, the index sees
/// to.
pub(super) fn is_free(transaction: &mut dyn Transaction, email: &str, of: UserId) -> Result<bool, StoreError> {
    let taken = "SELECT id FROM users WHERE normal_email = $1 AND id <> $2 ORDER BY id LIMIT 1";
    Ok(transaction.query(taken, &[Value::Text(email.to_string()), Value::Uuid(of.0)])?.is_empty())
}

/// How many usable keys a user may have, if it was said.
pub(crate) fn max_keys(row: &mut Row, column: usize) -> Result<Option<u32>, StoreError> {
    row.optional_int(column)?.map(|most| u32::try_from(most).map_err(|_| unexpected(column))).transpose()
}

pub(crate) fn max_keys_value(most: Option<u32>) -> Value {
    Value::or_null(most, |most| Value::Int(i64::from(most)))
}

/// The users of a kind who are active, or those who are not, are a group: `user`, `-user`. As one text with the id or the
/// e-mail, so that no other index has this order: by one that has, PostgreSQL may look among all users for the few of a
/// group. The indexes of migration 0012 are written alike.
macro_rules! in_group {
    (id) => {
        "CASE WHEN is_active THEN kind ELSE '-' || kind END || ' ' || CAST(id AS TEXT)"
    };
    (email) => {
        "CASE WHEN is_active THEN kind ELSE '-' || kind END || ' ' || email"
    };
}

/// Users of one group; null stands for none. `$6` and, of e-mails, `$7` say between what.
macro_rules! some {
    (id, $group:literal) => {
        some!(@ id, $group, " > ", " || '!'")
    };
    (email, $group:literal) => {
        some!(@ email, $group, " >= ", " || ' ' || $7")
    };
    (@ $key:ident, $group:literal, $from:literal, $end:literal) => {
        concat!(
            "SELECT * FROM (SELECT ",
            user_columns!(),
            " FROM users WHERE deleted_at IS NULL AND ",
            in_group!($key),
            $from,
            $group,
            " || ' ' || $6 AND ",
            in_group!($key),
            " < ",
            $group,
            $end,
            " ORDER BY ",
            in_group!($key),
            " LIMIT $5) AS part"
        )
    };
}

/// All four together. One statement, so that a user who is turned off meanwhile is neither missed nor found twice.
macro_rules! page {
    ($key:ident) => {
        concat!(
            some!($key, "$1"),
            " UNION ALL ",
            some!($key, "$2"),
            " UNION ALL ",
            some!($key, "$3"),
            " UNION ALL ",
            some!($key, "$4"),
            " ORDER BY ",
            stringify!($key),
            " LIMIT $5"
        )
    };
}

const PAGE_BY_ID: &str = page!(id);

const PAGE_BY_EMAIL: &str = page!(email);

/// Comes after everything that an e-mail can go on with.
const LAST_CHARACTER: char = char::MAX;
/// Comes before it.
const FIRST_CHARACTER: char = '\u{1}';

/// The groups that pass the filter.
fn groups(filter: &UserFilter) -> impl Iterator<Item = Value> {
    let (kind, is_active) = (filter.kind, filter.is_active);
    UserKind::ALL.into_iter().flat_map(move |of_kind| {
        [true, false].map(|active| {
            let passes = kind.is_none_or(|asked| asked == of_kind) && is_active.is_none_or(|asked| asked == active);
            let group = format!("{}{}", if active { "" } else { "-" }, of_kind.as_str());
            Value::or_null(passes.then_some(group), Value::Text)
        })
    })
}

impl<D: Driver> SqlStore<D> {
    /// [`crate::accounts::store::UserStore::users`]
    pub(super) fn page_of_users(
        &self,
        filter: &UserFilter,
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Option<Vec<User>>, StoreError> {
        let mut parameters: Vec<Value> = groups(filter).chain([Value::Int(limit)]).collect();
        let sql = match &filter.email {
            None => {
                parameters.push(Value::Text(after.map_or(Uuid::nil(), |id| id.0).to_string()));
                PAGE_BY_ID
            }
            Some(prefix) => {
                let first = match after.map(|id| self.email_of(id)).transpose()? {
                    None => prefix.clone(),
                    // Addresses before the prefix are none of the list's.
                    Some(Some(email)) => format!("{email}{FIRST_CHARACTER}").max(prefix.clone()),
                    Some(None) => return Ok(None),
                };
                parameters.extend([Value::Text(first), Value::Text(format!("{prefix}{LAST_CHARACTER}"))]);
                PAGE_BY_EMAIL
            }
        };
        self.driver
            .query(sql, &parameters)?
            .into_iter()
            .map(|mut row| self::user(&mut row))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn email_of(&self, id: UserId) -> Result<Option<String>, StoreError> {
        let rows =
            self.driver.query("SELECT email FROM users WHERE id = $1 AND deleted_at IS NULL", &[Value::Uuid(id.0)])?;
        first(rows).map(|mut row| row.text(0)).transpose()
    }
}
