//! API keys: what one looks like, how it is kept, and what its owner does with it.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest;
use rand::TryRng;
use rand::rngs::SysRng;
use uuid::Uuid;

use crate::cache::Subject;
use crate::clock::{Clock, Timestamp};
use crate::error::{Challenge, Error, Sent};
use crate::event::By;
use crate::id::{KeyId, UserId};
use crate::limit::{Limiter, Quota, Rate};
use crate::principal::Service;
use crate::scope::Scopes;
use crate::sharded::lock;
use crate::store::Store;
use crate::usage::{Counts, HOUR, Outcome, Usage};

const PREFIX: &str = "sk_";
const HEX_DIGITS: usize = 64;

/// The most keys that one listing gives.
const LISTED: i64 = 1000;

/// How many keys that have ended are kept of one who may have `most` that have not.
pub fn most_ended(most: u32) -> i64 {
    10 * i64::from(most)
}

/// What a key's rate limit may be.
pub const MOST_IN_A_WINDOW: u32 = 1_000_000;
pub const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// Keys of whose limits something is spent, as far as is known at once.
const LIMITED_KEYS: usize = 128 * 1024;

/// A new key in clear. It is shown once; printing it shows nothing.
pub struct KeySecret(String);

impl KeySecret {
    /// `sk_` and 256 bits from the system's random source, as 64 hexadecimal digits.
    fn generate() -> Result<KeySecret, Error> {
        let mut bytes = [0; HEX_DIGITS / 2];
        SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| Error::Internal(format!("the system's random source: {error}")))?;
        Ok(KeySecret(format!("{PREFIX}{}", hex::encode(bytes))))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `sk_1a2b…9f0e`: enough to tell keys apart, of no use to anyone who guesses.
    fn hint(&self) -> String {
        let digits = &self.0[PREFIX.len()..];
        format!("{PREFIX}{}…{}", &digits[..4], &digits[HEX_DIGITS - 4..])
    }
}

/// SHA-256 of a key, the only form in which it is kept. A key has 256 random bits: a slow hash would protect nothing
/// more. Lookups compare hashes, so the time they take says nothing about a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// `None`: it does not look like a key.
    pub fn of(key: &[u8]) -> Option<KeyHash> {
        let digits = key.strip_prefix(PREFIX.as_bytes())?;
        let well_formed =
            digits.len() == HEX_DIGITS && digits.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
        if !well_formed {
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
    pub last_used_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// Final, unlike a pause (`is_active`).
    pub revoked_at: Option<Timestamp>,
    /// The key that a rotation made in its place; this one lives on until it expires.
    pub replaced_by: Option<KeyId>,
}

impl ApiKey {
    /// Whether it is good, or would be if it were not paused.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && !self.has_expired(now)
    }

    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

/// What is to be changed of a key; what is `None` stays.
#[derive(Debug, Default)]
pub struct KeyChange {
    pub name: Option<String>,
    pub is_active: Option<bool>,
    pub expires_at: Option<Option<Timestamp>>,
    pub scopes: Option<Scopes>,
    pub rate_limit: Option<Option<Rate>>,
}

impl KeyChange {
    pub fn apply(&self, key: &mut ApiKey) {
        if let Some(name) = &self.name {
            key.name.clone_from(name);
        }
        key.is_active = self.is_active.unwrap_or(key.is_active);
        key.expires_at = self.expires_at.unwrap_or(key.expires_at);
        if let Some(scopes) = &self.scopes {
            key.scopes.clone_from(scopes);
        }
        key.rate_limit = self.rate_limit.unwrap_or(key.rate_limit);
    }

    /// The settings that it names.
    pub fn names(&self) -> Vec<&'static str> {
        let named = [
            ("name", self.name.is_some()),
            ("isActive", self.is_active.is_some()),
            ("expiresAt", self.expires_at.is_some()),
            ("scopes", self.scopes.is_some()),
            ("rateLimit", self.rate_limit.is_some()),
        ];
        named.into_iter().filter(|(_, is_named)| *is_named).map(|(name, _)| name).collect()
    }
}

/// A key to be made with the settings of another one.
pub struct KeyDraft {
    pub id: KeyId,
    pub hash: KeyHash,
    pub hint: String,
    pub created_at: Timestamp,
}

/// Why a key was not made, changed or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    /// The owner has no such key, or there is no such active owner.
    Gone,
    Revoked,
    /// It has been rotated, and its end is set.
    Replaced,
    Expired,
    /// The owner has as many as he may.
    TooMany,
}

