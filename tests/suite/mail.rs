//! Mail: a real mail server takes it, refuses it, hangs or drops the connection.

use keyward_harness::mail_server::{Mail, MailServer, Way};
use keyward_harness::program::Home;
use keyward_harness::service::{Account, Backend, PASSWORD, Service, TempDir};
use keyward_harness::tls_client::Pair;
use serde_json::json;

const FROM: &str = "Example <auth@example.com>";
const PUBLIC: &str = "https://auth.example.com";

/// A service whose mail goes to this server.
fn service_with(backend: Backend, server: &MailServer) -> Service {
    let url = server.url();
    let settings = [("SMTP_URL", url.as_str()), ("MAIL_FROM", FROM), ("PUBLIC_URL", PUBLIC)];
    // Stories go on for hours.
    let others = [("TRUSTED_PROXIES", "127.0.0.0/8"), ("JWT_EXPIRES_IN", "7d"), ("WEBHOOKS", "users")];
    Service::start_with(backend, &[settings.as_slice(), &others].concat(), |_| {})
}

/// Runs a story on both stores, each with a mail server of its own.
fn on_both(story: fn(&mut Service, &mut MailServer)) {
    for backend in Backend::installed() {
        let Some(mut server) = MailServer::start() else { return };
        story(&mut service_with(backend, &server), &mut server);
    }
}

fn change_password(service: &Service, access: &str) -> String {
    let body = json!({ "currentPassword": PASSWORD, "newPassword": "Another-Password-1" });
    let answer = service.post("/auth/password").bearer(access).json(body).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["accessToken"].as_str().unwrap().to_string()
}

/// How deliveries of mail have ended, or are, as `outcome status`.
fn outcomes(service: &Service, outcome: &str, status: u16) -> i64 {
    service.count(&format!(
        "SELECT COUNT(*) FROM deliveries WHERE channel = 'mail' AND status = {status} \
         AND COALESCE(outcome, 'waits') = '{outcome}'"
    ))
}

#[track_caller]
fn wait_for(mut is_so: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + keyward_harness::http_client::PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < end, "it does not come");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// The next mail, when it is recorded that it was taken.
#[track_caller]
fn taken(service: &Service, server: &MailServer) -> Mail {
    let mail = server.mail();
    wait_for(|| service.count("SELECT COUNT(*) FROM deliveries WHERE next_at IS NOT NULL") == 0);
    mail
}

/// Somebody who has signed up, and has got the mail with the link that verifies their address.
#[track_caller]
fn sign_up(service: &Service, server: &MailServer, email: &str) -> Account {
    let account = service.sign_up(email);
    taken(service, server);
    account
}

fn notices(mail: &Mail) -> Vec<String> {
    let text = mail.text();
    text.lines().filter_map(|line| line.strip_prefix("- ")).map(str::to_string).collect()
}

#[test]
fn what_happens_to_an_account_is_told_at_once_and_then_together_an_hour_later() {
    on_both(|service, server| {
        let ann = sign_up(service, server, "ann@example.com");
        let access = change_password(service, &ann.access);
        let mail = taken(service, server);
        service.advance(1);
        assert_eq!(mail.recipients, ["ann@example.com"]);
        for (name, value) in [
            ("From", FROM),
            ("To", "ann@example.com"),
            ("Subject", "What happened to your account at Example"),
            ("Auto-Submitted", "auto-generated"),
        ] {
            assert_eq!(mail.header(name), value);
        }
        assert!(mail.header("Message-ID").ends_with("@example.com>") && mail.header("Date").ends_with("+0000"));
        let [notice] = &notices(&mail)[..] else { panic!("{mail:?}") };
        assert!(notice.ends_with(" UTC, from 127.0.0.1: Your password was changed."), "{notice}");
        assert!(mail.html().contains("Your password was changed.") && mail.html().contains("<p>Hello there,</p>"));

        // The name of a key is a client's text, and nobody has verified the address.
        let made = service.create_key(&access, json!({ "name": "<b>Visit evil.example</b>" }));
        service.create_key(&access, json!({ "name": "b" }));
        wait_for(|| service.count("SELECT COUNT(*) FROM deliveries WHERE next_at IS NOT NULL AND count = 2") == 1);
        service.advance(60 * 60);
        let mail = server.mail();
        let told = notices(&mail);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains(made["id"].as_str().unwrap()) && !mail.source.contains("evil"), "{told:?}");
    });
}

