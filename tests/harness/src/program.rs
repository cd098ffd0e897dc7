//! The program as its users run it: a process of its own, in a folder of its own, with nothing in its environment
//! but its settings.

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;

use keyward::config::Config;
use rustix::process::{Pid, Signal, kill_process};

use crate::http_client::{Client, PATIENCE};
use crate::openapi;
use crate::postgres_cluster::Database;
use crate::service::{Backend, DATA_KEY, Service, TempDir};

/// Runs one story on both stores, each in a fresh home.
#[macro_export]
macro_rules! in_both_homes {
    ($(fn $name:ident($home:ident) $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use $crate::program::Home;
            use $crate::service::Backend;

            fn story($home: Home) $body

            #[test]
            fn on_sqlite() {
                story(Home::fresh(Backend::Sqlite));
            }

            #[test]
            fn on_postgres() {
                if $crate::postgres_cluster::available() {
                    story(Home::fresh(Backend::Postgres));
                }
            }
        }
    )+};
}
pub use crate::in_both_homes;

/// The file of the program. Cargo builds it beside the folder of the test's own program.
///
/// # Panics
/// When it is not there.
#[track_caller]
pub fn path() -> PathBuf {
    let test = env::current_exe().unwrap();
    let built = test.ancestors().skip(1).map(|folder| folder.join("keyward")).find(|file| file.is_file());
    built.unwrap_or_else(|| panic!("there is no program above {}: run the test by cargo", test.display()))
}

/// Where the program runs: its working directory, its settings and its data.
pub struct Home {
    folder: TempDir,
    settings: Vec<(String, String)>,
    database: Option<Database>,
}

impl Home {
    /// An empty folder, in which SQLite has its file, or an empty PostgreSQL database.
    pub fn fresh(backend: Backend) -> Home {
        match backend {
            Backend::Sqlite => Home::new("127.0.0.1", "0"),
            Backend::Postgres => Home::with_database(Database::fresh()),
        }
    }

    /// As [`fresh`](Home::fresh), with this PostgreSQL database.
    pub fn with_database(database: Database) -> Home {
        let mut home = Home::new("127.0.0.1", "0");
        home.set("DATABASE_URL", &database.url());
        home.set("JWT_SECRET", "the-secret-of-access-tokens-of-a-test");
        home.set("JWT_REFRESH_SECRET", "the-secret-of-refresh-tokens-of-a-test");
        home.set("DATA_KEY", DATA_KEY);
        home.database = Some(database);
        home
    }

    /// The same data and address as a server of the test's own process, for an operator's commands.
    pub fn beside(service: &Service) -> Home {
        let mut home = Home::new(&service.address().ip().to_string(), &service.address().port().to_string());
        match service.database() {
            None => home.set("KEYWARD_DB", service.config().store.sqlite_file.to_str().unwrap()),
            Some(database) => home.set("DATABASE_URL", &database.url()),
        }
        home
    }

    fn new(host: &str, port: &str) -> Home {
        let mut home = Home { folder: TempDir::fresh(), settings: Vec::new(), database: None };
        home.set("HOST", host);
        home.set("PORT", port);
        home
    }

    /// The same settings, for a server in the process of the test.
    pub fn config(&self) -> Config {
        let file = self.path("keyward.db").to_str().unwrap().to_string();
        let mut values = HashMap::from([("KEYWARD_DB".to_string(), file)]);
        values.extend(self.settings.iter().cloned());
        Config::from_values(&values).unwrap()
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.settings.push((name.to_string(), value.to_string()));
    }

