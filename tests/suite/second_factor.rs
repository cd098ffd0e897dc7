//! The second factor: an app's codes at logins and for what a stolen session must not be able to do, and what is left to
//! those who have lost the app.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use keyward_harness::authenticator::Authenticator;
use keyward_harness::http_client::{Answer, PATIENCE};
use keyward_harness::program::Home;
use keyward_harness::service::{Account, Backend, PASSWORD, Service, broken_rules, error, on_both_stores, within};
use serde_json::{Value, json};

const DUE: &str = "One-time code required";
const WRONG: &str = "Invalid one-time code";
const RESTING: &str = "Too many wrong codes, try again later";
const CREDENTIALS: &str = "Invalid credentials";
const NEW: &str = "battery staple correct";

fn said(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.json())
}

fn refused(status: u16, message: &str) -> (u16, Value) {
    (status, error(status, message))
}

/// A user with a second factor.
struct Guarded {
    account: Account,
    app: Authenticator,
    recovery_codes: Vec<String>,
}

fn begin(service: &Service, access: &str) -> Authenticator {
    let answer = service.post("/auth/totp").bearer(access).json(json!({ "password": PASSWORD })).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    Authenticator::new(answer.json()["secret"].as_str().unwrap(), &service.clock)
}

fn confirm(service: &Service, access: &str, code: &str) -> Answer {
    service.post("/auth/totp/confirm").bearer(access).json(json!({ "code": code })).send()
}

/// Signs up and turns a factor on. The code that did it is over.
fn guarded(service: &Service, email: &str) -> Guarded {
    let account = service.sign_up(email);
    let app = begin(service, &account.access);
    let answer = confirm(service, &account.access, &app.code());
    assert_eq!(answer.status, 200, "{answer:?}");
    let codes = answer.json()["recoveryCodes"].as_array().unwrap().clone();
    service.advance(60);
    let recovery_codes = codes.iter().map(|code| code.as_str().unwrap().to_string()).collect();
    Guarded { account, app, recovery_codes }
}

fn log_in(service: &Service, email: &str, password: &str, code: Option<&str>) -> Answer {
    let mut body = json!({ "email": email, "password": password });
    if let Some(code) = code {
        body["code"] = json!(code);
    }
    service.post("/auth/login").json(body).send()
}

/// The types of the user's events, the latest first, each with its number and its details.
fn events(service: &Service, access: &str) -> Vec<(String, Value, Value)> {
    let events = service.get("/auth/events?limit=100").bearer(access).send().json();
    let event =
        |event: &Value| (event["type"].as_str().unwrap().to_string(), event["count"].clone(), event["details"].clone());
    events.as_array().unwrap().iter().map(event).collect()
}

fn kinds(service: &Service, access: &str) -> Vec<String> {
    events(service, access).into_iter().map(|(kind, _, _)| kind).collect()
}