#[test]
fn a_user_is_told_of_a_new_webhook_and_where_it_leads() {
    on_both(|service, server| {
        let ann = sign_up(service, server, "ann@example.com");
        let body = json!({ "url": "https://hooks.invalid/a" });
        let made = service.post("/webhooks").bearer(&ann.access).json(body).send().json();
        let id = made["id"].as_str().unwrap();
        let [first] = &notices(&server.mail())[..] else { panic!() };
        assert!(first.contains(&format!(": A new webhook was made: {id}.")), "{first}");
        wait_for(|| {
            service.count("SELECT COUNT(*) FROM deliveries WHERE channel = 'mail' AND next_at IS NOT NULL") == 0
        });
        service.advance(1);
        for body in [json!({ "description": "b" }), json!({ "url": "https://hooks.invalid/b" })] {
            assert_eq!(service.patch(&format!("/webhooks/{id}")).bearer(&ann.access).json(body).send().status, 200);
        }
        service.advance(60 * 60);
        let [second] = &notices(&server.mail())[..] else { panic!() };
        assert!(second.ends_with(&format!(": A webhook was given another receiver: {id}.")), "{second}");
    });
}

#[test]
fn that_a_session_was_stolen_waits_for_no_other_notice() {
    on_both(|service, server| {
        let ann = sign_up(service, server, "ann@example.com");
        service.create_key(&ann.access, json!({ "name": "a" }));
        taken(service, server);
        service.advance(1);
        let refresh = |token: &str| service.post("/auth/refresh").json(json!({ "refreshToken": token })).send();
        let mut token = ann.refresh.clone();
        for _ in 0..2 {
            token = refresh(&token).json()["refreshToken"].as_str().unwrap().to_string();
        }
        service.create_key(&ann.access, json!({ "name": "b" }));
        service.advance(20 * 60);
        assert_eq!(refresh(&ann.refresh).status, 401);
        let told = notices(&server.mail());
        assert!(told.len() == 1 && told[0].contains("refresh token"), "{told:?}");
        // The key is told with the others, and what was told already is not.
        service.advance(40 * 60);
        let told = notices(&server.mail());
        assert!(told.len() == 1 && told[0].contains("key"), "{told:?}");
    });
}

#[test]
fn names_are_written_to_a_verified_address_alone_and_change_no_markup_and_no_header() {
    on_both(|service, server| {
        let ann = sign_up(service, server, "ann@example.com");
        service.execute(
            "UPDATE users SET email_verified = TRUE, \
             name = 'Ann <i>\r\nBcc: bob@example.com'",
        );
        service.create_key(&ann.access, json!({ "name": "a & <b>" }));
        let mail = server.mail();
        assert!(mail.text().starts_with("Hello Ann <i>  Bcc: bob@example.com,\n"), "{}", mail.text());
        assert!(mail.html().contains("<p>Hello Ann &lt;i&gt;  Bcc: bob@example.com,</p>"), "{}", mail.html());
        assert!(notices(&mail)[0].contains("A new API key was made: a & <b> ("), "{mail:?}");
        assert!(mail.html().contains("a &amp; &lt;b&gt; (") && mail.recipients == ["ann@example.com"]);
    });
}

#[test]
fn a_login_from_an_address_not_seen_lately_is_told() {
    on_both(|service, server| {
        let ann = sign_up(service, server, "ann@example.com");
        let log_in = |address: &str| {
            let body = json!({ "email": ann.email, "password": PASSWORD });
            let answer = service.post("/auth/login").header("X-Forwarded-For", address).json(body).send();
            assert_eq!(answer.status, 200, "{answer:?}");
        };
        log_in("127.0.0.1");
        log_in("192.0.2.7");
        let mail = taken(service, server);
        service.advance(1);
        for address in ["192.0.2.7", "2001:db8:0:1::1", "2001:db8:0:1::2"] {
            log_in(address);
        }
        let [first] = &notices(&mail)[..] else { panic!("{mail:?}") };
        assert!(first.contains(", from 192.0.2.7: Your account was logged in to from an address"), "{first}");
        let told = service.get("/auth/events").bearer(&ann.access).send().json();
        let new = told.as_array().unwrap().iter().filter(|event| event["details"]["newAddress"] == true);
        assert_eq!(
            new.map(|event| event["ip"].as_str().unwrap()).collect::<Vec<_>>(),
            ["2001:db8:0:1::1", "192.0.2.7"]
        );
        service.advance(60 * 60);
        let mail = server.mail();
        let [second] = &notices(&mail)[..] else { panic!("{mail:?}") };
        assert!(second.contains(", from 2001:db8:0:1::1: "), "{second}");
    });
}

