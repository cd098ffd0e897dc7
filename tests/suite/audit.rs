//! The audit trail: each kind of event with what it says, who may read it, and what is never in it.

use std::time::{Duration, Instant};

use keyward_harness::forge::claims;
use keyward_harness::http_client::{Client, Request};
use keyward_harness::program::Home;
use keyward_harness::service::{Account, PASSWORD, Service, account, broken_rules, on_both_stores};
use serde_json::{Value, json};

const NEW_PASSWORD: &str = "another Password";
const WRONG_PASSWORD: &str = "not the Password";

fn session_of(access: &str) -> String {
    claims(access)["sid"].as_str().unwrap().to_string()
}

/// One's own events, as the route gives them.
#[track_caller]
fn events(service: &Service, access: &str, query: &str) -> Vec<Value> {
    let answer = service.get(&format!("/auth/events{query}")).bearer(access).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json().as_array().unwrap().clone()
}

/// Everyone's, as the command line gives them.
#[track_caller]
fn all_events(service: &Service, arguments: &[&str]) -> Vec<Value> {
    let output = service.operator(&[&["events", "--json"], arguments].concat());
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"))
}

/// The types, in order.
fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

/// What a test cannot know before: the id and the time.
fn without_id_and_time(mut event: Value) -> Value {
    let fields = event.as_object_mut().unwrap();
    assert!(fields.remove("id").is_some() && fields.remove("at").is_some());
    event
}

/// An event of one request, as it is shown.
fn event(kind: &str, user: &str, actor: Value, subject: Value, request: &str, details: Value) -> Value {
    json!({
        "type": kind,
        "userId": user,
        "actor": actor,
        "subject": subject,
        "ip": "127.0.0.1",
        "requestId": request,
        "details": details,
        "count": 1,
    })
}

fn log_in(client: &Client, email: &str, password: &str) -> Value {
    client.post("/auth/login").json(json!({ "email": email, "password": password })).send().json()
}

#[track_caller]
fn succeed(request: Request<'_>, id: &str) -> Value {
    let answer = request.header("x-request-id", id).send();
    assert!((200..300).contains(&answer.status), "{answer:?}");
    answer.json()
}

fn execute(service: &Service, sql: &str) {
    match service.database() {
        Some(database) => database.client().batch_execute(sql).unwrap(),
        None => rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap().execute_batch(sql).unwrap(),
    }
}

fn number(service: &Service, sql: &str) -> Option<i64> {
    match service.database() {
        Some(database) => database.client().query_one(sql, &[]).unwrap().get(0),
        None => {
            let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
            file.query_row(sql, [], |row| row.get(0)).unwrap()
        }
    }
}

/// Everything in the table, as one text.
fn dump(service: &Service) -> String {
    match service.database() {
        Some(database) => {
            let rows = database.client().query("SELECT events::text FROM events", &[]).unwrap();
            rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
        }
        None => {
            let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
            let mut statement = file.prepare("SELECT * FROM events").unwrap();
            let columns = statement.column_count();
            let rows = statement.query_map([], |row| {
                (0..columns).map(|column| row.get::<_, rusqlite::types::Value>(column)).collect::<Result<Vec<_>, _>>()
            });
            rows.unwrap().map(|row| format!("{:?}\n", row.unwrap())).collect()
        }
    }
}

/// One account, with every action that there is, each by a request of its own. Failures are written when this returns.
struct Story {
    user: String,
    /// The session of the sign-up, one that ends for each reason, and the last one.
    sessions: Vec<String>,
    key: String,
    /// What must be in no event.
    secrets: Vec<String>,
}

