//! A real server in the process of the test, on a free port, with a fresh database; and the requests that most tests make.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use keyward::base::clock::Clock;
use keyward::base::id::UserId;
use keyward::config::Config;
use keyward::keys::grants::Grants;
use keyward::run::Keyward;
use serde_json::{Value, json};

use crate::http_client::{Client, Request};
use crate::openapi;
use crate::postgres_cluster::{self, Database};
use crate::program;

/// Runs one story on both stores, each with a server and a database of its own.
#[macro_export]
macro_rules! on_both_stores {
    ($(fn $name:ident($service:ident) $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use $crate::service::{Backend, Service};

            fn story($service: &mut Service) $body

            #[test]
            fn on_sqlite() {
                story(&mut Service::start(Backend::Sqlite));
            }

            #[test]
            fn on_postgres() {
                if $crate::postgres_cluster::available() {
                    story(&mut Service::start(Backend::Postgres));
                }
            }
        }
    )+};
}
pub use crate::on_both_stores;

pub const PASSWORD: &str = "Password123!";

/// Of every service on PostgreSQL.
pub(crate) const DATA_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[derive(Clone, Copy, Debug)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    /// SQLite, and PostgreSQL where it is installed.
    pub fn installed() -> impl Iterator<Item = Backend> {
        [Backend::Sqlite, Backend::Postgres]
            .into_iter()
            .filter(|backend| matches!(backend, Backend::Sqlite) || postgres_cluster::available())
    }
}

/// Makes an empty folder of its own for the caller.
pub fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("keyward-test-{}-{count}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => return path,
            // It is left of an earlier process with our id that was killed.
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", path.display()),
        }
    }
}

/// A folder that is removed when this is dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn fresh() -> TempDir {
        TempDir(new_folder())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where a service keeps its data. It outlives restarts.
enum Data {
    Sqlite(TempDir),
    Postgres(Database),
}

impl Data {
    fn fresh(backend: Backend) -> Data {
        match backend {
            Backend::Sqlite => Data::Sqlite(TempDir::fresh()),
            Backend::Postgres => Data::Postgres(Database::fresh()),
        }
    }

    fn settings(&self) -> HashMap<String, String> {
        let secrets = ["JWT_SECRET", "JWT_REFRESH_SECRET"].map(|name| (name.to_string(), format!("{name:x>32}")));
        let mut settings: HashMap<String, String> = match self {
            Data::Sqlite(folder) => {
                let file = folder.path().join("keyward.db");
                [("KEYWARD_DB".to_string(), file.to_str().unwrap().to_string())].into()
            }
            Data::Postgres(database) => {
                let mut settings = HashMap::from(secrets);
                settings.insert("DATABASE_URL".to_string(), database.url());
                settings.insert("DATA_KEY".to_string(), DATA_KEY.to_string());
                settings
            }
        };
        settings.insert("HOST".to_string(), "127.0.0.1".to_string());
        settings.insert("PORT".to_string(), "0".to_string());
        settings
    }
}

fn configuration(values: &HashMap<String, String>) -> Config {
    let mut config = Config::from_values(values).unwrap();
    if !values.contains_key("USER_SCOPES") {
        // Most stories are not about grants: their users have every scope, and may verify keys.
        config.accounts.user_scopes = Grants::parse(&["*", "keys:verify"]).unwrap();
    }
    config
}

/// A running server. Everything in it is dropped with it.
pub struct Service {
    keyward: Option<Keyward>,
    client: Client,
    config: Config,
    /// Moves the server's time, not the test's.
    pub clock: Clock,
    data: Data,
}

/// Somebody who has signed up.
pub struct Account {
    pub id: String,
    pub email: String,
    pub access: String,
    pub refresh: String,
}

impl Service {
    pub fn start(backend: Backend) -> Service {
        Service::start_with(backend, &[], |_| {})
    }

    /// With settings of the test's own. `adjust` may change the configuration that is made of them.
    pub fn start_with(backend: Backend, settings: &[(&str, &str)], adjust: impl FnOnce(&mut Config)) -> Service {
        let data = Data::fresh(backend);
        let mut values = data.settings();
        values.extend(settings.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        let mut config = configuration(&values);
        adjust(&mut config);
        let clock = Clock::stopped();
        let keyward = Keyward::start(&config, clock.clone()).unwrap();
        let client = Client::new(keyward.addresses()[0], openapi::check);
        Service { keyward: Some(keyward), client, config, clock, data }
    }

    /// Stops the server as SIGTERM does, and starts it again on the same data.
    pub fn restart(&mut self) {
        self.stop();
        let keyward = Keyward::start(&self.config, self.clock.clone()).unwrap();
        self.client = Client::new(keyward.addresses()[0], openapi::check);
        self.keyward = Some(keyward);
    }

    /// Takes effect with the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        let mut values = self.data.settings();
        values.insert(name.to_string(), value.to_string());
        self.config = configuration(&values);
    }

