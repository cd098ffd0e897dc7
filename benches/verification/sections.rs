//! What is measured.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyward_harness::postgres_cluster::{Database, available};

use crate::data::{self, Account, EMAIL, PASSWORD};
use crate::deliveries;
use crate::lists;
use crate::load::{Clients, Keys, Pace, Requests, Seen};
use crate::neighbour;
use crate::process::{Folder, SILENT, Server, ask, on_postgres};
use crate::report::{Measured, median, milliseconds, ratio, table, title};
use crate::resets;

pub type Section = fn() -> Result<(), Box<dyn Error>>;

pub const ALL: &[(&str, Section)] = &[
    ("cached", cached),
    ("growth", growth),
    ("sqlite", sqlite),
    ("postgres", postgres),
    ("logins", logins),
    ("memory", memory),
    ("neighbour", neighbour::section),
    ("lists", lists::section),
    ("resets", resets::section),
    ("deliveries", deliveries::section),
];

/// All clients of a measurement have one address, and one account.
const ANY_NUMBER_OF_LOGINS: [(&str, &str); 3] = [SILENT, ("RATE_LIMIT_LOGIN", "off"), ("RATE_LIMIT_WRITES", "off")];
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 9;
const SPAN: Duration = Duration::from_millis(1000);

const SERVICE_ONLY: &str = "/protected/service-only";

fn get(path: &str, credential: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n{credential}\r\n\r\n")
}

fn with_key(path: &str, key: &str) -> String {
    get(path, &format!("x-api-key: {key}"))
}

pub fn with_token(path: &str, token: &str) -> String {
    get(path, &format!("authorization: Bearer {token}"))
}

/// What Keyward answers to this request, byte for byte.
fn whole_answer(server: &Server, request: &str) -> io::Result<String> {
    ask(server.address, &request.replace("host: a\r\n", "host: a\r\nconnection: close\r\n"))
}

pub struct Scenario<'a> {
    name: &'a str,
    server: &'a Server,
    requests: Requests<'a>,
}

pub fn scenario<'a>(name: &'a str, server: &'a Server, request: &str) -> Scenario<'a> {
    Scenario { name, server, requests: Requests::same(request) }
}

/// Another Keyward that is to be measured beside this one.
fn baseline() -> Option<PathBuf> {
    std::env::var_os("BASELINE").map(PathBuf::from)
}

/// How many requests a second these runs have, of what the baseline's have.
fn beside_baseline(name: &str, runs: &[Measured], base: &[Measured]) {
    println!("  {name:<44} {:.3} of the baseline's", ratio(runs, base, |run| run.seen.per_second()));
}

fn measure(scenario: &mut Scenario<'_>, connections: usize, span: Duration) -> io::Result<Measured> {
    let mut clients = Clients::connect(scenario.server.address, connections)?;
    let cpu = scenario.server.cpu()?;
    let seen = clients.run(&mut scenario.requests, span, &[200])?;
    Ok(Measured { seen, server_cpu: scenario.server.cpu()? - cpu })
}

/// All scenarios in turn, again and again; first once for nothing.
pub fn alternate<'a>(
    scenarios: &mut [Scenario<'a>],
    connections: usize,
    rounds: usize,
    span: Duration,
) -> io::Result<Vec<(&'a str, Vec<Measured>)>> {
    let mut rows: Vec<(&str, Vec<Measured>)> = scenarios.iter().map(|scenario| (scenario.name, Vec::new())).collect();
    for scenario in scenarios.iter_mut() {
        measure(scenario, connections, span / 4)?;
    }
    for _ in 0..rounds {
        for (scenario, (_, runs)) in scenarios.iter_mut().zip(&mut rows) {
            runs.push(measure(scenario, connections, span)?);
        }
    }
    Ok(rows)
}

