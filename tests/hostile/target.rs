//! The one server of all cases about the network, and what has to hold of a server after whatever was done to it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use keyward_harness::http_client::{Answer, Client, PATIENCE};
use keyward_harness::program::{Server, finish};
use keyward_harness::service::{Account, new_folder};
use serde_json::{Value, json};

/// How late a busy machine may be.
pub const SLACK: Duration = Duration::from_secs(10);
const MOST_MEMORY_KIB: u64 = 200 * 1000 * 1000 / 1024;

/// One address does here what many would do.
pub const NO_LIMITS: [(&str, &str); 7] = [
    ("RATE_LIMIT_SIGNUP", "off"),
    ("RATE_LIMIT_LOGIN", "off"),
    ("RATE_LIMIT_REFRESH", "off"),
    ("RATE_LIMIT_FAILED_KEYS", "off"),
    ("RATE_LIMIT_WRITES", "off"),
    ("RATE_LIMIT_ADMIN", "off"),
    ("RATE_LIMIT_MAIL", "off"),
];

/// Does something to the one server, and holds afterwards that it has taken it well.
pub fn attack(case: impl FnOnce(&Witness)) {
    static TARGET: LazyLock<Target> = LazyLock::new(Target::start);
    case(&TARGET.witness);
    TARGET.witness.testify();
    TARGET.has_no_faults();
}

const WITNESS: &str = "witness@example.com";
/// Users verify keys and administer only if the operator lets them.
pub const GRANT: [&str; 5] = ["user", "grant", WITNESS, "keys:verify", "keyward:admin"];

/// A normal client of a server, who remembers which process it was.
pub struct Witness {
    pub address: SocketAddr,
    pid: u32,
    /// In the system's ticks: a process id alone may come back.
    born: String,
    pub account: Account,
    pub key: String,
}

impl Witness {
    pub fn of(server: &Server<'_>) -> Witness {
        Witness::granted_by(server, server.home().command(&GRANT))
    }

    /// `grant`: the command that gives the witness the scopes of [`GRANT`].
    pub fn granted_by(server: &Server<'_>, grant: Command) -> Witness {
        Witness::new(server.address(), server.pid(), grant)
    }

    fn new(address: SocketAddr, pid: u32, mut grant: Command) -> Witness {
        let client = Client::unobserved(address);
        let account = client.sign_up(WITNESS);
        finish(&mut grant, "").succeeded();
        let key = create_key(&client, &account);
        Witness { address, pid, born: birth(pid), account, key }
    }

    /// Served in reasonable time, from memory and from the store.
    #[track_caller]
    pub fn is_served(&self) {
        let asked = Instant::now();
        let client = Client::unobserved(self.address);
        let statuses = [
            client.get("/health").send(),
            client.get("/protected/service-only").api_key(&self.key).send(),
            client.get("/auth/me").bearer(&self.account.access).send(),
            client.post("/keys/verify").bearer(&self.account.access).json(json!({ "key": self.key })).send(),
        ]
        .map(|answer| answer.status);
        assert_eq!(statuses, [200; 4], "a normal client");
        assert!(asked.elapsed() < SLACK, "a normal client waited for {:?}", asked.elapsed());
    }

    /// The server is the same process as ever, has kept within its memory, and serves.
    #[track_caller]
    pub fn testify(&self) {
        self.is_served();
        assert_eq!(birth(self.pid), self.born, "another process");
        keeps_to_its_memory(self.pid);
    }

    /// The number that the next descriptor of the process will have: below it, all are open.
    pub fn next_descriptor(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap();
        let open: Vec<usize> = open.map(|file| file.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
        (0..).find(|number| !open.contains(number)).unwrap()
    }
}

/// The process has never had more memory than it should.
#[track_caller]
pub fn keeps_to_its_memory(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak: u64 = peak.unwrap().parse().unwrap();
    let thread = thread::current();
    println!("{}: process {pid}, peak memory {} MB", thread.name().unwrap_or("?"), peak * 1024 / 1_000_000);
    assert!(peak < MOST_MEMORY_KIB, "the server had {peak} KiB");
}

/// When the process was started (proc_pid_stat(5), field 22).
#[track_caller]
fn birth(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|_| panic!("process {pid} is gone"));
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(19).unwrap().to_string()
}

#[track_caller]
pub fn create_key(client: &Client, owner: &Account) -> String {
    let answer = client.post("/keys/create").bearer(&owner.access).json(json!({ "name": "ci" })).send();
    assert_eq!(answer.status, 201, "{answer:?}");
    text(&answer, "key")
}

#[track_caller]
pub fn text(answer: &Answer, field: &str) -> String {
    answer.json()[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer:?}")).to_string()
}

/// The answer when the store is away.
pub fn unavailable() -> Value {
    keyward_harness::service::error(503, "Service temporarily unavailable, try again shortly")
}

/// Runs the program until its standard input ends, with the test process at the latest.
const SHELL: &str = r#"
trap '' INT HUP TERM
"$1" </dev/null 2>"$2/log" &
echo $!
read -r _
kill $!
wait $!
rm -rf "$2"
"#;

struct Target {
    witness: Witness,
    log: PathBuf,
    /// Holds the pipe whose closing ends the server.
    _shell: Child,
}

impl Target {
    fn start() -> Target {
        let folder = new_folder();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SHELL, "sh", env!("CARGO_BIN_EXE_keyward")]).arg(&folder);
        command.env_clear().envs(NO_LIMITS).envs([
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            ("MAX_KEYS_PER_USER", "1000"),
            ("WEBHOOKS", "users"),
        ]);
        command.current_dir(&folder).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().unwrap();
        let mut pid = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let log = folder.join("log");
        let started = Instant::now();
        let address = loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let line = said.lines().find_map(|line| line.split_once("listening on http://"));
            // A line may be there in part.
            if let Some((_, rest)) = line
                && let Some((address, _)) = rest.split_once(',')
            {
                break address.parse().unwrap();
            }
            assert!(started.elapsed() < PATIENCE, "the server does not start: {said}");
            thread::sleep(Duration::from_millis(5));
        };
        let mut grant = Command::new(env!("CARGO_BIN_EXE_keyward"));
        grant.args(GRANT).env_clear().current_dir(&folder);
        Target { witness: Witness::new(address, pid.trim().parse().unwrap(), grant), log, _shell: shell }
    }

    /// Whatever is sent is no fault of the server's.
    #[track_caller]
    fn has_no_faults(&self) {
        has_no_faults(&String::from_utf8_lossy(&fs::read(&self.log).unwrap()));
    }
}

/// Nothing was logged as an error, as every 500 is.
#[track_caller]
pub fn has_no_faults(log: &str) {
    let faults: Vec<_> = log.lines().filter(|line| line.split_whitespace().nth(1) == Some("ERROR")).take(10).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}
