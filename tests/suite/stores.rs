//! What the stores promise: several servers on one database, restarts, databases that are not ours, and a store that
//! is away.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use keyward::base::clock::Clock;
use keyward::base::secret::Secret;
use keyward::config::Config;
use keyward::run::Keyward;
use keyward::store::driver::Driver;
use keyward::store::postgres::Postgres;
use keyward::store::sqlite::Sqlite;
use keyward_harness::http_client::{Answer, Client, PATIENCE, Request};
use keyward_harness::openapi;
use keyward_harness::postgres_cluster::{self, Database};
use keyward_harness::program::{Finished, Home, finish, in_both_homes};
use keyward_harness::relay::Relay;
use keyward_harness::service::{Account, Backend, PASSWORD, Service, account, error, on_both_stores, soon, within};
use keyward_harness::tools::{Tool, installed};
use serde_json::{Value, json};

/// A key of this account's.
struct Key {
    id: String,
    key: String,
}

#[track_caller]
fn new_key(service: &Service, owner: &Account) -> Key {
    key(&service.create_key(&owner.access, json!({ "name": "ci" })))
}

fn key(made: &Value) -> Key {
    let text = |name: &str| made[name].as_str().unwrap().to_string();
    Key { id: text("id"), key: text("key") }
}

fn key_status(client: &Client, key: &Key) -> u16 {
    client.get("/protected/service-only").api_key(&key.key).send().status
}

fn token_status(client: &Client, access: &str) -> u16 {
    client.get("/protected/user-only").bearer(access).send().status
}

/// Runs statements that both databases understand, past the program.
fn execute(home: &Home, statements: &str) {
    match home.database() {
        Some(database) => database.client().batch_execute(statements).unwrap(),
        None => rusqlite::Connection::open(home.path("keyward.db")).unwrap().execute_batch(statements).unwrap(),
    }
}

/// The recorded migrations: version, name and checksum of each.
fn recorded(home: &Home) -> Vec<String> {
    const SELECT: &str = "SELECT version || ' ' || name || ' ' || checksum FROM schema_migrations ORDER BY version";
    match home.database() {
        Some(database) => database.client().query(SELECT, &[]).unwrap().iter().map(|row| row.get(0)).collect(),
        None => {
            let connection = rusqlite::Connection::open(home.path("keyward.db")).unwrap();
            let mut statement = connection.prepare(SELECT).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        }
    }
}

