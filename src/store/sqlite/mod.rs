//! SQLite, embedded: one connection writes, a few read at the same time (WAL), and a commit is on the disk when it
//! returns.

mod database_files;
mod migrations;
mod statements;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use r2d2::{ManageConnection, NopErrorHandler, Pool};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use uuid::Uuid;

use self::database_files::{Opened, Unfit, beside, restoring};
use self::statements::{execute, fault, query, run};
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::StoreError;
use crate::base::files::{self, full};
use crate::memory::changes::{Change, Changes};
use crate::outbox::outlet::Outlet;
use crate::store::driver::{Column, Driver, Migration, Row, Transaction, Value};
use crate::store::migrate;

const READERS: u32 = 4;
/// How long to wait for another process to finish writing, or for a free reader. Shorter than a request may take.
const BUSY: Duration = Duration::from_secs(4);
/// While another process writes, a transaction holds our writer for so long at a time, and lets go of it for so long in
/// between: the thread that looks for that process's changes needs the writer too, and must not wait as long.
const STRETCH: Duration = Duration::from_millis(10);
const LETTING_GO: Duration = Duration::from_millis(5);
/// Pages (4 KiB) that a connection caches: enough for the inner pages of a million keys, and for some thousand users.
const PAGES: i64 = 1000;
/// Statements that a connection keeps prepared: more than there are.
const PREPARED: usize = 128;

pub struct Sqlite {
    writer: Mutex<Connection>,
    readers: Pool<Readers>,
    opened: Arc<Opened>,
    outlet: Arc<Outlet>,
}

impl Sqlite {
    /// Delivers through this outlet. Until then nothing is delivered.
    pub fn with_outlet(self, outlet: Arc<Outlet>) -> Sqlite {
        Sqlite { outlet, ..self }
    }

    /// Opens the file, and creates it if it does not exist; only its owner may read it.
    pub fn open(path: &Path) -> Result<Sqlite, StoreError> {
        judge(path)?;
        create_private(path).map_err(|error| not_opened(path, error))?;
        let writer = connect(path)?;
        refuse_strangers(&writer, path)?;
        // SQLite itself does not always wait for another process that does the same.
        patiently(|| writer.pragma_update(None, "journal_mode", "WAL")).map_err(|error| describe(path, error))?;
        Sqlite::over(writer, path, READ_WRITE)
    }

    /// Refuses a file that another program uses. Changes nothing.
    pub(crate) fn refuse_strangers(path: &Path) -> Result<(), StoreError> {
        if !path.exists() {
            return Ok(());
        }
        judge(path)?;
        refuse_strangers(&connect(path)?, path)
    }

    /// Opens a file that must exist.
    pub(crate) fn open_existing(path: &Path) -> Result<Sqlite, StoreError> {
        if !path.try_exists().map_err(|error| not_opened(path, error))? {
            return Err(StoreError::Unavailable(format!(
                "there is no database at {}; KEYWARD_DB says where it is, and `keyward migrate` makes one",
                full(path).display()
            )));
        }
        judge(path)?;
        Sqlite::over(connect(path)?, path, READ_WRITE)
    }

    /// Opens a file that must exist, for reading.
    pub(crate) fn inspect(path: &Path) -> Result<Sqlite, StoreError> {
        let connection = Connection::open_with_flags(path, READ_ONLY).map_err(|error| describe(path, error))?;
        Sqlite::over(connection, path, READ_ONLY)
    }

    fn over(writer: Connection, path: &Path, flags: OpenFlags) -> Result<Sqlite, StoreError> {
        let failed = |error| describe(path, error);
        prepare(&writer).map_err(failed)?;
        // Makes SQLite open all of its files and read the database.
        writer.query_row("SELECT count(*) FROM sqlite_master", (), |_| Ok(())).map_err(failed)?;
        let opened = Arc::new(Opened::look(path));
        writer.busy_timeout(STRETCH).map_err(failed)?;
        let readers = Pool::builder()
            .max_size(READERS)
            .min_idle(Some(0))
            .test_on_check_out(false)
            .connection_timeout(BUSY)
            // The error goes to the caller that waits for a reader, who logs it.
            .error_handler(Box::new(NopErrorHandler))
            .build_unchecked(Readers { path: path.to_path_buf(), flags, opened: opened.clone() });
        Ok(Sqlite { writer: Mutex::new(writer), readers, opened, outlet: Arc::default() })
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        // A transaction that panics is rolled back when it is dropped, so the connection can be used again.
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

/// Before the file is written: changing to WAL writes it.
fn refuse_strangers(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let read = || connection.query_row("SELECT count(*) FROM sqlite_master", (), |_| Ok(()));
    patiently(read).map_err(|error| describe(path, error))?;
    run(connection, "BEGIN").map_err(fault)?;
    let outcome = migrate::missing::<Sqlite>(&mut |sql, parameters| query(connection, sql, parameters));
    run(connection, "COMMIT").map_err(fault)?;
    outcome.map(drop)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error| describe(path, error);
    let writer = Connection::open_with_flags(path, READ_WRITE).map_err(failed)?;
    // If SQLite may not write, it opens the file for reading without an error.
    if writer.is_readonly("main").map_err(failed)? {
        return Err(not_opened(path, "the file is read-only"));
    }
    Ok(writer)
}

/// Tries again while another process has locked the file, for up to [`BUSY`].
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

/// Only the owner may read the file: it holds password hashes. SQLite creates -wal and -shm with the same permissions.
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
    // Makes plans independent of the parameters. Otherwise a prepared statement is planned anew at each use.
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
        // If the file was replaced, a connection to the new file would break the -shm that this process's other
        // connections use.
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

    /// A reader that is still in a transaction would see the database of that moment for ever.
    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_autocommit()
    }
}