#[test]
fn what_a_server_refuses_for_good_is_over_and_what_it_refuses_for_now_is_tried_again() {
    on_both(|service, server| {
        let ann = sign_up(service, server, "ann@example.com");
        server.at("RCPT", "550 5.1.1 nobody here");
        service.create_key(&ann.access, json!({ "name": "a" }));
        wait_for(|| outcomes(service, "gone", 550) == 1);
        // Servers repeat the address, and an account may be deleted.
        assert_eq!(
            service.count("SELECT COUNT(*) FROM deliveries WHERE answer IS NOT NULL OR reason LIKE '%nobody%'"),
            0
        );

        for (step, what, status) in [("RCPT", "once 451 4.7.1 grey", 451), ("MAIL", "once 550 who are you", 550)] {
            service.advance(60 * 60);
            server.at(step, what);
            service.create_key(&ann.access, json!({ "name": "b" }));
            wait_for(|| outcomes(service, "waits", status) == 1);
            service.advance(60);
            assert_eq!(notices(&taken(service, server)).len(), 1);
        }

        service.advance(60 * 60);
        for step in ["RCPT", "DATA"] {
            server.at(step, "drop");
            service.create_key(&ann.access, json!({ "name": "c" }));
            server.wait_for_step(step);
            server.at(step, "");
            // Its next try is due a while after the one that failed.
            wait_for(|| service.count("SELECT COUNT(*) FROM deliveries WHERE next_at IS NOT NULL AND tries = 1") == 1);
            service.advance(60);
            assert_eq!(notices(&taken(service, server)).len(), 1);
            service.advance(60 * 60);
        }
    });
}

#[test]
fn a_server_that_hangs_holds_up_no_request_and_gets_the_mail_later() {
    let Some(mut server) = MailServer::start() else { return };
    let service = service_with(Backend::Sqlite, &server);
    let ann = sign_up(&service, &server, "ann@example.com");
    server.at("DATA", "hang");
    service.create_key(&ann.access, json!({ "name": "a" }));
    server.wait_for_step("DATA");
    service.create_key(&ann.access, json!({ "name": "b" }));
    server.at("DATA", "");
    wait_for(|| service.count("SELECT COUNT(*) FROM deliveries WHERE next_at IS NOT NULL AND tries = 1") == 1);
    service.advance(60);
    assert_eq!(notices(&server.mail()).len(), 2);
}

#[test]
fn nothing_is_sent_to_an_account_that_was_deactivated() {
    on_both(|service, server| {
        let ann = sign_up(service, server, "ann@example.com");
        server.at("RCPT", "once 451 later");
        service.create_key(&ann.access, json!({ "name": "a" }));
        wait_for(|| outcomes(service, "waits", 451) == 1);
        service.execute("UPDATE users SET is_active = FALSE");
        service.advance(60);
        wait_for(|| service.count("SELECT COUNT(*) FROM deliveries WHERE outcome = 'dropped'") == 1);
    });
}

#[test]
fn domains_are_written_in_punycode_and_other_letters_need_a_server_that_takes_them() {
    for utf8 in [true, false] {
        let Some(server) = MailServer::start_with(Way::Plain, None, utf8) else { return };
        let service = service_with(Backend::Sqlite, &server);
        let turtle = sign_up(&service, &server, "turtle@żółw.example");
        service.create_key(&turtle.access, json!({ "name": "a" }));
        let mail = server.mail();
        assert_eq!((mail.recipients[0].as_str(), mail.options.len()), ("turtle@xn--w-uga1v8h.example", 0));
        assert!(mail.source.is_ascii());

        let turtle = service.sign_up("żółw@example.com");
        service.create_key(&turtle.access, json!({ "name": "a" }));
        if utf8 {
            let mail = server.mail();
            assert_eq!(mail.recipients, ["żółw@example.com"]);
            assert!(mail.options.contains(&"SMTPUTF8".to_string()));
        } else {
            // The link and the notice.
            wait_for(|| service.count("SELECT COUNT(*) FROM deliveries WHERE outcome = 'gone'") == 2);
        }
    }
}

/// A home with these settings of mail.
fn home_with(url: &str) -> Home {
    let mut home = Home::fresh(Backend::Sqlite);
    for (name, value) in [("SMTP_URL", url), ("MAIL_FROM", FROM), ("PUBLIC_URL", PUBLIC)] {
        home.set(name, value);
    }
    home
}

const TEST: &[&str] = &["mail", "test", "ann@example.com"];