fn live(service: &mut Service) -> Story {
    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "name": "Ann Example" });
    let ann = account(&succeed(service.post("/auth/signup").json(body), "signup"));
    let again = |password: &str, id: &str| {
        let body = json!({ "email": "ann@example.com", "password": password });
        account(&succeed(service.post("/auth/login").json(body), id))
    };
    let mut secrets: Vec<String> =
        [PASSWORD, NEW_PASSWORD, WRONG_PASSWORD, "ann@example.com", "Ann Example", "the key's name", "$2b$"]
            .map(String::from)
            .into();
    let mut sessions = vec![session_of(&ann.access)];
    let mut remember = |account: &Account| {
        sessions.push(session_of(&account.access));
        secrets.extend([account.access.clone(), account.refresh.clone()]);
    };
    remember(&ann);

    let logged_out = again(PASSWORD, "login");
    succeed(service.post("/auth/logout").bearer(&logged_out.access), "logout");
    let ended = again(PASSWORD, "login-2");
    succeed(service.delete(&format!("/auth/sessions/{}", session_of(&ended.access))).bearer(&ann.access), "end");
    let others = [again(PASSWORD, "login-3"), again(PASSWORD, "login-4")];
    succeed(service.delete("/auth/sessions").bearer(&ann.access), "end-others");

    let stolen = again(PASSWORD, "login-5");
    let refresh = json!({ "refreshToken": stolen.refresh });
    let moved = succeed(service.post("/auth/refresh").json(refresh.clone()), "refresh");
    service.advance(11);
    let moved = json!({ "refreshToken": moved["refreshToken"] });
    let pair = succeed(service.post("/auth/refresh").json(moved), "refresh-2");
    let answer = service.post("/auth/refresh").header("x-request-id", "theft").json(refresh).send();
    assert_eq!(answer.status, 401, "{answer:?}");

    let key = succeed(
        service.post("/keys/create").bearer(&ann.access).json(json!({ "name": "the key's name" })),
        "create-key",
    );
    let key_id = key["id"].as_str().unwrap().to_string();
    assert_eq!(service.key_status(key["key"].as_str().unwrap()), 200);
    for id in ["revoke", "revoke-again"] {
        succeed(service.delete(&format!("/keys/{key_id}")).bearer(&ann.access), id);
    }

    let other = again(PASSWORD, "login-6");
    let password = |current: &str| json!({ "currentPassword": current, "newPassword": NEW_PASSWORD });
    let refused = service.post("/auth/password").bearer(&ann.access).json(password(WRONG_PASSWORD)).send();
    assert_eq!(refused.status, 401);
    let changed = succeed(service.post("/auth/password").bearer(&ann.access).json(password(PASSWORD)), "password");
    assert_eq!(log_in(&service.client(), "ann@example.com", WRONG_PASSWORD)["statusCode"], 401);

    for account in [&logged_out, &ended, &others[0], &others[1], &stolen, &other] {
        remember(account);
    }
    sessions.remove(0);
    sessions.push(session_of(changed["accessToken"].as_str().unwrap()));
    secrets.extend(
        [&pair["accessToken"], &pair["refreshToken"], &changed["accessToken"], &changed["refreshToken"], &key["key"]]
            .map(|text| text.as_str().unwrap().to_string()),
    );
    secrets.push(key["key"].as_str().unwrap()[3..].to_string());
    service.restart();
    Story { user: ann.id, sessions, key: key_id, secrets }
}

