//! API keys as the token of `Authorization: Bearer`.

use keyward_harness::http_client::{Answer, Request};
use keyward_harness::service::{Service, error, on_both_stores};
use serde_json::{Value, json};

const FORM: &str = "application/x-www-form-urlencoded";
const INVALID_TOKEN: &str = "Bearer error=\"invalid_token\"";
const BAD_KEY: &str = "Invalid or expired API key";
const TWO_KEYS: &str = "Two different API keys were sent, send one";
const NO_KEYS: &str = "API keys are not accepted here, send a user's access token";

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn challenges(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect()
}

/// A request to each route that takes keys, but for the one that ends them.
fn requests<'a>(service: &'a Service, asked: &Value) -> Vec<(&'static str, Request<'a>)> {
    let get = |path| (path, service.get(path));
    let post = |path, body: Value| (path, service.post(path).json(body));
    vec![
        get("/protected/service-only"),
        get("/protected/flexible"),
        get("/authz/forward-auth?scope=keys:verify"),
        get("/authz/auth-request?allow=service"),
        get("/authz/ext-authz/orders"),
        post("/keys/verify", json!({ "key": asked })),
        post("/keys/verify-batch", json!({ "keys": [{ "key": asked }] })),
        post("/auth/token", json!({})),
        ("/oauth/introspect", service.post("/oauth/introspect").body(FORM, format!("token={}", text(asked)))),
    ]
}

