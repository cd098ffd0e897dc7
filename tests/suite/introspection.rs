//! Introspection of tokens and keys (RFC 7662).

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyward_harness::forge::claims;
use keyward_harness::http_client::{Answer, Request};
use keyward_harness::program::Home;
use keyward_harness::service::{Backend, Service, broken_rules, error, on_both_stores, soon};
use serde_json::{Value, json};

const FORM: &str = "application/x-www-form-urlencoded";

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// A key that may introspect.
fn caller(service: &Service) -> String {
    let gateway = service.sign_up("gateway@example.com");
    let key = service.create_key(&gateway.access, json!({ "name": "gateway", "scopes": ["keys:verify"] }));
    text(&key["key"]).to_string()
}

fn ask<'a>(service: &'a Service, caller: &str, form: &str) -> Request<'a> {
    service.post("/oauth/introspect").api_key(caller).body(FORM, form)
}

#[track_caller]
fn introspect(service: &Service, caller: &str, token: &str) -> Value {
    let answer = ask(service, caller, &format!("token={token}")).send();
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    answer.json()
}

fn inactive() -> Value {
    json!({ "active": false })
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn derive(service: &Service, key: &Value, body: Value) -> String {
    let answer = service.post("/auth/token").api_key(text(&key["key"])).json(body).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    text(&answer.json()["accessToken"]).to_string()
}

fn change(service: &Service, access: &str, key: &Value, body: Value) {
    let answer = service.patch(&format!("/keys/{}", text(&key["id"]))).bearer(access).json(body).send();
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn challenges(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect()
}

fn seconds(timestamp: &Value) -> i64 {
    keyward::base::clock::Timestamp::parse(text(timestamp)).unwrap().seconds()
}

on_both_stores! {
    fn an_access_token_is_active_until_its_session_ends(service) {
        let caller = caller(service);
        let ann = service.sign_up("ann@example.com");
        let claims = claims(&ann.access);
        let active = json!({
            "active": true, "token_type": "Bearer", "username": "ann@example.com", "sub": ann.id, "iat": claims["iat"],
            "exp": claims["exp"], "jti": claims["jti"], "sid": claims["sid"], "scope": "* keys:verify",
        });
        assert_eq!(introspect(service, &caller, &ann.access), active);
        // However often, from memory or not.
        assert_eq!(introspect(service, &caller, &ann.access), active);
        service.advance(6);
        assert_eq!(introspect(service, &caller, &ann.access), active);
        assert_eq!(service.post("/auth/logout").bearer(&ann.access).send().status, 200);
        assert_eq!(introspect(service, &caller, &ann.access), inactive());

        let again = service.log_in("ann@example.com");
        assert_eq!(introspect(service, &caller, &again.access)["active"], true);
        service.advance(3600);
        assert_eq!(introspect(service, &caller, &again.access), inactive());
    }

    fn a_key_is_active_while_it_is_good(service) {
        let caller = caller(service);
        let ann = service.sign_up("ann@example.com");
        let expires_at = service.clock.now().plus(Duration::from_secs(600)).to_string();
        let key = service.create_key(&ann.access, json!({
            "name": "ci", "scopes": ["orders:read", "orders:write"], "expiresAt": expires_at,
        }));
        let active = json!({
            "active": true, "token_type": "ApiKey", "scope": "orders:read orders:write", "client_id": key["id"],
            "username": "ann@example.com", "sub": ann.id, "iat": seconds(&key["createdAt"]),
            "exp": seconds(&key["expiresAt"]),
        });
        let introspect = || introspect(service, &caller, text(&key["key"]));
        assert_eq!(introspect(), active);
        change(service, &ann.access, &key, json!({ "isActive": false }));
        assert_eq!(introspect(), inactive());
        change(service, &ann.access, &key, json!({ "isActive": true }));
        assert_eq!(introspect(), active);
        service.advance(600);
        assert_eq!(introspect(), inactive());
        change(service, &ann.access, &key, json!({ "expiresAt": null, "scopes": [] }));
        let bare = json!({
            "active": true, "token_type": "ApiKey", "client_id": key["id"], "username": "ann@example.com", "sub": ann.id,
            "iat": seconds(&key["createdAt"]),
        });
        assert_eq!(introspect(), bare);
        assert_eq!(service.delete(&format!("/keys/{}", text(&key["id"]))).bearer(&ann.access).send().status, 200);
        assert_eq!(introspect(), inactive());
    }

    fn a_derived_token_is_active_with_the_scopes_that_it_and_the_key_have(service) {
        let caller = caller(service);
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci", "scopes": ["a", "b", "c"] }));
        let token = derive(service, &key, json!({ "scopes": ["c", "a"], "expiresIn": "15m" }));
        let claims = claims(&token);
        let mut active = json!({
            "active": true, "token_type": "Bearer", "scope": "a c", "client_id": key["id"], "username": "ann@example.com",
            "sub": ann.id, "iat": claims["iat"], "exp": claims["exp"], "jti": claims["jti"],
        });
        assert_eq!(introspect(service, &caller, &token), active);
        // What the key loses, the token loses, and no later than the key does it end.
        let end = service.clock.now().plus(Duration::from_secs(60));
        change(service, &ann.access, &key, json!({ "scopes": ["b", "c"], "expiresAt": end.to_string() }));
        active["scope"] = json!("c");
        active["exp"] = json!(end.seconds());
        assert_eq!(introspect(service, &caller, &token), active);
        service.advance(60);
        assert_eq!(introspect(service, &caller, &token), inactive());
    }

    fn of_what_is_no_good_nothing_is_told_but_that(service) {
        let caller = caller(service);
        let ann = service.sign_up("ann@example.com");
        let (start, _) = ann.access.rsplit_once('.').unwrap();
        let key = service.create_key(&ann.access, json!({ "name": "ci" }));
        for token in [
            "x", "%20", ".", "..", "sk_", "null", "%F0%9F%98%80", &format!("sk_{}", "0".repeat(64)),
            &text(&key["key"]).to_uppercase(), &format!("Bearer+{}", ann.access), &format!("{}+", text(&key["key"])),
            &format!("{start}."), &format!("{start}.AAAA"), &ann.refresh, &"x".repeat(16_000), &"a.".repeat(8_000),
            // Whose it is does not matter.
            &ann.id, text(&key["id"]), "ann@example.com",
        ] {
            for hint in ["", "&token_type_hint=refresh_token", "&token_type_hint=access_token", "&token_type_hint=x"] {
                let answer = ask(service, &caller, &format!("token={token}{hint}")).send();
                assert_eq!((answer.status, answer.json()), (200, inactive()), "{token:.200}{hint}");
            }
        }
        // A refresh token that was used is as unknown as one that was not.
        assert_eq!(service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send().status, 200);
        assert_eq!(introspect(service, &caller, &ann.refresh), inactive());
        service.operator(&["user", "deactivate", "ann@example.com"]);
        for token in [&ann.access, text(&key["key"])] {
            soon("they are unknown", || introspect(service, &caller, token) == inactive());
        }
    }

    fn it_counts_as_a_use_of_the_key_and_spends_its_limit(service) {
        let caller = caller(service);
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci", "rateLimit": { "limit": 2, "window": "1d" } }));
        let token = derive(service, &key, json!({}));
        let active = |token: &str| introspect(service, &caller, token)["active"].clone();
        assert_eq!([active(&token), active(text(&key["key"])), active(&token)], [true, false, false]);
        assert_eq!(service.key_status(text(&key["key"])), 429);
        let target = format!("/keys/{}/usage?by=day", text(&key["id"]));
        let today = service.get(&target).bearer(&ann.access).send().json()["series"].as_array().unwrap().last().unwrap().clone();
        assert_eq!((&today["allowed"], &today["refused"]["rateLimited"]), (&json!(2), &json!(3)));
    }

    fn the_caller_shows_a_key_with_the_scope_in_one_of_four_ways(service) {
        let good = caller(service);
        let ann = service.sign_up("ann@example.com");
        let lacking = service.create_key(&ann.access, json!({ "name": "lacking", "scopes": ["keys"] }));
        let lacking = text(&lacking["key"]);
        let form = format!("token={}", ann.access);
        let asked = || service.post("/oauth/introspect").body(FORM, form.as_str());
        let with_secret = |secret: &str| {
            service.post("/oauth/introspect").body(FORM, format!("client_secret={secret}&token={}", ann.access))
        };
        let ways = |key: &str| {
            [
                asked().api_key(key).send(),
                asked().bearer(key).send(),
                asked().header("authorization", &format!("bEARER  {key} ")).send(),
                asked().header("authorization", &basic("", key)).send(),
                asked().header("authorization", &basic("gateway%20%2B+1", key)).send(),
                asked().header("authorization", &basic(key, key).replace("Basic", "bAsIc")).send(),
                asked().header("authorization", &basic("x", &key.replace("sk_", "%73k%5F"))).send(),
                with_secret(key).send(),
                with_secret(&format!("{key}&client_id=gateway")).send(),
                with_secret(&key.replace("sk_", "%73k%5F")).send(),
            ]
        };
        for answer in ways(&good) {
            assert_eq!((answer.status, &answer.json()["active"]), (200, &json!(true)), "{answer:?}");
        }
        for answer in ways(lacking) {
            assert_eq!((answer.status, answer.json()), (403, error(403, "API key lacks the scope keys:verify")));
        }
        let derived = service.post("/auth/token").api_key(&good).json(json!({})).send().json();
        assert_eq!(asked().bearer(text(&derived["accessToken"])).send().status, 200);

        let all = |bearer: &'static str| vec![bearer, "ApiKey", "Basic realm=\"keyward\", charset=\"UTF-8\""];
        for (answer, message, bearer) in [
            (asked().send(), "Unauthorized", "Bearer"),
            (asked().header("authorization", "Digest x").send(), "Unauthorized", "Bearer"),
            // A user's token is no client's.
            (asked().bearer(&ann.access).send(), "Unauthorized", "Bearer error=\"invalid_token\""),
            (asked().bearer("sk_").send(), "Unauthorized", "Bearer error=\"invalid_token\""),
            (asked().api_key("sk_").send(), "Invalid or expired API key", "Bearer"),
            (asked().bearer(&format!("sk_{}", "0".repeat(64))).send(), "Invalid or expired API key", "Bearer error=\"invalid_token\""),
            (asked().header("authorization", &basic("x", &ann.access)).send(), "Invalid or expired API key", "Bearer"),
            (asked().header("authorization", &basic(&good, "")).send(), "Invalid or expired API key", "Bearer"),
            (asked().header("authorization", "Basic").send(), "Unauthorized", "Bearer"),
            (asked().header("authorization", "Basic !").send(), "Invalid or expired API key", "Bearer"),
            (asked().header("authorization", &format!("Basic {}", BASE64_STANDARD.encode(&good))).send(), "Invalid or expired API key", "Bearer"),
            (asked().header("authorization", &format!("Basic {}", BASE64_STANDARD.encode(b"a:\xff"))).send(), "Invalid or expired API key", "Bearer"),
            (asked().header("authorization", &basic("x", "%zz")).send(), "Invalid or expired API key", "Bearer"),
            // In one way only.
            (asked().api_key(&good).bearer(&good).send(), "Send the API key in one way only", "Bearer"),
            (asked().api_key(&good).header("authorization", &basic("", &good)).send(), "Send the API key in one way only", "Bearer"),
            (with_secret(&good).api_key(&good).send(), "Send the API key in one way only", "Bearer"),
            (with_secret(&good).api_key(lacking).send(), "Send the API key in one way only", "Bearer"),
            (with_secret(&good).header("authorization", &basic("", &good)).send(), "Send the API key in one way only", "Bearer"),
            (with_secret(&good).header("authorization", &basic("", "x")).send(), "Send the API key in one way only", "Bearer"),
            (with_secret("x").bearer(text(&derived["accessToken"])).send(), "Send the API key in one way only", "Bearer"),
            (with_secret(&good).bearer(&ann.access).send(), "Send the API key in one way only", "Bearer"),
            (with_secret(&format!("{good}&client_secret={good}")).send(), "Invalid or expired API key", "Bearer"),
            (with_secret(&ann.access).send(), "Invalid or expired API key", "Bearer"),
            (with_secret(text(&derived["accessToken"])).send(), "Invalid or expired API key", "Bearer"),
            (with_secret(&format!("sk_{}", "0".repeat(64))).send(), "Invalid or expired API key", "Bearer"),
            (with_secret("").send(), "Unauthorized", "Bearer"),
            (with_secret("%zz").send(), "Unauthorized", "Bearer"),
            (service.post("/oauth/introspect").body("text/plain", format!("token=x&client_secret={good}")).send(), "Unauthorized", "Bearer"),
            (asked().bearer(&good).bearer(&good).send(), "Unauthorized", "Bearer error=\"invalid_token\""),
            (asked().api_key(&good).api_key(&good).send(), "Invalid or expired API key", "Bearer"),
        ] {
            assert_eq!((answer.status, answer.json()), (401, error(401, message)), "{answer:?}");
            assert_eq!(challenges(&answer), all(bearer), "{answer:?}");
        }
        // Nowhere else is a password a key.
        for path in ["/protected/service-only", "/protected/flexible", "/authz/forward-auth"] {
            assert_eq!(service.get(path).header("authorization", &basic("", &good)).send().status, 401, "{path}");
        }
    }

    fn the_form_is_read_as_oauth_has_it(service) {
        let caller = caller(service);
        let ann = service.sign_up("ann@example.com");
        let token = ann.access.as_str();
        for form in [
            format!("token={token}"),
            format!("&&token={token}&"),
            format!("a=b&token={token}&a=c&client_id=x&client_secret=&Token=z&=&%00=%00"),
            format!("token_type_hint=&token_type_hint=x&token=&%74oken={}", token.replace('.', "%2E")),
        ] {
            let answer = ask(service, &caller, &form).send();
            assert_eq!((answer.status, &answer.json()["active"]), (200, &json!(true)), "{form}");
        }
        let missing = broken_rules(&["token should not be empty", "token must be a string"]);
        let twice = |name: &str| error(400, &format!("Request body has {name} twice"));
        let garbled = error(400, "Request body is not percent-encoded UTF-8");
        for (form, expected) in [
            ("", &missing),
            ("token", &missing),
            ("token=", &missing),
            ("Token=x", &missing),
            ("{\"token\":\"x\"}", &missing),
            ("token=x&token=x", &twice("token")),
            ("token=x&token_type_hint=a&token_type_hint=b", &twice("token_type_hint")),
            ("token=%ff", &garbled),
            ("token=%zz", &garbled),
            ("token=x&a=%", &garbled),
            ("token=%00", &broken_rules(&["token must not contain NUL characters"])),
        ] {
            let answer = ask(service, &caller, form).send();
            assert_eq!((answer.status, &answer.json()), (400, expected), "{form}");
        }
        let asked = service.post("/oauth/introspect").api_key(&caller).body(FORM, b"token=\xff".as_slice()).send();
        assert_eq!((asked.status, &asked.json()), (400, &garbled));
        let wrong = error(400, "Content-Type must be application/x-www-form-urlencoded");
        for content_type in ["application/json", "text/plain", "multipart/form-data; boundary=x", ""] {
            let asked = service.post("/oauth/introspect").api_key(&caller).body(content_type, "token=x").send();
            assert_eq!((asked.status, asked.json()), (400, wrong.clone()), "{content_type}");
        }
        let charset = service.post("/oauth/introspect").api_key(&caller);
        let charset = charset.body("Application/X-WWW-Form-URLEncoded; charset=UTF-8", "token=x").send();
        assert_eq!((charset.status, charset.json()), (200, inactive()));
        let large = ask(service, &caller, &format!("token={}", "x".repeat(16 * 1024))).send();
        assert_eq!((large.status, large.json()), (413, error(413, "Request body is larger than 16384 bytes")));
    }
}

#[test]
fn the_issuer_and_the_audience_of_tokens_are_told() {
    let settings = [("JWT_ISSUER", "https://auth.example.com"), ("JWT_AUDIENCE", "https://api.example.com")];
    let service = Service::start_with(Backend::Sqlite, &settings, |_| {});
    let caller = caller(&service);
    let ann = service.sign_up("ann@example.com");
    let key = service.create_key(&ann.access, json!({ "name": "ci" }));
    for token in [ann.access.clone(), derive(&service, &key, json!({}))] {
        let said = introspect(&service, &caller, &token);
        assert_eq!((&said["iss"], &said["aud"]), (&json!(settings[0].1), &json!(settings[1].1)));
    }
    assert_eq!(introspect(&service, &caller, text(&key["key"]))["iss"], Value::Null);
}

#[test]
fn a_secret_in_the_form_is_a_key_on_no_other_route_and_stays_out_of_the_log() {
    let home = Home::fresh(Backend::Sqlite);
    let server = home.start(&[("RUST_LOG", "trace")]);
    let client = server.client();
    let ann = client.sign_up("ann@example.com");
    home.run(&["user", "grant", "ann@example.com", "keys:verify"]).succeeded();
    let key = client.create_key(&ann.access, json!({ "name": "ci", "scopes": ["keys:verify"] }));
    let form = format!("token={}&client_secret={}", ann.access, text(&key["key"]));
    let good = client.post("/oauth/introspect").body(FORM, form.clone()).send();
    assert_eq!((good.status, &good.json()["active"]), (200, &json!(true)));
    let wrong = format!("sk_{}", "7".repeat(64));
    let bad = client.post("/oauth/introspect").body(FORM, format!("token=x&client_secret={wrong}")).send();
    assert_eq!(bad.status, 401);
    let large = client.post("/oauth/introspect").body(FORM, format!("{form}&x={}", "x".repeat(20_000))).send();
    assert_eq!(large.status, 401, "what cannot be read has no secret");
    for path in ["/keys/verify", "/auth/token", "/keys/revoke-self"] {
        assert_eq!(client.post(path).body(FORM, form.clone()).send().status, 401, "{path}");
    }
    let said = server.stop().stderr;
    for secret in [text(&key["key"]), &wrong, &ann.access] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn bad_keys_of_callers_count_by_address_and_what_they_ask_about_does_not() {
    let service = Service::start_with(Backend::Sqlite, &[("RATE_LIMIT_FAILED_KEYS", "2/1h")], |_| {});
    let caller = caller(&service);
    for _ in 0..5 {
        assert_eq!(introspect(&service, &caller, &format!("sk_{}", "0".repeat(64))), inactive());
    }
    let bad = || {
        let asked = service.post("/oauth/introspect").body(FORM, "token=x");
        asked.header("authorization", &basic("x", &format!("sk_{}", "1".repeat(64)))).send().status
    };
    assert_eq!([bad(), bad(), bad()], [401, 401, 429]);
    let in_form = service.post("/oauth/introspect").body(FORM, format!("token=x&client_secret=sk_{}", "2".repeat(64)));
    assert_eq!(in_form.send().status, 429);
    assert_eq!(introspect(&service, &caller, "x"), inactive());
}
