//! SQLite, embedded: one connection writes, a few read beside it (WAL), and a commit is on the disk when it returns.

mod database_files;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use r2d2::{ManageConnection, NopErrorHandler, Pool};
use rusqlite::config::DbConfig;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use uuid::Uuid;

use self::database_files::{Opened, Unfit, beside, restoring};
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::StoreError;
use crate::base::files::{self, full};
use crate::memory::changes::{Change, Changes};
use crate::store::driver::{Column, Driver, Migration, Row, Transaction, Value};

const READERS: u32 = 4;
/// How long to wait for another process that writes, or for a free reader; shorter than a request may take.
const BUSY: Duration = Duration::from_secs(4);
/// How long the writer waits at a stretch, and how long it lets others have it in between: whoever looks for the other
/// process's changes needs the writer too, and must not wait as long.
const STRETCH: Duration = Duration::from_millis(10);
const LETTING_GO: Duration = Duration::from_millis(5);
/// Pages of the file that a connection remembers, at 4 KiB: the inner ones of a million keys, and some thousands of users.
const PAGES: i64 = 1000;
/// Statements kept prepared on a connection: more than there are.
const PREPARED: usize = 64;

pub struct Sqlite {
    writer: Mutex<Connection>,
    readers: Pool<Readers>,
    opened: Arc<Opened>,
}

impl Sqlite {
    /// Opens the file, and makes it when it is not there; only its owner may read it.
    pub fn open(path: &Path) -> Result<Sqlite, StoreError> {
        judge(path)?;
        create_private(path).map_err(|error| not_opened(path, error))?;
        let writer = connect(path)?;
        // SQLite does not always wait by itself for others that do the same.
        patiently(|| writer.pragma_update(None, "journal_mode", "WAL")).map_err(|error| describe(path, error))?;
        Sqlite::over(writer, path, READ_WRITE)
    }

    /// Opens a file that is there.
    pub fn open_existing(path: &Path) -> Result<Sqlite, StoreError> {
        if !path.try_exists().map_err(|error| not_opened(path, error))? {
            return Err(StoreError::Unavailable(format!(
                "there is no database at {}; KEYWARD_DB says where it is, and `keyward migrate` makes one",
                full(path).display()
            )));
        }
        judge(path)?;
        Sqlite::over(connect(path)?, path, READ_WRITE)
    }

    /// Opens a file that is there, and changes nothing in it.
    pub fn inspect(path: &Path) -> Result<Sqlite, StoreError> {
        let connection = Connection::open_with_flags(path, READ_ONLY).map_err(|error| describe(path, error))?;
        Sqlite::over(connection, path, READ_ONLY)
    }

    fn over(writer: Connection, path: &Path, flags: OpenFlags) -> Result<Sqlite, StoreError> {
        let failed = |error| describe(path, error);
        prepare(&writer).map_err(failed)?;
        // SQLite opens all of its files, and looks at the first of them.
        writer.query_row("SELECT count(*) FROM sqlite_master", (), |_| Ok(())).map_err(failed)?;
        let opened = Arc::new(Opened::look(path));
        writer.busy_timeout(STRETCH).map_err(failed)?;
        let readers = Pool::builder()
            .max_size(READERS)
            .min_idle(Some(0))
            .test_on_check_out(false)
            .connection_timeout(BUSY)
            // Whoever waits for a reader is told why he gets none, and tells it.
            .error_handler(Box::new(NopErrorHandler))
            .build_unchecked(Readers { path: path.to_path_buf(), flags, opened: opened.clone() });
        Ok(Sqlite { writer: Mutex::new(writer), readers, opened })
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        // A transaction that panics is rolled back as it is dropped; the connection is as good as before.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn judge(path: &Path) -> Result<(), StoreError> {
    database_files::judge(path).map_err(|unfit| match unfit {
        Unfit::Foreign(why) => {
            StoreError::Internal(format!("{} is not opened: {why}; {}", full(path).display(), restoring(path)))
        }
        Unfit::Fault(error) => describe(path, error),
        Unfit::Unreadable(error) => not_opened(path, error),
    })
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error| describe(path, error);
    let writer = Connection::open_with_flags(path, READ_WRITE).map_err(failed)?;
    // SQLite is content to read where it may not write.
    if writer.is_readonly("main").map_err(failed)? {
        return Err(not_opened(path, "the file is read-only"));
    }
    Ok(writer)
}

/// Tries again while another process has the file, for as long as [`BUSY`].
fn patiently<T>(mut attempt: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let deadline = Instant::now() + BUSY;
    loop {
        match attempt() {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < deadline => {
                std::thread::sleep(LETTING_GO);
            }
            outcome => return outcome,
        }
    }
}

const READ_WRITE: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);
const READ_ONLY: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// The file holds password hashes. SQLite gives its companions (-wal, -shm) the same permissions.
fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    // Plans do not depend on what is bound. Otherwise statements that were kept are planned anew at each use.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", PAGES)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    Ok(())
}