/// Verdicts from memory, beside a server that does nothing.
fn cached() -> Result<(), Box<dyn Error>> {
    let (folder, logging) = (Folder::new("cached")?, Folder::new("logging")?);
    let server = Server::keyward(&folder, &[SILENT])?;
    let account = Account::sign_up(server.address)?;
    let service_only = with_key(SERVICE_ONLY, &account.key);
    let bare = Server::bare(&folder, &whole_answer(&server, &service_only)?)?;
    let log = Server::keyward(&logging, &[])?;
    let loud = Account::sign_up(log.address)?;
    title("Verdicts from memory: 64 connections, each with one request on its way");
    table(&alternate(&mut cached_scenarios(&bare, &server, &account, (&log, &loud)), CONNECTIONS, ROUNDS, SPAN)?);

    let Some(program) = baseline() else { return Ok(()) };
    let (base_folder, base_logging) = (Folder::new("cached-base")?, Folder::new("logging-base")?);
    let base = Server::of_program(&program, &base_folder, &[SILENT])?;
    let base_account = Account::sign_up(base.address)?;
    let base_log = Server::of_program(&program, &base_logging, &[])?;
    let base_loud = Account::sign_up(base_log.address)?;
    title("The same beside the baseline");
    let ours = cached_scenarios(&bare, &server, &account, (&log, &loud));
    let theirs = cached_scenarios(&bare, &base, &base_account, (&base_log, &base_loud));
    for pair in ours.into_iter().zip(theirs).skip(1) {
        let mut runs = alternate(&mut [pair.0, pair.1], CONNECTIONS, ROUNDS, SPAN)?;
        let (Some((_, base)), Some((name, runs))) = (runs.pop(), runs.pop()) else { continue };
        beside_baseline(name, &runs, &base);
    }
    Ok(())
}

/// The first is the least that could be done, by the bare server.
fn cached_scenarios<'a>(
    bare: &'a Server,
    server: &'a Server,
    account: &Account,
    (log, loud): (&'a Server, &Account),
) -> Vec<Scenario<'a>> {
    let service_only = with_key(SERVICE_ONLY, &account.key);
    vec![
        scenario("(a) hyper alone, the same bytes as (b)", bare, &service_only),
        scenario("(b) service-only, a key", server, &service_only),
        scenario("    the same with the access log", log, &with_key(SERVICE_ONLY, &loud.key)),
        scenario("(c) user-only, a JWT", server, &with_token("/protected/user-only", &account.access)),
        scenario("(d) flexible, a key", server, &with_key("/protected/flexible", &account.key)),
        scenario("    flexible, a JWT", server, &with_token("/protected/flexible", &account.access)),
        scenario("    forward-auth, a key", server, &with_key("/authz/forward-auth", &account.key)),
        scenario("    forward-auth, a JWT", server, &with_token("/authz/forward-auth", &account.access)),
    ]
}

/// The same at one connection and at many.
fn growth() -> Result<(), Box<dyn Error>> {
    let folder = Folder::new("growth")?;
    let server = Server::keyward(&folder, &[SILENT])?;
    let service_only = with_key(SERVICE_ONLY, &Account::sign_up(server.address)?.key);
    let bare = Server::bare(&folder, &whole_answer(&server, &service_only)?)?;
    for connections in [1, 8, 64, 512] {
        title(&format!("Connections: {connections}"));
        table(&alternate(
            &mut [
                scenario("(a) hyper alone", &bare, &service_only),
                scenario("(b) service-only, a key", &server, &service_only),
            ],
            connections,
            5,
            SPAN,
        )?);
    }
    Ok(())
}

pub const MILLION: usize = 1_000_000;

/// A request with each of the keys in turn.
fn each(keys: &Keys) -> Requests<'_> {
    Requests::each(&with_key(SERVICE_ONLY, "KEY"), keys, 0)
}

/// Keys that are not remembered: each of a million in turn.
fn sqlite() -> Result<(), Box<dyn Error>> {
    let keys = data::keys(MILLION);
    let (few, many) = (Folder::new("few")?, Folder::new("million")?);
    let small = Server::keyward(&few, &[SILENT])?;
    let in_small = with_key(SERVICE_ONLY, &Account::sign_up(small.address)?.key);
    let server = Server::keyward(&many, &[SILENT])?;
    let in_large = with_key(SERVICE_ONLY, &Account::sign_up(server.address)?.key);
    drop(server);
    data::store_in_sqlite(&many.path("keyward.db"), &keys, data::KEYS_A_USER)?;
    start_up(&few, &many)?;

    let large = Server::keyward(&many, &[SILENT])?;
    let bare = Server::bare(&few, &whole_answer(&small, &in_small)?)?;
    title("SQLite: keys that are not remembered, and what a million stored keys do to those that are");
    let mut rows = alternate(
        &mut [
            scenario("(a) hyper alone", &bare, &in_small),
            scenario("(b) one key stored, remembered", &small, &in_small),
            scenario("    a million stored, this one remembered", &large, &in_large),
            Scenario { name: "(e) a million stored, each in turn", server: &large, requests: each(&keys) },
        ],
        CONNECTIONS,
        ROUNDS,
        SPAN,
    )?;
    table(&rows);
    let (one, million) = (rows.remove(1).1, rows.remove(1).1);
    let per_second = |run: &Measured| run.seen.per_second();
    println!("\n  remembered, a million stored / one stored: {:.3}", ratio(&million, &one, per_second));

    let Some(program) = baseline() else { return Ok(()) };
    let folder = Folder::new("million-base")?;
    drop(Server::of_program(&program, &folder, &[SILENT])?);
    data::store_in_sqlite(&folder.path("keyward.db"), &keys, data::KEYS_A_USER)?;
    let base = Server::of_program(&program, &folder, &[SILENT])?;
    title("The same beside the baseline");
    each_beside_baseline(&large, &base, &keys)
}

