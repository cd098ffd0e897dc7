//! The documents by which others find the keys and introspection from the issuer alone.

use keyward::tokens::algorithm::Algorithm;
use keyward_harness::forge::{ALGORITHMS, pairs};
use keyward_harness::service::{Service, TempDir, error, on_both_stores};
use serde_json::{Value, json};

const PATHS: [&str; 2] = ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"];

fn issued_by(service: &mut Service, issuer: &str) {
    service.reconfigure(|config| config.tokens.parties.issuer = Some(issuer.to_string()));
}

/// The document, the same at both paths.
#[track_caller]
fn metadata(service: &Service) -> Value {
    let [one, other] = PATHS.map(|path| {
        let answer = service.get(path).send();
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("public, max-age=600")), "{answer:?}");
        answer.json()
    });
    assert_eq!(one, other);
    one
}

on_both_stores! {
    fn the_documents_lead_from_the_issuer_to_the_keys_and_to_introspection(service) {
        let folder = TempDir::fresh();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        for algorithm in ALGORITHMS {
            let [pair, _] = pairs(algorithm);
            service.reconfigure(|config| {
                config.tokens.algorithm = algorithm;
                config.tokens.private_key_file = Some(file("private.pem", &pair.private_pem));
                config.tokens.parties.issuer = Some("https://auth.example.com".to_string());
            });
            assert_eq!(metadata(service), json!({
                "issuer": "https://auth.example.com",
                "jwks_uri": "https://auth.example.com/.well-known/jwks.json",
                "introspection_endpoint": "https://auth.example.com/oauth/introspect",
                "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "Bearer"],
                "response_types_supported": ["none"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [pair.algorithm],
            }));
        }
        // While a key of another algorithm follows, tokens of both are about.
        service.reconfigure(|config| {
            config.tokens.previous_key_files = vec![file("previous.pem", &pairs(Algorithm::Es256)[0].public_pem)];
        });
        assert_eq!(metadata(service)["id_token_signing_alg_values_supported"], json!(["RS256", "ES256"]));
        // Nobody else can verify what a secret signs.
        service.reconfigure(|config| config.tokens.algorithm = Algorithm::Hs256);
        let by_secret = metadata(service);
        assert_eq!(by_secret["jwks_uri"], Value::Null);
        assert_eq!(by_secret["id_token_signing_alg_values_supported"], json!(["HS256"]));
    }

    fn the_addresses_are_the_issuers_whatever_host_is_asked(service) {
        issued_by(service, "https://example.com/auth/");
        for path in PATHS {
            let asked = service.get(path).header("x-forwarded-host", "evil.example").header("x-forwarded-proto", "http");
            let said = asked.header("forwarded", "host=evil.example").send().json();
            assert_eq!(said["issuer"], "https://example.com/auth/");
            assert_eq!(said["introspection_endpoint"], "https://example.com/auth/oauth/introspect");
        }
        // They are cached as the keys are.
        let first = service.get(PATHS[0]).send();
        let tag = first.header("etag").unwrap();
        assert_eq!(service.get(PATHS[0]).header("if-none-match", tag).send().status, 304);
        assert_eq!(service.method("HEAD", PATHS[0]).send().status, 200);
    }

    fn without_an_https_issuer_there_are_none_and_the_answer_says_what_to_set(service) {
        let message = "There is no such document: set JWT_ISSUER to an https URL, such as https://auth.example.com";
        for path in PATHS {
            let answer = service.get(path).send();
            assert_eq!((answer.status, answer.json()), (404, error(404, message)));
        }
        for issuer in ["keyward", "http://auth.example.com", "https://auth.example.com?a", "https://"] {
            issued_by(service, issuer);
            for path in PATHS {
                let answer = service.get(path).send();
                assert_eq!((answer.status, answer.json()), (404, error(404, message)), "{issuer}");
            }
        }
    }
}
