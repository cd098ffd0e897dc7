//! Keys that have ended: how long they are kept, how many of them, and that they cost nobody anything.

use std::time::Duration;

use keyward_harness::postgres_cluster::available;
use keyward_harness::service::{Account, Backend, Service, error, on_both_stores, soon};
use serde_json::{Value, json};

const DAY: u64 = 24 * 60 * 60;

/// Stores keys that were revoked one second after the other, the last one just now, past the server.
fn insert_ended(service: &Service, owner: &Account, number: u64) {
    let base = service.clock.now().minus(Duration::from_secs(number));
    let owner = owner.id.as_str();
    // The owner's first digits and a number.
    let (prefix, columns) = (&owner[..24], "id, user_id, hash, hint, name, is_active, scopes, created_at, revoked_at");
    let statement = match service.database() {
        Some(_) => format!(
            "INSERT INTO api_keys ({columns}) SELECT ('{prefix}' || lpad(to_hex(n), 12, '0'))::uuid, '{owner}', \
             decode(md5('{owner}' || n) || md5(n || '{owner}'), 'hex'), 'sk_0000…0000', 'old ' || n, FALSE, '', \
             TIMESTAMPTZ '{base}' + n * interval '1 second', TIMESTAMPTZ '{base}' + n * interval '1 second' \
             FROM generate_series(1, {number}) AS n; ANALYZE api_keys"
        ),
        None => format!(
            "WITH RECURSIVE series (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {number}) \
             INSERT INTO api_keys ({columns}) SELECT printf('{prefix}%012x', n), '{owner}', randomblob(32), \
             'sk_0000…0000', 'old ' || n, FALSE, '', strftime('%Y-%m-%dT%H:%M:%fZ', '{base}', '+' || n || ' seconds'), \
             strftime('%Y-%m-%dT%H:%M:%fZ', '{base}', '+' || n || ' seconds') FROM series"
        ),
    };
    service.execute(&statement);
}

/// How many of the owner's keys have been revoked.
fn ended(service: &Service, owner: &Account) -> i64 {
    service.count(&format!("SELECT COUNT(*) FROM api_keys WHERE user_id = '{}' AND revoked_at IS NOT NULL", owner.id))
}

/// From now on nothing is deleted in the background: the clock has gone ahead of everything that has ever happened by more
/// than it is believed.
fn without_chores(service: &mut Service) {
    service.advance(8 * DAY);
    service.restart();
}

fn ids(keys: &Value) -> Vec<String> {
    keys.as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_string()).collect()
}

fn listed(service: &Service, owner: &Account) -> Vec<String> {
    ids(&service.get("/keys").bearer(&owner.access).send().json())
}

fn new_key(service: &Service, owner: &Account, body: Value) -> String {
    service.create_key(&owner.access, body)["id"].as_str().unwrap().to_string()
}

fn revoke(service: &Service, owner: &Account, id: &str) {
    assert_eq!(service.delete(&format!("/keys/{id}")).bearer(&owner.access).send().status, 200);
}

