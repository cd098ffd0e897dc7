//! Every statement and every row's mapping, once, over a thin [`Driver`].
//!
//! Statements use `$1…$n` and only what both databases understand. No driver's type appears here, and no statement
//! anywhere else.

use uuid::Uuid;

use super::migrate::Migration;
use super::{Created, Opened, Rotated, Store, StoreError};
use crate::clock::Timestamp;
use crate::id::{KeyId, SessionId, UserId};
use crate::key::{ApiKey, KeyHash, KnownKey};
use crate::password::PasswordHash;
use crate::session::{LiveSession, NewSession};
use crate::user::{Email, User};

/// A parameter of a statement or a column of a row.
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    Uuid(Uuid),
    Timestamp(Timestamp),
}

impl Value {
    fn or_null<T>(value: Option<T>, some: impl FnOnce(T) -> Value) -> Value {
        value.map_or(Value::Null, some)
    }
}

/// One row. A database without a type of its own for an id, a time or a truth value gives them as text and numbers.
pub struct Row(pub Vec<Value>);

impl Row {
    pub fn text(&mut self, column: usize) -> Result<String, StoreError> {
        self.optional_text(column)?.ok_or_else(|| unexpected(column))
    }

    fn optional_text(&mut self, column: usize) -> Result<Option<String>, StoreError> {
        match self.take(column) {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            _ => Err(unexpected(column)),
        }
    }

    pub fn int(&mut self, column: usize) -> Result<i64, StoreError> {
        match self.take(column) {
            Value::Int(number) => Ok(number),
            _ => Err(unexpected(column)),
        }
    }

    fn bool(&mut self, column: usize) -> Result<bool, StoreError> {
        match self.take(column) {
            Value::Bool(truth) => Ok(truth),
            Value::Int(number) => Ok(number != 0),
            _ => Err(unexpected(column)),
        }
    }

    fn uuid(&mut self, column: usize) -> Result<Uuid, StoreError> {
        match self.take(column) {
            Value::Uuid(uuid) => Ok(uuid),
            Value::Text(text) => Uuid::try_parse(&text).map_err(|_| unexpected(column)),
            _ => Err(unexpected(column)),
        }
    }

    fn timestamp(&mut self, column: usize) -> Result<Timestamp, StoreError> {
        self.optional_timestamp(column)?.ok_or_else(|| unexpected(column))
    }

    fn optional_timestamp(&mut self, column: usize) -> Result<Option<Timestamp>, StoreError> {
        match self.take(column) {
            Value::Null => Ok(None),
            Value::Timestamp(timestamp) => Ok(Some(timestamp)),
            Value::Text(text) => Timestamp::parse(&text).map(Some).ok_or_else(|| unexpected(column)),
            _ => Err(unexpected(column)),
        }
    }

    fn take(&mut self, column: usize) -> Value {
        self.0.get_mut(column).map_or(Value::Null, |value| std::mem::replace(value, Value::Null))
    }
}

fn unexpected(column: usize) -> StoreError {
    StoreError::Internal(format!("column {column} of a row is not what the schema says"))
}

