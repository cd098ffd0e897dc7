//! API keys: what they look like, how they are stored, and what they are valid for.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::error::Error;
use crate::base::id::{KeyId, UserId};
use crate::base::metadata::Metadata;
use crate::base::random;
use crate::keys::allowed_ips::AllowedIps;
use crate::keys::scopes::Scopes;
use crate::keys::usage::Outcome;
use crate::keys::written_form::{HEX_DIGITS, KeyPrefix, is_key, start_of_digits};
use crate::memory::limiter::Rate;
use crate::memory::lookup::Cacheable;

/// How many ended keys are kept of an owner who may have `most` usable ones.
pub(crate) fn most_ended(most: u32) -> i64 {
    10 * i64::from(most)
}

/// The bounds of a key's rate limit.
pub(crate) const MOST_IN_A_WINDOW: u32 = 1_000_000;
pub(crate) const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// A new key in clear. It is shown to its owner once. It has no `Debug`, so that no log can show it.
pub struct KeySecret(String);

impl KeySecret {
    /// 256 bits from the system's random source, as 64 hexadecimal digits after the prefix.
    pub(crate) fn generate(prefix: &KeyPrefix) -> Result<KeySecret, Error> {
        let bytes: [u8; HEX_DIGITS / 2] = random::bytes()?;
        Ok(KeySecret(prefix.write(&hex::encode(bytes))))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `sk_1a2b…9f0e`: enough to tell keys apart, too little to help somebody guess the rest.
    pub(crate) fn hint(&self) -> String {
        let (prefix, digits) = self.0.split_at(start_of_digits(&self.0));
        format!("{prefix}{}…{}", &digits[..4], &digits[HEX_DIGITS - 4..HEX_DIGITS])
    }
}

/// SHA-256 of a key, the only form in which it is stored. A key has 256 random bits, so a slow hash would not protect
/// it better. Lookups compare hashes, so the time that they take reveals nothing about a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// `None`: it does not have the form of a key.
    pub fn of(key: &[u8]) -> Option<KeyHash> {
        if !is_key(key) {
            return None;
        }
        digest::digest(&digest::SHA256, key).as_ref().try_into().ok().map(KeyHash)
    }

    /// `None`: not the length of a SHA-256.
    pub fn from_stored(bytes: Vec<u8>) -> Option<KeyHash> {
        bytes.try_into().ok().map(KeyHash)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(key hash)")
    }
}

/// The name of a key.
pub fn parse_key_name(text: &str) -> Result<String, &'static str> {
    parse_text(text)
}

/// The owner's own id of whom a key is for.
pub(crate) fn parse_external_id(text: &str) -> Result<String, &'static str> {
    parse_text(text)
}

fn parse_text(text: &str) -> Result<String, &'static str> {
    match text.chars().count() {
        0 => Err("should not be empty"),
        1..=255 => Ok(text.to_string()),
        _ => Err("must be shorter than or equal to 255 characters"),
    }
}

/// A key as its owner sees it.
#[derive(Clone, Debug)]
pub struct ApiKey {
    pub id: KeyId,
    pub owner: UserId,
    pub name: String,
    pub hint: String,
    pub is_active: bool,
    pub expires_at: Option<Timestamp>,
    pub scopes: Scopes,
    pub rate_limit: Option<Rate>,
    /// The owner's own id of whom the key is for.
    pub external_id: Option<String>,
    pub metadata: Option<Metadata>,
    /// `None`: any address.
    pub allowed_ips: Option<AllowedIps>,
    pub last_used_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// Final, unlike a pause (`is_active`).
    pub revoked_at: Option<Timestamp>,
    /// The key that a rotation made in its place. This one stays usable until it expires.
    pub replaced_by: Option<KeyId>,
}

impl ApiKey {
    /// Whether it is neither revoked nor expired. It may be paused.
    pub(crate) fn is_usable(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && !self.has_expired(now)
    }

    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

/// A change of a key. What is `None` stays as it is.
#[derive(Debug, Default)]
pub struct KeyChange {
    pub name: Option<String>,
    pub is_active: Option<bool>,
    pub expires_at: Option<Option<Timestamp>>,
    pub scopes: Option<Scopes>,
    pub rate_limit: Option<Option<Rate>>,
    pub external_id: Option<Option<String>>,
    pub metadata: Option<Option<Metadata>>,
    pub allowed_ips: Option<Option<AllowedIps>>,
}

impl KeyChange {
    pub(crate) fn apply(&self, key: &mut ApiKey) {
        if let Some(name) = &self.name {
            key.name.clone_from(name);
        }
        key.is_active = self.is_active.unwrap_or(key.is_active);
        key.expires_at = self.expires_at.unwrap_or(key.expires_at);
        if let Some(scopes) = &self.scopes {
            key.scopes.clone_from(scopes);
        }
        key.rate_limit = self.rate_limit.unwrap_or(key.rate_limit);
        if let Some(external_id) = &self.external_id {
            key.external_id.clone_from(external_id);
        }
        if let Some(metadata) = &self.metadata {
            key.metadata.clone_from(metadata);
        }
        if let Some(allowed_ips) = &self.allowed_ips {
            key.allowed_ips.clone_from(allowed_ips);
        }
    }