#[test]
fn a_test_mail_says_what_the_server_answers_and_needs_no_database() {
    let Some(mut server) = MailServer::start() else { return };
    let home = home_with(&server.url());
    let told = home.run(TEST).succeeded();
    assert_eq!(told, format!("127.0.0.1:{} took a mail to ann@example.com: 250 2.0.0 taken\n", server.port));
    assert_eq!(server.mail().header("Subject"), "Mail from Example works");
    assert_eq!(home.files(), [""; 0]);

    server.at("RCPT", "550 5.1.1 nobody here");
    let failed = home.run(TEST);
    let expected = format!("127.0.0.1:{} did not take a mail to ann@example.com: RCPT TO: ", server.port);
    let expected = format!("{expected}the server answers 550: 5.1.1 nobody here");
    assert!(failed.failed(1).contains(&expected), "{failed:?}");
    drop(server);
    assert!(home.run(TEST).failed(1).contains("connecting: Connection refused"));

    let mut home = home;
    assert!(home.run(&["mail", "test", "ann"]).failed(2).contains("\"ann\" must be an email"));
    assert!(home.run(&["mail", "test"]).failed(2).contains("the address is missing; see keyward --help"));
    let unknown = home.run(&["mail", "test", "--json", "ann@example.com"]);
    assert!(unknown.failed(2).contains("unknown argument \"--json\""));
    home.unset("SMTP_URL");
    assert!(home.run(TEST).failed(1).contains("there is no mail: SMTP_URL is not set"));
}

#[test]
fn the_way_to_the_server_is_protected_as_the_operator_says() {
    let folder = TempDir::fresh();
    let pair = Pair::make(folder.path(), "mail");
    let trusted = pair.certificate.to_str().unwrap();
    let login = Some(("ann@example.com", "p:w/ä"));
    let Some(implicit) = MailServer::start_with(Way::Implicit(&pair), login, true) else { return };
    let starttls = MailServer::start_with(Way::StartTls(&pair), login, true).unwrap();
    let open = MailServer::start_with(Way::StartTls(&pair), None, true).unwrap();
    let plain = MailServer::start().unwrap();

    let with = |server: &MailServer, url: &str, trusted: Option<&str>| {
        let mut home = home_with(&url.replace("HOST", &format!("127.0.0.1:{}", server.port)));
        // A folder without any, so that the system's do not count.
        home.set("SSL_CERT_FILE", trusted.unwrap_or("/dev/null"));
        home.run(TEST)
    };
    const USER: &str = "ann%40example.com:p%3Aw%2F%C3%A4";
    for (server, url) in [
        (&implicit, "smtps://USER@HOST"),
        (&starttls, "smtp://USER@HOST"),
        (&starttls, "smtp://USER@HOST?tls=required"),
    ] {
        with(server, &url.replace("USER", USER), Some(trusted)).succeeded();
        let mail = server.mail();
        assert_eq!((mail.tls, mail.login.as_deref()), (true, Some("ann@example.com")), "{url}");
        let refused = with(server, &url.replace("USER", USER), None);
        assert!(refused.failed(1).contains("certificate"), "{refused:?}");
        let refused = with(server, &url.replace("USER", "ann:hunter2"), Some(trusted));
        assert!(refused.failed(1).contains("logging in: ") && !refused.stderr.contains("hunter2"), "{refused:?}");
    }
    for (server, url, tls) in [
        (&open, "smtp://HOST?tls=opportunistic", true),
        (&plain, "smtp://HOST?tls=opportunistic", false),
        (&plain, "smtp://HOST?tls=none", false),
    ] {
        with(server, url, None).succeeded();
        assert_eq!(server.mail().tls, tls, "{url}");
    }
    let refused = with(&plain, "smtp://HOST?tls=required", Some(trusted));
    assert!(refused.failed(1).contains("STARTTLS is not supported on this server"), "{refused:?}");
}

#[test]
fn an_operators_texts_are_checked_at_the_start_and_used() {
    let Some(server) = MailServer::start() else { return };
    let mut home = home_with(&server.url());
    let folder = home.path("texts");
    std::fs::create_dir(&folder).unwrap();
    home.set("MAIL_TEMPLATES", "texts");
    std::fs::write(folder.join("test.txt"), "Subject: Grüße von {service}\n\nHallo {name}, süß!\n").unwrap();
    home.run(TEST).succeeded();
    let mail = server.mail();
    assert_eq!(mail.text(), "Hallo there, süß!\n");
    assert!(mail.header("Subject").starts_with("=?utf-8?"), "{mail:?}");

    for (name, text, fault) in [
        (
            "reset.txt",
            "Subject: a\n\n{link}\n{token}\n",
            "texts/reset.txt:4 has the placeholder {token}; here there may be",
        ),
        ("reset.txt", "Subject: a\n\nb\n", "texts/reset.txt has no {link}"),
        ("rest.txt", "", "texts/rest.txt is no mail's text; there are verification.txt, reset.txt"),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
        for command in [&[][..], TEST] {
            let failed = home.run(command);
            assert!(failed.failed(1).contains(&format!("MAIL_TEMPLATES: {fault}")), "{failed:?}");
        }
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    assert_eq!(home.files(), ["texts"]);
    home.set("MAIL_TEMPLATES", "nowhere");
    assert!(home.run(&[]).failed(1).contains("MAIL_TEMPLATES: nowhere cannot be read: "));
}
