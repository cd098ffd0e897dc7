//! What ten thousand events cost that two endpoints are told of, one that answers and one that never does: how soon the
//! first has them all, the server's memory, and the p99 of key checks meanwhile.

use std::collections::HashSet;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyward_harness::postgres_cluster::{Database, available};
use serde_json::json;

use crate::data::{self, Account, EMAIL};
use crate::load::{Clients, Keys, Pace, Requests, Seen};
use crate::process::{Folder, SILENT, Server, on_postgres};
use crate::report::title;

const EVENTS: usize = 10_000;
/// Each changes a key of its own, again and again.
const CHANGING: usize = 8;
/// Together 250 events a second.
const PAUSE: Duration = Duration::from_millis(32);
const QUIET: Duration = Duration::from_secs(20);
/// For how long the events are waited for.
const PATIENCE: Duration = Duration::from_secs(300);

pub fn section() -> Result<(), Box<dyn Error>> {
    let folder = Folder::new("deliveries")?;
    let no_limits = ("RATE_LIMIT_WRITES", "off");
    beside_events("SQLite", &folder, &[SILENT, no_limits])?;
    if !available() {
        return Ok(());
    }
    let (folder, database) = (Folder::new("deliveries-postgres")?, Database::fresh());
    let url = database.url();
    // Secrets of endpoints are stored encrypted.
    let data_key = ("DATA_KEY", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
    let settings: Vec<_> = on_postgres(&url).into_iter().chain([no_limits, data_key]).collect();
    beside_events("PostgreSQL", &folder, &settings)
}

fn beside_events(store: &str, folder: &Folder, settings: &[(&str, &str)]) -> Result<(), Box<dyn Error>> {
    let server = Server::keyward(folder, settings)?;
    let operator = Account::sign_up(server.address)?;
    Server::operate(folder, settings, &["user", "grant", EMAIL, "keyward:admin"])?;
    let authorization = format!("authorization: Bearer {}\r\n", operator.access);
    let create = |path, body| data::post(server.address, path, &authorization, &body);
    let keys = (0..CHANGING).map(|_| data::text(&create("/keys/create", json!({ "name": "bench" }))?, "id"));
    let keys = keys.collect::<io::Result<Vec<_>>>()?;

    title(&format!("{store}: keys (64 connections with one every 20 ms) while {EVENTS} events are made"));
    let quiet = check_keys(&server, &operator, QUIET)?;
    tell("quiet", &quiet, &quiet);
    let cpu = server.cpu()?;
    let (unheard, unheard_events) = check_keys_beside_changes(&server, &operator, &keys)?;
    let unheard_cpu = server.cpu()? - cpu;
    tell("events that no endpoint is told of", &unheard, &quiet);

    let [answering, hanging] = [Receiver::start(true)?, Receiver::start(false)?];
    for receiver in [&answering, &hanging] {
        let url = format!("http://{}/", receiver.address);
        data::text(&create("/admin/webhooks", json!({ "url": url, "types": ["key.changed"] }))?, "id")?;
    }
    let cpu = server.cpu()?;
    let (before, most, over) = (server.memory()?, AtomicU64::new(0), AtomicBool::new(false));
    let (mut heard, events, late) = std::thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(server.memory().unwrap_or_default(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let outcome = (|| -> Result<_, Box<dyn Error>> {
            let (mut heard, events) = check_keys_beside_changes(&server, &operator, &keys)?;
            let last = Instant::now();
            while answering.count() < events {
                if last.elapsed() > PATIENCE {
                    return Err(format!("{} of {events} events came within {PATIENCE:?}", answering.count()).into());
                }
                heard.latencies.extend(check_keys(&server, &operator, Duration::from_millis(500))?.latencies);
            }
            Ok((heard, events, answering.last().saturating_duration_since(last)))
        })();
        over.store(true, Ordering::Relaxed);
        outcome
    })?;
    let heard_cpu = server.cpu()? - cpu;
    heard.latencies.sort_unstable();
    tell("events that two endpoints are told of", &heard, &quiet);
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "\n  {events} events: the endpoint that answers had the last of them {:.1} s after it was made, by {} requests; the \
         one that hangs had {} requests\n  processor time with the key checks, for each event: {:.2} ms, and {:.2} ms \
         without endpoints\n  memory: {:.1} MB before, at most {:.1} MB meanwhile",
        late.as_secs_f64(),
        answering.requests(),
        hanging.requests(),
        heard_cpu.as_secs_f64() * 1e3 / events as f64,
        unheard_cpu.as_secs_f64() * 1e3 / unheard_events as f64,
        megabytes(before),
        megabytes(most.into_inner()),
    );
    Ok(())
}