on_both_stores! {
    fn a_key_is_kept_for_its_time_after_it_has_ended(service) {
        service.set("KEY_RETENTION", "2d");
        service.restart();
        let ann = service.sign_up("ann@example.com");
        let create = |body: Value| new_key(service, &ann, body);
        let rotate = |id: &str| {
            let rotate = service.post(&format!("/keys/{id}/rotate")).bearer(&ann.access);
            rotate.json(json!({ "gracePeriod": "0s" })).send().json()["id"].as_str().unwrap().to_string()
        };
        let tomorrow = service.clock.now().plus(Duration::from_secs(DAY)).to_string();
        let (first, revoked, rotated) =
            (create(json!({ "name": "1" })), create(json!({ "name": "2" })), create(json!({ "name": "3" })));
        let (paused, usable) = (create(json!({ "name": "4" })), create(json!({ "name": "5" })));
        let expiring = create(json!({ "name": "6", "expiresAt": tomorrow }));
        let pause = service.patch(&format!("/keys/{paused}")).bearer(&ann.access).json(json!({ "isActive": false }));
        assert_eq!(pause.send().status, 200);
        revoke(service, &ann, &first);
        service.advance(10);
        revoke(service, &ann, &revoked);
        let successor = rotate(&rotated);

        // Looked at every hour; what is to be gone shows that it has been.
        let after = |seconds: u64, kept: &[&String]| {
            service.advance(seconds);
            let ann = service.log_in("ann@example.com");
            let kept: Vec<&str> = kept.iter().map(|id| id.as_str()).collect();
            soon("what has had its time is gone", || listed(service, &ann) == kept);
        };
        after(2 * DAY - 5, &[&successor, &expiring, &usable, &paused, &rotated, &revoked]);
        after(60 * 60, &[&successor, &expiring, &usable, &paused]);
        after(DAY, &[&successor, &usable, &paused]);

        let ann = service.log_in("ann@example.com");
        for answer in [
            service.delete(&format!("/keys/{revoked}")).bearer(&ann.access).send(),
            service.get(&format!("/keys/{revoked}/usage")).bearer(&ann.access).send(),
        ] {
            assert_eq!((answer.status, answer.json()), (404, error(404, "API key not found")));
        }
        let events = service.get("/auth/events?limit=200").bearer(&ann.access).send().json();
        let told = events.as_array().unwrap().iter().filter(|event| event["type"] == "key.revoked");
        assert_eq!(told.map(|event| event["subject"]["id"].as_str().unwrap()).collect::<Vec<_>>(), [&revoked, &first]);
    }

    fn of_a_users_ended_keys_ten_times_as_many_are_kept_as_may_be_in_use(service) {
        service.set("MAX_KEYS_PER_USER", "2");
        service.restart();
        service.sign_up("ann@example.com");
        service.sign_up("bob@example.com");
        without_chores(service);
        let (ann, bob) = (service.log_in("ann@example.com"), service.log_in("bob@example.com"));
        insert_ended(service, &ann, 25);
        insert_ended(service, &bob, 25);
        let names = || -> Vec<String> {
            let keys = service.get("/keys").bearer(&ann.access).send().json();
            keys.as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_string()).collect()
        };
        let old = |span: std::ops::RangeInclusive<u32>| span.rev().map(|n| format!("old {n}"));
        assert_eq!(names(), old(1..=25).collect::<Vec<_>>());
        // Making, ending and replacing one: each time those that ended first go.
        let id = new_key(service, &ann, json!({ "name": "new" }));
        assert_eq!(names(), ["new".to_string()].into_iter().chain(old(6..=25)).collect::<Vec<_>>());
        service.advance(1);
        revoke(service, &ann, &id);
        assert_eq!(names(), ["new".to_string()].into_iter().chain(old(7..=25)).collect::<Vec<_>>());
        let id = new_key(service, &ann, json!({ "name": "newer" }));
        service.advance(1);
        let rotate = service.post(&format!("/keys/{id}/rotate")).bearer(&ann.access);
        assert_eq!(rotate.json(json!({ "gracePeriod": "0s" })).send().status, 201);
        let expected = ["newer", "newer", "new"].map(str::to_string).into_iter().chain(old(8..=25));
        assert_eq!(names(), expected.collect::<Vec<_>>());
        // Another's are another's.
        assert_eq!(ended(service, &bob), 25);
    }

    fn a_database_from_before_there_was_a_bound_is_brought_down_to_it(service) {
        service.set("MAX_KEYS_PER_USER", "2");
        service.restart();
        let numbers = [("ann", 65, 20), ("bob", 12, 12), ("carl", 21, 20), ("dora", 0, 0), ("eve", 2500, 20), ("finn", 20, 20)];
        let owners = numbers.map(|(name, before, after)| {
            let owner = service.sign_up(&format!("{name}@example.com"));
            let key = new_key(service, &owner, json!({ "name": "usable" }));
            if before > 0 {
                insert_ended(service, &owner, before);
            }
            (owner, key, after)
        });
        service.restart();
        soon("no more is kept than is to be", || {
            owners.iter().all(|(owner, _, after)| ended(service, owner) == *after)
        });
        for (owner, key, after) in owners {
            let keys = listed(service, &owner);
            assert_eq!((keys.len() as i64, keys.contains(&key)), (after + 1, true));
        }
    }
}

/// Stops the server and gives how many entries of indexes and rows of the table PostgreSQL has read of keys so far, which
/// it counts when connections close.
fn read_of_keys(service: &mut Service) -> i64 {
    service.stop();
    let database = service.database().unwrap();
    let (mut observer, mut client) = (database.observer(), database.client());
    let others = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'keyward'";
    soon("the connections are closed", || {
        observer.query_one(others, &[&database.name()]).unwrap().get::<_, i64>(0) == 0
    });
    let sum = "SELECT (SELECT SUM(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'api_keys')::bigint \
               + (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'api_keys')";
    client.query_one(sum, &[]).unwrap().get(0)
}

#[test]
fn what_is_read_does_not_grow_with_the_keys_that_have_ended() {
    if !available() {
        return;
    }
    let mut service = Service::start(Backend::Postgres);
    let ann = service.sign_up("ann@example.com");
    let usable = new_key(&service, &ann, json!({ "name": "usable" }));
    without_chores(&mut service);
    insert_ended(&service, &ann, 30_000);
    let before = read_of_keys(&mut service);
    service.restart();
    let ann = service.log_in("ann@example.com");
    let keys = listed(&service, &ann);
    assert_eq!((keys.len(), keys.last()), (1000, Some(&usable)));
    let page = service.get("/keys?limit=10").bearer(&ann.access).send();
    assert_eq!(ids(&page.json()), keys[..10]);
    let change = service.patch(&format!("/keys/{usable}")).bearer(&ann.access).json(json!({ "name": "renamed" }));
    assert_eq!(change.send().status, 200);
    let id = new_key(&service, &ann, json!({ "name": "new" }));
    revoke(&service, &ann, &id);
    let read = read_of_keys(&mut service) - before;
    println!("{read} entries and rows read");
    assert!((1000..15_000).contains(&read), "{read}");
}
