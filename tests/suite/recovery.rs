//! Passwords that are forgotten, addresses that are verified and changed, and the mails that prove whose they are.

use std::thread;

use keyward_harness::http_client::{Answer, PATIENCE};
use keyward_harness::mail_server::MailServer;
use keyward_harness::service::{Account, Backend, PASSWORD, Service, broken_rules, error, on_both_stores, within};
use serde_json::{Value, json};

const NEW: &str = "battery staple correct";
const NOT_GOOD: &str = "Invalid or expired token";
const PUBLIC: &str = "https://auth.example.com/id";

/// Runs a story on both stores, each with a mail server of its own.
fn with_mail(story: fn(&mut Service, &mut MailServer)) {
    with_mail_and(&[], story);
}

fn with_mail_and(settings: &[(&str, &str)], story: fn(&mut Service, &mut MailServer)) {
    for backend in Backend::installed() {
        let Some(mut server) = MailServer::start() else { return };
        let url = server.url();
        let mail = [("SMTP_URL", url.as_str()), ("MAIL_FROM", "auth@example.com"), ("PUBLIC_URL", PUBLIC)];
        story(&mut Service::start_with(backend, &[&mail, settings].concat(), |_| {}), &mut server);
    }
}

fn said(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.json())
}

fn ask(service: &Service, account: &Account, path: &str, body: Value) -> Answer {
    service.post(path).bearer(&account.access).json(body).send()
}

fn forgot(service: &Service, email: &str) -> (u16, Value) {
    said(&service.post("/auth/forgot-password").json(json!({ "email": email })).send())
}

fn reset(service: &Service, token: &str) -> (u16, Value) {
    said(&service.post("/auth/reset-password").json(json!({ "token": token, "password": NEW })).send())
}

fn verify(service: &Service, token: &str) -> (u16, Value) {
    said(&service.post("/auth/verify-email").json(json!({ "token": token })).send())
}

fn me(service: &Service, access: &str) -> Value {
    service.get("/auth/me").bearer(access).send().json()
}

fn log_in_status(service: &Service, email: &str, password: &str) -> u16 {
    service.post("/auth/login").json(json!({ "email": email, "password": password })).send().status
}

fn change_email(service: &Service, account: &Account, new: &str) -> (u16, Value) {
    said(&ask(service, account, "/auth/email", json!({ "newEmail": new, "password": PASSWORD })))
}

/// The types of the account's events, the latest first.
fn events(service: &Service, access: &str) -> Vec<String> {
    let events = service.get("/auth/events").bearer(access).send().json();
    events.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap().to_string()).collect()
}

/// The next mail that has a link: to whom, the page of the link, and its token.
#[track_caller]
fn link(server: &MailServer) -> (String, String, String) {
    loop {
        let mail = server.mail();
        if mail.text().lines().any(|line| line.starts_with("http")) {
            let url = mail.link();
            let (page, token) = url.split_once('#').unwrap();
            return (mail.recipients.join(" "), page.to_string(), token.to_string());
        }
    }
}

/// Waits until every mail that is due was sent, or dropped, and this is recorded.
#[track_caller]
fn settle(service: &Service) {
    within(PATIENCE, "mails are sent", || {
        service.count("SELECT COUNT(*) FROM deliveries WHERE next_at IS NOT NULL AND kind <> 'address-change'") == 0
    });
}

/// Signs up, and gives the token of the mail as well.
#[track_caller]
fn sign_up(service: &Service, server: &MailServer, email: &str) -> (Account, String) {
    let account = service.sign_up(email);
    let (to, page, token) = link(server);
    assert_eq!((to.as_str(), page), (email, format!("{PUBLIC}/account/verify")));
    (account, token)
}

