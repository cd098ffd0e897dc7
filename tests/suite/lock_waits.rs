//! How long is waited for PostgreSQL when somebody else holds what is needed, and what is left of the wait.

use std::thread;
use std::time::{Duration, Instant};

use keyward_harness::http_client::{Client, PATIENCE};
use keyward_harness::openapi;
use keyward_harness::postgres_cluster::available;
use keyward_harness::program::Home;
use keyward_harness::service::{Account, Backend, PASSWORD, Service, within};
use serde_json::json;

/// Keyward's statements that wait for somebody's lock.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                       AND application_name = 'keyward' AND wait_event_type = 'Lock'";

/// A service on PostgreSQL, with room for as much as one likes.
fn start() -> Option<Service> {
    let room = [
        ("MAX_KEYS_PER_USER", "1000"),
        ("RATE_LIMIT_LOGIN", "off"),
        ("RATE_LIMIT_REFRESH", "off"),
        ("RATE_LIMIT_WRITES", "off"),
    ];
    available().then(|| Service::start_with(Backend::Postgres, &room, |config| config.accounts.bcrypt_cost = 4))
}

fn lock_of(service: &Service, account: &Account) -> postgres::Client {
    let mut client = service.database().unwrap().client();
    let lock = format!("BEGIN; UPDATE users SET name = name WHERE id = '{}'", account.id);
    client.batch_execute(&lock).unwrap();
    client
}

#[test]
fn after_a_503_for_a_row_that_is_locked_nothing_waits_for_it_any_longer() {
    let Some(service) = start() else { return };
    let users: Vec<Account> = (0..8).map(|number| service.sign_up(&format!("user{number}@example.com"))).collect();
    let locks: Vec<_> = users.iter().map(|account| lock_of(&service, account)).collect();
    let mut observer = service.database().unwrap().client();
    let mut waiting = || observer.query_one(WAITING, &[]).unwrap().get::<_, i64>(0);
    let asked = Instant::now();
    thread::scope(|scope| {
        // More than there are threads for them: the last ones begin when the first ones have given up.
        for account in &users {
            for number in 0..4 {
                let client = Client::new(service.address(), openapi::check);
                scope.spawn(move || {
                    let form = json!({ "email": account.email, "password": PASSWORD });
                    let answer = match number % 2 {
                        0 => client.post("/keys/create").bearer(&account.access).json(json!({ "name": "ci" })).send(),
                        _ => client.post("/auth/login").json(form).send(),
                    };
                    assert_eq!(answer.status, 503, "{answer:?}");
                    assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
                });
            }
        }
        within(PATIENCE, "statements wait", || waiting() > 0);
    });
    println!("all were told to come back after {:?}", asked.elapsed());
    within(Duration::from_secs(1), "nothing waits", || waiting() == 0);
    drop(locks);
    for account in &users {
        service.log_in(&account.email);
        service.create_key(&account.access, json!({ "name": "ci" }));
    }
}

/// An operator's command has all the time that it needs.
#[test]
fn a_command_waits_for_a_row_that_is_locked_for_longer_than_a_client_would() {
    let Some(service) = start() else { return };
    let ann = service.sign_up("ann@example.com");
    let home = Home::beside(&service);
    let mut lock = lock_of(&service, &ann);
    let mut observer = service.database().unwrap().client();
    thread::scope(|scope| {
        let command = scope.spawn(|| home.run(&["user", "deactivate", "ann@example.com"]));
        let mut waiting = || observer.query_one(WAITING, &[]).unwrap().get::<_, i64>(0);
        within(PATIENCE, "the command waits", || waiting() == 1);
        // The time itself is what is told of.
        thread::sleep(Duration::from_millis(5200));
        assert_eq!(waiting(), 1);
        lock.batch_execute("COMMIT").unwrap();
        command.join().unwrap().succeeded();
    });
    let login = json!({ "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(service.post("/auth/login").json(login).send().status, 401);
}

/// Each transaction sees what others have committed meanwhile, whatever the database would rather.
#[test]
fn where_transactions_are_serializable_unless_they_say_otherwise_nobody_is_told_to_come_back() {
    let Some(mut service) = start() else { return };
    service.stop();
    let database = service.database().unwrap();
    let serializable = format!("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'", database.name());
    database.client().batch_execute(&serializable).unwrap();
    service.restart();
    let ann = service.sign_up("ann@example.com");
    for _ in 0..5 {
        let tab = service.log_in("ann@example.com");
        thread::scope(|scope| {
            for number in 0..8 {
                let client = Client::new(service.address(), openapi::check);
                let (ann, tab) = (&ann, &tab);
                scope.spawn(move || {
                    let refresh = json!({ "refreshToken": tab.refresh });
                    let answer = match number % 2 {
                        0 => client.post("/keys/create").bearer(&ann.access).json(json!({ "name": "ci" })).send(),
                        _ => client.post("/auth/refresh").json(refresh).send(),
                    };
                    assert!([200, 201].contains(&answer.status), "{answer:?}");
                });
            }
        });
    }
}
