//! A whole site: a real gateway with the configuration that is shipped, Keyward and a service behind it.

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use keyward_harness::http_client::{Answer, Client, PATIENCE, connect};
use keyward_harness::program::Process;
use keyward_harness::relay::{Relay, free_port};
use keyward_harness::service::{Backend, Service, TempDir};
use keyward_harness::tools::{Tool, installed};
use rustix::process::Signal;

use super::upstream::Upstream;

/// Runs one story behind each gateway.
macro_rules! behind_each_gateway {
    ($(fn $name:ident($site:ident) $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use $crate::gateways::site::{Gateway, Site};

            fn story($site: &Site) $body

            fn behind(gateway: Gateway) {
                if gateway.is_installed() {
                    story(&Site::start(gateway));
                }
            }

            #[test]
            fn behind_nginx() {
                behind(Gateway::Nginx);
            }

            #[test]
            fn behind_caddy() {
                behind(Gateway::Caddy);
            }

            #[test]
            fn behind_envoy() {
                behind(Gateway::Envoy);
            }

            #[test]
            fn behind_traefik() {
                behind(Gateway::Traefik);
            }
        }
    )+};
}
pub(crate) use behind_each_gateway;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    Nginx,
    Caddy,
    Envoy,
    Traefik,
}

impl Gateway {
    /// Those that are installed.
    pub fn all() -> impl Iterator<Item = Gateway> {
        [Gateway::Nginx, Gateway::Caddy, Gateway::Envoy, Gateway::Traefik]
            .into_iter()
            .filter(|gateway| gateway.is_installed())
    }

    /// Whether its half of the tests can run here; where it cannot, the caller skips it.
    #[track_caller]
    pub fn is_installed(self) -> bool {
        installed(&[self.tool()])
    }

    fn tool(self) -> Tool {
        match self {
            Gateway::Nginx => Tool::Nginx,
            Gateway::Caddy => Tool::Caddy,
            Gateway::Envoy => Tool::Envoy,
            Gateway::Traefik => Tool::Traefik,
        }
    }

    /// The beginning of a line of its log that a good configuration does not cause.
    fn warnings(self) -> &'static [&'static str] {
        match self {
            Gateway::Nginx => &["[warn]", "[error]", "[crit]", "[alert]", "[emerg]"],
            Gateway::Caddy => &["\"level\":\"warn\",", "\"level\":\"error\","],
            Gateway::Envoy => &["[warning]", "[error]", "[critical]"],
            Gateway::Traefik => &["WRN", "ERR", "FTL"],
        }
    }
}

/// Said by a client, these words must not reach the service; see [`Site::forged_words_arrived`].
pub const FORGED: &str = "forged";

/// Part of a request's id, by which it is known among what Keyward is told; see [`Relay::heard_words`].
pub const MARK: &str = "marked";

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
        let (link, wire) = (Relay::to_marking(service.address(), MARK), Relay::to_marking(upstream.address(), FORGED));
        let program = Program::start(gateway, link.addr(), wire.addr());
        let client = Client::unobserved(program.address);
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

    /// Ends the gateway. What it has found wrong since its start.
    pub fn warnings(&self) -> Vec<String> {
        let log = self.program.log();
        let is_warning = |line: &&str| self.gateway.warnings().iter().any(|warning| line.contains(warning));
        // That one is of the test's own making.
        let of_the_test = |line: &&str| line.contains("admin endpoint disabled");
        log.lines().filter(is_warning).filter(|line| !of_the_test(line)).map(str::to_string).collect()
    }

    /// Fails when this is not one of Keyward's and the gateways' errors, as JSON.
    #[track_caller]
    pub fn assert_refused(&self, answer: &Answer, status: u16) {
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")), "{answer:?}");
        assert_eq!(answer.json()["statusCode"], status, "{answer:?}");
    }
}

/// A gateway that runs.
struct Program {
    gateway: Gateway,
    process: Process,
    address: SocketAddr,
    /// What it has said while it started.
    said: String,
    /// What it says later.
    lines: Receiver<String>,
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
        let folder = TempDir::fresh();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (mut command, is_ready) = match gateway {
            Gateway::Nginx => nginx(folder.path()),
            Gateway::Caddy => caddy(folder.path()),
            Gateway::Envoy => envoy(folder.path()),
            Gateway::Traefik => traefik(folder.path()),
        };
        let shipped = folder.path().join(SHIPPED);
        std::fs::write(&shipped, shipped_configuration(gateway, &shipped, address, keyward, service)).unwrap();
        let (output, input) = io::pipe().unwrap();
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(input.try_clone().unwrap()).stderr(input);
        let process = Process(command.spawn().unwrap());
        // It has our end of the pipe.
        drop(command);
        let lines = lines_of(BufReader::new(output));
        let mut said = String::new();
        let is_up = || gateway != Gateway::Traefik || knows_its_routes(address);
        while !said.contains(is_ready) || !is_up() {
            let patience = if said.contains(is_ready) { Duration::from_millis(5) } else { PATIENCE };
            match lines.recv_timeout(patience) {
                Ok(line) => said = format!("{said}{line}\n"),
                Err(RecvTimeoutError::Timeout) if patience < PATIENCE => {}
                Err(why) => return Err(format!("{said}({why})\n")),
            }
        }
        let program = Program { gateway, process, address, said, lines, _folder: folder };
        Ok(program)
    }

    /// Ends it, and tells all that it has said.
    fn log(&self) -> String {
        self.end();
        self.lines.iter().fold(self.said.clone(), |said, line| format!("{said}{line}\n"))
    }

    /// nginx's master, if it were killed, would leave its worker behind. The others, if they were told to stop, would wait for
    /// those who are still connected.
    fn end(&self) {
        self.process.signal(if self.gateway == Gateway::Nginx { Signal::TERM } else { Signal::KILL });
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
        let _ = self.process.0.wait();
    }
}

