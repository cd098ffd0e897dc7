//! Creating, listing and revoking API keys.

use keyward_harness::http_client::Answer;
use keyward_harness::service::{PASSWORD, Service, broken_rules, error, on_both_stores, soon};
use serde_json::{Value, json};

fn listed(service: &Service, access: &str) -> Vec<Value> {
    let answer = service.get("/keys").bearer(access).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json().as_array().unwrap().clone()
}

/// The path of the next page that an answer names.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    Some(link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_string())
}

on_both_stores! {
    fn keys_are_listed_in_pages_for_those_who_ask(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let ask = |target: &str| service.get(target).bearer(&ann.access).send();
        // Some are made at the same moment.
        for number in 0..7 {
            if number % 3 == 0 {
                service.advance(1);
            }
            service.create_key(&ann.access, json!({ "name": format!("{number}") }));
        }
        let all = ask("/keys").json();
        let id = |index: usize| all[index]["id"].as_str().unwrap();
        assert_eq!(service.delete(&format!("/keys/{}", id(2))).bearer(&ann.access).send().status, 200);
        let all = ask("/keys").json().as_array().unwrap().clone();
        assert_eq!(next(&ask("/keys")), None);
        // What is made meanwhile is shown by none of the later pages, and pushes nothing into them.
        let mut target = Some("/keys?limit=3".to_string());
        let mut pages = Vec::new();
        while let Some(path) = target {
            let answer = ask(&path);
            assert_eq!(answer.status, 200);
            pages.push(answer.json().as_array().unwrap().clone());
            target = next(&answer);
            service.create_key(&ann.access, json!({ "name": "meanwhile" }));
        }
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
        // A page tells more of each.
        let with_details = |key: &Value| {
            let mut key = key.clone();
            key["metadata"] = json!(null);
            key["allowedIps"] = json!(null);
            key
        };
        assert_eq!(pages.concat(), all.iter().map(with_details).collect::<Vec<_>>());
        // A page that is just full is the last one.
        let after = format!("/keys?limit=2&after={}", all[4]["id"].as_str().unwrap());
        assert_eq!((ask(&after).json().as_array().unwrap().len(), next(&ask(&after))), (2, None));
        let after = format!("/keys?after={}", all[6]["id"].as_str().unwrap());
        assert_eq!((ask(&after).json(), next(&ask(&after))), (json!([]), None));
        assert_eq!(ask("/keys?limit=100").json().as_array().unwrap().len(), 10);

        let limit = "limit must be a whole number from 1 to 100";
        let unknown = "after must be the id of one of your API keys";
        let bobs = service.create_key(&bob.access, json!({ "name": "bob's" }))["id"].as_str().unwrap().to_string();
        for (query, rules) in [
            ("limit=0", vec![limit]),
            ("limit=101", vec![limit]),
            ("limit=-1", vec![limit]),
            ("limit=1.0", vec![limit]),
            ("limit=", vec![limit]),
            ("after=1", vec!["after must be a UUID"]),
            ("after=01890000-0000-7000-8000-000000000000", vec![unknown]),
            (&format!("after={bobs}"), vec![unknown]),
            ("limit=7&offset=1", vec!["property offset should not exist"]),
        ] {
            let answer = ask(&format!("/keys?{query}"));
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&rules)), "{query}");
        }
        assert_eq!(ask("/keys?limit=1&limit=2").status, 400);
        // Clients of the service before may have anything in their query.
        assert_eq!(ask("/keys?_=1700000000&%zz").json().as_array().unwrap().len(), 10);
    }

    fn a_key_is_shown_once_and_listed_without_its_secret(service) {
        let ann = service.sign_up("ann@example.com");
        let expires_at = "2999-12-31T23:59:59.5+01:00";
        let made = service.create_key(&ann.access, json!({ "name": "ci", "expiresAt": expires_at }));
        let key = made["key"].as_str().unwrap();
        assert_eq!(
            made,
            json!({
                "id": made["id"], "key": key, "name": "ci",
                "expiresAt": "2999-12-31T22:59:59.500Z", "createdAt": made["createdAt"],
                "scopes": [], "rateLimit": null,
            })
        );
        assert_eq!(
            listed(service, &ann.access),
            [json!({
                "id": made["id"], "name": "ci", "hint": format!("{}…{}", &key[..7], &key[63..]), "isActive": true,
                "expiresAt": "2999-12-31T22:59:59.500Z", "lastUsedAt": null, "usesLast24h": 0,
                "createdAt": made["createdAt"], "scopes": [], "rateLimit": null, "revokedAt": null, "replacedBy": null,
                "externalId": null,
            })]
        );
    }

    fn keys_are_listed_newest_first_and_only_to_their_owner(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        for name in ["first", "second", "third"] {
            service.create_key(&ann.access, json!({ "name": name, "expiresAt": null }));
            service.advance(1);
        }
        let names: Vec<Value> = listed(service, &ann.access).iter().map(|key| key["name"].clone()).collect();
        assert_eq!(names, ["third", "second", "first"]);
        assert_eq!(listed(service, &bob.access), Vec::<Value>::new());
    }

    fn the_last_use_is_listed_at_once_and_after_a_restart(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        assert_eq!(service.key_status(made["key"].as_str().unwrap()), 200);
        let used = listed(service, &ann.access)[0]["lastUsedAt"].clone();
        assert!(used.as_str().unwrap() >= made["createdAt"].as_str().unwrap());
        service.restart();
        assert_eq!(listed(service, &ann.access)[0]["lastUsedAt"], used);
    }

    fn a_revoked_key_is_refused_at_once_and_stays_in_the_list(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        assert_eq!(service.key_status(key), 200);
        // Again is as good as once.
        for _ in 0..2 {
            let answer = service.delete(&format!("/keys/{id}")).bearer(&ann.access).send();
            assert_eq!((answer.status, answer.json()), (200, json!({ "message": "API key revoked successfully" })));
            let answer = service.get("/protected/service-only").api_key(key).send();
            assert_eq!((answer.status, answer.json()), (401, error(401, "Invalid or expired API key")));
        }
        let key = &listed(service, &ann.access)[0];
        assert_eq!(key["isActive"], false);
        assert!(key["revokedAt"].as_str() >= made["createdAt"].as_str());
    }

    fn a_key_that_is_not_ones_own_does_not_exist(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let id = made["id"].as_str().unwrap();
        let unhyphenated = id.replace('-', "");
        for id in [id, "01890000-0000-7000-8000-000000000000", "not-a-uuid", &unhyphenated, "%00", "1"] {
            let answer = service.delete(&format!("/keys/{id}")).bearer(&bob.access).send();
            assert_eq!((answer.status, answer.json()), (404, error(404, "API key not found")), "{id}");
        }
        assert_eq!(service.key_status(made["key"].as_str().unwrap()), 200);
    }

    fn a_key_expires_to_the_second(service) {
        let ann = service.sign_up("ann@example.com");
        let in_an_hour = service.clock.now().plus(std::time::Duration::from_secs(3600));
        let made = service.create_key(&ann.access, json!({ "name": "ci", "expiresAt": in_an_hour.to_string() }));
        let key = made["key"].as_str().unwrap();
        service.advance(3599);
        assert_eq!(service.key_status(key), 200);
        service.advance(1);
        let answer = service.get("/protected/service-only").api_key(key).send();
        assert_eq!((answer.status, answer.json()), (401, error(401, "Invalid or expired API key")));
    }

    // As a date picker has it.
    fn a_date_is_its_midnight_in_utc(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci", "expiresAt": "2999-01-31" }));
        assert_eq!(made["expiresAt"], "2999-01-31T00:00:00.000Z");
        let target = format!("/keys/{}", made["id"].as_str().unwrap());
        let changed = service.patch(&target).bearer(&ann.access).json(json!({ "expiresAt": "2996-02-29" })).send();
        assert_eq!((changed.status, &changed.json()["expiresAt"]), (200, &json!("2996-02-29T00:00:00.000Z")));
    }

    // RFC 8259 §8.1.
    fn a_byte_order_mark_before_json_is_passed_over(service) {
        let ann = service.sign_up("ann@example.com");
        let body = |text: &str| format!("\u{feff}{text}").into_bytes();
        let made = service.post("/keys/create").bearer(&ann.access).body("application/json", body("{\"name\":\"ci\"}"));
        assert_eq!(made.send().status, 201);
        let answer = service.post("/keys/create").bearer(&ann.access).body("application/json", body("{")).send();
        assert_eq!(answer.status, 400, "{answer:?}");
    }

    fn a_body_that_breaks_rules_makes_no_key(service) {
        let ann = service.sign_up("ann@example.com");
        let format = "expiresAt must be a date, or an RFC 3339 date and time with an offset, such as 2030-01-31T12:00:00Z";
        for (body, rules) in [
            (json!({}), vec!["name should not be empty", "name must be a string"]),
            (json!({ "name": "" }), vec!["name should not be empty"]),
            (json!({ "name": "x".repeat(256) }), vec!["name must be shorter than or equal to 255 characters"]),
            (json!({ "name": "ci", "expiresat": "2999-01-01T00:00:00Z" }), vec!["property expiresat should not exist"]),
            (json!({ "name": "ci", "expiresAt": "2999-02-30" }), vec![format]),
            (json!({ "name": "ci", "expiresAt": "2999-02-30T00:00:00Z" }), vec![format]),
            (json!({ "name": "ci", "expiresAt": "2999-1-1" }), vec![format]),
            (json!({ "name": "ci", "expiresAt": " 2999-01-01" }), vec![format]),
            (json!({ "name": "ci", "expiresAt": "2999-01-01Z" }), vec![format]),
            (json!({ "name": "ci", "expiresAt": "+2999-01-01" }), vec![format]),
            (json!({ "name": "ci", "expiresAt": "12999-01-01" }), vec![format]),
            (json!({ "name": "ci", "expiresAt": "2020-01-01" }), vec!["expiresAt must be in the future"]),
            (json!({ "name": "ci", "expiresAt": "2999-01-01T00:00:00" }), vec![format]),
            (json!({ "name": "ci", "expiresAt": "" }), vec![format]),
            (json!({ "name": "ci", "expiresAt": 32503680000_u64 }), vec!["expiresAt must be a string"]),
            (json!({ "name": "ci", "expiresAt": "2020-01-01T00:00:00Z" }), vec!["expiresAt must be in the future"]),
        ] {
            let answer = service.post("/keys/create").bearer(&ann.access).json(body.clone()).send();
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&rules)), "{body}");
        }
        assert_eq!(listed(service, &ann.access), Vec::<Value>::new());
    }

    fn names_keep_every_character(service) {
        let ann = service.sign_up("ann@example.com");
        for name in ["🔑 ключ", "עברית", "a\u{200d}b", "Robert'); DROP TABLE users;--", "\u{1F468}\u{200D}\u{1F469}"] {
            service.create_key(&ann.access, json!({ "name": name }));
            assert_eq!(listed(service, &ann.access)[0]["name"], name);
        }
    }

    fn keys_of_a_deactivated_owner_are_refused_until_the_owner_is_back(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let key = made["key"].as_str().unwrap();
        service.operator(&["user", "deactivate", &ann.email]);
        let answer = service.get("/protected/service-only").api_key(key).send();
        assert_eq!((answer.status, answer.json()), (401, error(401, "Invalid or expired API key")));
        service.operator(&["user", "activate", &ann.email]);
        soon("it is good again", || service.key_status(key) == 200);
    }

    fn everything_is_still_valid_after_a_restart(service) {
        let ann = service.sign_up("ann@example.com");
        let kept = service.create_key(&ann.access, json!({ "name": "kept" }));
        let revoked = service.create_key(&ann.access, json!({ "name": "revoked" }));
        service.delete(&format!("/keys/{}", revoked["id"].as_str().unwrap())).bearer(&ann.access).send();
        let gone = service.log_in(&ann.email);
        service.post("/auth/logout").bearer(&gone.access).send();
        service.restart();
        assert_eq!(service.token_status(&ann.access), 200);
        assert_eq!(service.token_status(&gone.access), 401);
        assert_eq!(service.key_status(kept["key"].as_str().unwrap()), 200);
        assert_eq!(service.key_status(revoked["key"].as_str().unwrap()), 401);
        assert_eq!(service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send().status, 200);
        let body = json!({ "email": ann.email, "password": PASSWORD });
        assert_eq!(service.post("/auth/login").json(body.clone()).send().status, 200);
        assert_eq!(service.post("/auth/signup").json(body).send().status, 409);
    }
}
