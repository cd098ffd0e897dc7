//! What reaches a receiver when the processes that deliver are killed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use keyward::accounts::creating::UserDraft;
use keyward::accounts::email::Email;
use keyward::accounts::passwords::PasswordRules;
use keyward::audit::event::{By, Event, Filter, Kind};
use keyward::base::clock::Clock;
use keyward::run;
use keyward::webhooks::service::WebhookSpec;
use keyward::webhooks::webhook::Holder;
use keyward_harness::http_client::Client;
use keyward_harness::program::{Home, Server, in_both_homes};
use keyward_harness::receiver::{Receiver, Reply};
use keyward_harness::service::PASSWORD;
use serde_json::json;

use super::{Finally, MANY_KEYS, until};

const KILLS: usize = 20;

fn email(number: usize) -> String {
    format!("user{number}@example.com")
}

/// Users with an endpoint each. One for each kill: the turn that a killed process had lasts on for a while.
fn prepare(home: &Home, receiver: &Receiver) {
    let mut config = home.config();
    config.accounts.bcrypt_cost = 4;
    let (app, _) = run::open_app(&config, Clock::default()).unwrap();
    for number in 0..KILLS {
        let password = PasswordRules::new(8).judge(PASSWORD).ok();
        let draft = UserDraft { password, ..UserDraft::invited(Email::parse(&email(number)).unwrap()) };
        let Ok(user) = app.users.create(draft, &By::operator()) else { panic!("no user") };
        let holder = Holder::User(user.id);
        let url = app.webhooks.parse_url(holder, &receiver.url()).unwrap();
        app.webhooks
            .create(holder, user.id, WebhookSpec { url, types: None, description: None }, &By::operator())
            .unwrap()
            .unwrap();
    }
}

/// All events of keys, as they are in the database.
fn committed(home: &Home) -> Vec<Event> {
    let (app, _) = run::open_app(&home.config(), Clock::default()).unwrap();
    let filter = Filter { kind: Some(Kind::KeyCreated), ..Filter::default() };
    let mut events: Vec<Event> = Vec::new();
    loop {
        let page = app.events.list(&filter, events.last(), 1000).unwrap();
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

/// Makes keys at one server until it is gone, and counts those that were acknowledged.
fn load(address: std::net::SocketAddr, number: usize, count: &AtomicUsize, is_over: &AtomicBool) {
    let client = Client::unobserved(address);
    let log_in = || {
        let body = json!({ "email": email(number), "password": PASSWORD });
        let answer = client.post("/auth/login").json(body).try_send().ok().filter(|answer| answer.status == 200)?;
        Some(answer.json()["accessToken"].as_str().unwrap().to_string())
    };
    // The other instance may have been killed meanwhile, in the middle of a statement.
    let Some(access) = (0..20).find_map(|_| log_in()) else { return };
    while !is_over.load(Ordering::SeqCst) {
        let request = client.post("/keys/create").bearer(&access).json(json!({ "name": "key" }));
        match request.try_send() {
            Ok(answer) if answer.status == 201 => count.fetch_add(1, Ordering::SeqCst),
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{answer:?}");
                continue;
            }
            Err(_) => return,
        };
    }
}

fn kill_while_it_delivers(home: &Home, instances: usize) {
    // Half of the tries fail: the first of each event at its endpoint.
    let receiver = Receiver::start();
    receiver.answer_by(|request| if request.before % 2 == 0 { Reply::status(503) } else { Reply::no_content() });
    prepare(home, &receiver);
    let started = Instant::now();
    let mut servers: Vec<Option<Server<'_>>> = (0..instances).map(|_| None).collect();
    for number in 0..KILLS {
        for server in &mut servers {
            server.get_or_insert_with(|| home.start(&[("RUST_LOG", "info,access=off")]));
        }
        let addresses: Vec<_> = servers.iter().flatten().map(Server::address).collect();
        let (count, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let before = receiver.received().len();
        let (count, is_over) = (&count, &is_over);
        thread::scope(|scope| {
            let _over = Finally(|| is_over.store(true, Ordering::SeqCst));
            for address in addresses {
                scope.spawn(move || load(address, number, count, is_over));
            }
            // At another moment each time.
            until("enough is acknowledged", || count.load(Ordering::SeqCst) > 20 + number);
            receiver.until("something is delivered", |received| received.len() > before + 5);
            servers[number % instances].take().unwrap().kill();
        });
    }
    let killed = started.elapsed();
    let last = servers.into_iter().flatten().next().unwrap_or_else(|| home.start(&[]));
    let committed: HashMap<String, String> =
        committed(home).iter().map(|event| (event.id.to_string(), event.kind.as_str().to_string())).collect();
    let of_keys = |kind: &str| kind == "key.created";
    // Every second try succeeds.
    let received = receiver.until("every committed event has arrived", |received| {
        let done = received.iter().filter(|request| request.before % 2 == 1 && of_keys(&request.kind()));
        done.map(|request| request.id().to_string()).collect::<HashSet<_>>().len() >= committed.len()
    });
    let received: Vec<_> = received.into_iter().filter(|request| of_keys(&request.kind())).collect();
    let unknown: Vec<_> = received.iter().filter(|request| !committed.contains_key(request.id())).collect();
    assert!(unknown.is_empty(), "these were never committed: {unknown:?}");
    assert!(committed.len() > KILLS * 20);
    last.stop();
    let surplus = received.len() - 2 * committed.len();
    eprintln!(
        "{KILLS} kills in {killed:?}: {} events, all delivered after {:?}; {} requests, {surplus} of them more than once",
        committed.len(),
        started.elapsed(),
        received.len(),
    );
}

fn prepared(mut home: Home) -> Home {
    home.set(MANY_KEYS.0, MANY_KEYS.1);
    home.set("RATE_LIMIT_WRITES", "off");
    home.set("WEBHOOKS", "users");
    home.set("WEBHOOK_NETWORKS", "127.0.0.1/32");
    home
}

in_both_homes! {
    fn every_committed_event_and_no_other_reaches_a_receiver_that_fails_half_of_its_tries_across_twenty_kills(home) {
        let instances = if home.database().is_some() { 2 } else { 1 };
        kill_while_it_delivers(&prepared(home), instances);
    }
}