#[test]
fn who_signs_up_gets_a_mail_that_verifies_the_address_once() {
    with_mail(|service, server| {
        let (ann, token) = sign_up(service, server, "ann@example.com");
        assert_eq!(me(service, &ann.access)["emailVerified"], json!(false));
        let done = (200, json!({ "message": "E-mail address verified" }));
        assert_eq!((verify(service, &token), verify(service, &token)), (done, (401, error(401, NOT_GOOD))));
        assert_eq!(me(service, &ann.access)["emailVerified"], json!(true));
        assert_eq!(events(service, &ann.access)[0], "email.verified");
        // There is nothing left to verify.
        service.advance(301);
        let asked = said(&ask(service, &ann, "/auth/verify-email/request", json!({})));
        assert_eq!(asked.0, 202);
        let (_, token) = sign_up(service, server, "bob@example.com");
        assert_eq!(verify(service, &token).0, 200);
    });
}

#[test]
fn a_mail_is_sent_again_after_five_minutes_and_each_of_the_last_three_is_good() {
    with_mail(|service, server| {
        let (ann, first) = sign_up(service, server, "ann@example.com");
        let request = || ask(service, &ann, "/auth/verify-email/request", json!({})).status;
        assert_eq!((request(), request()), (202, 202));
        let mut tokens = vec![first];
        for _ in 0..3 {
            settle(service);
            service.advance(301);
            assert_eq!((request(), request()), (202, 202));
            tokens.push(link(server).2);
        }
        assert_eq!(verify(service, &tokens[0]).0, 401);
        assert_eq!(verify(service, &tokens[1]).0, 200);
        assert_eq!((verify(service, &tokens[2]).0, verify(service, &tokens[3]).0), (401, 401));
    });
}

#[test]
fn a_forgotten_password_is_replaced_by_a_mailed_link_which_also_verifies_the_address() {
    with_mail(|service, server| {
        let (ann, _) = sign_up(service, server, "ann@example.com");
        let answer = "If there is an account with this address, a mail with a link is sent to it";
        assert_eq!(forgot(service, "Ann@Example.com"), (202, json!({ "message": answer })));
        let (to, page, token) = link(server);
        assert_eq!((to.as_str(), page), ("ann@example.com", format!("{PUBLIC}/account/reset")));
        assert_eq!(service.token_status(&ann.access), 200, "asking changes nothing");
        assert_eq!(reset(service, &token), (200, json!({ "message": "Password reset successfully" })));
        assert_eq!(reset(service, &token), (401, error(401, NOT_GOOD)));
        assert_eq!(service.token_status(&ann.access), 401);
        assert_eq!(log_in_status(service, &ann.email, PASSWORD), 401);
        let again = service.post("/auth/login").json(json!({ "email": ann.email, "password": NEW })).send().json();
        let access = again["accessToken"].as_str().unwrap();
        assert_eq!(me(service, access)["emailVerified"], json!(true));
        let expected = ["password.reset", "email.verified", "password.reset_requested"];
        let told = events(service, access);
        assert!(expected.iter().all(|kind| told.iter().any(|event| event == kind)), "{told:?}");
    });
}

#[test]
fn nobody_learns_by_a_forgotten_password_whether_there_is_an_account() {
    with_mail_and(&[("RATE_LIMIT_MAIL", "off")], |service, server| {
        let boss = service.sign_up("boss@example.com");
        service.grant("boss@example.com", &["keyward:admin"]);
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let create = json!({ "kind": "service", "email": "billing@example.com" });
        assert_eq!(ask(service, &boss, "/admin/users", create).status, 201);
        settle(service);
        service.operator(&["user", "deactivate", "bob@example.com"]);
        let told = forgot(service, "ann@example.com");
        for email in ["ann@example.com", "bob@example.com", "billing@example.com", "nobody@example.com"] {
            for _ in 0..2 {
                assert_eq!(forgot(service, email), told, "{email}");
            }
        }
        // Each has an event and a mail in the queue. Only one of them is sent.
        assert_eq!(service.count("SELECT COUNT(*) FROM events WHERE kind = 'password.reset_requested'"), 9);
        assert_eq!(service.count("SELECT COUNT(*) FROM deliveries WHERE kind = 'reset'"), 4);
        let mut reset_to = Vec::new();
        settle(service);
        service.advance(301);
        assert_eq!(forgot(service, "ann@example.com"), told);
        while reset_to.len() < 2 {
            let (to, page, _) = link(server);
            if page.ends_with("/reset") {
                reset_to.push(to);
            }
        }
        assert_eq!(reset_to, [ann.email.as_str(), ann.email.as_str()]);
        assert_eq!(service.count(&format!("SELECT COUNT(*) FROM one_time_tokens WHERE user_id = '{}'", bob.id)), 1);
    });
}

