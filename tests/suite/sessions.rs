//! Where one is logged in, the ends of sessions, and one's own password and account.

use std::time::{Duration, Instant};

use keyward_harness::forge::claims;
use keyward_harness::http_client::Answer;
use keyward_harness::service::{Account, Backend, PASSWORD, Service, account, broken_rules, error, on_both_stores};
use serde_json::{Value, json};

const NEW_PASSWORD: &str = "another Password";

fn said(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.json())
}

fn message(text: &str) -> (u16, Value) {
    (200, json!({ "message": text }))
}

fn unauthorized() -> (u16, Value) {
    (401, error(401, "Unauthorized"))
}

fn invalid_credentials() -> (u16, Value) {
    (401, error(401, "Invalid credentials"))
}

#[track_caller]
fn sessions(service: &Service, access: &str) -> Vec<Value> {
    let answer = service.get("/auth/sessions").bearer(access).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json().as_array().unwrap().clone()
}

fn session_id(account: &Account) -> String {
    claims(&account.access)["sid"].as_str().unwrap().to_string()
}

fn refresh(service: &Service, token: &str) -> Answer {
    service.post("/auth/refresh").json(json!({ "refreshToken": token })).send()
}

#[track_caller]
fn refreshed(service: &Service, token: &str) -> (String, String) {
    let answer = refresh(service, token);
    assert_eq!(answer.status, 200, "{answer:?}");
    let token = |name: &str| answer.json()[name].as_str().unwrap().to_string();
    (token("accessToken"), token("refreshToken"))
}

fn log_in_status(service: &Service, email: &str, password: &str) -> u16 {
    service.post("/auth/login").json(json!({ "email": email, "password": password })).send().status
}

fn change_password(service: &Service, access: &str, current: &str, new: &str) -> Answer {
    let body = json!({ "currentPassword": current, "newPassword": new });
    service.post("/auth/password").bearer(access).json(body).send()
}

fn delete_me(service: &Service, access: &str, password: &str) -> Answer {
    service.delete("/auth/me").bearer(access).json(json!({ "password": password })).send()
}

/// A token that lives on, or one whose session has ended: neither half of it is worth anything.
#[track_caller]
fn assert_ended(service: &Service, account: &Account) {
    assert_eq!(service.token_status(&account.access), 401);
    assert_eq!(said(&refresh(service, &account.refresh)), unauthorized());
}

/// How many rows of a table there are.
fn rows(service: &Service, table: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM {table}");
    match service.database() {
        Some(database) => database.client().query_one(&sql, &[]).unwrap().get(0),
        None => {
            let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
            file.query_row(&sql, [], |row| row.get(0)).unwrap()
        }
    }
}

