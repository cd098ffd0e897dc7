//! A PostgreSQL server of a test's own and its standby, to be killed, hung, stopped and promoted.
//!
//! What the one has acknowledged is with the other. A shell waits until the test is over, however it ends, and removes
//! both with all their files.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use keyward_harness::postgres_cluster::{BINARIES, USER, create_directory, random_hex};
use keyward_harness::relay::listen;
use postgres::{Client, Config, NoTls};
use rustix::process::{Pid, Signal, kill_process};

const STARTUP_LIMIT: Duration = Duration::from_secs(60);

pub struct Pair {
    pub primary: Node,
    pub standby: Option<Node>,
    /// Holds the pipe whose closing ends both.
    _janitor: Child,
}

pub struct Node {
    pub port: u16,
    password: String,
    data: PathBuf,
    owner: Option<(u32, u32)>,
    settings: Vec<String>,
    process: Option<Child>,
}

/// A killed postmaster leaves processes that see it and end; a stopped one has to be woken for that.
const JANITOR: &str = r#"
trap '' INT HUP TERM
read -r _
for file in "$1"/*/postmaster.pid; do
    pid=$(head -n 1 "$file" 2>/dev/null) && kill -KILL "$pid" $(cat "/proc/$pid/task/$pid/children") 2>/dev/null
done
while ! rm -rf "$1" 2>/dev/null; do sleep 0.1; done
"#;

/// A crash of the machine is not among the cases; one of the server is, and loses nothing that it has written.
const SETTINGS: [&str; 8] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "shared_buffers=32MB",
    "fsync=off",
    "wal_level=replica",
    "wal_keep_size=256MB",
    "hot_standby=on",
    "autovacuum=off",
];

fn unprivileged(command: &mut Command, owner: Option<(u32, u32)>) -> &mut Command {
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command.env("LC_ALL", "C").env("TZ", "UTC").current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

impl Pair {
    /// One server alone.
    pub fn single() -> Pair {
        Pair::start(false)
    }

    /// A server whose commits wait until its standby shows them.
    pub fn replicated() -> Pair {
        Pair::start(true)
    }

    fn start(replicated: bool) -> Pair {
        let binaries = BINARIES.as_ref().unwrap();
        let password = random_hex();
        let (directory, owner) = create_directory(&password).unwrap();
        let mut janitor = Command::new("/bin/sh");
        janitor.args(["-c", JANITOR, "sh"]).arg(&directory).process_group(0).stdin(Stdio::piped());
        let janitor = janitor.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let data = directory.join("primary");
        let mut initdb = Command::new(binaries.join("initdb"));
        initdb.arg("--pgdata").arg(&data).arg("--pwfile").arg(directory.join("password"));
        initdb.args(["--username", USER, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        let made = unprivileged(&mut initdb, owner).status().unwrap();
        assert!(made.success(), "initdb: {made}");
        let node = |data: &Path, settings: &[&str]| Node {
            // Nobody else may be given it while the server is down.
            port: listen().local_addr().unwrap().port(),
            password: password.clone(),
            data: data.to_path_buf(),
            owner,
            settings: SETTINGS.iter().chain(settings).map(|setting| setting.to_string()).collect(),
            process: None,
        };
        if !replicated {
            let mut primary = node(&data, &[]);
            primary.start();
            return Pair { primary, standby: None, _janitor: janitor };
        }
        let mut primary = node(&data, &["synchronous_standby_names=*", "synchronous_commit=remote_apply"]);
        // A copy of a server that has never run is a standby of it.
        let copy = directory.join("standby");
        let copied = unprivileged(Command::new("cp").arg("-a").arg(&data).arg(&copy), owner).status().unwrap();
        assert!(copied.success(), "cp: {copied}");
        let signal = copy.join("standby.signal");
        fs::write(&signal, "").unwrap();
        if let Some((user, group)) = owner {
            chown(&signal, Some(user), Some(group)).unwrap();
        }
        let upstream = format!("primary_conninfo=host=127.0.0.1 port={} user={USER} password={password}", primary.port);
        let mut standby = node(&copy, &[&upstream]);
        primary.start();
        standby.start();
        Pair { primary, standby: Some(standby), _janitor: janitor }
    }
}

impl Node {
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Of its first database, at this port.
    pub fn url(&self, port: u16) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{port}/postgres", self.password)
    }

    /// Returns when it takes connections. What a killed one has left behind may have to end first.
    pub fn start(&mut self) {
        let (started, log) = (Instant::now(), self.data.with_extension("log"));
        let patience = || {
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(started.elapsed() < STARTUP_LIMIT, "PostgreSQL does not start: {}", said());
        };
        loop {
            let mut command = Command::new(BINARIES.as_ref().unwrap().join("postgres"));
            command.arg("-D").arg(&self.data).args(["-p", &self.port.to_string()]);
            command.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
            let said = File::create(&log).unwrap();
            let mut process = unprivileged(&mut command, self.owner).stderr(said).spawn().unwrap();
            while process.try_wait().unwrap().is_none() {
                if self.is_ready(process.id()) {
                    self.process = Some(process);
                    return;
                }
                patience();
                thread::sleep(Duration::from_millis(2));
            }
            patience();
        }
    }

    /// The server writes its process id into the first line of postmaster.pid, and its state into the eighth.
    fn is_ready(&self, pid: u32) -> bool {
        let Ok(file) = fs::read_to_string(self.data.join("postmaster.pid")) else { return false };
        let lines: Vec<&str> = file.lines().map(str::trim).collect();
        lines.first() == Some(&pid.to_string().as_str())
            && lines.get(7).is_some_and(|state| ["ready", "standby"].contains(state))
    }

    pub fn client(&self) -> Client {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(USER).password(&self.password).dbname("postgres");
        config.connect(NoTls).unwrap()
    }

    /// As on a machine that loses its power: no goodbye to anyone.
    pub fn kill(&mut self) {
        self.signal_all(Signal::KILL);
        self.process.take().unwrap().wait().unwrap();
    }

    /// In good order, but without waiting for clients: PostgreSQL's fast shutdown.
    pub fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        kill_process(Pid::from_child(&process), Signal::INT).unwrap();
        process.wait().unwrap();
    }

    /// It answers nobody any more, while the system goes on taking connections for it.
    pub fn hang(&self) {
        self.signal_all(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal_all(Signal::CONT);
    }

    /// The process that makes the others is first, so that none is made meanwhile. Killed, it leaves them behind.
    fn signal_all(&self, signal: Signal) {
        let postmaster = self.process.as_ref().unwrap().id();
        let children =
            || fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        let before = children();
        kill_process(Pid::from_raw(postmaster.try_into().unwrap()).unwrap(), signal).unwrap();
        for pid in before.split_whitespace().chain(children().split_whitespace()) {
            // It may have ended.
            let _ = kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), signal);
        }
    }

    /// Returns when it takes writes.
    pub fn promote(&self) {
        let promoted: bool = self.client().query_one("SELECT pg_promote(true, 60)", &[]).unwrap().get(0);
        assert!(promoted);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}
