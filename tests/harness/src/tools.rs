//! The programs that some tests need and not every machine has.
//!
//! Where one is missing, its tests are skipped, and one line at the end of the run says how many and how to install it.
//! With `CI=true` the first of these tests fails.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::mail_server;
use crate::postgres_cluster;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    Postgres,
    PgBouncer,
    Nginx,
    Caddy,
    Envoy,
    Traefik,
    Bash,
    Curl,
    Openssl,
    Sqlite,
    Strace,
    Aiosmtpd,
}

impl Tool {
    /// Where it is: in `PATH`, where there is what is for root alone, or in the folder that `.ci/install` fills.
    pub fn path(self) -> Option<PathBuf> {
        let name = match self {
            Tool::Postgres => return postgres_cluster::BINARIES.as_ref().map(|folder| folder.join("postgres")),
            // A package of Python, for the programs that import it.
            Tool::Aiosmtpd => return Some(mail_server::packages().join("aiosmtpd")).filter(|folder| folder.is_dir()),
            Tool::PgBouncer => "pgbouncer",
            Tool::Nginx => "nginx",
            Tool::Caddy => "caddy",
            Tool::Envoy => "envoy",
            Tool::Traefik => "traefik",
            Tool::Bash => "bash",
            Tool::Curl => "curl",
            Tool::Openssl => "openssl",
            Tool::Sqlite => "sqlite3",
            Tool::Strace => "strace",
        };
        let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/gateways");
        let installed = ["envoy/_bin", "bin"].map(|folder| PathBuf::from(installed).join(folder));
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = installed.into_iter().chain(env::split_paths(&path));
        let folders = folders.chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
        folders.map(|folder| folder.join(name)).find(|file| file.is_file())
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tool::Postgres => f.write_str("PostgreSQL"),
            Tool::Nginx => f.write_str("nginx"),
            Tool::Bash => f.write_str("bash"),
            Tool::Curl => f.write_str("curl"),
            Tool::Openssl => f.write_str("openssl"),
            Tool::Sqlite => f.write_str("sqlite3"),
            Tool::Strace => f.write_str("strace"),
            Tool::Aiosmtpd => f.write_str("aiosmtpd"),
            Tool::PgBouncer | Tool::Caddy | Tool::Envoy | Tool::Traefik => write!(f, "{self:?}"),
        }
    }
}

/// Whether all of these are installed. Where one is not, the caller ends its test: it counts as skipped.
///
/// # Panics
/// With `CI=true`, where a test that did not run would pass for one that did.
#[track_caller]
pub fn installed(tools: &[Tool]) -> bool {
    let Some(missing) = tools.iter().find(|tool| tool.path().is_none()) else { return true };
    assert!(env::var("CI").as_deref() != Ok("true"), "CI=true, but {missing} is not installed; {INSTALL}");
    skip(&missing.to_string());
    false
}

/// Counts this test, or a part of it, as skipped for want of something that not every machine can have.
pub fn skip(missing: &str) {
    static SKIPPED: Mutex<Option<Skipped>> = Mutex::new(None);
    let mut skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    skipped.get_or_insert_with(Skipped::none).add(missing);
}

const INSTALL: &str = "on Debian, .ci/install installs what is missing";

/// Prints the last line that was written to it, when the test process ends and closes the pipe: libtest has no hook for
/// the end of a run.
const PRINTER: &str = r#"
while IFS= read -r line; do last=$line; done
printf '\n%s\n\n' "$last" >&2
"#;

/// What was skipped in this process.
struct Skipped {
    tests: BTreeMap<String, BTreeSet<String>>,
    printer: ChildStdin,
}

impl Skipped {
    fn none() -> Skipped {
        let mut command = Command::new("/bin/sh");
        let printer = command.args(["-c", PRINTER]).stdin(Stdio::piped()).spawn().unwrap().stdin.take().unwrap();
        Skipped { tests: BTreeMap::new(), printer }
    }

    fn add(&mut self, missing: &str) {
        let tests = self.tests.entry(missing.to_string()).or_default();
        // With one thread for all tests, libtest gives it no test's name.
        let test = match thread::current().name() {
            Some(name) if name != "main" => name.to_string(),
            _ => tests.len().to_string(),
        };
        tests.insert(test);
        let count: usize = self.tests.values().map(BTreeSet::len).sum();
        let missing: Vec<String> =
            self.tests.iter().map(|(missing, tests)| format!("{missing} ({})", tests.len())).collect();
        let line = format!("SKIPPED {count} tests for want of {}; {INSTALL}", missing.join(", "));
        // Nothing depends on that it is read.
        let _ = writeln!(self.printer, "{line}");
    }
}