on_both_stores! {
    fn sessions_are_listed_newest_first_with_where_they_come_from(service) {
        let ann = service.sign_up("ann@example.com");
        service.sign_up("bob@example.com");
        service.advance(60);
        let body = json!({ "email": "ann@example.com", "password": PASSWORD });
        let phone = account(&service.post("/auth/login").header("user-agent", "phone/1").json(body).send().json());
        service.advance(60);
        let (access, _) = refreshed(service, &ann.refresh);
        let listed = sessions(service, &access);
        assert_eq!(listed.len(), 2);
        let expected = |account: &Account, listed: &Value, agent: Value, current: bool| json!({
            "id": session_id(account),
            "createdAt": listed["createdAt"],
            "lastUsedAt": listed["lastUsedAt"],
            "expiresAt": listed["expiresAt"],
            "ip": "127.0.0.1",
            "userAgent": agent,
            "current": current,
        });
        assert_eq!(listed[0], expected(&phone, &listed[0], json!("phone/1"), false));
        assert_eq!(listed[1], expected(&ann, &listed[1], Value::Null, true));
        assert_eq!(listed[0]["lastUsedAt"], listed[0]["createdAt"]);
        let time = |listed: &Value, name: &str| listed[name].as_str().unwrap().to_string();
        assert!(time(&listed[1], "createdAt") < time(&listed[0], "createdAt"));
        assert!(time(&listed[0], "lastUsedAt") < time(&listed[1], "lastUsedAt"));
        assert!(time(&listed[0], "expiresAt") < time(&listed[1], "expiresAt"));
    }

    fn ended_and_expired_sessions_are_not_listed(service) {
        let ann = service.sign_up("ann@example.com");
        let out = service.log_in(&ann.email);
        service.post("/auth/logout").bearer(&out.access).send();
        service.advance(6 * 86400);
        let now = service.log_in(&ann.email);
        assert_eq!(sessions(service, &now.access).len(), 2);
        service.advance(86400);
        // A new access token of the session that is left.
        let (access, _) = refreshed(service, &now.refresh);
        let ids: Vec<Value> = sessions(service, &access).iter().map(|session| session["id"].clone()).collect();
        assert_eq!(ids, [json!(session_id(&now))]);
    }

    fn a_session_that_is_ended_is_out_at_once_and_for_good(service) {
        let ann = service.sign_up("ann@example.com");
        let (lost, kept) = (service.log_in(&ann.email), service.log_in(&ann.email));
        assert_eq!(service.token_status(&lost.access), 200);
        let path = format!("/auth/sessions/{}", session_id(&lost));
        assert_eq!(said(&service.delete(&path).bearer(&ann.access).send()), message("Session ended successfully"));
        assert_ended(service, &lost);
        assert_eq!((service.token_status(&ann.access), service.token_status(&kept.access)), (200, 200));
        assert_eq!(sessions(service, &ann.access).len(), 2);
        let again = service.delete(&path).bearer(&ann.access).send();
        assert_eq!(said(&again), (404, error(404, "Session not found")));
    }

    fn the_session_that_asks_may_end_itself(service) {
        let ann = service.sign_up("ann@example.com");
        let path = format!("/auth/sessions/{}", session_id(&ann));
        assert_eq!(service.delete(&path).bearer(&ann.access).send().status, 200);
        assert_ended(service, &ann);
    }

    fn nobody_ends_a_session_that_is_not_theirs(service) {
        let ann = service.sign_up("ann@example.com");
        let bob = service.sign_up("bob@example.com");
        let his = session_id(&bob);
        for id in [his.as_str(), "01a20dce-a5bf-766d-8c42-0f65cf336c4a", "x", "%20"] {
            let answer = service.delete(&format!("/auth/sessions/{id}")).bearer(&ann.access).send();
            assert_eq!(said(&answer), (404, error(404, "Session not found")), "{id}");
        }
        assert_eq!(service.token_status(&bob.access), 200);
    }

    fn ending_all_others_leaves_the_session_that_asks(service) {
        let ann = service.sign_up("ann@example.com");
        let bob = service.sign_up("bob@example.com");
        let others = [service.log_in(&ann.email), service.log_in(&ann.email)];
        assert!(others.iter().all(|other| service.token_status(&other.access) == 200));
        for _ in 0..2 {
            let answer = service.delete("/auth/sessions").bearer(&ann.access).send();
            assert_eq!(said(&answer), message("Other sessions ended successfully"));
        }
        others.iter().for_each(|other| assert_ended(service, other));
        assert_eq!((service.token_status(&ann.access), service.token_status(&bob.access)), (200, 200));
        assert_eq!(sessions(service, &ann.access).len(), 1);
        refreshed(service, &ann.refresh);
    }

    fn a_changed_password_ends_every_session_and_opens_another_one(service) {
        let ann = service.sign_up("ann@example.com");
        let other = service.log_in(&ann.email);
        let key = service.create_key(&ann.access, json!({ "name": "ci" }));
        let answer = change_password(service, &ann.access, PASSWORD, NEW_PASSWORD);
        assert_eq!((answer.status, &answer.json()["message"]), (200, &json!("Password changed successfully")));
        let token = |name: &str| answer.json()[name].as_str().unwrap().to_string();
        let (access, refresh_token) = (token("accessToken"), token("refreshToken"));
        assert_ended(service, &other);
        assert_ended(service, &ann);
        assert_ne!(claims(&access)["sid"], claims(&ann.access)["sid"]);
        assert_eq!((service.token_status(&access), sessions(service, &access).len()), (200, 1));
        refreshed(service, &refresh_token);
        assert_eq!(service.key_status(key["key"].as_str().unwrap()), 200);
        assert_eq!(log_in_status(service, &ann.email, PASSWORD), 401);
        assert_eq!(log_in_status(service, &ann.email, NEW_PASSWORD), 200);
    }

    fn without_the_current_password_nothing_changes(service) {
        let ann = service.sign_up("ann@example.com");
        let other = service.log_in(&ann.email);
        let answer = change_password(service, &ann.access, "Password123?", NEW_PASSWORD);
        assert_eq!(said(&answer), invalid_credentials());
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert_eq!((service.token_status(&ann.access), service.token_status(&other.access)), (200, 200));
        assert_eq!(log_in_status(service, &ann.email, PASSWORD), 200);
        assert_eq!(log_in_status(service, &ann.email, NEW_PASSWORD), 401);
    }

    fn a_new_password_follows_the_rules_and_is_a_new_one(service) {
        let ann = service.sign_up("ann@example.com");
        let short = "newPassword must be longer than or equal to 8 characters";
        for (body, rules) in [
            (json!({ "currentPassword": PASSWORD, "newPassword": "short" }), vec![short]),
            (json!({ "currentPassword": PASSWORD, "newPassword": PASSWORD }), vec!["newPassword must differ from the current password"]),
            (json!({}), vec!["currentPassword must be a string", short, "newPassword must be a string"]),
            (json!({ "currentPassword": PASSWORD, "newPassword": "ä".repeat(37) }), vec!["newPassword must be shorter than or equal to 72 bytes"]),
            (json!({ "currentPassword": PASSWORD, "newPassword": NEW_PASSWORD, "password": "x" }), vec!["property password should not exist"]),
        ] {
            let answer = service.post("/auth/password").bearer(&ann.access).json(body.clone()).send();
            assert_eq!(said(&answer), (400, broken_rules(&rules)), "{body}");
        }
        assert_eq!(log_in_status(service, &ann.email, PASSWORD), 200);
    }

    fn a_deleted_account_takes_with_it_all_that_hangs_on_it(service) {
        let ann = service.sign_up("ann@example.com");
        let other = service.log_in(&ann.email);
        let key = service.create_key(&ann.access, json!({ "name": "ci" }));
        let key = key["key"].as_str().unwrap();
        assert_eq!((service.key_status(key), service.token_status(&other.access)), (200, 200));
        // What was counted so far is written.
        service.restart();
        let bob = service.sign_up("bob@example.com");
        let his = service.create_key(&bob.access, json!({ "name": "ci" }));

        assert_eq!(said(&delete_me(service, &ann.access, PASSWORD)), message("Account deleted successfully"));
        assert_ended(service, &ann);
        assert_ended(service, &other);
        assert_eq!(service.key_status(key), 401);
        assert_eq!(log_in_status(service, &ann.email, PASSWORD), 401);
        assert_eq!((service.token_status(&bob.access), service.key_status(his["key"].as_str().unwrap())), (200, 200));
        service.stop();
        for (table, left) in [("users", 1), ("sessions", 1), ("api_keys", 1), ("key_hours", 1)] {
            assert_eq!(rows(service, table), left, "{table}");
        }
        service.restart();
        // The address is free again.
        service.sign_up("ann@example.com");
    }

    fn without_the_password_an_account_stays(service) {
        let ann = service.sign_up("ann@example.com");
        let answer = delete_me(service, &ann.access, "Password123?");
        assert_eq!(said(&answer), invalid_credentials());
        let bare = service.delete("/auth/me").bearer(&ann.access).send();
        assert_eq!(said(&bare), (400, broken_rules(&["password must be a string"])));
        let confused = service.delete("/auth/me").bearer(&ann.access).json(json!({ "pasword": PASSWORD })).send();
        let rules = ["property pasword should not exist", "password must be a string"];
        assert_eq!(said(&confused), (400, broken_rules(&rules)));
        assert_eq!(said(&service.delete("/auth/me").json(json!({ "password": PASSWORD })).send()), unauthorized());
        assert_eq!((service.token_status(&ann.access), log_in_status(service, &ann.email, PASSWORD)), (200, 200));
    }
}

