//! API keys: creating, changing, rotating and revoking them, listing them with their use, and judging them when they
//! are presented.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;

use crate::audit::event::By;
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::{Error, Presenter};
use crate::base::id::{KeyId, UserId};
use crate::base::metadata::Metadata;
use crate::base::period::{HOUR, Period};
use crate::base::sharded::lock;
use crate::keys::allowed_ips::AllowedIps;
use crate::keys::key::{ApiKey, Demand, KeyChange, KeyDraft, KeyHash, KeyRefusal, KeySecret, KnownKey};
use crate::keys::listing::{KeyFilter, KeyPage};
use crate::keys::rules::Replacement;
use crate::keys::scopes::Scopes;
use crate::keys::settings::KeySettings;
use crate::keys::store::KeyStore;
use crate::keys::usage::{Counts, Outcome};
use crate::keys::usage_counter::UsageCounter;
use crate::memory::limiter::{Limiter, Quota, Rate};

/// The most keys that one listing gives.
const LISTED: i64 = 1000;

/// How many keys' rate limits are counted at once.
const LIMITED_KEYS: usize = 128 * 1024;

/// How often a key was presented in the hour or day that begins at `start`.
pub struct UsagePoint {
    pub start: Timestamp,
    pub counts: Counts,
}

/// The result of a rotation: the new key, and when the old one ends.
pub struct Successor {
    pub key: ApiKey,
    pub secret: KeySecret,
    pub old: KeyId,
    pub old_expires_at: Timestamp,
}

/// What a new key is created from.
#[derive(Default)]
pub struct KeySpec {
    pub name: String,
    pub expires_at: Option<Timestamp>,
    pub scopes: Scopes,
    pub rate_limit: Option<Rate>,
    pub external_id: Option<String>,
    pub metadata: Option<Metadata>,
    pub allowed_ips: Option<AllowedIps>,
}

pub struct Keys {
    store: Arc<dyn KeyStore>,
    usage: Arc<UsageCounter>,
    limiter: Limiter,
    settings: KeySettings,
    /// The user with whom [`Keys::trim`] continues.
    trimming: Mutex<UserId>,
    clock: Clock,
}

/// The first user, in the order of their ids.
const FIRST_USER: UserId = UserId(Uuid::nil());

impl Keys {
    pub(crate) fn new(store: Arc<dyn KeyStore>, usage: Arc<UsageCounter>, settings: KeySettings, clock: Clock) -> Keys {
        let trimming = Mutex::new(FIRST_USER);
        Keys { store, usage, limiter: Limiter::new(LIMITED_KEYS), settings, trimming, clock }
    }

