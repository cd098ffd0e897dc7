//! What an owner is told of keys that expire: 7 days before, 1 day before, and when they have; once, whichever server
//! does it.

use std::collections::HashSet;
use std::time::Duration;

use keyward::base::clock::Timestamp;
use keyward_harness::old_database::take_back;
use keyward_harness::service::{Account, Service, on_both_stores, soon};
use serde_json::{Value, json};

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// The time after so many seconds.
fn after(service: &Service, seconds: u64) -> Timestamp {
    service.clock.now().plus(Duration::from_secs(seconds))
}

/// Makes a key that expires after so many seconds, and gives its id.
#[track_caller]
fn expiring(service: &Service, owner: &Account, seconds: u64) -> String {
    let spec = json!({ "name": "ci", "expiresAt": after(service, seconds).to_string() });
    service.create_key(&owner.access, spec)["id"].as_str().unwrap().to_string()
}

fn has_been_told(service: &Service, key: &str, kind: &str) -> bool {
    let count = format!("SELECT COUNT(*) FROM events WHERE kind = '{kind}' AND subject_id = '{key}'");
    service.count(&count) > 0
}

/// Moves the clock, and waits until a server has told of everything whose time has come: then it has also told of another
/// user's key that expires at this time.
#[track_caller]
fn advance(service: &Service, seconds: u64) {
    let other = service.log_in("other@example.com");
    let last = expiring(service, &other, seconds);
    service.advance(seconds);
    soon("everything that is due is told of", || has_been_told(service, &last, "key.expired"));
}

/// What the owner reads of keys that expire, oldest first: the type, the key, and how many days were left.
#[track_caller]
fn told(service: &Service, owner: &str) -> Vec<(String, String, Value)> {
    let owner = service.log_in(owner);
    let answer = service.get("/auth/events?limit=100").bearer(&owner.access).send();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let events = answer.json();
    let events = events.as_array().unwrap().iter().rev();
    events
        .filter(|event| event["type"].as_str().unwrap().starts_with("key.expir"))
        .map(|event| (text(&event["type"]), text(&event["subject"]["id"]), event["details"]["days"].clone()))
        .collect()
}

fn in_days(key: &str, days: u64) -> (String, String, Value) {
    ("key.expiring".to_string(), key.to_string(), json!(days))
}

fn over(key: &str) -> (String, String, Value) {
    ("key.expired".to_string(), key.to_string(), Value::Null)
}

