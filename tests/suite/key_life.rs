//! The life of a key: pausing, changing, rotating, revoking, and how many there may be.

use std::sync::Barrier;
use std::time::Duration;

use keyward_harness::http_client::Answer;
use keyward_harness::postgres_cluster;
use keyward_harness::service::{Account, Backend, Service, broken_rules, error, on_both_stores};
use serde_json::{Value, json};

const REVOKED: &str = "API key has been revoked, which is final";
const ROTATED: &str = "API key has been rotated; it can only be ended earlier than its grace period";

/// A key and its id.
fn new_key(service: &Service, owner: &Account, body: Value) -> (String, String) {
    let made = service.create_key(&owner.access, body);
    (made["id"].as_str().unwrap().to_string(), made["key"].as_str().unwrap().to_string())
}

fn change(service: &Service, owner: &Account, id: &str, body: Value) -> Answer {
    service.patch(&format!("/keys/{id}")).bearer(&owner.access).json(body).send()
}

fn rotate(service: &Service, owner: &Account, id: &str, body: Value) -> Answer {
    service.post(&format!("/keys/{id}/rotate")).bearer(&owner.access).json(body).send()
}

/// The refusal of a key that was rotated.
fn replaced(message: &str, successor: &Value) -> Value {
    let mut body = error(409, message);
    body["replacedBy"] = successor.clone();
    body
}

fn revoke(service: &Service, owner: &Account, id: &str) {
    assert_eq!(service.delete(&format!("/keys/{id}")).bearer(&owner.access).send().status, 200);
}

fn listed(service: &Service, owner: &Account, id: &str) -> Value {
    let keys = service.get("/keys?limit=100").bearer(&owner.access).send().json();
    keys.as_array().unwrap().iter().find(|key| key["id"] == id).unwrap().clone()
}

/// The bodies' answers when all are sent at once.
fn at_once(
    service: &Service,
    count: usize,
    ask: impl Fn(&keyward_harness::http_client::Client) -> Answer + Sync,
) -> Vec<Answer> {
    let (start, ask) = (&Barrier::new(count), &ask);
    let clients: Vec<_> = (0..count).map(|_| service.client()).collect();
    std::thread::scope(|scope| {
        let asking = clients.iter().map(|client| {
            scope.spawn(move || {
                start.wait();
                ask(client)
            })
        });
        asking.collect::<Vec<_>>().into_iter().map(|answer| answer.join().unwrap()).collect()
    })
}

/// Deleted where the server does not hear of it, which on SQLite it does within a tenth of a second.
#[test]
fn a_user_who_was_deleted_a_moment_ago_gets_no_key() {
    if !postgres_cluster::available() {
        return;
    }
    let service = Service::start(Backend::Postgres);
    let ann = service.sign_up("ann@example.com");
    assert_eq!(service.token_status(&ann.access), 200);
    service.database().unwrap().client().execute("DELETE FROM users", &[]).unwrap();
    let answer = service.post("/keys/create").bearer(&ann.access).json(json!({ "name": "ci" })).send();
    assert_eq!((answer.status, answer.json()), (401, error(401, "Unauthorized")));
}