on_both_stores! {
    fn it_is_a_key_wherever_one_is_taken(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci", "scopes": ["keys:verify"] }));
        let other = service.create_key(&ann.access, json!({ "name": "other" }))["key"].take();
        let key = text(&made["key"]);
        for ((path, by_header), (_, as_bearer)) in requests(service, &other).into_iter().zip(requests(service, &other)) {
            let (by_header, as_bearer) = (by_header.api_key(key).send(), as_bearer.bearer(key).send());
            assert_eq!((by_header.status, as_bearer.status), (200, 200), "{path}: {as_bearer:?}");
            if path != "/auth/token" && !path.starts_with("/authz") {
                assert_eq!(by_header.json(), as_bearer.json(), "{path}");
            }
            for name in ["x-auth-type", "x-auth-user-id", "x-auth-key-id", "x-auth-scopes"] {
                assert_eq!(by_header.header(name), as_bearer.header(name), "{path} {name}");
            }
        }
        let answer = service.get("/protected/service-only").header("authorization", &format!("bEARER  {key} ")).send();
        assert_eq!(answer.json()["accessType"], "service");
        // OAuth's way of sending a secret is for OAuth's route alone.
        let basic = service.get("/protected/service-only").header("authorization", "Basic eDp5").send();
        assert_eq!((basic.status, challenges(&basic)), (401, vec!["ApiKey"]));
        assert_eq!(service.post("/keys/revoke-self").bearer(key).send().status, 200);
        for (path, request) in requests(service, &other) {
            let answer = request.bearer(key).send();
            assert_eq!((answer.status, answer.json()), (401, error(401, BAD_KEY)), "{path}");
        }
    }

    fn the_same_key_twice_is_one_use_and_two_keys_are_refused(service) {
        let ann = service.sign_up("ann@example.com");
        let limited = json!({ "name": "ci", "scopes": ["keys:verify"], "rateLimit": { "limit": 20, "window": "1d" } });
        let key = service.create_key(&ann.access, limited)["key"].take();
        let key = text(&key);
        let other = service.create_key(&ann.access, json!({ "name": "other", "scopes": ["keys:verify"] }))["key"].take();
        let mut uses = 0;
        for (path, request) in requests(service, &other) {
            let answer = request.api_key(key).bearer(key).send();
            if path == "/oauth/introspect" {
                // OAuth forbids it (RFC 6749 §2.3).
                assert_eq!((answer.status, answer.json()), (401, error(401, "Send the API key in one way only")));
            } else {
                uses += 1;
                assert_eq!(answer.status, 200, "{path}: {answer:?}");
                let left = format!("\"default\";r={};t=", 20 - uses);
                assert!(answer.header("ratelimit").unwrap().starts_with(&left), "{path}: {answer:?}");
            }
        }
        let unknown = format!("sk_{}", "0".repeat(64));
        for (by_header, as_bearer) in [(key, text(&other)), (key, &unknown), (&unknown, key), ("bad", key)] {
            for (path, request) in requests(service, &other) {
                let answer = request.api_key(by_header).bearer(as_bearer).send();
                if path != "/oauth/introspect" {
                    assert_eq!((answer.status, answer.json()), (401, error(401, TWO_KEYS)), "{path}");
                    assert_eq!(challenges(&answer), [INVALID_TOKEN, "ApiKey"], "{path}");
                }
            }
        }
        // What is no key is a bad token, beside which the key decides.
        let answer = service.get("/protected/flexible").api_key(text(&other)).bearer("sk_bad").send();
        assert_eq!((answer.status, &answer.json()["accessType"]), (200, &json!("service")));
        let listed = service.get("/keys").bearer(&ann.access).send().json();
        assert_eq!((&listed[0]["usesLast24h"], &listed[1]["usesLast24h"]), (&json!(3), &json!(uses)));
    }

    fn where_only_users_are_admitted_the_answer_says_so(service) {
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci" }))["key"].take();
        let unknown = format!("sk_{}", "0".repeat(64));
        for (key, path) in [
            (text(&key), "/protected/user-only"),
            (text(&key), "/auth/me"),
            (text(&key), "/keys"),
            (text(&key), "/authz/forward-auth?allow=user"),
            (&unknown, "/auth/me"),
        ] {
            let answer = service.get(path).bearer(key).send();
            assert_eq!((answer.status, answer.json()), (401, error(401, NO_KEYS)), "{path}");
            assert_eq!(challenges(&answer), [INVALID_TOKEN], "{path}");
        }
        // A gateway that admits only users ignores the header for keys, as always.
        let answer = service.get("/authz/forward-auth?allow=user").api_key(text(&key)).bearer(&ann.access).send();
        assert_eq!((answer.status, answer.header("x-auth-type")), (200, Some("user")));
    }

    fn a_refusal_is_about_the_key_and_in_the_words_of_bearer(service) {
        let ann = service.sign_up("ann@example.com");
        let once = json!({ "name": "once", "rateLimit": { "limit": 1, "window": "1d" } });
        let made = service.create_key(&ann.access, once);
        let (key, unknown) = (text(&made["key"]), format!("sk_{}", "0".repeat(64)));
        let answer = service.post("/keys/verify").bearer(key).json(json!({ "key": "x" })).send();
        assert_eq!((answer.status, answer.json()), (403, error(403, "API key lacks the scope keys:verify")));
        assert_eq!(challenges(&answer), ["Bearer error=\"insufficient_scope\", scope=\"keys:verify\""]);
        for (path, expected) in [("service-only", 200), ("service-only", 429), ("flexible", 429)] {
            let answer = service.get(&format!("/protected/{path}")).bearer(key).send();
            assert_eq!(answer.status, expected, "{answer:?}");
            assert!(answer.header("ratelimit").is_some(), "{answer:?}");
        }
        for (bad, message) in [(unknown.as_str(), BAD_KEY), ("sk_bad", "Unauthorized")] {
            for path in ["service-only", "flexible"] {
                let answer = service.get(&format!("/protected/{path}")).bearer(bad).send();
                assert_eq!((answer.status, answer.json()), (401, error(401, message)), "{bad} {path}");
                assert_eq!(challenges(&answer), [INVALID_TOKEN, "ApiKey"], "{bad} {path}");
            }
        }
        assert_eq!(service.delete(&format!("/keys/{}", text(&made["id"]))).bearer(&ann.access).send().status, 200);
        let answer = service.get("/protected/flexible").bearer(key).send();
        assert_eq!((answer.status, answer.json()), (401, error(401, BAD_KEY)));
    }

    fn bad_ones_count_against_the_limit_of_their_address(service) {
        service.set("RATE_LIMIT_FAILED_KEYS", "2/1m");
        service.restart();
        let ask = |digit: &str| {
            service.get("/protected/flexible").bearer(&format!("sk_{}", digit.repeat(64))).send().status
        };
        assert_eq!([ask("1"), ask("2"), ask("3")], [401, 401, 429]);
    }
}