struct Readers {
    path: PathBuf,
    flags: OpenFlags,
    opened: Arc<Opened>,
}

impl ManageConnection for Readers {
    type Connection = Connection;
    type Error = rusqlite::Error;

    fn connect(&self) -> rusqlite::Result<Connection> {
        // Within one process, a connection to another file of this name would take the -shm from under the others.
        if !self.opened.are_there() {
            let error = ffi::Error::new(ffi::SQLITE_CANTOPEN);
            return Err(rusqlite::Error::SqliteFailure(error, Some(NOT_THERE.to_string())));
        }
        let connection = Connection::open_with_flags(&self.path, self.flags)?;
        prepare(&connection)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    fn is_valid(&self, _: &mut Connection) -> rusqlite::Result<()> {
        Ok(())
    }

    /// One that is returned within a transaction would see the database of that moment for ever.
    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_autocommit()
    }
}

/// What a statement meets until the process has ended.
const NOT_THERE: &str = "the files that were opened are not there any more";

/// How often it is looked whether another process has written.
const POLL: Duration = Duration::from_millis(100);

impl Driver for Sqlite {
    /// The file's version when it was looked at last.
    type Link = i64;
    const PAUSE: Duration = POLL;

    const MIGRATIONS: &'static [Migration] = &[
        Migration {
            version: 1,
            name: "users_sessions_keys",
            sql: include_str!("../../../sql/sqlite/0001_users_sessions_keys.sql"),
        },
        Migration { version: 2, name: "key_hours", sql: include_str!("../../../sql/sqlite/0002_key_hours.sql") },
        Migration { version: 3, name: "events", sql: include_str!("../../../sql/sqlite/0003_events.sql") },
        Migration { version: 4, name: "key_life", sql: include_str!("../../../sql/sqlite/0004_key_life.sql") },
        Migration { version: 5, name: "indexes", sql: include_str!("../../../sql/sqlite/0005_indexes.sql") },
        Migration {
            version: 6,
            name: "session_rotation",
            sql: include_str!("../../../sql/sqlite/0006_session_rotation.sql"),
        },
        Migration { version: 7, name: "key_ends", sql: include_str!("../../../sql/sqlite/0007_key_ends.sql") },
        Migration {
            version: 8,
            name: "deleted_users",
            sql: include_str!("../../../sql/sqlite/0008_deleted_users.sql"),
        },
        Migration {
            version: 9,
            name: "session_epochs",
            sql: include_str!("../../../sql/sqlite/0009_session_epochs.sql"),
        },
    ];
    const FIND_TABLE: &'static str = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = $1";
    // A transaction of ours is a writer's from its start (BEGIN IMMEDIATE).
    const LOCK_SCHEMA: Option<&'static str> = None;

    fn query(&self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        let reader = self.readers.get().map_err(|error| StoreError::Unavailable(format!("SQLite: {error}")))?;
        if !matches!(parameters, [Value::List(_), ..]) {
            return query(&reader, sql, parameters);
        }
        // In one transaction, the file is locked once for all items.
        run(&reader, "BEGIN").map_err(fault)?;
        let rows = query(&reader, sql, parameters);
        let ended = run(&reader, "COMMIT").map_err(fault);
        rows.and_then(|rows| ended.map(|()| rows))
    }

    fn execute(&self, sql: &'static str, parameters: &[Value]) -> Result<u64, StoreError> {
        self.transaction(|transaction| transaction.execute(sql, parameters))
    }

    fn transaction<T>(
        &self,
        work: impl FnOnce(&mut dyn Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if !self.opened.are_there() {
            return Err(StoreError::Unavailable(format!("SQLite: {NOT_THERE}")));
        }
        let writer = patiently(|| {
            let writer = self.writer();
            run(&writer, "BEGIN IMMEDIATE")?;
            Ok(writer)
        });
        let writer = writer.map_err(fault)?;
        let mut transaction = Begun(&writer);
        let value = work(&mut transaction)?;
        run(&writer, "COMMIT").map_err(fault)?;
        Ok(value)
    }

    fn listen(&self, link: &mut Option<i64>, changes: &Changes) -> Result<(), StoreError> {
        if let Some(line) = self.opened.lost() {
            return Err(StoreError::Lost(line));
        }
        // On the writer: on any other connection it also moves with our own commits.
        let version = self.writer().pragma_query_value(None, "data_version", |row| row.get(0)).map_err(fault)?;
        if *link != Some(version) {
            changes.note(Change::Everything);
            *link = Some(version);
        }
        Ok(())
    }
}

