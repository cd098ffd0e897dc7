//! Tokens: the header on the first line, the payload behind it, signed with every key that could be confused with
//! another. What is accepted was signed with the right one, and says what it is taken for.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};
use keyward::base::clock::Clock;
use keyward::base::id::{KeyId, SessionId, UserId};
use keyward::base::secret::Secret;
use keyward::tokens::claims::Claims;
use keyward::tokens::jws::Keyring;
use keyward::tokens::service::{Parties, Tokens};
use keyward::tokens::signing_keys::SigningKey;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const ACCESS: &str = "a secret for access tokens, 32 bytes";
const REFRESH: &str = "a secret for refresh tokens, 32 bytes";
/// RFC 8037, appendix A.1, as PKCS#8; and its public half.
const ED25519: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20\
    \x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\
    \x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03\x1c\xae\x7f\x60";
const ED25519_PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn tokens(signing: SigningKey, parties: Parties) -> Tokens {
    let refresh = Keyring::new(SigningKey::from_secret(&Secret::new(REFRESH.to_string())), []);
    let hour = Duration::from_secs(3600);
    Tokens::new(Keyring::new(signing, []), refresh, hour, hour, parties, 100, Clock::default())
}

static HS256: LazyLock<Tokens> =
    LazyLock::new(|| tokens(SigningKey::from_secret(&Secret::new(ACCESS.to_string())), Parties::default()));
static EDDSA: LazyLock<Tokens> = LazyLock::new(|| {
    let parties = Parties { issuer: Some("us".to_string()), audience: Some("them".to_string()) };
    tokens(SigningKey::from_pkcs8(ED25519).expect("a key"), parties)
});

fuzz_target!(|text: &str| {
    // As it came; it may be anything but good.
    for tokens in [&*HS256, &*EDDSA] {
        assert!(tokens.judge(text).is_none() && tokens.judge_refresh(text).is_none(), "{text:?}");
    }
    let (header, payload) = text.split_once('\n').unwrap_or((text, ""));
    let message = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(payload));
    let public = BASE64URL.decode(ED25519_PUBLIC).expect("base64url");
    let signed = |key: EncodingKey, algorithm| {
        let signature = sign(message.as_bytes(), &key, algorithm).expect("a signature");
        format!("{message}.{signature}")
    };
    let by_access = signed(EncodingKey::from_secret(ACCESS.as_bytes()), Algorithm::HS256);
    let by_refresh = signed(EncodingKey::from_secret(REFRESH.as_bytes()), Algorithm::HS256);
    let by_ed25519 = signed(EncodingKey::from_ed_der(ED25519), Algorithm::EdDSA);
    let by_public = signed(EncodingKey::from_secret(&public), Algorithm::HS256);
    let unsigned = format!("{message}.");

    for (tokens, right, algorithm) in [(&*HS256, &by_access, "HS256"), (&*EDDSA, &by_ed25519, "EdDSA")] {
        for token in [&by_access, &by_refresh, &by_ed25519, &by_public, &unsigned] {
            let before = keyward::base::clock::Clock::default().now().seconds();
            let Some(claims) = tokens.judge(token) else { continue };
            assert!(token == right, "signed with another key: {text:?}");
            assert_header(header, algorithm);
            let payload = assert_in_force(payload, before);
            assert_claims(&payload, &claims);
            if algorithm == "EdDSA" {
                assert!(payload["iss"] == "us" && is_for(&payload["aud"], "them"), "{text:?}");
            }
            // From memory it is the same, and no other spelling of it is good.
            assert_eq!(format!("{:?}", tokens.judge(token)), format!("{:?}", Some(claims)));
            for other in respelt(token) {
                assert!(tokens.judge(&other).is_none(), "{other}");
            }
        }
        for token in [&by_access, &by_refresh, &by_ed25519, &by_public, &unsigned] {
            let before = keyward::base::clock::Clock::default().now().seconds();
            let Some(claims) = tokens.judge_refresh(token) else { continue };
            assert!(*token == by_refresh, "signed with another key: {text:?}");
            assert_header(header, "HS256");
            let payload = assert_in_force(payload, before);
            assert_eq!(payload["type"], "refresh");
            assert_eq!(payload["gen"].as_i64(), Some(claims.generation));
        }
    }
});

fn object(text: &str) -> Value {
    let value: Value = serde_json::from_str(text).expect("JSON");
    assert!(value.is_object(), "{text:?}");
    value
}

fn assert_header(header: &str, algorithm: &str) {
    let header = object(header);
    assert_eq!(header["alg"], algorithm);
    assert!(
        header.get("crit").is_none() && header.get("kid").is_none_or(|kid| kid.is_null() == (algorithm == "HS256"))
    );
}

fn assert_in_force(payload: &str, now: i64) -> Value {
    let payload = object(payload);
    assert!(payload["exp"].as_i64().is_some_and(|end| end > now), "{payload}");
    let start = payload.get("nbf").filter(|start| !start.is_null());
    assert!(start.is_none_or(|start| start.as_i64().is_some_and(|start| start <= now + 1)), "{payload}");
    payload
}

fn assert_claims(payload: &Value, claims: &Claims) {
    let id = |name: &str| payload[name].clone();
    match claims {
        Claims::User(claims) => {
            assert_eq!(payload["type"], "access");
            assert_eq!(serde_json::from_value::<UserId>(id("sub")).ok(), Some(claims.sub));
            assert_eq!(serde_json::from_value::<SessionId>(id("sid")).ok(), Some(claims.sid));
        }
        Claims::Service(claims) => {
            assert_eq!(payload["type"], "service");
            assert_eq!(serde_json::from_value::<KeyId>(id("key")).ok(), Some(claims.key));
            assert_eq!(payload["scope"], claims.scopes.as_str());
        }
    }
}

fn is_for(audience: &Value, whom: &str) -> bool {
    audience == whom || audience.as_array().is_some_and(|all| all.iter().any(|one| one == whom))
}

/// Other texts that a lenient decoder would take for the same token.
fn respelt(token: &str) -> Vec<String> {
    let last = token.chars().last().unwrap_or_default();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let others = alphabet.chars().filter(|other| *other != last);
    let mut respelt: Vec<String> = others.map(|other| format!("{}{other}", &token[..token.len() - 1])).collect();
    respelt.extend([format!("{token}="), format!("{token}."), format!(" {token}"), format!("{token}A")]);
    respelt.push(token.replacen('.', "=.", 1));
    respelt
}
