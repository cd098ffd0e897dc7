//! What owners attach to their keys: whom a key is for, and anything else in JSON.

use keyward_harness::http_client::Answer;
use keyward_harness::service::{Account, Service, broken_rules, error, on_both_stores};
use serde_json::{Value, json};

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn shown(service: &Service, owner: &Account, id: &str) -> Value {
    let answer = service.get(&format!("/keys/{id}")).bearer(&owner.access).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn change(service: &Service, owner: &Account, id: &str, body: Value) -> Answer {
    service.patch(&format!("/keys/{id}")).bearer(&owner.access).json(body).send()
}

fn details(key: &Value) -> [Value; 3] {
    ["externalId", "metadata", "allowedIps"].map(|name| key.get(name).cloned().unwrap_or(json!("left out")))
}

on_both_stores! {
    fn details_are_set_changed_and_cleared_and_a_rotation_copies_them(service) {
        let ann = service.sign_up("ann@example.com");
        let (metadata, allowed) = (json!({ "plan": "pro", "seats": [1, 2.5] }), json!(["127.0.0.1", "10.0.0.0/8"]));
        let made = service.create_key(&ann.access, json!({
            "name": "ci", "externalId": "customer 42 · Zoë", "metadata": metadata, "allowedIps": allowed,
        }));
        let id = text(&made["id"]);
        let all = [json!("customer 42 · Zoë"), metadata.clone(), allowed.clone()];
        assert_eq!(details(&made), all);
        assert_eq!(details(&shown(service, &ann, id)), all);
        // A page tells everything; the list of all keys would be megabytes.
        let page = service.get("/keys?limit=1").bearer(&ann.access).send().json();
        assert_eq!(page[0], shown(service, &ann, id));
        let list = service.get("/keys").bearer(&ann.access).send().json();
        assert_eq!(details(&list[0]), [all[0].clone(), json!("left out"), json!("left out")]);

        let rotated = service.post(&format!("/keys/{id}/rotate")).bearer(&ann.access).json(json!({})).send().json();
        assert_eq!(details(&rotated), all);
        let id = text(&rotated["id"]);
        assert_eq!(details(&shown(service, &ann, id)), all);

        // What a change does not name stays; metadata is replaced as a whole.
        let answer = change(service, &ann, id, json!({ "metadata": { "seats": 3 } }));
        assert_eq!((answer.status, details(&answer.json())), (200, [all[0].clone(), json!({ "seats": 3 }), allowed]));
        let answer = change(service, &ann, id, json!({ "externalId": "43", "allowedIps": ["::ffff:192.0.2.7"] }));
        assert_eq!(details(&answer.json()), [json!("43"), json!({ "seats": 3 }), json!(["192.0.2.7"])]);
        let nothing = json!({ "externalId": null, "metadata": null, "allowedIps": null });
        assert_eq!(details(&change(service, &ann, id, nothing.clone()).json()), [json!(null), json!(null), json!(null)]);
        assert_eq!(details(&shown(service, &ann, id)), [json!(null), json!(null), json!(null)]);
        let mut body = nothing;
        body["name"] = json!("none");
        let made = service.create_key(&ann.access, body);
        assert_eq!(details(&shown(service, &ann, text(&made["id"]))), [json!(null), json!(null), json!(null)]);
        // The audit trail names the fields, not what is in them.
        let events = service.get("/auth/events").bearer(&ann.access).send().json();
        let changed = events.as_array().unwrap().iter().find(|event| event["type"] == "key.changed").unwrap();
        assert_eq!(changed["details"], json!({ "settings": ["externalId", "metadata", "allowedIps"] }));
    }

    fn a_key_is_shown_to_its_owner_alone_whatever_its_state(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let id = text(&made["id"]);
        assert_eq!(service.delete(&format!("/keys/{id}")).bearer(&ann.access).send().status, 200);
        assert_eq!(shown(service, &ann, id)["isActive"], false);
        for id in [id, "01890000-0000-7000-8000-000000000000", "1", "%00"] {
            let answer = service.get(&format!("/keys/{id}")).bearer(&bob.access).send();
            assert_eq!((answer.status, answer.json()), (404, error(404, "API key not found")), "{id}");
        }
    }

    // A number may have more digits than a computer's has.
    fn metadata_comes_back_as_it_was_sent(service) {
        let ann = service.sign_up("ann@example.com");
        let sent = r#"{"name":"ci","metadata": { "n" : 12345678901234567890.10, "b":1e2, "a": "\u0000\u00e4 ä {" } }"#;
        let kept = r#""metadata":{"n":12345678901234567890.10,"b":1e2,"a":"\u0000\u00e4 ä {"}"#;
        let made = service.post("/keys/create").bearer(&ann.access).body("application/json", sent).send();
        assert_eq!(made.status, 201, "{made:?}");
        assert!(made.text().contains(kept), "{made:?}");
        let target = format!("/keys/{}", text(&made.json()["id"]));
        assert!(service.get(&target).bearer(&ann.access).send().text().contains(kept));
        let verified = service.post("/keys/verify").bearer(&ann.access).json(json!({ "key": made.json()["key"] })).send();
        assert!(verified.text().contains(kept), "{verified:?}");
    }

    fn details_that_break_rules_are_refused(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci", "metadata": { "a": "x".repeat(4088) } }));
        let nested = |levels: usize| serde_json::from_str::<Value>(&format!("{}{}", "{\"a\":".repeat(levels - 1) + "{}", "}".repeat(levels - 1))).unwrap();
        let addresses = "allowedIps must hold IP addresses and networks, such as 192.0.2.7 or 2001:db8::/32";
        let number = "allowedIps must hold 1 to 50 addresses or networks, or be null for any address";
        for (body, rule) in [
            (json!({ "externalId": "" }), "externalId should not be empty"),
            (json!({ "externalId": "x".repeat(256) }), "externalId must be shorter than or equal to 255 characters"),
            (json!({ "externalId": "a\0b" }), "externalId must not contain NUL characters"),
            (json!({ "externalId": 42 }), "externalId must be a string"),
            (json!({ "metadata": [] }), "metadata must be an object"),
            (json!({ "metadata": "{}" }), "metadata must be an object"),
            (json!({ "metadata": { "a": "x".repeat(4089) } }), "metadata must be at most 4096 bytes of JSON"),
            (json!({ "metadata": nested(33) }), "metadata must not be nested more than 32 levels deep"),
            (json!({ "allowedIps": [] }), number),
            (json!({ "allowedIps": vec!["10.0.0.1"; 51] }), number),
            (json!({ "allowedIps": "10.0.0.1" }), "allowedIps must be an array"),
            (json!({ "allowedIps": [10] }), "each value in allowedIps must be a string"),
            (json!({ "allowedIps": ["10.0.0.1", "10.0.0.1:80"] }), addresses),
            (json!({ "allowedIps": ["10.0.0.0/33"] }), addresses),
            (json!({ "allowedIps": ["localhost"] }), addresses),
        ] {
            let answer = change(service, &ann, text(&made["id"]), body.clone());
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&[rule])), "{body}");
            let mut body = body;
            body["name"] = json!("ci");
            let answer = service.post("/keys/create").bearer(&ann.access).json(body.clone()).send();
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&[rule])), "{body}");
        }
        let most = json!({ "externalId": "ä".repeat(255), "metadata": nested(32), "allowedIps": vec!["10.0.0.1"; 50] });
        assert_eq!(change(service, &ann, text(&made["id"]), most).status, 200);
        // One name twice would be read differently by different readers.
        let twice = r#"{"metadata":{"a":{"b":1,"b":2}}}"#;
        let target = format!("/keys/{}", text(&made["id"]));
        let answer = service.patch(&target).bearer(&ann.access).body("application/json", twice).send();
        assert_eq!(answer.status, 400, "{answer:?}");
    }

    fn services_that_ask_about_a_key_hear_whom_it_is_for(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({
            "name": "ci", "scopes": ["keys:verify"], "externalId": "42", "metadata": { "plan": "pro" },
        }));
        let key = text(&made["key"]);
        let introspect = |token: &str| {
            let form = format!("token={token}");
            let ask = service.post("/oauth/introspect").api_key(key).body("application/x-www-form-urlencoded", form);
            ask.send().json()
        };
        let verify = |answer: Value| [answer["externalId"].clone(), answer["metadata"].clone()];
        let said = [json!("42"), json!({ "plan": "pro" })];
        let ask = |body: Value, target: &str| service.post(target).api_key(key).json(body).send().json();
        assert_eq!(verify(ask(json!({ "key": key }), "/keys/verify")), said);
        let batch = ask(json!({ "keys": [{ "key": "nothing" }, { "key": key }] }), "/keys/verify-batch");
        assert_eq!(verify(batch["results"][0].clone()), [json!(null), json!(null)]);
        assert_eq!(verify(batch["results"][1].clone()), said);
        let derived = service.post("/auth/token").api_key(key).json(json!({})).send().json();
        for token in [key, text(&derived["accessToken"])] {
            let answer = introspect(token);
            assert_eq!([answer["external_id"].clone(), answer["metadata"].clone()], said);
        }
        let user = introspect(&ann.access);
        assert_eq!((&user["active"], user.get("external_id"), user.get("metadata")), (&json!(true), None, None));
        // A change is felt at once.
        let answer = change(service, &ann, text(&made["id"]), json!({ "externalId": null, "metadata": { "plan": "free" } }));
        assert_eq!(answer.status, 200);
        assert_eq!(verify(ask(json!({ "key": key }), "/keys/verify")), [json!(null), json!({ "plan": "free" })]);
        assert_eq!(introspect(key).get("external_id"), None);
    }
}
