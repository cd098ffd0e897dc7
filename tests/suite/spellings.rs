//! E-mails and passwords that are the same text, typed in different ways.

use std::sync::Barrier;

use keyward_harness::http_client::Answer;
use keyward_harness::service::{PASSWORD, Service, broken_rules, error, on_both_stores};
use serde_json::{Value, json};

fn sign_up(service: &Service, email: &str, password: &str) -> (u16, Value) {
    let answer = service.post("/auth/signup").json(json!({ "email": email, "password": password })).send();
    (answer.status, answer.json())
}

fn log_in(service: &Service, email: &str, password: &str) -> Answer {
    service.post("/auth/login").json(json!({ "email": email, "password": password })).send()
}

/// What a phone, a Mac or another keyboard may send for the same password.
const COMPOSED: &str = "gr\u{fc}ne \u{c5}pfel \u{1ed9}";
const OTHERWISE: [&str; 3] = [
    "gru\u{308}ne A\u{30a}pfel o\u{323}\u{302}",
    "gr\u{fc}ne \u{212b}pfel \u{1ecd}\u{302}",
    "gr\u{fc}ne \u{c5}pfel o\u{302}\u{323}",
];

on_both_stores! {
    fn an_e_mail_is_one_account_in_every_spelling_of_its_domain(service) {
        for (typed, shown, others) in [
            ("ann@b\u{fc}cher.example", "ann@b\u{fc}cher.example", &["ann@xn--bcher-kva.example", "ann@BU\u{308}CHER.example"][..]),
            ("bob@XN--BCHER-KVA.example", "bob@b\u{fc}cher.example", &["bob@b\u{fc}cher.example", "bob@xn--bcher-kva.example"]),
            ("ann@\u{ff45}xample.com", "ann@example.com", &["ann@example.com"]),
            // Devanagari, Thai, Arabic and Hebrew, with marks in front of the @ and behind it.
            ("संपर्क@xn--p1b6ci4b4b3a.xn--11b5bs3a9aj6g", "संपर्क@उदाहरण.परीक्षा", &["संपर्क@उदाहरण.परीक्षा"]),
            ("ติดต่อ@ตัวอย่าง.ไทย", "ติดต่อ@ตัวอย่าง.ไทย", &["ติดต่อ@xn--72c1a1bt4awk9o.xn--o3cw4h"]),
            ("\u{623}حمد@مثال.السعودية", "\u{623}حمد@مثال.السعودية", &["\u{627}\u{654}حمد@xn--mgbh0fb.xn--mgberp4a5d4ar"]),
            ("ש\u{5b8}\u{5c1}לום@example.com", "ש\u{5b8}\u{5c1}לום@example.com", &["ש\u{5c1}\u{5b8}לום@example.com"]),
            // A joiner between two words of a Persian one: nobody sees it, so it is shown in Punycode.
            ("ann@نامه\u{200c}ای.example", "ann@xn--mgba3gch31f060k.example", &["ann@xn--mgba3gch31f060k.example"]),
            // What exists in Punycode alone, and what is none.
            ("ann@xn--i-7iq.example", "ann@xn--i-7iq.example", &["ann@XN--I-7IQ.example"]),
            ("ann@xn--zzzzzzzzz.example", "ann@xn--zzzzzzzzz.example", &["ann@XN--ZZZZZZZZZ.example"]),
        ] {
            let (status, body) = sign_up(service, typed, PASSWORD);
            assert_eq!((status, &body["user"]["email"]), (201, &json!(shown)), "{typed:?}: {body}");
            for other in others {
                assert_eq!(sign_up(service, other, PASSWORD), (409, error(409, "User already exists")), "{other:?}");
                let answer = log_in(service, other, PASSWORD);
                assert_eq!((answer.status, &answer.json()["user"]), (200, &body["user"]), "{other:?}");
            }
        }
    }

    fn of_two_sign_ups_that_race_in_different_spellings_one_wins(service) {
        for round in 0..3 {
            let start = &Barrier::new(2);
            let mut statuses = std::thread::scope(|scope| {
                let racers = ["b\u{fc}cher.example", "xn--bcher-kva.example"].map(|domain| {
                    let client = service.client();
                    scope.spawn(move || {
                        start.wait();
                        let email = format!("ann{round}@{domain}");
                        client.post("/auth/signup").json(json!({ "email": email, "password": PASSWORD })).send().status
                    })
                });
                racers.map(|racer| racer.join().unwrap())
            });
            statuses.sort_unstable();
            assert_eq!(statuses, [201, 409]);
        }
    }

    fn guesses_at_an_account_are_counted_whatever_spelling_they_use(service) {
        service.sign_up("ann@b\u{fc}cher.example");
        for name in ["ann", "nobody"] {
            let spellings = ["@b\u{fc}cher.example", "@xn--bcher-kva.example", "@bu\u{308}cher.example", "@\u{ff42}\u{fc}cher.example"];
            let wrong: Vec<u16> = spellings.iter().cycle().take(8)
                .map(|domain| log_in(service, &format!("{name}{domain}"), "wrong").status).collect();
            assert_eq!(wrong, [401, 401, 401, 401, 401, 401, 401, 429], "{name}");
        }
    }

    fn a_password_is_the_same_on_every_keyboard(service) {
        for (number, typed) in [COMPOSED].iter().chain(&OTHERWISE).enumerate() {
            let email = format!("ann{number}@example.com");
            let (status, body) = sign_up(service, &email, typed);
            assert_eq!(status, 201, "{body}");
            for other in [COMPOSED].iter().chain(&OTHERWISE) {
                assert_eq!(log_in(service, &email, other).status, 200, "{other:?}");
            }
            // In another case, without marks, and with letters that only look alike.
            for wrong in [&COMPOSED.to_uppercase(), "grune Apfel o", "gr\u{fc}ne \u{ff21}\u{30a}pfel \u{1ed9}"] {
                assert_eq!(log_in(service, &email, wrong).status, 401, "{wrong:?}");
            }
            let access = body["accessToken"].as_str().unwrap();
            let change = |current: &str, new: &str| {
                let body = json!({ "currentPassword": current, "newPassword": new });
                service.post("/auth/password").bearer(access).json(body).send()
            };
            let answer = change(COMPOSED, OTHERWISE[0]);
            let rule = "newPassword must differ from the current password";
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&[rule])));
            let changed = change(OTHERWISE[1], "na\u{ef}ve Caf\u{e9}").json();
            let access = changed["accessToken"].as_str().unwrap();
            let gone = service.delete("/auth/me").bearer(access).json(json!({ "password": "nai\u{308}ve Cafe\u{301}" })).send();
            assert_eq!(gone.status, 200, "{gone:?}");
        }
    }

    fn a_password_from_before_is_good_as_it_was_typed_and_on_every_keyboard_after_that(service) {
        service.sign_up("ann@example.com");
        service.store_hash(&bcrypt::hash(OTHERWISE[0], 10).unwrap());
        assert_eq!(log_in(service, "ann@example.com", COMPOSED).status, 401);
        assert_eq!(log_in(service, "ann@example.com", OTHERWISE[0]).status, 200);
        let hash = service.stored_hash();
        for typed in [COMPOSED].iter().chain(&OTHERWISE) {
            assert_eq!(log_in(service, "ann@example.com", typed).status, 200, "{typed:?}");
        }
        assert_eq!(service.stored_hash(), hash);
    }

    fn the_length_of_a_password_is_that_of_its_composed_form(service) {
        let decomposed = |letters: usize| "a\u{308}".repeat(letters);
        let rule = |text: &str| (400, broken_rules(&[text]));
        let short = "password must be longer than or equal to 8 characters";
        assert_eq!(sign_up(service, "ann@example.com", &decomposed(7)), rule(short));
        let long = "password must be shorter than or equal to 72 bytes";
        assert_eq!(sign_up(service, "ann@example.com", &decomposed(37)), rule(long));
        assert_eq!(sign_up(service, "ann@example.com", &decomposed(36)).0, 201);
        // Each of its characters counts, however it is typed.
        for (letters, status) in [(36, 200), (35, 401)] {
            for typed in [decomposed(letters), "\u{e4}".repeat(letters)] {
                assert_eq!(log_in(service, "ann@example.com", &typed).status, status, "{letters}");
            }
        }
    }
}