/// A transaction on the writer; rolled back when it is dropped before it was committed.
struct Begun<'a>(&'a Connection);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        // Committed, or ended by SQLite itself after a fault.
        if !self.0.is_autocommit() {
            let _ = run(self.0, "ROLLBACK");
        }
    }
}

impl Transaction for Begun<'_> {
    fn query(&mut self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        query(self.0, sql, parameters)
    }

    fn execute(&mut self, sql: &'static str, parameters: &[Value]) -> Result<u64, StoreError> {
        execute(self.0, sql, parameters)
    }

    fn execute_with_rows(
        &mut self,
        sql: &'static str,
        columns: &'static [Column],
        rows: &mut dyn Iterator<Item = Vec<Value>>,
    ) -> Result<(), StoreError> {
        // There is no round trip to save: once for each row.
        let row = (1..=columns.len()).map(|column| format!("?{column}")).collect::<Vec<_>>().join(", ");
        // VALUES, as SQLite would take ON CONFLICT behind a SELECT for the condition of a join.
        let mut statement = self.0.prepare_cached(&sql.replace("ROWS", &format!("VALUES ({row})"))).map_err(fault)?;
        for row in rows {
            statement.execute(rusqlite::params_from_iter(row)).map_err(fault)?;
        }
        Ok(())
    }

    fn script(&mut self, sql: &str) -> Result<(), StoreError> {
        self.0.execute_batch(sql).map_err(fault)
    }

    fn notify(&mut self, _: Uuid) -> Result<(), StoreError> {
        Ok(())
    }

    fn now(&mut self, clock: &Clock) -> Result<Timestamp, StoreError> {
        Ok(clock.now())
    }
}

/// A statement without parameters and rows, kept prepared.
fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute(()).map(drop)
}

fn query(connection: &Connection, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
    // There is no round trip to save: once for each item is as good as once for all.
    let (sql, rounds): (_, Vec<[&[Value]; 2]>) = match parameters {
        [Value::List(items), others @ ..] => {
            (numbered(sql).replace("= ANY(?1)", "= ?1"), items.chunks(1).map(|item| [item, others]).collect())
        }
        _ => (numbered(sql), vec![[parameters, &[]]]),
    };
    let mut statement = connection.prepare_cached(&sql).map_err(fault)?;
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| value(row.get_ref(column)?)).collect();
    let mut rows = Vec::with_capacity(rounds.len());
    for parameters in rounds {
        for found in
            statement.query_map(rusqlite::params_from_iter(parameters.into_iter().flatten()), row).map_err(fault)?
        {
            rows.push(Row(found.map_err(fault)?));
        }
    }
    Ok(rows)
}

