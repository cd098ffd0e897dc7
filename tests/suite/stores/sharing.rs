//! Several processes share one database.

use std::sync::Barrier;
use std::thread;

use keyward_harness::http_client::Client;
use keyward_harness::postgres_cluster::{self};
use keyward_harness::program::Home;
use keyward_harness::service::{Backend, PASSWORD, Service, soon};
use serde_json::{Value, json};

use super::{Key, key, new_key};

#[test]
fn connections_that_postgresql_has_closed_cost_no_request_its_answer() {
    if !postgres_cluster::available() {
        return;
    }
    let service = Service::start(Backend::Postgres);
    let ann = service.sign_up("ann@example.com");
    let ask = |client: &Client| client.get("/auth/me").bearer(&ann.access).send().status;
    // So many at once that there are many connections.
    let all = Barrier::new(20);
    thread::scope(|scope| {
        for client in (0..20).map(|_| service.client()) {
            let (all, ask) = (&all, &ask);
            scope.spawn(move || {
                all.wait();
                assert!((0..20).all(|_| ask(&client) == 200));
            });
        }
    });
    let client = service.client();
    let terminate = "SELECT COUNT(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for round in 0..2 {
        let ended = service.count(terminate);
        assert!(ended > 1, "{ended} connections");
        match round {
            0 => assert_eq!(ask(&client), 200),
            _ => drop(new_key(&service, &ann)),
        }
        // No other connection of the pool is met by others.
        assert!((0..20).all(|_| ask(&client) == 200));
    }
}

#[test]
fn two_servers_share_one_postgresql() {
    if !postgres_cluster::available() {
        return;
    }
    let service = Service::start(Backend::Postgres);
    let (sibling, other) = service.sibling();
    let ann = service.sign_up("ann@example.com");
    let made = new_key(&service, &ann);
    assert_eq!((other.token_status(&ann.access), other.key_status(&made.key)), (200, 200));

    let change = |body: Value| {
        let answer = service.patch(&format!("/keys/{}", made.id)).bearer(&ann.access).json(body).send();
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    change(json!({ "isActive": false }));
    soon("paused on the other server", || other.key_status(&made.key) == 401);
    change(json!({ "isActive": true }));
    soon("active on the other server", || other.key_status(&made.key) == 200);
    change(json!({ "rateLimit": { "limit": 1, "window": "1d" } }));
    soon("limited on the other server", || other.key_status(&made.key) == 429);
    change(json!({ "rateLimit": null }));
    let verified = || {
        let asked = json!({ "key": made.key, "scopes": ["a"] });
        other.post("/keys/verify").bearer(&ann.access).json(asked).send().json()["code"].clone()
    };
    assert_eq!(verified(), "INSUFFICIENT_SCOPE");
    change(json!({ "scopes": ["a"] }));
    soon("of wider use on the other server", || verified() == "VALID");

    assert_eq!(service.delete(&format!("/keys/{}", made.id)).bearer(&ann.access).send().status, 200);
    assert_eq!(service.key_status(&made.key), 401, "at once where it was revoked");
    soon("revoked on the other server", || other.key_status(&made.key) == 401);

    let refreshed = other.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send();
    assert_eq!(refreshed.status, 200, "a session is not bound to the server that opened it");
    assert_eq!(other.post("/auth/logout").bearer(&ann.access).send().status, 200);
    soon("logged out on the first server", || service.token_status(&ann.access) == 401);
    let form = json!({ "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(other.post("/auth/signup").json(form).send().status, 409);
    sibling.stop();
}

#[test]
fn a_server_and_a_command_line_that_write_to_one_file_at_the_same_time_both_succeed() {
    let room = [("MAX_KEYS_PER_USER", "1000"), ("RATE_LIMIT_WRITES", "off")];
    let service = Service::start_with(Backend::Sqlite, &room, |_| {});
    let home = Home::beside(&service);
    let ann = service.sign_up("ann@example.com");
    let revoked: Vec<Key> = (0..24).map(|_| new_key(&service, &ann)).collect();
    let made: Vec<Key> = thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (client, access) = (service.client(), &ann.access);
                scope.spawn(move || {
                    let create = || client.post("/keys/create").bearer(access).json(json!({ "name": "ci" })).send();
                    (0..100).map(|_| key(&create().json())).collect::<Vec<Key>>()
                })
            })
            .collect();
        for half in revoked.chunks(12) {
            let home = &home;
            scope.spawn(move || {
                for key in half {
                    home.run(&["key", "revoke", &key.id]).succeeded();
                }
            });
        }
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    assert!(made.iter().all(|key| service.key_status(&key.key) == 200));
    soon("the last one is revoked", || service.key_status(&revoked[23].key) == 401);
    assert!(revoked.iter().all(|key| service.key_status(&key.key) == 401));
}