on_both_stores! {
    fn a_paused_key_is_refused_until_it_is_active_again(service) {
        let ann = service.sign_up("ann@example.com");
        let (id, key) = new_key(service, &ann, json!({ "name": "ci" }));
        assert_eq!(service.key_status(&key), 200);
        let paused = change(service, &ann, &id, json!({ "isActive": false }));
        assert_eq!(service.key_status(&key), 401);
        assert_eq!((paused.status, paused.json()), (200, listed(service, &ann, &id)));
        assert_eq!((&paused.json()["isActive"], &paused.json()["revokedAt"]), (&json!(false), &json!(null)));
        assert_eq!(change(service, &ann, &id, json!({ "isActive": true })).status, 200);
        assert_eq!(service.key_status(&key), 200);
    }

    fn a_change_leaves_what_it_does_not_name(service) {
        let ann = service.sign_up("ann@example.com");
        let expires_at = "2999-01-01T00:00:00.000Z";
        let (id, key) = new_key(service, &ann, json!({ "name": "ci", "expiresAt": expires_at }));
        assert_eq!(service.key_status(&key), 200);
        let mut expected = listed(service, &ann, &id);
        for (body, field, value) in [
            (json!({}), "name", json!("ci")),
            (json!({ "name": "deploy" }), "name", json!("deploy")),
            (json!({ "expiresAt": "2998-01-01T00:00:00+01:00" }), "expiresAt", json!("2997-12-31T23:00:00.000Z")),
            (json!({ "expiresAt": null }), "expiresAt", json!(null)),
            (json!({ "isActive": true }), "isActive", json!(true)),
            (json!({ "scopes": ["b", "a:write", "b"] }), "scopes", json!(["b", "a:write"])),
            (json!({ "rateLimit": { "limit": 2, "window": "3600s" } }), "rateLimit", json!({ "limit": 2, "window": "1h" })),
            (json!({ "name": "ci" }), "name", json!("ci")),
            (json!({ "scopes": [] }), "scopes", json!([])),
            (json!({ "rateLimit": { "limit": 7.0, "window": "60s" } }), "rateLimit", json!({ "limit": 7, "window": "1m" })),
            (json!({ "rateLimit": { "limit": 1e6, "window": "1d" } }), "rateLimit", json!({ "limit": 1_000_000, "window": "1d" })),
            (json!({ "rateLimit": null }), "rateLimit", json!(null)),
        ] {
            expected[field] = value;
            let changed = change(service, &ann, &id, body.clone());
            assert_eq!((changed.status, changed.json()), (200, expected.clone()), "{body}");
        }
        assert_eq!(service.key_status(&key), 200);
    }

    fn a_change_that_breaks_rules_changes_nothing(service) {
        let ann = service.sign_up("ann@example.com");
        let (id, _) = new_key(service, &ann, json!({ "name": "ci" }));
        let before = listed(service, &ann, &id);
        let characters = "scopes must hold scopes of 1 to 100 visible ASCII characters without \" and \\";
        let many: Vec<String> = (0..51).map(|number| number.to_string()).collect();
        let limit = "rateLimit.limit must be a whole number from 1 to 1000000";
        let window = "rateLimit.window must be a whole number with a unit (s, m, h, d), such as 1s, 1m or 1h; at most 1d";
        for (body, rules) in [
            (json!({ "name": "" }), vec!["name should not be empty"]),
            (json!({ "name": null }), vec!["name should not be empty", "name must be a string"]),
            (json!({ "isActive": "false" }), vec!["isActive must be a boolean value"]),
            (json!({ "isActive": null }), vec!["isActive must be a boolean value"]),
            (json!({ "expiresAt": "2020-01-01T00:00:00Z" }), vec!["expiresAt must be in the future"]),
            (json!({ "scopes": "a b" }), vec!["scopes must be an array"]),
            (json!({ "scopes": ["a", 1] }), vec!["each value in scopes must be a string"]),
            (json!({ "scopes": ["a b"] }), vec![characters]),
            (json!({ "scopes": ["é"] }), vec![characters]),
            (json!({ "scopes": [""] }), vec![characters]),
            (json!({ "scopes": ["a".repeat(101)] }), vec![characters]),
            (json!({ "scopes": many }), vec!["scopes must contain no more than 50 elements"]),
            (json!({ "rateLimit": "100/1m" }), vec!["rateLimit must be an object"]),
            (json!({ "rateLimit": {} }), vec![limit, window, "rateLimit.window must be a string"]),
            (json!({ "rateLimit": { "limit": 0, "window": "0s" } }), vec![limit, window]),
            (json!({ "rateLimit": { "limit": 1.5, "window": "25h" } }), vec![limit, window]),
            (json!({ "rateLimit": { "limit": 1e300, "window": "1h" } }), vec![limit]),
            (json!({ "rateLimit": { "limit": -1, "window": "1h" } }), vec![limit]),
            (
                json!({ "rateLimit": { "limit": 1_000_001, "window": "1m", "burst": 7 } }),
                vec!["rateLimit.property burst should not exist", limit],
            ),
            (json!({ "isActive": false, "revokedAt": null }), vec!["property revokedAt should not exist"]),
        ] {
            let answer = change(service, &ann, &id, body.clone());
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&rules)), "{body}");
        }
        assert_eq!(listed(service, &ann, &id), before);
    }

    fn revocation_is_final(service) {
        let ann = service.sign_up("ann@example.com");
        let (id, key) = new_key(service, &ann, json!({ "name": "ci" }));
        revoke(service, &ann, &id);
        let before = listed(service, &ann, &id);
        for answer in [
            change(service, &ann, &id, json!({ "isActive": true })),
            change(service, &ann, &id, json!({})),
            rotate(service, &ann, &id, json!({})),
        ] {
            assert_eq!((answer.status, answer.json()), (409, error(409, REVOKED)));
        }
        assert_eq!(service.key_status(&key), 401);
        // Nor does revoking it again make it more recent.
        service.advance(60);
        revoke(service, &ann, &id);
        assert_eq!(listed(service, &ann, &id), before);
    }

    fn what_becomes_of_a_key_is_written_down_and_nothing_where_nothing_did(service) {
        let ann = service.sign_up("ann@example.com");
        let (id, key) = new_key(service, &ann, json!({ "name": "ci" }));
        let body = json!({ "isActive": true, "scopes": ["a"], "rateLimit": null, "name": "renamed" });
        assert_eq!(change(service, &ann, &id, body).status, 200);
        assert_eq!(change(service, &ann, &id, json!({})).status, 200);
        let successor = rotate(service, &ann, &id, json!({})).json()["id"].clone();
        assert_eq!(rotate(service, &ann, &id, json!({})).status, 409);
        for status in [200, 401] {
            assert_eq!(service.post("/keys/revoke-self").api_key(&key).send().status, status);
        }
        let events = service.get("/auth/events").bearer(&ann.access).send().json();
        let session = events.as_array().unwrap().last().unwrap()["actor"].clone();
        let of_keys: Vec<Value> = events.as_array().unwrap().iter().rev()
            .filter(|event| event["type"].as_str().unwrap().starts_with("key."))
            .map(|event| json!([event["type"], event["actor"], event["details"], event["subject"]])).collect();
        let subject = json!({ "type": "key", "id": id });
        let settings = json!({ "settings": ["name", "isActive", "scopes", "rateLimit"] });
        let itself = json!({ "type": "key", "keyId": id });
        assert_eq!(
            of_keys,
            [
                json!(["key.created", session, {}, subject]),
                json!(["key.changed", session, settings, subject]),
                json!(["key.rotated", session, { "replacedBy": successor }, subject]),
                json!(["key.revoked", itself, {}, subject]),
            ]
        );
    }

    fn a_paused_key_can_still_be_ended_by_those_who_find_it(service) {
        let ann = service.sign_up("ann@example.com");
        let soon = service.clock.now().plus(Duration::from_secs(60)).to_string();
        let body = json!({ "name": "ci", "rateLimit": { "limit": 1, "window": "1d" } });
        let (id, key) = new_key(service, &ann, body);
        let (expiring, expired) = new_key(service, &ann, json!({ "name": "ci", "expiresAt": soon }));
        let revoke_self = |key: &str| service.post("/keys/revoke-self").api_key(key).send().status;
        for id in [&id, &expiring] {
            assert_eq!(change(service, &ann, id, json!({ "isActive": false })).status, 200);
        }
        service.advance(60);
        // Nothing else is open to it.
        for ask in [
            service.get("/protected/service-only"), service.get("/protected/flexible"), service.post("/auth/token"),
        ] {
            assert_eq!(ask.api_key(&key).send().status, 401);
        }
        assert_eq!([revoke_self(&key), revoke_self(&key), revoke_self(&expired)], [200, 401, 401]);
        assert_ne!(listed(service, &ann, &id)["revokedAt"], json!(null));
        assert_eq!(listed(service, &ann, &expiring)["revokedAt"], json!(null));
        let answer = change(service, &ann, &id, json!({ "isActive": true }));
        assert_eq!((answer.status, answer.json()), (409, error(409, REVOKED)));
    }

    fn nobody_changes_or_rotates_anothers_key(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let (id, key) = new_key(service, &ann, json!({ "name": "ci" }));
        for id in [&id, "01890000-0000-7000-8000-000000000000", "not-a-uuid"] {
            for answer in [change(service, &bob, id, json!({ "isActive": false })), rotate(service, &bob, id, json!({}))] {
                assert_eq!((answer.status, answer.json()), (404, error(404, "API key not found")));
            }
        }
        assert_eq!(service.key_status(&key), 200);
    }

    fn a_rotated_key_lives_on_until_its_grace_ends(service) {
        let ann = service.sign_up("ann@example.com");
        let (id, old) = new_key(service, &ann, json!({
            "name": "ci", "expiresAt": "2999-01-01T00:00:00Z", "scopes": ["a", "b"],
            "rateLimit": { "limit": 5, "window": "60s" },
        }));
        let before = listed(service, &ann, &id);
        let answer = rotate(service, &ann, &id, json!({ "gracePeriod": "30m" }));
        let made = answer.json();
        let new = made["key"].as_str().unwrap();
        let created_at = keyward::base::clock::Timestamp::parse(made["createdAt"].as_str().unwrap()).unwrap();
        let ends = created_at.plus(Duration::from_secs(30 * 60)).to_string();
        assert_eq!(answer.status, 201);
        assert_eq!(
            made,
            json!({
                "id": made["id"], "key": new, "name": "ci", "expiresAt": "2999-01-01T00:00:00.000Z",
                "createdAt": made["createdAt"], "scopes": ["a", "b"], "rateLimit": { "limit": 5, "window": "1m" },
                "replaces": { "id": id, "expiresAt": ends },
            })
        );
        let mut expected = before;
        expected["expiresAt"] = json!(ends);
        expected["replacedBy"] = made["id"].clone();
        assert_eq!(listed(service, &ann, &id), expected);
        service.advance(30 * 60 - 1);
        assert_eq!((service.key_status(&old), service.key_status(new)), (200, 200));
        service.advance(1);
        assert_eq!((service.key_status(&old), service.key_status(new)), (401, 200));
    }

    fn the_grace_is_a_day_or_none_or_until_the_keys_own_end(service) {
        let ann = service.sign_up("ann@example.com");
        let now = service.clock.now();
        let soon = now.plus(Duration::from_secs(600)).to_string();
        let (short_lived, _) = new_key(service, &ann, json!({ "name": "a", "expiresAt": soon }));
        let made = rotate(service, &ann, &short_lived, json!({})).json();
        assert_eq!((&made["expiresAt"], &made["replaces"]["expiresAt"]), (&json!(soon), &json!(soon)));

        let (leaked, key) = new_key(service, &ann, json!({ "name": "b" }));
        assert_eq!(service.key_status(&key), 200);
        let made = rotate(service, &ann, &leaked, json!({ "gracePeriod": "0s" })).json();
        assert_eq!(made["replaces"]["expiresAt"], made["createdAt"]);
        assert_eq!((service.key_status(&key), service.key_status(made["key"].as_str().unwrap())), (401, 200));

        let (usual, _) = new_key(service, &ann, json!({ "name": "c" }));
        let ends = rotate(service, &ann, &usual, json!({})).json()["replaces"]["expiresAt"].clone();
        let tomorrow = now.plus(Duration::from_secs(24 * 60 * 60)).to_string();
        assert!(ends.as_str().unwrap() >= tomorrow.as_str(), "{ends} {tomorrow}");

        let rule = "gracePeriod must be a whole number with a unit (s, m, h, d), such as 0s, 30m, 24h or 7d; at most 30d";
        for grace in ["", "24", "-1h", "1w", "31d", "721h", "3651d", "1h 30m"] {
            let answer = rotate(service, &ann, &usual, json!({ "gracePeriod": grace }));
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&[rule])), "{grace}");
        }
        let (longest, _) = new_key(service, &ann, json!({ "name": "d" }));
        assert_eq!(rotate(service, &ann, &longest, json!({ "gracePeriod": "30d" })).status, 201);
    }

    fn a_rotated_key_can_only_be_ended_earlier(service) {
        let ann = service.sign_up("ann@example.com");
        let (id, key) = new_key(service, &ann, json!({ "name": "ci" }));
        let rotated = rotate(service, &ann, &id, json!({ "gracePeriod": "1h" }));
        assert_eq!(rotated.status, 201);
        let successor = rotated.json()["id"].take();
        for body in [json!({ "expiresAt": null }), json!({ "expiresAt": "2999-01-01T00:00:00Z" })] {
            let answer = change(service, &ann, &id, body);
            assert_eq!((answer.status, answer.json()), (409, replaced(ROTATED, &successor)));
        }
        let again = rotate(service, &ann, &id, json!({}));
        assert_eq!((again.status, again.json()), (409, replaced(ROTATED, &successor)));
        let sooner = service.clock.now().plus(Duration::from_secs(60)).to_string();
        assert_eq!(change(service, &ann, &id, json!({ "name": "old ci", "expiresAt": sooner })).status, 200);
        assert_eq!(service.key_status(&key), 200);
        service.advance(60);
        assert_eq!(service.key_status(&key), 401);
        revoke(service, &ann, &id);
        for answer in [change(service, &ann, &id, json!({})), rotate(service, &ann, &id, json!({}))] {
            assert_eq!((answer.status, answer.json()), (409, replaced(REVOKED, &successor)));
        }
    }

    fn an_expired_key_is_not_rotated_and_comes_back_when_it_is_prolonged(service) {
        let ann = service.sign_up("ann@example.com");
        let soon = service.clock.now().plus(Duration::from_secs(60)).to_string();
        let (id, key) = new_key(service, &ann, json!({ "name": "ci", "expiresAt": soon }));
        service.advance(60);
        assert_eq!(service.key_status(&key), 401);
        let answer = rotate(service, &ann, &id, json!({}));
        let message = "API key has expired; give it a later expiresAt first";
        assert_eq!((answer.status, answer.json()), (409, error(409, message)));
        assert_eq!(change(service, &ann, &id, json!({ "expiresAt": null })).status, 200);
        assert_eq!(service.key_status(&key), 200);
    }

    fn of_those_who_rotate_a_key_at_once_one_gets_the_new_one(service) {
        let ann = service.sign_up("ann@example.com");
        let (id, _) = new_key(service, &ann, json!({ "name": "ci" }));
        let target = format!("/keys/{id}/rotate");
        let answers = at_once(service, 6, |client| client.post(&target).bearer(&ann.access).json(json!({})).send());
        let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
        // Those who lose learn which one it is.
        let made = answers.iter().find(|answer| answer.status == 201).unwrap().json();
        let mut others = answers.iter().filter(|answer| answer.status == 409);
        assert!(others.all(|answer| answer.json() == replaced(ROTATED, &made["id"])), "{answers:?}");
        assert_eq!(service.get("/keys").bearer(&ann.access).send().json().as_array().unwrap().len(), 2);
    }

    fn a_user_has_no_more_keys_than_they_may(service) {
        service.set("MAX_KEYS_PER_USER", "3");
        service.restart();
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let too_many = error(409, "Too many API keys, at most 3 may be in use; revoke one that is not needed");
        let create = |body: Value| service.post("/keys/create").bearer(&ann.access).json(body).send();
        let answers = at_once(service, 6, |client| {
            client.post("/keys/create").bearer(&ann.access).json(json!({ "name": "ci" })).send()
        });
        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 3);
        assert!(answers.iter().all(|answer| answer.status == 201 || answer.json() == too_many), "{answers:?}");
        // Another's do not count.
        new_key(service, &bob, json!({ "name": "ci" }));

        let ids: Vec<String> = service.get("/keys").bearer(&ann.access).send().json().as_array().unwrap().iter()
            .map(|key| key["id"].as_str().unwrap().to_string()).collect();
        // A paused one does, and there is room to rotate, but none to gather keys that way.
        assert_eq!(change(service, &ann, &ids[0], json!({ "isActive": false })).status, 200);
        assert_eq!(create(json!({ "name": "x" })).status, 409);
        let mut newest = ids[1].clone();
        for status in [201, 201, 201, 409] {
            let answer = rotate(service, &ann, &newest, json!({ "gracePeriod": "10m" }));
            assert_eq!(answer.status, status, "{answer:?}");
            newest = answer.json()["id"].as_str().unwrap_or(&newest).to_string();
        }
        assert_eq!(rotate(service, &ann, &newest, json!({ "gracePeriod": "0s" })).status, 201);
        assert_eq!(create(json!({ "name": "x" })).json(), too_many);

        // Rotated ones count until their grace ends.
        revoke(service, &ann, &ids[0]);
        assert_eq!(create(json!({ "name": "x" })).json(), too_many);
        service.advance(10 * 60);

        // Revoked and expired ones do not count; one that would come back does.
        let soon = service.clock.now().plus(Duration::from_secs(60)).to_string();
        let expiring = create(json!({ "name": "x", "expiresAt": soon })).json()["id"].as_str().unwrap().to_string();
        service.advance(60);
        let last = create(json!({ "name": "y" })).json()["id"].as_str().unwrap().to_string();
        let answer = change(service, &ann, &expiring, json!({ "expiresAt": null }));
        assert_eq!((answer.status, answer.json()), (409, too_many.clone()));
        assert_eq!(change(service, &ann, &expiring, json!({ "name": "z" })).status, 200);

        // With another one in its grace there is no room either, only when that one has been revoked.
        revoke(service, &ann, &ids[2]);
        assert_eq!(rotate(service, &ann, &last, json!({})).status, 201);
        let answer = change(service, &ann, &expiring, json!({ "expiresAt": null }));
        assert_eq!((answer.status, answer.json()), (409, too_many));
        revoke(service, &ann, &last);
        assert_eq!(change(service, &ann, &expiring, json!({ "expiresAt": null })).status, 200);
    }
    fn a_thousand_keys_are_listed_and_ended_ones_never_in_the_place_of_a_usable_one(service) {
        service.reconfigure(|config| (config.keys.max_keys, config.accounts.write_rates.own) = (2000, None));
        let ann = service.sign_up("ann@example.com");
        let (usable, _) = new_key(service, &ann, json!({ "name": "oldest" }));
        let soon = service.clock.now().plus(Duration::from_secs(600)).to_string();
        let mut expected: Vec<String> = (0..1001)
            .map(|_| new_key(service, &ann, json!({ "name": "x", "expiresAt": soon })).0)
            .collect();
        service.advance(600);
        expected.drain(..2);
        expected.insert(0, usable);
        expected.reverse();
        let keys = service.get("/keys").bearer(&ann.access).send().json();
        let ids: Vec<&str> = keys.as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected);
    }
}