#[test]
fn an_address_changes_when_the_link_to_the_new_one_is_used_and_the_old_one_is_told() {
    with_mail(|service, server| {
        let (ann, _) = sign_up(service, server, "ann@example.com");
        let answer = json!({ "message": "A mail with a link is sent to the new address" });
        assert_eq!(change_email(service, &ann, "Ann@Example.org"), (202, answer));
        let (mut links, mut notices) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let mail = server.mail();
            if mail.text().lines().any(|line| line.starts_with("http")) { links.push(mail) } else { notices.push(mail) }
        }
        assert_eq!(
            (&links[0].recipients[..], &notices[0].recipients[..]),
            (&["ann@example.org".to_string()][..], &["ann@example.com".to_string()][..])
        );
        assert_eq!(me(service, &ann.access)["email"], json!("ann@example.com"), "asking changes nothing");
        let token = links[0].link().split_once('#').unwrap().1.to_string();
        assert_eq!(verify(service, &token), (200, json!({ "message": "E-mail address verified" })));
        let now = me(service, &ann.access);
        assert_eq!((&now["email"], &now["emailVerified"]), (&json!("ann@example.org"), &json!(true)));
        assert_eq!(log_in_status(service, "ann@example.com", PASSWORD), 401);
        assert_eq!(log_in_status(service, "ann@example.org", PASSWORD), 200);
        let told = events(service, &ann.access);
        let of_addresses: Vec<&String> = told.iter().filter(|kind| kind.starts_with("email.")).collect();
        assert_eq!(of_addresses, ["email.changed", "email.change_requested"]);
    });
}

#[test]
fn a_link_to_a_mistyped_address_is_void_when_another_one_is_asked_for() {
    with_mail(|service, server| {
        let (ann, _) = sign_up(service, server, "ann@example.com");
        let mut tokens = Vec::new();
        // Asking for the same address again leaves its link good.
        for email in ["typo@example.org", "ann@example.org", "ann@example.org"] {
            assert_eq!(change_email(service, &ann, email).0, 202);
            let (to, _, token) = link(server);
            assert_eq!(to, email);
            tokens.push(token);
            within(PATIENCE, "all mails are sent", || {
                service.count("SELECT COUNT(*) FROM deliveries WHERE next_at IS NOT NULL") == 0
            });
            service.advance(301);
        }
        assert_eq!(verify(service, &tokens[0]), (401, error(401, NOT_GOOD)));
        assert_eq!(me(service, &ann.access)["email"], json!("ann@example.com"));
        assert_eq!(verify(service, &tokens[1]).0, 200);
        assert_eq!(me(service, &ann.access)["email"], json!("ann@example.org"));
    });
}

/// The next mail without a link: to whom, and its subject.
#[track_caller]
fn notice(server: &MailServer) -> (String, String) {
    loop {
        let mail = server.mail();
        if !mail.text().lines().any(|line| line.starts_with("http")) {
            return (mail.recipients.join(" "), mail.header("Subject").to_string());
        }
    }
}

#[test]
fn the_former_address_is_told_of_each_change_by_a_link_and_by_an_operator() {
    with_mail(|service, server| {
        let (ann, _) = sign_up(service, server, "ann@example.com");
        let token = service.mailed_token(&ann.id, "change-email", "ann@example.org");
        assert_eq!(verify(service, &token).0, 200);
        let subject = "Your account at example.com has another address".to_string();
        assert_eq!(notice(server), ("ann@example.com".to_string(), subject.clone()));
        settle(service);
        let (boss, _) = sign_up(service, server, "boss@example.com");
        service.grant("boss@example.com", &["keyward:admin"]);
        let path = format!("/admin/users/{}", ann.id);
        for (step, email) in ["ann@example.net", "thief@example.com"].into_iter().enumerate() {
            let body = json!({ "email": email });
            assert_eq!(service.patch(&path).bearer(&boss.access).json(body).send().status, 200, "{step}");
        }
        // Both changes came within five minutes, so the address between is nobody's whom they could have told.
        service.advance(301);
        assert_eq!(notice(server), ("ann@example.org".to_string(), subject));
        within(PATIENCE, "the addresses are forgotten", || {
            service.count("SELECT COUNT(*) FROM email_changes WHERE former IS NOT NULL") == 0
        });
    });
}