    /// The names of the settings that it changes.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let named = [
            ("name", self.name.is_some()),
            ("isActive", self.is_active.is_some()),
            ("expiresAt", self.expires_at.is_some()),
            ("scopes", self.scopes.is_some()),
            ("rateLimit", self.rate_limit.is_some()),
            ("externalId", self.external_id.is_some()),
            ("metadata", self.metadata.is_some()),
            ("allowedIps", self.allowed_ips.is_some()),
        ];
        named.into_iter().filter(|(_, is_named)| *is_named).map(|(name, _)| name).collect()
    }
}

/// What a rotation needs for the new key. The settings come from the old one.
pub struct KeyDraft {
    pub id: KeyId,
    pub hash: KeyHash,
    pub hint: String,
    pub created_at: Timestamp,
}

/// Why a key was not made, changed or replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    /// The owner has no such key, or there is no such active owner.
    Gone,
    /// With the key that a rotation has made in its place, if there is one.
    Revoked(Option<KeyId>),
    /// It has been rotated, so its end is set. The key that replaces it is named.
    Replaced(KeyId),
    Expired,
    /// The owner has as many keys as they may have: this many.
    TooMany(u32),
    /// The owner lacks these scopes, so their key cannot have them.
    NotGranted(Scopes),
}

/// A stored key, as far as it matters when a client presents it.
#[derive(Clone, Debug)]
pub struct KnownKey {
    pub id: KeyId,
    pub owner: UserId,
    pub email: Arc<str>,
    pub name: String,
    /// Neither paused nor revoked.
    pub is_active: bool,
    pub is_revoked: bool,
    pub owner_is_active: bool,
    /// Of the owner's address.
    pub email_verified: bool,
    /// The owner has to verify their address before the key is good.
    pub owner_awaits_verification: bool,
    pub expires_at: Option<Timestamp>,
    /// Those of the key's scopes that its owner has too.
    pub scopes: Scopes,
    pub rate_limit: Option<Rate>,
    pub external_id: Option<String>,
    pub metadata: Option<Metadata>,
    pub allowed_ips: Option<AllowedIps>,
    pub created_at: Timestamp,
}

impl KnownKey {
    /// The outcome of presenting the key now, apart from its rate limit. Computed at every use, whether the key was in
    /// memory or just read.
    pub(crate) fn outcome(&self, demand: Demand<'_>, now: Timestamp) -> Outcome {
        let Demand { scopes, narrowed, .. } = demand;
        let is_on = (self.is_active && !self.owner_awaits_verification) || (demand.even_paused && !self.is_revoked);
        if !is_on || !self.owner_is_active {
            Outcome::Disabled
        } else if self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            Outcome::Expired
        } else if self.allowed_ips.as_ref().is_some_and(|allowed| !demand.comes_from(allowed)) {
            Outcome::ForbiddenAddress
        } else if !self.scopes.cover(scopes) || narrowed.is_some_and(|narrowed| !narrowed.cover(scopes)) {
            Outcome::InsufficientScope
        } else {
            Outcome::Allowed
        }
    }
}

/// What a presented key is needed for.
#[derive(Clone, Copy)]
pub(crate) struct Demand<'a> {
    /// The scopes that the key needs, all of them.
    pub scopes: &'a Scopes,
    /// For a token that was derived from the key: the scopes that the token has of the key's.
    pub narrowed: Option<&'a Scopes>,
    /// Whether this use counts against the key's rate limit.
    pub limited: bool,
    /// Whether a paused key is accepted.
    pub even_paused: bool,
    /// The client's address. `None`: it is not known.
    pub client: Option<IpAddr>,
    /// Whether the key is accepted from every address.
    pub from_anywhere: bool,
}

impl Demand<'_> {
    fn comes_from(&self, allowed: &AllowedIps) -> bool {
        self.from_anywhere || self.client.is_some_and(|client| allowed.contain(client))
    }
}

impl Cacheable for KnownKey {
    fn ids(&self) -> [Uuid; 2] {
        [self.id.0, self.owner.0]
    }

