//! The data key: it seals the secrets that must be read again, such as those of second factors and webhooks, and it is
//! behind the keyed hashes of texts that are counted and not stored.
//!
//! A sealed value is a version (1 byte), the id of the key (4 bytes), a random nonce (12 bytes), and the secret with its
//! tag by AES-256-GCM (NIST SP 800-38D). Associated data is where the value is stored, so that it opens nowhere else.
//! The keys of the cipher and of the hashes are derived from `DATA_KEY` by HKDF-SHA-256 (RFC 5869).

use std::fmt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::base::error::Error;
use crate::base::kept::{DATA_KEY, KeptSecrets};
use crate::base::random;
use crate::base::secret::Secret;

const VERSION: u8 = 1;
const KEY_ID: usize = 4;
/// The version and the id of the key.
pub(crate) const HEAD: usize = 1 + KEY_ID;
const NONCE: usize = 12;
const KEY: usize = 32;

pub(crate) const WITHOUT: &str = "This needs DATA_KEY, which is not set: the operator has to set it to the output of `openssl rand -hex 32`, on all \
     instances, and restart them";

#[derive(Clone, Debug, Default)]
pub struct DataKeySettings {
    /// `None`: generated with SQLite; with PostgreSQL nothing can be sealed.
    pub key: Option<RawKey>,
    /// The key before or after a change: it opens what it sealed, and seals nothing.
    pub previous: Option<RawKey>,
}

/// 32 secret bytes. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct RawKey([u8; KEY]);

impl RawKey {
    /// Reads hexadecimal digits or base64 of either alphabet. The error is what is wrong with the text.
    pub(crate) fn parse(text: &str) -> Result<RawKey, &'static str> {
        let engines = [BASE64_STANDARD, BASE64_URL_SAFE, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD];
        let base64 = || engines.iter().find_map(|engine| engine.decode(text).ok());
        let bytes = hex::decode(text).ok().or_else(base64).ok_or("is neither hexadecimal nor base64")?;
        bytes.try_into().map(RawKey).map_err(|_| "is not 32 bytes")
    }
}

impl fmt::Debug for RawKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(data key)")
    }
}

/// Where a sealed value is stored. It opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub table: &'static str,
    pub column: &'static str,
    pub row: Uuid,
}

/// One key, derived.
struct Cipher {
    head: [u8; HEAD],
    key: RandomizedNonceKey,
}

/// `Debug` shows nothing of it.
pub struct DataKey {
    /// `None`: there is no key that could seal.
    sealing: Option<Cipher>,
    /// Opens what it sealed, and seals nothing.
    previous: Option<Cipher>,
    hashing: hmac::Key,
}

impl DataKey {
    /// The key of a server. With SQLite, one that is not set is generated once and kept beside `sqlite_file`. With
    /// PostgreSQL, where it has to be set, hashes are keyed by `shared` without it: a secret that all instances have.
    /// The error is one line for the operator.
    pub fn resolve(
        settings: &DataKeySettings,
        sqlite_file: Option<&Path>,
        shared: Option<&Secret>,
    ) -> Result<DataKey, String> {
        let kept = match sqlite_file {
            Some(database) if settings.key.is_none() => {
                let mut kept = KeptSecrets::read_or_make(database)?;
                kept.add(DATA_KEY)?;
                Some(kept)
            }
            _ => None,
        };
        DataKey::of(settings, kept.as_ref(), shared)
    }

    /// The key for a command of an operator, who need not have it: nothing is made, and a file that they may not read is
    /// passed over. Without the key a command seals and opens nothing; without `shared` too, its keyed hashes are nobody
    /// else's.
    pub fn resolve_existing(
        settings: &DataKeySettings,
        sqlite_file: Option<&Path>,
        shared: Option<&Secret>,
    ) -> Result<DataKey, String> {
        let kept =
            sqlite_file.filter(|_| settings.key.is_none()).and_then(|file| KeptSecrets::read(file).ok().flatten());
        DataKey::of(settings, kept.as_ref(), shared).or_else(|_| DataKey::of(settings, None, shared))
    }

    fn of(settings: &DataKeySettings, kept: Option<&KeptSecrets>, shared: Option<&Secret>) -> Result<DataKey, String> {
        let kept_key = kept.and_then(|kept| Some((kept.path(), kept.secret(DATA_KEY)?)));
        let kept_key = kept_key.map(|(path, secret)| {
            RawKey::parse(secret.expose()).map_err(|_| format!("{} has no good DATA_KEY; restore it", path.display()))
        });
        let key = settings.key.clone().map(Ok).or(kept_key).transpose()?;
        DataKey::new(key.as_ref(), settings.previous.as_ref(), shared)
            .map_err(|_| "DATA_KEY: no keys can be derived from it".to_string())
    }

