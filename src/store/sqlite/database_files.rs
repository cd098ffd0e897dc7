//! SQLite's files: the database, its -wal and its -shm. Checks whether they are still those that were opened, and
//! whether a -wal belongs to the database beside it.
//!
//! SQLite itself checks neither. If a database is replaced while its -wal and -shm are in use, it is mixed up with
//! their content, at once or at the next start.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::base::files::full;

/// How to restore a backup, as the end of an error message.
pub(crate) fn restoring(path: &Path) -> String {
    let path = full(path);
    let path = path.display();
    format!(
        "to restore a backup, stop Keyward, remove {path}-wal and {path}-shm, put the backup in the place of {path}, and start"
    )
}

/// The name of a file that SQLite keeps beside the database.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The files of an open database, by device and inode.
pub(crate) struct Opened {
    path: PathBuf,
    files: Vec<(PathBuf, (u64, u64))>,
}

impl Opened {
    /// Remembers the files that exist. All of them do once a connection has read something.
    pub(crate) fn look(path: &Path) -> Opened {
        let files = ["", "-wal", "-shm"].map(|suffix| beside(path, suffix));
        let known = files.into_iter().filter_map(|file| {
            let identity = identity(&fs::metadata(&file).ok()?);
            Some((file, identity))
        });
        Opened { path: path.to_path_buf(), files: known.collect() }
    }

    /// Whether all of them are still in their place.
    pub(crate) fn are_there(&self) -> bool {
        self.lost().is_none()
    }

    /// One line for the operator if a file was replaced or removed.
    pub(crate) fn lost(&self) -> Option<String> {
        self.files.iter().find_map(|(file, known)| {
            let what = match fs::metadata(file) {
                Ok(found) if identity(&found) != *known => "replaced",
                Err(error) if error.kind() == ErrorKind::NotFound => "removed",
                // It is in its place, or that cannot be found out.
                _ => return None,
            };
            let (file, restoring) = (full(file), restoring(&self.path));
            Some(format!("{} was {what} while it was in use, and no more is written; {restoring}", file.display()))
        })
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// The length of a -wal's header. A -wal that is no longer than this holds no page.
const WAL_HEADER: u64 = 32;

/// Why a database must not be opened.
pub(crate) enum Unfit {
    /// The database and its -wal do not belong together; for an error message.
    Foreign(String),
    Fault(rusqlite::Error),
    Unreadable(io::Error),
}

/// Checks whether a -wal that holds pages is this database's own. A crash leaves such a -wal; so does somebody who puts
/// a backup in the place of the database without removing the -wal. If another process has the database open, it has
/// checked.
pub(crate) fn judge(path: &Path) -> Result<(), Unfit> {
    let size = |path: &Path| match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        found => found.map(|file| file.len()).map_err(Unfit::Unreadable),
    };
    let wal = beside(path, "-wal");
    if size(&wal)? <= WAL_HEADER {
        return Ok(());
    }
    if size(path)? == 0 {
        return Err(Unfit::Foreign("its -wal is there, but the database is not".to_string()));
    }
    match alone(path) {
        Ok(connection) => is_own(&connection, path, &wal),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(()),
        Err(error) => Err(Unfit::Fault(error)),
    }
}

/// The only connection of any process. It does not change the -wal.
fn alone(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::ZERO)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.query_row("SELECT count(*) FROM sqlite_master", (), |_| Ok(()))?;
    Ok(connection)
}

fn is_own(connection: &Connection, path: &Path, wal: &Path) -> Result<(), Unfit> {
    // Closing the file ends the locks of this process on it; there are none but this connection's.
    let mut header = [0; 20];
    File::open(path).and_then(|mut file| file.read_exact(&mut header)).map_err(Unfit::Unreadable)?;
    // A database that uses a -wal says so in its header. What `VACUUM INTO` writes does not.
    if header[18..20] != [2, 2] {
        return Err(Unfit::Foreign("its -wal is another database's".to_string()));
    }
    let [database, wal] = [path, wal].map(fs::metadata);
    if !may_have_been_replaced(&database.map_err(Unfit::Unreadable)?, &wal.map_err(Unfit::Unreadable)?) {
        return Ok(());
    }
    let found = connection.query_row("PRAGMA integrity_check(1)", (), |row| row.get::<_, String>(0));
    match found.map_err(Unfit::Fault)?.as_str() {
        "ok" => Ok(()),
        _ => Err(Unfit::Foreign("it does not go together with its -wal".to_string())),
    }
}

/// Whether somebody else than SQLite may have written the database since its -wal began. SQLite writes to the database
/// only what the -wal already holds, and it neither renames files nor sets their times.
fn may_have_been_replaced(database: &Metadata, wal: &Metadata) -> bool {
    let written = (database.mtime(), database.mtime_nsec());
    written != (database.ctime(), database.ctime_nsec()) || written >= (wal.mtime(), wal.mtime_nsec())
}