#[test]
fn the_address_that_an_account_has_is_told_of_every_wish_for_another() {
    with_mail(|service, server| {
        let (ann, _) = sign_up(service, server, "ann@example.com");
        let expected =
            ("ann@example.com".to_string(), "Your account at example.com is to get another address".to_string());
        assert_eq!(change_email(service, &ann, "typo@example.org").0, 202);
        assert_eq!(notice(server), expected);
        let ended = "SELECT COUNT(*) FROM deliveries WHERE kind = 'address-change-notice' AND next_at IS NULL";
        within(PATIENCE, "it is recorded", || service.count(ended) == 1);
        // Within five minutes, so it is told after them.
        assert_eq!(change_email(service, &ann, "thief@example.org").0, 202);
        service.advance(301);
        assert_eq!(notice(server), expected);
    });
}

#[test]
fn sign_ups_send_no_more_mail_than_their_address_may_ask_for() {
    with_mail_and(&[("RATE_LIMIT_MAIL", "1/1h")], |service, server| {
        sign_up(service, server, "ann@example.com");
        let bob = service.sign_up("bob@example.com");
        let queued = || service.count("SELECT COUNT(*) FROM deliveries WHERE kind = 'verification'");
        assert_eq!(queued(), 1);
        let request = || ask(service, &bob, "/auth/verify-email/request", json!({})).status;
        assert_eq!((request(), queued()), (429, 1));
        service.advance(3601);
        let body = json!({ "email": "bob@example.com", "password": PASSWORD });
        let access = service.post("/auth/login").json(body).send().json()["accessToken"].as_str().unwrap().to_string();
        assert_eq!(service.post("/auth/verify-email/request").bearer(&access).json(json!({})).send().status, 202);
        assert_eq!(link(server).0, "bob@example.com");
    });
}

#[test]
fn a_reset_that_waits_for_the_mail_server_is_asked_for_again_as_one_to_nobody_is() {
    with_mail(|service, server| {
        sign_up(service, server, "ann@example.com");
        server.at("RCPT", "451 later");
        let of = |outcome: &str| {
            service.count(&format!("SELECT COUNT(*) FROM deliveries WHERE kind = 'reset' AND {outcome}"))
        };
        for round in 1..=2 {
            for email in ["ann@example.com", "nobody@example.com"] {
                assert_eq!(forgot(service, email).0, 202);
            }
            // Until the try is recorded: one that is under way while the clock is advanced would be recorded later.
            let waits = format!("next_at IS NOT NULL AND tries = {round}");
            within(PATIENCE, "nobody's is over and the other waits", || {
                (of("outcome = 'dropped'"), of(&waits)) == (round, 1)
            });
            if round == 1 {
                service.advance(301);
            }
        }
        server.at("RCPT", "");
        service.advance(3000);
        assert_eq!(link(server).0, "ann@example.com");
    });
}

#[test]
fn a_mail_with_a_link_is_dropped_once_the_link_would_have_expired() {
    with_mail(|service, server| {
        sign_up(service, server, "ann@example.com");
        settle(service);
        server.at("RCPT", "451 later");
        let of =
            |what: &str| service.count(&format!("SELECT COUNT(*) FROM deliveries WHERE kind = 'reset' AND {what}"));
        assert_eq!(forgot(service, "ann@example.com").0, 202);
        within(PATIENCE, "it waits", || of("next_at IS NOT NULL AND tries = 1") == 1);
        server.at("RCPT", "");
        service.advance(3600);
        within(PATIENCE, "it is dropped", || of("outcome = 'dropped'") == 1);
        // The next one is for who asks now.
        assert_eq!(forgot(service, "ann@example.com").0, 202);
        let token = link(server).2;
        within(PATIENCE, "it is recorded", || of("outcome = 'delivered'") == 1);
        assert_eq!(reset(service, &token).0, 200);
    });
}