in_both_homes! {
    fn servers_that_start_at_once_on_an_empty_database_all_come_up(home) {
        const SERVERS: usize = 6;
        let config = home.config();
        let ready = Barrier::new(SERVERS);
        let servers: Vec<Keyward> = thread::scope(|scope| {
            let start = || {
                ready.wait();
                Keyward::start(&config, Clock::default()).unwrap()
            };
            let starts: Vec<_> = (0..SERVERS).map(|_| scope.spawn(start)).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert_eq!(recorded(&home).len(), Sqlite::MIGRATIONS.len());
        let clients: Vec<Client> =
            servers.iter().map(|server| Client::new(server.addresses()[0], openapi::check)).collect();
        let form = json!({ "email": "ann@example.com", "password": PASSWORD });
        let ann = account(&clients[0].post("/auth/signup").json(form).send().json());
        for client in &clients {
            assert_eq!(token_status(client, &ann.access), 200);
        }
        for server in servers {
            server.stop();
        }
    }

    fn a_database_that_is_newer_than_the_program_or_not_its_own_is_refused_and_stays_as_it_is(home) {
        let mut home = home;
        home.set("JWT_SECRET", "the-secret-of-access-tokens-of-a-test");
        home.set("JWT_REFRESH_SECRET", "the-secret-of-refresh-tokens-of-a-test");
        home.run(&["migrate"]).succeeded();
        let ours = recorded(&home);
        for (change, undo, expected) in [
            (
                "INSERT INTO schema_migrations VALUES (9999, 'from_the_future', 'x', '2026-01-01T00:00:00.000Z')",
                "DELETE FROM schema_migrations WHERE version = 9999",
                "newer than this binary: it has migration 9999_from_the_future",
            ),
            (
                "UPDATE schema_migrations SET checksum = 'not ' || checksum WHERE version = 1",
                "UPDATE schema_migrations SET checksum = substr(checksum, 5) WHERE version = 1",
                "migration 0001_users_sessions_keys is not the 0001_users_sessions_keys of this binary",
            ),
        ] {
            execute(&home, change);
            let before = recorded(&home);
            for arguments in [&[][..], &["migrate"], &["migrate", "--check"], &["user", "list"], &["key", "list"]] {
                let finished = home.run(arguments);
                assert!(finished.failed(1).contains(expected), "{arguments:?}: {finished:?}");
                assert_eq!(finished.stdout, "");
            }
            assert_eq!(recorded(&home), before);
            execute(&home, undo);
        }
        assert_eq!(recorded(&home), ours);
        home.start(&[]);
    }
}

in_both_homes! {
    fn what_was_counted_before_an_upgrade_is_there_afterwards(home) {
        let mut home = home;
        home.set("JWT_SECRET", "the-secret-of-access-tokens-of-a-test");
        home.set("JWT_REFRESH_SECRET", "the-secret-of-refresh-tokens-of-a-test");
        home.set("USAGE_RETENTION", "3650d");
        // As the first version left it.
        let first = if home.database().is_some() { &Postgres::MIGRATIONS[0] } else { &Sqlite::MIGRATIONS[0] };
        execute(&home, first.sql);
        execute(&home, &format!(
            "CREATE TABLE schema_migrations \
             (version BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at TEXT NOT NULL); \
             INSERT INTO schema_migrations VALUES (1, '{}', '{}', '2026-01-01T00:00:00.000Z')",
            first.name, first.checksum()
        ));
        let (ann, key) = ("0192f0c1-0000-7000-8000-000000000001", "0192f0c1-0000-7000-8000-000000000002");
        let no_bytes = if home.database().is_some() { "''" } else { "x''" };
        let hash = "$2b$04$/////////////////////uvqjOVEKXrY7JNW5dF/tLx5kLzpnqcAi";
        execute(&home, &format!(
            "INSERT INTO users (id, email, password_hash, is_active, created_at) \
             VALUES ('{ann}', 'ann@example.com', '{hash}', TRUE, '2026-01-01T00:00:00.000Z'); \
             INSERT INTO api_keys (id, user_id, hash, hint, name, is_active, created_at) \
             VALUES ('{key}', '{ann}', {no_bytes}, 'sk_1a2b…9f0e', 'old', TRUE, '2026-01-01T00:00:00.000Z'); \
             INSERT INTO key_last_use VALUES ('{key}', '2026-01-01T12:34:56.789Z'); \
             INSERT INTO key_usage VALUES ('{key}', '2026-01-01T11:00:00.000Z', 'expired', 1), \
             ('{key}', '2026-01-01T12:00:00.000Z', 'allowed', 7), ('{key}', '2026-01-01T12:00:00.000Z', 'disabled', 2)"
        ));
        home.run(&["migrate"]).succeeded();
        home.run_reading(&["user", "set-password", ann], &format!("{PASSWORD}\n")).succeeded();
        let server = home.start(&[]);
        let form = json!({ "email": "ann@example.com", "password": PASSWORD });
        let ann = account(&server.client().post("/auth/login").json(form).send().json());
        let ask = |target: &str| server.client().get(target).bearer(&ann.access).send().json();
        assert_eq!(ask("/keys")[0]["lastUsedAt"], "2026-01-01T12:34:56.789Z");
        let span = "from=2026-01-01T11:00:00Z&to=2026-01-01T13:00:00Z";
        let point = |start: &str, allowed: u64, disabled: u64, expired: u64| {
            json!({
                "start": start, "allowed": allowed,
                "refused": {
                    "disabled": disabled, "expired": expired, "insufficientScope": 0, "rateLimited": 0,
                },
            })
        };
        assert_eq!(
            ask(&format!("/keys/{key}/usage?{span}"))["series"],
            json!([point("2026-01-01T11:00:00.000Z", 0, 0, 1), point("2026-01-01T12:00:00.000Z", 7, 2, 0)])
        );
    }
}

on_both_stores! {
    fn users_sessions_keys_and_revocations_outlive_a_restart(service) {
        let ann = service.sign_up("ann@example.com");
        let other_session = service.log_in("ann@example.com");
        let (good, revoked) = (new_key(service, &ann), new_key(service, &ann));
        let expiring = service.create_key(&ann.access, json!({ "name": "brief", "expiresAt": "2999-01-01T00:00:00Z" }));
        assert_eq!(service.delete(&format!("/keys/{}", revoked.id)).bearer(&ann.access).send().status, 200);
        assert_eq!(service.post("/auth/logout").bearer(&other_session.access).send().status, 200);
        let refreshed = service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send().json();
        let listed = service.get("/keys").bearer(&ann.access).send().json();

        service.restart();
        assert_eq!(service.get("/keys").bearer(&ann.access).send().json(), listed);
        assert_eq!((service.token_status(&ann.access), service.token_status(&other_session.access)), (200, 401));
        assert_eq!((service.key_status(&good.key), service.key_status(&revoked.key)), (200, 401));
        assert_eq!(service.key_status(expiring["key"].as_str().unwrap()), 200);
        let refresh = |token: &Value| service.post("/auth/refresh").json(json!({ "refreshToken": token })).send().status;
        assert_eq!(refresh(&refreshed["refreshToken"]), 200);
        assert_eq!(refresh(&json!(other_session.refresh)), 401);
        assert_eq!(service.log_in("ann@example.com").id, ann.id);
    }

    fn neither_a_password_nor_a_key_nor_a_token_is_stored_anywhere(service) {
        let ann = service.sign_up("ann@example.com");
        let made = new_key(service, &ann);
        assert_eq!(service.key_status(&made.key), 200);
        assert_eq!(service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send().status, 200);
        service.restart();
        service.stop();

        // Everything that is stored, as bytes and as text.
        let (stored, hash) = match (service.sqlite_file(), service.database()) {
            (Some(file), _) => {
                let folder = std::fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
                let files: Vec<_> = folder.filter(|path| !path.ends_with("keyward.db.secrets")).collect();
                assert!(files.contains(&file));
                let bytes: Vec<u8> = files.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
                let connection = rusqlite::Connection::open(&file).unwrap();
                (bytes, connection.query_row("SELECT password_hash FROM users", [], |row| row.get(0)).unwrap())
            }
            (None, Some(database)) => {
                let mut client = database.client();
                let mut rows = Vec::new();
                for table in ["users", "sessions", "api_keys", "schema_migrations"] {
                    let select = format!("SELECT row_to_json({table})::text FROM {table}");
                    rows.extend(client.query(&select, &[]).unwrap().iter().map(|row| row.get::<_, String>(0)));
                }
                let hash: String = client.query_one("SELECT password_hash FROM users", &[]).unwrap().get(0);
                (rows.join("\n").into_bytes(), hash)
            }
            (None, None) => unreachable!(),
        };
        assert!(hash.starts_with("$2b$10$") && hash.len() == 60, "{hash}");
        let contains = |needle: &[u8]| stored.windows(needle.len()).any(|window| window == needle);
        assert!(contains(b"ann@example.com") && contains(hash.as_bytes()), "what is stored can be found this way");
        let digits = &made.key[3..];
        for secret in [PASSWORD, digits, &digits[..32], &digits[32..], &ann.access, &ann.refresh] {
            assert!(!contains(secret.as_bytes()), "{secret}");
        }
        assert!(!contains(&hex::decode(digits).unwrap()));
        for token in [&ann.access, &ann.refresh] {
            assert!(!contains(token.rsplit('.').next().unwrap().as_bytes()), "a signature");
        }
    }
}

on_both_stores! {
    fn what_was_counted_is_written_when_a_server_stops_amid_deleting_what_is_kept_no_longer(service) {
        const OLD: i64 = 200_000;
        let ann = service.sign_up("ann@example.com");
        let made = new_key(service, &ann);
        service.stop();
        let id = match service.database() {
            Some(_) => "CAST('00000000-0000-7000-8000-' || (100000000000 + i) AS UUID)",
            None => "'00000000-0000-7000-8000-' || (100000000000 + i)",
        };
        run(service, &format!(
            "WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {OLD}) \
             INSERT INTO events (id, at, kind, actor, details, count) \
             SELECT {id}, '2000-01-01T00:00:00.000Z', 'login.failed', 'anonymous', '{{}}', 1 FROM numbers"
        ));
        service.restart();
        let left = |service: &Service| count(service, "SELECT COUNT(*) FROM events WHERE at < '2001-01-01T00:00:00.000Z'");
        let deadline = Instant::now() + Duration::from_secs(10);
        while left(service) == OLD {
            assert!(Instant::now() < deadline, "nothing is deleted");
        }
        for _ in 0..3 {
            assert_eq!(service.key_status(&made.key), 200);
        }
        service.stop();
        assert!(left(service) > 0, "it was done before the test was");
        service.restart();
        let listed = service.get("/keys").bearer(&ann.access).send().json();
        assert_eq!(listed[0]["usesLast24h"], 3);
    }
}

on_both_stores! {
    fn what_cannot_be_deleted_holds_up_nothing_else_and_is_tried_again_after_a_minute(service) {
        let ann = service.sign_up("ann@example.com");
        let key = new_key(service, &ann);
        assert_eq!(service.key_status(&key.key), 200);
        let kept = |table: &str| count(service, &format!("SELECT COUNT(*) FROM {table}"));
        within(PATIENCE, "the use is written", || kept("key_hours") == 1);
        run(service, "ALTER TABLE key_hours RENAME TO hidden");
        service.advance(370 * 86_400);
        within(PATIENCE, "the others are deleted", || (kept("sessions"), kept("events")) == (0, 0));
        run(service, "ALTER TABLE hidden RENAME TO key_hours");
        assert_eq!(kept("key_hours"), 1);
        service.advance(60);
        within(PATIENCE, "it is deleted", || kept("key_hours") == 0);
    }

    fn a_clock_that_is_far_ahead_at_the_start_deletes_nothing_for_a_week(service) {
        let ann = service.sign_up("ann@example.com");
        let key = new_key(service, &ann);
        assert_eq!(service.key_status(&key.key), 200);
        service.advance(400 * 86_400);
        service.restart();
        // By then it has been at its chores between two rounds of writing.
        for uses in 2..=3 {
            assert_eq!(service.key_status(&key.key), 200);
            let written = || count(service, "SELECT CAST(SUM(allowed) AS BIGINT) FROM key_hours") == uses;
            within(PATIENCE, "the use is written", written);
        }
        let kept = |table: &str| count(service, &format!("SELECT COUNT(*) FROM {table}"));
        assert_eq!((kept("sessions"), kept("events"), kept("key_hours")), (1, 2, 2));
        service.advance(7 * 86_400);
        within(PATIENCE, "what is old is deleted", || {
            (kept("sessions"), kept("events"), kept("key_hours")) == (0, 0, 1)
        });
    }
}

on_both_stores! {
    fn an_account_with_much_history_is_gone_at_once_and_its_rows_soon(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let (hers, his) = (new_key(service, &ann), new_key(service, &bob));
        assert_eq!((service.key_status(&hers.key), service.key_status(&his.key)), (200, 200));
        let written = || count(service, "SELECT COUNT(*) FROM key_hours") == 2;
        within(PATIENCE, "the uses are written", written);
        let (id, bytes) = match service.database() {
            Some(_) => ("CAST('00000000-0000-7000-8000-' || (100000000000 + i) AS UUID)", "decode(md5(i::text), 'hex')"),
            None => ("'00000000-0000-7000-8000-' || (100000000000 + i)", "CAST('hash ' || i AS BLOB)"),
        };
        let numbers = "WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < 3000)";
        let then = "'2026-01-01T00:00:00.000Z'";
        run(service, &format!(
            "INSERT INTO sessions (id, user_id, generation, created_at, expires_at, ip) {numbers} \
             SELECT {id}, '{ann}', 1, {then}, '2999-01-01T00:00:00.000Z', '192.0.2.1' FROM numbers; \
             INSERT INTO api_keys (id, user_id, hash, hint, name, is_active, created_at) {numbers} \
             SELECT {id}, '{ann}', {bytes}, '', '', TRUE, {then} FROM numbers; \
             INSERT INTO key_hours (key_id, hour, allowed, disabled, expired) {numbers} \
             SELECT '{key}', i, 1, 0, 0 FROM numbers",
            ann = ann.id, key = hers.id
        ));
        // What hangs on it cannot be deleted for now: the account is gone all the same.
        run(service, match service.database() {
            Some(_) => "CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'held'; END $$; \
                        CREATE TRIGGER held BEFORE DELETE ON key_hours EXECUTE FUNCTION held()",
            None => "CREATE TRIGGER held BEFORE DELETE ON key_hours BEGIN SELECT RAISE(ABORT, 'held'); END",
        });
        let body = json!({ "password": PASSWORD });
        assert_eq!(service.delete("/auth/me").bearer(&ann.access).json(body).send().status, 200);
        let refreshed = service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send().status;
        assert_eq!((service.token_status(&ann.access), refreshed, service.key_status(&hers.key)), (401, 401, 401));
        let verified = service.post("/keys/verify").bearer(&bob.access).json(json!({ "key": hers.key })).send().json();
        assert_eq!(verified["code"], "NOT_FOUND");
        let login = json!({ "email": ann.email, "password": PASSWORD });
        assert_eq!(service.post("/auth/login").json(login).send().status, 401);
        assert!(!service.operator(&["user", "list"]).contains(&ann.id));
        let keys = service.operator(&["key", "list"]);
        assert!(keys.contains(&his.id) && !keys.contains(&hers.id), "{keys}");
        let home = Home::beside(service);
        for command in ["show", "activate", "deactivate", "delete"] {
            assert_eq!(home.run(&["user", command, &ann.id]).failed(1), "there is no such user", "{command}");
        }
        let named = "SELECT COUNT(*) FROM users WHERE email = 'ann@example.com' OR password_hash <> '' AND email <> 'bob@example.com'";
        assert_eq!(count(service, named), 0);
        let again = service.sign_up("ann@example.com");
        assert_ne!(again.id, ann.id);

        // As after a crash.
        service.stop();
        run(service, match service.database() {
            Some(_) => "DROP TRIGGER held ON key_hours",
            None => "DROP TRIGGER held",
        });
        service.restart();
        let left = || {
            let of_ann = |table: &str| count(service, &format!("SELECT COUNT(*) FROM {table} WHERE user_id = '{}'", ann.id));
            let users = count(service, &format!("SELECT COUNT(*) FROM users WHERE id = '{}'", ann.id));
            let hours = count(service, &format!("SELECT COUNT(*) FROM key_hours WHERE key_id = '{}'", hers.id));
            (users, of_ann("sessions"), of_ann("api_keys"), hours)
        };
        within(PATIENCE, "nothing is left", || left() == (0, 0, 0, 0));
        assert_eq!((service.key_status(&his.key), service.token_status(&again.access)), (200, 200));
        assert_eq!(count(service, "SELECT COUNT(*) FROM key_hours"), 1);
    }

    fn of_an_account_with_little_history_nothing_is_left_when_its_deletion_is_answered(service) {
        let ann = service.sign_up("ann@example.com");
        let bob = service.sign_up("bob@example.com");
        for account in [&ann, &bob] {
            new_key(service, account);
        }
        let body = json!({ "password": PASSWORD });
        assert_eq!(service.delete("/auth/me").bearer(&ann.access).json(body).send().status, 200);
        let left = |table: &str| count(service, &format!("SELECT COUNT(*) FROM {table}"));
        assert_eq!((left("users"), left("sessions"), left("api_keys")), (1, 1, 1));
        service.operator(&["user", "delete", &bob.id]);
        assert_eq!((left("users"), left("sessions"), left("api_keys")), (0, 0, 0));
    }
}

/// Runs statements past the server.
pub fn run(service: &Service, statements: &str) {
    match service.database() {
        Some(database) => database.client().batch_execute(statements).unwrap(),
        None => rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap().execute_batch(statements).unwrap(),
    }
}

pub fn count(service: &Service, sql: &str) -> i64 {
    match service.database() {
        Some(database) => database.client().query_one(sql, &[]).unwrap().get(0),
        None => {
            let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
            file.query_row(sql, [], |row| row.get(0)).unwrap()
        }
    }
}

#[test]
fn connections_that_postgresql_has_closed_cost_no_request_its_answer() {
    if !postgres_cluster::available() {
        return;
    }
    let service = Service::start(Backend::Postgres);
    let ann = service.sign_up("ann@example.com");
    let ask = |client: &Client| client.get("/auth/me").bearer(&ann.access).send().status;
    // So many at once that there are many connections.
    let all = Barrier::new(20);
    thread::scope(|scope| {
        for client in (0..20).map(|_| service.client()) {
            let (all, ask) = (&all, &ask);
            scope.spawn(move || {
                all.wait();
                assert!((0..20).all(|_| ask(&client) == 200));
            });
        }
    });
    let client = service.client();
    let terminate = "SELECT COUNT(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for round in 0..2 {
        let ended = count(&service, terminate);
        assert!(ended > 1, "{ended} connections");
        match round {
            0 => assert_eq!(ask(&client), 200),
            _ => drop(new_key(&service, &ann)),
        }
        // No other connection of the pool is met by others.
        assert!((0..20).all(|_| ask(&client) == 200));
    }
}

#[test]
fn two_servers_share_one_postgresql() {
    if !postgres_cluster::available() {
        return;
    }
    let service = Service::start(Backend::Postgres);
    let (sibling, other) = service.sibling();
    let ann = service.sign_up("ann@example.com");
    let made = new_key(&service, &ann);
    assert_eq!((token_status(&other, &ann.access), key_status(&other, &made)), (200, 200));

    let change = |body: Value| {
        let answer = service.patch(&format!("/keys/{}", made.id)).bearer(&ann.access).json(body).send();
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    change(json!({ "isActive": false }));
    soon("paused on the other server", || key_status(&other, &made) == 401);
    change(json!({ "isActive": true }));
    soon("active on the other server", || key_status(&other, &made) == 200);
    change(json!({ "rateLimit": { "limit": 1, "window": "1d" } }));
    soon("limited on the other server", || key_status(&other, &made) == 429);
    change(json!({ "rateLimit": null }));
    let verified = || {
        let asked = json!({ "key": made.key, "scopes": ["a"] });
        other.post("/keys/verify").bearer(&ann.access).json(asked).send().json()["code"].clone()
    };
    assert_eq!(verified(), "INSUFFICIENT_SCOPE");
    change(json!({ "scopes": ["a"] }));
    soon("of wider use on the other server", || verified() == "VALID");

    assert_eq!(service.delete(&format!("/keys/{}", made.id)).bearer(&ann.access).send().status, 200);
    assert_eq!(service.key_status(&made.key), 401, "at once where it was revoked");
    soon("revoked on the other server", || key_status(&other, &made) == 401);

    let refreshed = other.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send();
    assert_eq!(refreshed.status, 200, "a session is not bound to the server that opened it");
    assert_eq!(other.post("/auth/logout").bearer(&ann.access).send().status, 200);
    soon("logged out on the first server", || service.token_status(&ann.access) == 401);
    let form = json!({ "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(other.post("/auth/signup").json(form).send().status, 409);
    sibling.stop();
}

#[test]
fn a_server_and_a_command_line_that_write_to_one_file_at_the_same_time_both_succeed() {
    let room = [("MAX_KEYS_PER_USER", "1000"), ("RATE_LIMIT_WRITES", "off")];
    let service = Service::start_with(Backend::Sqlite, &room, |_| {});
    let home = Home::beside(&service);
    let ann = service.sign_up("ann@example.com");
    let revoked: Vec<Key> = (0..24).map(|_| new_key(&service, &ann)).collect();
    let made: Vec<Key> = thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (client, access) = (service.client(), &ann.access);
                scope.spawn(move || {
                    let create = || client.post("/keys/create").bearer(access).json(json!({ "name": "ci" })).send();
                    (0..100).map(|_| key(&create().json())).collect::<Vec<Key>>()
                })
            })
            .collect();
        for half in revoked.chunks(12) {
            let home = &home;
            scope.spawn(move || {
                for key in half {
                    home.run(&["key", "revoke", &key.id]).succeeded();
                }
            });
        }
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    assert!(made.iter().all(|key| service.key_status(&key.key) == 200));
    soon("the last one is revoked", || service.key_status(&revoked[23].key) == 401);
    assert!(revoked.iter().all(|key| service.key_status(&key.key) == 401));
}

#[test]
fn a_sqlite_file_that_cannot_be_had_is_one_line_that_names_it() {
    let mut home = Home::fresh(Backend::Sqlite);
    home.set("JWT_SECRET", "the-secret-of-access-tokens-of-a-test");
    home.set("JWT_REFRESH_SECRET", "the-secret-of-refresh-tokens-of-a-test");
    std::fs::create_dir(home.path("folder")).unwrap();
    std::fs::write(home.path("text.db"), "This is a text and no database, but about as long as a header.".repeat(9))
        .unwrap();
    for (file, expected) in [
        ("missing/keyward.db", "No such file or directory"),
        ("folder", "unable to open database file"),
        ("text.db", "file is not a database"),
        ("text.db/keyward.db", "Not a directory"),
    ] {
        home.set("KEYWARD_DB", file);
        for arguments in [&[][..], &["migrate"], &["user", "list"]] {
            let finished = home.run(arguments);
            let line = finished.failed(1);
            let is_absent = file.starts_with("missing") && arguments.contains(&"user");
            let expected = if is_absent { "there is no database at /" } else { expected };
            assert!(line.contains(file) && line.contains(expected), "{file}: {line}");
        }
    }
    assert_eq!(home.files(), ["folder", "text.db"]);
}

#[test]
fn a_sqlite_file_or_folder_that_is_read_only_is_one_line_that_names_it() {
    let mut home = Home::fresh(Backend::Sqlite);
    home.set("JWT_SECRET", "the-secret-of-access-tokens-of-a-test");
    home.set("JWT_REFRESH_SECRET", "the-secret-of-refresh-tokens-of-a-test");
    // For the superuser nothing is read-only: his program runs as somebody else, from where that one can reach it.
    let program = home.path("program");
    std::fs::copy(env!("CARGO_BIN_EXE_keyward"), &program).unwrap();
    let as_someone = |arguments: &[&str]| -> Finished {
        let usual = home.command(arguments);
        let mut command = Command::new(&program);
        command.args(arguments).env_clear().current_dir(usual.get_current_dir().unwrap());
        command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if rustix::process::getuid().is_root() {
            command.uid(65534).gid(65534);
        }
        finish(&mut command, "Password123!\n")
    };
    let set_mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let (folder, file) = (home.path("."), home.path("keyward.db"));
    home.run(&["migrate"]).succeeded();
    let full_path = file.canonicalize().unwrap();
    for file_mode in [0o444, 0o400, 0o000] {
        set_mode(&file, file_mode);
        for folder_mode in [0o777, 0o555] {
            set_mode(&folder, folder_mode);
            for arguments in [&[][..], &["migrate"], &["user", "create", "ann@example.com"]] {
                let finished = as_someone(arguments);
                // Whose it is: root has made it, and the service may not use it.
                let owned = format!("{} belongs to ", full_path.display());
                let line = finished.failed(1);
                assert!(line.contains(&owned) && line.contains(&format!("(mode {file_mode:04o})")), "{line}");
                if rustix::process::getuid().is_root() {
                    assert!(line.contains(&format!("{owned}root ")) && line.contains("run this as root"), "{line}");
                }
            }
        }
    }
    // The file may be used, but nothing can be put beside it.
    set_mode(&file, 0o666);
    set_mode(&folder, 0o555);
    let finished = as_someone(&["user", "list"]);
    assert!(
        finished.failed(1).contains(&format!("{} belongs to ", full_path.parent().unwrap().display())),
        "{finished:?}"
    );
    // Nor can one be made.
    set_mode(&folder, 0o755);
    std::fs::remove_file(&file).unwrap();
    set_mode(&folder, 0o555);
    for arguments in [&[][..], &["migrate"]] {
        let finished = as_someone(arguments);
        let line = finished.failed(1);
        assert!(line.contains("keyward.db") && line.contains("Permission denied"), "{line}");
    }
    set_mode(&folder, 0o755);
}

mod away {
    use super::*;

    /// A second server on the data of `service`, whose link to PostgreSQL can be taken away. It has not seen any of
    /// the credentials that `service` hands out.
    struct Remote {
        relay: Relay,
        keyward: Option<Keyward>,
        address: SocketAddr,
    }

    impl Remote {
        fn of(service: &Service) -> Remote {
            let database = service.database().unwrap();
            let relay = Relay::to(SocketAddr::from((Ipv4Addr::LOCALHOST, database.port())));
            let url = database.url_at(relay.addr().port());
            let mut config: Config = service.config().clone();
            config.store.url = Some(Secret::new(url));
            let keyward = Keyward::start(&config, service.clock.clone()).unwrap();
            let address = keyward.addresses()[0];
            Remote { relay, keyward: Some(keyward), address }
        }

        fn client(&self) -> Client {
            Client::new(self.address, openapi::check)
        }
    }

    impl Drop for Remote {
        fn drop(&mut self) {
            self.relay.restore();
            self.relay.thaw();
            self.keyward.take().unwrap().stop();
        }
    }

    /// A request that needs the store, and its answer when the store is there; after a request whose outcome nobody
    /// knows, another one may be as right.
    struct Needy {
        name: &'static str,
        request: Box<dyn Fn(&Client) -> Answer + Sync>,
        expected: u16,
        if_done_before: u16,
    }

    fn needy_requests(service: &Service) -> Vec<Needy> {
        let ann = service.sign_up("ann@example.com");
        let [to_end, to_refresh] = [(); 2].map(|()| service.log_in("ann@example.com"));
        let [works, to_revoke] = [(); 2].map(|()| new_key(service, &ann));
        let form = |email: &str| json!({ "email": email, "password": PASSWORD });
        let mut requests = Vec::new();
        let mut add = |name, expected, if_done_before, request: Box<dyn Fn(&Client) -> Answer + Sync>| {
            requests.push(Needy { name, request, expected, if_done_before });
        };
        let (new, known) = (form("bob@example.com"), form("ann@example.com"));
        let refresh = json!({ "refreshToken": to_refresh.refresh });
        let token = |send: fn(&Client, &str) -> Answer| {
            let access = ann.access.clone();
            Box::new(move |client: &Client| send(client, &access))
        };
        add("sign up", 201, 409, Box::new(move |client| client.post("/auth/signup").json(new.clone()).send()));
        add("log in", 200, 200, Box::new(move |client| client.post("/auth/login").json(known.clone()).send()));
        add("refresh", 200, 200, Box::new(move |client| client.post("/auth/refresh").json(refresh.clone()).send()));
        add("log out", 200, 401, Box::new(move |client| client.post("/auth/logout").bearer(&to_end.access).send()));
        add("who am I", 200, 200, token(|client, access| client.get("/auth/me").bearer(access).send()));
        add("list keys", 200, 200, token(|client, access| client.get("/keys").bearer(access).send()));
        add("user only", 200, 200, token(|client, access| client.get("/protected/user-only").bearer(access).send()));
        add("flexible", 200, 200, token(|client, access| client.get("/protected/flexible").bearer(access).send()));
        add(
            "create a key",
            201,
            201,
            token(|client, access| client.post("/keys/create").bearer(access).json(json!({ "name": "ci" })).send()),
        );
        let (access, path) = (ann.access.clone(), format!("/keys/{}", to_revoke.id));
        add("revoke a key", 200, 200, Box::new(move |client| client.delete(&path).bearer(&access).send()));
        let service_only = move |client: &Client| client.get("/protected/service-only").api_key(&works.key).send();
        add("service only", 200, 200, Box::new(service_only));
        for (name, path) in [
            ("forward auth", "/authz/forward-auth"),
            ("auth request", "/authz/auth-request"),
            ("ext authz", "/authz/ext-authz/orders"),
        ] {
            let access = ann.access.clone();
            add(name, 200, 200, Box::new(move |client| client.get(path).bearer(&access).send()));
        }
        let gateway = service.create_key(&ann.access, json!({ "name": "gateway", "scopes": ["keys:verify"] }));
        let (gateway, form) = (key(&gateway).key, format!("token={}", ann.access));
        let introspect = move |client: &Client| {
            client.post("/oauth/introspect").api_key(&gateway).body("application/x-www-form-urlencoded", &*form).send()
        };
        add("introspect", 200, 200, Box::new(introspect));
        requests
    }

    /// Makes keys, and revokes every other one, until nobody listens any more. Tells what was acknowledged: a key and
    /// whether it is good; `None` stands for a request that was told to come back.
    fn write(client: &Client, access: &str, told: &Sender<Option<(Key, bool)>>) {
        let sent = |request: Request<'_>| {
            let answer = request.send();
            assert!([200, 201, 503].contains(&answer.status), "{answer:?}");
            (answer.status != 503).then_some(answer)
        };
        let create = || sent(client.post("/keys/create").bearer(access).json(json!({ "name": "ci" })));
        let revoke = |key: &Key| sent(client.delete(&format!("/keys/{}", key.id)).bearer(access));
        for count in 0.. {
            let made = create().map(|answer| key(&answer.json()));
            let done = match made {
                Some(made) if count % 2 == 0 => Some((made, true)),
                Some(made) => revoke(&made).map(|_| (made, false)),
                None => None,
            };
            if told.send(done).is_err() {
                return;
            }
        }
    }

    /// While the store is away, every request is told so in time; when it is back, each succeeds; and whatever was
    /// acknowledged, before, between or after, is there.
    fn story(take_away: fn(&Relay), give_back: fn(&Relay)) {
        if !postgres_cluster::available() {
            return;
        }
        // The writers make as many as they can.
        let service = Service::start_with(Backend::Postgres, &[("MAX_KEYS_PER_USER", "100000")], |_| {});
        let requests = needy_requests(&service);
        let writer = service.log_in("ann@example.com");
        let remote = Remote::of(&service);
        let (told, outcomes) = channel();
        let mut acknowledged: Vec<(Key, bool)> = Vec::new();
        thread::scope(|scope| {
            // In here, so that the writers end also when something fails.
            let outcomes = outcomes;
            for _ in 0..2 {
                let (client, told, access) = (remote.client(), told.clone(), &writer.access);
                scope.spawn(move || write(&client, access, &told));
            }
            acknowledged.extend(outcomes.iter().flatten().take(20));
            take_away(&remote.relay);
            each_is_told_to_come_back(&remote, &requests);
            give_back(&remote.relay);
            each_succeeds_soon(&remote, &requests);
            acknowledged.extend(outcomes.iter().flatten().take(20));
        });
        for (key, is_good) in acknowledged {
            assert_eq!(service.key_status(&key.key), if is_good { 200 } else { 401 });
        }
    }

    fn each_is_told_to_come_back(remote: &Remote, requests: &[Needy]) {
        thread::scope(|scope| {
            for needy in requests {
                let client = remote.client();
                scope.spawn(move || {
                    let asked = Instant::now();
                    let answer = (needy.request)(&client);
                    let waited = asked.elapsed();
                    assert_eq!(answer.status, 503, "{}: {answer:?}", needy.name);
                    assert_eq!(answer.header("retry-after"), Some("1"));
                    let message = "Service temporarily unavailable, try again shortly";
                    assert_eq!(answer.json(), error(503, message));
                    assert!(waited < Duration::from_secs(8), "{}: {waited:?}", needy.name);
                });
            }
            let client = remote.client();
            assert_eq!(client.get("/health").send().status, 200);
            // What is refused without asking the store is refused as ever.
            assert_eq!(client.get("/protected/user-only").send().status, 401);
            assert_eq!(client.get("/protected/service-only").api_key("nonsense").send().status, 401);
        });
    }

    fn each_succeeds_soon(remote: &Remote, requests: &[Needy]) {
        let back = Instant::now();
        thread::scope(|scope| {
            for needy in requests {
                let client = remote.client();
                scope.spawn(move || {
                    let answer = loop {
                        let answer = (needy.request)(&client);
                        if answer.status != 503 {
                            break answer;
                        }
                        assert!(back.elapsed() < Duration::from_secs(10), "{}: {:?}", needy.name, back.elapsed());
                    };
                    let right = [needy.expected, needy.if_done_before].contains(&answer.status);
                    assert!(right, "{}: {answer:?}", needy.name);
                });
            }
        });
    }

    #[test]
    fn when_postgresql_refuses_connections_requests_are_told_to_come_back_and_succeed_when_it_is_there_again() {
        story(Relay::cut, Relay::restore);
    }

    #[test]
    fn when_postgresql_hangs_requests_are_told_to_come_back_and_succeed_when_it_moves_again() {
        story(Relay::freeze, Relay::thaw);
    }
}

mod tls {
    use super::*;

    /// The home of a database with these settings in place of a URL.
    fn home_with(database: Database, settings: &[(&str, &str)]) -> Home {
        let parts = [
            ("DB_HOST", database.host().to_string()),
            ("DB_PORT", database.port().to_string()),
            ("DB_USERNAME", database.user().to_string()),
            ("DB_PASSWORD", database.password().to_string()),
            ("DB_NAME", database.name().to_string()),
        ];
        let mut home = Home::with_database(database);
        home.unset("DATABASE_URL");
        for (name, value) in parts {
            home.set(name, &value);
        }
        for (name, value) in settings {
            home.set(name, value);
        }
        home
    }

    #[track_caller]
    fn refused(home: &Home, settings: &[(&str, &str)]) -> String {
        let finished = finish(home.command(&["migrate"]).envs(settings.iter().copied()), "");
        assert_eq!(finished.stdout, "");
        finished.failed(1).to_string()
    }

    #[track_caller]
    fn accepted(home: &Home, settings: &[(&str, &str)]) {
        finish(home.command(&["migrate"]).envs(settings.iter().copied()), "").succeeded();
    }

    #[test]
    fn a_server_without_tls_is_enough_for_prefer_and_disable_and_for_nothing_else() {
        if !postgres_cluster::available() {
            return;
        }
        let home = home_with(Database::fresh(), &[]);
        let certificate = home.path("ca.crt");
        accepted(&home, &[]);
        accepted(&home, &[("DB_SSLMODE", "prefer")]);
        accepted(&home, &[("DB_SSLMODE", "disable")]);
        let line = refused(&home, &[("DB_SSLMODE", "require")]);
        assert!(line.contains("server does not support TLS"), "{line}");
        let line = refused(&home, &[("DB_SSLMODE", "verify-full")]);
        assert!(line.contains("DB_SSLROOTCERT is not set"), "{line}");

        let verify = [("DB_SSLMODE", "verify-full"), ("DB_SSLROOTCERT", certificate.to_str().unwrap())];
        let line = refused(&home, &verify);
        assert!(line.contains("DB_SSLROOTCERT") && line.contains("No such file"), "{line}");
        std::fs::write(&certificate, "-----BEGIN PRIVATE KEY-----hunter2").unwrap();
        let line = refused(&home, &verify);
        let numbers = "104, 117, 110, 116, 101, 114";
        assert!(line.ends_with("ca.crt: is not PEM") && !line.contains("hunter2") && !line.contains(numbers), "{line}");
        std::fs::write(&certificate, "no certificate").unwrap();
        let line = refused(&home, &verify);
        assert!(line.contains("DB_SSLROOTCERT") && line.contains("no certificate"), "{line}");
        if let Some(certificates) = Certificates::make() {
            std::fs::write(&certificate, certificates.read("ca.crt")).unwrap();
            let line = refused(&home, &verify);
            assert!(line.contains("server does not support TLS"), "{line}");
        }
    }

    /// Two authorities; the first has signed for a server named localhost, which has a self-signed certificate too.
    struct Certificates(Home);

    impl Certificates {
        /// `None` where there is no openssl to make them with.
        fn make() -> Option<Certificates> {
            let folder = Home::fresh(Backend::Sqlite);
            let openssl = |arguments: &str| {
                let mut command = Command::new("openssl");
                command.args(arguments.split(' ')).current_dir(folder.path("."));
                let finished = finish(&mut command, "");
                assert_eq!(finished.code, Some(0), "openssl {arguments}: {finished:?}");
            };
            if !installed(&[Tool::Openssl]) {
                return None;
            }
            let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
            for name in ["ca", "other-ca"] {
                openssl(&format!("req -x509 {new} -days 2 -subj /CN={name} -keyout {name}.key -out {name}.crt"));
            }
            openssl(&format!("req {new} -subj /CN=localhost -keyout server.key -out server.csr"));
            std::fs::write(folder.path("names"), "subjectAltName=DNS:localhost\n").unwrap();
            openssl(
                "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt",
            );
            openssl(
                "req -x509 -key server.key -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost -out self.crt",
            );
            Some(Certificates(folder))
        }

        fn path(&self, name: &str) -> String {
            self.0.path(name).to_str().unwrap().to_string()
        }

        fn read(&self, name: &str) -> String {
            std::fs::read_to_string(self.0.path(name)).unwrap()
        }
    }

    /// Lets the cluster of this database speak TLS with this certificate. The server writes the files itself: they
    /// have to belong to the user it runs as.
    fn enable_tls(database: &Database, key: &str, certificate: &str) {
        let mut client = database.client();
        for (text, file) in [(key, "server.key"), (certificate, "server.crt")] {
            let lines = format!("unnest(string_to_array('{}', E'\\n'))", text.trim_end());
            let write = format!("COPY (SELECT {lines}) TO PROGRAM 'umask 077 && cat > {file}'");
            client.batch_execute(&write).unwrap();
        }
        // Not in one batch: it would be one transaction, and ALTER SYSTEM goes without.
        client.batch_execute("ALTER SYSTEM SET ssl = on").unwrap();
        client.batch_execute("SELECT pg_reload_conf()").unwrap();
        within(PATIENCE, "the server has read its settings", || {
            let served: String = database.client().query_one("SHOW ssl", &[]).unwrap().get(0);
            served == "on"
        });
    }

    #[test]
    fn each_mode_checks_of_a_server_with_tls_what_libpq_would_check() {
        if !postgres_cluster::available() {
            return;
        }
        let Some(certificates) = Certificates::make() else { return };
        let database = Database::apart();
        enable_tls(&database, &certificates.read("server.key"), &certificates.read("server.crt"));
        let home = home_with(database, &[]);
        let (ca, other_ca) = (certificates.path("ca.crt"), certificates.path("other-ca.crt"));
        let named = ("DB_HOST", "localhost");
        let numbered = ("DB_HOST", "127.0.0.1");

        // Any certificate, as long as nobody says which.
        for mode in ["disable", "prefer", "require"] {
            accepted(&home, &[named, ("DB_SSLMODE", mode)]);
            accepted(&home, &[numbered, ("DB_SSLMODE", mode)]);
        }
        // With an authority: its chain, but not the name.
        accepted(&home, &[named, ("DB_SSLMODE", "require"), ("DB_SSLROOTCERT", &ca)]);
        accepted(&home, &[numbered, ("DB_SSLMODE", "require"), ("DB_SSLROOTCERT", &ca)]);
        let line = refused(&home, &[named, ("DB_SSLMODE", "require"), ("DB_SSLROOTCERT", &other_ca)]);
        assert!(line.contains("certificate"), "{line}");
        // In full: chain and name.
        accepted(&home, &[named, ("DB_SSLMODE", "verify-full"), ("DB_SSLROOTCERT", &ca)]);
        let line = refused(&home, &[named, ("DB_SSLMODE", "verify-full"), ("DB_SSLROOTCERT", &other_ca)]);
        assert!(line.contains("certificate"), "{line}");
        let line = refused(&home, &[numbered, ("DB_SSLMODE", "verify-full"), ("DB_SSLROOTCERT", &ca)]);
        assert!(line.contains("certificate"), "{line}");

        // The same in a URL; and it is TLS indeed, also where it is only preferred.
        let database = home.database().unwrap();
        let url = |mode: &str| {
            let url = database.url().replace("@127.0.0.1:", "@localhost:");
            format!("{url}?sslmode={mode}&sslrootcert={ca}")
        };
        for (settings, uses_tls) in [
            (("DATABASE_URL", url("verify-full")), true),
            (("DB_SSLMODE", "require".to_string()), true),
            (("DB_SSLMODE", "prefer".to_string()), true),
            (("DB_SSLMODE", "disable".to_string()), false),
        ] {
            let server = home.start(&[(settings.0, &settings.1)]);
            assert_eq!(server.client().get("/health").send().status, 200);
            let select = "SELECT bool_and(ssl), bool_or(ssl) FROM pg_stat_ssl \
                          JOIN pg_stat_activity USING (pid) WHERE application_name = 'keyward'";
            let row = database.client().query_one(select, &[]).unwrap();
            assert_eq!([row.get::<_, bool>(0), row.get(1)], [uses_tls; 2], "{settings:?}");
            server.stop();
            let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'keyward'";
            let mut client = database.client();
            within(PATIENCE, "its connections are closed", || {
                client.query_one(count, &[]).unwrap().get::<_, i64>(0) == 0
            });
        }

        // A server's own certificate as the authority, as PostgreSQL's manual shows it.
        enable_tls(database, &certificates.read("server.key"), &certificates.read("self.crt"));
        let own = certificates.path("self.crt");
        within(PATIENCE, "the server has another certificate", || {
            let settings = [named, ("DB_SSLMODE", "require"), ("DB_SSLROOTCERT", &ca)];
            finish(home.command(&["migrate"]).envs(settings), "").code == Some(1)
        });
        accepted(&home, &[named, ("DB_SSLMODE", "require")]);
        accepted(&home, &[named, ("DB_SSLMODE", "require"), ("DB_SSLROOTCERT", &own)]);
        accepted(&home, &[named, ("DB_SSLMODE", "verify-full"), ("DB_SSLROOTCERT", &own)]);
    }
}
