//! A whole site: a real nginx or Caddy with the configuration that is shipped, Keyward and a service behind it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::process::Signal;

use super::upstream::Upstream;
use crate::http_client::{Answer, Client, PATIENCE};
use crate::process::program::Process;
use crate::relay::{Relay, free_port};
use crate::service::{Backend, Service, TempDir};

/// Runs one story behind each gateway.
macro_rules! behind_both_gateways {
    ($(fn $name:ident($site:ident) $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use $crate::gateways::site::{Gateway, Site};

            fn story($site: &Site) $body

            #[test]
            fn behind_nginx() {
                story(&Site::start(Gateway::Nginx));
            }

            #[test]
            fn behind_caddy() {
                story(&Site::start(Gateway::Caddy));
            }
        }
    )+};
}
pub(crate) use behind_both_gateways;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    Nginx,
    Caddy,
}

/// Said by a client, these words must not reach the service; see [`Site::forged_words_arrived`].
pub const FORGED: &str = "forged";

pub struct Site {
    pub gateway: Gateway,
    /// Ends before what it talks to.
    program: Program,
    /// Between the gateway and Keyward.
    pub link: Relay,
    /// Between the gateway and the service.
    pub wire: Relay,
    pub service: Service,
    pub upstream: Upstream,
    client: Client,
}

impl Site {
    pub fn start(gateway: Gateway) -> Site {
        Site::start_with(gateway, Backend::Sqlite, &[])
    }

    /// With settings of the test's own for Keyward.
    pub fn start_with(gateway: Gateway, backend: Backend, settings: &[(&str, &str)]) -> Site {
        let service = Service::start_with(backend, settings, |_| {});
        let upstream = Upstream::start();
        let (link, wire) = (Relay::to(service.address()), Relay::to_marking(upstream.address(), FORGED));
        let program = Program::start(gateway, link.addr(), wire.addr());
        let client = Client::new(program.address, |_, _, _| {});
        Site { gateway, program, link, wire, service, upstream, client }
    }

    pub fn address(&self) -> SocketAddr {
        self.program.address
    }

    /// Through the gateway, on one connection as long as it stays open.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn forged_words_arrived(&self) -> bool {
        self.wire.heard_words()
    }

    /// Fails when anything has come through to the service.
    #[track_caller]
    pub fn assert_nothing_came_through(&self, what: &str) {
        let seen = self.upstream.take_seen();
        assert!(seen.is_empty(), "{what}: {seen:?}");
    }

    /// Fails when this is not one of Keyward's and the gateways' errors, as JSON.
    #[track_caller]
    pub fn assert_refused(&self, answer: &Answer, status: u16) {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.json()["statusCode"], status, "{answer:?}");
    }
}

/// A gateway that runs.
struct Program {
    gateway: Gateway,
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Program {
    /// It answers when this returns.
    fn start(gateway: Gateway, keyward: SocketAddr, service: SocketAddr) -> Program {
        // Somebody else may take the port in the moment between finding it and listening on it.
        loop {
            match Program::try_start(gateway, free_port(), keyward, service) {
                Ok(program) => return program,
                Err(log) if log.to_lowercase().contains("address already in use") => {}
                Err(log) => panic!("{gateway:?} does not start:\n{log}"),
            }
        }
    }

    fn try_start(gateway: Gateway, port: u16, keyward: SocketAddr, service: SocketAddr) -> Result<Program, String> {
        let folder = TempDir::new();
        let shipped = folder.path().join("shipped");
        std::fs::write(&shipped, shipped_configuration(gateway, port, keyward, service)).unwrap();
        let (mut command, is_ready) = match gateway {
            Gateway::Nginx => nginx(folder.path(), &shipped),
            Gateway::Caddy => caddy(folder.path(), &shipped),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process(command.spawn().unwrap());
        let lines = lines_of(BufReader::new(process.0.stderr.take().unwrap()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let program = Program { gateway, process, address, _folder: folder };
        let mut log = String::new();
        loop {
            let line = lines.recv_timeout(PATIENCE).map_err(|why| format!("{log}({why})\n"))?;
            log = format!("{log}{line}\n");
            if line.contains(is_ready) {
                return Ok(program);
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Killed, its master would leave the worker behind; Caddy would wait for whoever is still connected.
        if self.gateway == Gateway::Nginx {
            self.process.signal(Signal::TERM);
            let _ = self.process.0.wait();
        }
    }
}

/// What is in packaging/, with the addresses of a test.
fn shipped_configuration(gateway: Gateway, port: u16, keyward: SocketAddr, service: SocketAddr) -> String {
    let (mut text, listen, listen_here) = match gateway {
        Gateway::Nginx => {
            let text = include_str!("../../../packaging/nginx.conf");
            (text.to_string(), "\n    listen 80;\n", format!("\n    listen 127.0.0.1:{port};\n"))
        }
        Gateway::Caddy => {
            let text = include_str!("../../../packaging/Caddyfile");
            (text.to_string(), "\n:80 {\n", format!("\n:{port} {{\n"))
        }
    };
    // By way of names: an address that has been put in may begin like the next to be replaced.
    for (shipped, name) in [(listen, "{listen}"), ("127.0.0.1:3000", "{keyward}"), ("127.0.0.1:8080", "{service}")] {
        assert!(text.contains(shipped), "the {gateway:?} configuration lacks {shipped:?}");
        text = text.replace(shipped, name);
    }
    text.replace("{listen}", &listen_here)
        .replace("{keyward}", &keyward.to_string())
        .replace("{service}", &service.to_string())
}

/// The command, and what nginx says when it listens.
fn nginx(folder: &Path, shipped: &Path) -> (Command, &'static str) {
    let around = format!(
        "daemon off;
         worker_processes 1;
         pid pid;
         error_log stderr notice;
         events {{ worker_connections 256; }}
         http {{
             access_log off;
             client_body_temp_path body;
             proxy_temp_path proxy;
             fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi;
             scgi_temp_path scgi;
             include {};
         }}",
        shipped.display()
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, around).unwrap();
    let mut command = Command::new(program("nginx"));
    command.args(["-e", "stderr", "-p"]).arg(folder).arg("-c").arg(file);
    (command, "start worker process ")
}

/// The command, and what Caddy says when it listens.
fn caddy(folder: &Path, shipped: &Path) -> (Command, &'static str) {
    let around = format!("{{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}}\nimport {}\n", shipped.display());
    let file = folder.join("Caddyfile");
    std::fs::write(&file, around).unwrap();
    let mut command = Command::new(program("caddy"));
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
        command.env(variable, folder);
    }
    (command, "serving initial configuration")
}

/// Where a program is, also one that is for root alone.
///
/// # Panics
/// When it is not installed: what is shipped for it would go untested.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("{name} is not installed, so packaging/ cannot be tested (Debian: apt-get install nginx caddy)")
    })
}

/// Read to their end, so that the program never waits for its log.
fn lines_of(stream: impl BufRead + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in stream.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    lines
}