#[test]
fn asking_for_an_address_that_is_taken_is_answered_alike_and_mails_nobody_a_link() {
    with_mail(|service, server| {
        let (ann, _) = sign_up(service, server, "ann@example.com");
        let (_, _) = sign_up(service, server, "bob@example.com");
        let free = change_email(service, &ann, "ann@example.org");
        let taken = change_email(service, &ann, "bob@example.com");
        assert_eq!(taken, free);
        service.advance(301);
        assert_eq!(forgot(service, "bob@example.com").0, 202);
        let mut to = Vec::new();
        while to.last().is_none_or(|(_, page): &(String, String)| !page.ends_with("/reset")) {
            let (whom, page, _) = link(server);
            to.push((whom, page));
        }
        let changes: Vec<_> =
            to.iter().filter(|(whom, page)| whom == "bob@example.com" && page.ends_with("/verify")).collect();
        assert!(changes.is_empty(), "{to:?}");
    });
}

on_both_stores! {
    fn a_new_password_or_address_voids_every_token_and_the_change_that_was_wanted(service) {
        let ann = service.sign_up("ann@example.com");
        let tokens = |email: &str| {
            ["verify-email", "change-email"].map(|kind| service.mailed_token(&ann.id, kind, email))
        };
        let old = tokens("ann@example.com");
        let body = json!({ "currentPassword": PASSWORD, "newPassword": NEW });
        assert_eq!(ask(service, &ann, "/auth/password", body).status, 200);
        for token in &old {
            assert_eq!(verify(service, token), (401, error(401, NOT_GOOD)));
        }
        let old = [service.mailed_token(&ann.id, "verify-email", "ann@example.com"), service.mailed_token(&ann.id, "reset-password", "ann@example.com")];
        let change = service.mailed_token(&ann.id, "change-email", "ann@example.org");
        assert_eq!(verify(service, &change).0, 200);
        assert_eq!((verify(service, &old[0]).0, reset(service, &old[1]).0), (401, 401));
        assert_eq!(service.count("SELECT COUNT(*) FROM one_time_tokens"), 0);
    }

    fn a_token_is_good_for_its_own_purpose_and_for_active_accounts_alone(service) {
        let ann = service.sign_up("ann@example.com");
        let token = service.mailed_token(&ann.id, "verify-email", "ann@example.com");
        let other = service.mailed_token(&ann.id, "reset-password", "ann@example.com");
        assert_eq!((reset(service, &token).0, verify(service, &other).0), (401, 401));
        service.operator(&["user", "deactivate", "ann@example.com"]);
        assert_eq!(verify(service, &token).0, 401);
        service.operator(&["user", "activate", "ann@example.com"]);
        assert_eq!(verify(service, &token).0, 200);
        service.advance(86_401);
        let late = service.mailed_token(&ann.id, "change-email", "ann@example.org");
        service.advance(86_400);
        assert_eq!(verify(service, &late).0, 401);
        for nonsense in ["", "x", &"0".repeat(64), &"0".repeat(65)] {
            assert_eq!(verify(service, nonsense), (401, error(401, NOT_GOOD)), "{nonsense}");
        }
    }

    fn a_token_that_many_use_at_once_verifies_once(service) {
        let ann = service.sign_up("ann@example.com");
        let token = service.mailed_token(&ann.id, "change-email", "ann@example.org");
        let statuses: Vec<u16> = thread::scope(|scope| {
            let ask = |_| {
                let (client, token) = (service.client(), &token);
                scope.spawn(move || client.post("/auth/verify-email").json(json!({ "token": token })).send().status)
            };
            let asking: Vec<_> = (0..6).map(ask).collect();
            asking.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 401].contains(status)), "{statuses:?}");
    }

    fn an_address_that_was_taken_meanwhile_is_a_409_and_of_two_at_once_one_wins(service) {
        let ann = service.sign_up("ann@example.com");
        service.sign_up("taken@example.com");
        let token = service.mailed_token(&ann.id, "change-email", "taken@example.com");
        assert_eq!(verify(service, &token), (409, error(409, "User already exists")));
        assert_eq!(me(service, &ann.access)["email"], json!("ann@example.com"));
        for round in 0..5 {
            let email = format!("new{round}@example.com");
            let token = service.mailed_token(&ann.id, "change-email", &email);
            let (changed, signed_up) = thread::scope(|scope| {
                let (one, other) = (service.client(), service.client());
                let change = scope.spawn(move || one.post("/auth/verify-email").json(json!({ "token": token })).send().status);
                let body = json!({ "email": email, "password": PASSWORD });
                let sign_up = scope.spawn(move || other.post("/auth/signup").json(body).send().status);
                (change.join().unwrap(), sign_up.join().unwrap())
            });
            assert!([(200, 409), (409, 201)].contains(&(changed, signed_up)), "{changed} {signed_up}");
        }
    }

    fn a_reset_and_a_login_with_the_old_password_at_once_leave_no_session_of_it(service) {
        let ann = service.sign_up("ann@example.com");
        let token = service.mailed_token(&ann.id, "reset-password", "ann@example.com");
        let sessions: Vec<String> = thread::scope(|scope| {
            let log_in = |_| {
                let (client, body) = (service.client(), json!({ "email": "ann@example.com", "password": PASSWORD }));
                scope.spawn(move || client.post("/auth/login").json(body).send())
            };
            let logins: Vec<_> = (0..3).map(log_in).collect();
            assert_eq!(reset(service, &token).0, 200);
            let answers = logins.into_iter().map(|login| login.join().unwrap());
            answers.filter(|answer| answer.status == 200).map(|answer| answer.json()["accessToken"].as_str().unwrap().to_string()).collect()
        });
        assert!(sessions.iter().all(|access| service.token_status(access) == 401), "{}", sessions.len());
        assert_eq!(log_in_status(service, "ann@example.com", NEW), 200);
    }

    fn without_mail_what_would_send_some_says_what_to_do(service) {
        let ann = service.sign_up("ann@example.com");
        let told = |answer: (u16, Value)| {
            assert!(answer.1["message"].as_str().unwrap().contains("SMTP_URL"), "{answer:?}");
            answer.0
        };
        assert_eq!(told(forgot(service, "ann@example.com")), 501);
        assert_eq!(told(change_email(service, &ann, "ann@example.org")), 501);
        assert_eq!(told(said(&ask(service, &ann, "/auth/verify-email/request", json!({})))), 501);
        assert_eq!(service.count("SELECT COUNT(*) FROM deliveries"), 0);
    }

    fn an_operator_hands_over_tokens_and_verifies_addresses_on_the_command_line(service) {
        let run = |arguments: &[&str]| service.operator(&[arguments, &["--json"]].concat());
        let made: Value = serde_json::from_str(&run(&["user", "invite", "ann@example.com", "--name", "Ann"])).unwrap();
        let told = json!([made["user"]["email"], made["user"]["name"], made["user"]["hasPassword"], made["url"]]);
        assert_eq!(told, json!(["ann@example.com", "Ann", false, null]));
        assert_eq!(reset(service, made["token"].as_str().unwrap()).0, 200);
        let shown = service.operator(&["user", "reset-link", "ann@example.com"]);
        let (token, rest) = shown.split_once('\n').unwrap();
        assert!(rest.starts_with("for ann@example.com, once, until "), "{shown}");
        assert_eq!(reset(service, token).0, 200);
        let ann = service.post("/auth/login").json(json!({ "email": "ann@example.com", "password": NEW })).send().json();
        let access = ann["accessToken"].as_str().unwrap();
        // Whoever has a token that an operator hands over need not read the mail of the address.
        assert_eq!(me(service, access)["emailVerified"], json!(false));
        service.operator(&["user", "verify-email", "ann@example.com"]);
        assert_eq!(me(service, access)["emailVerified"], json!(true));
        service.sign_up("bob@example.com");
        assert_eq!(run(&["user", "verify-email", "--all"]).trim(), "{\"users\":1}");
        let told = events(service, access);
        assert!(["user.invited", "user.changed", "password.reset"].iter().all(|kind| told.iter().any(|event| event == kind)));
    }

    fn a_user_names_themselves_and_deletes_their_account_by_post(service) {
        let ann = service.sign_up("ann@example.com");
        let rename = |body: Value| said(&service.patch("/auth/me").bearer(&ann.access).json(body).send());
        let named = rename(json!({ "name": "Ann" }));
        assert_eq!((named.0, &named.1), (200, &me(service, &ann.access)));
        assert_eq!(named.1["name"], json!("Ann"));
        assert_eq!(rename(json!({})).1["name"], json!("Ann"));
        assert_eq!(rename(json!({ "name": null })).1["name"], json!(null));
        assert_eq!(rename(json!({ "email": "bob@example.com" })), (400, broken_rules(&["property email should not exist"])));
        assert_eq!(events(service, &ann.access)[..2], ["user.changed", "user.changed"]);
        let delete = |password: &str| said(&ask(service, &ann, "/auth/delete", json!({ "password": password })));
        assert_eq!(delete("wrong"), (401, error(401, "Invalid credentials")));
        assert_eq!(delete(PASSWORD), (200, json!({ "message": "Account deleted successfully" })));
        assert_eq!(log_in_status(service, "ann@example.com", PASSWORD), 401);
    }
}