/// Statements inside one transaction.
pub trait Transaction {
    fn query(&mut self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError>;

    /// The number of rows that were changed.
    fn execute(&mut self, sql: &'static str, parameters: &[Value]) -> Result<u64, StoreError>;

    /// Runs a script of statements without parameters.
    fn script(&mut self, sql: &str) -> Result<(), StoreError>;
}

/// A database, as far as the two differ.
pub trait Driver: Send + Sync {
    /// This database's migrations, in order.
    const MIGRATIONS: &'static [Migration];
    /// Names the one table `$1`, if it exists.
    const FIND_TABLE: &'static str;
    /// Held until the transaction ends, so that only one instance migrates.
    const LOCK_SCHEMA: Option<&'static str>;

    /// Reads with one statement. Tried again on a fresh connection when the one at hand turns out to be dead.
    fn query(&self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError>;

    /// Writes with one statement; the number of rows that were changed.
    fn execute(&self, sql: &'static str, parameters: &[Value]) -> Result<u64, StoreError>;

    /// Commits when `work` returns `Ok`, leaves no trace when it does not.
    fn transaction<T>(&self, work: impl FnOnce(&mut dyn Transaction) -> Result<T, StoreError>)
    -> Result<T, StoreError>;
}

/// The store, over any driver.
pub struct SqlStore<D> {
    driver: D,
}

impl<D: Driver> SqlStore<D> {
    pub fn new(driver: D) -> SqlStore<D> {
        SqlStore { driver }
    }
}

const INSERT_SESSION: &str = "INSERT INTO sessions \
    (id, user_id, generation, created_at, expires_at, ip, user_agent) VALUES ($1, $2, $3, $4, $5, $6, $7)";

const END_SESSIONS_OF_USER: &str =
    "UPDATE sessions SET ended_at = $2, end_reason = $3 WHERE user_id = $1 AND ended_at IS NULL";

fn insert_session(transaction: &mut dyn Transaction, session: &NewSession) -> Result<(), StoreError> {
    transaction.execute(
        INSERT_SESSION,
        &[
            Value::Uuid(session.id.0),
            Value::Uuid(session.user.0),
            Value::Int(session.generation),
            Value::Timestamp(session.created_at),
            Value::Timestamp(session.expires_at),
            Value::Text(session.ip.clone()),
            Value::or_null(session.user_agent.clone(), Value::Text),
        ],
    )?;
    Ok(())
}

/// Columns: id, email, name, is_active, created_at.
fn user(row: &mut Row) -> Result<User, StoreError> {
    Ok(User {
        id: UserId(row.uuid(0)?),
        email: row.text(1)?,
        name: row.optional_text(2)?,
        is_active: row.bool(3)?,
        created_at: row.timestamp(4)?,
    })
}

/// Columns: id, user_id, name, hint, is_active, expires_at, last_used_at, created_at.
fn api_key(mut row: Row) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        id: KeyId(row.uuid(0)?),
        owner: UserId(row.uuid(1)?),
        name: row.text(2)?,
        hint: row.text(3)?,
        is_active: row.bool(4)?,
        expires_at: row.optional_timestamp(5)?,
        last_used_at: row.optional_timestamp(6)?,
        created_at: row.timestamp(7)?,
    })
}

fn first(rows: Vec<Row>) -> Option<Row> {
    rows.into_iter().next()
}

impl<D: Driver> Store for SqlStore<D> {
    fn create_user(
        &self,
        user: &User,
        password: &PasswordHash,
        session: Option<&NewSession>,
    ) -> Result<Created, StoreError> {
        let outcome = self.driver.transaction(|transaction| {
            transaction.execute(
                "INSERT INTO users (id, email, name, password_hash, is_active, created_at) \
                 VALUES ($1, $2, $3, $4, $5, $6)",
                &[
                    Value::Uuid(user.id.0),
                    Value::Text(user.email.clone()),
                    Value::or_null(user.name.clone(), Value::Text),
                    Value::Text(password.as_str().to_string()),
                    Value::Bool(user.is_active),
                    Value::Timestamp(user.created_at),
                ],
            )?;
            session.map_or(Ok(()), |session| insert_session(transaction, session))
        });
        match outcome {
            Ok(()) => Ok(Created::Done),
            Err(StoreError::Conflict(_)) => Ok(Created::EmailTaken),
            Err(error) => Err(error),
        }
    }

    fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let rows = self
            .driver
            .query("SELECT id, email, name, is_active, created_at FROM users WHERE id = $1", &[Value::Uuid(id.0)])?;
        first(rows).map(|mut row| user(&mut row)).transpose()
    }

    fn user_by_email(&self, email: &Email) -> Result<Option<(User, PasswordHash)>, StoreError> {
        let rows = self.driver.query(
            "SELECT id, email, name, is_active, created_at, password_hash FROM users WHERE email = $1",
            &[Value::Text(email.as_str().to_string())],
        )?;
        first(rows).map(|mut row| Ok((user(&mut row)?, PasswordHash::from_stored(row.text(5)?)))).transpose()
    }

    fn users(&self, after: Option<UserId>, limit: i64) -> Result<Vec<User>, StoreError> {
        let after = after.map_or(Uuid::nil(), |id| id.0);
        let rows = self.driver.query(
            "SELECT id, email, name, is_active, created_at FROM users WHERE id > $1 ORDER BY id LIMIT $2",
            &[Value::Uuid(after), Value::Int(limit)],
        )?;
        rows.into_iter().map(|mut row| user(&mut row)).collect()
    }