on_both_stores! {
    fn a_code_turns_a_factor_on_and_logins_ask_for_one_from_then_on(service) {
        service.set("JWT_ISSUER", "https://auth.example.com");
        service.restart();
        let ann = service.sign_up("ann@example.com");
        let other = service.log_in("ann@example.com");
        let answer = service.post("/auth/totp").bearer(&ann.access).json(json!({ "password": "wrong" })).send();
        assert_eq!(said(&answer), refused(401, CREDENTIALS));
        let answer = service.post("/auth/totp").bearer(&ann.access).json(json!({ "password": PASSWORD })).send();
        let begun = answer.json();
        let secret = begun["secret"].as_str().unwrap();
        let url = format!(
            "otpauth://totp/auth%2Eexample%2Ecom:ann%40example%2Ecom?secret={secret}&issuer=auth%2Eexample%2Ecom\
             &algorithm=SHA1&digits=6&period=30"
        );
        assert_eq!((answer.status, &begun, secret.len()), (200, &json!({ "secret": secret, "url": url }), 32));
        // Until it is confirmed, it counts for nothing.
        assert_eq!(log_in(service, &ann.email, PASSWORD, None).status, 200);
        let app = Authenticator::new(secret, &service.clock);
        assert_eq!(said(&confirm(service, &ann.access, &app.wrong_code())), refused(401, WRONG));
        assert_eq!(log_in(service, &ann.email, PASSWORD, None).status, 200);
        let answer = confirm(service, &ann.access, &app.code());
        let codes = answer.json()["recoveryCodes"].as_array().unwrap().clone();
        assert_eq!((answer.status, codes.len()), (200, 10));
        // Nobody has shown a code for the other sessions.
        assert_eq!([service.token_status(&ann.access), service.token_status(&other.access)], [200, 401]);
        service.advance(30);
        assert_eq!(said(&log_in(service, &ann.email, PASSWORD, None)), refused(401, DUE));
        assert_eq!(said(&log_in(service, &ann.email, PASSWORD, Some(""))), refused(401, DUE));
        assert_eq!(said(&log_in(service, &ann.email, PASSWORD, Some(&app.wrong_code()))), refused(401, WRONG));
        let answer = log_in(service, &ann.email, PASSWORD, Some(&app.code()));
        assert_eq!(answer.status, 200, "{answer:?}");
        let again = service.post("/auth/totp").bearer(&ann.access).json(json!({ "password": PASSWORD })).send();
        assert_eq!(said(&again), refused(409, "A second factor is on already"));
        assert_eq!(said(&confirm(service, &ann.access, &app.code_after(1))), refused(409, "A second factor is on already"));
        within(PATIENCE, "the wrong codes are recorded", || {
            kinds(service, &ann.access).contains(&"totp.failed".to_string())
        });
        let told = events(service, &ann.access);
        let enabled = told.iter().find(|(kind, _, _)| kind == "totp.enabled").unwrap();
        assert_eq!(enabled.2, json!({ "sessions": 3 }), "of which none had expired");
        assert!(!told.iter().any(|(kind, _, _)| kind == "login.failed"), "{told:?}");
    }

    fn a_code_is_good_once_a_step_early_and_a_step_late(service) {
        let Guarded { account: ann, app, .. } = guarded(service, "ann@example.com");
        let try_code = |service: &Service, code: &str| log_in(service, &ann.email, PASSWORD, Some(code)).status;
        let (early, late) = (app.code_after(1), app.code_after(-1));
        let [too_early, too_late] = [app.code_after(2), app.code_after(-2)];
        assert_eq!([try_code(service, &too_late), try_code(service, &too_early)], [401, 401]);
        assert_eq!([try_code(service, &late), try_code(service, &late)], [200, 401]);
        // Apps show a space.
        let code = app.code();
        assert_eq!([try_code(service, &format!("{} {}", &code[..3], &code[3..])), try_code(service, &code)], [200, 401]);
        // After a later one, earlier ones are over.
        service.advance(60);
        let before = app.code();
        assert_eq!([try_code(service, &app.code_after(1)), try_code(service, &before), try_code(service, &early)], [200, 401, 401]);
        service.restart();
        assert_eq!(try_code(service, &app.code_after(1)), 401, "nor after a restart");
    }

    fn of_many_logins_with_one_code_at_once_one_succeeds(service) {
        let Guarded { account: ann, app, recovery_codes } = guarded(service, "ann@example.com");
        for code in [app.code(), recovery_codes[0].clone()] {
            let statuses: Vec<u16> = thread::scope(|scope| {
                let body = json!({ "email": ann.email, "password": PASSWORD, "code": code });
                let asking: Vec<_> = (0..6).map(|_| {
                    let (client, body) = (service.client(), body.clone());
                    scope.spawn(move || client.post("/auth/login").json(body).send().status)
                }).collect();
                asking.into_iter().map(|asked| asked.join().unwrap()).collect()
            });
            let opened = statuses.iter().filter(|status| **status == 200).count();
            assert!(opened == 1 && statuses.iter().all(|status| [200, 401].contains(status)), "{statuses:?}");
        }
    }

    fn after_ten_wrong_codes_from_wherever_codes_rest_for_an_hour_and_recovery_codes_do_not(service) {
        let Guarded { account: ann, app, recovery_codes } = guarded(service, "ann@example.com");
        let wrong = app.wrong_code();
        let try_code = |service: &Service, code: &str| log_in(service, &ann.email, PASSWORD, Some(code));
        for _ in 0..9 {
            assert_eq!(said(&try_code(service, &wrong)), refused(401, WRONG));
        }
        // A good one clears them, a missing one does not count.
        assert_eq!(try_code(service, &app.code()).status, 200);
        service.advance(30);
        for address in ["198.51.100.7", "203.0.113.9", "2001:db8::1", "198.51.100.7"] {
            let body = json!({ "email": ann.email, "password": PASSWORD, "code": wrong });
            let answer = service.post("/auth/login").header("x-forwarded-for", address).json(body).send();
            assert_eq!(answer.status, 401);
            assert_eq!(said(&log_in(service, &ann.email, PASSWORD, None)), refused(401, DUE));
        }
        for code in ["12345", "1234567", "x", "AAAAAA-AAAAAA-AAAAAA-AAAAAA"] {
            assert_eq!(said(&try_code(service, code)), refused(401, WRONG), "{code}");
        }
        for (path, body) in [
            ("/auth/password", json!({ "currentPassword": PASSWORD, "newPassword": NEW, "code": wrong })),
            ("/auth/totp/disable", json!({ "password": PASSWORD, "code": wrong })),
        ] {
            let answer = service.post(path).bearer(&ann.access).json(body).send();
            assert_eq!(said(&answer), refused(401, WRONG), "{path}");
        }
        service.restart();
        let answer = try_code(service, &app.code());
        assert_eq!((said(&answer), answer.header("retry-after")), (refused(429, RESTING), Some("3600")));
        assert_eq!(said(&log_in(service, &ann.email, "wrong", Some(&wrong))), refused(401, CREDENTIALS));
        assert_eq!(try_code(service, &recovery_codes[0]).status, 200, "nobody can guess one");
        // The owner has come back, so codes no longer rest.
        assert_eq!(try_code(service, &app.code()).status, 200);
        service.advance(30);
        for _ in 0..10 {
            assert_eq!(said(&try_code(service, &wrong)), refused(401, WRONG));
        }
        let resting = service.clock.now().plus(Duration::from_secs(3600)).to_string();
        service.advance(3599);
        assert_eq!(said(&try_code(service, &app.code())), refused(429, RESTING));
        service.advance(1);
        let answer = try_code(service, &app.code());
        assert_eq!(answer.status, 200);
        let access = answer.json()["accessToken"].as_str().unwrap().to_string();
        let told = events(service, &access);
        let rests: Vec<&Value> = told.iter().map(|(_, _, details)| &details["restsUntil"]).filter(|at| at.is_string()).collect();
        assert_eq!((rests.len(), rests[0]), (2, &json!(resting)), "the owner is told of each rest");
    }

    fn somebody_with_the_password_and_no_code_keeps_nobody_from_logging_in(service) {
        service.set("RATE_LIMIT_WRITES", "3/1m");
        service.restart();
        let ann = guarded(service, "ann@example.com");
        let email = ann.account.email.as_str();
        for _ in 0..5 {
            assert_eq!(said(&log_in(service, email, PASSWORD, None)), refused(401, DUE));
        }
        for _ in 0..4 {
            assert_eq!(said(&log_in(service, email, PASSWORD, Some(&ann.app.wrong_code()))), refused(401, WRONG));
        }
        assert_eq!(log_in(service, email, PASSWORD, Some(&ann.app.code())).status, 200);
        // What succeeds is limited.
        let statuses = [0, 1, 2].map(|code| log_in(service, email, PASSWORD, Some(&ann.recovery_codes[code])).status);
        assert_eq!(statuses, [200, 200, 429]);
    }

    fn a_recovery_code_is_good_once_and_says_how_many_are_left(service) {
        let Guarded { account: ann, recovery_codes, .. } = guarded(service, "ann@example.com");
        let mut access = String::new();
        for (at, code) in recovery_codes.iter().enumerate() {
            let typed = match at % 3 {
                0 => code.clone(),
                1 => code.to_lowercase().replace('-', " "),
                _ => code.replace('-', ""),
            };
            let answer = log_in(service, &ann.email, PASSWORD, Some(&typed));
            assert_eq!(answer.status, 200, "{code}");
            access = answer.json()["accessToken"].as_str().unwrap().to_string();
            assert_eq!(said(&log_in(service, &ann.email, PASSWORD, Some(&typed))), refused(401, WRONG));
        }
        let told = events(service, &access);
        let left: Vec<&Value> = told.iter().filter(|(kind, _, _)| kind == "recovery_code.used").map(|(_, _, details)| &details["left"]).collect();
        assert_eq!(left, (0..10).map(|left| json!(left)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
        let distinct: BTreeSet<&String> = recovery_codes.iter().collect();
        assert_eq!(distinct.len(), 10);
    }

    fn only_the_right_password_tells_that_a_code_is_due_and_it_clears_no_failures(service) {
        let Guarded { account: ann, app, .. } = guarded(service, "ann@example.com");
        let nobody = "nobody@example.com";
        for (email, code) in [(&*ann.email, None), (&*ann.email, Some(app.code())), (nobody, None), (nobody, Some(app.code()))] {
            for _ in 0..3 {
                assert_eq!(said(&log_in(service, email, "wrong", code.as_deref())), refused(401, CREDENTIALS));
            }
            // Neither counts nor clears.
            if email != nobody {
                assert_eq!(said(&log_in(service, email, PASSWORD, None)), refused(401, DUE));
                assert_eq!(said(&log_in(service, email, PASSWORD, Some(&app.wrong_code()))), refused(401, WRONG));
            }
        }
        for email in [&*ann.email, nobody] {
            assert_eq!(log_in(service, email, "wrong", None).status, 401);
            let answer = log_in(service, email, PASSWORD, Some(&app.code()));
            assert_eq!((answer.status, answer.header("retry-after")), (429, Some("60")), "{email}");
        }
        // The code was not used up.
        service.advance(60);
        assert_eq!(log_in(service, &ann.email, PASSWORD, Some(&app.code_after(-1))).status, 200);
        for _ in 0..6 {
            assert_eq!(log_in(service, &ann.email, "wrong", None).status, 401, "that has cleared the failures");
        }
    }

    fn what_a_stolen_session_must_not_do_asks_for_a_code_too(service) {
        let Guarded { account: ann, app, recovery_codes } = guarded(service, "ann@example.com");
        let ask = |method: &str, path: &str, body: &Value, code: Option<&str>| {
            let mut body = body.clone();
            if let Some(code) = code {
                body["code"] = json!(code);
            }
            service.method(method, path).bearer(&ann.access).json(body).send()
        };
        for (method, path, right, wrong) in [
            (
                "POST",
                "/auth/password",
                json!({ "currentPassword": PASSWORD, "newPassword": NEW }),
                json!({ "currentPassword": "wrong", "newPassword": NEW }),
            ),
            ("DELETE", "/auth/me", json!({ "password": PASSWORD }), json!({ "password": "wrong" })),
            ("POST", "/auth/totp/disable", json!({ "password": PASSWORD }), json!({ "password": "wrong" })),
        ] {
            assert_eq!(said(&ask(method, path, &right, None)), refused(401, DUE), "{path}");
            assert_eq!(said(&ask(method, path, &right, Some(&app.wrong_code()))), refused(401, WRONG), "{path}");
            assert_eq!(said(&ask(method, path, &wrong, Some(&app.code()))), refused(401, CREDENTIALS), "{path}");
            let broken = ask(method, path, &json!({ "code": 1 }), None);
            assert!(broken.json()["message"].as_array().unwrap().contains(&json!("code must be a string")), "{broken:?}");
        }
        assert_eq!(service.token_status(&ann.access), 200, "nothing has changed");
        let changed = ask("POST", "/auth/password", &json!({ "currentPassword": PASSWORD, "newPassword": NEW }), Some(&app.code()));
        assert_eq!(changed.status, 200);
        let access = changed.json()["accessToken"].as_str().unwrap().to_string();
        assert_eq!(said(&log_in(service, &ann.email, NEW, None)), refused(401, DUE), "the factor stays");
        let body = json!({ "password": NEW, "code": recovery_codes[3] });
        assert_eq!(service.delete("/auth/me").bearer(&access).json(body).send().status, 200);
        assert_eq!(service.count("SELECT COUNT(*) FROM second_factors"), 0);
        assert_eq!(service.count("SELECT COUNT(*) FROM recovery_codes"), 0);
        assert_eq!(said(&log_in(service, &ann.email, NEW, None)), refused(401, CREDENTIALS));
    }

    fn a_factor_is_turned_off_with_password_and_code_and_sessions_stay(service) {
        let Guarded { account: ann, app, .. } = guarded(service, "ann@example.com");
        let other = log_in(service, &ann.email, PASSWORD, Some(&app.code())).json()["accessToken"].as_str().unwrap().to_string();
        let disable = |body: Value| service.post("/auth/totp/disable").bearer(&ann.access).json(body).send();
        let answer = disable(json!({ "password": PASSWORD, "code": app.code_after(1) }));
        assert_eq!(said(&answer), (200, json!({ "message": "Second factor disabled" })));
        assert_eq!(service.count("SELECT COUNT(*) FROM second_factors"), 0);
        assert_eq!(service.count("SELECT COUNT(*) FROM recovery_codes"), 0);
        assert_eq!([service.token_status(&ann.access), service.token_status(&other)], [200, 200]);
        assert_eq!(log_in(service, &ann.email, PASSWORD, None).status, 200);
        assert_eq!(log_in(service, &ann.email, PASSWORD, Some("x")).status, 200, "nobody looks at it");
        assert_eq!(said(&disable(json!({ "password": PASSWORD }))), refused(409, "No second factor is on"));
        assert_eq!(said(&disable(json!({ "password": "wrong" }))), refused(401, CREDENTIALS));
        let none = confirm(service, &ann.access, "123456");
        assert_eq!(said(&none), refused(409, "No second factor waits to be confirmed: POST /auth/totp first"));
        assert!(kinds(service, &ann.access).contains(&"totp.disabled".to_string()));
        assert_eq!(said(&disable(json!({}))), (400, broken_rules(&["password must be a string"])));
    }

    fn a_factor_that_was_only_begun_is_forgotten_when_it_is_begun_again_and_with_a_new_password(service) {
        let ann = service.sign_up("ann@example.com");
        let first = begin(service, &ann.access);
        let second = begin(service, &ann.access);
        assert_eq!(said(&confirm(service, &ann.access, &first.code())), refused(401, WRONG));
        let body = json!({ "currentPassword": PASSWORD, "newPassword": NEW });
        let changed = service.post("/auth/password").bearer(&ann.access).json(body).send();
        let access = changed.json()["accessToken"].as_str().unwrap().to_string();
        assert_eq!(confirm(service, &access, &second.code()).status, 409);
        assert_eq!(log_in(service, &ann.email, NEW, None).status, 200);
    }

    fn an_operator_removes_the_factor_of_somebody_who_has_lost_it(service) {
        let home = Home::beside(service);
        let Guarded { account: ann, .. } = guarded(service, "ann@example.com");
        service.sign_up("bob@example.com");
        assert_eq!(home.run(&["user", "reset-totp", &ann.email]).succeeded().trim(), "removed the second factor of ann@example.com");
        assert_eq!(log_in(service, &ann.email, PASSWORD, None).status, 200);
        let shown = home.run(&["user", "reset-totp", "bob@example.com", "--json"]).succeeded();
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["wasOn"], false);
        assert!(home.run(&["user", "reset-totp", "nobody@example.com"]).failed(1).contains("there is no such user"));
        let told = events(service, &ann.access);
        assert_eq!(told.iter().filter(|(kind, _, _)| kind == "totp.disabled").count(), 1);
    }

    fn a_reset_removes_the_factor_of_an_address_that_was_never_verified_and_no_other(service) {
        let boss = service.sign_up("boss@example.com");
        service.grant(&boss.id, &["keyward:admin"]);
        let reset = |account: &Account| {
            let path = format!("/admin/users/{}/reset-password", account.id);
            let token = service.post(&path).bearer(&boss.access).send().json()["token"].clone();
            service.post("/auth/reset-password").json(json!({ "token": token, "password": NEW })).send().status
        };
        let Guarded { account: ann, .. } = guarded(service, "ann@example.com");
        let Guarded { account: bob, app, .. } = guarded(service, "bob@example.com");
        let verified = service.patch(&format!("/admin/users/{}", bob.id)).bearer(&boss.access);
        assert_eq!(verified.json(json!({ "emailVerified": true })).send().status, 200);
        assert_eq!([reset(&ann), reset(&bob)], [200, 200]);
        let answer = log_in(service, &ann.email, NEW, None);
        assert_eq!(answer.status, 200, "somebody else may have turned it on");
        let told = events(service, answer.json()["accessToken"].as_str().unwrap());
        let disabled = told.iter().find(|(kind, _, _)| kind == "totp.disabled").unwrap();
        assert_eq!(disabled.2, json!({ "reason": "password.reset" }));
        assert_eq!(said(&log_in(service, &bob.email, NEW, None)), refused(401, DUE));
        assert_eq!(log_in(service, &bob.email, NEW, Some(&app.code())).status, 200);
    }

    fn neither_the_secret_nor_a_recovery_code_is_stored_in_clear_and_both_outlive_a_restart(service) {
        let ann = service.sign_up("ann@example.com");
        let begun = service.post("/auth/totp").bearer(&ann.access).json(json!({ "password": PASSWORD })).send().json();
        let app = Authenticator::new(begun["secret"].as_str().unwrap(), &service.clock);
        let answer = confirm(service, &ann.access, &app.code());
        let stored = stored(service);
        assert!(stored.len() >= 11 && stored.iter().any(|value| value.len() == 5 + 12 + 20 + 16), "{}", stored.len());
        for value in &stored {
            assert!(!value.windows(20).any(|window| window == app.secret()));
        }
        let code = answer.json()["recoveryCodes"][0].as_str().unwrap().to_string();
        service.restart();
        service.advance(30);
        assert_eq!(log_in(service, &ann.email, PASSWORD, Some(&app.code())).status, 200);
        assert_eq!(log_in(service, &ann.email, PASSWORD, Some(&code)).status, 200);
    }
}

/// The secrets and hashes of second factors, as they are stored.
fn stored(service: &Service) -> Vec<Vec<u8>> {
    let sql = "SELECT secret FROM second_factors UNION ALL SELECT hash FROM recovery_codes";
    match service.database() {
        Some(database) => database.client().query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect(),
        None => {
            let connection = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
            let mut statement = connection.prepare(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        }
    }
}

#[test]
fn on_postgresql_without_a_data_key_no_factor_can_be_made_and_everything_else_works() {
    if !keyward_harness::postgres_cluster::available() {
        return;
    }
    let mut service = Service::start(Backend::Postgres);
    let Guarded { account: ann, app, recovery_codes } = guarded(&service, "ann@example.com");
    service.set("DATA_KEY", "");
    service.restart();
    let bob = service.sign_up("bob@example.com");
    for (path, body) in
        [("/auth/totp", json!({ "password": PASSWORD })), ("/auth/totp/confirm", json!({ "code": "123456" }))]
    {
        let answer = service.post(path).bearer(&bob.access).json(body).send();
        let message = answer.json()["message"].as_str().unwrap().to_string();
        assert!(answer.status == 501 && message.contains("`openssl rand -hex 32`"), "{answer:?}");
    }
    assert_eq!(log_in(&service, &bob.email, PASSWORD, None).status, 200);
    assert_eq!(log_in(&service, &bob.email, "wrong", None).status, 401);
    // Codes cannot be judged, recovery codes can.
    let answer = log_in(&service, &ann.email, PASSWORD, Some(&app.code()));
    let message = answer.json()["message"].as_str().unwrap().to_string();
    assert!(answer.status == 501 && message.contains("`openssl rand -hex 32`"), "{answer:?}");
    assert_eq!(log_in(&service, &ann.email, PASSWORD, Some(&recovery_codes[0])).status, 200);
}

#[test]
fn instances_agree_on_the_codes_that_were_used_and_on_wrong_ones() {
    if !keyward_harness::postgres_cluster::available() {
        return;
    }
    let service = Service::start(Backend::Postgres);
    let beside = keyward::run::Keyward::start(service.config(), service.clock.clone()).unwrap();
    let there = keyward_harness::http_client::Client::unobserved(beside.addresses()[0]);
    let Guarded { account: ann, app, .. } = guarded(&service, "ann@example.com");
    let try_there = |code: &str| {
        let body = json!({ "email": ann.email, "password": PASSWORD, "code": code });
        there.post("/auth/login").json(body).send().status
    };
    assert_eq!(log_in(&service, &ann.email, PASSWORD, Some(&app.code())).status, 200);
    assert_eq!(try_there(&app.code()), 401);
    for _ in 0..4 {
        assert_eq!(try_there(&app.wrong_code()), 401);
        assert_eq!(log_in(&service, &ann.email, PASSWORD, Some(&app.wrong_code())).status, 401);
    }
    assert_eq!(try_there(&app.wrong_code()), 401);
    let later = app.code_after(1);
    assert_eq!([try_there(&later), log_in(&service, &ann.email, PASSWORD, Some(&later)).status], [429, 429]);
    beside.stop();
}
