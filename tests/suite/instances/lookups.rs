//! Keys that are not remembered yet: how they are looked up, how many at once, and who hears of them.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use keyward::base::id::KeyId;
use keyward::keys::key::KeyHash;
use keyward_harness::http_client::{PATIENCE, Request, connect, read_answer};
use keyward_harness::postgres_cluster::available;
use keyward_harness::relay::Relay;
use keyward_harness::service::{Account, Backend, Service, has_read_everything};
use postgres::fallible_iterator::FallibleIterator;
use serde_json::{Value, json};

use super::{Credential, Instance, MAX_AGE, database_address, start, unknown_key, until};

/// Presents all keys over a few connections, each of which sends its requests without waiting for answers.
fn statuses(address: SocketAddr, keys: &[String], connections: usize) -> Vec<u16> {
    let mut pending: Vec<_> = keys
        .chunks(keys.len().div_ceil(connections))
        .map(|keys| {
            let mut stream = connect(address).unwrap();
            let request =
                |key: &String| format!("GET /protected/service-only HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n");
            stream.write_all(keys.iter().map(request).collect::<String>().as_bytes()).unwrap();
            (BufReader::new(stream), keys.len())
        })
        .collect();
    pending
        .iter_mut()
        .flat_map(|(stream, count)| (0..*count).map(|_| read_answer(stream, false).unwrap().status).collect::<Vec<_>>())
        .collect()
}

#[test]
fn ten_thousand_unknown_keys_push_no_known_one_out() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let ann = service.sign_up("ann@example.com");
    // What is known is known for five seconds: on a machine that needs longer, fewer have to do.
    let mut count = 10_000;
    loop {
        let relay = Relay::to(database_address(&service));
        let second = Instance::behind(&relay, &service, |config| config.memory.cache_entries = 64);
        let there = second.client();
        let key = Credential::key(&service, &ann);
        let known = Instant::now();
        assert_eq!(key.status(&there), 200);
        let unknown: Vec<String> = (0..count).map(unknown_key).collect();
        let answers = statuses(second.address, &unknown, 100);
        assert!(answers.iter().all(|status| *status == 401), "{answers:?}");
        relay.cut();
        let status = key.status(&there);
        let passed = known.elapsed();
        if passed < MAX_AGE {
            eprintln!("{count} unknown keys in {passed:?}");
            assert_eq!(status, 200, "from memory");
            return;
        }
        count /= 2;
    }
}

/// Runs the story while nobody can read the table of keys, from when queries for these keys wait for that, and
/// returns what they are answered in the end. The story can ask how many wait.
fn with_keys_locked(service: &Service, keys: &[String], story: impl FnOnce(&mut dyn FnMut() -> i64)) -> Vec<u16> {
    let database = service.database().unwrap();
    let (mut locker, mut observer) = (database.client(), database.observer());
    let mut lock = locker.transaction().unwrap();
    lock.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE", &[]).unwrap();
    let mut sent: Vec<_> = keys.iter().map(|key| present(service.address(), key)).collect();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 \
                   AND wait_event_type = 'Lock' AND query LIKE '%api_keys.hash = ANY%'";
    let mut count = || observer.query_one(waiting, &[&database.name()]).unwrap().get::<_, i64>(0);
    until("they wait", || count() > 0 && has_read_everything(service.address()));
    story(&mut count);
    lock.rollback().unwrap();
    sent.iter_mut().map(|stream| read_answer(stream, false).unwrap().status).collect()
}

fn present(address: SocketAddr, key: &str) -> BufReader<TcpStream> {
    let mut stream = connect(address).unwrap();
    write!(stream, "GET /protected/service-only HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n").unwrap();
    BufReader::new(stream)
}

#[test]
fn unknown_keys_that_wait_for_the_store_keep_nobody_else_from_it() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let ann = service.sign_up("ann@example.com");
    let unknown: Vec<String> = (0..200).map(unknown_key).collect();
    let answers = with_keys_locked(&service, &unknown, |waiting| {
        assert_eq!(service.token_status(&service.log_in(&ann.email).access), 200);
        assert_eq!(service.get("/auth/me").bearer(&ann.access).send().status, 200);
        let count = waiting();
        assert!((1..=10).contains(&count), "{count} queries wait, of at most half of the connections");
    });
    assert_eq!(answers, [401; 200]);
}

/// PostgreSQL adds a connection's figures up when it ends: stops the service, and waits for that.
fn figure_of_all(service: &mut Service, figure: &str) -> i64 {
    service.stop();
    let database = service.database().unwrap();
    let mut observer = database.observer();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'";
    let mut open = || observer.query_one(open, &[&database.name()]).unwrap().get::<_, i64>(0);
    until("the service's connections are closed", || open() == 0);
    database.client().query_one(figure, &[]).unwrap().get(0)
}

/// Stores keys of the owner's at once, without the server.
fn insert_keys(service: &Service, owner: &Account, keys: &[String]) {
    let rows: Vec<String> = keys
        .iter()
        .map(|key| {
            let hash: String =
                KeyHash::of(key.as_bytes()).unwrap().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            format!("('{}', '{}', '\\x{hash}', 'sk_…', 'key', TRUE, now())", KeyId::new(), owner.id)
        })
        .collect();
    let statement = format!(
        "INSERT INTO api_keys (id, user_id, hash, hint, name, is_active, created_at) VALUES {}",
        rows.join(", ")
    );
    service.database().unwrap().client().batch_execute(&statement).unwrap();
}

