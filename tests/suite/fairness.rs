//! Who asks for more than the server can do waits behind themselves.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use keyward_harness::http_client::Request;
use keyward_harness::service::has_read_everything;
use keyward_harness::service::{Account, Backend, PASSWORD, Service, within};
use keyward_harness::wire::Wire;
use serde_json::{Value, json};

/// Far from how long those wait who hang.
const AT_ONCE: Duration = Duration::from_secs(3);

fn start(backend: Backend) -> Service {
    // It is about who waits for whom, not about hashing.
    Service::start_with(backend, &[("TRUSTED_PROXIES", "127.0.0.1")], |config| config.accounts.bcrypt_cost = 4)
}

/// Nobody changes what is the user's, as long as this lives.
enum Hold {
    Row(postgres::Client),
    File(rusqlite::Connection),
}

impl Hold {
    fn of(service: &Service, account: &Account) -> Hold {
        if let Some(database) = service.database() {
            let mut client = database.client();
            client.batch_execute(&format!("BEGIN; SELECT FROM users WHERE id = '{}' FOR UPDATE", account.id)).unwrap();
            return Hold::Row(client);
        }
        let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
        file.busy_timeout(AT_ONCE).unwrap();
        file.execute_batch("BEGIN IMMEDIATE").unwrap();
        Hold::File(file)
    }

    fn release(self) {
        match self {
            Hold::Row(mut client) => client.batch_execute("ROLLBACK").unwrap(),
            Hold::File(file) => file.execute_batch("ROLLBACK").unwrap(),
        }
    }
}

/// `headers`: each with the end of its line.
fn post(target: &str, headers: &str, body: &Value) -> String {
    let (body, head) = (body.to_string(), format!("POST {target} HTTP/1.1\r\nHost: keyward\r\n{headers}"));
    format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Each on a connection of its own; the server has read them all.
fn send(service: &Service, requests: impl Iterator<Item = String>) -> Vec<Wire> {
    let sent = requests.map(|request| {
        let mut wire = Wire::open(service.address());
        wire.send(request);
        wire
    });
    let sent: Vec<Wire> = sent.collect();
    within(AT_ONCE, "all is read", || has_read_everything(service.address()));
    sent
}

#[track_caller]
fn is_at_once(request: Request<'_>, status: u16) {
    let asked = Instant::now();
    let answer = request.send();
    let took = asked.elapsed();
    assert_eq!(answer.status, status, "after {took:?}: {answer:?}");
    assert!(took < AT_ONCE, "{took:?}");
}

fn one_who_fills_every_lane(backend: Backend) {
    let service = start(backend);
    let [ann, bob] = ["ann@example.com", "bob@example.com"].map(|email| service.sign_up(email));
    let keys = [(); 3].map(|()| service.create_key(&bob.access, json!({ "name": "ci" }))["key"].clone());
    let held = Hold::of(&service, &ann);
    let by_ann = format!("Authorization: Bearer {}\r\n", ann.access);
    let change = json!({ "currentPassword": PASSWORD, "newPassword": "Another123!" });
    let mut hanging = send(&service, (0..40).map(|_| post("/keys/create", &by_ann, &json!({ "name": "more" }))));
    hanging.extend(send(&service, (0..20).map(|_| post("/auth/password", &by_ann, &change))));
    for key in &keys {
        is_at_once(service.get("/auth/me").bearer(&bob.access), 200);
        is_at_once(service.get("/protected/service-only").api_key(key.as_str().unwrap()), 200);
        // The password lane. On SQLite no login is answered while another process writes; this is refused without writing.
        let unknown = json!({ "token": "0".repeat(64), "password": "Another123!" });
        is_at_once(service.post("/auth/reset-password").json(unknown), 401);
    }
    if service.database().is_some() {
        is_at_once(service.post("/auth/login").json(json!({ "email": &bob.email, "password": "Wrong123!" })), 401);
        is_at_once(service.post("/auth/login").json(json!({ "email": &bob.email, "password": PASSWORD })), 200);
        is_at_once(service.post("/keys/create").bearer(&bob.access).json(json!({ "name": "cd" })), 201);
    }
    held.release();
    for wire in &mut hanging {
        let answer = wire.answer();
        assert!([200, 201, 401, 429, 503].contains(&answer.status), "{answer:?}");
    }
}

#[test]
fn one_who_fills_every_lane_waits_behind_themselves_on_sqlite() {
    one_who_fills_every_lane(Backend::Sqlite);
}

#[test]
fn one_who_fills_every_lane_waits_behind_themselves_on_postgres() {
    if keyward_harness::postgres_cluster::available() {
        one_who_fills_every_lane(Backend::Postgres);
    }
}

#[test]
fn logins_that_hang_keep_nobody_out_at_another_address() {
    if !keyward_harness::postgres_cluster::available() {
        return;
    }
    let service = start(Backend::Postgres);
    let [ann, bob] = ["ann@example.com", "bob@example.com"].map(|email| service.sign_up(email));
    let held = Hold::of(&service, &ann);
    let credentials = |account: &Account| json!({ "email": &account.email, "password": PASSWORD });
    // Of one network, as one customer has it.
    let of_ann = |number| format!("X-Forwarded-For: 2001:db8:1:2::{number}\r\n");
    let mut hanging = send(&service, (0..20).map(|number| post("/auth/login", &of_ann(number), &credentials(&ann))));
    let login = service.post("/auth/login").header("x-forwarded-for", "2001:db8:1:3::1");
    is_at_once(login.json(credentials(&bob)), 200);
    held.release();
    for wire in &mut hanging {
        let answer = wire.answer();
        assert!([200, 503].contains(&answer.status), "{answer:?}");
    }
}

fn clients_who_have_gone(backend: Backend) {
    let service = start(backend);
    let ann = service.sign_up("ann@example.com");
    let held = Hold::of(&service, &ann);
    let login = || post("/auth/login", "", &json!({ "email": &ann.email, "password": PASSWORD }));
    // As many as are at work at most, and hang; all others wait.
    let mut hanging = send(&service, (0..8).map(|_| login()));
    let gone = send(&service, (0..20).map(|_| login()));
    assert_eq!(connections(service.address()), 29);
    drop(gone);
    within(AT_ONCE, "they are known to be gone", || connections(service.address()) <= 9);
    held.release();
    for wire in &mut hanging {
        let answer = wire.answer();
        assert!([200, 503].contains(&answer.status), "{answer:?}");
    }
    let sessions = service.get("/auth/sessions").bearer(&service.log_in(&ann.email).access).send().json();
    let sessions = sessions.as_array().unwrap().len();
    // The sign-up's and the last one's among them.
    assert!(sessions <= 2 + hanging.len(), "{sessions} sessions");
}

/// How many connections the server has.
fn connections(server: SocketAddr) -> usize {
    let port = format!(":{:04X}", server.port());
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let of_server = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // proc_pid_net(5): the fourth field is the state. Established, or closed by the client alone.
    of_server.filter(|fields| fields[1].ends_with(&port) && matches!(fields[3], "01" | "08")).count()
}

#[test]
fn clients_who_have_gone_before_their_turn_cost_no_hash_on_sqlite() {
    clients_who_have_gone(Backend::Sqlite);
}

#[test]
fn clients_who_have_gone_before_their_turn_cost_no_hash_on_postgres() {
    if keyward_harness::postgres_cluster::available() {
        clients_who_have_gone(Backend::Postgres);
    }
}
