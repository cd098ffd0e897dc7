//! A private, throw-away PostgreSQL cluster for this test process, and a fresh database for each test.
//!
//! The cluster is started from the installed server binaries when the first test asks for a database. A
//! shell stands between it and the tests: it holds the other end of a pipe that only this process has open,
//! and when the pipe closes, however the tests ended, it stops the server and removes every file.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, Config, NoTls};

use crate::tools::{Tool, installed};

const HOST: &str = "127.0.0.1";
pub const USER: &str = "keyward";
const STARTUP_LIMIT: Duration = Duration::from_secs(60);

/// Whether the PostgreSQL half of the suite can run here; where it cannot, the caller skips it, as [`installed`] says.
#[track_caller]
pub fn available() -> bool {
    installed(&[Tool::Postgres])
}

/// An empty database that nobody else uses, dropped with this value.
pub struct Database {
    cluster: &'static Cluster,
    name: String,
}

impl Database {
    /// Starts the cluster at the first call. To be called only where [`available`] says so.
    pub fn fresh() -> Database {
        Database::in_cluster(Cluster::shared())
    }

    /// The same in a cluster of its own, for tests that change the server's settings.
    pub fn apart() -> Database {
        let cluster = Cluster::start().unwrap_or_else(|reason| panic!("PostgreSQL did not start: {reason}"));
        Database::in_cluster(Box::leak(Box::new(cluster)))
    }

    fn in_cluster(cluster: &'static Cluster) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("keyward_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let strategy = cluster.strategy;
        cluster
            .administer(&format!("CREATE DATABASE {name} TEMPLATE template0 {strategy}"))
            .unwrap_or_else(|error| panic!("cannot create database {name}: {error:?}"));
        Database { cluster, name }
    }

    pub fn url(&self) -> String {
        self.url_at(self.cluster.port)
    }

    /// With another port, such as that of a relay.
    pub fn url_at(&self, port: u16) -> String {
        let Database { cluster, name } = self;
        format!("postgres://{USER}:{}@{HOST}:{port}/{name}", cluster.password)
    }

    pub fn host(&self) -> &str {
        HOST
    }

    pub fn port(&self) -> u16 {
        self.cluster.port
    }

    pub fn user(&self) -> &str {
        USER
    }

    pub fn password(&self) -> &str {
        &self.cluster.password
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A connection of the test's own, to look into the tables or to disturb them.
    pub fn client(&self) -> Client {
        connect(self.cluster.port, &self.cluster.password, &self.name)
            .unwrap_or_else(|error| panic!("cannot connect to {}: {error:?}", self.name))
    }

    /// A connection to another database of the cluster, to watch this one without being counted in it.
    pub fn observer(&self) -> Client {
        connect(self.cluster.port, &self.cluster.password, "postgres")
            .unwrap_or_else(|error| panic!("cannot connect to the cluster: {error:?}"))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // WITH (FORCE) ends sessions too, but then sleeps 100 ms before it looks whether they are gone.
        let Database { cluster, name } = self;
        let end_sessions = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        let deadline = Instant::now() + Duration::from_millis(100);
        while Instant::now() < deadline && cluster.administer(&end_sessions).is_ok_and(|ended| ended > 0) {
            thread::sleep(Duration::from_millis(1));
        }
        // What cannot be dropped goes with the cluster; it only saves room while the tests run.
        let _ = cluster.administer(&format!("DROP DATABASE {name} WITH (FORCE)"));
    }
}

struct Cluster {
    port: u16,
    password: String,
    /// How CREATE DATABASE is told to copy the template, where the server knows the clause.
    strategy: &'static str,
    /// One connection for all tests, which create their databases one after the other.
    administrator: Mutex<Client>,
    /// Holds the pipe whose closing ends the cluster.
    _shell: Child,
}

impl Cluster {
    fn shared() -> &'static Cluster {
        static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
        CLUSTER
            .get_or_init(Cluster::start)
            .as_ref()
            .unwrap_or_else(|reason| panic!("PostgreSQL did not start: {reason}"))
    }