on_both_stores! {
    fn what_a_user_does_is_written_with_who_what_where_and_by_which_request(service) {
        let story = live(service);
        let Story { user, sessions, key, .. } = &story;
        let by = |session: &String| json!({ "type": "user", "sessionId": session });
        let (ann, anonymous) = (by(&sessions[0]), json!({ "type": "anonymous" }));
        let on = |kind: &str, id: &String| json!({ "type": kind, "id": id });
        let itself = on("user", user);
        let session = |number: usize| on("session", &sessions[number]);
        let login = |number: usize, id: &str| event("session.opened", user, by(&sessions[number]), session(number), id, json!({}));
        let failed = |kind: &str, actor: &Value| json!({
            "type": kind,
            "userId": user,
            "actor": actor,
            "subject": itself,
            "ip": "127.0.0.1",
            "requestId": null,
            "details": {},
            "count": 1,
        });
        let expected = [
            event("user.signed_up", user, ann.clone(), itself.clone(), "signup", json!({})),
            login(1, "login"),
            event("session.ended", user, by(&sessions[1]), session(1), "logout", json!({})),
            login(2, "login-2"),
            event("session.ended", user, ann.clone(), session(2), "end", json!({})),
            login(3, "login-3"),
            login(4, "login-4"),
            event("session.ended", user, ann.clone(), itself.clone(), "end-others", json!({ "sessions": 2 })),
            login(5, "login-5"),
            event("session.reuse_detected", user, anonymous.clone(), session(5), "theft", json!({})),
            event("key.created", user, ann.clone(), on("key", key), "create-key", json!({})),
            event("key.revoked", user, ann.clone(), on("key", key), "revoke", json!({})),
            login(6, "login-6"),
            event("password.changed", user, ann.clone(), itself.clone(), "password", json!({ "sessions": 2 })),
            event("session.opened", user, ann.clone(), session(7), "password", json!({})),
        ];
        // Failures are counted by the minute, and told at its beginning.
        let mut written: Vec<Value> = all_events(service, &[]).into_iter().map(without_id_and_time).collect();
        let (failures, rest): (Vec<_>, Vec<_>) = written.drain(..).partition(|event| event["requestId"].is_null());
        assert_eq!(rest, expected);
        assert_eq!(failures.len(), 2);
        for failure in [failed("login.failed", &anonymous), failed("password.failed", &ann)] {
            assert!(failures.contains(&failure), "{failures:?} lacks {failure}");
        }

        // The user sees the same, newest first.
        let access = log_in(&service.client(), "ann@example.com", NEW_PASSWORD)["accessToken"].clone();
        let mut own = events(service, access.as_str().unwrap(), "");
        assert_eq!(own[0]["type"], "session.opened");
        own.reverse();
        assert_eq!(own, all_events(service, &[]));
    }

    fn what_the_operator_does_is_written_as_theirs(service) {
        let home = Home::beside(service);
        let line = format!("{PASSWORD}\n");
        let made = home.run_reading(&["user", "create", "ann@example.com", "--json"], &line).succeeded();
        let made: Value = serde_json::from_str(&made).unwrap();
        let ann = service.log_in("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci" }));
        let key = key["id"].as_str().unwrap();
        for _ in 0..2 {
            home.run(&["key", "revoke", key]).succeeded();
            home.run(&["user", "deactivate", &ann.email]).succeeded();
        }
        for _ in 0..2 {
            home.run(&["user", "activate", &ann.email]).succeeded();
        }
        service.log_in(&ann.email);
        home.run_reading(&["user", "set-password", &ann.email], &format!("{NEW_PASSWORD}\n")).succeeded();
        home.run(&["user", "delete", &ann.email]).succeeded();
        // They outlive the account, and are found by its id.
        let written = all_events(service, &["--user", &ann.id]);
        assert_eq!((&written, &made["id"]), (&all_events(service, &[]), &json!(ann.id)));
        let expected = |kind: &str, subject: &str, id: &str, details: Value| json!({
            "type": kind,
            "userId": ann.id,
            "actor": { "type": "operator" },
            "subject": { "type": subject, "id": id },
            "ip": null,
            "requestId": null,
            "details": details,
            "count": 1,
        });
        let his: Vec<Value> = written
            .into_iter()
            .filter(|event| event["actor"]["type"] == "operator")
            .map(without_id_and_time)
            .collect();
        assert_eq!(his, [
            expected("user.created", "user", &ann.id, json!({})),
            expected("key.revoked", "key", key, json!({})),
            expected("user.deactivated", "user", &ann.id, json!({ "sessions": 1 })),
            expected("user.activated", "user", &ann.id, json!({})),
            expected("user.password_set", "user", &ann.id, json!({ "sessions": 1 })),
            expected("user.deleted", "user", &ann.id, json!({})),
        ]);
    }

    fn no_event_holds_a_secret_or_what_somebody_wrote(service) {
        let story = live(service);
        let table = dump(service);
        assert!(table.contains(&story.user) && table.contains("password.changed"), "{table}");
        for secret in &story.secrets {
            assert!(!table.contains(secret.as_str()), "{secret} is in {table}");
        }
    }

    fn where_nothing_changes_there_is_no_event(service) {
        let ann = service.sign_up("ann@example.com");
        assert_eq!(service.post("/auth/signup").json(json!({ "email": ann.email, "password": PASSWORD })).send().status, 409);
        assert_eq!(service.delete("/auth/sessions").bearer(&ann.access).send().status, 200);
        assert_eq!(service.delete("/auth/sessions/x").bearer(&ann.access).send().status, 404);
        assert_eq!(service.delete(&format!("/keys/{}", ann.id)).bearer(&ann.access).send().status, 404);
        assert_eq!(service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send().status, 200);
        let password = json!({ "currentPassword": PASSWORD, "newPassword": "short" });
        assert_eq!(service.post("/auth/password").bearer(&ann.access).json(password).send().status, 400);
        assert_eq!(types(&events(service, &ann.access, "")), ["user.signed_up"]);
    }

    fn a_deletion_by_the_user_stays_known(service) {
        let ann = service.sign_up("ann@example.com");
        let session = session_of(&ann.access);
        let body = json!({ "password": PASSWORD });
        succeed(service.delete("/auth/me").bearer(&ann.access).json(body), "farewell");
        let written = all_events(service, &["--type", "user.deleted"]);
        let by = json!({ "type": "user", "sessionId": session });
        let itself = json!({ "type": "user", "id": ann.id });
        assert_eq!(
            written.into_iter().map(without_id_and_time).collect::<Vec<_>>(),
            [event("user.deleted", &ann.id, by, itself, "farewell", json!({}))]
        );
        assert!(!dump(service).contains("ann@example.com"));
    }

    fn failed_logins_are_gathered_by_account_address_and_minute_across_instances(service) {
        let ann = service.sign_up("ann@example.com");
        let bob = service.sign_up("bob@example.com");
        service.operator(&["user", "deactivate", "bob@example.com"]);
        let (sibling, there) = service.sibling();
        let here = service.client();
        let minute = service.clock.now().start_of(Duration::from_secs(60)).to_string();
        for (client, email, password) in [
            (&here, "ann@example.com", WRONG_PASSWORD),
            (&here, "ann@example.com", WRONG_PASSWORD),
            (&there, "ann@example.com", WRONG_PASSWORD),
            (&here, "bob@example.com", PASSWORD),
            (&here, "nobody@example.com", PASSWORD),
            (&there, "somebody@example.com", PASSWORD),
        ] {
            assert_eq!(log_in(client, email, password)["statusCode"], 401);
        }
        service.advance(60);
        let next = service.clock.now().start_of(Duration::from_secs(60)).to_string();
        assert_eq!(log_in(&here, "ann@example.com", WRONG_PASSWORD)["statusCode"], 401);
        sibling.stop();
        service.restart();
        let mut written: Vec<Value> = all_events(service, &["--type", "login.failed"]);
        written.sort_by_key(|event| (event["at"].to_string(), event["userId"].to_string()));
        let counted: Vec<Value> =
            written.iter().map(|event| json!([event["at"], event["userId"], event["count"], event["ip"]])).collect();
        assert_eq!(counted, [
            json!([minute, ann.id, 3, "127.0.0.1"]),
            json!([minute, bob.id, 1, "127.0.0.1"]),
            json!([minute, null, 2, "127.0.0.1"]),
            json!([next, ann.id, 1, "127.0.0.1"]),
        ]);
        // Nobody's e-mail is there.
        assert!(!dump(service).contains("example.com"));
    }

    fn a_failed_login_is_seen_by_its_user_while_the_server_runs(service) {
        let ann = service.sign_up("ann@example.com");
        assert_eq!(log_in(&service.client(), &ann.email, WRONG_PASSWORD)["statusCode"], 401);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !types(&events(service, &ann.access, "")).contains(&"login.failed") {
            assert!(Instant::now() < deadline, "not within ten seconds");
        }
    }

    fn a_change_whose_event_cannot_be_written_is_not_made(service) {
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci" }));
        let target = format!("/keys/{}", key["id"].as_str().unwrap());
        let state = || (service.get("/keys").bearer(&ann.access).send().json(), service.token_status(&ann.access));
        let before = state();
        execute(service, "ALTER TABLE events RENAME TO hidden");
        let form = json!({ "email": "bob@example.com", "password": PASSWORD });
        for request in [
            service.post("/keys/create").bearer(&ann.access).json(json!({ "name": "more" })),
            service.patch(&target).bearer(&ann.access).json(json!({ "name": "other" })),
            service.delete(&target).bearer(&ann.access),
            service.post("/auth/logout").bearer(&ann.access),
            service.post("/auth/signup").json(form.clone()),
        ] {
            assert_eq!(request.send().status, 500);
        }
        assert_eq!(state(), before);
        execute(service, "ALTER TABLE hidden RENAME TO events");
        assert_eq!(state(), before);
        assert_eq!(service.post("/auth/signup").json(form).send().status, 201);
    }

    fn failures_that_cannot_be_written_are_kept_until_they_can(service) {
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci" }));
        execute(service, "ALTER TABLE events RENAME TO hidden");
        assert_eq!(log_in(&service.client(), &ann.email, WRONG_PASSWORD)["statusCode"], 401);
        // Uses of keys are written in the same round, before: with the second one, a round has come to its end.
        for uses in 1..=2 {
            assert_eq!(service.key_status(key["key"].as_str().unwrap()), 200);
            let deadline = Instant::now() + Duration::from_secs(10);
            while number(service, "SELECT CAST(SUM(allowed) AS BIGINT) FROM key_hours") != Some(uses) {
                assert!(Instant::now() < deadline, "not within ten seconds");
            }
        }
        execute(service, "ALTER TABLE hidden RENAME TO events");
        service.restart();
        assert_eq!(all_events(service, &["--type", "login.failed"])[0]["count"], 1);
    }

    fn events_are_read_in_pages_by_their_user_alone(service) {
        let ann = service.sign_up("ann@example.com");
        let bob = service.sign_up("bob@example.com");
        for name in 0..4 {
            // Two at a time.
            service.advance(name % 2);
            service.create_key(&ann.access, json!({ "name": name.to_string() }));
        }
        let all = events(service, &ann.access, "");
        assert_eq!(types(&all), ["key.created", "key.created", "key.created", "key.created", "user.signed_up"]);
        assert!(all.is_sorted_by(|newer, older| newer["at"].as_str() >= older["at"].as_str()));
        let mut paged = events(service, &ann.access, "?limit=2");
        while let page @ [_, ..] = &events(service, &ann.access, &format!("?limit=2&before={}", paged[paged.len() - 1]["id"].as_str().unwrap()))[..] {
            assert!(page.len() <= 2);
            paged.extend_from_slice(page);
        }
        assert_eq!(paged, all);
        assert_eq!(types(&events(service, &bob.access, "")), ["user.signed_up"]);
        // Another's event is as good as none.
        let hers = all[0]["id"].as_str().unwrap();
        assert_eq!(events(service, &bob.access, &format!("?before={hers}")), [] as [Value; 0]);
    }

    fn what_is_no_page_is_refused(service) {
        let ann = service.sign_up("ann@example.com");
        let limit = "limit must be a whole number from 1 to 200";
        for (query, rules) in [
            ("limit=0", vec![limit]),
            ("limit=201", vec![limit]),
            ("limit=ten", vec![limit]),
            ("limit=", vec![limit]),
            ("before=1", vec!["before must be a UUID"]),
            ("limit=-1&before=x&after=y", vec!["property after should not exist", limit, "before must be a UUID"]),
        ] {
            let answer = service.get(&format!("/auth/events?{query}")).bearer(&ann.access).send();
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&rules)), "{query}");
        }
    }

    fn the_operator_reads_events_by_user_type_and_time(service) {
        let ann = service.sign_up("ann@example.com");
        service.advance(3600);
        let bob = service.sign_up("bob@example.com");
        service.create_key(&bob.access, json!({ "name": "ci" }));
        let all = all_events(service, &[]);
        assert_eq!(types(&all), ["user.signed_up", "user.signed_up", "key.created"]);
        for (arguments, expected) in [
            (&["--user", "BOB@example.com"][..], &all[1..]),
            (&["--user", &ann.id], &all[..1]),
            (&["--type", "user.signed_up"], &all[..2]),
            (&["--type", "user.signed_up", "--user", &bob.id], &all[1..2]),
            (&["--since", all[1]["at"].as_str().unwrap()], &all[1..]),
            (&["--since", "2999-01-01T00:00:00+01:00"], &[]),
        ] {
            assert_eq!(all_events(service, arguments), expected, "{arguments:?}");
        }
        let table = service.operator(&["events", "--type", "key.created"]);
        let cells: Vec<Vec<&str>> =
            table.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
        assert_eq!(cells[0], ["TIME", "TYPE", "COUNT", "USER", "ACTOR", "SUBJECT", "IP", "REQUEST", "DETAILS"]);
        let made = &all[2];
        assert_eq!(cells[1..], [[
            made["at"].as_str().unwrap(),
            "key.created",
            "1",
            &bob.id,
            &format!("session {}", session_of(&bob.access)),
            &format!("key {}", made["subject"]["id"].as_str().unwrap()),
            "127.0.0.1",
            made["requestId"].as_str().unwrap(),
            "{}",
        ]]);
        let home = Home::beside(service);
        for (arguments, line) in [
            (["events", "--type", "login"], "\"login\" is none of the types user.signed_up, "),
            (["events", "--since", "today"], "\"today\" is not an RFC 3339 date and time with an offset"),
            (["events", "--user", "ann"], "\"ann\" is neither an e-mail nor an id"),
        ] {
            let finished = home.run(&arguments);
            assert!(finished.failed(2).starts_with(line), "{finished:?}");
        }
        assert_eq!(home.run(&["events", "--user", "eve@example.com"]).failed(1), "there is no such user");
    }

    fn events_are_kept_for_their_retention(service) {
        let ann = service.sign_up("ann@example.com");
        service.advance(364 * 86_400);
        let latest = service.log_in(&ann.email);
        assert_eq!(all_events(service, &[]).len(), 2);
        service.advance(2 * 86_400);
        // What is too old is looked for soon after the start.
        service.restart();
        let deadline = Instant::now() + Duration::from_secs(10);
        while dump(service).contains("user.signed_up") {
            assert!(Instant::now() < deadline, "not within ten seconds");
        }
        let access = service.log_in(&latest.email).access;
        assert_eq!(types(&events(service, &access, "")), ["session.opened", "session.opened"]);
    }
}