/// What is known of a key that someone presents.
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
    pub expires_at: Option<Timestamp>,
    pub scopes: Scopes,
    pub rate_limit: Option<Rate>,
    pub created_at: Timestamp,
}

impl KnownKey {
    /// What is to be said to whoever presents it at this moment, as far as its limit allows; asked at every use, however
    /// the key is known.
    pub fn outcome(&self, demand: Demand<'_>, now: Timestamp) -> Outcome {
        let Demand { scopes, narrowed, .. } = demand;
        let is_on = self.is_active || (demand.even_paused && !self.is_revoked);
        if !is_on || !self.owner_is_active {
            Outcome::Disabled
        } else if self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            Outcome::Expired
        } else if !self.scopes.cover(scopes) || narrowed.is_some_and(|narrowed| !narrowed.cover(scopes)) {
            Outcome::InsufficientScope
        } else {
            Outcome::Allowed
        }
    }
}

/// What is asked of a key that is presented.
#[derive(Clone, Copy)]
pub struct Demand<'a> {
    /// All of these.
    pub scopes: &'a Scopes,
    /// It is presented by a token that has only these of its scopes.
    pub narrowed: Option<&'a Scopes>,
    /// Whether it spends its limit, and is refused when there is none left.
    pub limited: bool,
    /// Whether a paused one will do.
    pub even_paused: bool,
}

impl Subject for KnownKey {
    fn ids(&self) -> [Uuid; 2] {
        [self.id.0, self.owner.0]
    }

    fn text_bytes(&self) -> usize {
        self.name.len() + self.email.len() + self.scopes.as_str().len()
    }
}

/// A span of time in steps of an hour or a day.
pub struct Period {
    pub from: Timestamp,
    pub to: Timestamp,
    pub step: Duration,
}

/// How often a key was presented in the hour or day that begins at `start`.
pub struct Presented {
    pub start: Timestamp,
    pub counts: Counts,
}

/// What a rotation made: the new key, and when the old one ends.
pub struct Successor {
    pub key: ApiKey,
    pub secret: KeySecret,
    pub old: KeyId,
    pub old_expires_at: Timestamp,
}

/// What a new key is to be.
pub struct KeySettings {
    pub name: String,
    pub expires_at: Option<Timestamp>,
    pub scopes: Scopes,
    pub rate_limit: Option<Rate>,
}

/// What the operator has decided.
#[derive(Clone, Copy, Debug)]
pub struct KeyRules {
    /// Keys that one owner may have, not counting those that have ended.
    pub most: u32,
    /// How long one that has ended is kept.
    pub retention: Duration,
}

pub struct Keys {
    store: Arc<dyn Store>,
    usage: Arc<Usage>,
    limiter: Limiter,
    rules: KeyRules,
    /// The user with whom [`Keys::trim`] goes on.
    trimming: Mutex<UserId>,
    clock: Clock,
}

/// A page of keys, each with how often it was allowed in the last 24 hours.
pub struct KeyPage {
    pub keys: Vec<(ApiKey, u64)>,
    /// Whether there are further ones.
    pub more: bool,
}

/// The first user, in the order of their ids.
const FIRST_USER: UserId = UserId(Uuid::nil());

impl Keys {
    pub fn new(store: Arc<dyn Store>, usage: Arc<Usage>, rules: KeyRules, clock: Clock) -> Keys {
        let trimming = Mutex::new(FIRST_USER);
        Keys { store, usage, limiter: Limiter::new(LIMITED_KEYS), rules, trimming, clock }
    }