    fn set_user_active(&self, id: UserId, active: bool, now: Timestamp) -> Result<bool, StoreError> {
        self.driver.transaction(|transaction| {
            let changed = transaction
                .execute("UPDATE users SET is_active = $2 WHERE id = $1", &[Value::Uuid(id.0), Value::Bool(active)])?;
            if !active {
                let reason = Value::Text("deactivated".to_string());
                transaction.execute(END_SESSIONS_OF_USER, &[Value::Uuid(id.0), Value::Timestamp(now), reason])?;
            }
            Ok(changed > 0)
        })
    }

    fn set_password(&self, id: UserId, password: &PasswordHash, now: Timestamp) -> Result<bool, StoreError> {
        self.driver.transaction(|transaction| {
            let changed = transaction.execute(
                "UPDATE users SET password_hash = $2 WHERE id = $1",
                &[Value::Uuid(id.0), Value::Text(password.as_str().to_string())],
            )?;
            let reason = Value::Text("password".to_string());
            transaction.execute(END_SESSIONS_OF_USER, &[Value::Uuid(id.0), Value::Timestamp(now), reason])?;
            Ok(changed > 0)
        })
    }

    fn delete_user(&self, id: UserId) -> Result<bool, StoreError> {
        Ok(self.driver.execute("DELETE FROM users WHERE id = $1", &[Value::Uuid(id.0)])? > 0)
    }

    fn open_session(&self, session: &NewSession, password: &PasswordHash) -> Result<Opened, StoreError> {
        self.driver.transaction(|transaction| {
            // Locks the user's row: a deactivation or a new password at the same time comes before, and is seen
            // here, or after, and ends this session.
            let unchanged = transaction.execute(
                "UPDATE users SET last_login_at = $2 WHERE id = $1 AND is_active AND password_hash = $3",
                &[
                    Value::Uuid(session.user.0),
                    Value::Timestamp(session.created_at),
                    Value::Text(password.as_str().to_string()),
                ],
            )?;
            if unchanged == 0 {
                return Ok(Opened::UserChanged);
            }
            insert_session(transaction, session)?;
            Ok(Opened::Done)
        })
    }

    fn live_session(&self, id: SessionId, now: Timestamp) -> Result<Option<LiveSession>, StoreError> {
        let rows = self.driver.query(
            "SELECT users.id, users.email FROM sessions JOIN users ON users.id = sessions.user_id \
             WHERE sessions.id = $1 AND sessions.ended_at IS NULL AND sessions.expires_at > $2 AND users.is_active",
            &[Value::Uuid(id.0), Value::Timestamp(now)],
        )?;
        first(rows).map(|mut row| Ok(LiveSession { user: UserId(row.uuid(0)?), email: row.text(1)? })).transpose()
    }

    fn rotate_session(
        &self,
        id: SessionId,
        generation: i64,
        now: Timestamp,
        grace_from: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Rotated, StoreError> {
        self.driver.transaction(|transaction| {
            transaction.execute(
                "UPDATE sessions SET generation = generation + 1, rotated_at = $3, expires_at = $4 \
                 WHERE id = $1 AND generation = $2 AND ended_at IS NULL AND expires_at > $3 \
                 AND EXISTS (SELECT 1 FROM users WHERE users.id = sessions.user_id AND users.is_active)",
                &[Value::Uuid(id.0), Value::Int(generation), Value::Timestamp(now), Value::Timestamp(expires_at)],
            )?;
            let rows = transaction.query(
                "SELECT users.id, users.email, sessions.generation, sessions.rotated_at \
                 FROM sessions JOIN users ON users.id = sessions.user_id \
                 WHERE sessions.id = $1 AND sessions.ended_at IS NULL AND sessions.expires_at > $2 \
                 AND users.is_active",
                &[Value::Uuid(id.0), Value::Timestamp(now)],
            )?;
            let Some(mut row) = first(rows) else { return Ok(Rotated::Gone) };
            let session = LiveSession { user: UserId(row.uuid(0)?), email: row.text(1)? };
            let current = row.int(2)?;
            let rotated_at = row.optional_timestamp(3)?;
            if current <= generation {
                return Ok(Rotated::Gone);
            }
            // Moved just now, here or by someone else with the same token.
            if current == generation + 1 && rotated_at.is_some_and(|at| at >= grace_from) {
                return Ok(Rotated::At { generation: current, session });
            }
            transaction.execute(
                "UPDATE sessions SET ended_at = $2, end_reason = $3 WHERE id = $1 AND ended_at IS NULL",
                &[Value::Uuid(id.0), Value::Timestamp(now), Value::Text("reuse".to_string())],
            )?;
            Ok(Rotated::Reused)
        })
    }

    fn end_session(&self, id: SessionId, now: Timestamp) -> Result<(), StoreError> {
        self.driver.execute(
            "UPDATE sessions SET ended_at = $2, end_reason = $3 WHERE id = $1 AND ended_at IS NULL",
            &[Value::Uuid(id.0), Value::Timestamp(now), Value::Text("logout".to_string())],
        )?;
        Ok(())
    }

    fn prune_sessions(&self, now: Timestamp) -> Result<(), StoreError> {
        self.driver.execute("DELETE FROM sessions WHERE expires_at <= $1", &[Value::Timestamp(now)])?;
        Ok(())
    }

    fn create_key(&self, key: &ApiKey, hash: &KeyHash) -> Result<(), StoreError> {
        self.driver.execute(
            "INSERT INTO api_keys (id, user_id, hash, hint, name, is_active, expires_at, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            &[
                Value::Uuid(key.id.0),
                Value::Uuid(key.owner.0),
                Value::Bytes(hash.as_bytes().to_vec()),
                Value::Text(key.hint.clone()),
                Value::Text(key.name.clone()),
                Value::Bool(key.is_active),
                Value::or_null(key.expires_at, Value::Timestamp),
                Value::Timestamp(key.created_at),
            ],
        )?;
        Ok(())
    }

