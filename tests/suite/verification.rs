//! Verifying keys for services that have received them.

use std::time::Duration;

use keyward_harness::service::{Account, Service, broken_rules, error, on_both_stores};
use serde_json::{Value, json};

fn verify(service: &Service, owner: &Account, body: Value) -> Value {
    let answer = service.post("/keys/verify").bearer(&owner.access).json(body).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn not_found() -> Value {
    json!({
        "valid": false, "code": "NOT_FOUND", "keyId": null, "userId": null, "name": null, "scopes": null,
        "expiresAt": null, "rateLimit": null, "externalId": null, "metadata": null, "remaining": null,
    })
}

on_both_stores! {
    fn a_service_hears_whose_key_it_has_and_what_for(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let made = service.create_key(&ann.access, json!({
            "name": "ci", "expiresAt": "2999-01-01T00:00:00Z", "scopes": ["a", "b"],
            "rateLimit": { "limit": 2, "window": "120s" }, "externalId": "customer-42", "metadata": { "plan": "pro" },
        }));
        let key = made["key"].as_str().unwrap();
        let said = |valid: bool, code: &str, remaining: u32, reset: u32, retry_after: Value| json!({
            "valid": valid, "code": code, "keyId": made["id"], "userId": ann.id, "name": "ci", "scopes": ["a", "b"],
            "expiresAt": "2999-01-01T00:00:00.000Z",
            "rateLimit": {
                "limit": 2, "window": "2m", "remaining": remaining, "reset": reset, "retryAfter": retry_after,
            },
            "externalId": "customer-42", "metadata": { "plan": "pro" },
            "remaining": remaining,
        });
        // Scopes are judged before anything is spent.
        let lacking = json!({ "key": key, "scopes": ["a", "c"] });
        assert_eq!(verify(service, &bob, lacking), said(false, "INSUFFICIENT_SCOPE", 2, 0, json!(null)));
        let asked = json!({ "key": key, "scopes": ["b"] });
        assert_eq!(verify(service, &bob, asked.clone()), said(true, "VALID", 1, 60, json!(null)));
        assert_eq!(verify(service, &bob, asked.clone()), said(true, "VALID", 0, 120, json!(60)));
        assert_eq!(verify(service, &bob, asked.clone()), said(false, "RATE_LIMITED", 0, 120, json!(60)));
        // It is one limit, wherever the key is presented.
        assert_eq!(service.key_status(key), 429);
        let target = format!("/keys/{}/usage?by=day", made["id"].as_str().unwrap());
        let usage = service.get(&target).bearer(&ann.access).send().json();
        let today = usage["series"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(today["allowed"], 2);
        assert_eq!(
            today["refused"],
            json!({ "disabled": 0, "expired": 0, "forbiddenAddress": 0, "insufficientScope": 1, "rateLimited": 2 })
        );
    }

    fn asking_without_consuming_spends_nothing_and_counts_no_use(service) {
        let ann = service.sign_up("ann@example.com");
        let limit = json!({ "name": "ci", "scopes": ["a"], "rateLimit": { "limit": 2, "window": "1d" } });
        let made = service.create_key(&ann.access, limit);
        let key = &made["key"];
        let ask = |body: Value| {
            let mut said = verify(service, &ann, body.clone());
            let batch = service.post("/keys/verify-batch").bearer(&ann.access);
            let in_batch = batch.json(json!({ "keys": [body] })).send().json()["results"][0].take();
            assert_eq!(in_batch, said);
            (said["code"].take(), said["remaining"].take())
        };
        let look = json!({ "key": key, "consume": false });
        for _ in 0..3 {
            assert_eq!(ask(look.clone()), (json!("VALID"), json!(2)));
        }
        let lacking = json!({ "key": key, "scopes": ["b"], "consume": false });
        assert_eq!(ask(lacking), (json!("INSUFFICIENT_SCOPE"), json!(2)));
        // Both are consumed where nothing else is said.
        let use_up = json!({ "keys": [{ "key": key }, look.clone(), { "key": key, "consume": true }, { "key": key }] });
        let said = service.post("/keys/verify-batch").bearer(&ann.access).json(use_up).send().json();
        let told: Vec<_> = said["results"].as_array().unwrap().iter().map(|said| (&said["code"], &said["remaining"])).collect();
        let (valid, limited) = (json!("VALID"), json!("RATE_LIMITED"));
        let (one, none) = (json!(1), json!(0));
        assert_eq!(told, [(&valid, &one), (&valid, &one), (&valid, &none), (&limited, &none)]);
        assert_eq!(ask(look), (limited, none));
        let target = format!("/keys/{}/usage?by=day", made["id"].as_str().unwrap());
        let usage = service.get(&target).bearer(&ann.access).send().json();
        let today = usage["series"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(today["allowed"], 2);
        let refused: Vec<_> = today["refused"].as_object().unwrap().iter().filter(|(_, count)| **count != 0).collect();
        assert_eq!(refused, [(&"rateLimited".to_string(), &one)]);
        let free = service.create_key(&ann.access, json!({ "name": "free" }));
        assert_eq!(ask(json!({ "key": free["key"], "consume": false })), (valid, json!(null)));
        assert_eq!(service.get("/keys").bearer(&ann.access).send().json()[0]["lastUsedAt"], json!(null));
        for consume in [json!(null), json!("false"), json!(0)] {
            let answer = service.post("/keys/verify").bearer(&ann.access).json(json!({ "key": "x", "consume": consume }));
            let answer = answer.send();
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&["consume must be a boolean value"])));
        }
    }

    fn of_a_key_that_is_no_good_others_than_its_owner_hear_only_the_code(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let soon = service.clock.now().plus(Duration::from_secs(60)).to_string();
        let made = service.create_key(&ann.access, json!({
            "name": "payroll of Ann & Sons", "scopes": ["a"], "expiresAt": soon,
            "rateLimit": { "limit": 100, "window": "1d" },
        }));
        let id = made["id"].as_str().unwrap();
        let asked = json!({ "key": made["key"], "scopes": ["b"] });
        let gateway = |owner: &Account| {
            let made = service.create_key(&owner.access, json!({ "name": "gateway", "scopes": ["keys:verify"] }));
            made["key"].as_str().unwrap().to_string()
        };
        let (anns, bobs) = (gateway(&ann), gateway(&bob));
        let derived = service.post("/auth/token").api_key(&bobs).json(json!({})).send().json();
        let derived = derived["accessToken"].as_str().unwrap().to_string();
        let says = |code: &str, everything: bool| {
            let mut only_the_code = not_found();
            only_the_code["code"] = json!(code);
            for (to_owner, ask) in [
                (true, service.post("/keys/verify").bearer(&ann.access)),
                (true, service.post("/keys/verify").api_key(&anns)),
                (false, service.post("/keys/verify").bearer(&bob.access)),
                (false, service.post("/keys/verify").api_key(&bobs)),
                (false, service.post("/keys/verify").bearer(&derived)),
            ] {
                let said = ask.json(asked.clone()).send().json();
                assert_eq!((&said["code"], &said["valid"]), (&json!(code), &json!(false)));
                if to_owner || everything {
                    assert_eq!((&said["keyId"], &said["userId"]), (&made["id"], &json!(ann.id)), "{code}");
                    assert_eq!((&said["name"], &said["scopes"]), (&made["name"], &made["scopes"]), "{code}");
                    assert_eq!(said["rateLimit"]["limit"], 100, "{code}");
                } else {
                    assert_eq!(said, only_the_code);
                }
            }
            let batch = service.post("/keys/verify-batch").bearer(&bob.access);
            let said = batch.json(json!({ "keys": [asked] })).send().json()["results"][0].clone();
            assert_eq!(said == only_the_code, !everything, "{said}");
        };
        let change = |body: Value| {
            let answer = service.patch(&format!("/keys/{id}")).bearer(&ann.access).json(body).send();
            assert_eq!(answer.status, 200, "{answer:?}");
        };
        // It is good, for something else.
        says("INSUFFICIENT_SCOPE", true);
        change(json!({ "isActive": false }));
        says("DISABLED", false);
        change(json!({ "isActive": true }));
        service.advance(60);
        says("EXPIRED", false);
        change(json!({ "expiresAt": null }));
        says("INSUFFICIENT_SCOPE", true);
        assert_eq!(service.delete(&format!("/keys/{id}")).bearer(&ann.access).send().status, 200);
        says("DISABLED", false);
    }

    fn every_reason_has_its_code(service) {
        let ann = service.sign_up("ann@example.com");
        let soon = service.clock.now().plus(Duration::from_secs(60)).to_string();
        let made = service.create_key(&ann.access, json!({ "name": "ci", "expiresAt": soon }));
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        let code = |body: Value| verify(service, &ann, body)["code"].as_str().unwrap().to_string();
        let asked = || json!({ "key": key });
        let change = |body: Value| {
            let answer = service.patch(&format!("/keys/{id}")).bearer(&ann.access).json(body).send();
            assert_eq!(answer.status, 200, "{answer:?}");
        };
        assert_eq!(code(asked()), "VALID");
        // No scopes, no way.
        assert_eq!(code(json!({ "key": key, "scopes": ["a"] })), "INSUFFICIENT_SCOPE");
        change(json!({ "isActive": false }));
        assert_eq!(code(json!({ "key": key, "scopes": ["a"] })), "DISABLED");
        change(json!({ "isActive": true }));
        assert_eq!(code(asked()), "VALID");
        service.advance(60);
        assert_eq!(code(json!({ "key": key, "scopes": ["a"] })), "EXPIRED");
        change(json!({ "expiresAt": null }));
        assert_eq!(code(asked()), "VALID");
        assert_eq!(service.delete(&format!("/keys/{id}")).bearer(&ann.access).send().status, 200);
        assert_eq!(code(asked()), "DISABLED");
        for key in [format!("sk_{}", "0".repeat(64)), "sk_".to_string(), String::new(), key.to_uppercase()] {
            assert_eq!(verify(service, &ann, json!({ "key": key, "scopes": ["a"] })), not_found());
        }
    }

    fn a_key_verifies_others_if_it_has_the_scope_for_that(service) {
        let ann = service.sign_up("ann@example.com");
        let may = service.create_key(&ann.access, json!({ "name": "may", "scopes": ["keys:verify"] }));
        let may_not = service.create_key(&ann.access, json!({ "name": "may not", "scopes": ["verify"] }));
        for (path, body) in [
            ("/keys/verify", json!({ "key": may_not["key"] })),
            ("/keys/verify-batch", json!({ "keys": [{ "key": may_not["key"] }] })),
        ] {
            let ask = |key: &Value| service.post(path).json(body.clone()).api_key(key["key"].as_str().unwrap());
            assert_eq!(ask(&may).send().status, 200);
            let answer = ask(&may_not).send();
            assert_eq!((answer.status, answer.json()), (403, error(403, "API key lacks the scope keys:verify")));
            assert_eq!(
                answer.header("www-authenticate"),
                Some("ApiKey error=\"insufficient_scope\", scope=\"keys:verify\"")
            );
            // The user behind it may.
            assert_eq!(ask(&may_not).bearer(&ann.access).send().status, 200);
            assert_eq!(service.post(path).json(body.clone()).send().status, 401);
        }
    }

    fn a_verdict_changes_at_once_with_the_key(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        let code = || verify(service, &ann, json!({ "key": key, "scopes": ["a"] }))["code"].clone();
        for (scopes, expected) in [(json!(["a"]), "VALID"), (json!(["b"]), "INSUFFICIENT_SCOPE"), (json!(["a", "b"]), "VALID")] {
            let target = format!("/keys/{id}");
            let answer = service.patch(&target).bearer(&ann.access).json(json!({ "scopes": scopes })).send();
            assert_eq!((answer.status, &answer.json()["scopes"]), (200, &scopes));
            assert_eq!(code(), expected);
        }
    }

    fn a_batch_is_answered_in_order(service) {
        let ann = service.sign_up("ann@example.com");
        let limited = service.create_key(&ann.access, json!({ "name": "limited", "rateLimit": { "limit": 1, "window": "1d" } }));
        let free = service.create_key(&ann.access, json!({ "name": "free" }));
        let nothing = json!({ "key": format!("sk_{}", "0".repeat(64)) });
        let (limited, free) = (json!({ "key": limited["key"] }), json!({ "key": free["key"] }));
        let batch = json!({ "keys": [nothing, limited, free, { "key": "x" }, limited, free] });
        let answer = service.post("/keys/verify-batch").bearer(&ann.access).json(batch).send();
        assert_eq!(answer.status, 200);
        let codes: Vec<Value> =
            answer.json()["results"].as_array().unwrap().iter().map(|result| result["code"].clone()).collect();
        assert_eq!(codes, ["NOT_FOUND", "VALID", "VALID", "NOT_FOUND", "RATE_LIMITED", "VALID"]);

        // A hundred fit, with many scopes each.
        let scopes: Vec<String> = (0..50).map(|number| format!("invoices:read:{number}")).collect();
        let many = |count: usize| json!({ "keys": vec![json!({ "key": free["key"], "scopes": scopes }); count] });
        let answer = service.post("/keys/verify-batch").bearer(&ann.access).json(many(100)).send();
        assert_eq!((answer.status, answer.json()["results"].as_array().unwrap().len()), (200, 100));
        for body in [many(101), many(0), json!({}), json!({ "keys": {} })] {
            let answer = service.post("/keys/verify-batch").bearer(&ann.access).json(body).send();
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&["keys must be an array of 1 to 100 objects"])));
        }
        let padded = format!("{}{}", json!({}), " ".repeat(256 * 1024));
        let answer = service.post("/keys/verify-batch").bearer(&ann.access).body("application/json", padded).send();
        assert_eq!((answer.status, answer.json()), (413, error(413, "Request body is larger than 262144 bytes")));
        let body = json!({ "keys": [{ "key": 1 }, "sk_", { "key": "x", "scope": ["a"] }] });
        let answer = service.post("/keys/verify-batch").bearer(&ann.access).json(body).send();
        let rules = [
            "keys.0.key must be a string", "keys.1 must be an object", "keys.2.property scope should not exist",
        ];
        assert_eq!((answer.status, answer.json()), (400, broken_rules(&rules)));
    }

    fn a_name_that_is_there_twice_is_refused_at_any_depth(service) {
        let ann = service.sign_up("ann@example.com");
        for body in [
            r#"{"key": "a", "key": "b"}"#,
            r#"{"key": "a", "scopes": [{"x": 1, "x": 2}]}"#,
        ] {
            let answer = service.post("/keys/verify").bearer(&ann.access).body("application/json", body).send();
            let json = answer.json();
            assert_eq!(answer.status, 400);
            assert!(json["message"].as_str().unwrap().contains("is there twice"), "{json}");
        }
    }
}