    fn start() -> Result<Cluster, String> {
        let binaries = BINARIES.as_ref().ok_or("no server binaries found")?;
        let password = random_hex();
        // Another process may take the free port before the server does.
        let mut attempts = 5;
        let (shell, port) = loop {
            attempts -= 1;
            let port = free_port().map_err(|error| format!("no free port: {error}"))?;
            match start_server(binaries, &password, port) {
                Ok(shell) => break (shell, port),
                Err(reason) if attempts > 0 && reason.contains("could not bind") => {}
                Err(reason) => return Err(reason),
            }
        };

        let failed = |error| format!("{error:?}");
        let mut administrator = connect(port, &password, "postgres").map_err(failed)?;
        let version = "SELECT current_setting('server_version_num')::int";
        let version: i32 = administrator.query_one(version, &[]).map_err(failed)?.get(0);
        // Copying files takes a third of the time of the default, which writes every page to the log. Before
        // version 15 it was the only way and had no name.
        let strategy = if version >= 150_000 { "STRATEGY file_copy" } else { "" };
        let administrator = Mutex::new(administrator);
        Ok(Cluster { port, password, strategy, administrator, _shell: shell })
    }

    /// Returns the number of rows.
    fn administer(&self, statement: &str) -> Result<u64, postgres::Error> {
        self.administrator.lock().unwrap_or_else(PoisonError::into_inner).execute(statement, &[])
    }
}

fn connect(port: u16, password: &str, database: &str) -> Result<Client, postgres::Error> {
    Config::new().host(HOST).port(port).user(USER).password(password).dbname(database).connect(NoTls)
}

/// Makes the cluster, runs the server, and cleans up when standard input closes or the server ends by itself.
///
/// The arguments are the directory, initdb, postgres, the user, and the server's own arguments. SIGQUIT stops the
/// server at once; it is repeated because a server that is still starting ignores it.
const SHELL: &str = r#"
trap '' HUP INT TERM
directory=$1 initdb=$2 postgres=$3 user=$4
shift 4
exec 3<&0 </dev/null
if "$initdb" --pgdata="$directory/data" --username="$user" --pwfile="$directory/password" \
    --auth=scram-sha-256 --encoding=UTF8 --locale=C --wal-segsize=1 --no-sync \
    >"$directory/log" 2>&1
then
    "$postgres" -D "$directory/data" "$@" >"$directory/log" 2>&1 3<&- &
    server=$!
    { read -r _ <&3; while kill -QUIT $server; do sleep 0.1; done; } 2>/dev/null &
    watcher=$!
    wait $server
    kill -KILL $watcher
fi
tail -n 20 "$directory/log" >&2
rm -rf "$directory"
"#;

/// Nothing here has to survive a crash, so nothing waits for the disk.
const SETTINGS: [&str; 11] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=500",
    "shared_buffers=32MB",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=64MB",
    "autovacuum=off",
];

