//! How rows are read as users, and the pages of users.

use uuid::Uuid;

use super::SqlStore;
use super::key_rows::metadata;
use crate::accounts::user::{User, UserFilter, UserKind};
use crate::base::error::StoreError;
use crate::base::id::UserId;
use crate::keys::grants::Grants;
use crate::store::driver::{Driver, Row, Transaction, Value, first, unexpected};

/// The columns that [`user`] reads.
macro_rules! user_columns {
    () => {
        "id, email, name, is_active, created_at, last_login_at, kind, email_verified, scopes, metadata, max_keys, \
         password_hash <> ''"
    };
}
pub(super) use user_columns;

/// The first column after [`user_columns`].
pub(crate) const FURTHER: usize = 12;

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

/// How many usable keys a user may have, if it was said.
pub(crate) fn max_keys(row: &mut Row, column: usize) -> Result<Option<u32>, StoreError> {
    row.optional_int(column)?.map(|most| u32::try_from(most).map_err(|_| unexpected(column))).transpose()
}

pub(crate) fn max_keys_value(most: Option<u32>) -> Value {
    Value::or_null(most, |most| Value::Int(i64::from(most)))
}

/// Users of one kind, active or not, in the order of an index. `$1` and `$2` are kinds, `$3` and `$4` say whether they
/// are active; null stands for none.
macro_rules! some {
    ($kind:literal, $active:literal, $rest:literal) => {
        concat!(
            "SELECT * FROM (SELECT ",
            user_columns!(),
            " FROM users WHERE deleted_at IS NULL AND kind = ",
            $kind,
            " AND is_active = ",
            $active,
            " AND ",
            $rest,
            ") AS part"
        )
    };
}

/// All four together. One statement, so that a user who is turned off meanwhile is neither missed nor found twice.
macro_rules! page {
    ($rest:literal, $order:literal) => {
        concat!(
            some!("$1", "$3", $rest),
            " UNION ALL ",
            some!("$1", "$4", $rest),
            " UNION ALL ",
            some!("$2", "$3", $rest),
            " UNION ALL ",
            some!("$2", "$4", $rest),
            $order
        )
    };
}

const PAGE_BY_ID: &str = page!("id > $6 ORDER BY id LIMIT $5", " ORDER BY id LIMIT $5");

const PAGE_BY_EMAIL: &str = page!("email >= $6 AND email < $7 ORDER BY email LIMIT $5", " ORDER BY email LIMIT $5");

/// Comes after everything that an e-mail can go on with.
const LAST_CHARACTER: char = char::MAX;
/// Comes before it.
const FIRST_CHARACTER: char = '\u{1}';

impl<D: Driver> SqlStore<D> {
    /// [`crate::accounts::store::UserStore::users`]
    pub(super) fn page_of_users(
        &self,
        filter: &UserFilter,
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Option<Vec<User>>, StoreError> {
        let [user, service] = UserKind::ALL.map(|kind| {
            Value::or_null(Some(kind).filter(|kind| filter.kind.is_none_or(|asked| asked == *kind)), |kind| {
                Value::Text(kind.as_str().to_string())
            })
        });
        let [active, inactive] = [true, false].map(|active| {
            Value::or_null(
                Some(active).filter(|active| filter.is_active.is_none_or(|asked| asked == *active)),
                Value::Bool,
            )
        });
        let mut parameters = vec![user, service, active, inactive, Value::Int(limit)];
        let sql = match &filter.email {
            None => {
                parameters.push(Value::Uuid(after.map_or(Uuid::nil(), |id| id.0)));
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