    /// Stops, and starts again on the same data with another configuration.
    pub fn reconfigure(&mut self, adjust: impl FnOnce(&mut Config)) {
        self.stop();
        adjust(&mut self.config);
        self.restart();
    }

    pub fn stop(&mut self) {
        if let Some(keyward) = self.keyward.take() {
            keyward.stop();
        }
    }

    /// A second server on the same data.
    pub fn sibling(&self) -> (Keyward, Client) {
        let keyward = Keyward::start(&self.config, self.clock.clone()).unwrap();
        let client = Client::new(keyward.addresses()[0], openapi::check);
        (keyward, client)
    }

    pub fn address(&self) -> SocketAddr {
        self.keyward.as_ref().unwrap().addresses()[0]
    }

    /// The address that redirects plain HTTP to HTTPS.
    pub fn redirect(&self) -> SocketAddr {
        self.keyward.as_ref().unwrap().redirects()[0]
    }

    /// `None` on SQLite.
    pub fn database(&self) -> Option<&Database> {
        match &self.data {
            Data::Postgres(database) => Some(database),
            Data::Sqlite(_) => None,
        }
    }

    /// `None` on PostgreSQL.
    pub fn sqlite_file(&self) -> Option<PathBuf> {
        match &self.data {
            Data::Postgres(_) => None,
            Data::Sqlite(folder) => Some(folder.path().join("keyward.db")),
        }
    }

    /// Runs statements on the database, without the server.
    pub fn execute(&self, statements: &str) {
        match self.database() {
            Some(database) => database.client().batch_execute(statements).unwrap(),
            None => self.sqlite().execute_batch(statements).unwrap(),
        }
    }

    /// A token of this kind (`reset-password`, `verify-email`, `change-email`) as a mail to `email` would hold it, without a
    /// mail. It is good for a day.
    pub fn mailed_token(&self, account: &str, kind: &str, email: &str) -> String {
        let id = UserId::new();
        let token = id.to_string().replace('-', "").repeat(2);
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = if self.database().is_some() { format!("'\\x{hash}'") } else { format!("x'{hash}'") };
        let now = self.clock.now();
        let end = now.plus(Duration::from_secs(86_400));
        self.execute(&format!(
            "INSERT INTO one_time_tokens (id, user_id, kind, hash, created_at, expires_at, email) \
             VALUES ('{id}', '{account}', '{kind}', {bytes}, '{now}', '{end}', '{email}')"
        ));
        token
    }

    /// The one number that a query gives.
    pub fn count(&self, sql: &str) -> i64 {
        match self.database() {
            Some(database) => database.client().query_one(sql, &[]).unwrap().get(0),
            None => self.sqlite().query_row(sql, [], |row| row.get(0)).unwrap(),
        }
    }