fn each_beside_baseline(server: &Server, base: &Server, keys: &Keys) -> Result<(), Box<dyn Error>> {
    let name = "(e) a million stored, each in turn";
    let mut pair = [server, base].map(|server| Scenario { name, server, requests: each(keys) });
    let runs = alternate(&mut pair, CONNECTIONS, ROUNDS, SPAN)?;
    beside_baseline(name, &runs[0].1, &runs[1].1);
    Ok(())
}

/// The same on PostgreSQL, beside what its driver does without us.
fn postgres() -> Result<(), Box<dyn Error>> {
    if !available() {
        return Ok(());
    }
    let keys = data::keys(MILLION);
    let database = Database::fresh();
    let folder = Folder::new("postgres")?;
    let url = database.url();
    let settings = on_postgres(&url);
    let server = Server::keyward(&folder, &settings)?;
    data::store_in_postgres(&mut database.client(), &keys, data::KEYS_A_USER)?;
    title("PostgreSQL: keys that are not remembered, beside plain selects of one row through the same driver");
    // One is what asks for keys here, twenty are all connections of an instance.
    const CLIENTS: [usize; 4] = [1, 2, 10, 20];
    let mut requests = each(&keys);
    let mut rounds = Vec::new();
    let mut next = 0;
    for round in 0..=ROUNDS {
        let mut scenario = Scenario { name: "", server: &server, requests };
        let measured = measure(&mut scenario, CONNECTIONS, SPAN)?;
        requests = scenario.requests;
        let selects = CLIENTS
            .map(|connections| select_each(&database, &keys, connections, &mut next))
            .into_iter()
            .collect::<Result<Vec<f64>, _>>()?;
        // The first one is for nothing.
        if round > 0 {
            rounds.push((measured, selects));
        }
    }
    let ratio_to =
        |column: usize| median(rounds.iter().map(|(run, selects)| run.seen.per_second() / selects[column]).collect());
    for (column, connections) in CLIENTS.into_iter().enumerate() {
        println!(
            "  {:>6.0} selects a second over {connections:>2} connections; (e) is {:.2} of it",
            median(rounds.iter().map(|(_, selects)| selects[column]).collect()),
            ratio_to(column)
        );
    }
    println!();
    table(&[("(e) a million stored, each in turn", rounds.into_iter().map(|(run, _)| run).collect())]);

    let Some(program) = baseline() else { return Ok(()) };
    let (folder, database) = (Folder::new("postgres-base")?, Database::fresh());
    let url = database.url();
    let base = Server::of_program(&program, &folder, &on_postgres(&url))?;
    data::store_in_postgres(&mut database.client(), &keys, data::KEYS_A_USER)?;
    title("The same beside the baseline");
    each_beside_baseline(&server, &base, &keys)
}

/// From the start of the process to its first answer.
fn start_up(few: &Folder, many: &Folder) -> Result<(), Box<dyn Error>> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (times, folder) in times.iter_mut().zip([few, many]) {
            times.push(Server::keyward(folder, &[SILENT])?.started_in.as_secs_f64() * 1e3);
        }
    }
    let [few, many] = times.map(median);
    title("Start to first answer, SQLite");
    println!("  {few:.1} ms with one key stored, {many:.1} ms with a million");
    Ok(())
}

