//! Tokens made to deceive (RFC 8725 §2): each is refused wherever a token is taken, and harms no session.

use std::time::Instant;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256K1_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    KeyPair, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding,
};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use keyward::tokens::algorithm::Algorithm;
use keyward_harness::forge::{self, b64, ed25519, hs256, token, unb64};
use keyward_harness::http_client::{self, Answer, Client};
use keyward_harness::service::{Account, Backend, Service, TempDir, error, on_both_stores};
use serde_json::{Value, json};

/// Refused as every bad token is.
#[track_caller]
fn assert_refused(what: &str, answer: &Answer) {
    assert_eq!((answer.status, answer.json()), (401, error(401, "Unauthorized")), "{what}");
    let challenge = answer.header("www-authenticate");
    assert_eq!(challenge, Some("Bearer error=\"invalid_token\""), "{what}");
}

/// Refused on both protected routes that take a token, and as a refresh token.
#[track_caller]
fn assert_refused_everywhere(service: &Service, what: &str, token: &str) {
    for path in ["/protected/user-only", "/protected/flexible"] {
        assert_refused(&format!("{what} at {path}: {token:.200}"), &service.get(path).bearer(token).send());
    }
    let answer = service.post("/auth/refresh").json(json!({ "refreshToken": token })).send();
    assert_refused(&format!("{what} at /auth/refresh: {token:.200}"), &answer);
}

