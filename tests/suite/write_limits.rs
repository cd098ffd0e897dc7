//! How much one user may write, wherever it comes from.

use keyward::accounts::limits::Write;
use keyward_harness::http_client::{Answer, Request};
use keyward_harness::service::{Account, PASSWORD, Service, error, on_both_stores};
use serde_json::{Value, json};

const CHANGES: &str = "Too many changes to this account, try again later";
const LOGINS: &str = "Too many logins to this account, try again later";

fn limited(service: &mut Service, limit: &str) {
    service.set("RATE_LIMIT_WRITES", limit);
    service.restart();
}

fn too_many(message: &str, seconds: &'static str) -> (u16, Value, Option<&'static str>) {
    (429, error(429, message), Some(seconds))
}

fn told(answer: &Answer) -> (u16, Value, Option<&str>) {
    (answer.status, answer.json(), answer.header("retry-after"))
}

fn create<'a>(service: &'a Service, access: &str) -> Request<'a> {
    service.post("/keys/create").bearer(access).json(json!({ "name": "ci" }))
}

fn log_in(service: &Service, owner: &Account, password: &str, from: &str) -> Answer {
    let body = json!({ "email": owner.email, "password": password });
    service.post("/auth/login").header("x-forwarded-for", from).json(body).send()
}

/// How many events of this kind the account has.
fn events(service: &Service, access: &str, kind: &str) -> usize {
    let events = service.get("/auth/events?limit=200").bearer(access).send().json();
    events.as_array().unwrap().iter().filter(|event| event["type"] == kind).count()
}