    /// Reads `expiresAt`; the error is the rule it breaks.
    pub fn parse_expiry(&self, text: &str) -> Result<Timestamp, &'static str> {
        const RULE: &str = "must be a date, or an RFC 3339 date and time with an offset, such as 2030-01-31T12:00:00Z";
        let expiry = Timestamp::parse(text).or_else(|| Timestamp::parse_date(text)).ok_or(RULE)?;
        if expiry > self.clock.now() { Ok(expiry) } else { Err("must be in the future") }
    }

    /// Makes a key. Its secret exists only in what this returns.
    pub fn create(&self, owner: UserId, settings: KeySettings, by: &By) -> Result<(ApiKey, KeySecret), Error> {
        let KeySettings { name, expires_at, scopes, rate_limit } = settings;
        let (secret, hash) = new_secret()?;
        let key = ApiKey {
            id: KeyId::new(),
            owner,
            name,
            hint: secret.hint(),
            is_active: true,
            expires_at,
            scopes,
            rate_limit,
            last_used_at: None,
            created_at: self.clock.now(),
            revoked_at: None,
            replaced_by: None,
        };
        match self.store.create_key(&key, &hash, self.rules.most, by)? {
            Ok(()) => Ok((key, secret)),
            // Deleted or deactivated between the guard and here.
            Err(KeyRefusal::Gone) => {
                Err(Error::unauthorized(Challenge { token: Some(Sent::Yes), key: false, basic: false }))
            }
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// Changes a key of this owner's, and gives it with how often it was allowed in the last 24 hours.
    pub fn change(&self, owner: UserId, id: &str, change: &KeyChange, by: &By) -> Result<(ApiKey, u64), Error> {
        let id = self.parse_id(id)?;
        self.store
            .update_key(owner, id, change, by, self.clock.now(), self.rules.most)?
            .map_err(|refusal| self.refused(refusal))?;
        // Revoked keys stay, deleted ones go with their owner.
        let read = |since| Ok(self.store.key_of(owner, id, since)?);
        self.counted(read, |key| key.as_mut_slice())?.ok_or_else(not_found)
    }

    /// Makes a key with the same settings in the place of one of this owner's, which lives on for the grace, or until it
    /// expires by itself. However many ask at once, one of them gets the new key.
    pub fn rotate(&self, owner: UserId, id: &str, grace: Duration, by: &By) -> Result<Successor, Error> {
        let id = self.parse_id(id)?;
        let (secret, hash) = new_secret()?;
        let now = self.clock.now();
        let draft = KeyDraft { id: KeyId::new(), hash, hint: secret.hint(), created_at: now };
        let (key, old_expires_at) = self
            .store
            .rotate_key(owner, id, &draft, now.plus(grace), self.rules.most, by)?
            .map_err(|refusal| self.refused(refusal))?;
        Ok(Successor { key, secret, old: id, old_expires_at })
    }

    /// Judges a key that is presented, counts that, and spends its limit.
    pub fn present(&self, key: &KnownKey, demand: Demand<'_>, now: Timestamp) -> (Outcome, Option<Quota>) {
        let mut outcome = key.outcome(demand, now);
        let quota = key.rate_limit.map(|limit| {
            let elapsed = self.clock.elapsed();
            if outcome != Outcome::Allowed || !demand.limited {
                return self.limiter.look(&key.id, limit, elapsed);
            }
            self.limiter.spend(&key.id, limit, elapsed).unwrap_or_else(|quota| {
                outcome = Outcome::RateLimited;
                quota
            })
        });
        self.usage.note(key.id, outcome, now);
        (outcome, quota)
    }

    fn parse_id(&self, id: &str) -> Result<KeyId, Error> {
        KeyId::parse(id).ok_or_else(not_found)
    }

    fn refused(&self, refusal: KeyRefusal) -> Error {
        match refusal {
            KeyRefusal::Gone => not_found(),
            KeyRefusal::Revoked => Error::Conflict("API key has been revoked, which is final".into()),
            KeyRefusal::Replaced => {
                Error::Conflict("API key has been rotated; it can only be ended earlier than its grace period".into())
            }
            KeyRefusal::Expired => Error::Conflict("API key has expired; give it a later expiresAt first".into()),
            KeyRefusal::TooMany => Error::Conflict(
                format!("Too many API keys, at most {} may be in use; revoke one that is not needed", self.rules.most)
                    .into(),
            ),
        }
    }

    /// The owner's keys, newest first, each with how often it was allowed in the last 24 hours. Of more than a thousand
    /// the oldest that have ended are left out first.
    pub fn of_owner(&self, owner: UserId) -> Result<Vec<(ApiKey, u64)>, Error> {
        let read = |since| Ok(self.store.keys_of(owner, since, self.clock.now(), LISTED)?);
        self.counted(read, Vec::as_mut_slice)
    }

    /// Up to `limit` of the owner's keys, newest first, from the one after `after`. `None`: they have no such key.
    pub fn page(&self, owner: UserId, after: Option<KeyId>, limit: usize) -> Result<Option<KeyPage>, Error> {
        // One more tells whether there are more.
        let read = |since| Ok(self.store.page_of_keys(owner, after, since, limit as i64 + 1)?);
        let keys = self.counted(read, |keys| keys.as_deref_mut().unwrap_or_default())?;
        Ok(keys.map(|mut keys| {
            let more = keys.len() > limit;
            keys.truncate(limit);
            KeyPage { keys, more }
        }))
    }

    /// Reads keys and how often each was allowed since some moment, and adds what is not written yet.
    fn counted<T>(
        &self,
        read: impl Fn(Timestamp) -> Result<T, Error>,
        keys: impl Fn(&mut T) -> &mut [(ApiKey, u64)],
    ) -> Result<T, Error> {
        // The hour that is running, and the 23 before it.
        let since = self.clock.now().start_of(HOUR).minus(23 * HOUR);
        let ids = |found: &mut T| keys(found).iter().map(|(key, _)| key.id).collect();
        let (mut found, pending) = self.usage.with_pending(|| read(since), ids)?;
        for ((key, count), pending) in keys(&mut found).iter_mut().zip(pending) {
            for noted in pending {
                key.last_used_at = key.last_used_at.max(noted.last_allowed);
                if noted.hour >= since {
                    *count += noted.counts.of(Outcome::Allowed);
                }
            }
        }
        Ok(found)
    }

    /// How often the owner's key was presented in each hour or day that begins from `from` up to `to`, in order,
    /// without gaps.
    pub fn usage(&self, owner: UserId, id: &str, period: &Period) -> Result<Vec<Presented>, Error> {
        let id = self.parse_id(id)?;
        let (from, to) = (period.from.start_of(period.step), period.to);
        let read = || Ok(self.store.usage_of(owner, id, from, to)?);
        let (stored, pending) = self.usage.with_pending(read, |_| vec![id])?;
        let mut series = Vec::new();
        let mut start = from;
        while start < to {
            series.push(Presented { start, counts: Counts::default() });
            start = start.plus(period.step);
        }
        let stored = stored.ok_or_else(not_found)?;
        for noted in stored.into_iter().chain(pending.into_iter().flatten()) {
            if noted.hour < from || noted.hour >= to {
                continue;
            }
            let steps = (noted.hour.millis() - from.millis()) / period.step.as_millis() as i64;
            if let Some(point) = usize::try_from(steps).ok().and_then(|index| series.get_mut(index)) {
                point.counts.add_all(&noted.counts);
            }
        }
        Ok(series)
    }

    /// Up to `limit` keys of everyone, or of one user, in an order of their own, from the one after `after`.
    pub fn list(&self, owner: Option<UserId>, after: Option<&ApiKey>, limit: i64) -> Result<Vec<ApiKey>, Error> {
        Ok(self.store.keys(owner, after, limit)?)
    }

    /// Revokes a key of this owner's, again if need be. For anyone else it does not exist.
    pub fn revoke(&self, owner: UserId, id: &str, by: &By) -> Result<(), Error> {
        let id = self.parse_id(id)?;
        self.store
            .revoke_key(id, Some(owner), by, self.clock.now(), self.rules.most)?
            .then_some(())
            .ok_or_else(not_found)
    }

    /// Revokes a key that asks for it itself. Revoked or deleted by someone else between the guard and here, it has ended
    /// all the same.
    pub fn revoke_own(&self, service: &Service, by: &By) -> Result<(), Error> {
        let (key, owner) = (service.key.id, service.key.owner);
        self.store.revoke_key(key, Some(owner), by, self.clock.now(), self.rules.most)?;
        Ok(())
    }

    /// Revokes anyone's key, for the operator. False: there is no such key.
    pub fn revoke_any(&self, id: KeyId) -> Result<bool, Error> {
        Ok(self.store.revoke_key(id, None, &By::operator(), self.clock.now(), self.rules.most)?)
    }

    /// Forgets some keys that ended long ago. False: there were none.
    pub fn prune(&self) -> Result<bool, Error> {
        Ok(self.store.prune_keys(self.clock.now().minus(self.rules.retention))?)
    }

    /// Looks whether more ended keys of a user are there than are kept, from one user to the next, and forgets some of
    /// them. False: it has been at the last user.
    pub fn trim(&self) -> Result<bool, Error> {
        let now = self.clock.now();
        let mut trimming = lock(&self.trimming);
        let next = self.store.trim_keys(*trimming, self.rules.most, now)?;
        *trimming = next.unwrap_or(FIRST_USER);
        Ok(next.is_some())
    }
}

fn new_secret() -> Result<(KeySecret, KeyHash), Error> {
    let secret = KeySecret::generate()?;
    let hash = KeyHash::of(secret.expose().as_bytes())
        .ok_or_else(|| Error::Internal("a generated key is ill-formed".to_string()))?;
    Ok((secret, hash))
}

fn not_found() -> Error {
    Error::NotFound("API key not found".into())
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

    #[test]
    fn a_generated_key_is_well_formed_and_its_hint_tells_no_more_than_eight_digits() {
        let key = KeySecret::generate().unwrap();
        assert!(KeyHash::of(key.expose().as_bytes()).is_some());
        let digits = &key.expose()[3..];
        assert_eq!(key.hint(), format!("sk_{}…{}", &digits[..4], &digits[60..]));
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