/// The session has lived through everything, and both its tokens are good.
#[track_caller]
fn assert_unharmed(service: &Service, account: &Account) {
    assert_eq!(service.token_status(&account.access), 200);
    let answer = service.post("/auth/refresh").json(json!({ "refreshToken": account.refresh })).send();
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// One of an account's tokens, and how to sign another one like it.
struct Real {
    token: String,
    payload: Value,
    secret: String,
}

impl Real {
    fn both(service: &Service, account: &Account) -> [Real; 2] {
        let [access, refresh] = forge::secrets(service);
        [(&account.access, access), (&account.refresh, refresh)].map(|(token, secret)| Real {
            token: token.clone(),
            payload: forge::part(token, 1),
            secret,
        })
    }

    /// With another header, well signed.
    fn headed(&self, header: impl AsRef<[u8]>) -> String {
        token(header, self.payload.to_string(), hs256(&self.secret))
    }

    /// With another payload, well signed.
    fn saying(&self, payload: impl AsRef<[u8]>) -> String {
        token(unb64(self.parts()[0]), payload, hs256(&self.secret))
    }

    fn parts(&self) -> [&str; 3] {
        let parts: Vec<&str> = self.token.split('.').collect();
        parts.try_into().unwrap()
    }
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

on_both_stores! {
    fn a_token_that_is_signed_as_the_servers_own_is_as_good(service) {
        // What makes the refusals of this file mean something.
        let ann = service.sign_up("ann@example.com");
        let [access, refresh] = Real::both(service, &ann);
        let foreign = hs256("the-secret-of-somebody-else-altogether");
        assert_eq!(service.token_status(&access.headed(HEADER)), 200);
        assert_refused_everywhere(service, "another secret", &token(HEADER, access.payload.to_string(), &foreign));
        assert_refused_everywhere(service, "another secret", &token(HEADER, refresh.payload.to_string(), &foreign));
        // A header that tells where to get a key is not followed (RFC 8725 §3.10), and does no harm.
        let header = r#"{"alg":"HS256","jku":"http://127.0.0.1:1/jwks.json","x5u":"http://127.0.0.1:1/x","x5c":["AA"]}"#;
        assert_eq!(service.token_status(&access.headed(header)), 200);
        let elsewhere = token(header, access.payload.to_string(), &foreign);
        assert_refused_everywhere(service, "another secret and its address", &elsewhere);
        assert_unharmed(service, &Account { refresh: refresh.headed(HEADER), ..ann });
    }

    fn neither_type_of_token_passes_for_the_other(service) {
        let ann = service.sign_up("ann@example.com");
        let [access, refresh] = Real::both(service, &ann);
        let is_no_access_token = |path: &str, token: &str| assert_refused(path, &service.get(path).bearer(token).send());
        let is_no_refresh_token = |token: &str| {
            let answer = service.post("/auth/refresh").json(json!({ "refreshToken": token })).send();
            assert_refused("an access token", &answer);
        };
        let mut as_access = refresh.payload.clone();
        as_access["type"] = json!("access");
        as_access["email"] = json!("ann@example.com");
        let mut as_refresh = access.payload.clone();
        as_refresh["type"] = json!("refresh");
        as_refresh["gen"] = json!(1);
        for path in ["/protected/user-only", "/protected/flexible"] {
            is_no_access_token(path, &ann.refresh);
            is_no_access_token(path, &access.saying(refresh.payload.to_string()));
            is_no_access_token(path, &access.saying(as_refresh.to_string()));
            is_no_access_token(path, &refresh.saying(as_access.to_string()));
        }
        is_no_refresh_token(&ann.access);
        is_no_refresh_token(&refresh.saying(access.payload.to_string()));
        is_no_refresh_token(&refresh.saying(as_access.to_string()));
        is_no_refresh_token(&access.saying(as_refresh.to_string()));
        assert_unharmed(service, &ann);
    }

    fn no_kind_of_token_passes_for_another_in_the_form_of_today_or_the_one_before(service) {
        let keys = TempDir::fresh();
        for algorithm in [Algorithm::Hs256].into_iter().chain(forge::ALGORITHMS) {
            let file = keys.path().join("jwt.pem");
            if algorithm != Algorithm::Hs256 {
                std::fs::write(&file, &forge::pairs(algorithm)[0].private_pem).unwrap();
            }
            service.reconfigure(|config| {
                config.tokens.algorithm = algorithm;
                config.tokens.private_key_file = (algorithm != Algorithm::Hs256).then_some(file);
            });
            assert_kinds_are_apart(service, algorithm);
        }
    }

    fn a_token_expires_to_the_second(service) {
        let ann = service.sign_up("ann@example.com");
        let now = service.clock.now().seconds();
        for mut real in Real::both(service, &ann) {
            for exp in [now - 3600, now - 1, now, 0, -1, i64::MIN] {
                real.payload["exp"] = json!(exp);
                assert_refused_everywhere(service, "expired", &real.headed(HEADER));
            }
        }
        let [access, refresh] = Real::both(service, &ann);
        let exp = |real: &Real| real.payload["exp"].as_i64().unwrap();
        // To the last second before the end; then to the end.
        let go_near_end_of = |real: &Real| {
            let left = exp(real) - service.clock.now().seconds();
            service.advance(u64::try_from(left).unwrap() - 1);
        };
        go_near_end_of(&access);
        assert_eq!(service.token_status(&ann.access), 200);
        service.advance(1);
        assert_refused_everywhere(service, "expired", &ann.access);
        go_near_end_of(&refresh);
        let answer = service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send();
        assert_eq!(answer.status, 200, "{answer:?}");
        // It would still be good for a lost answer.
        service.advance(1);
        assert_refused_everywhere(service, "expired", &ann.refresh);
    }

    fn a_token_of_another_session_or_user_is_nobodys(service) {
        let ann = service.sign_up("ann@example.com");
        let bob = service.sign_up("bob@example.com");
        let nobody = "01a20dce-a5bf-766d-8c42-0f65cf336c4a";
        let [access, refresh] = Real::both(service, &ann);
        let mut payload = access.payload.clone();
        for (claim, value) in [("sub", bob.id.as_str()), ("sub", nobody), ("sid", nobody)] {
            payload[claim] = json!(value);
            assert_refused_everywhere(service, claim, &access.saying(payload.to_string()));
            payload = access.payload.clone();
        }
        let mut payload = refresh.payload.clone();
        payload["sid"] = json!(nobody);
        assert_refused_everywhere(service, "sid", &refresh.saying(payload.to_string()));
        assert_unharmed(service, &ann);
        assert_unharmed(service, &bob);
    }
}

/// Signs tokens with every payload that there is and was, under every `typ`, and tries them everywhere.
#[track_caller]
fn assert_kinds_are_apart(service: &Service, algorithm: Algorithm) {
    let email = format!("{algorithm:?}@example.com");
    let ann = service.sign_up(&email);
    let key = service.create_key(&ann.access, json!({ "name": "ci" }));
    let answer = service.post("/auth/token").api_key(key["key"].as_str().unwrap()).json(json!({})).send();
    let derived = answer.json()["accessToken"].as_str().unwrap().to_string();
    let (access, today, refresh) = (&ann.access, &derived, &ann.refresh);
    let mut before = forge::part(&derived, 1);
    before["sub"] = json!(ann.id);
    before.as_object_mut().unwrap().remove("owner");
    let [access_secret, refresh_secret] = forge::secrets(service);
    let signed = |like: &str, typ: Option<&Value>, payload: &Value| {
        let mut header = forge::part(like, 0);
        header.as_object_mut().unwrap().remove("typ");
        header.as_object_mut().unwrap().extend(typ.map(|typ| ("typ".to_string(), typ.clone())));
        match (header["alg"].as_str().unwrap(), like == refresh) {
            ("EdDSA" | "ES256" | "RS256", _) => {
                let [pair, _] = forge::pairs(algorithm);
                token(header.to_string(), payload.to_string(), |message| pair.sign(message))
            }
            (_, true) => token(header.to_string(), payload.to_string(), hs256(&refresh_secret)),
            (_, false) => token(header.to_string(), payload.to_string(), hs256(&access_secret)),
        }
    };
    let [user, of_key, of_refresh, untold] = ["at+jwt", "key+jwt", "refresh+jwt", "JWT"].map(|typ| json!(typ));
    let others = ["", "jwt", "at+JWT", "application/at+jwt", "at+jwt ", "access", "id+jwt"].map(|typ| json!(typ));
    let typs = [Some(&user), Some(&of_key), Some(&of_refresh), Some(&untold), None];
    let wrong = [json!(1), json!(["at+jwt"]), json!({ "at+jwt": 1 })];
    for typ in typs.into_iter().chain(others.iter().chain(&wrong).map(Some)) {
        let is = |kind: &Value| typ == Some(kind);
        let is_untold = typ.is_none() || is(&untold);
        for (what, like, payload, good_for) in [
            ("a user's", access, forge::part(access, 1), if is(&user) || is_untold { "user" } else { "" }),
            ("a key's", today, forge::part(today, 1), if is(&of_key) { "service" } else { "" }),
            ("a key's, as before", today, before.clone(), if is_untold { "service" } else { "" }),
            ("to refresh", refresh, forge::part(refresh, 1), if is(&of_refresh) || is_untold { "refresh" } else { "" }),
        ] {
            let token = signed(like, typ, &payload);
            let body = json!({ "refreshToken": token });
            let statuses = [
                service.get("/protected/user-only").bearer(&token).send().status,
                service.get("/protected/service-only").bearer(&token).send().status,
                service.post("/auth/refresh").json(body).send().status,
            ];
            let expected = ["user", "service", "refresh"].map(|needed| if needed == good_for { 200 } else { 401 });
            assert_eq!(statuses, expected, "{algorithm:?}, typ {typ:?}, {what}");
        }
    }
    // Neither the owner's id nor another key's makes a new token of an old one, or the other way round.
    for (claim, value) in [("sub", json!(ann.id)), ("owner", Value::Null), ("key", json!(ann.id))] {
        let mut payload = forge::part(today, 1);
        payload[claim] = value;
        assert_refused(
            claim,
            &service.get("/protected/service-only").bearer(&signed(today, Some(&of_key), &payload)).send(),
        );
    }
    // A member that is there twice may be read in two ways.
    let twice = forge::part(access, 0).to_string().replacen('{', r#"{"typ":"key+jwt","#, 1);
    let sign = |message: &[u8]| match algorithm {
        Algorithm::Hs256 => hs256(&access_secret)(message),
        _ => forge::pairs(algorithm)[0].sign(message),
    };
    assert_refused_everywhere(service, "typ twice", &token(twice, forge::part(access, 1).to_string(), sign));
}

#[test]
fn no_character_of_a_token_can_be_changed() {
    // More tokens than one address may try to refresh.
    let service = Service::start_with(Backend::Sqlite, &[("RATE_LIMIT_REFRESH", "off")], |_| {});
    let ann = service.sign_up("ann@example.com");
    for real in Real::both(&service, &ann) {
        for at in 0..real.token.len() {
            let character = real.token.as_bytes()[at];
            for other in [if character == b'A' { b'B' } else { b'A' }, b'.'] {
                if other != character {
                    let mut changed = real.token.clone().into_bytes();
                    changed[at] = other;
                    let changed = String::from_utf8(changed).unwrap();
                    assert_refused_everywhere(&service, "a changed character", &changed);
                }
            }
        }
    }
    assert_unharmed(&service, &ann);
}

#[test]
fn parts_of_good_tokens_make_no_good_token() {
    let service = Service::start(Backend::Sqlite);
    let ann = service.sign_up("ann@example.com");
    let again = Real::both(&service, &service.log_in("ann@example.com"));
    for (real, other) in Real::both(&service, &ann).iter().zip(&again) {
        let ([header, payload, signature], [_, other_payload, other_signature]) = (real.parts(), other.parts());
        for (what, token) in [
            ("another's payload", format!("{header}.{other_payload}.{signature}")),
            ("another's signature", format!("{header}.{payload}.{other_signature}")),
            ("no signature", format!("{header}.{payload}.")),
            ("no signature, no dot", format!("{header}.{payload}")),
            ("no header", format!(".{payload}.{signature}")),
            ("no payload", format!("{header}..{signature}")),
            ("header only", header.to_string()),
            ("dots only", "..".to_string()),
            ("one dot", ".".to_string()),
            ("a dot before", format!(".{header}.{payload}.{signature}")),
            ("a dot behind", format!("{header}.{payload}.{signature}.")),
            ("four parts", format!("{header}.{payload}.{signature}.{signature}")),
            ("five parts, as of a JWE", format!("{header}.{payload}.{signature}.{payload}.{signature}")),
            ("two tokens", format!("{0} {0}", real.token)),
            ("two tokens and a comma", format!("{0},{0}", real.token)),
            ("a scheme within", format!("Bearer {}", real.token)),
            ("quotes", format!("\"{}\"", real.token)),
            ("half a signature", format!("{header}.{payload}.{}", b64(&unb64(signature)[..16]))),
            ("one byte of it", format!("{header}.{payload}.{}", b64(&unb64(signature)[..1]))),
            ("a byte more", format!("{header}.{payload}.{}", b64([unb64(signature), vec![0]].concat()))),
            (
                "its signature twice",
                format!("{header}.{payload}.{}", b64([unb64(signature), unb64(signature)].concat())),
            ),
            ("a very long signature", format!("{header}.{payload}.{}", "A".repeat(8000))),
            ("zeros", format!("{header}.{payload}.{}", b64([0; 32]))),
        ] {
            assert_refused_everywhere(&service, what, &token);
        }
    }
    assert_unharmed(&service, &ann);
}

#[test]
fn base64_has_one_way_to_write_a_part() {
    let service = Service::start(Backend::Sqlite);
    let ann = service.sign_up("ann@example.com");
    for real in Real::both(&service, &ann) {
        let parts = real.parts();
        // The last character of 32 bytes has two bits that mean nothing.
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let last = alphabet.find(parts[2].chars().last().unwrap()).unwrap();
        let mut twin = parts[2].to_string();
        twin.pop();
        twin.push(alphabet.as_bytes()[last ^ 1].into());
        assert_refused_everywhere(&service, "a twin", &format!("{}.{}.{twin}", parts[0], parts[1]));
        for index in 0..3 {
            let with = |text: String| {
                let mut parts = parts.map(str::to_string);
                parts[index] = text;
                parts.join(".")
            };
            let part = parts[index];
            let (start, end) = part.split_at(part.len() / 2);
            for (what, text) in [
                ("padding", format!("{part}=")),
                ("padding", format!("{part}==")),
                ("space within", format!("{start} {end}")),
                ("tab within", format!("{start}\t{end}")),
                ("percent", format!("{start}%41{end}")),
                ("not ASCII", format!("{start}é{end}")),
                ("the other alphabet", format!("{start}+/{end}")),
                ("one more character", format!("{part}A")),
            ] {
                assert_refused_everywhere(&service, what, &with(text));
            }
            // The same bytes, well signed, but in the alphabet that is not for URLs: '?' and '>' need it.
            if index == 1 {
                let mut payload = real.payload.clone();
                payload["x"] = json!("???>>>~~~");
                let payload = BASE64_STANDARD_NO_PAD.encode(payload.to_string());
                if payload.contains(['+', '/']) {
                    let message = format!("{}.{payload}", parts[0]);
                    let signature = b64(hs256(&real.secret)(message.as_bytes()));
                    assert_refused_everywhere(
                        &service,
                        "the other alphabet, signed",
                        &format!("{message}.{signature}"),
                    );
                }
            }
        }
        for whitespace in ["\n", "\r\n", " ", "\0"] {
            let token = format!("{}{whitespace}", real.token);
            let answer = service.post("/auth/refresh").json(json!({ "refreshToken": token })).send();
            assert!(matches!(answer.status, 400 | 401), "{answer:?}");
        }
    }
    assert_unharmed(&service, &ann);
}

#[test]
fn a_header_chooses_no_algorithm_of_its_own() {
    let service = Service::start(Backend::Sqlite);
    let ann = service.sign_up("ann@example.com");
    for real in Real::both(&service, &ann) {
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"none","typ":"JWT"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":"NONE"}"#,
            r#"{"alg":"nOnE"}"#,
            r#"{"alg":""}"#,
            r#"{"alg":null}"#,
            r#"{"alg":0}"#,
            r#"{"alg":["HS256"]}"#,
            r#"{"alg":{"HS256":1}}"#,
            r#"{"alg":"hs256"}"#,
            r#"{"alg":"HS256 "}"#,
            r#"{"alg":"HS256\u0000"}"#,
            r#"{"ALG":"HS256"}"#,
            r#"{"typ":"JWT"}"#,
            r#"{"alg":"none","alg":"HS256"}"#,
            r#"{"alg":"HS256","alg":"none"}"#,
            r#"{"alg":"HS256","alg":"HS256"}"#,
            r#"{"alg":"HS256","\u0061lg":"none"}"#,
            r#"{"alg":"HS384"}"#,
            r#"{"alg":"HS512"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"ES256"}"#,
            r#"{"alg":"EdDSA"}"#,
            r#"{"alg":"dir","enc":"A128GCM"}"#,
            r#"{}"#,
            r#"["HS256"]"#,
            r#"[{"alg":"HS256"}]"#,
            r#""HS256""#,
            r#"null"#,
            "",
            "{",
            "\u{feff}{\"alg\":\"HS256\"}",
            r#"{"alg":"HS256"}{"alg":"HS256"}"#,
            r#"{"alg":"HS256"},"#,
            r#"{"alg":'HS256'}"#,
        ] {
            assert_refused_everywhere(&service, header, &real.headed(header));
            assert_refused_everywhere(&service, header, &token(header, real.payload.to_string(), |_| Vec::new()));
        }
        // Signed by what the header says, with the secret that is right.
        for (name, algorithm) in
            [("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512), ("HS256", hmac::HMAC_SHA512)]
        {
            let key = hmac::Key::new(algorithm, real.secret.as_bytes());
            let signer = |message: &[u8]| hmac::sign(&key, message).as_ref().to_vec();
            let forged = token(format!(r#"{{"alg":"{name}"}}"#), real.payload.to_string(), signer);
            assert_refused_everywhere(&service, name, &forged);
        }
    }
    assert_unharmed(&service, &ann);
}

#[test]
fn an_extension_that_must_be_understood_is_refused() {
    let service = Service::start(Backend::Sqlite);
    let ann = service.sign_up("ann@example.com");
    for real in Real::both(&service, &ann) {
        for header in [
            r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
            r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
            r#"{"alg":"HS256","crit":["alg"]}"#,
            r#"{"alg":"HS256","crit":[]}"#,
            r#"{"alg":"HS256","crit":null}"#,
            r#"{"alg":"HS256","crit":"exp"}"#,
        ] {
            assert_refused_everywhere(&service, header, &real.headed(header));
        }
    }
    assert_unharmed(&service, &ann);
}

/// What a careless server would take for the name of a file, a query or a key.
fn kids() -> Vec<String> {
    let huge = format!("\"{}\"", "k".repeat(4000));
    [
        r#""x""#,
        r#""""#,
        r#""../../../../../../dev/null""#,
        r#""/dev/null""#,
        r#""/proc/sys/kernel/randomize_va_space""#,
        r#""keyward.db.secrets""#,
        r#""' OR '1'='1""#,
        r#""x' UNION SELECT 'secret' --""#,
        r#""; sleep 10""#,
        r#""http://127.0.0.1:1/key""#,
        r#""\u0000""#,
        r#""%s%n${jndi:ldap://127.0.0.1:1/a}""#,
        r#"0"#,
        r#"["x"]"#,
        r#"{"kid":"x"}"#,
        &huge,
    ]
    .map(str::to_string)
    .to_vec()
}

#[test]
fn a_kid_leads_to_no_other_key() {
    let service = Service::start(Backend::Sqlite);
    let ann = service.sign_up("ann@example.com");
    for real in Real::both(&service, &ann) {
        for kid in kids() {
            let header = format!(r#"{{"alg":"HS256","kid":{kid}}}"#);
            assert_refused_everywhere(&service, "kid", &real.headed(&header));
            for secret in ["", "\0", "secret", "0\n", "2\n"] {
                let forged = token(&header, real.payload.to_string(), hs256(secret));
                assert_refused_everywhere(&service, "kid and a guessed secret", &forged);
            }
        }
        let twice = r#"{"alg":"HS256","kid":"x","kid":"y"}"#;
        assert_refused_everywhere(&service, "two kids", &real.headed(twice));
    }
    assert_unharmed(&service, &ann);
}

#[test]
fn a_payload_has_each_claim_once_and_of_its_type() {
    let service = Service::start(Backend::Sqlite);
    let ann = service.sign_up("ann@example.com");
    for real in Real::both(&service, &ann) {
        let good = real.payload.to_string();
        let with = |more: &str| format!("{},{more}}}", good.trim_end_matches('}'));
        let claims = real.payload.as_object().unwrap();
        for (claim, value) in claims {
            let mut without = claims.clone();
            without.remove(claim);
            // Access tokens of earlier versions have fewer claims.
            let is_new = ["gen", "email_verified", "scope"].contains(&claim.as_str());
            if !is_new || claims["type"] != "access" {
                assert_refused_everywhere(&service, claim, &real.saying(json!(without).to_string()));
            }
            // The same value twice, or two, the good one first or last, openly or in disguise.
            let twin = format!("\"\\u{:04x}{}\":{value}", claim.as_bytes()[0], &claim[1..]);
            for more in [format!("\"{claim}\":{value}"), format!("\"{claim}\":1"), twin] {
                let first = format!("{{{more},{}", &good[1..]);
                assert_refused_everywhere(&service, claim, &real.saying(with(&more)));
                assert_refused_everywhere(&service, claim, &real.saying(first));
            }
            let wrong =
                ["null", "true", "[]", "{}", "1.5", "1e400", "1e18", "99999999999999999999", "NaN", "\"\\ud800\""];
            let wrapped = format!("[{value}]");
            let other_type = if value.is_number() { format!("\"{value}\"") } else { "1".to_string() };
            let wrong = wrong.into_iter().chain([wrapped.as_str(), &other_type]);
            for wrong in wrong.filter(|wrong| !(value.is_boolean() && *wrong == "true")) {
                let mut other = claims.clone();
                other.insert(claim.clone(), json!("@"));
                let other = json!(other).to_string().replace("\"@\"", wrong);
                assert_refused_everywhere(&service, &format!("{claim}: {wrong}"), &real.saying(other));
            }
        }
        for kind in ["Access", "ACCESS", "REFRESH", "service", "id", "", "access ", "access\\u0000"] {
            let other =
                good.replace("\"type\":\"access\"", "\"type\":\"@\"").replace("\"type\":\"refresh\"", "\"type\":\"@\"");
            assert_refused_everywhere(&service, kind, &real.saying(other.replace('@', kind)));
        }
        let now = service.clock.now().seconds();
        for nbf in [json!(now + 3600), json!(i64::MAX), json!("0"), json!([0])] {
            assert_refused_everywhere(&service, "nbf", &real.saying(with(&format!("\"nbf\":{nbf}"))));
        }
        let values = Value::from_iter(claims.values().cloned().collect::<Vec<_>>());
        for payload in [
            String::new(),
            "null".to_string(),
            "{}".to_string(),
            values.to_string(),
            json!([real.payload]).to_string(),
            json!(good).to_string(),
            format!("{good}{good}"),
            format!("{good}\0"),
            format!(" {good}"),
            format!("\u{feff}{good}"),
            good[..good.len() - 1].to_string(),
            "[".repeat(6000),
            "{\"a\":".repeat(1500),
        ] {
            assert_refused_everywhere(&service, "payload", &real.saying(payload));
        }
        let latin1 = with("\"x\":\"@\"").into_bytes().into_iter().map(|byte| if byte == b'@' { 0xe9 } else { byte });
        assert_refused_everywhere(&service, "not UTF-8", &real.saying(latin1.collect::<Vec<_>>()));
        // RFC 7519 §5.2: a token within a token.
        let nested = token(r#"{"alg":"HS256","cty":"JWT"}"#, &real.token, hs256(&real.secret));
        assert_refused_everywhere(&service, "nested", &nested);
    }
    let [access, _] = Real::both(&service, &ann);
    let mut payload = access.payload.clone();
    payload["nbf"] = json!(service.clock.now().seconds());
    payload["admin"] = json!(true);
    assert_eq!(service.token_status(&access.saying(payload.to_string())), 200, "what is unknown is not looked at");
    assert_unharmed(&service, &ann);
}

/// Status of each answer on one new connection, and that it is over soon.
fn statuses(service: &Service, requests: &str) -> Vec<u16> {
    let started = Instant::now();
    let received = http_client::raw(service.address(), requests.as_bytes());
    assert!(started.elapsed().as_secs() < 15, "{:?}", started.elapsed());
    let text = String::from_utf8_lossy(&received).into_owned();
    text.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().unwrap()).collect()
}

#[test]
fn a_huge_token_is_refused_soon_and_leaves_the_server_well() {
    let service = Service::start(Backend::Sqlite);
    let ann = service.sign_up("ann@example.com");
    let [header, payload, signature] = [0, 1, 2].map(|index| ann.access.split('.').nth(index).unwrap());
    let megabyte = "A".repeat(1024 * 1024);
    let huge = [
        megabyte.clone(),
        format!("{megabyte}.{payload}.{signature}"),
        format!("{header}.{megabyte}.{signature}"),
        format!("{header}.{payload}.{megabyte}"),
        ".".repeat(1024 * 1024),
    ];
    for token in &huge {
        let head = format!("GET /protected/user-only HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
        assert_eq!(statuses(&service, &head), [431]);
        let answer = service.post("/auth/refresh").json(json!({ "refreshToken": token })).send();
        assert_eq!(answer.status, 413);
    }
    // The largest that are read at all, one after the other on one connection, and good ones between them.
    let client = service.client();
    for token in &huge {
        let token = &token[..15 * 1024];
        assert_refused("15 KiB", &client.get("/protected/user-only").bearer(token).send());
        assert_refused("15 KiB", &client.post("/auth/refresh").json(json!({ "refreshToken": token })).send());
        assert_eq!(client.get("/protected/user-only").bearer(&ann.access).send().status, 200);
    }
    assert_unharmed(&service, &ann);
}

#[test]
fn two_authorization_headers_are_none() {
    let service = Service::start(Backend::Sqlite);
    let ann = service.sign_up("ann@example.com");
    let good = format!("Bearer {}", ann.access);
    let joined = format!("{good}, {good}");
    for values in [
        vec![good.as_str(), good.as_str()],
        vec![&good, "Bearer x"],
        vec!["Bearer x", &good],
        vec![&good, "Basic YTpi"],
        vec!["Basic YTpi", &good],
        vec!["", &good],
        vec![&joined],
    ] {
        for path in ["/protected/user-only", "/protected/flexible"] {
            let request =
                values.iter().fold(service.get(path), |request, value| request.header("authorization", value));
            assert_refused(&format!("{values:?}"), &request.send());
        }
    }
    assert_unharmed(&service, &ann);
}

/// A service that signs with the key pair of RFC 8037.
fn eddsa_service(folder: &TempDir) -> Service {
    let file = folder.path().join("jwt.pem");
    std::fs::write(&file, forge::PRIVATE_PEM).unwrap();
    let settings = [("JWT_ALG", "EdDSA"), ("JWT_PRIVATE_KEY_FILE", file.to_str().unwrap())];
    Service::start_with(Backend::Sqlite, &settings, |_| {})
}

#[test]
fn the_public_key_is_no_secret_to_sign_with() {
    let folder = TempDir::fresh();
    let service = eddsa_service(&folder);
    let ann = service.sign_up("ann@example.com");
    let jwks = Client::unobserved(service.address()).get("/.well-known/jwks.json").send();
    assert_eq!(jwks.json()["keys"][0]["x"], forge::X);
    let der = BASE64_STANDARD.decode(forge::PUBLIC_PEM.lines().nth(1).unwrap()).unwrap();
    let pem = forge::PUBLIC_PEM;
    let secrets: Vec<Vec<u8>> = vec![
        forge::pair().public_key().as_ref().to_vec(),
        der.clone(),
        BASE64_STANDARD.encode(der).into_bytes(),
        pem.as_bytes().to_vec(),
        pem.trim_end().as_bytes().to_vec(),
        pem.replace('\n', "\r\n").into_bytes(),
        forge::X.as_bytes().to_vec(),
        forge::KID.as_bytes().to_vec(),
        hex::encode(unb64(forge::X)).into_bytes(),
        jwks.json()["keys"][0].to_string().into_bytes(),
        jwks.body.clone(),
        Vec::new(),
    ];
    for claims in [&ann.access, &ann.refresh].map(|token| forge::part(token, 1).to_string()) {
        for secret in &secrets {
            for header in [
                r#"{"alg":"HS256","typ":"JWT"}"#.to_string(),
                format!(r#"{{"alg":"HS256","typ":"JWT","kid":"{}"}}"#, forge::KID),
                format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{}"}}"#, forge::KID),
            ] {
                assert_refused_everywhere(&service, &header, &token(&header, &claims, hs256(secret)));
            }
        }
    }
    assert_unharmed(&service, &ann);
}

#[test]
fn an_ed25519_token_is_of_the_key_that_its_kid_names() {
    let folder = TempDir::fresh();
    let service = eddsa_service(&folder);
    let ann = service.sign_up("ann@example.com");
    let claims = forge::part(&ann.access, 1).to_string();
    let header = |alg: &str, kid: &str| format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
    let good = header("EdDSA", forge::KID);
    assert_eq!(service.token_status(&token(&good, &claims, ed25519(forge::pair()))), 200);

    let mine = b64(forge::other_pair().public_key());
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{mine}"}}"#);
    let kid = forge::thumbprint(&mine);
    for header in [
        good.clone(),
        header("EdDSA", &kid),
        format!(r#"{{"alg":"EdDSA","jwk":{jwk}}}"#),
        format!(r#"{{"alg":"EdDSA","kid":"{kid}","jwk":{jwk}}}"#),
        format!(r#"{{"alg":"EdDSA","kid":"{}","jwk":{jwk}}}"#, forge::KID),
        format!(r#"{{"alg":"EdDSA","kid":"{kid}","jku":"http://127.0.0.1:1/jwks.json"}}"#),
    ] {
        assert_refused_everywhere(&service, &header, &token(&header, &claims, ed25519(forge::other_pair())));
    }
    for header in [
        r#"{"alg":"EdDSA"}"#.to_string(),
        r#"{"alg":"EdDSA","kid":null}"#.to_string(),
        header("EdDSA", ""),
        header("EdDSA", &forge::KID.to_lowercase()),
        header("EdDSA", &format!("{}=", forge::KID)),
        header("Ed25519", forge::KID),
        header("eddsa", forge::KID),
        header("none", forge::KID),
        header("HS256", forge::KID),
        r#"{"alg":"HS256"}"#.to_string(),
    ] {
        assert_refused_everywhere(&service, &header, &token(&header, &claims, ed25519(forge::pair())));
    }
    for kid in kids() {
        let header = format!(r#"{{"alg":"EdDSA","kid":{kid}}}"#);
        assert_refused_everywhere(&service, &header, &token(&header, &claims, ed25519(forge::pair())));
    }
    for (what, signature) in [("nothing", vec![]), ("zeros", vec![0; 64]), ("half", vec![1; 32]), ("more", vec![1; 65])]
    {
        assert_refused_everywhere(&service, what, &token(&good, &claims, |_| signature));
    }
    // The key of access tokens signs no refresh tokens.
    let refresh = forge::part(&ann.refresh, 1).to_string();
    assert_refused_everywhere(&service, "refresh", &token(&good, &refresh, ed25519(forge::pair())));
    assert_unharmed(&service, &ann);
}

#[test]
fn without_ed25519_keys_no_signature_of_one_is_good() {
    let service = Service::start(Backend::Sqlite);
    assert_eq!(service.config().tokens.algorithm, Algorithm::Hs256);
    let ann = service.sign_up("ann@example.com");
    for claims in [&ann.access, &ann.refresh].map(|token| forge::part(token, 1).to_string()) {
        let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, forge::X);
        for header in [
            r#"{"alg":"EdDSA"}"#.to_string(),
            format!(r#"{{"alg":"EdDSA","kid":"{}","jwk":{jwk}}}"#, forge::KID),
            format!(r#"{{"alg":"HS256","jwk":{jwk}}}"#),
        ] {
            assert_refused_everywhere(&service, &header, &token(&header, &claims, ed25519(forge::pair())));
        }
    }
    assert_unharmed(&service, &ann);
}

/// A service that signs with the first pair of this algorithm, and accepts the second pair of it and the first ones of the
/// other algorithms.
fn service_with_every_key(folder: &TempDir, algorithm: Algorithm) -> Service {
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let [own, second] = forge::pairs(algorithm);
    let others = forge::ALGORITHMS.into_iter().filter(|other| *other != algorithm).map(|other| &forge::pairs(other)[0]);
    let previous: Vec<String> =
        others.chain([second]).map(|pair| write(&format!("{}.pem", pair.kid()), &pair.public_pem)).collect();
    let private = write("jwt.pem", &own.private_pem);
    let settings = [
        ("JWT_ALG", own.algorithm),
        ("JWT_PRIVATE_KEY_FILE", &private),
        ("JWT_PREVIOUS_KEY_FILES", &previous.join(",")),
    ];
    Service::start_with(Backend::Sqlite, &settings, |_| {})
}

#[test]
fn no_public_key_of_any_algorithm_is_a_secret_to_sign_with() {
    for algorithm in forge::ALGORITHMS {
        let folder = TempDir::fresh();
        let service = service_with_every_key(&folder, algorithm);
        let ann = service.sign_up("ann@example.com");
        let [pair, _] = forge::pairs(algorithm);
        let der = BASE64_STANDARD.decode(pair.public_pem.lines().nth(1).unwrap()).unwrap();
        let raw: Vec<Vec<u8>> =
            ["x", "y", "n", "e"].iter().filter_map(|name| pair.jwk[name].as_str().map(unb64)).collect();
        let set = service.get("/.well-known/jwks.json").send();
        let mut secrets = vec![
            BASE64_STANDARD.encode(&der).into_bytes(),
            der,
            pair.public_pem.clone().into_bytes(),
            pair.public_pem.trim_end().as_bytes().to_vec(),
            pair.public_pem.replace('\n', "\r\n").into_bytes(),
            pair.jwk.to_string().into_bytes(),
            set.json()["keys"][0].to_string().into_bytes(),
            pair.kid().as_bytes().to_vec(),
            raw.concat(),
            // A point in SEC 1's form.
            [vec![4], raw.concat()].concat(),
        ];
        secrets.extend(raw.iter().cloned());
        secrets.extend(raw.iter().map(|part| b64(part).into_bytes()));
        let claims = forge::part(&ann.access, 1).to_string();
        for secret in &secrets {
            for alg in ["HS256", "HS384", "HS512", pair.algorithm] {
                for kid in ["".to_string(), format!(r#","kid":"{}""#, pair.kid())] {
                    let header = format!(r#"{{"alg":"{alg}","typ":"at+jwt"{kid}}}"#);
                    let forged = token(&header, &claims, hs256(secret));
                    assert_refused(&header, &service.get("/protected/user-only").bearer(&forged).send());
                }
            }
        }
        assert_unharmed(&service, &ann);
    }
}

#[test]
fn a_key_signs_by_its_own_algorithm_and_under_its_own_name_alone() {
    for algorithm in forge::ALGORITHMS {
        let folder = TempDir::fresh();
        let service = service_with_every_key(&folder, algorithm);
        let ann = service.sign_up("ann@example.com");
        let claims = forge::part(&ann.access, 1).to_string();
        let header = |alg: &str, kid: &str| format!(r#"{{"alg":"{alg}","typ":"at+jwt","kid":"{kid}"}}"#);
        let ours: Vec<&forge::Pair> = forge::PAIRS.iter().map(|[first, _]| first).collect();
        for signer in &ours {
            for named in &ours {
                for alg in ["EdDSA", "ES256", "RS256", "HS256", "none", "ES384", "ES256K", "RS384", "RS512", "PS256"] {
                    let made = token(header(alg, named.kid()), &claims, |message| signer.sign(message));
                    let answer = service.get("/protected/user-only").bearer(&made).send();
                    if signer.kid() == named.kid() && alg == named.algorithm {
                        assert_eq!(answer.status, 200, "{alg}");
                    } else {
                        assert_refused(&format!("{alg} by {} as {}", signer.algorithm, named.algorithm), &answer);
                    }
                }
            }
        }
        // Two keys of one algorithm.
        let [first, second] = forge::pairs(algorithm);
        for (signer, named) in [(first, second), (second, first)] {
            let made = token(header(first.algorithm, named.kid()), &claims, |message| signer.sign(message));
            assert_refused("another's kid", &service.get("/protected/user-only").bearer(&made).send());
            let named = format!(r#"{{"alg":"{}","typ":"at+jwt"}}"#, first.algorithm);
            let made = token(named, &claims, |message| signer.sign(message));
            assert_refused("no kid", &service.get("/protected/user-only").bearer(&made).send());
        }
        // A key that the token brings along.
        let mine =
            format!(r#"{{"alg":"{}","typ":"at+jwt","kid":"{}","jwk":{}}}"#, first.algorithm, second.kid(), second.jwk);
        let made = token(mine, &claims, |message| first.sign(message));
        assert_refused("its own jwk", &service.get("/protected/user-only").bearer(&made).send());
        for empty in ["none", "None", "NONE", "nOnE", ""] {
            for kid in [first.kid(), ""] {
                let made = token(header(empty, kid), &claims, |_| Vec::new());
                assert_refused("none", &service.get("/protected/user-only").bearer(&made).send());
            }
        }
        assert_unharmed(&service, &ann);
    }
}

/// The order of P-256's group.
const P256_ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

#[test]
fn es256_takes_no_signature_that_is_empty_of_meaning_or_of_another_curve_or_form() {
    let folder = TempDir::fresh();
    let service = service_with_every_key(&folder, Algorithm::Es256);
    let ann = service.sign_up("ann@example.com");
    let [pair, _] = forge::pairs(Algorithm::Es256);
    let claims = forge::part(&ann.access, 1).to_string();
    let header = format!(r#"{{"alg":"ES256","typ":"at+jwt","kid":"{}"}}"#, pair.kid());
    assert_eq!(service.token_status(&token(&header, &claims, |message| pair.sign(message))), 200);
    let zero = vec![0; 32];
    let one = [vec![0; 31], vec![1]].concat();
    let order = hex::decode(P256_ORDER).unwrap();
    let real = pair.sign(format!("{}.{}", b64(&header), b64(&claims)).as_bytes());
    let (r, s) = real.split_at(32);
    // CVE-2022-21449: nothing of an unsigned token is signed by r = s = 0.
    for first in [&zero, &one, &order, &vec![0xff; 32], &r.to_vec()] {
        for second in [&zero, &one, &order, &vec![0xff; 32]] {
            let forged = [first.as_slice(), second].concat();
            assert_refused_everywhere(&service, "r and s", &token(&header, &claims, |_| forged));
        }
        let forged = [first.as_slice(), s].concat();
        if first != r {
            assert_refused_everywhere(&service, "another r", &token(&header, &claims, |_| forged));
        }
    }
    let der = |pair: &EcdsaKeyPair| pair.sign(&SystemRandom::new(), header.as_bytes()).unwrap().as_ref().to_vec();
    let forge::Signer::P256(own) = &pair.signer else { panic!("a P-256 key") };
    let as_der = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, own.to_pkcs8v1().unwrap().as_ref()).unwrap();
    let k256 = EcdsaKeyPair::generate(&ECDSA_P256K1_SHA256_FIXED_SIGNING).unwrap();
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    for (what, signer) in [("in DER", &as_der), ("on secp256k1", &k256), ("on P-384", &p384)] {
        let sign = |message: &[u8]| signer.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        assert_refused_everywhere(&service, what, &token(&header, &claims, sign));
        let short = der(signer)[..32].to_vec();
        assert_refused_everywhere(&service, what, &token(&header, &claims, |_| short));
    }
    for (what, forged) in [
        ("nothing", vec![]),
        ("half", r.to_vec()),
        ("one byte less", real[..63].to_vec()),
        ("one byte more", [real.as_slice(), &[0]].concat()),
        ("wider numbers", [&[0], r, &[0], s].concat()),
        ("changed places", [s, r].concat()),
    ] {
        assert_refused_everywhere(&service, what, &token(&header, &claims, |_| forged));
    }
    assert_unharmed(&service, &ann);
}

#[test]
fn rs256_takes_no_signature_of_another_padding_hash_or_length() {
    let folder = TempDir::fresh();
    let service = service_with_every_key(&folder, Algorithm::Rs256);
    let ann = service.sign_up("ann@example.com");
    let [pair, _] = forge::pairs(Algorithm::Rs256);
    let claims = forge::part(&ann.access, 1).to_string();
    let header = format!(r#"{{"alg":"RS256","typ":"at+jwt","kid":"{}"}}"#, pair.kid());
    let forge::Signer::Rsa(own) = &pair.signer else { panic!("an RSA key") };
    let encodings: [(&str, &'static dyn RsaEncoding); 3] =
        [("PSS", &RSA_PSS_SHA256), ("SHA-384", &RSA_PKCS1_SHA384), ("SHA-512", &RSA_PKCS1_SHA512)];
    for (what, encoding) in encodings {
        let sign = |message: &[u8]| forge::rsa_signature(own, encoding, message);
        assert_refused_everywhere(&service, what, &token(&header, &claims, sign));
    }
    let real = pair.sign(format!("{}.{}", b64(&header), b64(&claims)).as_bytes());
    assert_eq!(service.token_status(&token(&header, &claims, |_| real.clone())), 200);
    let one = [vec![0; 255], vec![1]].concat();
    let n = unb64(pair.jwk["n"].as_str().unwrap());
    for (what, forged) in [
        ("nothing", vec![]),
        ("zero", vec![0; 256]),
        ("one", one),
        ("the modulus", n),
        ("a larger number", vec![0xff; 256]),
        ("one byte less", real[..255].to_vec()),
        ("one byte more", [&[0], real.as_slice()].concat()),
        ("zeros behind", [real.as_slice(), &[0]].concat()),
        ("of a larger key", [real.as_slice(), &real].concat()),
    ] {
        assert_refused_everywhere(&service, what, &token(&header, &claims, |_| forged));
    }
    assert_unharmed(&service, &ann);
}

#[test]
fn a_foreign_issuer_or_audience_is_refused_where_they_are_set() {
    let settings = [("JWT_ISSUER", "https://auth.example.com"), ("JWT_AUDIENCE", "https://api.example.com")];
    let service = Service::start_with(Backend::Sqlite, &settings, |_| {});
    let ann = service.sign_up("ann@example.com");
    for real in Real::both(&service, &ann) {
        assert_eq!(real.payload["iss"], "https://auth.example.com");
        assert_eq!(real.payload["aud"], "https://api.example.com");
        for (claim, value) in [
            ("iss", json!("https://auth.example.org")),
            ("iss", json!("https://auth.example.com/")),
            ("iss", json!("HTTPS://auth.example.com")),
            ("iss", json!("https://api.example.com")),
            ("iss", json!("")),
            ("iss", json!(null)),
            ("iss", json!(["https://auth.example.com"])),
            ("aud", json!("https://api.example.org")),
            ("aud", json!("https://api.example.com.evil.example")),
            ("aud", json!("")),
            ("aud", json!(null)),
            ("aud", json!([])),
            ("aud", json!(["https://api.example.org"])),
            ("aud", json!(["https://api.example.com", 1])),
            ("aud", json!([["https://api.example.com"]])),
            ("aud", json!({ "https://api.example.com": true })),
        ] {
            let mut payload = real.payload.clone();
            payload[claim] = value;
            assert_refused_everywhere(&service, claim, &real.saying(payload.to_string()));
            payload.as_object_mut().unwrap().remove(claim);
            assert_refused_everywhere(&service, claim, &real.saying(payload.to_string()));
        }
    }
    let [access, _] = Real::both(&service, &ann);
    let mut payload = access.payload.clone();
    payload["aud"] = json!(["https://other.example.com", "https://api.example.com"]);
    assert_eq!(service.token_status(&access.saying(payload.to_string())), 200, "one of several audiences");
    assert_unharmed(&service, &ann);
}
