//! A store that hangs while masses ask for what only it knows: as many wait as there is room for, and the rest is told to
//! come back at once, not when their time is up.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use keyward_harness::http_client::Answer;
use keyward_harness::http2::{END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, head};
use keyward_harness::postgres_cluster::available;
use keyward_harness::service::PASSWORD;
use keyward_harness::tls_client::{Pair, TlsWire};
use serde_json::json;

use crate::postgres::home_at;
use crate::postgres_pair::Pair as Servers;
use crate::target::{NO_LIMITS, has_no_faults, keeps_to_its_memory, unavailable};

/// Streams on a connection. Of those that are to queue for a lane, as many as a connection may have there at once.
const STREAMS: usize = 100;
const QUEUED_STREAMS: usize = 16;
/// All that wait for what one of the store's tables knows, and a few more.
const LOOKUPS: usize = 16 * 1024 + 600;
/// More than one user may have waiting in a lane.
const QUEUED: usize = 600;

fn request(number: usize, path: &str, credential: (&str, &str)) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 2 * number as u32 + 1, &head("GET", path, &[credential]))
}

struct Clients<'a> {
    address: SocketAddr,
    pair: &'a Pair,
    held: Vec<TlsWire>,
}

impl Clients<'_> {
    /// Sends these requests, so many on each connection.
    fn send(&mut self, count: usize, streams: usize, path: &str, credential: impl Fn(usize) -> (&'static str, String)) {
        let requests: Vec<usize> = (0..count).collect();
        for part in requests.chunks(streams) {
            let mut wire = TlsWire::try_open(self.address, &self.pair.der(), &["h2"]).unwrap();
            let mut bytes = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
            for (stream, number) in part.iter().enumerate() {
                let (name, value) = credential(*number);
                bytes.extend(request(stream, path, (name, &value)));
            }
            wire.send(bytes);
            self.held.push(wire);
        }
    }

    fn ask(&self, method: &str, path: &str, credential: (&str, &str), body: &str) -> Answer {
        let (name, value) = credential;
        let mut wire = TlsWire::try_open(self.address, &self.pair.der(), &["http/1.1"]).unwrap();
        let length = body.len();
        wire.send(format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{name}: {value}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
        wire.answer()
    }

    #[track_caller]
    fn is_told_to_come_back_at_once(&self, path: &str, credential: (&str, &str)) {
        let asked = Instant::now();
        let answer = self.ask("GET", path, credential, "");
        println!("{path}: {} after {:?}", answer.status, asked.elapsed());
        assert_eq!((answer.status, answer.json()), (503, unavailable()));
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    }
}

#[test]
fn while_the_store_hangs_as_many_wait_as_there_is_room_for_and_the_rest_is_told_to_come_back_at_once() {
    if !available() {
        return;
    }
    let servers = Servers::single();
    let mut home = home_at(&servers.primary.url(servers.primary.port));
    let pair = Pair::make(&home.path(""), "server");
    home.set("TLS_CERT", "server.pem");
    home.set("TLS_KEY", "server.key");
    let server = home.start(&NO_LIMITS);
    let mut clients = Clients { address: server.address(), pair: &pair, held: Vec::new() };
    let form = json!({ "email": "ann@example.com", "password": PASSWORD }).to_string();
    let made = clients.ask("POST", "/auth/signup", ("x-none", ""), &form);
    let bearer = format!("Bearer {}", made.json()["accessToken"].as_str().unwrap());
    assert_eq!(clients.ask("GET", "/keys", ("authorization", &bearer), "").status, 200);

    servers.primary.hang();
    clients.send(QUEUED, QUEUED_STREAMS, "/keys", |_| ("authorization", bearer.clone()));
    clients.is_told_to_come_back_at_once("/keys", ("authorization", &bearer));
    clients.send(LOOKUPS, STREAMS, "/protected/service-only", |number| ("x-api-key", format!("sk_{number:064x}")));
    clients.is_told_to_come_back_at_once("/protected/service-only", ("x-api-key", &format!("sk_{:064x}", LOOKUPS)));
    keeps_to_its_memory(server.pid());

    servers.primary.resume();
    clients.held.clear();
    let back = Instant::now();
    while clients.ask("GET", "/keys", ("authorization", &bearer), "").status != 200 {
        assert!(back.elapsed() < Duration::from_secs(9), "the store is back, but nobody is served");
    }
    let said = server.stop();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    has_no_faults(&said.stderr);
}
