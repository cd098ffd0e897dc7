//! The keys that sign tokens: from the settings, or made once and kept beside the SQLite file.
//!
//! There may be a secret (HS256) and key pairs for access tokens at the same time. `JWT_ALG` says which of them signs.
//! The others still verify, so that changing `JWT_ALG` logs nobody out.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use log::{info, warn};
use rustls::pki_types::pem::{self, PemObject, SectionKind};

use crate::base::files;
use crate::base::kept::{self, JWT_REFRESH_SECRET, JWT_SECRET, KeptSecrets, folder_of, kept_at};
use crate::base::secret::Secret;
use crate::tokens::algorithm::Algorithm;
use crate::tokens::jws::Keyring;
use crate::tokens::settings::TokenSettings;
use crate::tokens::signing_keys::{OF_NO_KIND, SigningKey, VerifyingKey};

/// The keys of each type of token.
pub struct JwtKeys {
    pub access: Keyring,
    pub refresh: Keyring,
}

impl JwtKeys {
    /// Random keys that nothing keeps: for a process that issues no tokens.
    pub fn ephemeral() -> Result<JwtKeys, String> {
        let new = || -> Result<Keyring, String> {
            let secret = kept::new_secret().map_err(|error| format!("no random keys can be made: {error}"))?;
            Ok(Keyring::new(SigningKey::from_secret(&Secret::new(secret)), []))
        };
        Ok(JwtKeys { access: new()?, refresh: new()? })
    }
}

/// The keys that the settings name. With SQLite, keys that are not set are generated once and kept beside `sqlite_file`.
/// With PostgreSQL they must be set, because all instances must share them. The error is one line for the operator.
pub fn resolve(settings: &TokenSettings, sqlite_file: Option<&Path>) -> Result<JwtKeys, String> {
    // The configured files are read first: if one is bad, no file has been made.
    let previous = previous_keys(&settings.previous_key_files)?;
    let mut pairs = private_keys(settings, sqlite_file)?;
    let (secret, refresh_secret) = secrets(settings, sqlite_file)?;
    let mut secret = secret.as_ref().map(SigningKey::from_secret);
    let algorithm = settings.algorithm;
    let signing =
        if algorithm == Algorithm::Hs256 {
            secret.take().ok_or_else(|| required("JWT_SECRET"))?
        } else {
            let at = pairs.iter().position(|pair| pair.algorithm() == algorithm);
            pairs.swap_remove(at.ok_or_else(|| {
                wanted_key_file(algorithm, "is not set, and with PostgreSQL all instances must share it")
            })?)
        };
    let others = pairs.into_iter().chain(secret).map(SigningKey::into_verifying);
    let others = others.chain(settings.previous_secret.as_ref().map(VerifyingKey::from_secret)).chain(previous);
    Ok(JwtKeys {
        access: Keyring::new(signing, others),
        refresh: Keyring::new(
            SigningKey::from_secret(&refresh_secret),
            settings.previous_refresh_secret.as_ref().map(VerifyingKey::from_secret),
        ),
    })
}

fn previous_keys(paths: &[PathBuf]) -> Result<Vec<VerifyingKey>, String> {
    let read = |path: &PathBuf| {
        read_key(path).map(KeyFile::verifying).map_err(|fault| {
            format!(
                "JWT_PREVIOUS_KEY_FILES: {fault}; accepted: PEM files with an Ed25519, P-256 or RSA key each, such as \
                 the output of `openssl pkey -in old.pem -pubout`"
            )
        })
    };
    paths.iter().map(read).collect()
}

/// The secrets of access tokens and of refresh tokens. With PostgreSQL the first is optional here: only HS256 needs it.
fn secrets(settings: &TokenSettings, sqlite_file: Option<&Path>) -> Result<(Option<Secret>, Secret), String> {
    let (access, refresh) = (&settings.secret, &settings.refresh_secret);
    let Some(database) = sqlite_file else {
        let refresh = refresh.clone().ok_or_else(|| required("JWT_REFRESH_SECRET"))?;
        return Ok((access.clone(), refresh));
    };
    if let (Some(access), Some(refresh)) = (access, refresh) {
        return Ok((Some(access.clone()), refresh.clone()));
    }
    let file = KeptSecrets::read_or_make(database)?;
    let kept = |name: &str| {
        file.secret(name).filter(|secret| secret.expose().len() >= 32).ok_or_else(|| {
            format!(
                "{} has no good {name}; restore it, or give it the output of `openssl rand -hex 32` to log everyone out",
                file.path().display()
            )
        })
    };
    let access = access.clone().map_or_else(|| kept(JWT_SECRET), Ok)?;
    let refresh = refresh.clone().map_or_else(|| kept(JWT_REFRESH_SECRET), Ok)?;
    Ok((Some(access), refresh))
}

fn required(name: &str) -> String {
    format!(
        "{name}: is not set, and with PostgreSQL all instances must share it; accepted: 32 bytes or more, such as the \
         output of `openssl rand -hex 32`"
    )
}