#[track_caller]
fn change(service: &Service, owner: &Account, key: &str, body: Value) {
    let answer = service.patch(&format!("/keys/{key}")).bearer(&owner.access).json(body).send();
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn start(service: &Service) -> Account {
    service.sign_up("other@example.com");
    service.sign_up("ann@example.com")
}

on_both_stores! {
    fn an_owner_is_told_seven_days_and_one_day_before_a_key_expires_and_when_it_has(service) {
        let ann = start(service);
        let expires_at = after(service, 30 * DAY).to_string();
        let key = expiring(service, &ann, 30 * DAY);
        service.create_key(&ann.access, json!({ "name": "for ever" }));
        let mut expected = Vec::new();
        for (seconds, news) in [
            (23 * DAY - 60, None),
            (60, Some(in_days(&key, 7))),
            (HOUR, None),
            (6 * DAY - HOUR, Some(in_days(&key, 1))),
            (DAY - 60, None),
            (60, Some(over(&key))),
            (40 * DAY, None),
        ] {
            advance(service, seconds);
            expected.extend(news);
            assert_eq!(told(service, "ann@example.com"), expected);
        }

        let ann = service.log_in("ann@example.com");
        let events = service.get("/auth/events?limit=100").bearer(&ann.access).send().json();
        let event = events.as_array().unwrap().iter().find(|event| event["type"] == "key.expiring").unwrap();
        let (actor, subject) = (json!({ "type": "system" }), json!({ "type": "key", "id": key }));
        assert_eq!((&event["actor"], &event["subject"], &event["userId"]), (&actor, &subject, &json!(ann.id)));
        assert_eq!((&event["ip"], &event["requestId"], &event["count"]), (&Value::Null, &Value::Null, &json!(1)));
        assert_eq!(event["details"], json!({ "expiresAt": expires_at, "days": 1 }));
        let event = events.as_array().unwrap().iter().find(|event| event["type"] == "key.expired").unwrap();
        assert_eq!(event["details"], json!({ "expiresAt": expires_at }));
    }

    fn a_key_that_lives_shorter_than_a_notice_is_told_of_only_later(service) {
        let ann = start(service);
        let (days, hours) = (expiring(service, &ann, 3 * DAY), expiring(service, &ann, 2 * HOUR));
        advance(service, HOUR);
        assert_eq!(told(service, "ann@example.com"), []);
        advance(service, HOUR);
        assert_eq!(told(service, "ann@example.com"), [over(&hours)]);
        advance(service, 2 * DAY);
        advance(service, DAY);
        assert_eq!(told(service, "ann@example.com"), [over(&hours), in_days(&days, 1), over(&days)]);
    }

    fn another_expiry_starts_again_with_the_steps_that_lie_ahead(service) {
        let ann = start(service);
        let keys = [(); 4].map(|()| expiring(service, &ann, 8 * DAY));
        let [later, sooner, never, renamed] = &keys;
        advance(service, DAY);
        let first = told(service, "ann@example.com");
        assert_eq!(first, keys.each_ref().map(|key| in_days(key, 7)));

        let ann = service.log_in("ann@example.com");
        let to = |seconds: u64| json!({ "expiresAt": after(service, seconds).to_string() });
        change(service, &ann, later, to(10 * DAY));
        change(service, &ann, sooner, to(12 * HOUR));
        change(service, &ann, never, json!({ "expiresAt": null }));
        change(service, &ann, renamed, json!({ "name": "other" }));
        for (seconds, key) in
            [(12 * HOUR, over(sooner)), (60 * HOUR, in_days(later, 7)), (72 * HOUR, in_days(renamed, 1))]
        {
            advance(service, seconds);
            assert_eq!(told(service, "ann@example.com").last(), Some(&key));
        }
        advance(service, 20 * DAY);
        let all = told(service, "ann@example.com");
        assert_eq!(all.len(), first.len() + 5, "{all:?}");
        let last: HashSet<_> = all[all.len() - 2..].iter().cloned().collect();
        assert_eq!(last, HashSet::from([over(renamed), over(later)]));

        // One that has expired and is given another time is told of again.
        let ann = service.log_in("ann@example.com");
        change(service, &ann, sooner, json!({ "expiresAt": after(service, 2 * DAY).to_string() }));
        advance(service, DAY);
        assert_eq!(told(service, "ann@example.com").last(), Some(&in_days(sooner, 1)));
    }

    fn nothing_is_told_of_keys_that_are_revoked_rotated_or_paused_or_of_an_inactive_user(service) {
        let ann = start(service);
        let bob = service.sign_up("bob@example.com");
        let [revoked, rotated, paused, resumed] = [(); 4].map(|()| expiring(service, &ann, 8 * DAY));
        let of_bob = expiring(service, &bob, 8 * DAY);
        assert_eq!(service.delete(&format!("/keys/{revoked}")).bearer(&ann.access).send().status, 200);
        let rotate = service.post(&format!("/keys/{rotated}/rotate")).bearer(&ann.access);
        let successor = rotate.json(json!({ "gracePeriod": "30d" })).send().json();
        let successor = successor["id"].as_str().unwrap();
        for key in [&paused, &resumed] {
            change(service, &ann, key, json!({ "isActive": false }));
        }
        service.operator(&["user", "deactivate", "bob@example.com"]);
        advance(service, DAY);
        assert_eq!(told(service, "ann@example.com"), [in_days(successor, 7)]);

        // What can be used again is told of from then on.
        let ann = service.log_in("ann@example.com");
        change(service, &ann, &resumed, json!({ "isActive": true }));
        service.operator(&["user", "activate", "bob@example.com"]);
        advance(service, 6 * DAY);
        advance(service, DAY);
        assert_eq!(told(service, "bob@example.com"), [in_days(&of_bob, 1), over(&of_bob)]);
        let of_ann = told(service, "ann@example.com");
        assert_eq!(of_ann.len(), 5, "{of_ann:?}");
        assert!([in_days(&resumed, 1), over(&resumed), in_days(successor, 1), over(successor)]
            .iter()
            .all(|news| of_ann.contains(news)));
    }

    fn a_server_that_was_off_tells_late_and_only_what_is_still_so(service) {
        let ann = start(service);
        let [ten, five, one, none] = [13, 8, 4, 2].map(|days| expiring(service, &ann, days * DAY));
        service.stop();
        service.advance(3 * DAY + HOUR);
        service.restart();
        soon("what is over is told", || has_been_told(service, &none, "key.expired"));
        assert_eq!(told(service, "ann@example.com"), [in_days(&five, 5), over(&none), in_days(&one, 1)]);
        advance(service, 3 * DAY);
        let rest = told(service, "ann@example.com").split_off(3);
        assert_eq!(rest, [over(&one), in_days(&ten, 7)]);
    }

    fn of_several_servers_one_tells_of_each_key(service) {
        const KEYS: usize = 350;
        service.set("MAX_KEYS_PER_USER", "1000");
        service.restart();
        let ann = start(service);
        let first = expiring(service, &ann, HOUR);
        let columns = "id, user_id, hash, hint, name, is_active, scopes, created_at, expires_at, notice_at";
        let at = after(service, HOUR);
        for number in 1..KEYS {
            let hash = if service.database().is_some() { format!("'\\x{number:064x}'") } else { format!("x'{number:064x}'") };
            service.execute(&format!(
                "INSERT INTO api_keys ({columns}) SELECT '{}{number:012x}', user_id, {hash}, hint, name, is_active, scopes, \
                 created_at, expires_at, notice_at FROM api_keys WHERE id = '{first}'", &first[..24]
            ));
        }
        assert_eq!(service.count(&format!("SELECT COUNT(*) FROM api_keys WHERE notice_at = '{at}'")), KEYS as i64);
        let siblings = [(); 2].map(|()| service.sibling().0);
        service.advance(HOUR);
        let count = |what: &str| service.count(&format!("SELECT COUNT({what}) FROM events WHERE kind = 'key.expired'"));
        soon("all are told of", || count("*") >= KEYS as i64);
        advance(service, HOUR);
        let of_ann = format!("AND user_id = '{}'", ann.id);
        for what in ["*", "DISTINCT subject_id"] {
            let told = format!("SELECT COUNT({what}) FROM events WHERE kind = 'key.expired' {of_ann}");
            assert_eq!(service.count(&told), KEYS as i64);
        }
        for sibling in siblings {
            sibling.stop();
        }
    }
    fn an_upgrade_tells_nothing_of_what_was_over_before_it(service) {
        let ann = start(service);
        let [month, week, hours] = [30 * DAY, 3 * DAY, 2 * HOUR].map(|seconds| expiring(service, &ann, seconds));
        let revoked = expiring(service, &ann, 2 * HOUR);
        assert_eq!(service.delete(&format!("/keys/{revoked}")).bearer(&ann.access).send().status, 200);
        for (key, seconds) in [(expiring(service, &ann, DAY), 1), (expiring(service, &ann, DAY), 400 * DAY)] {
            let at = service.clock.now().minus(Duration::from_secs(seconds));
            service.execute(&format!("UPDATE api_keys SET expires_at = '{at}' WHERE id = '{key}'"));
        }
        take_back(service, 19);
        service.restart();
        advance(service, 3 * HOUR);
        assert_eq!(told(service, "ann@example.com"), [over(&hours)]);
        for (seconds, news) in [(45 * HOUR, in_days(&week, 1)), (21 * DAY, in_days(&month, 7))] {
            advance(service, seconds);
            assert_eq!(told(service, "ann@example.com").last(), Some(&news));
        }
        assert_eq!(told(service, "ann@example.com").len(), 4, "the week's expiry, too");
    }
}
