//! What one user who does the worst that they can costs the others: the p99 of logins, of `/auth/me` and of keys that are not
//! remembered, quiet and beside that user.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use keyward_harness::postgres_cluster::{Database, available};
use serde_json::json;

use crate::data::{self, Account};
use crate::load::{Clients, Keys, Pace, Requests, Seen};
use crate::process::{Folder, SILENT, Server, on_postgres};
use crate::report::title;

/// Keys of the others, each presented once, so that none is remembered.
const KEYS: usize = 200_000;
/// The others, who log in and ask for themselves.
const OTHERS: usize = 4;
/// Everyone has an address of their own, as behind a proxy.
const BEHIND_A_PROXY: [(&str, &str); 2] =
    [("TRUSTED_PROXIES", "127.0.0.1"), ("TRUSTED_PROXY_HEADER", "x-forwarded-for")];

/// `SECONDS=300 cargo bench -- neighbour` has that user go on for as long, on each store; it is quiet for a fifth of it before.
pub fn section() -> Result<(), Box<dyn Error>> {
    let span = std::env::var("SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(25);
    let span = Duration::from_secs(span);
    let keys = data::keys(KEYS);
    let folder = Folder::new("neighbour")?;
    let settings: Vec<_> = [SILENT].into_iter().chain(BEHIND_A_PROXY).collect();
    drop(Server::keyward(&folder, &settings)?);
    data::store_in_sqlite(&folder.path("keyward.db"), &keys, data::KEYS_A_USER)?;
    beside_the_worst("SQLite", &Server::keyward(&folder, &settings)?, &keys, span)?;
    if !available() {
        return Ok(());
    }
    let (folder, database) = (Folder::new("neighbour-postgres")?, Database::fresh());
    let url = database.url();
    let settings: Vec<_> = on_postgres(&url).into_iter().chain(BEHIND_A_PROXY).collect();
    let server = Server::keyward(&folder, &settings)?;
    data::store_in_postgres(&mut database.client(), &keys, data::KEYS_A_USER)?;
    beside_the_worst("PostgreSQL", &server, &keys, span)
}

fn beside_the_worst(store: &str, server: &Server, keys: &Keys, span: Duration) -> Result<(), Box<dyn Error>> {
    let worst = Account::sign_up_as(server.address, "worst@example.com")?;
    let others = (0..OTHERS)
        .map(|number| {
            // Two accounts: many logins end the session that was never refreshed.
            let email = format!("other-{number}@example.com");
            Account::sign_up_as(server.address, &email)?;
            Ok((Account::sign_up_as(server.address, &format!("self-{number}@example.com"))?.access, email))
        })
        .collect::<io::Result<Vec<_>>>()?;
    let mut position = 0;
    let quiet = ask_for_others(server, &others, keys, &mut position, span / 5)?;
    let over = AtomicBool::new(false);
    let (during, asked) = std::thread::scope(|scope| {
        let attacks: Vec<_> = attacks(&worst)
            .into_iter()
            .map(|(connections, request)| {
                let over = &over;
                scope.spawn(move || attack(server.address, connections, &request, over))
            })
            .collect();
        let during = ask_for_others(server, &others, keys, &mut position, span);
        over.store(true, Ordering::Relaxed);
        (during, attacks.into_iter().map(|attack| attack.join().expect("an attack does not panic")).sum::<usize>())
    });
    let during = during?;
    title(&format!("{store}: others beside one user who asks for all they can, over {CONNECTIONS} connections"));
    for ((name, quiet), (_, during)) in quiet.iter().zip(&during) {
        let milliseconds = |seen: &Seen, percent| seen.percentile(percent).as_secs_f64() * 1e3;
        println!(
            "  {name:<24} quiet p50 {:>6.1} ms, p99 {:>6.1} ms; during p50 {:>6.1} ms, p99 {:>6.1} ms: {:.1} times; {:?}",
            milliseconds(quiet, 50.0),
            milliseconds(quiet, 99.0),
            milliseconds(during, 50.0),
            milliseconds(during, 99.0),
            milliseconds(during, 99.0) / milliseconds(quiet, 99.0),
            during.statuses,
        );
    }
    println!("\n  that user had {asked} answers; the server holds {:.0} MB", server.memory()? as f64 / 1e6);
    Ok(())
}

/// All connections of [`attacks`].
const CONNECTIONS: usize = 48;

/// What a user can do with their own account: on so many connections, this again and again.
fn attacks(worst: &Account) -> Vec<(usize, String)> {
    let (access, key) = (&worst.access, &worst.key);
    let log_in = json!({ "email": "worst@example.com", "password": data::PASSWORD });
    let guess = json!({ "email": "worst@example.com", "password": "not the password" });
    let unknown: Vec<_> = (0..100).map(|number| json!({ "key": format!("sk_{number:064x}") })).collect();
    vec![
        (8, request("POST", "/keys/create", access, Some(&json!({ "name": "n".repeat(255) })))),
        (8, request("GET", "/keys", access, None)),
        (4, request("GET", "/auth/events?limit=100", access, None)),
        (4, request("GET", "/auth/sessions", access, None)),
        (4, request("PATCH", "/keys/00000000-0000-0000-0000-000000000000", access, Some(&json!({ "name": "a" })))),
        (4, request("DELETE", "/auth/sessions", access, None)),
        (4, request("POST", "/keys/verify-batch", access, Some(&json!({ "keys": unknown })))),
        (4, request("POST", "/keys/verify", access, Some(&json!({ "key": key })))),
        (4, request("POST", "/auth/login", "", Some(&log_in))),
        (4, request("POST", "/auth/login", "", Some(&guess))),
    ]
}

fn request(method: &str, path: &str, access: &str, body: Option<&serde_json::Value>) -> String {
    let authorization = if access.is_empty() { String::new() } else { format!("authorization: Bearer {access}\r\n") };
    let body = body.map(serde_json::Value::to_string).unwrap_or_default();
    let fields = match body.len() {
        0 => String::new(),
        length => format!("content-type: application/json\r\ncontent-length: {length}\r\n"),
    };
    format!("{method} {path} HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 10.0.0.1\r\n{authorization}{fields}\r\n{body}")
}

/// How many answers there were. Whatever they are, and whenever the server hangs up, it goes on.
fn attack(address: SocketAddr, connections: usize, request: &str, over: &AtomicBool) -> usize {
    const ANY: &[u16] = &[200, 201, 400, 401, 404, 409, 429, 503];
    let mut answers = 0;
    while !over.load(Ordering::Relaxed) {
        let seen = Clients::connect(address, connections)
            .and_then(|mut clients| clients.run(&mut Requests::same(request), Duration::from_secs(1), ANY));
        answers += seen.map_or(0, |seen| seen.count());
    }
    answers
}

/// What the others see of it, by what they ask for.
fn ask_for_others(
    server: &Server,
    others: &[(String, String)],
    keys: &Keys,
    position: &mut usize,
    span: Duration,
) -> io::Result<Vec<(&'static str, Seen)>> {
    const STATUSES: &[u16] = &[200, 503];
    let as_other = |number: usize, request: String| request.replace("10.0.0.1", &format!("10.0.1.{number}"));
    let ask = |request: String, every: u64| {
        let mut clients = Clients::connect(server.address, 1)?;
        clients.run_paced(&mut Requests::same(&request), span, STATUSES, Pace::Every(Duration::from_millis(every)))
    };
    std::thread::scope(|scope| {
        let (mut logins, mut selves) = (Vec::new(), Vec::new());
        for (number, (access, email)) in others.iter().enumerate() {
            let body = json!({ "email": email, "password": data::PASSWORD });
            let log_in = as_other(number, request("POST", "/auth/login", "", Some(&body)));
            let me = as_other(number, request("GET", "/auth/me", access, None));
            let ask = &ask;
            logins.push(scope.spawn(move || ask(log_in, 1000)));
            selves.push(scope.spawn(move || ask(me, 50)));
        }
        let present =
            "GET /protected/service-only HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 10.0.2.1\r\nx-api-key: KEY\r\n\r\n";
        let mut requests = Requests::each(present, keys, *position);
        let mut clients = Clients::connect(server.address, 4)?;
        let pace = Pace::Every(Duration::from_millis(40));
        let unremembered = clients.run_paced(&mut requests, span, STATUSES, pace)?;
        *position = requests.position();
        Ok(vec![("logins", together(logins)?), ("/auth/me", together(selves)?), ("keys not remembered", unremembered)])
    })
}

fn together(runs: Vec<ScopedJoinHandle<'_, io::Result<Seen>>>) -> io::Result<Seen> {
    let mut all = Seen::default();
    for run in runs {
        let seen = run.join().expect("a client does not panic")?;
        all.latencies.extend(seen.latencies);
        for (status, count) in seen.statuses {
            *all.statuses.entry(status).or_default() += count;
        }
    }
    all.latencies.sort_unstable();
    Ok(all)
}