#[test]
fn five_changes_of_address_a_day_are_enough_and_the_password_is_asked_for() {
    with_mail(|service, server| {
        let (ann, _) = sign_up(service, server, "ann@example.com");
        let wrong = json!({ "newEmail": "ann@example.org", "password": "wrong" });
        assert_eq!(said(&ask(service, &ann, "/auth/email", wrong)), (401, error(401, "Invalid credentials")));
        let same = change_email(service, &ann, "ANN@example.com");
        assert_eq!(same, (400, broken_rules(&["newEmail must differ from the current address"])));
        for number in 0..5 {
            assert_eq!(change_email(service, &ann, &format!("ann{number}@example.org")).0, 202);
        }
        let refused = change_email(service, &ann, "ann5@example.org");
        assert_eq!(refused, (429, error(429, "Too many changes of the e-mail address, try again later")));
    });
}

#[test]
fn mails_that_one_address_asks_for_are_limited() {
    with_mail_and(&[("RATE_LIMIT_MAIL", "3/1h")], |service, _| {
        let statuses: Vec<u16> = (0..4).map(|number| forgot(service, &format!("a{number}@example.com")).0).collect();
        assert_eq!(statuses, [202, 202, 202, 429]);
    });
}

#[test]
fn who_is_invited_gets_a_mail_and_the_operator_still_gets_a_token() {
    with_mail(|service, server| {
        let (boss, _) = sign_up(service, server, "boss@example.com");
        service.grant("boss@example.com", &["keyward:admin"]);
        let made = ask(service, &boss, "/admin/users", json!({ "email": "ann@example.com" })).json();
        let (to, page, token) = link(server);
        assert_eq!((to.as_str(), page), ("ann@example.com", format!("{PUBLIC}/account/reset")));
        let path = format!("/admin/users/{}/reset-password", made["id"].as_str().unwrap());
        let by_hand = ask(service, &boss, &path, json!({})).json();
        let url = format!("{PUBLIC}/account/reset#{}", by_hand["token"].as_str().unwrap());
        assert_eq!(by_hand["url"], json!(url));
        assert_eq!(reset(service, &token).0, 200);
        let ann =
            service.post("/auth/login").json(json!({ "email": "ann@example.com", "password": NEW })).send().json();
        assert_eq!(me(service, ann["accessToken"].as_str().unwrap())["emailVerified"], json!(true));
    });
}