on_both_stores! {
    fn what_a_user_ends_ends_on_other_instances_before_they_would_forget_it(service) {
        let (sibling, there) = service.sibling();
        let ann = service.sign_up("ann@example.com");
        let status = |token: &str| there.get("/protected/user-only").bearer(token).send().status;
        let end: [&dyn Fn(&Account) -> Answer; 4] = [
            &|lost| service.delete(&format!("/auth/sessions/{}", session_id(lost))).bearer(&ann.access).send(),
            &|_| service.delete("/auth/sessions").bearer(&ann.access).send(),
            &|lost| change_password(service, &lost.access, PASSWORD, NEW_PASSWORD),
            &|lost| delete_me(service, &lost.access, NEW_PASSWORD),
        ];
        for (number, end) in end.iter().enumerate() {
            let password = if number < 3 { PASSWORD } else { NEW_PASSWORD };
            let body = json!({ "email": ann.email, "password": password });
            let lost = account(&service.post("/auth/login").json(body).send().json());
            assert_eq!(status(&lost.access), 200);
            let remembered = Instant::now();
            assert_eq!(end(&lost).status, 200);
            while status(&lost.access) != 401 {
                assert!(remembered.elapsed() < Duration::from_secs(4), "{number}");
            }
        }
        sibling.stop();
    }
}