    pub fn unset(&mut self, name: &str) {
        self.settings.retain(|(known, _)| known != name);
    }

    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `None` on SQLite.
    pub fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// A file in the working directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The names of all files in the working directory, sorted.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(path());
        command.args(arguments).env_clear().envs(self.settings.iter().cloned()).current_dir(self.folder.path());
        command
    }

    /// Runs a command that ends by itself.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.command(arguments), "")
    }

    /// The same, with this on its standard input.
    #[track_caller]
    pub fn run_reading(&self, arguments: &[&str], input: &str) -> Finished {
        finish(&mut self.command(arguments), input)
    }

    /// Starts the server; it answers when this returns.
    #[track_caller]
    pub fn start(&self, settings: &[(&str, &str)]) -> Server<'_> {
        let (_, open) = channel();
        self.start_reading_while(settings, open)
    }

    /// The same, but after the line with the address nobody reads the log until the other end of `gate` is dropped. When
    /// that end sends something, the log is closed instead.
    #[track_caller]
    pub fn start_reading_while(&self, settings: &[(&str, &str)], gate: Receiver<()>) -> Server<'_> {
        self.start_as(self.command(&[]), settings, gate)
    }

    /// Starts the server in a shell that was told `order` before, such as a limit on what it may use.
    #[track_caller]
    pub fn start_after(&self, order: &str, settings: &[(&str, &str)]) -> Server<'_> {
        let usual = self.command(&[]);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{order} && exec \"$0\"")]).arg(usual.get_program()).env_clear();
        command.envs(self.settings.iter().cloned()).current_dir(self.folder.path());
        let (_, open) = channel();
        self.start_as(command, settings, open)
    }

    #[track_caller]
    fn start_as(&self, mut command: Command, settings: &[(&str, &str)], gate: Receiver<()>) -> Server<'_> {
        command.envs(settings.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process(command.spawn().unwrap());
        let stderr = BufReader::new(process.0.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || forward(stderr, &sender, &gate));
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Server { process, lines, log: Vec::new(), address: nowhere, home: self };
        let line = server.wait_for_line("listening on http");
        server.address = address_in(&line).unwrap_or_else(|| panic!("no address in {line:?}"));
        server
    }
}

/// Sends lines on until the stream ends, or until the gate says that it is to be closed.
fn forward(stderr: impl BufRead, sender: &Sender<String>, gate: &Receiver<()>) {
    for line in stderr.lines() {
        let line = line.unwrap_or_else(|error| format!("(a line that cannot be read: {error})"));
        let is_started = address_in(&line).is_some();
        // The test may have ended and read no more. Reading goes on: a server whose log is full cannot end.
        let _ = sender.send(line);
        if is_started && gate.recv().is_ok() {
            return;
        }
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on http")?;
    rest.trim_start_matches('s').strip_prefix("://")?.split([',', ' ', '"']).next()?.parse().ok()
}

/// Killed when it is dropped.
pub struct Process(pub Child);

impl Process {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running server.
pub struct Server<'a> {
    process: Process,
    lines: Receiver<String>,
    /// The lines that were received so far.
    log: Vec<String>,
    address: SocketAddr,
    /// Outlives the server: its folder goes with it.
    home: &'a Home,
}

impl Server<'_> {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn client(&self) -> Client {
        Client::new(self.address, openapi::check)
    }

    /// Where it runs, for an operator's commands.
    pub fn home(&self) -> &Home {
        self.home
    }

    pub fn log(&self) -> &[String] {
        &self.log
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// The next line of the log that holds this text.
    #[track_caller]
    pub fn wait_for_line(&mut self, part: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(why) => panic!("no line with {part:?} ({why}):\n{}", self.log.join("\n")),
            }
        }
    }

    /// Ends it with SIGTERM.
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.signal(Signal::TERM);
        self.finish()
    }

    /// Waits until it ends. What it wrote is on `stderr`.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the server does not end:\n{}", self.log.join("\n")),
            }
        }
        let code = self.process.0.wait().unwrap().code();
        let stderr = self.log.iter().map(|line| format!("{line}\n")).collect();
        Finished { code, stdout: String::new(), stderr }
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }
}

/// What a process left behind.
#[derive(Debug)]
pub struct Finished {
    /// `None`: ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Its standard output. Fails when it did not succeed, or wrote anything to standard error.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout
    }

    /// The one line that it said when it failed with this code.
    #[track_caller]
    pub fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        let line = self.stderr.strip_prefix("keyward: ").and_then(|line| line.strip_suffix('\n'));
        line.filter(|line| !line.is_empty() && !line.contains('\n')).unwrap_or_else(|| panic!("not one line: {self:?}"))
    }
}

/// Runs a process to its end.
#[track_caller]
pub fn finish(command: &mut Command, input: &str) -> Finished {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process(command.spawn().unwrap());
    // A program that refuses its arguments does not read its input.
    let _ = process.0.stdin.take().unwrap().write_all(input.as_bytes());
    let (stdout, stderr) = (gather(process.0.stdout.take().unwrap()), gather(process.0.stderr.take().unwrap()));
    let text = |stream: Receiver<String>| {
        stream.recv_timeout(PATIENCE).unwrap_or_else(|why| panic!("{command:?} does not end ({why})"))
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    let code = process.0.wait().unwrap().code();
    Finished { code, stdout, stderr }
}

fn gather(mut stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let _ = sender.send(if let Err(error) = read { format!("{text}({error})") } else { text });
    });
    receiver
}