/// The error of every statement until the process has stopped.
const NOT_THERE: &str = "the files that were opened are not there any more";

/// How often to check whether another process has written.
const POLL: Duration = Duration::from_millis(100);

impl Driver for Sqlite {
    /// The file's version at the last check.
    type Link = i64;
    const PAUSE: Duration = POLL;

    const MIGRATIONS: &'static [Migration] = migrations::ALL;
    // Names differ by more than capitals.
    const FIND_RELATIONS: &'static str = "SELECT $1, columns.name, 'the database' \
        FROM sqlite_master AS relations LEFT JOIN pragma_table_info(relations.name) AS columns \
        WHERE relations.name = ANY($1) COLLATE NOCASE AND relations.type IN ('table', 'view', 'index')";
    const ELSEWHERE: &'static str = "Let KEYWARD_DB name another file";
    // Not needed: our transactions lock the file from their start (BEGIN IMMEDIATE).
    const LOCK_SCHEMA: Option<&'static str> = None;

    fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    fn query(&self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        let reader = self.readers.get().map_err(|error| StoreError::Unavailable(format!("SQLite: {error}")))?;
        if !matches!(parameters, [Value::List(_), ..]) {
            return query(&reader, sql, parameters);
        }
        // In one transaction, so that the file is locked once for all items.
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
        let mut transaction = Begun { connection: &writer, outlet: &self.outlet, wakes: false };
        let value = work(&mut transaction)?;
        run(&writer, "COMMIT").map_err(fault)?;
        if transaction.wakes {
            self.outlet.wake();
        }
        Ok(value)
    }

    fn listen(&self, link: &mut Option<i64>, changes: &Changes) -> Result<(), StoreError> {
        if let Some(line) = self.opened.lost() {
            return Err(StoreError::Lost(line));
        }
        // On the writer, whose own commits do not change it. On a reader they would.
        let version = self.writer().pragma_query_value(None, "data_version", |row| row.get(0)).map_err(fault)?;
        if *link != Some(version) {
            changes.note(Change::Everything);
            self.outlet.wake();
            *link = Some(version);
        }
        Ok(())
    }
}

/// A transaction on the writer. Rolled back if it is dropped before it was committed.
struct Begun<'a> {
    connection: &'a Connection,
    outlet: &'a Outlet,
    /// Whether its commit wakes the deliverer.
    wakes: bool,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        // Otherwise it was committed, or SQLite itself has ended it after an error.
        if !self.connection.is_autocommit() {
            let _ = run(self.connection, "ROLLBACK");
        }
    }
}

impl Transaction for Begun<'_> {
    fn query(&mut self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        query(self.connection, sql, parameters)
    }

    fn execute(&mut self, sql: &'static str, parameters: &[Value]) -> Result<u64, StoreError> {
        execute(self.connection, sql, parameters)
    }

    fn execute_with_rows(
        &mut self,
        sql: &'static str,
        columns: &'static [Column],
        rows: &mut dyn Iterator<Item = Vec<Value>>,
    ) -> Result<(), StoreError> {
        // There are no round trips to save, so the statement runs once for each row.
        let row = (1..=columns.len()).map(|column| format!("?{column}")).collect::<Vec<_>>().join(", ");
        // VALUES, because SQLite would parse ON CONFLICT after a SELECT as the condition of a join.
        let mut statement =
            self.connection.prepare_cached(&sql.replace("ROWS", &format!("VALUES ({row})"))).map_err(fault)?;
        for row in rows {
            statement.execute(rusqlite::params_from_iter(row)).map_err(fault)?;
        }
        Ok(())
    }

    fn script(&mut self, sql: &str) -> Result<(), StoreError> {
        self.connection.execute_batch(sql).map_err(fault)
    }

    fn notify(&mut self, _: Uuid) -> Result<(), StoreError> {
        Ok(())
    }

    fn outlet(&self) -> &Outlet {
        self.outlet
    }

    fn wake_deliverers(&mut self) -> Result<(), StoreError> {
        self.wakes = true;
        Ok(())
    }

    fn now(&mut self, clock: &Clock) -> Result<Timestamp, StoreError> {
        Ok(clock.now())
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

/// One line for the operator: which file is not opened, why, and which of the files belong to somebody else.
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
    fn a_reader_that_is_returned_within_a_transaction_is_not_used_again() {
        let folder = std::env::temp_dir().join(format!("keyward-reader-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let sqlite = Sqlite::open(&folder.join("keyward.db")).unwrap();
        sqlite.execute("CREATE TABLE t (n INTEGER)", &[]).unwrap();
        let count = || sqlite.query("SELECT count(*) FROM t", &[]).unwrap()[0].int(0).unwrap();
        // As after a panic, or when the transaction could not be ended.
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