/// The file with the shipped configuration, in the folder of the test.
const SHIPPED: &str = "shipped.yml";

/// What is in packaging/, with the addresses of a test.
fn shipped_configuration(
    gateway: Gateway,
    file: &Path,
    listen: SocketAddr,
    keyward: SocketAddr,
    service: SocketAddr,
) -> String {
    let port = listen.port();
    let by_colon = |address: SocketAddr| address.to_string();
    let by_field = |address: SocketAddr| format!("address: {}, port_value: {}", address.ip(), address.port());
    let (mut text, here, changed) = match gateway {
        Gateway::Nginx => {
            let text = include_str!("../../../packaging/nginx.conf");
            (text.to_string(), "\n    listen 80;\n", format!("\n    listen {listen};\n"))
        }
        Gateway::Caddy => {
            let text = include_str!("../../../packaging/Caddyfile");
            (text.to_string(), "\n:80 {\n", format!("\n:{port} {{\n"))
        }
        Gateway::Envoy => {
            let text = include_str!("../../../packaging/envoy.yaml");
            (text.to_string(), "address: 0.0.0.0, port_value: 80 ", format!("{} ", by_field(listen)))
        }
        Gateway::Traefik => {
            let text = include_str!("../../../packaging/traefik.yml");
            let text = text.replace("filename: /etc/traefik/traefik.yml", &format!("filename: {}", file.display()));
            let text = format!("{text}\nlog:\n  level: WARN\n");
            (text, "address: \":80\"\n", format!("address: {listen}\n"))
        }
    };
    let mut changes =
        vec![(here, changed), ("127.0.0.1:3000", by_colon(keyward)), ("127.0.0.1:8080", by_colon(service))];
    if gateway == Gateway::Envoy {
        // Here the service's is written in one way alone.
        changes.pop();
        changes.push(("address: 127.0.0.1, port_value: 3000", by_field(keyward)));
        changes.push(("address: 127.0.0.1, port_value: 8080", by_field(service)));
    }
    // By way of names: an address that has been put in may begin like the next to be replaced.
    for (number, (shipped, _)) in changes.iter().enumerate() {
        assert!(text.contains(shipped), "the {gateway:?} configuration lacks {shipped:?}");
        text = text.replace(shipped, &format!("{{change {number}}}"));
    }
    for (number, (_, changed)) in changes.iter().enumerate() {
        text = text.replace(&format!("{{change {number}}}"), changed);
    }
    text
}

/// The command, and what nginx says when it listens.
fn nginx(folder: &Path) -> (Command, &'static str) {
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
             include {SHIPPED};
         }}"
    );
    std::fs::write(folder.join("nginx.conf"), around).unwrap();
    let mut command = command(Gateway::Nginx);
    command.args(["-e", "stderr", "-c", "nginx.conf", "-p"]).arg(folder);
    (command, "start worker process ")
}

/// The command, and what Caddy says when it listens.
fn caddy(folder: &Path) -> (Command, &'static str) {
    let around = format!("{{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}}\nimport {SHIPPED}\n");
    std::fs::write(folder.join("Caddyfile"), around).unwrap();
    let mut command = command(Gateway::Caddy);
    command.args(["run", "--adapter", "caddyfile", "--config", "Caddyfile"]);
    for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
        command.env(variable, folder);
    }
    (command, "serving initial configuration")
}

/// The command, and what Envoy says when it listens.
fn envoy(_: &Path) -> (Command, &'static str) {
    let mut command = command(Gateway::Envoy);
    command.args(["-c", SHIPPED, "--concurrency", "1", "--disable-hot-restart"]);
    (command, "starting main dispatch loop")
}

/// The command. Traefik says nothing when it listens.
fn traefik(_: &Path) -> (Command, &'static str) {
    let mut command = command(Gateway::Traefik);
    command.arg(format!("--configFile={SHIPPED}"));
    (command, "")
}

/// It listens before it does; then this is not found.
fn knows_its_routes(traefik: SocketAddr) -> bool {
    connect(traefik).is_ok() && Client::unobserved(traefik).get("//").send().status == 400
}

fn command(gateway: Gateway) -> Command {
    Command::new(gateway.tool().path().unwrap_or_else(|| panic!("{gateway:?} is not installed")))
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