fn tell(name: &str, seen: &Seen, quiet: &Seen) {
    let milliseconds = |seen: &Seen, percent| seen.percentile(percent).as_secs_f64() * 1e3;
    println!(
        "  {name:<40} p50 {:>6.2} ms, p99 {:>6.2} ms: {:.2} times the quiet p99",
        milliseconds(seen, 50.0),
        milliseconds(seen, 99.0),
        milliseconds(seen, 99.0) / milliseconds(quiet, 99.0),
    );
}

fn check_keys(server: &Server, account: &Account, span: Duration) -> io::Result<Seen> {
    let request = format!("GET /protected/service-only HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\r\n", account.key);
    let pace = Pace::Every(Duration::from_millis(20));
    Clients::connect(server.address, 64)?.run_paced(&mut Requests::same(&request), span, &[200], pace)
}

/// Changes the keys, each change being an event, and says how many there were.
fn check_keys_beside_changes(server: &Server, account: &Account, keys: &[String]) -> io::Result<(Seen, usize)> {
    const LENGTH: usize = 4;
    let names =
        Keys { bytes: (0..EVENTS).map(|number| format!("{number:04}")).collect::<String>().into(), length: LENGTH };
    let span = PAUSE * (EVENTS / CHANGING) as u32;
    std::thread::scope(|scope| {
        let change = |id: &String| -> io::Result<usize> {
            let (body, access) = (json!({ "name": "KEY" }).to_string(), &account.access);
            let request = format!(
                "PATCH /keys/{id} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {access}\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len() - "KEY".len() + LENGTH
            );
            let mut client = Clients::connect(server.address, 1)?;
            let pace = Pace::Every(PAUSE);
            Ok(client.run_paced(&mut Requests::each(&request, &names, 0), span, &[200], pace)?.count())
        };
        let changing: Vec<_> = keys.iter().map(|id| scope.spawn(move || change(id))).collect();
        let seen = check_keys(server, account, span)?;
        let counts = changing.into_iter().map(|thread| thread.join().expect("a client does not panic"));
        Ok((seen, counts.sum::<io::Result<usize>>()?))
    })
}

/// An endpoint, for as long as the process lives.
struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    events: HashSet<String>,
    requests: usize,
    /// When the last event came that was new.
    last: Option<Instant>,
}

impl Receiver {
    fn start(answers: bool) -> io::Result<Receiver> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, received) = (listener.local_addr()?, Arc::new(Mutex::new(Received::default())));
        let shared = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let received = shared.clone();
                std::thread::spawn(move || receive(&stream, answers, &received));
            }
        });
        Ok(Receiver { address, received })
    }

    fn read<T>(&self, read: impl FnOnce(&Received) -> T) -> T {
        read(&self.received.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self) -> usize {
        self.read(|received| received.events.len())
    }

    fn requests(&self) -> usize {
        self.read(|received| received.requests)
    }

    fn last(&self) -> Instant {
        self.read(|received| received.last).unwrap_or_else(Instant::now)
    }
}

/// Reads requests, and answers them or does not.
fn receive(mut stream: &TcpStream, answers: bool, received: &Mutex<Received>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (mut id, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let Some((name, value)) = line.split_once(':') else {
                if line == "\r\n" {
                    break;
                }
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "webhook-id" => id = value.trim().to_string(),
                "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
                _ => {}
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        received.requests += 1;
        if received.events.insert(id) {
            received.last = Some(Instant::now());
        }
        drop(received);
        if answers {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        }
    }
}