#[track_caller]
fn on_both(settings: &[(&str, &str)], story: fn(&Service)) {
    for backend in Backend::installed() {
        story(&Service::start_with(backend, settings, |_| {}));
    }
}

fn lifetime(token: &str) -> i64 {
    claims(token)["exp"].as_i64().unwrap() - claims(token)["iat"].as_i64().unwrap()
}

#[test]
fn no_refresh_takes_a_session_beyond_its_max_age() {
    on_both(&[("SESSION_MAX_AGE", "10h"), ("JWT_REFRESH_EXPIRES_IN", "4h")], |service| {
        let ann = service.sign_up("ann@example.com");
        let mut pair = (ann.access, ann.refresh);
        for _ in 0..3 {
            service.advance(3 * 3600 + 600);
            pair = refreshed(service, &pair.1);
        }
        // Half an hour is left: both tokens say so, and so does the list.
        let left = 30 * 60;
        assert_eq!((lifetime(&pair.0), lifetime(&pair.1)), (left, left));
        let listed = sessions(service, &pair.0);
        let time = |name: &str| keyward::base::clock::Timestamp::parse(listed[0][name].as_str().unwrap()).unwrap();
        assert_eq!(time("expiresAt").millis() - time("createdAt").millis(), 10 * 3600 * 1000);
        service.advance(20 * 60);
        assert_eq!(service.token_status(&pair.0), 200);
        pair = refreshed(service, &pair.1);
        service.advance(10 * 60);
        assert_eq!(service.token_status(&pair.0), 401);
        assert_eq!(said(&refresh(service, &pair.1)), unauthorized());
        assert_eq!(log_in_status(service, &ann.email, PASSWORD), 200);
    });
}