#[test]
fn all_who_ask_for_the_same_key_at_once_are_answered_by_one_query() {
    if !available() {
        return;
    }
    let mut service = start(Backend::Postgres);
    let name = service.database().unwrap().name().to_string();
    // So that each query for a key shows as one scan of the index; from the next connections on.
    let enough = format!("ALTER DATABASE {name} SET enable_seqscan = off");
    service.database().unwrap().client().batch_execute(&enough).unwrap();
    service.restart();
    let ann = service.sign_up("ann@example.com");
    let key = service.create_key(&ann.access, json!({ "name": "key" }))["key"].as_str().unwrap().to_string();
    // Of so many keys, the index of hashes finds one quickest.
    insert_keys(&service, &ann, &(0..2000).map(unknown_key).collect::<Vec<_>>());
    service.database().unwrap().client().batch_execute("ANALYZE").unwrap();
    let answers = with_keys_locked(&service, &vec![key; 50], |_| {});
    assert_eq!(answers, [200; 50]);
    let index = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'api_keys_hash_key'";
    assert_eq!(figure_of_all(&mut service, index), 1);
}

#[test]
fn keys_that_are_asked_for_at_once_are_fetched_together() {
    if !available() {
        return;
    }
    let mut service = start(Backend::Postgres);
    let ann = service.sign_up("ann@example.com");
    let keys: Vec<String> = (0..300).map(unknown_key).collect();
    insert_keys(&service, &ann, &keys);
    let answers = with_keys_locked(&service, &keys, |_| {});
    assert_eq!(answers, [200; 300]);
    // The sign-up, the migrations and what each connection sets are among them.
    let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let commits = figure_of_all(&mut service, commits);
    eprintln!("{commits} transactions for 300 keys, all told");
    assert!(commits < 200, "{commits} transactions");
}

#[test]
fn a_key_is_good_on_every_instance_once_it_is_made_and_nobody_is_told_of_it() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let second = Instance::beside(&service);
    let ann = service.sign_up("ann@example.com");
    let mut told = Told::listen(&service);
    let Credential::Key { key, .. } = Credential::key(&service, &ann) else { unreachable!() };
    assert_eq!((service.key_status(&key), second.client().key_status(&key)), (200, 200));
    assert_eq!(told.before(&service), [""; 0]);
}

/// What instances tell each other.
struct Told(postgres::Client);

impl Told {
    fn listen(service: &Service) -> Told {
        let mut client = service.database().unwrap().client();
        client.batch_execute("LISTEN keyward_changes").unwrap();
        Told(client)
    }

    /// All of it until now: what is told comes in the order of its commits.
    fn before(&mut self, service: &Service) -> Vec<String> {
        service.database().unwrap().client().batch_execute("NOTIFY keyward_changes, 'now'").unwrap();
        let mut told = Vec::new();
        loop {
            let heard = self.0.notifications().timeout_iter(PATIENCE).next().unwrap();
            match heard.expect("it is heard").payload() {
                "now" => return told,
                other => told.push(other.to_string()),
            }
        }
    }
}

#[test]
fn what_is_refused_or_changes_nothing_makes_nobody_forget_what_is_remembered() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
    let key = service.create_key(&ann.access, json!({ "name": "ci" }));
    let revoked = service.create_key(&ann.access, json!({ "name": "revoked" }));
    let path = |key: &Value| format!("/keys/{}", key["id"].as_str().unwrap());
    assert_eq!(service.delete(&path(&revoked)).bearer(&ann.access).send().status, 200);
    let mut told = Told::listen(&service);
    let database = service.database().unwrap();
    let is_remembered = || {
        // Within the five seconds that anything is remembered for.
        loop {
            let started = Instant::now();
            database.client().execute("UPDATE api_keys SET is_active = TRUE WHERE name = 'ci'", &[]).unwrap();
            until("the key is good", || service.key_status(key["key"].as_str().unwrap()) == 200);
            // Nobody is told of this.
            database.client().execute("UPDATE api_keys SET is_active = FALSE WHERE name = 'ci'", &[]).unwrap();
            let sent = |request: Request<'_>, access| request.bearer(access).send().status;
            assert_eq!(sent(service.delete(&path(&key)), &bob.access), 404);
            assert_eq!(sent(service.patch(&path(&key)).json(json!({ "name": "bob's" })), &bob.access), 404);
            assert_eq!(sent(service.post(&format!("{}/rotate", path(&key))).json(json!({})), &bob.access), 404);
            assert_eq!(sent(service.delete(&path(&revoked)), &ann.access), 200);
            assert_eq!(sent(service.patch(&path(&revoked)).json(json!({ "name": "again" })), &ann.access), 409);
            assert_eq!(sent(service.post(&format!("{}/rotate", path(&revoked))).json(json!({})), &ann.access), 409);
            let session = service.get("/auth/sessions").bearer(&ann.access).send().json()[0]["id"].clone();
            let session = format!("/auth/sessions/{}", session.as_str().unwrap());
            assert_eq!(sent(service.delete(&session), &bob.access), 404);
            assert_eq!(sent(service.delete("/auth/sessions"), &bob.access), 200);
            let wrong = json!({ "password": "wrong" });
            assert_eq!(sent(service.delete("/auth/me").json(wrong), &bob.access), 401);
            let status = service.key_status(key["key"].as_str().unwrap());
            if started.elapsed() < Duration::from_secs(4) {
                return status == 200;
            }
        }
    };
    assert!(is_remembered());
    service.operator(&["user", "activate", &ann.email]);
    assert_eq!(told.before(&service), [""; 0]);
    assert_eq!(service.patch(&path(&key)).bearer(&ann.access).json(json!({ "name": "cd" })).send().status, 200);
    assert_eq!(service.key_status(key["key"].as_str().unwrap()), 401);
    assert_eq!(told.before(&service), [key["id"].as_str().unwrap()]);
}