/// Returns the shell that holds the server, once the server takes connections.
fn start_server(binaries: &Path, password: &str, port: u16) -> Result<Child, String> {
    let (directory, owner) = create_directory(password)?;
    let mut command = Command::new("sh");
    command
        .args(["-c", SHELL, "sh"])
        .arg(&directory)
        .args([binaries.join("initdb"), binaries.join("postgres")])
        .args([USER, "-p", &port.to_string()])
        .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]))
        // Fixed, so that messages are in English and initdb need not search for the time zone.
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .current_dir("/")
        // Out of reach of the terminal's Ctrl-C, which would end the shell before it has cleaned up.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    let mut shell = command.spawn().map_err(|error| format!("cannot run sh: {error}"))?;

    let deadline = Instant::now() + STARTUP_LIMIT;
    while !is_ready(&directory) {
        if let Ok(Some(_)) = shell.try_wait() {
            // A parent that its user may not write to keeps the shell from removing the directory.
            let _ = fs::remove_dir_all(&directory);
            let mut log = String::new();
            if let Some(mut stderr) = shell.stderr.take() {
                let _ = stderr.read_to_string(&mut log);
            }
            return Err(log);
        }
        if Instant::now() > deadline {
            return Err(format!("not ready after {STARTUP_LIMIT:?}"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(shell)
}

/// The server writes its state into the eighth line of postmaster.pid.
fn is_ready(directory: &Path) -> bool {
    fs::read_to_string(directory.join("data/postmaster.pid"))
        .is_ok_and(|pid_file| pid_file.lines().nth(7).is_some_and(|state| state.trim() == "ready"))
}

/// A directory with the password file in it, and the user it was given to: the server refuses to run as root.
pub fn create_directory(password: &str) -> Result<(PathBuf, Option<(u32, u32)>), String> {
    let name = format!("keyward-postgres-{}", random_hex());
    let directory = [memory_directory(), Some(env::temp_dir())]
        .into_iter()
        .flatten()
        .map(|parent| parent.join(&name))
        .find(|directory| DirBuilder::new().mode(0o700).create(directory).is_ok())
        .ok_or("cannot create a temporary directory")?;

    let prepare = || -> io::Result<Option<(u32, u32)>> {
        let password_file = directory.join("password");
        fs::write(&password_file, password)?;
        let is_root = fs::metadata(&directory)?.uid() == 0;
        if !is_root {
            return Ok(None);
        }
        let (user, group) = unprivileged_user()?;
        chown(&password_file, Some(user), Some(group))?;
        chown(&directory, Some(user), Some(group))?;
        Ok(Some((user, group)))
    };
    match prepare() {
        Ok(owner) => Ok((directory, owner)),
        Err(error) => {
            let _ = fs::remove_dir_all(&directory);
            Err(format!("cannot prepare {}: {error}", directory.display()))
        }
    }
}

/// Memory, where there is plenty: a database is some 300 files, and creating them is most of its cost.
fn memory_directory() -> Option<PathBuf> {
    let directory = "/dev/shm";
    let report = Command::new("df").args(["-Pk", directory]).output().ok()?;
    let report = String::from_utf8(report.stdout).ok()?;
    let free_kibibytes: u64 = report.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    (free_kibibytes >= 1024 * 1024).then(|| PathBuf::from(directory))
}

/// User and group id of the account that may run the server.
fn unprivileged_user() -> io::Result<(u32, u32)> {
    let accounts = fs::read_to_string("/etc/passwd")?;
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| {
            let is_named = |line: &&str| line.split(':').next() == Some(*name);
            let mut fields = accounts.lines().find(is_named)?.split(':').skip(2);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .ok_or_else(|| io::Error::other("neither a user postgres nor a user nobody to run as"))
}

/// Where initdb and postgres are installed.
pub static BINARIES: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let configured = Command::new("pg_config").arg("--bindir").output().ok();
    let configured = configured.and_then(|output| String::from_utf8(output.stdout).ok());
    let mut candidates = vec![PathBuf::from(configured.unwrap_or_default().trim())];
    candidates.extend(newest_first("/usr/lib/postgresql", ""));
    candidates.push(PathBuf::from("/usr/local/pgsql/bin"));
    candidates.extend(newest_first("/opt/homebrew/opt", "postgresql"));
    candidates
        .into_iter()
        .find(|directory| ["initdb", "postgres"].iter().all(|program| directory.join(program).is_file()))
});

/// The `bin` directories of the versions installed side by side, such as `15/bin` or `postgresql@17/bin`.
fn newest_first(parent: &str, prefix: &str) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.trim_start_matches('@');
            Some((version.parse().unwrap_or(0), entry.path().join("bin")))
        })
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, directory)| directory).collect()
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Cannot be guessed: a client that connects may run programs as the server's user.
pub fn random_hex() -> String {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).expect("/dev/urandom is readable");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