    /// Reads `expiresAt`; the error is the rule it breaks.
    pub(crate) fn parse_expiry(&self, text: &str) -> Result<Timestamp, &'static str> {
        const RULE: &str = "must be a date, or an RFC 3339 date and time with an offset, such as 2030-01-31T12:00:00Z";
        let expiry = Timestamp::parse(text).or_else(|| Timestamp::parse_date(text)).ok_or(RULE)?;
        if expiry > self.clock.now() { Ok(expiry) } else { Err("must be in the future") }
    }

    /// Creates a key. The secret is returned here and stored nowhere. `None`: the owner is gone or inactive.
    pub fn create(&self, owner: UserId, spec: KeySpec, by: &By) -> Result<Option<(ApiKey, KeySecret)>, Error> {
        let KeySpec { name, expires_at, scopes, rate_limit, external_id, metadata, allowed_ips } = spec;
        let (secret, hash) = self.new_secret()?;
        let key = ApiKey {
            id: KeyId::new(),
            owner,
            name,
            hint: secret.hint(),
            is_active: true,
            expires_at,
            scopes,
            rate_limit,
            external_id,
            metadata,
            allowed_ips,
            last_used_at: None,
            created_at: self.clock.now(),
            revoked_at: None,
            replaced_by: None,
        };
        match self.store.create_key(&key, &hash, self.settings.max_keys, by)? {
            Ok(()) => Ok(Some((key, secret))),
            Err(KeyRefusal::Gone) => Ok(None),
            Err(refusal) => Err(refused(refusal)),
        }
    }

    /// Whose key this is, whatever has become of it.
    pub fn owner_of(&self, id: &str) -> Result<UserId, Error> {
        let found = self.store.keys_by_id(&[self.parse_id(id)?])?;
        found.first().map(|(_, key)| key.owner).ok_or_else(not_found)
    }

    /// Changes one of the owner's keys, and returns it with how often it was allowed in the last 24 hours.
    pub fn change(&self, owner: UserId, id: &str, change: &KeyChange, by: &By) -> Result<(ApiKey, u64), Error> {
        let id = self.parse_id(id)?;
        self.store.update_key(owner, id, change, by, self.clock.now(), self.settings.max_keys)?.map_err(refused)?;
        // A missing key means that the owner has been deleted meanwhile.
        self.read(owner, id)
    }

    /// One of the owner's keys, with how often it was allowed in the last 24 hours.
    pub fn get(&self, owner: UserId, id: &str) -> Result<(ApiKey, u64), Error> {
        self.read(owner, self.parse_id(id)?)
    }

    fn read(&self, owner: UserId, id: KeyId) -> Result<(ApiKey, u64), Error> {
        let read = |since| Ok(self.store.key_of(owner, id, since)?);
        self.counted(read, |key| key.as_mut_slice())?.ok_or_else(not_found)
    }

    /// Replaces one of the owner's keys by a new one with the same settings. The old one ends after the grace period,
    /// or when it expires if that is earlier. Of several concurrent rotations of a key, one succeeds.
    pub fn rotate(&self, owner: UserId, id: &str, grace: Duration, by: &By) -> Result<Successor, Error> {
        let id = self.parse_id(id)?;
        let (secret, hash) = self.new_secret()?;
        let now = self.clock.now();
        let draft = KeyDraft { id: KeyId::new(), hash, hint: secret.hint(), created_at: now };
        let Replacement { key, old_expires_at } =
            self.store.rotate_key(owner, id, &draft, now.plus(grace), self.settings.max_keys, by)?.map_err(refused)?;
        Ok(Successor { key, secret, old: id, old_expires_at })
    }

    /// Judges a key that is presented, spends its rate limit and counts the use.
    pub(crate) fn present(&self, key: &KnownKey, demand: Demand<'_>, now: Timestamp) -> (Outcome, Option<Quota>) {
        let mut outcome = key.outcome(demand, now);
        let quota = told_limit(key, outcome).map(|limit| {
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

    /// Judges a key as [`Keys::present`] does, but spends and counts nothing.
    pub(crate) fn look(&self, key: &KnownKey, demand: Demand<'_>, now: Timestamp) -> (Outcome, Option<Quota>) {
        let outcome = key.outcome(demand, now);
        let quota = told_limit(key, outcome).map(|limit| self.limiter.look(&key.id, limit, self.clock.elapsed()));
        match outcome {
            Outcome::Allowed if quota.is_some_and(|quota| quota.remaining == 0) => (Outcome::RateLimited, quota),
            outcome => (outcome, quota),
        }
    }

    fn new_secret(&self) -> Result<(KeySecret, KeyHash), Error> {
        let secret = KeySecret::generate(&self.settings.prefix)?;
        let hash = KeyHash::of(secret.expose().as_bytes())
            .ok_or_else(|| Error::Internal("a generated key is ill-formed".to_string()))?;
        Ok((secret, hash))
    }

    fn parse_id(&self, id: &str) -> Result<KeyId, Error> {
        KeyId::parse(id).ok_or_else(not_found)
    }

    /// The owner's keys, newest first, each with how often it was allowed in the last 24 hours. If there are more than
    /// a thousand, ended keys are left out first, the oldest before the others.
    pub fn of_owner(&self, owner: UserId) -> Result<Vec<(ApiKey, u64)>, Error> {
        let read = |since| Ok(self.store.keys_of(owner, since, self.clock.now(), LISTED)?);
        self.counted(read, Vec::as_mut_slice)
    }

    /// A page of up to `limit` of the keys that the filter takes, from the one after `after`. `None`: there is no key
    /// `after`, or the list cannot have it.
    pub fn page(&self, filter: &KeyFilter, after: Option<KeyId>, limit: usize) -> Result<Option<KeyPage>, Error> {
        let read = |since| Ok(self.store.page_of_keys(filter, after, limit, since, self.clock.now())?);
        self.counted(read, |page| page.as_mut().map(|page| &mut *page.keys).unwrap_or_default())
    }

    /// Reads keys with how often each was allowed since a time, and adds the uses that are not written yet.
    fn counted<T>(
        &self,
        read: impl Fn(Timestamp) -> Result<T, Error>,
        keys: impl Fn(&mut T) -> &mut [(ApiKey, u64)],
    ) -> Result<T, Error> {
        // The current hour and the 23 before it.
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

    /// How often the owner's key was presented in each step of the period, in order, without gaps.
    pub fn usage(&self, owner: UserId, id: &str, period: &Period) -> Result<Vec<UsagePoint>, Error> {
        let id = self.parse_id(id)?;
        let read = || self.usage.stored(owner, id, period.start(), period.to);
        let (stored, pending) = self.usage.with_pending(read, |_| vec![id])?;
        let mut series = period.points(|start| UsagePoint { start, counts: Counts::default() });
        let stored = stored.ok_or_else(not_found)?;
        for noted in stored.into_iter().chain(pending.into_iter().flatten()) {
            if let Some(point) = period.point_of(&mut series, noted.hour) {
                point.counts.add_all(&noted.counts);
            }
        }
        Ok(series)
    }

    /// Up to `limit` keys of all users, or of one, from the one after `after`.
    pub fn list(&self, owner: Option<UserId>, after: Option<&ApiKey>, limit: i64) -> Result<Vec<ApiKey>, Error> {
        Ok(self.store.keys(owner, after, limit)?)
    }

    /// Revokes one of the owner's keys; revoking it again succeeds too. For other users the key does not exist.
    pub fn revoke(&self, owner: UserId, id: &str, by: &By) -> Result<(), Error> {
        let id = self.parse_id(id)?;
        self.store
            .revoke_key(id, Some(owner), by, self.clock.now(), self.settings.max_keys)?
            .then_some(())
            .ok_or_else(not_found)
    }

    /// Revokes the key that asks for it. Succeeds too if someone else has revoked or deleted it meanwhile.
    pub(crate) fn revoke_own(&self, key: KeyId, owner: UserId, by: &By) -> Result<(), Error> {
        self.store.revoke_key(key, Some(owner), by, self.clock.now(), self.settings.max_keys)?;
        Ok(())
    }

    /// Revokes a key of any owner. False: there is no such key.
    pub fn revoke_any(&self, id: KeyId, by: &By) -> Result<bool, Error> {
        Ok(self.store.revoke_key(id, None, by, self.clock.now(), self.settings.max_keys)?)
    }

    /// Records of a part of the keys whose time has come that they expire soon or have expired. False: there are no more.
    pub fn tell_of_expiry(&self) -> Result<bool, Error> {
        Ok(self.store.tell_of_expiry(self.clock.now())?)
    }

    /// Deletes a part of the keys that ended longer ago than they are kept. False: there were none.
    pub fn prune(&self) -> Result<bool, Error> {
        Ok(self.store.prune_keys(self.clock.now().minus(self.settings.retention))?)
    }

    /// Goes from user to user and deletes a part of the ended keys that exceed the number that is kept of each user.
    /// Each call continues where the last one stopped. False: all users have been seen.
    pub(crate) fn trim(&self) -> Result<bool, Error> {
        let now = self.clock.now();
        let mut trimming = lock(&self.trimming);
        let next = self.store.trim_keys(*trimming, self.settings.max_keys, now)?;
        *trimming = next.unwrap_or(FIRST_USER);
        Ok(next.is_some())
    }
}

/// A client at a wrong address, who may have stolen the key, does not hear how much it is used.
fn told_limit(key: &KnownKey, outcome: Outcome) -> Option<Rate> {
    key.rate_limit.filter(|_| outcome != Outcome::ForbiddenAddress)
}

const REVOKED: &str = "API key has been revoked, which is final";

fn refused(refusal: KeyRefusal) -> Error {
    match refusal {
        KeyRefusal::Gone => not_found(),
        KeyRefusal::Revoked(None) => Error::Conflict(REVOKED.into()),
        KeyRefusal::Revoked(Some(by)) => Error::KeyReplaced { message: REVOKED, by },
        KeyRefusal::Replaced(by) => {
            let message = "API key has been rotated; it can only be ended earlier than its grace period";
            Error::KeyReplaced { message, by }
        }
        KeyRefusal::Expired => Error::Conflict("API key has expired; give it a later expiresAt first".into()),
        KeyRefusal::TooMany(most) => Error::Conflict(
            format!("Too many API keys, at most {most} may be in use; revoke one that is not needed").into(),
        ),
        KeyRefusal::NotGranted(scopes) => Error::InsufficientScope { scopes: scopes.to_string(), by: Presenter::User },
    }
}

fn not_found() -> Error {
    Error::NotFound("API key not found".into())
}