    fn text_bytes(&self) -> usize {
        self.name.len()
            + self.email.len()
            + self.scopes.as_str().len()
            + self.external_id.as_ref().map_or(0, String::len)
            + self.metadata.as_ref().map_or(0, |metadata| metadata.as_str().len())
            + self.allowed_ips.as_ref().map_or(0, AllowedIps::bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_key_has_a_hash_of_its_own(one in "sk_[0-9a-f]{64}", other in "sk_[0-9a-f]{64}") {
            let hash = |key: &str| KeyHash::of(key.as_bytes());
            prop_assert!(hash(&one).is_some());
            prop_assert_eq!(hash(&one) == hash(&other), one == other);
        }

        #[test]
        fn one_wrong_byte_anywhere_makes_it_no_key(key in "sk_[0-9a-f]{64}", at in 0..67_usize, byte: u8) {
            let mut bytes = key.into_bytes();
            bytes[at] = byte;
            let prefixed = bytes.starts_with(b"sk_");
            let digits = bytes[3..].iter().all(|b| b"0123456789abcdef".contains(b));
            prop_assert_eq!(KeyHash::of(&bytes).is_some(), prefixed && digits);
        }

        #[test]
        fn bytes_of_another_length_are_no_key(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(bytes.len() == 67 || KeyHash::of(&bytes).is_none());
        }
    }

    /// A key without anything that it need not have.
    fn known() -> KnownKey {
        KnownKey {
            id: KeyId::new(),
            owner: UserId::new(),
            email: "ann@example.com".into(),
            name: "ci".to_string(),
            is_active: true,
            is_revoked: false,
            owner_is_active: true,
            email_verified: false,
            owner_awaits_verification: false,
            expires_at: None,
            scopes: Scopes::default(),
            rate_limit: None,
            external_id: None,
            metadata: None,
            allowed_ips: None,
            created_at: Timestamp::EPOCH,
        }
    }

    #[test]
    fn what_is_remembered_of_a_key_counts_all_that_its_owner_may_make_long() {
        let metadata = serde_json::from_str("{\"a\":\"0123456789\"}").unwrap();
        let key = KnownKey {
            name: "n".repeat(100),
            scopes: Scopes::parse(&["a:b", "c"]).unwrap(),
            external_id: Some("e".repeat(30)),
            metadata: Metadata::new(metadata).ok(),
            allowed_ips: AllowedIps::parse(&["10.0.0.0/8"; 50]).ok(),
            ..known()
        };
        let addresses = 50 * size_of::<crate::base::network::Network>();
        assert_eq!((known().text_bytes(), key.text_bytes()), (15 + 2, 15 + 100 + 5 + 30 + 18 + addresses));
    }

    #[test]
    fn an_address_is_compared_only_for_a_key_that_names_some_and_before_its_scopes() {
        let (none, needed) = (Scopes::default(), Scopes::parse(&["a"]).unwrap());
        let (home, away) = (Some(IpAddr::from([10, 0, 0, 1])), Some(IpAddr::from([11, 0, 0, 1])));
        let tens = AllowedIps::parse(&["10.0.0.0/8"]).ok();
        for (allowed_ips, is_active, client, from_anywhere, scopes, expected) in [
            (&None, true, None, false, &none, Outcome::Allowed),
            (&tens, true, home, false, &none, Outcome::Allowed),
            (&tens, true, away, false, &none, Outcome::ForbiddenAddress),
            (&tens, true, None, false, &none, Outcome::ForbiddenAddress),
            (&tens, true, away, true, &none, Outcome::Allowed),
            (&tens, true, None, true, &none, Outcome::Allowed),
            (&tens, true, away, false, &needed, Outcome::ForbiddenAddress),
            (&tens, true, home, false, &needed, Outcome::InsufficientScope),
            (&tens, false, away, false, &none, Outcome::Disabled),
        ] {
            let key = KnownKey { allowed_ips: allowed_ips.clone(), is_active, ..known() };
            let demand = Demand { scopes, narrowed: None, limited: true, even_paused: false, client, from_anywhere };
            assert_eq!(key.outcome(demand, Timestamp::EPOCH), expected, "{allowed_ips:?} {client:?}");
        }
    }

    #[test]
    fn a_generated_key_is_well_formed_and_its_hint_tells_no_more_than_eight_digits() {
        for prefix in ["sk", "acme_live"] {
            let key = KeySecret::generate(&KeyPrefix::parse(prefix).unwrap()).unwrap();
            assert!(KeyHash::of(key.expose().as_bytes()).is_some());
            let digits = &key.expose()[prefix.len() + 1..][..64];
            assert_eq!(key.hint(), format!("{prefix}_{}…{}", &digits[..4], &digits[60..]));
        }
    }

    #[test]
    fn what_does_not_look_like_a_key_is_none() {
        let digits = "0123456789abcdef".repeat(4);
        assert!(KeyHash::of(format!("sk_{digits}").as_bytes()).is_some());
        for key in [
            String::new(),
            "sk_".to_string(),
            digits.clone(),
            format!("sk_{}", digits.to_uppercase()),
            format!("SK_{digits}"),
            format!("sk_{digits}0"),
            format!("sk_{}", &digits[1..]),
            format!("sk_{}g", &digits[1..]),
        ] {
            assert!(KeyHash::of(key.as_bytes()).is_none(), "{key}");
        }
    }
}
