//! Tokens that are derived from keys.

use std::time::Duration;

use keyward_harness::forge::claims;
use keyward_harness::http_client::Answer;
use keyward_harness::service::{Service, broken_rules, error, on_both_stores};
use serde_json::{Value, json};

fn derive(service: &Service, key: &Value, body: Value) -> Answer {
    service.post("/auth/token").api_key(key["key"].as_str().unwrap()).json(body).send()
}

#[track_caller]
fn token(service: &Service, key: &Value, body: Value) -> String {
    let answer = derive(service, key, body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["accessToken"].as_str().unwrap().to_string()
}

fn status(service: &Service, token: &str) -> u16 {
    service.get("/protected/service-only").bearer(token).send().status
}

fn verify_status(service: &Service, token: &str) -> u16 {
    service.post("/keys/verify").bearer(token).json(json!({ "key": "sk_" })).send().status
}

on_both_stores! {
    fn a_derived_token_is_taken_wherever_the_key_is_and_never_for_a_user(service) {
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci", "scopes": ["a", "b"] }));
        let answer = derive(service, &key, json!({ "scopes": ["b"], "expiresIn": "15m" }));
        let body = answer.json();
        let token = body["accessToken"].as_str().unwrap();
        let claims = claims(token);
        let exp = claims["exp"].as_i64().unwrap();
        assert_eq!(exp - claims["iat"].as_i64().unwrap(), 15 * 60);
        let expires_at = keyward::base::clock::Timestamp::from_millis(exp * 1000).unwrap().to_string();
        assert_eq!(
            (answer.status, &body),
            (200, &json!({ "accessToken": token, "tokenType": "Bearer", "expiresAt": expires_at, "scopes": ["b"] }))
        );
        assert_eq!(
            claims,
            json!({
                "sub": key["id"], "owner": ann.id, "key": key["id"], "scope": "b", "iat": claims["iat"], "exp": exp, "jti": claims["jti"],
                "type": "service",
            })
        );
        for path in ["/protected/service-only", "/protected/flexible"] {
            let answer = service.get(path).bearer(token).send();
            assert_eq!((answer.status, &answer.json()["user"]["type"]), (200, &json!("service")), "{path}");
        }
        for path in ["/protected/user-only", "/auth/me", "/keys"] {
            let answer = service.get(path).bearer(token).send();
            assert_eq!((answer.status, answer.json()), (401, error(401, "Unauthorized")), "{path}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
        }
        // Neither more tokens nor the key's end come from a token; nor is a user's token one.
        for path in ["/auth/token", "/keys/revoke-self"] {
            assert_eq!(service.post(path).bearer(token).json(json!({})).send().status, 401, "{path}");
        }
        assert_eq!((status(service, &ann.access), status(service, token)), (401, 200));
        let refreshed = service.post("/auth/refresh").json(json!({ "refreshToken": token })).send();
        assert_eq!(refreshed.status, 401);
    }

    fn a_derived_token_ends_with_its_time_and_with_the_key(service) {
        let ann = service.sign_up("ann@example.com");
        let soon = service.clock.now().plus(Duration::from_secs(600)).to_string();
        let brief = service.create_key(&ann.access, json!({ "name": "brief", "expiresAt": soon }));
        let key = service.create_key(&ann.access, json!({ "name": "ci" }));
        let (of_brief, short, long) =
            (token(service, &brief, json!({})), token(service, &key, json!({ "expiresIn": "5m" })), token(service, &key, json!({})));
        let all = [&of_brief, &short, &long];
        let statuses = || all.map(|token| status(service, token));
        assert_eq!(statuses(), [200, 200, 200]);
        service.advance(300);
        assert_eq!(statuses(), [200, 401, 200]);
        service.advance(300);
        assert_eq!(statuses(), [401, 401, 200]);
        let target = format!("/keys/{}", key["id"].as_str().unwrap());
        for (active, expected) in [(false, 401), (true, 200)] {
            let answer = service.patch(&target).bearer(&ann.access).json(json!({ "isActive": active })).send();
            assert_eq!((answer.status, status(service, &long)), (200, expected));
        }
        assert_eq!(service.delete(&target).bearer(&ann.access).send().status, 200);
        let answer = service.get("/protected/service-only").bearer(&long).send();
        assert_eq!((answer.status, answer.json()), (401, error(401, "Unauthorized")));
    }

    fn a_derived_token_may_no_more_than_it_was_given_and_than_the_key_still_may(service) {
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci", "scopes": ["keys:verify", "a"] }));
        let (all, narrow, none) = (
            token(service, &key, json!({})), token(service, &key, json!({ "scopes": ["a"] })),
            token(service, &key, json!({ "scopes": [] })),
        );
        assert_eq!([&all, &narrow, &none].map(|token| verify_status(service, token)), [200, 403, 403]);
        let answer = service.post("/keys/verify").bearer(&narrow).json(json!({ "key": "sk_" })).send();
        assert_eq!(answer.json(), error(403, "Token lacks the scope keys:verify"));
        let both = service.post("/keys/verify").api_key("sk_").bearer(&narrow).json(json!({ "key": "sk_" })).send();
        assert_eq!(both.json(), error(401, "Invalid or expired API key"), "a key that was sent comes first");
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Bearer error=\"insufficient_scope\", scope=\"keys:verify\"")
        );
        let target = format!("/keys/{}", key["id"].as_str().unwrap());
        assert_eq!(service.patch(&target).bearer(&ann.access).json(json!({ "scopes": ["a"] })).send().status, 200);
        assert_eq!(verify_status(service, &all), 403);
        let long = "expiresIn must be a whole number with a unit (s, m, h, d), such as 30s or 15m; at most 1h";
        for (body, rule) in [
            (json!({ "scopes": ["a", "keys:verify"] }), "scopes must be among those of the key"),
            (json!({ "expiresIn": "61m" }), long),
            (json!({ "expiresIn": "0s" }), long),
            (json!({ "expires_in": "1m" }), "property expires_in should not exist"),
        ] {
            let answer = derive(service, &key, body.clone());
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&[rule])), "{body}");
        }
    }

    fn a_derived_token_spends_the_keys_limit_and_counts_as_its_use(service) {
        let ann = service.sign_up("ann@example.com");
        let limit = json!({ "limit": 3, "window": "1d" });
        let key = service.create_key(&ann.access, json!({ "name": "ci", "rateLimit": limit }));
        let token = token(service, &key, json!({}));
        assert_eq!((status(service, &token), service.key_status(key["key"].as_str().unwrap())), (200, 200));
        let answer = service.get("/protected/service-only").bearer(&token).send();
        assert_eq!((answer.status, answer.header("ratelimit")), (429, Some("\"default\";r=0;t=86400")));
        assert_eq!(derive(service, &key, json!({})).status, 429);
        assert_eq!(service.get("/keys").bearer(&ann.access).send().json()[0]["usesLast24h"], 3);
    }
}
