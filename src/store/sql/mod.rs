//! Every statement and every row's mapping, once, over a thin [`Driver`].
//!
//! Statements use `$1…$n` and only what both databases understand. No driver's type appears here, and no statement
//! anywhere but here and below: [`keys`] has those of keys and of their use, [`sessions`] those of sessions, [`events`]
//! those of the audit trail.

mod events;
mod keys;
mod sessions;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use log::{info, warn};
use uuid::Uuid;

use self::events::record;
use super::migrate::Migration;
use super::{Created, Opened, Rotated, Store};
use crate::accounts::email::Email;
use crate::accounts::passwords::PasswordHash;
use crate::accounts::rotation::RotationRules;
use crate::accounts::session::{Lifespan, LiveSession, NewSession, Session};
use crate::accounts::user::User;
use crate::audit::event::{By, Event, Filter, Kind, Subject};
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::{Error, StoreError};
use crate::base::id::{EventId, KeyId, SessionId, UserId};
use crate::keys::key::{ApiKey, KeyChange, KeyDraft, KeyHash, KeyRefusal, KnownKey};
use crate::keys::usage::HourOfUse;
use crate::memory::changes::{Change, Changes};

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
    /// Values of one type, for `= ANY($1)`, as the first parameter of a query.
    List(Vec<Value>),
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
        self.optional_int(column)?.ok_or_else(|| unexpected(column))
    }

    fn optional_int(&mut self, column: usize) -> Result<Option<i64>, StoreError> {
        match self.take(column) {
            Value::Null => Ok(None),
            Value::Int(number) => Ok(Some(number)),
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

    fn bytes(&mut self, column: usize) -> Result<Vec<u8>, StoreError> {
        match self.take(column) {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(unexpected(column)),
        }
    }

    fn uuid(&mut self, column: usize) -> Result<Uuid, StoreError> {
        self.optional_uuid(column)?.ok_or_else(|| unexpected(column))
    }

    fn optional_uuid(&mut self, column: usize) -> Result<Option<Uuid>, StoreError> {
        match self.take(column) {
            Value::Null => Ok(None),
            Value::Uuid(uuid) => Ok(Some(uuid)),
            Value::Text(text) => Uuid::try_parse(&text).map(Some).map_err(|_| unexpected(column)),
            _ => Err(unexpected(column)),
        }
    }

    pub fn timestamp(&mut self, column: usize) -> Result<Timestamp, StoreError> {
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

pub fn unexpected(column: usize) -> StoreError {
    StoreError::Internal(format!("column {column} of a row is not what the schema says"))
}

/// The type of a column of given rows.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    Int,
    Text,
    Uuid,
    Timestamp,
}

/// Statements inside one transaction.
pub trait Transaction {
    fn query(&mut self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError>;

    /// The number of rows that were changed.
    fn execute(&mut self, sql: &'static str, parameters: &[Value]) -> Result<u64, StoreError>;

    /// Runs a statement for many rows. `ROWS` in it stands for a query that gives them, with columns of these types.
    fn execute_with_rows(
        &mut self,
        sql: &'static str,
        columns: &'static [Column],
        rows: &mut dyn Iterator<Item = Vec<Value>>,
    ) -> Result<(), StoreError>;

    /// Runs a script of statements without parameters.
    fn script(&mut self, sql: &str) -> Result<(), StoreError>;

    /// Tells the other instances of a change, when the transaction commits. A database that is not shared between
    /// machines has nobody to tell.
    fn tell(&mut self, change: Uuid) -> Result<(), StoreError>;

    /// The time by which all instances judge: the database's, where several share it and the clock goes with the system's,
    /// which may be another on each of their machines.
    fn now(&mut self, clock: &Clock) -> Result<Timestamp, StoreError>;
}

/// A database, as far as the two differ.
pub trait Driver: Send + Sync + 'static {
    /// What [`Driver::hear`] hears through.
    type Link;
    /// How long to pause before each [`Driver::hear`].
    const PAUSE: Duration;
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

    /// Waits for changes made elsewhere and notes them. Returns soon, to be called again and again; what it keeps
    /// between two calls is in `link`. An error is a link that is down: until the next call succeeds, changes may be
    /// missed, and then everything counts as changed.
    fn hear(&self, link: &mut Option<Self::Link>, changes: &Changes) -> Result<(), StoreError>;
}

/// The store, over any driver. Every method that changes something and is told by whom records an event of it.
pub struct SqlStore<D> {
    driver: D,
    changes: Arc<Changes>,
    clock: Clock,
}

impl<D: Driver> SqlStore<D> {
    pub fn new(driver: D, changes: Arc<Changes>, clock: Clock) -> SqlStore<D> {
        SqlStore { driver, changes, clock }
    }

    /// Deletes the rows whose ids are found. False: there were none.
    fn delete(&self, find: &'static str, parameter: Value, delete: &'static str) -> Result<bool, StoreError> {
        self.driver.transaction(|transaction| delete_found(transaction, find, &[parameter], delete))
    }

    /// A transaction that may change the verdict on `subject`: here, and on all instances. Where `changed` finds that it has
    /// not, nobody is told: whoever asks for what is refused makes nobody ask the store again.
    fn change<T>(
        &self,
        subject: Uuid,
        changed: impl Fn(&T) -> bool,
        work: impl FnOnce(&mut dyn Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut is_changed = false;
        let outcome = self.driver.transaction(|transaction| {
            let value = work(transaction)?;
            if changed(&value) {
                is_changed = true;
                // Before it is committed as well: the outcome may stay unknown for as long as the database does not answer.
                self.changes.note(Change::Of(subject));
                transaction.tell(subject)?;
            }
            Ok(value)
        });
        if is_changed {
            self.changes.note(Change::Of(subject));
        }
        outcome
    }
}

/// There is one for each cost in use; more than these are not hashes of ours.
const PREFIXES: usize = 100;

/// Deletes the rows whose ids are found. In two statements: of one, PostgreSQL may make a search through the whole table.
/// False: there were none.
fn delete_found(
    transaction: &mut dyn Transaction,
    find: &'static str,
    parameters: &[Value],
    delete: &'static str,
) -> Result<bool, StoreError> {
    let found = transaction.query(find, parameters)?;
    let any = !found.is_empty();
    let ids = found.into_iter().map(|mut row| row.uuid(0).map(|id| vec![Value::Uuid(id)]));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    transaction.execute_with_rows(delete, &[Column::Uuid], &mut ids.into_iter())?;
    Ok(any)
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

/// Of what tells by itself whether it has changed something.
fn is_so(changed: &bool) -> bool {
    *changed
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
        by: &By,
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
            session.map_or(Ok(()), |session| sessions::insert(transaction, session))?;
            let kind = if session.is_some() { Kind::UserSignedUp } else { Kind::UserCreated };
            record(transaction, &Event::new(kind, user.id, by, user.created_at))
        });
        match outcome {
            Ok(()) => Ok(Created::Done),
            Err(StoreError::Conflict(_)) => Ok(Created::EmailTaken),
            Err(error) => Err(error),
        }
    }

    fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let rows = self.driver.query(
            "SELECT id, email, name, is_active, created_at FROM users WHERE id = $1 AND deleted_at IS NULL",
            &[Value::Uuid(id.0)],
        )?;
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
            "SELECT id, email, name, is_active, created_at FROM users WHERE id > $1 AND deleted_at IS NULL ORDER BY id LIMIT $2",
            &[Value::Uuid(after), Value::Int(limit)],
        )?;
        rows.into_iter().map(|mut row| user(&mut row)).collect()
    }

    fn set_user_active(&self, id: UserId, active: bool, by: &By, now: Timestamp) -> Result<bool, StoreError> {
        let changed = |(_, changed): &(bool, bool)| *changed;
        let (found, _) = self.change(id.0, changed, |transaction| {
            let changed = transaction.execute(
                "UPDATE users SET is_active = $2 WHERE id = $1 AND is_active <> $2 AND deleted_at IS NULL",
                &[Value::Uuid(id.0), Value::Bool(active)],
            )?;
            if changed == 0 {
                let found = transaction
                    .query("SELECT id FROM users WHERE id = $1 AND deleted_at IS NULL", &[Value::Uuid(id.0)])?;
                return Ok((!found.is_empty(), false));
            }
            if active {
                record(transaction, &Event::new(Kind::UserActivated, id, by, now))?;
            } else {
                let ended = sessions::end_all(transaction, id, None, now)?.unwrap_or_default().count;
                record(transaction, &Event::new(Kind::UserDeactivated, id, by, now).with("sessions", ended))?;
            }
            Ok((true, true))
        })?;
        Ok(found)
    }

    fn set_password(&self, id: UserId, password: &PasswordHash, by: &By, now: Timestamp) -> Result<bool, StoreError> {
        self.change(id.0, is_so, |transaction| {
            let changed = transaction.execute(
                "UPDATE users SET password_hash = $2 WHERE id = $1 AND deleted_at IS NULL",
                &[Value::Uuid(id.0), Value::Text(password.as_str().to_string())],
            )?;
            if changed > 0 {
                let ended = sessions::end_all(transaction, id, None, now)?.unwrap_or_default().count;
                record(transaction, &Event::new(Kind::UserPasswordSet, id, by, now).with("sessions", ended))?;
            }
            Ok(changed > 0)
        })
    }

    fn password_of(&self, id: UserId) -> Result<Option<PasswordHash>, StoreError> {
        let rows =
            self.driver.query("SELECT password_hash FROM users WHERE id = $1 AND is_active", &[Value::Uuid(id.0)])?;
        first(rows).map(|mut row| Ok(PasswordHash::from_stored(row.text(0)?))).transpose()
    }

    fn change_password(
        &self,
        id: UserId,
        old: &PasswordHash,
        new: &PasswordHash,
        session: &NewSession,
        by: &By,
    ) -> Result<bool, StoreError> {
        let now = session.created_at;
        self.change(id.0, is_so, |transaction| {
            // Locks the user's row, as a login does: one with the old password comes before, and its session is ended
            // here, or after, and fails.
            let changed = transaction.execute(
                "UPDATE users SET password_hash = $3 WHERE id = $1 AND is_active AND password_hash = $2",
                &[Value::Uuid(id.0), Value::Text(old.as_str().to_string()), Value::Text(new.as_str().to_string())],
            )?;
            if changed > 0 {
                let ended = sessions::end_all(transaction, id, None, now)?.unwrap_or_default().count;
                record(transaction, &Event::new(Kind::PasswordChanged, id, by, now).with("sessions", ended))?;
                sessions::open(transaction, session, 1)?;
                let opened = Event::new(Kind::SessionOpened, id, by, now);
                record(transaction, &opened.on(Subject::Session(session.id)))?;
            }
            Ok(changed > 0)
        })
    }

    fn delete_user(
        &self,
        id: UserId,
        password: Option<&PasswordHash>,
        by: &By,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.change(id.0, is_so, |transaction| {
            // Of the account nothing stays but its id, until what hangs on it has gone as well, and nobody finds it by that.
            let found = transaction.execute(
                "UPDATE users SET deleted_at = $3, is_active = $4, email = $5, name = NULL, password_hash = '', \
                 last_login_at = NULL \
                 WHERE id = $1 AND deleted_at IS NULL AND (password_hash = $2 OR $2 IS NULL)",
                &[
                    Value::Uuid(id.0),
                    Value::or_null(password, |hash| Value::Text(hash.as_str().to_string())),
                    Value::Timestamp(now),
                    Value::Bool(false),
                    // Unlike any e-mail, and any other.
                    Value::Text(id.to_string()),
                ],
            )?;
            if found > 0 {
                record(transaction, &Event::new(Kind::UserDeleted, id, by, now))?;
            }
            Ok(found > 0)
        })
    }

    fn sweep(&self) -> Result<bool, StoreError> {
        self.driver.transaction(|transaction| {
            let rows = transaction
                .query("SELECT id FROM users WHERE deleted_at IS NOT NULL ORDER BY deleted_at LIMIT 1", &[])?;
            let Some(mut row) = first(rows) else { return Ok(false) };
            let user = [Value::Uuid(row.uuid(0)?)];
            if keys::sweep(transaction, &user)?
                || delete_found(
                    transaction,
                    "SELECT id FROM sessions WHERE user_id = $1 LIMIT 1000",
                    &user,
                    "DELETE FROM sessions WHERE id IN (ROWS)",
                )?
            {
                return Ok(true);
            }
            transaction.execute("DELETE FROM users WHERE id = $1 AND deleted_at IS NOT NULL", &user)?;
            Ok(true)
        })
    }

    fn open_session(
        &self,
        session: &NewSession,
        password: &PasswordHash,
        rehashed: Option<&PasswordHash>,
        most: u32,
        by: &By,
    ) -> Result<Opened, StoreError> {
        self.log_in(session, password, rehashed, most, by)
    }

    fn hash_prefixes(&self) -> Result<Vec<String>, StoreError> {
        // From each to the next one, along the index.
        let mut prefixes = Vec::new();
        let mut last = String::new();
        while prefixes.len() < PREFIXES {
            let rows = self.driver.query(
                "SELECT SUBSTR(password_hash, 1, 7) FROM users WHERE SUBSTR(password_hash, 1, 7) > $1 \
                 ORDER BY SUBSTR(password_hash, 1, 7) LIMIT 1",
                &[Value::Text(last)],
            )?;
            let Some(mut row) = first(rows) else { break };
            last = row.text(0)?;
            prefixes.push(last.clone());
        }
        Ok(prefixes)
    }

    fn live_sessions(&self, ids: &[SessionId]) -> Result<Vec<(SessionId, LiveSession)>, StoreError> {
        self.find_live_sessions(ids)
    }

    fn rotate_session(
        &self,
        id: SessionId,
        generation: i64,
        lifespan: &Lifespan,
        rules: &RotationRules,
        admit: &dyn Fn(UserId) -> Result<(), Error>,
        by: &By,
    ) -> Result<Rotated, StoreError> {
        self.trade_refresh_token(id, generation, lifespan, rules, admit, by)
    }

    fn sessions_of(&self, user: UserId, now: Timestamp, limit: i64) -> Result<Vec<Session>, StoreError> {
        self.open_sessions(user, now, limit)
    }

    fn addresses_of(&self, user: UserId, limit: i64) -> Result<Vec<String>, StoreError> {
        self.known_addresses(user, limit)
    }

    fn end_session(&self, id: SessionId, user: UserId, by: &By, now: Timestamp) -> Result<bool, StoreError> {
        self.log_out(id, user, by, now)
    }

    fn end_other_sessions(&self, user: UserId, kept: SessionId, by: &By, now: Timestamp) -> Result<bool, StoreError> {
        self.log_out_elsewhere(user, kept, by, now)
    }

    fn latest(&self) -> Result<Option<Timestamp>, StoreError> {
        let rows = self.driver.query("SELECT at FROM events ORDER BY at DESC, id DESC LIMIT 1", &[])?;
        let event = first(rows).map(|mut row| row.timestamp(0)).transpose()?;
        Ok(event.max(self.latest_use()?))
    }

    fn prune_sessions(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.delete(
            "SELECT id FROM sessions WHERE expires_at <= $1 ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED",
            Value::Timestamp(now),
            "DELETE FROM sessions WHERE id IN (ROWS)",
        )
    }

    fn create_key(
        &self,
        key: &ApiKey,
        hash: &KeyHash,
        most: u32,
        by: &By,
    ) -> Result<Result<(), KeyRefusal>, StoreError> {
        self.store_key(key, hash, most, by)
    }

    fn update_key(
        &self,
        owner: UserId,
        id: KeyId,
        change: &KeyChange,
        by: &By,
        now: Timestamp,
        most: u32,
    ) -> Result<Result<(), KeyRefusal>, StoreError> {
        self.change_key(owner, id, change, by, now, most)
    }

    fn rotate_key(
        &self,
        owner: UserId,
        id: KeyId,
        draft: &KeyDraft,
        grace_end: Timestamp,
        most: u32,
        by: &By,
    ) -> Result<Result<(ApiKey, Timestamp), KeyRefusal>, StoreError> {
        self.replace_key(owner, id, draft, grace_end, most, by)
    }

    fn key_of(&self, owner: UserId, id: KeyId, since: Timestamp) -> Result<Option<(ApiKey, u64)>, StoreError> {
        self.counted_key(owner, id, since)
    }

    fn keys_of(
        &self,
        owner: UserId,
        since: Timestamp,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<(ApiKey, u64)>, StoreError> {
        self.counted_keys(owner, since, now, limit)
    }

    fn page_of_keys(
        &self,
        owner: UserId,
        after: Option<KeyId>,
        since: Timestamp,
        limit: i64,
    ) -> Result<Option<Vec<(ApiKey, u64)>>, StoreError> {
        self.counted_page(owner, after, since, limit)
    }

    fn keys(&self, owner: Option<UserId>, after: Option<&ApiKey>, limit: i64) -> Result<Vec<ApiKey>, StoreError> {
        self.listed_keys(owner, after, limit)
    }

    fn keys_by_hash(&self, hashes: &[KeyHash]) -> Result<Vec<(KeyHash, KnownKey)>, StoreError> {
        self.known_keys(hashes)
    }

    fn keys_by_id(&self, ids: &[KeyId]) -> Result<Vec<(KeyId, KnownKey)>, StoreError> {
        self.known_keys_by_id(ids)
    }

    fn revoke_key(
        &self,
        id: KeyId,
        owner: Option<UserId>,
        by: &By,
        now: Timestamp,
        most: u32,
    ) -> Result<bool, StoreError> {
        self.end_key(id, owner, by, now, most)
    }

    fn prune_keys(&self, before: Timestamp) -> Result<bool, StoreError> {
        self.delete_keys(before)
    }

    fn trim_keys(&self, from: UserId, most: u32, now: Timestamp) -> Result<Option<UserId>, StoreError> {
        SqlStore::trim_keys(self, from, most, now)
    }

    fn record_uses(&self, uses: &[(KeyId, HourOfUse)]) -> Result<(), StoreError> {
        self.add_uses(uses)
    }

    fn usage_of(
        &self,
        owner: UserId,
        key: KeyId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Vec<HourOfUse>>, StoreError> {
        self.hours_of_use(owner, key, from, to)
    }

    fn prune_usage(&self, before: Timestamp) -> Result<bool, StoreError> {
        self.delete_usage(before)
    }

    fn record_failures(&self, failures: &[Event]) -> Result<(), StoreError> {
        self.driver.transaction(|transaction| events::record_all(transaction, failures))
    }

    fn events_of(&self, user: UserId, before: Option<EventId>, limit: i64) -> Result<Vec<Event>, StoreError> {
        events::of_user(&self.driver, user, before, limit)
    }

    fn events(
        &self,
        filter: &Filter,
        after: Option<(Timestamp, EventId)>,
        limit: i64,
    ) -> Result<Vec<Event>, StoreError> {
        events::list(&self.driver, filter, after, limit)
    }

    fn prune_events(&self, before: Timestamp) -> Result<bool, StoreError> {
        self.delete(
            "SELECT id FROM events WHERE at < $1 ORDER BY at, id LIMIT 1000",
            Value::Timestamp(before),
            "DELETE FROM events WHERE id IN (ROWS)",
        )
    }

    fn watch(self: Arc<Self>, lost: Sender<String>) {
        let store = Arc::downgrade(&self);
        let spawned = std::thread::Builder::new().name("watch".to_string()).spawn(move || watch(&store, &lost));
        if let Err(error) = spawned {
            warn!("changes made elsewhere take effect late, no thread can be started: {error}");
        }
    }
}

/// How long a link that is down is left alone.
const LINK_PAUSE: Duration = Duration::from_millis(250);

fn watch<D: Driver>(store: &Weak<SqlStore<D>>, lost: &Sender<String>) {
    let mut link = None;
    let mut down = false;
    loop {
        std::thread::sleep(if down { LINK_PAUSE } else { D::PAUSE });
        let Some(store) = store.upgrade() else { return };
        // A panic has been logged by its hook; it must not cost the thread.
        let heard = catch_unwind(AssertUnwindSafe(|| store.driver.hear(&mut link, &store.changes)));
        match heard.unwrap_or_else(|_| Err(StoreError::Internal("listening panicked".to_string()))) {
            Ok(()) if down => {
                info!("changes made elsewhere are heard of again");
                down = false;
            }
            Ok(()) => {}
            Err(StoreError::Lost(line)) => {
                let _ = lost.send(line);
                return;
            }
            Err(error) => {
                link = None;
                if !down {
                    warn!("changes made elsewhere take up to 5 s to be seen: {error}");
                    down = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// Panics when it is to hear something, and hears it the next time.
    struct Startled {
        times: AtomicU32,
        heard: mpsc::Sender<()>,
    }

    impl Driver for Startled {
        type Link = ();
        const PAUSE: Duration = Duration::ZERO;
        const MIGRATIONS: &'static [Migration] = &[];
        const FIND_TABLE: &'static str = "";
        const LOCK_SCHEMA: Option<&'static str> = None;

        fn query(&self, _: &'static str, _: &[Value]) -> Result<Vec<Row>, StoreError> {
            unreachable!()
        }

        fn execute(&self, _: &'static str, _: &[Value]) -> Result<u64, StoreError> {
            unreachable!()
        }

        fn transaction<T>(
            &self,
            _: impl FnOnce(&mut dyn Transaction) -> Result<T, StoreError>,
        ) -> Result<T, StoreError> {
            unreachable!()
        }

        fn hear(&self, _: &mut Option<()>, _: &Changes) -> Result<(), StoreError> {
            assert!(self.times.fetch_add(1, Ordering::SeqCst) > 0, "on purpose");
            let _ = self.heard.send(());
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        }
    }

    #[test]
    fn a_panic_while_it_listens_costs_no_more_than_what_was_said_then() {
        let (heard, has_heard) = mpsc::channel();
        let startled = Startled { times: AtomicU32::new(0), heard };
        let store = Arc::new(SqlStore::new(startled, Arc::new(Changes::default()), Clock::default()));
        store.clone().watch(mpsc::channel().0);
        has_heard.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