on_both_stores! {
    fn a_user_may_change_only_so_much_whichever_way(service) {
        limited(service, "5/1m");
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let elsewhere = service.log_in("ann@example.com");
        let made = create(service, &ann.access).send().json();
        let key = format!("/keys/{}", made["id"].as_str().unwrap());
        let rotate = format!("{key}/rotate");
        let password = json!({ "currentPassword": "wrong", "newPassword": "another Password" });
        let ask = |method: &str, target: &str, access: &str, body: &Value| {
            service.method(method, target).bearer(access).json(body.clone()).send()
        };
        let ways = [
            ("PATCH", key.as_str(), json!({ "name": "renamed" })),
            ("POST", "/auth/password", password),
            ("POST", rotate.as_str(), json!({})),
            // What is refused counts as well.
            ("POST", "/keys/create", json!({})),
        ];
        let refresh = |token: &str| service.post("/auth/refresh").json(json!({ "refreshToken": token })).send();
        assert_eq!(refresh("nonsense").status, 401);
        for (method, target, body) in &ways {
            assert_ne!(ask(method, target, &elsewhere.access, body).status, 429, "{method} {target}");
        }
        for (method, target, body) in &ways {
            for access in [&ann.access, &elsewhere.access] {
                assert_eq!(told(&ask(method, target, access, body)), too_many(CHANGES, "12"), "{method} {target}");
            }
        }
        assert_eq!(told(&refresh(&ann.refresh)), too_many(CHANGES, "12"));
        // Judged before the body is read.
        let oversized = service.post("/keys/create").bearer(&ann.access).body("application/json", vec![b' '; 20_000]);
        assert_eq!(oversized.send().status, 429);
        // To read costs nothing, and others are not held up.
        assert_eq!(service.get("/keys").bearer(&ann.access).send().status, 200);
        let verify = service.post("/keys/verify").bearer(&ann.access).json(json!({ "key": made["key"] }));
        assert_eq!(verify.send().status, 200);
        assert_eq!(service.post("/auth/token").api_key(made["key"].as_str().unwrap()).send().status, 200);
        assert_eq!(create(service, &bob.access).send().status, 201);
        service.advance(12);
        assert_eq!(create(service, &ann.access).send().status, 201);
        assert_eq!(told(&create(service, &ann.access).send()), too_many(CHANGES, "12"));
        // What was refused has moved nothing, and what is granted counts.
        service.advance(12);
        assert_eq!(refresh(&ann.refresh).status, 200);
        assert_eq!(told(&create(service, &ann.access).send()), too_many(CHANGES, "12"));
    }

    fn to_end_something_is_never_refused_and_what_has_ended_is_not_written_down_again(service) {
        limited(service, "3/1d");
        let ann = service.sign_up("ann@example.com");
        let made = [(); 3].map(|()| create(service, &ann.access).send().json());
        let (here, there) = (service.log_in("ann@example.com"), service.log_in("ann@example.com"));
        assert_eq!(create(service, &ann.access).send().status, 429);
        let id = |index: usize| made[index]["id"].as_str().unwrap();
        let delete = |target: &str| service.delete(target).bearer(&ann.access).send().status;
        for _ in 0..5 {
            assert_eq!(delete(&format!("/keys/{}", id(0))), 200);
        }
        let revoke_self = |index: usize| {
            service.post("/keys/revoke-self").api_key(made[index]["key"].as_str().unwrap()).send().status
        };
        assert_eq!([revoke_self(0), revoke_self(1), revoke_self(1)], [401, 200, 401]);
        assert_eq!(events(service, &ann.access, "key.revoked"), 2);
        for status in [200, 401] {
            assert_eq!(service.post("/auth/logout").bearer(&here.access).send().status, status);
        }
        for _ in 0..3 {
            assert_eq!(delete("/auth/sessions"), 200);
        }
        assert_eq!(service.token_status(&there.access), 401);
        assert_eq!(events(service, &ann.access, "session.ended"), 2);
        let gone = service.delete("/auth/me").bearer(&ann.access).json(json!({ "password": PASSWORD })).send();
        assert_eq!(gone.status, 200);
    }

    fn a_used_refresh_token_ends_its_session_whatever_its_user_has_written(service) {
        limited(service, "3/1d");
        let ann = service.sign_up("ann@example.com");
        let refresh = |token: &str| service.post("/auth/refresh").json(json!({ "refreshToken": token })).send();
        let mut newest = ann.refresh.clone();
        for _ in 0..3 {
            service.advance(60);
            newest = refresh(&newest).json()["refreshToken"].as_str().unwrap().to_string();
        }
        assert_eq!(refresh(&newest).status, 429);
        assert_eq!(refresh(&ann.refresh).status, 401);
        assert_eq!(refresh(&newest).status, 401);
        let again = service.log_in("ann@example.com");
        assert_eq!(events(service, &again.access, "session.reuse_detected"), 1);
    }

    fn logins_are_counted_apart_once_the_password_is_right(service) {
        limited(service, "3/1m");
        let ann = service.sign_up("ann@example.com");
        // A thief of a session cannot keep its owner from logging in.
        for status in [201, 201, 201, 429] {
            assert_eq!(create(service, &ann.access).send().status, status);
        }
        for address in ["198.51.100.7", "203.0.113.9", "198.51.100.8"] {
            assert_eq!(log_in(service, &ann, "wrong", address).status, 401);
            assert_eq!(log_in(service, &ann, PASSWORD, address).status, 200);
        }
        assert_eq!(told(&log_in(service, &ann, PASSWORD, "198.51.100.7")), too_many(LOGINS, "20"));
        assert_eq!(log_in(service, &ann, "wrong", "198.51.100.7").status, 401);
        assert_eq!(events(service, &ann.access, "session.opened"), 3);
        service.advance(20);
        assert_eq!(log_in(service, &ann, PASSWORD, "198.51.100.7").status, 200);
        assert_eq!(log_in(service, &ann, PASSWORD, "198.51.100.7").status, 429);
    }

    fn without_a_limit_a_user_writes_as_much_as_they_like(service) {
        limited(service, "off");
        let ann = service.sign_up("ann@example.com");
        for _ in 0..130 {
            let answer = service.patch("/keys/x").bearer(&ann.access).json(json!({})).send();
            assert_eq!(answer.status, 404);
        }
        limited(service, "");
        for number in 0..130 {
            let answer = service.patch("/keys/x").bearer(&ann.access).json(json!({})).send();
            assert_eq!(answer.status, if number < 120 { 404 } else { 429 });
        }
    }
}

/// What is not counted as a change of the user's: what nobody has shown to be yet, what writes nothing, what ends something.
const UNCOUNTED: [&str; 22] = [
    "POST /auth/signup",
    "POST /auth/login",
    "POST /auth/refresh",
    "POST /auth/reset-password",
    "POST /auth/verify-email",
    "POST /auth/forgot-password",
    "POST /auth/token",
    "POST /keys/verify",
    "POST /keys/verify-batch",
    "POST /oauth/introspect",
    "POST /auth/logout",
    "POST /keys/revoke-self",
    "DELETE /auth/me",
    "POST /auth/delete",
    "DELETE /auth/sessions",
    "DELETE /auth/sessions/:id",
    "DELETE /keys/:id",
    "DELETE /webhooks/:id",
    "DELETE /admin/webhooks/:id",
    "DELETE /admin/keys/:id",
    "DELETE /admin/users/:id",
    "DELETE /admin/users/:id/sessions",
];

#[test]
fn every_route_that_makes_or_changes_something_is_counted() {
    for route in keyward::api::routes::ROUTES.iter() {
        let name = format!("{} {}", route.verb(), route.path);
        let reads = matches!(route.verb(), "GET" | "ANY");
        let counts_as = if route.path.starts_with("/admin/") { Write::Administer } else { Write::Change };
        let expected = (!reads && !UNCOUNTED.contains(&name.as_str())).then_some(counts_as);
        assert_eq!(route.writes, expected, "{name}");
    }
}