    /// A connection of the test's own to SQLite's file.
    fn sqlite(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.sqlite_file().unwrap()).unwrap()
    }

    /// Replaces the password hash of every user, as an import would.
    pub fn store_hash(&self, hash: &str) {
        match self.database() {
            Some(database) => {
                database.client().execute("UPDATE users SET password_hash = $1", &[&hash]).unwrap();
            }
            None => {
                self.sqlite().execute("UPDATE users SET password_hash = ?1", [&hash]).unwrap();
            }
        }
    }

    /// The password hash of the only user.
    pub fn stored_hash(&self) -> String {
        let sql = "SELECT password_hash FROM users";
        match self.database() {
            Some(database) => database.client().query_one(sql, &[]).unwrap().get(0),
            None => self.sqlite().query_row(sql, [], |row| row.get(0)).unwrap(),
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub fn client(&self) -> Client {
        Client::new(self.address(), openapi::check)
    }

    pub fn get(&self, target: &str) -> Request<'_> {
        self.client.get(target)
    }

    pub fn post(&self, target: &str) -> Request<'_> {
        self.client.post(target)
    }

    pub fn patch(&self, target: &str) -> Request<'_> {
        self.client.method("PATCH", target)
    }

    pub fn delete(&self, target: &str) -> Request<'_> {
        self.client.delete(target)
    }

    pub fn method(&self, method: &str, target: &str) -> Request<'_> {
        self.client.method(method, target)
    }

    #[track_caller]
    pub fn sign_up(&self, email: &str) -> Account {
        self.client.sign_up(email)
    }

    #[track_caller]
    pub fn log_in(&self, email: &str) -> Account {
        self.client.log_in(email)
    }

    /// The answer to `POST /keys/create`.
    #[track_caller]
    pub fn create_key(&self, access: &str, body: Value) -> Value {
        self.client.create_key(access, body)
    }

    /// What the service-only route says to this key: 200 or 401.
    #[track_caller]
    pub fn key_status(&self, key: &str) -> u16 {
        self.client.key_status(key)
    }

    /// What the user-only route says to this token: 200 or 401.
    #[track_caller]
    pub fn token_status(&self, access: &str) -> u16 {
        self.client.token_status(access)
    }

    /// Gives the user these scopes, as the operator does.
    #[track_caller]
    pub fn grant(&self, user: &str, scopes: &[&str]) {
        self.operator(&[&["user", "grant", user], scopes].concat());
    }

    /// Runs the program's command line on this service's data and gives its standard output.
    #[track_caller]
    pub fn operator(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(program::path());
        command.args(arguments).env_clear().envs(self.data.settings()).current_dir(std::env::temp_dir());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The requests that most tests make.
impl Client {
    #[track_caller]
    pub fn sign_up(&self, email: &str) -> Account {
        let answer = self.post("/auth/signup").json(json!({ "email": email, "password": PASSWORD })).send();
        assert_eq!(answer.status, 201, "{answer:?}");
        account(&answer.json())
    }

    #[track_caller]
    pub fn log_in(&self, email: &str) -> Account {
        let answer = self.post("/auth/login").json(json!({ "email": email, "password": PASSWORD })).send();
        assert_eq!(answer.status, 200, "{answer:?}");
        account(&answer.json())
    }

    /// The answer to `POST /keys/create`.
    #[track_caller]
    pub fn create_key(&self, access: &str, body: Value) -> Value {
        let answer = self.post("/keys/create").bearer(access).json(body).send();
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }

    /// What the service-only route says to this key: 200 or 401.
    #[track_caller]
    pub fn key_status(&self, key: &str) -> u16 {
        self.get("/protected/service-only").api_key(key).send().status
    }

    /// What the user-only route says to this token: 200 or 401.
    #[track_caller]
    pub fn token_status(&self, access: &str) -> u16 {
        self.get("/protected/user-only").bearer(access).send().status
    }
}

/// Waits until `is_so` returns true, and fails the test when it has not after `limit`.
#[track_caller]
pub fn within(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether no connection of the server waits to be accepted, and nothing that was sent to it waits to be read.
pub fn has_read_everything(server: SocketAddr) -> bool {
    // proc_pid_net(5): the second field is the local address, the fifth what is queued in both directions.
    let port = format!(":{:04X}", server.port());
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let mut of_server = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    of_server.all(|fields| !fields[1].ends_with(&port) || fields[4].ends_with(":00000000"))
}

/// How soon a server has to know what another process has changed. What it remembers expires after five seconds, so a change
/// that is only seen then is seen too late.
pub const SOON: Duration = Duration::from_secs(4);

#[track_caller]
pub fn soon(what: &str, is_so: impl FnMut() -> bool) {
    within(SOON, what, is_so);
}

pub fn account(body: &Value) -> Account {
    let text = |value: &Value| value.as_str().unwrap().to_string();
    Account {
        id: text(&body["user"]["id"]),
        email: text(&body["user"]["email"]),
        access: text(&body["accessToken"]),
        refresh: text(&body["refreshToken"]),
    }
}

/// The contract's error body.
pub fn error(status: u16, message: &str) -> Value {
    let phrase = http::StatusCode::from_u16(status).unwrap().canonical_reason().unwrap();
    json!({ "statusCode": status, "message": message, "error": phrase })
}

/// The contract's body for broken rules.
pub fn broken_rules(rules: &[&str]) -> Value {
    json!({ "statusCode": 400, "message": rules, "error": "Bad Request" })
}