    fn new(key: Option<&RawKey>, previous: Option<&RawKey>, shared: Option<&Secret>) -> Result<DataKey, Unspecified> {
        let hashing = match (key, shared) {
            (Some(key), _) => hashing_key(&key.0)?,
            (None, Some(shared)) => hashing_key(shared.expose().as_bytes())?,
            (None, None) => hashing_key(&random::bytes::<KEY>().map_err(|_| Unspecified)?)?,
        };
        let (sealing, previous) = (key.map(Cipher::new).transpose()?, previous.map(Cipher::new).transpose()?);
        Ok(DataKey { sealing, previous, hashing })
    }

    /// An error: nothing can be sealed. For routes that would not get as far as sealing.
    pub fn check(&self) -> Result<(), Error> {
        self.sealing().map(drop)
    }

    pub fn seal(&self, place: &Place, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let cipher = self.sealing()?;
        let mut secret = plain.to_vec();
        let nonce = cipher
            .key
            .seal_in_place_append_tag(associated(&cipher.head, place), &mut secret)
            .map_err(|_| Error::Internal(format!("{place} cannot be sealed")))?;
        Ok([&cipher.head[..], nonce.as_ref(), &secret].concat())
    }

    /// An error: it was sealed by another key or for another place, or it was damaged. The log tells which.
    pub fn open(&self, place: &Place, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        self.sealing()?;
        let damaged = || Error::Internal(format!("{place} is damaged, or was put there from elsewhere"));
        let (head, rest) = sealed.split_first_chunk::<HEAD>().ok_or_else(damaged)?;
        let (nonce, secret) = rest.split_first_chunk::<NONCE>().ok_or_else(damaged)?;
        let cipher = self.ciphers().find(|cipher| cipher.head == *head).ok_or_else(|| {
            Error::Internal(format!("{place} was sealed by another DATA_KEY: set that one as DATA_KEY_PREVIOUS"))
        })?;
        let mut secret = secret.to_vec();
        let plain = cipher
            .key
            .open_in_place(Nonce::from(nonce), associated(head, place), &mut secret)
            .map_err(|_| damaged())?
            .len();
        secret.truncate(plain);
        Ok(secret)
    }

    /// Whether a value that begins like this should be sealed anew.
    pub(crate) fn is_outdated(&self, sealed: &[u8]) -> bool {
        self.sealing.as_ref().is_some_and(|cipher| !sealed.starts_with(&cipher.head))
    }

    /// Whether one of the keys has sealed what begins like this.
    pub(crate) fn opens(&self, sealed: &[u8]) -> bool {
        self.sealing.is_some() && self.ciphers().any(|cipher| sealed.starts_with(&cipher.head))
    }

    /// A hash that nobody without the key can try out texts against. Each purpose has hashes of its own. They are the
    /// same on all instances, and others once the key changes.
    pub fn keyed_hash(&self, purpose: &str, text: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.hashing);
        context.update(&(purpose.len() as u64).to_be_bytes());
        context.update(purpose.as_bytes());
        context.update(text.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }

    fn sealing(&self) -> Result<&Cipher, Error> {
        self.sealing.as_ref().ok_or(Error::NotConfigured(WITHOUT))
    }

    fn ciphers(&self) -> impl Iterator<Item = &Cipher> {
        self.sealing.iter().chain(&self.previous)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(data key)")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} of {}", self.table, self.column, self.row)
    }
}

impl Cipher {
    fn new(raw: &RawKey) -> Result<Cipher, Unspecified> {
        let prk = extract(&raw.0);
        let mut head = [VERSION; HEAD];
        head[1..].copy_from_slice(&derived::<KEY_ID>(&prk, b"keyward id of the data key")?);
        let key = RandomizedNonceKey::new(&AES_256_GCM, &derived::<KEY>(&prk, b"keyward sealing, AES-256-GCM")?)?;
        Ok(Cipher { head, key })
    }
}

fn hashing_key(secret: &[u8]) -> Result<hmac::Key, Unspecified> {
    let key = derived::<KEY>(&extract(secret), b"keyward keyed hashes")?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &key))
}

fn extract(secret: &[u8]) -> Prk {
    Salt::none(HKDF_SHA256).extract(secret)
}

fn derived<const N: usize>(prk: &Prk, purpose: &[u8]) -> Result<[u8; N], Unspecified> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut bytes = [0; N];
    prk.expand(&[purpose], Length(N))?.fill(&mut bytes)?;
    Ok(bytes)
}