/// Plain selects by a key's hash, a second.
fn select_each(database: &Database, keys: &Keys, connections: usize, next: &mut usize) -> Result<f64, Box<dyn Error>> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        let mut client = database.client();
        let statement = client.prepare("SELECT id, user_id, is_active, expires_at FROM api_keys WHERE hash = $1")?;
        clients.push((client, statement));
    }
    let position = AtomicUsize::new(*next);
    let started = Instant::now();
    let counts: Vec<Result<usize, postgres::Error>> = std::thread::scope(|scope| {
        let selecting: Vec<_> = clients
            .iter_mut()
            .map(|(client, statement)| {
                let position = &position;
                scope.spawn(move || {
                    let mut count = 0;
                    while started.elapsed() < SPAN {
                        let key = keys.get(position.fetch_add(1, Ordering::Relaxed));
                        let hash = keyward::keys::key::KeyHash::of(key).map(|hash| hash.as_bytes().to_vec());
                        count += client.query(&*statement, &[&hash])?.len();
                    }
                    Ok(count)
                })
            })
            .collect();
        selecting.into_iter().map(|thread| thread.join().expect("a select does not panic")).collect()
    });
    let elapsed = started.elapsed().as_secs_f64();
    *next = position.into_inner();
    let mut total = 0;
    for count in counts {
        total += count?;
    }
    Ok(total as f64 / elapsed)
}

/// Logins beside raw hashing, and verdicts while logins come in masses.
fn logins() -> Result<(), Box<dyn Error>> {
    let folder = Folder::new("logins")?;
    let server = Server::keyward(&folder, &ANY_NUMBER_OF_LOGINS)?;
    let account = Account::sign_up(server.address)?;
    let mut rounds = Vec::new();
    for _ in 0..5 {
        let raw = hash_on_all_cores(LONG)?;
        rounds.push((raw, measure(&mut scenario("", &server, &log_in()), 16, LONG)?));
    }
    title("(f) Logins over 16 connections, beside raw bcrypt on all cores");
    println!(
        "  {:.1} logins a second are {:.3} of {:.1} hashes a second",
        median(rounds.iter().map(|(_, run)| run.seen.per_second()).collect()),
        median(rounds.iter().map(|(raw, run)| run.seen.per_second() / raw).collect()),
        median(rounds.iter().map(|(raw, _)| *raw).collect())
    );

    title("(g) Keys while 400 connections log in: as many as are answered, and 64 connections with one every 20 ms");
    keys_while_many_log_in(&server, &account)?;

    let Some(program) = baseline() else { return Ok(()) };
    let base_folder = Folder::new("logins-base")?;
    let base = Server::of_program(&program, &base_folder, &ANY_NUMBER_OF_LOGINS)?;
    let base_account = Account::sign_up(base.address)?;
    title("The same beside the baseline, which is every second here");
    let mut pair = [scenario("(f) logins", &server, &log_in()), scenario("", &base, &log_in())];
    let runs = alternate(&mut pair, 16, 5, LONG)?;
    beside_baseline("(f) logins", &runs[0].1, &runs[1].1);
    let mut ratios = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        println!();
        let ours = keys_while_many_log_in(&server, &account)?;
        let theirs = keys_while_many_log_in(&base, &base_account)?;
        ratios.iter_mut().zip(ours.iter().zip(theirs)).for_each(|(ratios, (ours, theirs))| ratios.push(ours / theirs));
    }
    let [quiet, during] = ratios.map(median);
    println!("\n  (g) keys, quiet {quiet:.3} and during {during:.3} of the baseline's");
    Ok(())
}

/// Long enough for some hundred logins.
const LONG: Duration = Duration::from_secs(4);

