//! The keys of tokens: how they are changed without logging anyone out, and how other services verify by them.

use std::os::unix::fs::PermissionsExt;
use std::thread;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use keyward::base::secret::Secret;
use keyward::tokens::algorithm::Algorithm;
use keyward_harness::forge::{self, b64, hs256, thumbprint, unb64};
use keyward_harness::program::{Home, Server};
use keyward_harness::service::{Backend, Service, TempDir, on_both_stores};
use serde_json::{Value, json};

/// The JWK of an Ed25519 key.
fn jwk(x: &str) -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "use": "sig", "alg": "EdDSA", "kid": thumbprint(x) })
}

/// The set as it is published.
#[track_caller]
fn published(service: &Service) -> Value {
    let answer = service.get("/.well-known/jwks.json").send();
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("public, max-age=600")));
    answer.json()
}

#[track_caller]
fn refreshed(service: &Service, token: &str) -> (String, String) {
    let answer = service.post("/auth/refresh").json(json!({ "refreshToken": token })).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = |name: &str| answer.json()[name].as_str().unwrap().to_string();
    (text("accessToken"), text("refreshToken"))
}

fn refresh_status(service: &Service, token: &str) -> u16 {
    service.post("/auth/refresh").json(json!({ "refreshToken": token })).send().status
}

