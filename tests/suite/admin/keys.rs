//! Everyone's keys.

use keyward_harness::http_client::Answer;
use keyward_harness::service::{Account, Service, broken_rules, error, on_both_stores};
use serde_json::{Value, json};

use super::{next, operator};

fn ask(service: &Service, operator: &Account, method: &str, target: &str, body: Option<Value>) -> Answer {
    let request = service.method(method, target).bearer(&operator.access);
    match body {
        Some(body) => request.json(body).send(),
        None => request.send(),
    }
}

/// The names on all pages of a list.
fn names(service: &Service, operator: &Account, first: &str) -> Vec<String> {
    let (mut names, mut target) = (Vec::new(), Some(first.to_string()));
    while let Some(path) = target {
        let answer = ask(service, operator, "GET", &path, None);
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json().as_array().unwrap().clone();
        names.extend(page.iter().map(|key| key["name"].as_str().unwrap().to_string()));
        target = next(&answer);
    }
    names
}

fn said(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.json())
}

on_both_stores! {
    fn a_key_is_made_for_a_customer_and_is_its_owners(service) {
        let boss = operator(service, "boss@example.com");
        let ann = service.sign_up("ann@example.com");
        service.operator(&["user", "withdraw", &ann.id, "*"]);
        service.grant(&ann.id, &["orders:*"]);
        let body = json!({
            "userId": ann.id, "name": "shop", "scopes": ["orders:read"], "externalId": "customer-1",
            "metadata": { "plan": "pro" }, "allowedIps": ["127.0.0.1"], "rateLimit": { "limit": 5, "window": "1m" },
        });
        let answer = ask(service, &boss, "POST", "/admin/keys", Some(body.clone()));
        let made = answer.json();
        assert_eq!((answer.status, &made["userId"], &made["name"]), (201, &json!(ann.id), &json!("shop")));
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        assert_eq!(service.get("/authz/forward-auth?scope=orders:read").api_key(key).send().status, 200);
        // The owner sees what the operator sees, but for whose it is.
        let mut seen = ask(service, &boss, "GET", &format!("/admin/keys/{id}"), None).json();
        for name in ["externalId", "metadata", "allowedIps", "rateLimit", "scopes"] {
            assert_eq!(seen[name], body[name], "{name}");
        }
        assert_eq!(seen.as_object_mut().unwrap().remove("userId"), Some(json!(ann.id)));
        assert_eq!(service.get(&format!("/keys/{id}")).bearer(&ann.access).send().json(), seen);
        let events = service.get("/auth/events").bearer(&ann.access).send().json();
        let created = events.as_array().unwrap().iter().find(|event| event["type"] == "key.created").unwrap();
        assert_eq!(created["actor"], json!({ "type": "operator", "userId": boss.id }));

        // An operator hands out no more than the owner has.
        let mut more = body.clone();
        more["scopes"] = json!(["orders:read", "invoices:read"]);
        let answer = ask(service, &boss, "POST", "/admin/keys", Some(more));
        assert_eq!(said(&answer), (403, error(403, "User lacks the scope invoices:read")));
        for (user, status) in [("01890000-0000-7000-8000-000000000000", 404), ("x", 400)] {
            let answer = ask(service, &boss, "POST", "/admin/keys", Some(json!({ "userId": user, "name": "shop" })));
            assert_eq!(answer.status, status, "{user}");
        }
        service.operator(&["user", "deactivate", &ann.id]);
        let answer = ask(service, &boss, "POST", "/admin/keys", Some(body));
        assert_eq!(said(&answer), (404, error(404, "User not found")), "nobody could use it");
        let answer = ask(service, &boss, "POST", "/admin/keys", Some(json!({ "name": "" })));
        let rules = ["userId must be a UUID", "userId must be a string", "name should not be empty"];
        assert_eq!(said(&answer), (400, broken_rules(&rules)));
    }

    fn an_operator_does_to_a_key_what_its_owner_could(service) {
        let boss = operator(service, "boss@example.com");
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let (target, key) = (format!("/admin/keys/{}", made["id"].as_str().unwrap()), made["key"].as_str().unwrap());
        assert_eq!(service.key_status(key), 200);
        let paused = ask(service, &boss, "PATCH", &target, Some(json!({ "isActive": false, "name": "paused" })));
        assert_eq!((paused.status, &paused.json()["name"]), (200, &json!("paused")));
        assert_eq!(service.key_status(key), 401);
        ask(service, &boss, "PATCH", &target, Some(json!({ "isActive": true })));
        let used = ask(service, &boss, "GET", &format!("{target}/usage"), None).json();
        let of_hour = &used["series"].as_array().unwrap()[23];
        assert_eq!((&of_hour["allowed"], &of_hour["refused"]["disabled"]), (&json!(1), &json!(1)));
        let rotated = ask(service, &boss, "POST", &format!("{target}/rotate"), Some(json!({ "gracePeriod": "0s" })));
        let successor = rotated.json();
        assert_eq!((rotated.status, &successor["userId"], &successor["replaces"]["id"]), (201, &json!(ann.id), &made["id"]));
        let new = successor["key"].as_str().unwrap();
        assert_eq!((service.key_status(key), service.key_status(new)), (401, 200));
        let target = format!("/admin/keys/{}", successor["id"].as_str().unwrap());
        let revoked = ask(service, &boss, "DELETE", &target, None);
        assert_eq!(said(&revoked), (200, json!({ "message": "API key revoked successfully" })));
        assert_eq!(service.key_status(new), 401);
        let events = service.get("/auth/events").bearer(&ann.access).send().json();
        let mine: Vec<&Value> = events.as_array().unwrap().iter().filter(|event| event["actor"]["type"] == "operator").collect();
        let kinds: Vec<&str> = mine.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["key.revoked", "key.rotated", "key.changed", "key.changed"]);
        assert!(mine.iter().all(|event| event["actor"]["userId"] == json!(boss.id)));
        for (method, target) in [
            ("GET", "/admin/keys/x"),
            ("GET", "/admin/keys/01890000-0000-7000-8000-000000000000"),
            ("PATCH", "/admin/keys/01890000-0000-7000-8000-000000000000"),
            ("DELETE", "/admin/keys/01890000-0000-7000-8000-000000000000"),
            ("POST", "/admin/keys/01890000-0000-7000-8000-000000000000/rotate"),
            ("GET", "/admin/keys/01890000-0000-7000-8000-000000000000/usage"),
        ] {
            let answer = ask(service, &boss, method, target, None);
            assert_eq!(said(&answer), (404, error(404, "API key not found")), "{method} {target}");
        }
    }

    fn everyones_keys_are_found_by_owner_customer_name_and_status(service) {
        let boss = operator(service, "boss@example.com");
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let make = |owner: &Account, name: &str, external: Option<&str>| {
            let body = json!({ "userId": owner.id, "name": name, "externalId": external });
            ask(service, &boss, "POST", "/admin/keys", Some(body)).json()["id"].as_str().unwrap().to_string()
        };
        make(&ann, "ann-1", Some("acme"));
        make(&bob, "bob-1", Some("acme"));
        let paused = make(&ann, "ann-2", None);
        let revoked = make(&bob, "bob-2", Some("other"));
        ask(service, &boss, "PATCH", &format!("/admin/keys/{paused}"), Some(json!({ "isActive": false })));
        ask(service, &boss, "DELETE", &format!("/admin/keys/{revoked}"), None);
        let list = |query: &str| {
            let mut found = names(service, &boss, &format!("/admin/keys?limit=1{query}"));
            found.sort_unstable();
            found
        };
        for (query, expected) in [
            ("", &["ann-1", "ann-2", "bob-1", "bob-2"][..]),
            (&format!("&userId={}", ann.id), &["ann-1", "ann-2"]),
            ("&externalId=acme", &["ann-1", "bob-1"]),
            (&format!("&externalId=acme&userId={}", bob.id), &["bob-1"]),
            ("&name=bob", &["bob-1", "bob-2"]),
            ("&status=usable", &["ann-1", "bob-1"]),
            ("&status=paused", &["ann-2"]),
            ("&status=revoked", &["bob-2"]),
            ("&status=expired", &[]),
            ("&status=usable&name=ann", &["ann-1"]),
        ] {
            assert_eq!(list(query), expected, "{query}");
        }
        let answer = ask(service, &boss, "GET", "/admin/keys?status=good&limit=0&userId=x", None);
        let rules = [
            "userId must be a UUID",
            "status must be one of the following values: usable, expired, revoked, paused",
            "limit must be a whole number from 1 to 100",
        ];
        assert_eq!(said(&answer), (400, broken_rules(&rules)));
    }
}