fn execute(connection: &Connection, sql: &str, parameters: &[Value]) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached(&numbered(sql)).map_err(fault)?;
    statement.execute(rusqlite::params_from_iter(parameters)).map(|changed| changed as u64).map_err(fault)
}

/// `$1` is a name in SQLite, numbered by its first appearance; `?1` is the first parameter. Rows are not locked one by one:
/// whoever writes has the whole file.
fn numbered(sql: &str) -> String {
    let unlocked = sql.split_once(" FOR UPDATE").map_or(sql, |(statement, _)| statement);
    unlocked.replace('$', "?")
}

fn value(column: ValueRef<'_>) -> rusqlite::Result<Value> {
    Ok(match column {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Text(text) => Value::Text(std::str::from_utf8(text)?.to_string()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
        ValueRef::Real(_) => return Err(rusqlite::Error::InvalidQuery),
    })
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Bool(truth) => ToSqlOutput::from(*truth),
            Value::Int(number) => ToSqlOutput::from(*number),
            Value::Text(text) => ToSqlOutput::from(text.as_str()),
            Value::Bytes(bytes) => ToSqlOutput::from(bytes.as_slice()),
            Value::Uuid(uuid) => ToSqlOutput::from(uuid.to_string()),
            Value::Timestamp(timestamp) => ToSqlOutput::from(timestamp.to_string()),
            Value::List(_) => return Err(rusqlite::Error::InvalidQuery),
        })
    }
}

fn fault(error: rusqlite::Error) -> StoreError {
    let text = format!("SQLite: {error}");
    let rusqlite::Error::SqliteFailure(failure, _) = &error else { return StoreError::Internal(text) };
    if matches!(failure.extended_code, ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) {
        return StoreError::Conflict(text);
    }
    match failure.code {
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::DiskFull
        | ErrorCode::ReadOnly
        | ErrorCode::CannotOpen
        | ErrorCode::SystemIoFailure => StoreError::Unavailable(text),
        _ => StoreError::Internal(text),
    }
}

fn describe(path: &Path, error: rusqlite::Error) -> StoreError {
    let is_damaged = matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt));
    match fault(error) {
        StoreError::Unavailable(text) => not_opened(path, text),
        other => {
            let help = if is_damaged { format!("; {}", restoring(path)) } else { String::new() };
            StoreError::Internal(format!("opening {}: {other}{help}", full(path).display()))
        }
    }
}

/// One line for the operator: what was to be opened, why it is not, and whose files are in the way, if any.
fn not_opened(path: &Path, why: impl Display) -> StoreError {
    let mut companions = [path.to_path_buf(), beside(path, "-wal"), beside(path, "-shm")].to_vec();
    companions.extend(full(path).parent().map(Path::to_path_buf));
    let owners = files::foreign(companions.iter().map(PathBuf::as_path));
    StoreError::Unavailable(format!("opening {}: {why}{owners}", full(path).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_comes_back_within_a_transaction_is_not_lent_again() {
        let folder = std::env::temp_dir().join(format!("keyward-reader-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let sqlite = Sqlite::open(&folder.join("keyward.db")).unwrap();
        sqlite.execute("CREATE TABLE t (n INTEGER)", &[]).unwrap();
        let count = || sqlite.query("SELECT count(*) FROM t", &[]).unwrap()[0].int(0).unwrap();
        // As where something panics on the way, or the end of the transaction fails.
        let reader = sqlite.readers.get().unwrap();
        run(&reader, "BEGIN").unwrap();
        query(&reader, "SELECT count(*) FROM t", &[]).unwrap();
        drop(reader);
        sqlite.execute("INSERT INTO t VALUES (1)", &[]).unwrap();
        assert_eq!(count(), 1);
        drop(sqlite);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
