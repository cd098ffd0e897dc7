//! Accounts that operators create, and one-time tokens that set a password.

use std::thread;
use std::time::Duration;

use keyward_harness::service::{PASSWORD, Service, broken_rules, error, on_both_stores};
use serde_json::{Value, json};

use super::operator;
use super::users::{Asking, said};

const WEEK: Duration = Duration::from_secs(7 * 86_400);

const NEW: &str = "battery staple correct";
const NOT_GOOD: &str = "Invalid or expired token";
const NO_PASSWORD: &str = "A service account has no password: it never logs in";

fn token(asking: &Asking<'_>, user: &str) -> String {
    let answer = asking.ask("POST", &format!("/admin/users/{user}/reset-password"), None);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["token"].as_str().unwrap().to_string()
}

fn reset(service: &Service, token: &str) -> (u16, Value) {
    said(&service.post("/auth/reset-password").json(json!({ "token": token, "password": NEW })).send())
}

/// A key that the operator makes for somebody.
fn key_for(asking: &Asking<'_>, user: &str, scopes: Value) -> String {
    let answer = asking.ask("POST", "/admin/keys", Some(json!({ "userId": user, "name": "ci", "scopes": scopes })));
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["key"].as_str().unwrap().to_string()
}

fn log_in_status(service: &Service, email: &str, password: &str) -> u16 {
    service.post("/auth/login").json(json!({ "email": email, "password": password })).send().status
}

/// The types of the user's events with their actors, the latest first.
fn events(asking: &Asking<'_>, user: &str) -> Vec<(String, String)> {
    let events = asking.get(&format!("/admin/events?userId={user}"));
    let text = |value: &Value| value.as_str().unwrap().to_string();
    events.as_array().unwrap().iter().map(|event| (text(&event["type"]), text(&event["actor"]["type"]))).collect()
}