#[test]
fn an_idle_session_ends_and_one_in_use_does_not() {
    on_both(&[("SESSION_IDLE", "30m")], |service| {
        let ann = service.sign_up("ann@example.com");
        let mut pair = (ann.access, ann.refresh);
        // Half of it: when the access token has run out, there is time left to refresh.
        assert_eq!((lifetime(&pair.0), lifetime(&pair.1)), (15 * 60, 30 * 60));
        for _ in 0..4 {
            service.advance(29 * 60);
            assert_eq!(service.token_status(&pair.0), 401);
            pair = refreshed(service, &pair.1);
            assert_eq!(service.token_status(&pair.0), 200);
        }
        service.advance(30 * 60);
        assert_eq!(said(&refresh(service, &pair.1)), unauthorized());
    });
}

#[test]
fn a_session_from_before_a_setting_is_judged_by_it_at_its_next_refresh() {
    for backend in Backend::installed() {
        for setting in ["SESSION_MAX_AGE", "SESSION_IDLE"] {
            let mut service = Service::start(backend);
            let (old, young) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
            service.advance(3 * 3600);
            let (_, young) = refreshed(&service, &young.refresh);
            service.set(setting, "2h");
            service.restart();
            assert_eq!(said(&refresh(&service, &old.refresh)), unauthorized(), "{setting}");
            // Refreshed just now, so not idle, but as old as the other one.
            let expected = if setting == "SESSION_IDLE" { 200 } else { 401 };
            assert_eq!(refresh(&service, &young).status, expected, "{setting}");
        }
    }
}

fn id_of(email: &str) -> String {
    format!("(SELECT id FROM users WHERE email = '{email}')")
}

/// Puts sessions of a user's into the database, past the server: ten an hour, from the year 2020 on, that end in 2999.
fn insert_sessions(service: &Service, email: &str, sessions: i64, columns: &str, values: &str) {
    let (id, at) = match service.database() {
        Some(_) => (
            "CAST('00000000-0000-7000-8000-' || (100000000000 + i) AS UUID)",
            "TIMESTAMPTZ '2020-01-01T00:00:00Z' + i * INTERVAL '6 minutes'",
        ),
        None => (
            "'00000000-0000-7000-8000-' || (100000000000 + i)",
            "strftime('%Y-%m-%dT%H:%M:%fZ', '2020-01-01', (i * 6) || ' minutes')",
        ),
    };
    service.execute(&format!(
        "WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {sessions}) \
         INSERT INTO sessions (id, user_id, generation, created_at, expires_at, ip{columns}) \
         SELECT {id}, {}, 1, {at}, '2999-01-01T00:00:00.000Z', '192.0.2.1'{values} FROM numbers",
        id_of(email)
    ));
}

