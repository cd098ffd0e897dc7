//! E-mails and names in other scripts than those that programs are tried with; on both stores.

use keyward_harness::service::{PASSWORD, Service, broken_rules, on_both_stores};
use serde_json::{Value, json};

fn sign_up(service: &Service, email: &str, name: Value) -> (u16, Value) {
    let body = json!({ "email": email, "password": PASSWORD, "name": name });
    let answer = service.post("/auth/signup").json(body).send();
    (answer.status, answer.json())
}

/// The account that a login with this e-mail leads to.
#[track_caller]
fn account_of(service: &Service, email: &str) -> String {
    let answer = service.post("/auth/login").json(json!({ "email": email, "password": PASSWORD })).send();
    assert_eq!(answer.status, 200, "{email:?}: {answer:?}");
    answer.json()["user"]["id"].as_str().unwrap().to_string()
}

on_both_stores! {
    fn e_mails_of_any_script_are_one_account_however_they_are_typed(service) {
        // As it is typed at the sign-up, as it is shown, and other ways to type the same.
        for (typed, shown, others) in [
            ("Ann@Example.COM", "ann@example.com", &["ANN@EXAMPLE.COM"][..]),
            // Composed and decomposed (Unicode's normalization forms C and D).
            ("\u{c4}rger@example.com", "\u{e4}rger@example.com", &["A\u{308}RGER@example.com", "a\u{308}rger@example.com"]),
            ("\u{d55c}@example.com", "\u{d55c}@example.com", &["\u{1112}\u{1161}\u{11ab}@example.com"]),
            ("ann@b\u{fc}cher.example", "ann@b\u{fc}cher.example", &["ann@bu\u{308}cher.example"]),
            // Signs that are other letters by another name: the Kelvin, the angstrom and the ohm.
            ("kim@example.com", "kim@example.com", &["\u{212a}im@example.com"]),
            ("\u{e5}sa@example.com", "\u{e5}sa@example.com", &["\u{212b}sa@example.com", "A\u{30a}sa@example.com"]),
            ("\u{3c9}@example.com", "\u{3c9}@example.com", &["\u{2126}@example.com", "\u{3a9}@example.com"]),
            // Several marks, in whatever order they are typed.
            ("\u{1ed9}@example.com", "\u{1ed9}@example.com", &["o\u{323}\u{302}@example.com", "O\u{302}\u{323}@example.com"]),
            ("\u{43f}\u{451}\u{442}\u{440}@\u{43f}\u{440}\u{438}\u{43c}\u{435}\u{440}.\u{440}\u{444}",
             "\u{43f}\u{451}\u{442}\u{440}@\u{43f}\u{440}\u{438}\u{43c}\u{435}\u{440}.\u{440}\u{444}", &[]),
            ("\u{7528}\u{6237}@\u{4f8b}\u{5b50}.\u{516c}\u{53f8}", "\u{7528}\u{6237}@\u{4f8b}\u{5b50}.\u{516c}\u{53f8}", &[]),
            // From right to left, and four bytes in UTF-8.
            ("\u{5d0}\u{5d1}@example.com", "\u{5d0}\u{5d1}@example.com", &[]),
            ("\u{20bb7}@example.com", "\u{20bb7}@example.com", &[]),
            ("\u{10400}@example.com", "\u{10428}@example.com", &["\u{10428}@example.com"]),
        ] {
            let (status, body) = sign_up(service, typed, Value::Null);
            assert_eq!((status, &body["user"]["email"]), (201, &json!(shown)), "{typed:?}: {body}");
            for other in others {
                let (status, body) = sign_up(service, other, Value::Null);
                assert_eq!((status, &body["message"]), (409, &json!("User already exists")), "{other:?}");
            }
            // Two are enough: each costs a hash.
            for other in others.iter().take(2) {
                assert_eq!(account_of(service, other), body["user"]["id"], "{other:?}");
            }
        }
    }

    fn e_mails_that_only_look_alike_are_accounts_of_their_own(service) {
        let mut ids = Vec::new();
        let alike = [
            "pa@example.com",
            // Cyrillic а, р and а.
            "p\u{430}@example.com",
            "\u{440}\u{430}@example.com",
            // Fullwidth, and mathematical.
            "\u{ff50}a@example.com",
            "\u{1d429}a@example.com",
            "stra\u{df}e@example.com",
            "strasse@example.com",
        ];
        for email in alike {
            let (status, body) = sign_up(service, email, Value::Null);
            assert_eq!((status, &body["user"]["email"]), (201, &json!(email)), "{email:?}: {body}");
            ids.push(body["user"]["id"].as_str().unwrap().to_string());
        }
        for (email, id) in alike.iter().zip(&ids) {
            assert_eq!(&account_of(service, email), id, "{email:?}");
        }
    }

    fn e_mails_with_characters_that_nobody_sees_are_refused(service) {
        for email in [
            // Of no width, joining, a byte order mark, a soft hyphen.
            "an\u{200b}n@example.com", "an\u{200c}n@example.com", "an\u{200d}n@example.com", "\u{feff}ann@example.com",
            "an\u{ad}n@example.com", "ann\u{2060}@example.com", "ann@exam\u{200b}ple.com",
            // That turn the direction round.
            "\u{202e}nna@example.com", "ann\u{2066}@example.com", "ann@\u{200f}example.com",
            // Tags and selectors, which are invisible as well.
            "ann\u{e0041}@example.com", "ann\u{fe0f}@example.com", "ann\u{e0100}@example.com",
            // Spaces, lines and what ends a text.
            "an n@example.com", "ann\u{a0}@example.com", "ann\u{3000}@example.com", "ann@example.com\n", "ann@example.com\u{2028}",
            "ann\u{85}@example.com", "ann\u{1b}[2J@example.com", "ann\u{7f}@example.com",
            // A mark on nothing, a letter that small is two, signs that are taken for a dot or an at.
            "\u{308}ann@example.com", "\u{130}an@example.com", "ann@example\u{3002}com", "ann@example\u{ff0e}com", "ann\u{ff20}example.com",
            // Pictures, and what is no character.
            "\u{1f600}@example.com", "ann\u{fffd}@example.com", "ann\u{e000}@example.com", "ann\u{ffff}@example.com",
        ] {
            let (status, body) = sign_up(service, email, Value::Null);
            assert_eq!((status, body), (400, broken_rules(&["email must be an email"])), "{email:?}");
        }
        let (status, body) = sign_up(service, "ann\0@example.com", Value::Null);
        assert_eq!((status, body), (400, broken_rules(&["email must not contain NUL characters"])));
    }

    fn names_come_back_as_they_were_written(service) {
        let longest = "\u{1f600}".repeat(255);
        let ann = service.sign_up("ann@example.com");
        for (number, name) in [
            // None at all, marks, directions, joiners, the last code point, no character, a terminal's orders, the longest.
            "", "A\u{308}nn\u{35}", "\u{202e}nnA\u{200b}\u{feff}", "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}", "\u{5d0}\u{5d1}\u{10ffff}\u{fffe}",
            "Z\u{351}\u{36b}\u{343}\u{32a}algo", "\u{1b}[2J\u{7}\r\n\t\u{2028}", "'; -- \\u0000 %00 ${name}", &longest,
        ].iter().enumerate() {
            let (status, body) = sign_up(service, &format!("ann{number}@example.com"), json!(name));
            assert_eq!((status, &body["user"]["name"]), (201, &json!(name)), "{body}");
            let access = body["accessToken"].as_str().unwrap();
            assert_eq!(service.get("/auth/me").bearer(access).send().json()["name"], *name);
            if !name.trim().is_empty() {
                let made = service.post("/keys/create").bearer(&ann.access).json(json!({ "name": name })).send();
                assert_eq!((made.status, &made.json()["name"]), (201, &json!(name)), "{made:?}");
                assert_eq!(service.get("/keys").bearer(&ann.access).send().json()[0]["name"], *name);
            }
        }
        for (name, rule) in [
            ("a\0b".to_string(), "name must not contain NUL characters"),
            ("\u{1f600}".repeat(256), "name must be shorter than or equal to 255 characters"),
        ] {
            assert_eq!(sign_up(service, "bob@example.com", json!(name)), (400, broken_rules(&[rule])));
            let made = service.post("/keys/create").bearer(&ann.access).json(json!({ "name": name })).send();
            assert_eq!((made.status, made.json()), (400, broken_rules(&[rule])));
        }
    }
}