/// Neither a table nor a column has a NUL in its name, so two places never have the same.
fn associated(head: &[u8; HEAD], place: &Place) -> Aad<Vec<u8>> {
    Aad::from([&head[..], place.table.as_bytes(), b"\0", place.column.as_bytes(), b"\0", place.row.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Uuid = Uuid::from_u128(7);
    const HERE: Place = Place { table: "second_factors", column: "secret", row: ROW };

    fn raw(byte: u8) -> RawKey {
        RawKey([byte; KEY])
    }

    fn key(key: Option<u8>, previous: Option<u8>) -> DataKey {
        DataKey::new(key.map(raw).as_ref(), previous.map(raw).as_ref(), None).unwrap()
    }

    #[test]
    fn a_sealed_value_opens_at_its_place_alone() {
        let key = key(Some(1), None);
        let sealed = key.seal(&HERE, b"hunter2").unwrap();
        assert_eq!(key.open(&HERE, &sealed).unwrap(), b"hunter2");
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        // Each nonce is new.
        assert_ne!(key.seal(&HERE, b"hunter2").unwrap(), sealed);
        for elsewhere in [
            Place { table: "webhooks", ..HERE },
            Place { column: "previous_secret", ..HERE },
            Place { row: Uuid::from_u128(8), ..HERE },
        ] {
            assert!(key.open(&elsewhere, &sealed).is_err(), "{elsewhere}");
        }
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            let fault = key.open(&HERE, &other).unwrap_err();
            assert!(matches!(&fault, Error::Internal(text) if !text.contains("hunter2")), "{at}: {fault:?}");
            assert!(key.open(&HERE, &sealed[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn the_previous_key_opens_and_does_not_seal() {
        let sealed = key(Some(1), None).seal(&HERE, b"x").unwrap();
        let changed = key(Some(2), Some(1));
        assert_eq!(changed.open(&HERE, &sealed).unwrap(), b"x");
        assert!(changed.is_outdated(&sealed));
        let anew = changed.seal(&HERE, b"x").unwrap();
        assert!(!changed.is_outdated(&anew));
        assert_eq!(key(Some(2), None).open(&HERE, &anew).unwrap(), b"x");
        assert!(key(Some(1), None).open(&HERE, &anew).is_err());
        let fault = key(Some(3), Some(2)).open(&HERE, &sealed).unwrap_err();
        assert!(matches!(&fault, Error::Internal(text) if text.contains("set that one as DATA_KEY_PREVIOUS")));
    }

    #[test]
    fn without_the_key_nothing_is_sealed_and_texts_are_hashed_all_the_same() {
        for key in [key(None, None), key(None, Some(1))] {
            assert!(matches!(key.check(), Err(Error::NotConfigured(_))));
            assert!(matches!(key.seal(&HERE, b"x"), Err(Error::NotConfigured(_))));
            assert!(matches!(key.open(&HERE, b"x"), Err(Error::NotConfigured(_))));
        }
        let shared = |text: &str| DataKey::new(None, None, Some(&Secret::new(text.to_string()))).unwrap();
        assert_eq!(shared("a").keyed_hash("email", "ann"), shared("a").keyed_hash("email", "ann"));
        assert_ne!(shared("a").keyed_hash("email", "ann"), shared("b").keyed_hash("email", "ann"));
    }

    #[test]
    fn a_hash_is_of_its_purpose_its_text_and_its_key() {
        let hash = key(Some(1), None).keyed_hash("email", "ann");
        assert_eq!(key(Some(1), Some(2)).keyed_hash("email", "ann"), hash);
        for (other, purpose, text) in [(1, "email", "bob"), (1, "emaila", "nn"), (2, "email", "ann")] {
            assert_ne!(key(Some(other), None).keyed_hash(purpose, text), hash);
        }
    }

    #[test]
    fn a_key_is_32_bytes_in_hexadecimal_or_base64() {
        let bytes: [u8; KEY] = std::array::from_fn(|at| 0xf8 + (at as u8 & 7));
        for text in [
            hex::encode(bytes),
            hex::encode_upper(bytes),
            BASE64_STANDARD.encode(bytes),
            BASE64_STANDARD_NO_PAD.encode(bytes),
            BASE64_URL_SAFE.encode(bytes),
        ] {
            assert!(RawKey::parse(&text) == Ok(RawKey(bytes)), "{text}");
        }
        for (text, fault) in [
            ("hunter2!", "is neither hexadecimal nor base64"),
            (&"x".repeat(61), "is neither hexadecimal nor base64"),
            (&"x".repeat(60), "is not 32 bytes"),
            (&hex::encode([1; 31]), "is not 32 bytes"),
            (&BASE64_STANDARD.encode([1; 33]), "is not 32 bytes"),
        ] {
            assert_eq!(RawKey::parse(text), Err(fault), "{text}");
        }
        assert_eq!(format!("{:?} {:?}", raw(1), key(Some(1), None)), "(data key) (data key)");
    }
}
