//! How tokens are signed, what they say, and how long they live.

use super::read::{LIFETIMES, lifetime, list, path, signing_secret, text};
use crate::config::setting::{ALWAYS, Setting};
use crate::tokens::algorithm::Algorithm;

pub(super) static SETTINGS: &[Setting] = &[
    Setting {
        name: "JWT_SECRET",
        default: None,
        accepts: "32 bytes or more",
        meaning: "Signs access tokens (HS256); generated with SQLite, required with PostgreSQL if JWT_ALG is HS256",
        secret: true,
        counts: ALWAYS,
        read: |config, value| signing_secret(&mut config.tokens.secret, value),
    },
    Setting {
        name: "JWT_EXPIRES_IN",
        default: Some("1h"),
        accepts: LIFETIMES,
        meaning: "Lifetime of an access token",
        secret: false,
        counts: ALWAYS,
        read: |config, value| lifetime(value).map(|span| config.tokens.access_lifetime = span),
    },
    Setting {
        name: "JWT_REFRESH_SECRET",
        default: None,
        accepts: "32 bytes or more",
        meaning: "Signs refresh tokens; generated with SQLite, required with PostgreSQL",
        secret: true,
        counts: ALWAYS,
        read: |config, value| signing_secret(&mut config.tokens.refresh_secret, value),
    },
    Setting {
        name: "JWT_REFRESH_EXPIRES_IN",
        default: Some("7d"),
        accepts: LIFETIMES,
        meaning: "Lifetime of a refresh token; every refresh gives a new one",
        secret: false,
        counts: ALWAYS,
        read: |config, value| lifetime(value).map(|span| config.tokens.refresh_lifetime = span),
    },
    Setting {
        name: "JWT_SECRET_PREVIOUS",
        default: None,
        accepts: "32 bytes or more",
        meaning: "The previous or the next JWT_SECRET; access tokens that it signed are accepted, and it signs none",
        secret: true,
        counts: ALWAYS,
        read: |config, value| signing_secret(&mut config.tokens.previous_secret, value),
    },
    Setting {
        name: "JWT_REFRESH_SECRET_PREVIOUS",
        default: None,
        accepts: "32 bytes or more",
        meaning: "The previous or the next JWT_REFRESH_SECRET; refresh tokens that it signed are accepted, and it signs none",
        secret: true,
        counts: ALWAYS,
        read: |config, value| signing_secret(&mut config.tokens.previous_refresh_secret, value),
    },
    Setting {
        name: "JWT_ALG",
        default: Some("HS256"),
        accepts: "HS256, EdDSA, ES256 or RS256",
        meaning: "How access tokens are signed: HS256 with JWT_SECRET; EdDSA (Ed25519), ES256 (P-256) and RS256 (RSA) with a key whose public half lets other services verify them",
        secret: false,
        counts: ALWAYS,
        read: |config, value| {
            config.tokens.algorithm = Algorithm::parse(value).ok_or("is none of them")?;
            Ok(())
        },
    },
    Setting {
        name: "JWT_PRIVATE_KEY_FILE",
        default: None,
        accepts: "the path of a PEM file, such as `openssl genpkey -algorithm ed25519` makes",
        meaning: "Signs access tokens with EdDSA, ES256 or RS256; generated with SQLite, required with PostgreSQL unless JWT_ALG is HS256",
        secret: false,
        counts: ALWAYS,
        read: |config, value| path(&mut config.tokens.private_key_file, value),
    },
    Setting {
        name: "JWT_PREVIOUS_KEY_FILES",
        default: None,
        accepts: "paths of PEM files, separated by commas; public keys will do",
        meaning: "Further keys of any of the three kinds, such as the previous or the next one; they are published, tokens that they signed are accepted, and they sign none",
        secret: false,
        counts: ALWAYS,
        read: |config, value| {
            let file = |path: &str| if path.is_empty() { Err("has an empty path") } else { Ok(path.into()) };
            config.tokens.previous_key_files = list(value, file)?;
            Ok(())
        },
    },
    Setting {
        name: "JWT_ISSUER",
        default: None,
        accepts: "a text, such as https://auth.example.com",
        meaning: "Written into tokens as `iss` and required of them; setting or changing it logs everyone out",
        secret: false,
        counts: ALWAYS,
        read: |config, value| text(&mut config.tokens.parties.issuer, value),
    },
    Setting {
        name: "JWT_AUDIENCE",
        default: None,
        accepts: "a text, such as https://api.example.com",
        meaning: "Written into tokens as `aud` and required of them; setting or changing it logs everyone out",
        secret: false,
        counts: ALWAYS,
        read: |config, value| text(&mut config.tokens.parties.audience, value),
    },
];
