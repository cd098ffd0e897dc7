//! The servers that are measured: child processes, so that what they use is told apart from what the generator uses.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A folder that goes with its owner.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> io::Result<Folder> {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server in a process of its own; killed when it is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// From the start of the process to its first answer.
    pub started_in: Duration,
}

impl Server {
    /// The released program, with nothing in its environment but these settings. It logs into a file of the folder.
    pub fn keyward(folder: &Folder, settings: &[(&str, &str)]) -> io::Result<Server> {
        Server::of_program(Path::new(env!("CARGO_BIN_EXE_keyward")), folder, settings)
    }

    /// The same of another program, such as an earlier release.
    pub fn of_program(program: &Path, folder: &Folder, settings: &[(&str, &str)]) -> io::Result<Server> {
        let mut command = Command::new(program);
        command.env_clear().env("HOST", "127.0.0.1").envs(settings.iter().copied());
        Server::start(command, folder)
    }

    /// This program itself, as the bare server that answers everything with these bytes.
    pub fn bare(folder: &Folder, answer: &str) -> io::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(crate::bare::ARGUMENT).env("ANSWER", answer);
        Server::start(command, folder)
    }

    /// A command of the operator on the data of a server with these settings.
    pub fn operate(folder: &Folder, settings: &[(&str, &str)], arguments: &[&str]) -> io::Result<()> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyward"));
        command.env_clear().envs(settings.iter().copied()).current_dir(&folder.0).args(arguments);
        let output = command.output()?;
        let failure = || io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned());
        output.status.success().then_some(()).ok_or_else(failure)
    }

    fn start(mut command: Command, folder: &Folder) -> io::Result<Server> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let log = File::options().create(true).append(true).open(folder.path("log"))?;
        command.env("PORT", port.to_string()).current_dir(&folder.0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = Instant::now();
        let mut server = Server { child: command.spawn()?, address, started_in: Duration::ZERO };
        while !answers(address) {
            if let Some(status) = server.child.try_wait()? {
                let log = fs::read_to_string(folder.path("log"))?;
                return Err(io::Error::other(format!("the server did not start ({status}): {log}")));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        server.started_in = started.elapsed();
        Ok(server)
    }

    /// Processor time used so far.
    pub fn cpu(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may hold anything; user and system time are the 12th and 13th field behind it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or_default();
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64((ticks(11) + ticks(12)) as f64 / per_second as f64))
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().map_err(io::Error::other)?;
        Ok(kibibytes * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answers(address: SocketAddr) -> bool {
    ask(address, "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").is_ok()
}

/// One request on a connection of its own, which it has to ask to be closed; the whole answer.
pub fn ask(address: SocketAddr, request: &str) -> io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
}

pub const SILENT: (&str, &str) = ("RUST_LOG", "warn");

pub fn on_postgres(url: &str) -> [(&str, &str); 4] {
    [
        SILENT,
        ("DATABASE_URL", url),
        ("JWT_SECRET", "the-secret-of-access-tokens-of-a-benchmark"),
        ("JWT_REFRESH_SECRET", "the-secret-of-refresh-tokens-of-a-benchmark"),
    ]
}
