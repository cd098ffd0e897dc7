//! The algorithms with key pairs: EdDSA, ES256 and RS256.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use keyward::tokens::algorithm::Algorithm;
use keyward_harness::forge::{self, ALGORITHMS, Pair, pairs};
use keyward_harness::program::Home;
use keyward_harness::service::{Backend, Service, TempDir, on_both_stores};
use keyward_harness::tls_client::{openssl, succeeded};
use keyward_harness::tools::{Tool, installed};
use serde_json::{Value, json};

/// Writes both halves of a pair; the path of the private one and of the public one.
fn files(folder: &TempDir, pair: &Pair) -> [PathBuf; 2] {
    [(&pair.private_pem, "private"), (&pair.public_pem, "public")].map(|(text, half)| {
        let path = folder.path().join(format!("{}-{half}.pem", pair.kid()));
        write(path.clone(), text);
        path
    })
}

/// Only its owner can read it.
fn write(path: PathBuf, text: &str) {
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn published(service: &Service) -> Value {
    service.get("/.well-known/jwks.json").send().json()["keys"].take()
}

/// What a service of somebody else's does: it fetches the set, takes the key that the token names, and verifies.
#[track_caller]
fn verified_elsewhere(service: &Service, token: &str) -> Value {
    let set = service.get("/.well-known/jwks.json").send().json();
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(set).unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let key = set.find(header.kid.as_deref().unwrap()).expect("the token's key is published");
    assert_eq!(key.common.key_algorithm.unwrap().to_string(), format!("{:?}", header.alg));
    let mut validation = jsonwebtoken::Validation::new(header.alg);
    validation.validate_aud = false;
    jsonwebtoken::decode(token, &jsonwebtoken::DecodingKey::from_jwk(key).unwrap(), &validation).unwrap().claims
}

fn derived(service: &Service, access: &str) -> String {
    let key = service.create_key(access, json!({ "name": "ci" }));
    let answer = service.post("/auth/token").api_key(key["key"].as_str().unwrap()).json(json!({})).send();
    answer.json()["accessToken"].as_str().unwrap().to_string()
}

on_both_stores! {
    fn another_service_verifies_what_each_algorithm_has_signed(service) {
        let folder = TempDir::fresh();
        for algorithm in ALGORITHMS {
            let [pair, _] = pairs(algorithm);
            let [private, _] = files(&folder, pair);
            service.reconfigure(|config| {
                config.tokens.algorithm = algorithm;
                config.tokens.private_key_file = Some(private);
            });
            assert_eq!(published(service), json!([pair.jwk]));
            let ann = service.sign_up(&format!("{}@example.com", pair.algorithm));
            let header = json!({ "typ": "at+jwt", "alg": pair.algorithm, "kid": pair.kid() });
            assert_eq!(forge::part(&ann.access, 0), header);
            // Twice: the second time it is known.
            assert_eq!([service.token_status(&ann.access), service.token_status(&ann.access)], [200, 200]);
            assert_eq!(verified_elsewhere(service, &ann.access)["sub"], ann.id);
            let derived = derived(service, &ann.access);
            assert_eq!(forge::part(&derived, 0), json!({ "typ": "key+jwt", "alg": pair.algorithm, "kid": pair.kid() }));
            assert_eq!(verified_elsewhere(service, &derived)["owner"], ann.id);
            assert_eq!(service.get("/protected/service-only").bearer(&derived).send().status, 200);
        }
    }

    fn keys_of_any_algorithm_follow_each_other_without_logging_anyone_out(service) {
        let folder = TempDir::fresh();
        let mut previous = Vec::new();
        let mut before = vec![service.sign_up("ann@example.com").access];
        let mut jwks = Vec::new();
        // Each pair once, from algorithm to algorithm and back.
        for pair in [0, 1].into_iter().flat_map(|which| ALGORITHMS.map(|algorithm| (algorithm, &pairs(algorithm)[which]))) {
            let (algorithm, pair) = pair;
            let [private, public] = files(&folder, pair);
            service.reconfigure(|config| {
                config.tokens.algorithm = algorithm;
                config.tokens.private_key_file = Some(private);
                config.tokens.previous_key_files = previous.clone();
            });
            // The one that signs is the first.
            jwks.insert(0, pair.jwk.clone());
            assert_eq!(published(service), json!(jwks));
            before.push(service.log_in("ann@example.com").access);
            for token in &before {
                assert_eq!(service.token_status(token), 200, "{token}");
            }
            previous.insert(0, public);
        }
        // Back to secrets: the last key still verifies, and so do those that are listed.
        service.reconfigure(|config| config.tokens.algorithm = Algorithm::Hs256);
        assert!(before.iter().all(|token| service.token_status(token) == 200));
        // What is listed no more is refused.
        service.reconfigure(|config| config.tokens.previous_key_files = Vec::new());
        let statuses: Vec<u16> = before.iter().map(|token| service.token_status(token)).collect();
        assert_eq!(statuses, [200, 401, 401, 401, 401, 401, 200]);
    }
}

#[test]
fn with_sqlite_a_key_of_each_algorithm_is_made_once_and_only_its_owner_can_read_it() {
    let home = Home::fresh(Backend::Sqlite);
    let kept = [("EdDSA", "keyward.db.ed25519.pem"), ("ES256", "keyward.db.p256.pem"), ("RS256", "keyward.db.rsa.pem")];
    let mut tokens = Vec::new();
    for (algorithm, file) in kept {
        let server = home.start(&[("JWT_ALG", algorithm)]);
        assert!(server.log().join("\n").contains(&format!("a JWT key was generated; it is kept in {file}")));
        assert_eq!(home.path(file).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        let access = server.client().sign_up(&format!("{algorithm}@example.com")).access;
        assert_eq!(forge::part(&access, 0)["alg"], algorithm);
        tokens.push(access);
    }
    // What they have signed stays good, whichever signs now.
    for algorithm in ["RS256", "ES256", "HS256"] {
        let server = home.start(&[("JWT_ALG", algorithm)]);
        assert!(!server.log().join("\n").contains("generated"));
        assert!(tokens.iter().all(|token| server.client().token_status(token) == 200), "{algorithm}");
        let keys = server.client().get("/.well-known/jwks.json").send().json()["keys"].take();
        let kids: HashSet<&str> = keys.as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect();
        assert_eq!(kids.len(), 3);
        if algorithm != "HS256" {
            assert_eq!(keys[0]["alg"], algorithm);
        }
    }
    // RSA of 128 bits of strength.
    let keys = home.start(&[("JWT_ALG", "RS256")]).client().get("/.well-known/jwks.json").send().json();
    assert_eq!(forge::unb64(keys["keys"][0]["n"].as_str().unwrap()).len() * 8, 3072);
}

#[test]
fn a_kept_key_of_another_algorithm_stops_the_start() {
    let home = Home::fresh(Backend::Sqlite);
    write(home.path("keyward.db.rsa.pem"), forge::PRIVATE_PEM);
    let failed = home.run(&[]);
    assert!(failed.failed(1).starts_with("keyward.db.rsa.pem holds a key for EdDSA; restore it"), "{failed:?}");
}

#[test]
fn files_that_openssl_makes_are_taken_in_every_form() {
    if !installed(&[Tool::Openssl]) {
        return;
    }
    let home = Home::fresh(Backend::Sqlite);
    let made = |name: &str, commands: &[&str]| {
        for command in commands {
            let arguments: Vec<&str> = command.split(' ').collect();
            succeeded(openssl(&arguments).current_dir(home.path("")));
        }
        home.path(name).to_str().unwrap().to_string()
    };
    for (algorithm, name, commands) in [
        ("ES256", "pkcs8-ec.pem", &["genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out pkcs8-ec.pem"][..]),
        // With the curve in a section of its own before the key.
        ("ES256", "sec1.pem", &["ecparam -genkey -name prime256v1 -out sec1.pem"]),
        ("RS256", "pkcs8-rsa.pem", &["genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out pkcs8-rsa.pem"]),
        ("RS256", "pkcs1.pem", &["genrsa -out any.pem 2048", "rsa -in any.pem -traditional -out pkcs1.pem"]),
    ] {
        let file = made(name, commands);
        let server = home.start(&[("JWT_ALG", algorithm), ("JWT_PRIVATE_KEY_FILE", &file)]);
        let ann = server.client().sign_up(&format!("{name}@example.com"));
        assert_eq!(forge::part(&ann.access, 0)["alg"], algorithm);
        server.stop();
        let public = made("public.pem", &[&format!("pkey -in {name} -pubout -out public.pem")]);
        let server = home.start(&[("JWT_PREVIOUS_KEY_FILES", &public)]);
        assert_eq!(server.client().token_status(&ann.access), 200, "{name}");
    }
    let small = made("small.pem", &["genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out small.pem"]);
    let small_public = made("small-public.pem", &["pkey -in small.pem -pubout -out small-public.pem"]);
    let k256 = made("k256.pem", &["genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1 -out k256.pem"]);
    let pss = made("pss.pem", &["genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out pss.pem"]);
    let pss_public = made("pss-public.pem", &["pkey -in pss.pem -pubout -out pss-public.pem"]);
    for (name, file, expected) in [
        ("JWT_PRIVATE_KEY_FILE", &small, "holds an RSA key of less than 2048 or more than 8192 bits"),
        ("JWT_PREVIOUS_KEY_FILES", &small_public, "holds an RSA key of less than 2048 or more than 8192 bits"),
        ("JWT_PRIVATE_KEY_FILE", &k256, "holds no Ed25519, P-256 or RSA key"),
        // Bound to another algorithm (RFC 4055 §1.2).
        ("JWT_PRIVATE_KEY_FILE", &pss, "holds no Ed25519, P-256 or RSA key"),
        ("JWT_PREVIOUS_KEY_FILES", &pss_public, "holds no Ed25519, P-256 or RSA key"),
    ] {
        let failed = keyward_harness::program::finish(home.command(&[]).env("JWT_ALG", "RS256").env(name, file), "");
        let line = failed.failed(1);
        assert!(line.starts_with(&format!("{name}: {file} {expected}")), "{line}");
    }
}

#[test]
fn a_key_file_for_another_algorithm_stops_the_start() {
    let home = Home::fresh(Backend::Sqlite);
    for (algorithm, other) in [("EdDSA", Algorithm::Es256), ("ES256", Algorithm::Rs256), ("RS256", Algorithm::EdDsa)] {
        let pair = &pairs(other)[0];
        write(home.path("jwt.pem"), &pair.private_pem);
        let mut command = home.command(&[]);
        command.env("JWT_ALG", algorithm).env("JWT_PRIVATE_KEY_FILE", "jwt.pem");
        let failed = keyward_harness::program::finish(&mut command, "");
        let line = failed.failed(1);
        let expected = format!("jwt.pem holds a key for {}, and JWT_ALG is {algorithm}", pair.algorithm);
        assert!(line.starts_with("JWT_PRIVATE_KEY_FILE: ") && line.contains(&expected), "{line}");
        assert!(line.contains("`openssl genpkey -algorithm "), "{line}");
    }
    assert_eq!(home.files(), ["jwt.pem"]);
}

#[test]
fn on_postgresql_an_algorithm_without_its_key_file_stops_the_start() {
    if !installed(&[Tool::Postgres]) {
        return;
    }
    let mut home = Home::fresh(Backend::Postgres);
    for (algorithm, command) in [
        ("EdDSA", "openssl genpkey -algorithm ed25519"),
        ("ES256", "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
        ("RS256", "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072"),
    ] {
        home.set("JWT_ALG", algorithm);
        let failed = home.run(&[]);
        let line = failed.failed(1);
        assert!(line.starts_with("JWT_PRIVATE_KEY_FILE: is not set") && line.contains(command), "{line}");
        assert_eq!(home.files(), Vec::<String>::new());
    }
}