    fn keys_of(&self, owner: UserId) -> Result<Vec<ApiKey>, StoreError> {
        let rows = self.driver.query(
            "SELECT id, user_id, name, hint, is_active, expires_at, last_used_at, created_at FROM api_keys \
             WHERE user_id = $1 ORDER BY created_at DESC, id DESC",
            &[Value::Uuid(owner.0)],
        )?;
        rows.into_iter().map(api_key).collect()
    }

    fn keys(&self, owner: Option<UserId>, after: Option<KeyId>, limit: i64) -> Result<Vec<ApiKey>, StoreError> {
        let rows = self.driver.query(
            "SELECT id, user_id, name, hint, is_active, expires_at, last_used_at, created_at FROM api_keys \
             WHERE id > $1 AND (user_id = $2 OR $2 IS NULL) ORDER BY id LIMIT $3",
            &[
                Value::Uuid(after.map_or(Uuid::nil(), |id| id.0)),
                Value::or_null(owner, |owner| Value::Uuid(owner.0)),
                Value::Int(limit),
            ],
        )?;
        rows.into_iter().map(api_key).collect()
    }

    fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<KnownKey>, StoreError> {
        let rows = self.driver.query(
            "SELECT api_keys.id, users.id, users.email, api_keys.is_active, users.is_active, api_keys.expires_at \
             FROM api_keys JOIN users ON users.id = api_keys.user_id WHERE api_keys.hash = $1",
            &[Value::Bytes(hash.as_bytes().to_vec())],
        )?;
        let known = |mut row: Row| {
            Ok(KnownKey {
                id: KeyId(row.uuid(0)?),
                owner: UserId(row.uuid(1)?),
                email: row.text(2)?,
                is_active: row.bool(3)?,
                owner_is_active: row.bool(4)?,
                expires_at: row.optional_timestamp(5)?,
            })
        };
        first(rows).map(known).transpose()
    }

    fn revoke_key(&self, id: KeyId, owner: Option<UserId>, now: Timestamp) -> Result<bool, StoreError> {
        let found = self.driver.execute(
            "UPDATE api_keys SET is_active = $4, revoked_at = COALESCE(revoked_at, $3) \
             WHERE id = $1 AND (user_id = $2 OR $2 IS NULL)",
            &[
                Value::Uuid(id.0),
                Value::or_null(owner, |owner| Value::Uuid(owner.0)),
                Value::Timestamp(now),
                Value::Bool(false),
            ],
        )?;
        Ok(found > 0)
    }

    fn record_uses(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        self.driver.transaction(|transaction| {
            for (key, at) in uses {
                transaction.execute(
                    "UPDATE api_keys SET last_used_at = $2 \
                     WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
                    &[Value::Uuid(key.0), Value::Timestamp(*at)],
                )?;
            }
            Ok(())
        })
    }
}