/// The configured key, or with SQLite the kept ones. One that has to sign is generated if it is not there.
fn private_keys(settings: &TokenSettings, sqlite_file: Option<&Path>) -> Result<Vec<SigningKey>, String> {
    let algorithm = settings.algorithm;
    if let Some(path) = &settings.private_key_file {
        let key = read_key(path).and_then(|key| key.signing(path)).and_then(|key| match key.algorithm() {
            own if own == algorithm || algorithm == Algorithm::Hs256 => Ok(key),
            own => {
                Err(format!("{} holds a key for {}, and JWT_ALG is {}", path.display(), own.name(), algorithm.name()))
            }
        });
        return Ok(vec![key.map_err(|fault| wanted_key_file(algorithm, &fault))?]);
    }
    let Some(database) = sqlite_file else { return Ok(Vec::new()) };
    let kept = Algorithm::ALL.into_iter().filter_map(|own| kept_key(own, database, own == algorithm).transpose());
    kept.collect()
}

/// The key for this algorithm that is kept beside the SQLite file. `None`: there is none, and it need not sign.
fn kept_key(algorithm: Algorithm, database: &Path, signs: bool) -> Result<Option<SigningKey>, String> {
    let path = match algorithm {
        Algorithm::Hs256 => return Ok(None),
        Algorithm::EdDsa => kept_at(database, "ed25519.pem"),
        Algorithm::Es256 => kept_at(database, "p256.pem"),
        Algorithm::Rs256 => kept_at(database, "rsa.pem"),
    };
    if !path.exists() {
        if !signs {
            return Ok(None);
        }
        let failed = |error: std::io::Error| {
            let owner = files::foreign([folder_of(&path)]);
            format!("the JWT key cannot be kept in {}: {error}{owner}", path.display())
        };
        if kept::place(&path, &new_private_key(algorithm).map_err(failed)?).map_err(failed)? {
            info!("a JWT key was generated; it is kept in {}", path.display());
        }
    }
    let key = read_key(&path).and_then(|key| key.signing(&path)).and_then(|key| match key.algorithm() {
        own if own == algorithm => Ok(key),
        own => Err(format!("{} holds a key for {}", path.display(), own.name())),
    });
    key.map(Some).map_err(|fault| format!("{fault}; restore it, or move it away and a new one is made"))
}

fn wanted_key_file(algorithm: Algorithm, fault: &str) -> String {
    let (key, command) = match algorithm {
        Algorithm::Hs256 => ("an Ed25519, P-256 or RSA", "-algorithm ed25519"),
        Algorithm::EdDsa => ("an Ed25519", "-algorithm ed25519"),
        Algorithm::Es256 => ("a P-256", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
        Algorithm::Rs256 => ("an RSA", "-algorithm RSA -pkeyopt rsa_keygen_bits:3072"),
    };
    format!(
        "JWT_PRIVATE_KEY_FILE: {fault}; accepted: a PEM file with {key} private key, such as the output of \
         `openssl genpkey {command}`"
    )
}

/// PKCS#8 in its first version, which every OpenSSL reads.
fn new_private_key(algorithm: Algorithm) -> std::io::Result<String> {
    let der = match algorithm {
        Algorithm::Rs256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa3072).map_err(std::io::Error::other)?;
            AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(std::io::Error::other)?.as_ref().to_vec()
        }
        Algorithm::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(std::io::Error::other)?
            .as_ref()
            .to_vec(),
        Algorithm::Hs256 | Algorithm::EdDsa => {
            let pair = Ed25519KeyPair::generate().map_err(std::io::Error::other)?;
            AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(std::io::Error::other)?.as_ref().to_vec()
        }
    };
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")))
}

/// What a PEM file holds.
enum KeyFile {
    Private(SigningKey),
    Public(VerifyingKey),
}

impl KeyFile {
    fn verifying(self) -> VerifyingKey {
        match self {
            KeyFile::Private(key) => key.into_verifying(),
            KeyFile::Public(key) => key,
        }
    }

    fn signing(self, path: &Path) -> Result<SigningKey, String> {
        match self {
            KeyFile::Private(key) => Ok(key),
            KeyFile::Public(_) => Err(format!("{} holds a public key only", path.display())),
        }
    }
}

/// Reads a key; warns if everyone on the machine may read a private one. The error says what is wrong with which
/// file.
fn read_key(path: &Path) -> Result<KeyFile, String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| format!("{shown} cannot be read: {error}{}", files::unreadable(path));
    let file = fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    let mut text = Vec::new();
    file.take(LARGEST_KEY_FILE).read_to_end(&mut text).map_err(unreadable)?;
    let (kind, der) = <(SectionKind, Vec<u8>)>::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => format!("{shown} holds no key that is PEM and not encrypted"),
        _ => format!("{shown} is not PEM"),
    })?;
    let key = match kind {
        SectionKind::PrivateKey => SigningKey::from_pkcs8(&der).map(KeyFile::Private),
        SectionKind::EcPrivateKey => SigningKey::from_sec1(&der).map(KeyFile::Private),
        SectionKind::RsaPrivateKey => SigningKey::from_pkcs1(&der).map(KeyFile::Private),
        SectionKind::PublicKey => VerifyingKey::from_spki(&der).map(KeyFile::Public),
        _ => Err(OF_NO_KIND),
    };
    let key = key.map_err(|fault| format!("{shown} {fault}"))?;
    if matches!(key, KeyFile::Private(_)) && mode & 0o004 != 0 {
        warn!("{shown} is a private key that every user of this machine can read; `chmod 600` it");
    }
    Ok(key)
}

/// In bytes. An RSA key has a few thousand; a wrong path may name a file of any size.
const LARGEST_KEY_FILE: u64 = 64 * 1024;