fn log_in() -> String {
    let body = serde_json::json!({ "email": EMAIL, "password": PASSWORD }).to_string();
    format!(
        "POST /auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// How many keys a second there were, quiet and during.
fn keys_while_many_log_in(server: &Server, account: &Account) -> Result<[f64; 2], Box<dyn Error>> {
    let log_in = log_in();
    let service_only = with_key(SERVICE_ONLY, &account.key);
    let paused = |span| -> io::Result<Measured> {
        let mut clients = Clients::connect(server.address, CONNECTIONS)?;
        let cpu = server.cpu()?;
        let pace = Pace::Every(Duration::from_millis(20));
        let seen = clients.run_paced(&mut Requests::same(&service_only), span, &[200], pace)?;
        Ok(Measured { seen, server_cpu: server.cpu()? - cpu })
    };
    let busy = |span| measure(&mut scenario("", server, &service_only), CONNECTIONS, span);
    let quiet = (busy(LONG)?, paused(LONG)?);
    let over = AtomicBool::new(false);
    let (storm, during) = std::thread::scope(|scope| {
        let storming = scope.spawn(|| storm(server, &log_in, &over));
        std::thread::sleep(Duration::from_secs(1));
        let during = busy(LONG).and_then(|busy| Ok((busy, paused(LONG)?)));
        over.store(true, Ordering::Relaxed);
        (storming.join().expect("the storm does not panic"), during)
    });
    let (storm, during) = (storm?, during?);
    let rates = [quiet.0.seen.per_second(), during.0.seen.per_second()];
    for (name, quiet, during) in [("busy", quiet.0, during.0), ("paused", quiet.1, during.1)] {
        let (quiet, during) = ([quiet], [during]);
        println!(
            "  {name:<7} quiet {:>6.0} a second, p99 {:.2} ms; during {:>6.0} a second, p99 {:.2} ms: {:.1} times",
            quiet[0].seen.per_second(),
            milliseconds(&quiet, 99.0),
            during[0].seen.per_second(),
            milliseconds(&during, 99.0),
            milliseconds(&during, 99.0) / milliseconds(&quiet, 99.0)
        );
    }
    let slowest = storm.iter().filter_map(|seen| seen.latencies.last()).max().copied().unwrap_or_default();
    let count = |status| storm.iter().filter_map(|seen| seen.statuses.get(&status)).sum::<usize>();
    println!(
        "\n  logins meanwhile: {} were 200, {} were 503 ({} of them without Retry-After), the slowest answer took {:.2} s",
        count(200),
        count(503),
        storm.iter().map(|seen| seen.without_retry_after).sum::<usize>(),
        slowest.as_secs_f64()
    );
    Ok(rates)
}

/// Logins over many connections until it is over; who is refused tries again a little later, as told.
fn storm(server: &Server, request: &str, over: &AtomicBool) -> io::Result<Vec<Seen>> {
    let mut clients = Clients::connect(server.address, 400)?;
    let mut seen = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let pace = Pace::After(Duration::from_secs(1));
        seen.push(clients.run_paced(&mut Requests::same(request), Duration::from_secs(2), &[200, 503], pace)?);
    }
    Ok(seen)
}

fn hash_on_all_cores(span: Duration) -> Result<f64, Box<dyn Error>> {
    let cores = std::thread::available_parallelism()?.get();
    let hash = bcrypt::hash(PASSWORD, 10)?;
    let started = Instant::now();
    let counts: Vec<Result<usize, bcrypt::BcryptError>> = std::thread::scope(|scope| {
        let hashing: Vec<_> = (0..cores)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    while started.elapsed() < span {
                        count += usize::from(bcrypt::verify(PASSWORD, &hash)?);
                    }
                    Ok(count)
                })
            })
            .collect();
        hashing.into_iter().map(|thread| thread.join().expect("hashing does not panic")).collect()
    });
    let elapsed = started.elapsed().as_secs_f64();
    let mut total = 0;
    for count in counts {
        total += count?;
    }
    Ok(total as f64 / elapsed)
}

/// What keys that are remembered and connections that are kept cost.
fn memory() -> Result<(), Box<dyn Error>> {
    const REMEMBERED: usize = 100_000;
    const IDLE: usize = 10_000;
    let keys = data::keys(REMEMBERED);
    let folder = Folder::new("memory")?;
    drop(Server::keyward(&folder, &[SILENT])?);
    data::store_in_sqlite(&folder.path("keyward.db"), &keys, data::KEYS_A_USER)?;
    let server = Server::keyward(&folder, &[SILENT])?;
    title("Memory, resident");
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let rest = server.memory()?;
    println!("  {:>6.1} MB at rest", megabytes(rest));

    let mut requests = Requests::each(&with_key(SERVICE_ONLY, "KEY"), &keys, 0);
    let mut clients = Clients::connect(server.address, CONNECTIONS)?;
    while requests.position() < REMEMBERED {
        clients.run(&mut requests, Duration::from_millis(100), &[200])?;
    }
    // What is to be written of their use has been written by then.
    std::thread::sleep(Duration::from_secs(5));
    drop(clients);
    let remembering = server.memory()?;
    println!("  {:>6.1} MB more with {REMEMBERED} keys remembered", megabytes(remembering - rest));

    drop(server);
    let server = Server::keyward(&folder, &[SILENT])?;
    let rest = server.memory()?;
    let mut clients = Clients::connect(server.address, IDLE)?;
    clients.run(
        &mut Requests::same(&with_key(SERVICE_ONLY, std::str::from_utf8(keys.get(0))?)),
        Duration::ZERO,
        &[200],
    )?;
    println!("  {:>6.1} MB more with {IDLE} connections kept after a request", megabytes(server.memory()? - rest));
    Ok(())
}
