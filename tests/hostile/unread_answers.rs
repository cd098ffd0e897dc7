//! Clients that do not take what is there for them, and send what nobody wants: large answers over both versions of HTTP, and
//! trailers. What is held for all of them has one bound.

use std::thread;
use std::time::{Duration, Instant};

use keyward_harness::http_client::Client;
use keyward_harness::http2::{
    self, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PREFACE, SETTINGS, frame, head, indexed,
};
use keyward_harness::program::Home;
use keyward_harness::service::{Account, Backend};
use keyward_harness::tls_client::{Pair, TlsWire};
use keyward_harness::wire::Wire;
use serde_json::json;

use crate::target::{NO_LIMITS, Witness, has_no_faults, keeps_to_its_memory};

/// Half of what one listing gives, each with as much text as a key may have: almost 3 MB.
const KEYS: usize = 500;

fn make_keys(client: &Client, owner: &Account) {
    let scopes: Vec<String> = (0..50).map(|number| format!("{number:x>100}")).collect();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..KEYS / 4 {
                    let form = json!({ "name": "n".repeat(100), "scopes": scopes });
                    let made = client.post("/keys/create").bearer(&owner.access).json(form).send();
                    assert_eq!(made.status, 201, "{made:?}");
                }
            });
        }
    });
}

/// Settings after which nothing of an answer but its head may be sent.
fn no_window() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &http2::settings(&[(INITIAL_WINDOW_SIZE, 0)]))].concat()
}

/// Asks for the list on sixty streams.
fn lists(access: &str) -> Vec<u8> {
    let block = head("GET", "/keys", &[("authorization", &format!("Bearer {access}"))]);
    let requests = (0..60).flat_map(|number| frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &block));
    [no_window(), requests.collect()].concat()
}

/// A hundred requests of nobody whose trailers take a hundred times as much to hold as to send. Their answers stay.
fn trailers() -> Vec<u8> {
    let requests = (0..100).flat_map(|number| {
        let id = 2 * number + 1;
        let mut trailers = if number == 0 { indexed("a", "") } else { Vec::new() };
        trailers.extend([0xBE; 480]);
        let start = frame(HEADERS, END_HEADERS, id, &head("POST", "/auth/refresh", &[]));
        [start, frame(DATA, 0, id, b"{}"), frame(HEADERS, END_HEADERS | END_STREAM, id, &trailers)].concat()
    });
    [no_window(), requests.collect()].concat()
}

#[test]
fn what_clients_do_not_take_and_trailers_hold_little_memory_and_others_are_served() {
    let home = Home::fresh(Backend::Sqlite);
    let pair = Pair::make(&home.path(""), "server");
    let tls = [("TLS_CERT", "server.pem"), ("TLS_KEY", "server.key"), ("HTTP_REDIRECT_PORT", "0")];
    let most_keys = [("MAX_KEYS_PER_USER", "1000")];
    // The keys are made without TLS, which the client has not.
    let plain = home.start(&[NO_LIMITS.as_slice(), &most_keys].concat());
    let client = Client::unobserved(plain.address());
    let owner = client.sign_up("ann@example.com");
    home.run(&["user", "grant", "ann@example.com", "x*"]).succeeded();
    make_keys(&client, &owner);
    assert!(client.get("/keys").bearer(&owner.access).send().body.len() > 2_500_000);
    assert_eq!(plain.stop().code, Some(0));

    let server = home.start(&[NO_LIMITS.as_slice(), &tls, &most_keys].concat());
    let (address, certificate) = (server.address(), pair.der());
    let open = |protocol: &str| TlsWire::try_open(address, &certificate, &[protocol]).unwrap();
    let list = format!("GET /keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n", owner.access);
    let held: Vec<TlsWire> = thread::scope(|scope| {
        let attack = |count: usize, protocol: &'static str, bytes: Vec<u8>| {
            scope.spawn(move || {
                let mut held: Vec<TlsWire> = (0..count).map(|_| open(protocol)).collect();
                for wire in &mut held {
                    let _ = wire.try_send(&bytes);
                }
                held
            })
        };
        let attacks = [
            attack(1, "h2", lists(&owner.access)),
            attack(50, "http/1.1", list.clone().into_bytes()),
            attack(40, "h2", trailers()),
        ];
        attacks.into_iter().flat_map(|attack| attack.join().unwrap()).collect()
    });
    // Others are served meanwhile, with large answers as well.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        let answer = open("http/1.1").send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").answer();
        assert_eq!(answer.status, 200);
    }
    keeps_to_its_memory(server.pid());
    let bob = sign_up_over(&mut open("http/1.1"));
    assert_eq!(bob, 201);
    drop(held);
    let answer = open("http/1.1").send(&list).answer();
    assert!(answer.status == 200 && answer.body.len() > 2_500_000, "{}", answer.status);
    keeps_to_its_memory(server.pid());
    let said = server.stop();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    has_no_faults(&said.stderr);
}

fn sign_up_over(wire: &mut TlsWire) -> u16 {
    let body = json!({ "email": "bob@example.com", "password": keyward_harness::service::PASSWORD }).to_string();
    let head = "POST /auth/signup HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    wire.send(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())).answer().status
}

/// A body that is almost there, on each of two thousand connections: eight times what is held for all.
#[test]
fn large_bodies_that_do_not_end_hold_little_memory_and_others_are_served() {
    const BODY: usize = 256 * 1024;
    let home = Home::fresh(Backend::Sqlite);
    let server = home.start(&NO_LIMITS);
    let witness = Witness::of(&server);
    let request = format!(
        "POST /keys/verify-batch HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {BODY}\r\n\r\n{}",
        witness.account.access,
        " ".repeat(BODY - 1)
    );
    let held: Vec<Wire> = (0..2000)
        .map(|_| {
            let mut wire = Wire::open(server.address());
            // Who is told that there is no room may be cut while they send.
            let _ = wire.try_send(&request);
            wire
        })
        .collect();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        witness.is_served();
    }
    witness.testify();
    drop(held);
    let said = server.stop();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    has_no_faults(&said.stderr);
}
