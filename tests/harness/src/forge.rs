//! Makes tokens of any kind, good and bad, part by part, with nothing of the server's own.

use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::service::Service;

/// The key pair of RFC 8037, appendix A, which everybody has.
pub const PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
    -----END PRIVATE KEY-----\n";
pub const PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
    -----END PUBLIC KEY-----\n";
pub const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
pub const KID: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

pub fn pair() -> Ed25519KeyPair {
    let der = BASE64_STANDARD.decode(PRIVATE_PEM.lines().nth(1).unwrap()).unwrap();
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap()
}

/// Another key pair.
pub fn other_pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub fn unb64(text: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// A token of these parts, with the signature that `signer` makes of the first two.
pub fn token(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, signer: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", b64(header), b64(payload));
    let signature = signer(message.as_bytes());
    format!("{message}.{}", b64(signature))
}

pub fn hs256(secret: impl AsRef<[u8]>) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref());
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

pub fn ed25519(pair: Ed25519KeyPair) -> impl Fn(&[u8]) -> Vec<u8> {
    move |message| pair.sign(message).as_ref().to_vec()
}

/// RFC 7638.
pub fn thumbprint(x: &str) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    b64(digest::digest(&digest::SHA256, members.as_bytes()))
}

/// The JSON of a token's first part, or of its second.
pub fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(&unb64(token.split('.').nth(index).unwrap())).unwrap()
}

/// The claims of a token, unverified.
pub fn claims(token: &str) -> Value {
    part(token, 1)
}

/// The secrets with which a service signs access tokens and refresh tokens.
pub fn secrets(service: &Service) -> [String; 2] {
    let config = service.config();
    let kept = service.sqlite_file().map(|file| file.with_extension("db.secrets"));
    let kept = kept.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    [("JWT_SECRET=", &config.tokens.secret), ("JWT_REFRESH_SECRET=", &config.tokens.refresh_secret)].map(
        |(name, configured)| match configured {
            Some(secret) => secret.expose().to_string(),
            None => kept.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_string(),
        },
    )
}
