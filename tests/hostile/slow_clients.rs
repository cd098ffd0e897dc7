//! Clients that take their time: with a head, with a body, with reading; and five thousand of them at once.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use keyward::http::limits::Limits;
use keyward_harness::http_client::{Client, connect};
use keyward_harness::service::error;
use keyward_harness::wire::{CHUNKED, Wire, get, parsed, refresh};
use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::target::{SLACK, Witness, attack};

/// What a client who sends a byte every now and then went through.
struct Dripped {
    heard: Vec<u8>,
    /// From its start to the end of the connection.
    took: Duration,
}

/// Starts connections with these bytes, several times, and goes on with one byte at a time on each, until the server has
/// closed all.
fn drip(address: SocketAddr, starts: &[&str], times: usize, byte: u8) -> Vec<Dripped> {
    const PACE: Duration = Duration::from_millis(100);
    struct Client(TcpStream, Instant, Vec<u8>);
    let mut clients: Vec<Client> = starts
        .repeat(times)
        .into_iter()
        .map(|start| {
            let started = Instant::now();
            let mut stream = connect(address).unwrap();
            stream.write_all(start.as_bytes()).unwrap();
            stream.set_nonblocking(true).unwrap();
            Client(stream, started, Vec::new())
        })
        .collect();
    let (started, mut ended) = (Instant::now(), Vec::new());
    while !clients.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60), "{} slow clients are never cut", clients.len());
        clients.retain_mut(|Client(stream, started, heard)| {
            let goes_on = match stream.read_to_end(heard) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => true,
                Ok(_) | Err(_) => false,
            };
            if goes_on {
                // A byte too late meets a closed connection; the next look at it tells.
                let _ = stream.write(&[byte]);
            } else {
                ended.push(Dripped { heard: std::mem::take(heard), took: started.elapsed() });
            }
            goes_on
        });
        thread::sleep(PACE);
    }
    ended
}

#[test]
fn heads_that_come_byte_by_byte_are_cut_after_five_seconds() {
    attack(|server| {
        let limit = Limits::default().head;
        let starts = ["", "G", "GET /heal", "POST /auth/login HTTP/1.1\r\nHost: keyward\r\nX-Slow: "];
        for dripped in drip(server.address, &starts, 50, b'a') {
            assert_eq!(dripped.heard, b"");
            // Times are counted in whole milliseconds.
            assert!(dripped.took + Duration::from_millis(10) >= limit, "cut after {:?}", dripped.took);
            assert!(dripped.took < limit + SLACK, "cut after {:?}", dripped.took);
        }
    });
}

#[test]
fn bodies_that_come_byte_by_byte_are_a_408_after_ten_seconds() {
    attack(|server| {
        let limit = Limits::default().body;
        let starts = [
            refresh("Content-Length: 1000", ""),
            refresh("Content-Length: 1000", "{\"refreshToken\":\""),
            refresh(CHUNKED, "3e8\r\n"),
            refresh(CHUNKED, ""),
            refresh(CHUNKED, "1;an=extension"),
            refresh(CHUNKED, "1\r\n{\r\n0\r\nA-Trailer: "),
        ];
        let starts = starts.each_ref().map(String::as_str);
        for dripped in drip(server.address, &starts, 20, b'a') {
            let answers = parsed(&dripped.heard);
            let [answer] = answers.as_slice() else { panic!("one answer, not {answers:?}") };
            // The fourth is no chunk's size.
            if answer.status != 400 {
                assert_eq!((answer.status, answer.json()), (408, error(408, "Request body was not received in time")));
                assert!(dripped.took + Duration::from_millis(10) >= limit, "cut after {:?}", dripped.took);
            }
            assert!(dripped.took < limit + SLACK, "cut after {:?}", dripped.took);
        }
    });
}

/// Each asks for more than the system keeps for it, and what it asks for is large.
#[test]
fn clients_that_never_read_their_answers_are_cut_after_thirty_seconds_and_cost_no_memory() {
    const CLIENTS: usize = 160;
    attack(|server| {
        let started = Instant::now();
        let mut clients: Vec<Wire> = (0..CLIENTS)
            .map(|_| {
                let mut wire = Wire::open(server.address);
                wire.send(get("/api/docs/swagger-ui-bundle.js").repeat(20));
                wire
            })
            .collect();
        server.is_served();
        // A connection that the server has torn down takes no byte more. To look for an answer would be to read it.
        while !clients.is_empty() {
            thread::sleep(Duration::from_millis(500));
            clients.retain_mut(|wire| wire.try_send("x").is_ok());
            // What the systems of both sides still find room for is taken, and may be taken late.
            let limit = 2 * Limits::default().unread_answer;
            assert!(started.elapsed() < limit + SLACK, "{} clients are never cut", clients.len());
        }
        assert!(started.elapsed() >= Limits::default().unread_answer, "cut after {:?}", started.elapsed());
    });
}

/// How long a normal client waited, percentile 99: mostly on a kept connection, sometimes on a new one.
fn p99(server: &Witness) -> Duration {
    const REQUESTS: usize = 1000;
    let kept = Client::unobserved(server.address);
    let mut waited: Vec<Duration> = (0..REQUESTS)
        .map(|number| {
            let new = (number % 10 == 0).then(|| Client::unobserved(server.address));
            let client = new.as_ref().unwrap_or(&kept);
            let asked = Instant::now();
            assert_eq!(client.get("/protected/service-only").api_key(&server.key).send().status, 200);
            asked.elapsed()
        })
        .collect();
    waited.sort();
    waited[REQUESTS * 99 / 100]
}

/// Half a head on each. They are torn down at the end, so that the next round finds the ports free.
fn half_open(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let mut stream = connect(address).unwrap();
            stream.write_all(b"GET /health HTTP/1.1\r\nHost: keyward\r\nX-Half: ").unwrap();
            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            stream
        })
        .collect()
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    stream.peek(&mut [0]).is_err_and(|error: io::Error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn five_thousand_half_open_connections_do_not_make_a_normal_client_wait() {
    const HALF_OPEN: usize = 5000;
    const ROUNDS: usize = 3;
    const ATTEMPTS: usize = 5;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(most > 6000, "the limit of open files ({most}) is too low for this test: see `ulimit -Hn`");
    attack(|server| {
        // What else runs on the machine only adds to a time: the least is the server's own.
        let mut quiet: Vec<Duration> = (0..ROUNDS).map(|_| p99(server)).collect();
        let mut besieged = Vec::new();
        let is_good = (0..ATTEMPTS).any(|_| {
            quiet.push(p99(server));
            let held = half_open(server.address, HALF_OPEN);
            // Connections are accepted in their order: all of them are with the server now.
            server.is_served();
            let measured = p99(server).max(p99(server));
            // The server cuts them after five seconds. Who took longer has measured something else.
            besieged.extend(held.iter().all(is_open).then_some(measured));
            let least = quiet.iter().min().unwrap();
            besieged.iter().min().is_some_and(|besieged| *besieged < 10 * *least)
        });
        println!("p99 in quiet {quiet:?}, beside {HALF_OPEN} half-open connections {besieged:?}");
        assert!(!besieged.is_empty(), "the machine is too slow for some thousand requests in five seconds");
        assert!(is_good, "{besieged:?} beside {quiet:?}");
    });
}
