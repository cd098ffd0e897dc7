//! Makes tokens of any kind, good and bad, part by part, with nothing of the server's own.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use keyward::tokens::algorithm::Algorithm;
use serde_json::{Value, json};

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

/// RFC 7638, for an Ed25519 key.
pub fn thumbprint(x: &str) -> String {
    thumbprint_of(&json!({ "crv": "Ed25519", "kty": "OKP", "x": x }))
}

/// RFC 7638: `members` are the required ones.
fn thumbprint_of(members: &Value) -> String {
    let sorted: BTreeMap<&String, &Value> = members.as_object().unwrap().iter().collect();
    b64(digest::digest(&digest::SHA256, &serde_json::to_vec(&sorted).unwrap()))
}

/// A key pair in the forms in which it is configured and published.
pub struct Pair {
    pub algorithm: &'static str,
    pub private_pem: String,
    pub public_pem: String,
    /// As it is published.
    pub jwk: Value,
    pub signer: Signer,
}

pub enum Signer {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Pair {
    fn new(algorithm: &'static str, signer: Signer) -> Pair {
        let (private, public, mut jwk) = match &signer {
            Signer::Ed25519(pair) => {
                let members = json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key()) });
                (pkcs8(pair), spki(pair.public_key()), members)
            }
            Signer::P256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                let private = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
                (private, spki(pair.public_key()), json!({ "kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y) }))
            }
            Signer::Rsa(pair) => {
                let PublicKeyComponents::<Vec<u8>> { n, e } = pair.public_key().into();
                (pkcs8(pair), spki(pair.public_key()), json!({ "kty": "RSA", "n": b64(n), "e": b64(e) }))
            }
        };
        let kid = thumbprint_of(&jwk);
        jwk.as_object_mut().unwrap().extend(
            [("use", "sig"), ("alg", algorithm), ("kid", &kid)].map(|(name, value)| (name.to_string(), json!(value))),
        );
        let (private_pem, public_pem) = (pem("PRIVATE KEY", private), pem("PUBLIC KEY", public));
        Pair { algorithm, private_pem, public_pem, jwk, signer }
    }

    pub fn kid(&self) -> &str {
        self.jwk["kid"].as_str().unwrap()
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.signer {
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Signer::P256(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Signer::Rsa(pair) => rsa_signature(pair, &RSA_PKCS1_SHA256, message),
        }
    }
}

pub fn rsa_signature(pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

/// Two key pairs of each algorithm that has any, made once.
pub static PAIRS: LazyLock<[[Pair; 2]; 3]> = LazyLock::new(|| {
    let p256 = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let rsa = || RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    [
        [pair(), other_pair()].map(|pair| Pair::new("EdDSA", Signer::Ed25519(pair))),
        [p256(), p256()].map(|pair| Pair::new("ES256", Signer::P256(pair))),
        [rsa(), rsa()].map(|pair| Pair::new("RS256", Signer::Rsa(pair))),
    ]
});

pub const ALGORITHMS: [Algorithm; 3] = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256];

pub fn pairs(algorithm: Algorithm) -> &'static [Pair; 2] {
    &PAIRS[ALGORITHMS.iter().position(|own| *own == algorithm).expect("an algorithm with key pairs")]
}

fn pkcs8(pair: &impl AsDer<Pkcs8V1Der<'static>>) -> Vec<u8> {
    pair.as_der().unwrap().as_ref().to_vec()
}

fn spki(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Vec<u8> {
    key.as_der().unwrap().as_ref().to_vec()
}

pub fn pem(kind: &str, der: impl AsRef<[u8]>) -> String {
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64_STANDARD.encode(der))
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