on_both_stores! {
    fn who_is_invited_sets_a_password_with_a_token_before_the_first_login(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        let answer = asking.ask("POST", "/admin/users", Some(json!({ "email": "Ann@Example.com", "name": "Ann" })));
        let ann = answer.json();
        let id = ann["id"].as_str().unwrap();
        let expected = json!({
            "id": id, "kind": "user", "email": "ann@example.com", "name": "Ann", "isActive": true,
            "emailVerified": false, "scopes": ["*", "keys:verify"], "metadata": null, "hasPassword": false,
            "maxKeys": null, "createdAt": service.clock.now().to_string(), "lastLoginAt": null,
        });
        assert_eq!((answer.status, &ann), (201, &expected));
        assert_eq!(asking.get(&format!("/admin/users/{id}")), expected);
        for password in [PASSWORD, "", " ", "\u{308}u"] {
            let answer = service.post("/auth/login").json(json!({ "email": "ann@example.com", "password": password })).send();
            assert_eq!(said(&answer), (401, error(401, "Invalid credentials")), "{password:?}");
        }
        // Nobody else could log in and make one, so it stays.
        let key = key_for(&asking, id, json!([]));
        let made = asking.ask("POST", &format!("/admin/users/{id}/reset-password"), Some(json!({}))).json();
        let expires_at = service.clock.now().plus(Duration::from_secs(3600)).to_string();
        assert_eq!((&made["expiresAt"], &made["url"]), (&json!(expires_at), &json!(null)));
        let answer = reset(service, made["token"].as_str().unwrap());
        assert_eq!(answer, (200, json!({ "message": "Password reset successfully" })));
        assert_eq!((log_in_status(service, "ann@example.com", NEW), service.key_status(&key)), (200, 200));
        assert_eq!(asking.get(&format!("/admin/users/{id}"))["hasPassword"], json!(true));
        service.stop();
        service.restart();
        let events = events(&Asking { service, access: &boss.access }, id);
        let expected = [
            ("session.opened", "user"),
            ("login.failed", "anonymous"),
            ("password.reset", "anonymous"),
            ("password.reset_requested", "operator"),
            ("key.created", "operator"),
            ("user.invited", "operator"),
        ];
        let mut told: Vec<(&str, &str)> = events.iter().map(|(kind, actor)| (kind.as_str(), actor.as_str())).collect();
        // Failed logins are gathered and written later.
        told.sort_by_key(|(kind, _)| expected.iter().position(|(known, _)| known == kind));
        assert_eq!(told, expected);
    }

    fn what_a_new_user_gets_is_as_the_operator_says(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        let create = |body: Value| asking.ask("POST", "/admin/users", Some(body));
        let body = json!({
            "kind": "user", "email": "ann@example.com", "password": PASSWORD, "name": null, "scopes": ["keyward:admin", "a:*"],
            "metadata": { "plan": "pro" }, "emailVerified": true, "maxKeys": 5,
        });
        let user = create(body).json();
        let expected = json!([["keyward:admin", "a:*"], { "plan": "pro" }, true, 5, true]);
        let told = json!([user["scopes"], user["metadata"], user["emailVerified"], user["maxKeys"], user["hasPassword"]]);
        assert_eq!(told, expected);
        let ann = service.log_in("ann@example.com");
        assert_eq!(service.get("/admin/users").bearer(&ann.access).send().status, 200);
        assert_eq!(create(json!({ "email": "b@example.com", "scopes": [] })).json()["scopes"], json!([]));
        assert_eq!(said(&create(json!({ "email": "ANN@example.com" }))), (409, error(409, "User already exists")));
        for (body, rules) in [
            (json!({}), &["email must be an email"][..]),
            (
                json!({ "email": "c@example.com", "password": "short", "kind": "person", "isActive": true }),
                &[
                    "property isActive should not exist",
                    "kind must be user or service",
                    "password must be longer than or equal to 8 characters",
                ],
            ),
            (json!({ "email": "c@example.com", "maxKeys": 1_000_001 }), &["maxKeys must be a whole number from 0 to 1000000"]),
        ] {
            assert_eq!(said(&create(body)), (400, broken_rules(rules)));
        }
    }

    fn a_service_account_never_logs_in_and_gets_no_token(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        let create = |body: Value| asking.ask("POST", "/admin/users", Some(body));
        let email = "billing@services.example.com";
        let answer = create(json!({ "kind": "service", "email": email, "scopes": ["invoices:*"] }));
        let id = answer.json()["id"].as_str().unwrap().to_string();
        assert_eq!((answer.status, &answer.json()["kind"]), (201, &json!("service")));
        assert_eq!(asking.get("/admin/users?kind=service")[0]["id"], json!(id));
        assert_eq!(log_in_status(service, email, PASSWORD), 401);
        let key = key_for(&asking, &id, json!(["invoices:read"]));
        assert_eq!(service.get("/authz/forward-auth?scope=invoices:read").api_key(&key).send().status, 200);
        let answer = asking.ask("POST", &format!("/admin/users/{id}/reset-password"), None);
        assert_eq!(said(&answer), (409, error(409, NO_PASSWORD)));
        assert_eq!(service.count("SELECT COUNT(*) FROM one_time_tokens"), 0);
        let kinds: Vec<String> = events(&asking, &id).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["key.created", "user.created"]);
        let answer = create(json!({ "kind": "service", "email": "b@example.com", "password": PASSWORD, "scopes": ["keyward:admin"] }));
        let rules = [
            "password must not be given for a service account: it never logs in",
            "scopes must not hold keyward:admin for a service account: operators are people",
        ];
        assert_eq!(said(&answer), (400, broken_rules(&rules)));
        let answer = asking.ask("POST", &format!("/admin/users/{id}/grant"), Some(json!({ "scopes": ["keyward:admin"] })));
        assert_eq!(said(&answer), (400, broken_rules(&rules[1..])));
    }

    fn a_token_is_good_once_and_so_is_each_of_the_last_three(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        let ann = service.sign_up("ann@example.com");
        let tokens: Vec<String> = (0..5).map(|_| token(&asking, &ann.id)).collect();
        let other = token(&asking, &boss.id);
        for gone in &tokens[..2] {
            assert_eq!(reset(service, gone), (401, error(401, NOT_GOOD)));
        }
        assert_eq!(service.token_status(&ann.access), 200, "nothing has changed");
        assert_eq!(reset(service, &tokens[2]).0, 200);
        // The new password voids the others, of this user.
        for used in &tokens[2..] {
            assert_eq!(reset(service, used), (401, error(401, NOT_GOOD)));
        }
        assert_eq!(reset(service, &other).0, 200);
        for nonsense in ["", "x", &"0".repeat(64), &"0".repeat(65), &tokens[4].to_uppercase()] {
            assert_eq!(reset(service, nonsense), (401, error(401, NOT_GOOD)), "{nonsense}");
        }
    }

    fn a_token_that_many_use_at_once_sets_one_password(service) {
        let boss = operator(service, "boss@example.com");
        let ann = service.sign_up("ann@example.com");
        let token = token(&Asking { service, access: &boss.access }, &ann.id);
        let statuses: Vec<u16> = thread::scope(|scope| {
            let ask = |number: usize| {
                let (client, token) = (service.client(), &token);
                let body = json!({ "token": token, "password": format!("{NEW} {number}") });
                scope.spawn(move || client.post("/auth/reset-password").json(body).send().status)
            };
            let asking: Vec<_> = (0..6).map(ask).collect();
            asking.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        let set: Vec<usize> = (0..6).filter(|number| statuses[*number] == 200).collect();
        assert!(set.len() == 1 && statuses.iter().all(|status| [200, 401].contains(status)), "{statuses:?}");
        assert_eq!(log_in_status(service, "ann@example.com", &format!("{NEW} {}", set[0])), 200);
    }

    fn a_token_is_void_after_its_time_and_after_a_new_password_or_e_mail(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        let ann = service.sign_up("ann@example.com");
        let old = token(&asking, &ann.id);
        let body = json!({ "currentPassword": PASSWORD, "newPassword": NEW });
        assert_eq!(service.post("/auth/password").bearer(&ann.access).json(body).send().status, 200);
        assert_eq!(reset(service, &old).0, 401);
        let old = token(&asking, &ann.id);
        asking.change(&ann.id, json!({ "name": "Ann", "emailVerified": true }));
        asking.change(&ann.id, json!({ "email": "ann@example.org" }));
        assert_eq!(reset(service, &old).0, 401);
        let old = token(&asking, &ann.id);
        service.advance(3599);
        let later = token(&asking, &ann.id);
        service.advance(1);
        assert_eq!((reset(service, &old).0, reset(service, &later).0), (401, 200));
        // Access tokens have expired, too.
        let boss = service.log_in("boss@example.com");
        let asking = Asking { service, access: &boss.access };
        token(&asking, &ann.id);
        assert_eq!(asking.ask("DELETE", &format!("/admin/users/{}", ann.id), None).status, 200);
        assert_eq!(service.count("SELECT COUNT(*) FROM one_time_tokens"), 0);
    }

    fn a_password_that_breaks_the_rules_leaves_the_token_good_and_so_does_a_pause(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        let ann = service.sign_up("ann@example.com");
        let token = token(&asking, &ann.id);
        for (body, rules) in [
            (json!({ "token": token, "password": "short" }), &["password must be longer than or equal to 8 characters"][..]),
            (json!({ "token": token, "password": "Password1" }), &["password is too common"]),
            (json!({ "password": NEW }), &["token must be a string"]),
        ] {
            let answer = service.post("/auth/reset-password").json(body).send();
            assert_eq!(said(&answer), (400, broken_rules(rules)));
        }
        asking.change(&ann.id, json!({ "isActive": false }));
        assert_eq!(reset(service, &token), (401, error(401, NOT_GOOD)));
        asking.change(&ann.id, json!({ "isActive": true }));
        assert_eq!(reset(service, &token).0, 200);
    }

    fn a_reset_ends_all_sessions_and_the_keys_of_an_address_that_was_never_verified(service) {
        service.set("RATE_LIMIT_WRITES", "off");
        service.restart();
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        for (email, verified) in [("ann@example.com", false), ("bob@example.com", true)] {
            let user = service.sign_up(email);
            asking.change(&user.id, json!({ "emailVerified": verified, "maxKeys": 250 }));
            let second = service.log_in(email);
            // They end in parts of a hundred.
            let keys: Vec<String> = (0..if verified { 2 } else { 201 })
                .map(|_| service.create_key(&user.access, json!({ "name": "ci" }))["key"].as_str().unwrap().to_string())
                .collect();
            let ends = [&keys[0], &keys[keys.len() - 1]];
            assert!(ends.iter().all(|key| service.key_status(key) == 200));
            assert_eq!(service.token_status(&second.access), 200);
            assert_eq!(reset(service, &token(&asking, &user.id)).0, 200);
            let expected = if verified { 200 } else { 401 };
            assert!(ends.iter().all(|key| service.key_status(key) == expected), "{email}");
            assert_eq!((service.token_status(&user.access), service.token_status(&second.access)), (401, 401));
            assert_eq!((log_in_status(service, email, PASSWORD), log_in_status(service, email, NEW)), (401, 200));
            let revoked = asking.get(&format!("/admin/events?userId={}&type=key.revoked&limit=100", user.id));
            assert_eq!(revoked.as_array().unwrap().len(), if verified { 0 } else { 100 });
            let reset = asking.get(&format!("/admin/events?userId={}&type=password.reset", user.id));
            assert_eq!(reset[0]["details"], json!({ "sessions": 2 }));
        }
    }

    fn the_link_is_to_the_page_that_the_operator_has_named(service) {
        let boss = operator(service, "boss@example.com");
        service.set("RESET_URL", "https://app.example.com/reset#{token}");
        service.reconfigure(|config| config.accounts.reset_lifetime = WEEK);
        let asking = Asking { service, access: &boss.access };
        let made = asking.ask("POST", &format!("/admin/users/{}/reset-password", boss.id), None).json();
        let url = format!("https://app.example.com/reset#{}", made["token"].as_str().unwrap());
        assert_eq!(made["url"], json!(url));
        let expires_at = service.clock.now().plus(WEEK).to_string();
        assert_eq!(made["expiresAt"], json!(expires_at));
        let nobody = asking.ask("POST", "/admin/users/01890000-0000-7000-8000-000000000000/reset-password", None);
        assert_eq!(said(&nobody), (404, error(404, "User not found")));
    }

    fn tries_of_tokens_are_limited_by_address_apart_from_logins(service) {
        let ann = service.sign_up("ann@example.com");
        service.set("RATE_LIMIT_LOGIN", "2/1m");
        service.restart();
        let statuses: Vec<u16> = (0..3).map(|_| reset(service, "x").0).collect();
        assert_eq!(statuses, [401, 401, 429]);
        assert_eq!(log_in_status(service, &ann.email, PASSWORD), 200);
    }
}
