//! Signing up, logging in, logging out.

use std::sync::Barrier;

use keyward::config::Config;
use keyward_harness::http_client::Answer;
use keyward_harness::service::{Backend, PASSWORD, broken_rules, error, on_both_stores};
use serde_json::{Value, json};

fn header_is(answer: &Answer, name: &str, value: &str) {
    assert_eq!(answer.header(name), Some(value), "{answer:?}");
}

on_both_stores! {
    fn signing_up_gives_a_user_and_two_tokens(service) {
        let body = json!({ "email": "Ann@Example.com", "password": PASSWORD, "name": "Ann" });
        let answer = service.post("/auth/signup").json(body).send();
        assert_eq!(answer.status, 201);
        header_is(&answer, "cache-control", "no-store");
        let body = answer.json();
        let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["accessToken", "refreshToken", "user"]);
        let id = body["user"]["id"].as_str().unwrap();
        assert_eq!(body["user"], json!({ "id": id, "email": "ann@example.com", "name": "Ann" }));
        assert!(body["accessToken"].as_str().unwrap().starts_with("eyJ"));
        assert!(body["refreshToken"].as_str().unwrap().starts_with("eyJ"));
    }

    fn a_name_may_be_left_out_or_null(service) {
        for (email, body) in [
            ("a@example.com", json!({ "email": "a@example.com", "password": PASSWORD })),
            ("b@example.com", json!({ "email": "b@example.com", "password": PASSWORD, "name": null })),
        ] {
            let answer = service.post("/auth/signup").json(body).send();
            assert_eq!((answer.status, &answer.json()["user"]["name"]), (201, &Value::Null), "{email}");
        }
    }

    fn an_email_is_taken_once_whatever_its_case(service) {
        service.sign_up("ann@example.com");
        let answer = service.post("/auth/signup").json(json!({ "email": "ANN@example.COM", "password": PASSWORD })).send();
        assert_eq!((answer.status, answer.json()), (409, error(409, "User already exists")));
    }

    fn of_two_sign_ups_that_race_one_wins(service) {
        for round in 0..3 {
            let start = Barrier::new(2);
            let start = &start;
            let mut statuses = std::thread::scope(|scope| {
                let racers = [service.client(), service.client()].map(|client| scope.spawn(move || {
                    start.wait();
                    let email = format!("ann{round}@example.com");
                    client.post("/auth/signup").json(json!({ "email": email, "password": PASSWORD })).send().status
                }));
                racers.map(|racer| racer.join().unwrap())
            });
            statuses.sort_unstable();
            assert_eq!(statuses, [201, 409]);
        }
    }

    fn logging_in_has_the_shape_of_signing_up(service) {
        let ann = service.sign_up("ann@example.com");
        let answer = service.post("/auth/login").json(json!({ "email": "ANN@Example.com", "password": PASSWORD })).send();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["user"], json!({ "id": ann.id, "email": "ann@example.com", "name": null }));
        let access = answer.json()["accessToken"].as_str().unwrap().to_string();
        assert_ne!(access, ann.access);
        assert_eq!((service.token_status(&access), service.token_status(&ann.access)), (200, 200));
    }

    fn whatever_is_wrong_with_a_login_is_one_answer(service) {
        let ann = service.sign_up("ann@example.com");
        service.sign_up("gone@example.com");
        service.operator(&["user", "deactivate", "gone@example.com"]);
        for (email, password) in [
            (ann.email.as_str(), "Password123?"),
            (ann.email.as_str(), ""),
            ("nobody@example.com", PASSWORD),
            ("gone@example.com", PASSWORD),
        ] {
            let answer = service.post("/auth/login").json(json!({ "email": email, "password": password })).send();
            assert_eq!((answer.status, answer.json()), (401, error(401, "Invalid credentials")), "{email}");
            header_is(&answer, "www-authenticate", "Bearer");
        }
    }

    fn logging_out_ends_both_tokens_of_that_session_only(service) {
        let ann = service.sign_up("ann@example.com");
        let elsewhere = service.log_in("ann@example.com");
        let answer = service.post("/auth/logout").bearer(&ann.access).send();
        assert_eq!((answer.status, answer.json()), (200, json!({ "message": "Logged out successfully" })));
        assert_eq!(service.token_status(&ann.access), 401);
        assert_eq!(service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send().status, 401);
        assert_eq!(service.post("/auth/logout").bearer(&ann.access).send().status, 401);
        assert_eq!(service.token_status(&elsewhere.access), 200);
    }

    fn me_is_the_user_of_the_token(service) {
        let ann = service.sign_up("ann@example.com");
        let answer = service.get("/auth/me").bearer(&ann.access).send();
        let body = answer.json();
        assert_eq!(answer.status, 200);
        assert_eq!(
            body,
            json!({
                "id": ann.id, "email": "ann@example.com", "emailVerified": false, "name": null, "createdAt": body["createdAt"],
                "scopes": ["*", "keys:verify"],
            })
        );
    }

    fn a_body_that_breaks_rules_hears_of_each(service) {
        let too_long_name = "x".repeat(256);
        let long_local = format!("{}@example.com", "x".repeat(250));
        let short = "must be longer than or equal to 8 characters";
        for (body, rules) in [
            (json!({ "email": "bad", "password": "short" }), vec!["email must be an email".to_string(), format!("password {short}")]),
            (json!({}), vec!["email must be an email".into(), format!("password {short}"), "password must be a string".into()]),
            (json!({ "email": 7, "password": ["Password123!"], "name": 1 }), vec![
                "email must be an email".into(), format!("password {short}"),
                "password must be a string".into(), "name must be a string".into(),
            ]),
            (json!({ "email": "a@b.co", "password": "ä".repeat(37) }), vec!["password must be shorter than or equal to 72 bytes".into()]),
            (json!({ "email": "a@b.co", "password": PASSWORD, "name": too_long_name }), vec!["name must be shorter than or equal to 255 characters".into()]),
            (json!({ "email": long_local, "password": PASSWORD }), vec!["email must be shorter than or equal to 254 characters".into()]),
            (json!({ "email": "a@b.co", "password": "Pass\u{0}word", "name": "A\u{0}" }), vec![
                "password must not contain NUL characters".into(), "name must not contain NUL characters".into(),
            ]),
            (json!({ "email": "a@b.co", "password": PASSWORD, "isAdmin": true }), vec!["property isAdmin should not exist".into()]),
        ] {
            let answer = service.post("/auth/signup").json(body.clone()).send();
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&rules)), "{body}");
        }
        let answer = service.post("/auth/login").json(json!({ "email": "a@b.co", "pasword": "x" })).send();
        assert_eq!(answer.json(), broken_rules(&["property pasword should not exist", "password must be a string"]));
        // Nothing of it made a user.
        assert_eq!(service.operator(&["user", "list", "--json"]).trim(), "[]");
    }

    fn a_body_that_cannot_be_read_hears_what_and_where(service) {
        for (content_type, body, message) in [
            ("application/json", "{\"email\": \"a@b.co\",}", "Request body is not valid JSON: trailing comma at line 1 column 20"),
            ("application/json", "", "Request body is not valid JSON: EOF while parsing a value at line 1 column 0"),
            ("application/json", "[]", "Request body must be a JSON object"),
            // It is not repeated: it may be a secret in the wrong place.
            ("application/json", "\"eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl\"", "Request body must be a JSON object"),
            ("application/json", "{\"email\":\"a@b.co\",\"email\":\"c@d.co\"}", "Request body is not valid JSON: property email is there twice at line 1 column 25"),
            ("application/x-www-form-urlencoded", "email=a", "Content-Type must be application/json"),
            ("text/plain", "{}", "Content-Type must be application/json"),
        ] {
            let answer = service.post("/auth/login").body(content_type, body).send();
            assert_eq!((answer.status, answer.json()), (400, error(400, message)), "{body}");
        }
        let invalid_utf8 = service.post("/auth/login").body("application/json", b"{\"email\":\"\xff\"}".to_vec()).send();
        assert_eq!(invalid_utf8.status, 400);
        let deep = service.post("/auth/login").body("application/json", format!("{{\"email\":{}", "[".repeat(10_000))).send();
        assert_eq!(deep.status, 400);
        let with_charset = service.post("/auth/login").body("Application/JSON; charset=utf-8", "{}").send();
        assert_eq!(with_charset.json(), broken_rules(&["email must be an email", "password must be a string"]));
        // As curl sends it without -d: no body and no type is an empty form.
        assert_eq!(service.post("/auth/login").send().json(), with_charset.json());
    }

    fn an_empty_body_is_an_empty_form_where_every_field_is_optional(service) {
        let ann = service.sign_up("ann@example.com");
        let types = ["application/json", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=x", ""];
        for content_type in types {
            let made = service.create_key(&ann.access, json!({ "name": "ci" }));
            let key = made["key"].as_str().unwrap();
            let path = |more: &str| format!("/keys/{}{more}", made["id"].as_str().unwrap());
            let session = service.log_in(&ann.email);
            for (request, expected) in [
                (service.post("/auth/token").api_key(key), 200),
                (service.patch(&path("")).bearer(&ann.access), 200),
                (service.post(&path("/rotate")).bearer(&ann.access), 201),
                (service.post("/auth/logout").bearer(&session.access), 200),
                (service.post("/keys/revoke-self").api_key(key), 200),
            ] {
                let answer = request.header("content-encoding", "gzip").body(content_type, "").send();
                assert_eq!(answer.status, expected, "{content_type}: {answer:?}");
            }
            // Only an empty one.
            let answer = service.post("/auth/token").api_key(key).body(content_type, " ").send();
            assert_ne!(answer.status, 200, "{content_type}: {answer:?}");
        }
        for (content_type, message) in [
            ("application/json", "Request body is not valid JSON: EOF while parsing a value at line 1 column 0"),
            ("text/plain", "Content-Type must be application/json"),
        ] {
            let answer = service.post("/keys/create").bearer(&ann.access).body(content_type, "").send();
            assert_eq!((answer.status, answer.json()), (400, error(400, message)));
        }
    }

    fn an_imported_password_may_be_short_or_cut_at_72_bytes(service) {
        let ann = service.sign_up("ann@example.com");
        // As the service before this one stored them: the shortest work factor it had, passwords cut silently.
        for (password, login) in [("short", "short".to_string()), (&"x".repeat(72), "x".repeat(80))] {
            let hash = bcrypt::hash(password, 10).unwrap();
            service.store_hash(&hash);
            let answer = service.post("/auth/login").json(json!({ "email": ann.email, "password": login })).send();
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
}

#[test]
fn a_closed_sign_up_is_a_403_and_leaves_login_open() {
    let service = keyward_harness::service::Service::start_with(
        Backend::Sqlite,
        &[("SIGNUP", "closed")],
        |config: &mut Config| {
            assert!(!config.accounts.signup_open);
        },
    );
    let answer = service.post("/auth/signup").json(json!({ "email": "a@b.co", "password": PASSWORD })).send();
    assert_eq!((answer.status, answer.json()), (403, error(403, "Sign-up is closed")));
    let answer = service.post("/auth/login").json(json!({ "email": "a@b.co", "password": PASSWORD })).send();
    assert_eq!(answer.status, 401);
}