on_both_stores! {
    fn ending_tens_of_thousands_of_sessions_at_once_is_no_more_work_than_ending_one(service) {
        const MANY: i64 = 30_000;
        let ann = service.sign_up("ann@example.com");
        let (other, bob) = (service.log_in(&ann.email), service.sign_up("bob@example.com"));
        insert_sessions(service, &ann.email, MANY, "", "");
        // Somebody holds one of the rows: it is not waited for.
        let holder = service.database().map(|database| {
            let mut client = database.client();
            let lock = "BEGIN; UPDATE sessions SET ip = ip WHERE created_at < '2020-01-01T00:07:00Z'";
            client.batch_execute(lock).unwrap();
            client
        });
        let touched = "SELECT COUNT(*) FROM sessions WHERE ended_at IS NOT NULL OR epoch <> 0";
        let answer = service.delete("/auth/sessions").bearer(&ann.access).send();
        assert_eq!(said(&answer), message("Other sessions ended successfully"));
        assert_ended(service, &other);
        assert_eq!((service.token_status(&ann.access), sessions(service, &ann.access).len()), (200, 1));
        assert_eq!(service.count(touched), 1);
        let events = service.get("/auth/events").bearer(&ann.access).send().json();
        assert_eq!((&events[0]["type"], &events[0]["details"]["sessions"]), (&json!("session.ended"), &json!(1000)));
        // As for the operator.
        service.operator(&["user", "deactivate", &ann.email]);
        assert_ended(service, &ann);
        service.operator(&["user", "activate", &ann.email]);
        let again = service.log_in(&ann.email);
        assert_eq!(sessions(service, &again.access).len(), 1);
        assert_ended(service, &ann);
        drop(holder);
        assert_eq!(service.token_status(&bob.access), 200);
    }

    fn what_has_ended_is_kept_for_its_addresses_and_no_more_of_it(service) {
        let ann = service.sign_up("ann@example.com");
        insert_sessions(service, &ann.email, 500, ", ended_at", ", '2026-01-01T00:00:00.000Z'");
        for _ in 0..5 {
            service.log_in(&ann.email);
        }
        let ended = "SELECT COUNT(*) FROM sessions WHERE ended_at IS NOT NULL";
        assert_eq!(service.count(ended), 200);
        // The latest ones.
        let oldest = "SELECT COUNT(*) FROM sessions WHERE ended_at IS NOT NULL AND created_at < '2020-01-02T06:06:00.000Z'";
        assert_eq!(service.count(oldest), 0);
        // As of those that were ended all at once.
        service.execute("DELETE FROM sessions WHERE ended_at IS NOT NULL");
        insert_sessions(service, &ann.email, 500, "", "");
        assert_eq!(service.delete("/auth/sessions").bearer(&ann.access).send().status, 200);
        for _ in 0..5 {
            service.log_in(&ann.email);
        }
        assert_eq!(service.count("SELECT COUNT(*) FROM sessions WHERE epoch = 0"), 200);
        assert_eq!(sessions(service, &ann.access).len(), 6);
    }
}

#[test]
fn of_too_many_sessions_those_that_were_never_refreshed_end_first() {
    on_both(&[("MAX_SESSIONS_PER_USER", "4")], |service| {
        let ann = service.sign_up("ann@example.com");
        let mut browsers = Vec::new();
        for _ in 0..2 {
            service.advance(60);
            let browser = service.log_in(&ann.email);
            service.advance(60);
            browsers.push(refreshed(service, &browser.refresh).0);
        }
        // A script: three of its sessions fit beside the browsers', with the first one of all.
        let script: Vec<Account> = (0..4)
            .map(|_| {
                service.advance(60);
                assert!(browsers.iter().all(|access| service.token_status(access) == 200));
                service.log_in(&ann.email)
            })
            .collect();
        assert_ended(service, &ann);
        for ended in &script[..2] {
            assert_ended(service, ended);
        }
        for access in browsers.iter().chain([&script[2].access, &script[3].access]) {
            assert_eq!(service.token_status(access), 200);
        }
        assert_eq!(sessions(service, &script[3].access).len(), 4);
        let events = service.get("/auth/events").bearer(&script[3].access).send().json();
        let ended: Vec<&Value> =
            events.as_array().unwrap().iter().filter(|event| event["type"] == "session.ended").collect();
        let expected =
            [&script[1], &script[0], &ann].map(|account| json!({ "type": "session", "id": session_id(account) }));
        assert_eq!(ended.iter().map(|event| event["subject"].clone()).collect::<Vec<_>>(), expected);
        assert!(ended.iter().all(|event| event["details"] == json!({ "reason": "limit" })));
    });
}

#[test]
fn where_all_were_refreshed_the_one_that_rested_longest_makes_room() {
    on_both(&[("MAX_SESSIONS_PER_USER", "2")], |service| {
        let ann = service.sign_up("ann@example.com");
        let other = service.log_in(&ann.email);
        service.advance(60);
        let (rested, _) = refreshed(service, &other.refresh);
        service.advance(60);
        let (used, _) = refreshed(service, &ann.refresh);
        service.advance(60);
        let new = service.log_in(&ann.email);
        let statuses = [&rested, &used, &new.access].map(|access| service.token_status(access));
        assert_eq!(statuses, [401, 200, 200]);
    });
}