/// A folder with `first.pem` and `first-public.pem` (RFC 8037's pair), and `second.pem` and `second-public.pem`.
fn key_files() -> TempDir {
    let folder = TempDir::fresh();
    let second = forge::other_pair();
    let private: Pkcs8V1Der = second.as_der().unwrap();
    let public: PublicKeyX509Der = second.public_key().as_der().unwrap();
    for (name, text) in [
        ("first.pem", forge::PRIVATE_PEM.to_string()),
        ("first-public.pem", forge::PUBLIC_PEM.to_string()),
        ("second.pem", forge::pem("PRIVATE KEY", private.as_ref())),
        ("second-public.pem", forge::pem("PUBLIC KEY", public.as_ref())),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn second_x() -> String {
    b64(forge::other_pair().public_key())
}

/// What a service of somebody else's does: it fetches the set, takes the key that the token names, and verifies.
#[track_caller]
fn verified_elsewhere(service: &Service, token: &str, issuer: &str, audience: &str) -> Value {
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(published(service)).unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let key = set.find(&header.kid.unwrap()).expect("the token's key is published");
    let key = jsonwebtoken::DecodingKey::from_jwk(key).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    jsonwebtoken::decode(token, &key, &validation).unwrap().claims
}

/// Of whom a service of somebody else's takes the token to be that does what RFC 9068 §4 asks and knows nothing else.
fn user_elsewhere(service: &Service, token: &str, issuer: &str, audience: &str) -> Option<Value> {
    let typ = jsonwebtoken::decode_header(token).unwrap().typ;
    let claims = verified_elsewhere(service, token, issuer, audience);
    (typ.as_deref() == Some("at+jwt")).then(|| claims["sub"].clone())
}

on_both_stores! {
    fn with_secrets_alone_the_published_set_is_empty(service) {
        assert_eq!(published(service), json!({ "keys": [] }));
        let head = service.method("HEAD", "/.well-known/jwks.json").send();
        assert_eq!((head.status, head.header("cache-control")), (200, Some("public, max-age=600")));
    }

    fn secrets_change_without_logging_anyone_out(service) {
        let ann = service.sign_up("ann@example.com");
        let [access, refresh] = forge::secrets(service).map(Secret::new);
        let new = ["an-access-secret-that-is-the-newer-one", "a-refresh-secret-that-is-the-newer-one"];
        service.reconfigure(|config| {
            [config.tokens.secret, config.tokens.refresh_secret] = new.map(|secret| Some(Secret::new(secret.to_string())));
            config.tokens.previous_secret = Some(access);
            config.tokens.previous_refresh_secret = Some(refresh);
        });
        assert_eq!(service.token_status(&ann.access), 200);
        let (access, refresh) = refreshed(service, &ann.refresh);
        // The previous ones sign nothing any more.
        for (token, secret) in [(&access, new[0]), (&refresh, new[1])] {
            let (message, signature) = token.rsplit_once('.').unwrap();
            assert_eq!(signature, b64(hs256(secret)(message.as_bytes())));
        }
        service.reconfigure(|config| {
            config.tokens.previous_secret = None;
            config.tokens.previous_refresh_secret = None;
        });
        assert_eq!((service.token_status(&ann.access), service.token_status(&access)), (401, 200));
        assert_eq!((refresh_status(service, &ann.refresh), refresh_status(service, &refresh)), (401, 200));
    }

    fn the_previous_secret_of_one_type_is_none_of_the_other(service) {
        let ann = service.sign_up("ann@example.com");
        let [access, refresh] = forge::secrets(service).map(Secret::new);
        let new = || Some(Secret::new("a-secret-that-is-newer-than-the-others".to_string()));
        service.reconfigure(|config| {
            (config.tokens.secret, config.tokens.refresh_secret) = (new(), new());
            (config.tokens.previous_secret, config.tokens.previous_refresh_secret) = (Some(refresh), Some(access));
        });
        assert_eq!((service.token_status(&ann.access), refresh_status(service, &ann.refresh)), (401, 401));
    }

    fn the_algorithm_changes_there_and_back_without_logging_anyone_out(service) {
        let keys = key_files();
        let ann = service.sign_up("ann@example.com");
        service.reconfigure(|config| {
            config.tokens.algorithm = Algorithm::EdDsa;
            config.tokens.private_key_file = Some(keys.path().join("first.pem"));
        });
        assert_eq!(published(service), json!({ "keys": [jwk(forge::X)] }));
        assert_eq!(service.token_status(&ann.access), 200);
        let (access, refresh) = refreshed(service, &ann.refresh);
        assert_eq!(forge::part(&access, 0), json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": forge::KID }));
        assert_eq!(forge::part(&refresh, 0), json!({ "typ": "refresh+jwt", "alg": "HS256" }));
        assert_eq!(service.token_status(&access), 200);

        service.reconfigure(|config| config.tokens.algorithm = Algorithm::Hs256);
        assert_eq!(published(service), json!({ "keys": [jwk(forge::X)] }));
        assert_eq!((service.token_status(&ann.access), service.token_status(&access)), (200, 200));
        let (back, _) = refreshed(service, &refresh);
        assert_eq!(forge::part(&back, 0), json!({ "typ": "at+jwt", "alg": "HS256" }));
        assert_eq!(service.token_status(&back), 200);
    }

    fn an_ed25519_key_changes_without_logging_anyone_out(service) {
        let keys = key_files();
        let file = |name: &str| keys.path().join(name);
        let (first, second) = (jwk(forge::X), jwk(&second_x()));
        service.reconfigure(|config| {
            config.tokens.algorithm = Algorithm::EdDsa;
            config.tokens.private_key_file = Some(file("first.pem"));
            // Published before it signs, so that those who keep the set know it by then.
            config.tokens.previous_key_files = vec![file("second-public.pem")];
        });
        let ann = service.sign_up("ann@example.com");
        assert_eq!(forge::part(&ann.access, 0)["kid"], forge::KID);
        assert_eq!(published(service), json!({ "keys": [first, second] }));

        for previous in ["first-public.pem", "first.pem"] {
            service.reconfigure(|config| {
                config.tokens.private_key_file = Some(file("second.pem"));
                config.tokens.previous_key_files = vec![file(previous)];
            });
            assert_eq!(published(service), json!({ "keys": [second, first] }));
            assert_eq!(service.token_status(&ann.access), 200);
        }
        let later = service.log_in("ann@example.com");
        assert_eq!(forge::part(&later.access, 0)["kid"], second["kid"]);

        // Listed twice, it is published once.
        service.reconfigure(|config| config.tokens.previous_key_files = vec![file("second-public.pem")]);
        assert_eq!(published(service), json!({ "keys": [second] }));
        assert_eq!((service.token_status(&ann.access), service.token_status(&later.access)), (401, 200));
        assert_eq!(refresh_status(service, &ann.refresh), 200);
    }

    fn another_service_verifies_by_the_published_set(service) {
        let keys = key_files();
        let (issuer, audience) = ("https://auth.example.com", "https://api.example.com");
        service.reconfigure(|config| {
            config.tokens.algorithm = Algorithm::EdDsa;
            config.tokens.private_key_file = Some(keys.path().join("second.pem"));
            config.tokens.previous_key_files = vec![keys.path().join("first-public.pem")];
            config.tokens.parties.issuer = Some(issuer.to_string());
            config.tokens.parties.audience = Some(audience.to_string());
        });
        let ann = service.sign_up("ann@example.com");
        let claims = verified_elsewhere(service, &ann.access, issuer, audience);
        assert_eq!((&claims["sub"], &claims["email"]), (&json!(ann.id), &json!(ann.email)));
    }

    fn a_service_that_knows_the_published_keys_alone_takes_no_derived_token_for_its_owner(service) {
        let keys = key_files();
        let (issuer, audience) = ("https://auth.example.com", "https://api.example.com");
        service.reconfigure(|config| {
            config.tokens.algorithm = Algorithm::EdDsa;
            config.tokens.private_key_file = Some(keys.path().join("first.pem"));
            config.tokens.parties.issuer = Some(issuer.to_string());
            config.tokens.parties.audience = Some(audience.to_string());
        });
        let ann = service.sign_up("ann@example.com");
        assert_eq!(user_elsewhere(service, &ann.access, issuer, audience), Some(json!(ann.id)));
        let key = service.create_key(&ann.access, json!({ "name": "ci" }));
        let answer = service.post("/auth/token").api_key(key["key"].as_str().unwrap()).json(json!({})).send();
        let derived = answer.json()["accessToken"].as_str().unwrap().to_string();
        assert_eq!(user_elsewhere(service, &derived, issuer, audience), None);
        // Nor does one that looks at no `typ`.
        let claims = verified_elsewhere(service, &derived, issuer, audience);
        assert_eq!((&claims["sub"], &claims["owner"]), (&key["id"], &json!(ann.id)));
    }

    fn a_token_that_was_good_is_refused_from_the_second_on_in_which_it_expires(service) {
        let ann = service.sign_up("ann@example.com");
        assert_eq!((service.token_status(&ann.access), service.token_status(&ann.access)), (200, 200));
        let left = forge::part(&ann.access, 1)["exp"].as_i64().unwrap() - service.clock.now().seconds();
        service.advance(u64::try_from(left).unwrap() - 1);
        assert_eq!(service.token_status(&ann.access), 200);
        service.advance(1);
        for _ in 0..2 {
            assert_eq!(service.token_status(&ann.access), 401);
        }
    }

    fn a_token_that_was_good_is_refused_after_the_logout(service) {
        let ann = service.sign_up("ann@example.com");
        let again = service.log_in("ann@example.com");
        assert_eq!((service.token_status(&ann.access), service.token_status(&again.access)), (200, 200));
        assert_eq!(service.post("/auth/logout").bearer(&ann.access).send().status, 200);
        for _ in 0..2 {
            assert_eq!((service.token_status(&ann.access), service.token_status(&again.access)), (401, 200));
        }
    }

    fn a_token_that_was_good_lends_nothing_to_one_with_another_signature(service) {
        let ann = service.sign_up("ann@example.com");
        let (message, signature) = ann.access.rsplit_once('.').unwrap();
        let mut changed = unb64(signature);
        changed[0] ^= 1;
        let others = [b64(changed), b64(hs256("another secret")(message.as_bytes())), String::new()];
        assert_eq!(service.token_status(&ann.access), 200);
        for other in others {
            for _ in 0..2 {
                assert_eq!(service.token_status(&format!("{message}.{other}")), 401);
            }
        }
        assert_eq!(service.token_status(&ann.access), 200);
    }

    fn an_issuer_or_audience_that_is_new_is_asked_of_every_token(service) {
        let ann = service.sign_up("ann@example.com");
        for token in [&ann.access, &ann.refresh] {
            let claims = forge::part(token, 1);
            assert!(claims.get("iss").is_none() && claims.get("aud").is_none(), "{claims}");
        }
        let keep = |text: &str| Some(text.to_string());
        service.reconfigure(|config| config.tokens.parties.issuer = keep("keyward"));
        assert_eq!((service.token_status(&ann.access), refresh_status(service, &ann.refresh)), (401, 401));
        let with_issuer = service.log_in("ann@example.com");
        service.reconfigure(|config| config.tokens.parties.audience = keep("api"));
        assert_eq!(service.token_status(&with_issuer.access), 401);
        let with_both = service.log_in("ann@example.com");
        let claims = forge::part(&with_both.refresh, 1);
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!("keyward"), &json!("api")));
        // Where none is set, none is asked for.
        service.reconfigure(|config| config.tokens.parties = Default::default());
        assert_eq!((service.token_status(&with_both.access), service.token_status(&ann.access)), (200, 200));
        assert_eq!((refresh_status(service, &with_both.refresh), refresh_status(service, &ann.refresh)), (200, 200));
    }
}

#[test]
fn on_postgresql_eddsa_needs_no_secret_for_access_tokens() {
    if !keyward_harness::postgres_cluster::available() {
        return;
    }
    let keys = key_files();
    let mut service = Service::start(Backend::Postgres);
    let ann = service.sign_up("ann@example.com");
    service.reconfigure(|config| {
        config.tokens.algorithm = Algorithm::EdDsa;
        config.tokens.private_key_file = Some(keys.path().join("first.pem"));
        config.tokens.secret = None;
    });
    assert_eq!(service.token_status(&ann.access), 401, "its secret is gone");
    assert_eq!(service.token_status(&refreshed(&service, &ann.refresh).0), 200);
}

const KEPT: &str = "keyward.db.ed25519.pem";

/// A folder in which SQLite has its file, with EdDSA.
fn eddsa_home() -> Home {
    let mut home = Home::fresh(Backend::Sqlite);
    home.set("JWT_ALG", "EdDSA");
    home
}

#[test]
fn with_sqlite_a_key_is_made_once_and_only_its_owner_can_read_it() {
    let home = eddsa_home();
    let server = home.start(&[]);
    assert!(server.log().join("\n").contains(&format!("a JWT key was generated; it is kept in {KEPT}")));
    assert!(home.files().contains(&KEPT.to_string()), "{:?}", home.files());
    for name in home.files() {
        assert_eq!(home.path(&name).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    let ann = server.client().sign_up("ann@example.com");
    server.stop();

    let kept = std::fs::read(home.path(KEPT)).unwrap();
    let server = home.start(&[]);
    assert_eq!(server.client().token_status(&ann.access), 200);
    let said = server.stop().stderr;
    assert!(!said.contains("generated") && !said.contains("chmod"), "{said}");
    assert_eq!(std::fs::read(home.path(KEPT)).unwrap(), kept);

    // Back with HS256, what it has signed stays good; moved away, there is a new one.
    assert_eq!(home.start(&[("JWT_ALG", "HS256")]).client().token_status(&ann.access), 200);
    std::fs::rename(home.path(KEPT), home.path("old.pem")).unwrap();
    let server = home.start(&[("JWT_PREVIOUS_KEY_FILES", "old.pem")]);
    assert_eq!(server.client().token_status(&ann.access), 200);
    let set = server.client().get("/.well-known/jwks.json").send().json();
    let kids: Vec<&Value> = set["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
    assert_eq!((kids.len(), kids[1]), (2, &forge::part(&ann.access, 0)["kid"]));
    assert_eq!(home.start(&[]).client().token_status(&ann.access), 401);
}

#[test]
fn with_hs256_no_key_is_made() {
    let home = Home::fresh(Backend::Sqlite);
    home.start(&[]).client().sign_up("ann@example.com");
    assert!(!home.files().contains(&KEPT.to_string()));
}

#[test]
fn servers_that_start_at_once_on_an_empty_folder_agree_on_the_key() {
    let home = eddsa_home();
    let servers: Vec<Server<'_>> = thread::scope(|scope| {
        let starts: Vec<_> = (0..3).map(|_| scope.spawn(|| home.start(&[]))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let ann = servers[0].client().sign_up("ann@example.com");
    for server in &servers {
        assert_eq!(server.client().token_status(&ann.access), 200);
    }
    let files = ["keyward.db", KEPT, "keyward.db-shm", "keyward.db-wal", "keyward.db.secrets"];
    assert!(home.files().iter().all(|name| files.contains(&name.as_str())), "{:?}", home.files());
}

#[test]
fn a_kept_key_that_was_damaged_stops_the_start_and_stays_as_it_is() {
    for text in ["", "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hs", forge::PUBLIC_PEM] {
        let home = eddsa_home();
        std::fs::write(home.path(KEPT), text).unwrap();
        let failed = home.run(&[]);
        let line = failed.failed(1);
        assert!(line.starts_with(KEPT) && line.contains("restore it"), "{line}");
        assert_eq!(std::fs::read_to_string(home.path(KEPT)).unwrap(), text);
    }
}

#[test]
fn a_private_key_that_everybody_can_read_is_warned_of() {
    let keys = key_files();
    let home = eddsa_home();
    let private = keys.path().join("first.pem");
    let file = private.to_str().unwrap();
    for (mode, warned) in [(0o644, true), (0o600, false), (0o640, false)] {
        std::fs::set_permissions(&private, std::fs::Permissions::from_mode(mode)).unwrap();
        let server = home.start(&[("JWT_PRIVATE_KEY_FILE", file)]);
        let said = server.stop().stderr;
        let warning = format!("{file} is a private key that every user of this machine can read");
        assert_eq!(said.contains(&warning), warned, "{mode:o}: {said}");
    }
    let public = keys.path().join("second-public.pem");
    let settings = [("JWT_PRIVATE_KEY_FILE", file), ("JWT_PREVIOUS_KEY_FILES", public.to_str().unwrap())];
    let said = home.start(&settings).stop().stderr;
    assert!(!said.contains("can read"), "{said}");
}

#[test]
fn a_file_that_holds_no_good_key_stops_the_start_with_one_line_that_helps() {
    let home = Home::fresh(Backend::Sqlite);
    let p384 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    let write = |name: &str, text: &str| std::fs::write(home.path(name), text).unwrap();
    write("private.pem", forge::PRIVATE_PEM);
    write("public.pem", forge::PUBLIC_PEM);
    write("p384.pem", &forge::pem("PRIVATE KEY", p384));
    write("certificate.pem", &forge::pem("CERTIFICATE", "hunter2"));
    write("encrypted.pem", &forge::pem("ENCRYPTED PRIVATE KEY", "hunter2"));
    write("cut.pem", &forge::PRIVATE_PEM[..50]);
    write("text.pem", "hunter2");
    write("empty.pem", "");
    std::fs::create_dir(home.path("folder.pem")).unwrap();
    let refused = |name: &str, value: &str, expected: &str| {
        let failed = keyward_harness::program::finish(home.command(&[]).env(name, value), "");
        let line = failed.failed(1).to_string();
        assert!(line.starts_with(&format!("{name}: ")) && line.contains(expected), "{value}: {line}");
        assert!(line.contains("accepted: ") && line.contains("openssl ") && !line.contains("hunter2"), "{line}");
    };
    for (file, expected) in [
        ("nowhere.pem", "nowhere.pem cannot be read: No such file"),
        ("folder.pem", "folder.pem cannot be read: Is a directory"),
        ("p384.pem", "p384.pem holds no Ed25519, P-256 or RSA key"),
        ("certificate.pem", "certificate.pem holds no Ed25519, P-256 or RSA key"),
        ("encrypted.pem", "encrypted.pem holds no key that is PEM and not encrypted"),
        ("cut.pem", "cut.pem is not PEM"),
        ("text.pem", "text.pem holds no key"),
        ("empty.pem", "empty.pem holds no key"),
    ] {
        refused("JWT_PRIVATE_KEY_FILE", file, expected);
        refused("JWT_PREVIOUS_KEY_FILES", &format!("public.pem, {file}"), expected);
    }
    refused("JWT_PRIVATE_KEY_FILE", "public.pem", "public.pem holds a public key only");
}

#[test]
fn on_postgresql_eddsa_without_a_key_file_stops_the_start() {
    if !keyward_harness::postgres_cluster::available() {
        return;
    }
    let mut home = Home::fresh(Backend::Postgres);
    home.set("JWT_ALG", "EdDSA");
    let failed = home.run(&[]);
    let line = failed.failed(1);
    assert!(
        line.starts_with("JWT_PRIVATE_KEY_FILE: ") && line.contains("openssl genpkey -algorithm ed25519"),
        "{line}"
    );
    assert_eq!(home.files(), Vec::<String>::new());
}
