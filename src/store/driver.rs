//! The vocabulary of statements: values, rows, transactions, and what a database has to offer. No database's own type
//! appears here.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp};
use crate::base::error::StoreError;
use crate::memory::changes::Changes;
use crate::outbox::outlet::Outlet;

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
    pub(crate) fn or_null<T>(value: Option<T>, some: impl FnOnce(T) -> Value) -> Value {
        value.map_or(Value::Null, some)
    }
}

/// One row. A database that has no type for ids, times or truth values gives them as text and numbers.
pub struct Row(pub Vec<Value>);

impl Row {
    pub(crate) fn text(&mut self, column: usize) -> Result<String, StoreError> {
        self.optional_text(column)?.ok_or_else(|| unexpected(column))
    }

    pub(crate) fn optional_text(&mut self, column: usize) -> Result<Option<String>, StoreError> {
        match self.take(column) {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            _ => Err(unexpected(column)),
        }
    }

    pub(crate) fn int(&mut self, column: usize) -> Result<i64, StoreError> {
        self.optional_int(column)?.ok_or_else(|| unexpected(column))
    }

    pub(crate) fn optional_int(&mut self, column: usize) -> Result<Option<i64>, StoreError> {
        match self.take(column) {
            Value::Null => Ok(None),
            Value::Int(number) => Ok(Some(number)),
            _ => Err(unexpected(column)),
        }
    }

    pub(crate) fn bool(&mut self, column: usize) -> Result<bool, StoreError> {
        match self.take(column) {
            Value::Bool(truth) => Ok(truth),
            Value::Int(number) => Ok(number != 0),
            _ => Err(unexpected(column)),
        }
    }

    pub(crate) fn bytes(&mut self, column: usize) -> Result<Vec<u8>, StoreError> {
        self.optional_bytes(column)?.ok_or_else(|| unexpected(column))
    }

    pub(crate) fn optional_bytes(&mut self, column: usize) -> Result<Option<Vec<u8>>, StoreError> {
        match self.take(column) {
            Value::Null => Ok(None),
            Value::Bytes(bytes) => Ok(Some(bytes)),
            _ => Err(unexpected(column)),
        }
    }

    pub(crate) fn uuid(&mut self, column: usize) -> Result<Uuid, StoreError> {
        self.optional_uuid(column)?.ok_or_else(|| unexpected(column))
    }

    pub(crate) fn optional_uuid(&mut self, column: usize) -> Result<Option<Uuid>, StoreError> {
        match self.take(column) {
            Value::Null => Ok(None),
            Value::Uuid(uuid) => Ok(Some(uuid)),
            Value::Text(text) => Uuid::try_parse(&text).map(Some).map_err(|_| unexpected(column)),
            _ => Err(unexpected(column)),
        }
    }

    pub(crate) fn timestamp(&mut self, column: usize) -> Result<Timestamp, StoreError> {
        self.optional_timestamp(column)?.ok_or_else(|| unexpected(column))
    }

    pub(crate) fn optional_timestamp(&mut self, column: usize) -> Result<Option<Timestamp>, StoreError> {
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

pub(crate) fn unexpected(column: usize) -> StoreError {
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

    /// Runs a statement for many rows. `ROWS` in it stands for a query that gives the rows, with columns of these
    /// types.
    fn execute_with_rows(
        &mut self,
        sql: &'static str,
        columns: &'static [Column],
        rows: &mut dyn Iterator<Item = Vec<Value>>,
    ) -> Result<(), StoreError>;

    /// Runs a script of statements without parameters.
    fn script(&mut self, sql: &str) -> Result<(), StoreError>;

    /// Notifies the other instances of a change when the transaction commits. Does nothing for SQLite, where other
    /// processes look at the file.
    fn notify(&mut self, change: Uuid) -> Result<(), StoreError>;

    /// To whom events are delivered.
    fn outlet(&self) -> &Outlet;

    /// Wakes the deliverer of this process, or others if it has none, when the transaction commits.
    fn wake_deliverers(&mut self) -> Result<(), StoreError>;

    /// The time that all instances agree on. Where several instances share the database, it is the database's time,
    /// because the clocks of their machines may differ; unless `clock` is a test's.
    fn now(&mut self, clock: &Clock) -> Result<Timestamp, StoreError>;
}

/// What differs between the two databases.
pub trait Driver: Send + Sync + 'static {
    /// What [`Driver::listen`] keeps between two calls.
    type Link;
    /// How long to pause before each call of [`Driver::listen`].
    const PAUSE: Duration;
    /// This database's migrations, in order.
    const MIGRATIONS: &'static [Migration];
    /// A query for those of the relations `$1` that exist, which is a list of names. It has a row for each of their
    /// columns: the relation, the column, and where it is, for a message. The name of a relation in another schema begins
    /// with that schema's.
    const FIND_RELATIONS: &'static str;
    /// What an operator can do if the tables are another program's: sentences for a message.
    const ELSEWHERE: &'static str;
    /// A statement whose lock is held until the transaction ends, so that only one instance migrates at a time.
    const LOCK_SCHEMA: Option<&'static str>;

    /// To whom events are delivered, and who is woken for it.
    fn outlet(&self) -> &Arc<Outlet>;

    /// Reads with one statement. If the connection turns out to be dead, tries again on another one.
    fn query(&self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError>;

    /// Writes with one statement; the number of rows that were changed.
    fn execute(&self, sql: &'static str, parameters: &[Value]) -> Result<u64, StoreError>;

    /// As [`Transaction::now`].
    fn now(&self, clock: &Clock) -> Result<Timestamp, StoreError> {
        Ok(clock.now())
    }

    /// Commits if `work` returns `Ok`; otherwise leaves no trace.
    fn transaction<T>(&self, work: impl FnOnce(&mut dyn Transaction) -> Result<T, StoreError>)
    -> Result<T, StoreError>;

    /// Waits for changes made by other instances and processes, and notes them. Returns soon, and is called again and
    /// again; `link` holds what it keeps between two calls. An error means that the link is down and changes may be
    /// missed; the next call that succeeds notes that everything may have changed.
    fn listen(&self, link: &mut Option<Self::Link>, changes: &Changes) -> Result<(), StoreError>;
}

/// One step of the schema, as embedded in the binary. Never edited once it has been released.
pub struct Migration {
    pub version: i64,
    pub name: &'static str,
    pub sql: &'static str,
}

impl Migration {
    pub fn checksum(&self) -> String {
        hex::encode(digest::digest(&digest::SHA256, self.sql.as_bytes()))
    }

    pub(crate) fn title(&self) -> String {
        format!("{:04}_{}", self.version, self.name)
    }
}

/// The first row, if there is one.
pub(crate) fn first(rows: Vec<Row>) -> Option<Row> {
    rows.into_iter().next()
}
