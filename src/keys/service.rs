//! What owners and operators do with keys.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;

use crate::audit::event::By;
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::{Challenge, Error, Sent};
use crate::base::id::{KeyId, UserId};
use crate::base::sharded::lock;
use crate::keys::key::{ApiKey, Demand, KeyChange, KeyDraft, KeyHash, KeyRefusal, KeySecret, KnownKey};
use crate::keys::rules::Replacement;
use crate::keys::scopes::Scopes;
use crate::keys::settings::KeySettings;
use crate::keys::store::KeyStore;
use crate::keys::usage::{Counts, HOUR, Outcome};
use crate::keys::usage_counter::UsageCounter;
use crate::memory::limiter::{Limiter, Quota, Rate};

/// The most keys that one listing gives.
const LISTED: i64 = 1000;

/// Keys of whose limits something is spent, as far as is known at once.
const LIMITED_KEYS: usize = 128 * 1024;

/// A span of time in steps of an hour or a day.
pub struct Period {
    pub from: Timestamp,
    pub to: Timestamp,
    pub step: Duration,
}

/// How often a key was presented in the hour or day that begins at `start`.
pub struct UsagePoint {
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
pub struct KeySpec {
    pub name: String,
    pub expires_at: Option<Timestamp>,
    pub scopes: Scopes,
    pub rate_limit: Option<Rate>,
}

pub struct Keys {
    store: Arc<dyn KeyStore>,
    usage: Arc<UsageCounter>,
    limiter: Limiter,
    settings: KeySettings,
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
    pub fn new(store: Arc<dyn KeyStore>, usage: Arc<UsageCounter>, settings: KeySettings, clock: Clock) -> Keys {
        let trimming = Mutex::new(FIRST_USER);
        Keys { store, usage, limiter: Limiter::new(LIMITED_KEYS), settings, trimming, clock }
    }

    /// Reads `expiresAt`; the error is the rule it breaks.
    pub fn parse_expiry(&self, text: &str) -> Result<Timestamp, &'static str> {
        const RULE: &str = "must be a date, or an RFC 3339 date and time with an offset, such as 2030-01-31T12:00:00Z";
        let expiry = Timestamp::parse(text).or_else(|| Timestamp::parse_date(text)).ok_or(RULE)?;
        if expiry > self.clock.now() { Ok(expiry) } else { Err("must be in the future") }
    }

    /// Makes a key. Its secret exists only in what this returns.
    pub fn create(&self, owner: UserId, spec: KeySpec, by: &By) -> Result<(ApiKey, KeySecret), Error> {
        let KeySpec { name, expires_at, scopes, rate_limit } = spec;
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
        match self.store.create_key(&key, &hash, self.settings.max_keys, by)? {
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
            .update_key(owner, id, change, by, self.clock.now(), self.settings.max_keys)?
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
        let Replacement { key, old_expires_at } = self
            .store
            .rotate_key(owner, id, &draft, now.plus(grace), self.settings.max_keys, by)?
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
                format!(
                    "Too many API keys, at most {} may be in use; revoke one that is not needed",
                    self.settings.max_keys
                )
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
    pub fn usage(&self, owner: UserId, id: &str, period: &Period) -> Result<Vec<UsagePoint>, Error> {
        let id = self.parse_id(id)?;
        let (from, to) = (period.from.start_of(period.step), period.to);
        let read = || self.usage.stored(owner, id, from, to);
        let (stored, pending) = self.usage.with_pending(read, |_| vec![id])?;
        let mut series = Vec::new();
        let mut start = from;
        while start < to {
            series.push(UsagePoint { start, counts: Counts::default() });
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
            .revoke_key(id, Some(owner), by, self.clock.now(), self.settings.max_keys)?
            .then_some(())
            .ok_or_else(not_found)
    }

    /// Revokes a key that asks for it itself. Revoked or deleted by someone else between the guard and here, it has ended
    /// all the same.
    pub fn revoke_own(&self, key: KeyId, owner: UserId, by: &By) -> Result<(), Error> {
        self.store.revoke_key(key, Some(owner), by, self.clock.now(), self.settings.max_keys)?;
        Ok(())
    }

    /// Revokes a key, whoever owns it. False: there is no such key.
    pub fn revoke_any(&self, id: KeyId, by: &By) -> Result<bool, Error> {
        Ok(self.store.revoke_key(id, None, by, self.clock.now(), self.settings.max_keys)?)
    }

    /// Forgets some keys that ended long ago. False: there were none.
    pub fn prune(&self) -> Result<bool, Error> {
        Ok(self.store.prune_keys(self.clock.now().minus(self.settings.retention))?)
    }

    /// Looks whether more ended keys of a user are there than are kept, from one user to the next, and forgets some of
    /// them. False: it has been at the last user.
    pub fn trim(&self) -> Result<bool, Error> {
        let now = self.clock.now();
        let mut trimming = lock(&self.trimming);
        let next = self.store.trim_keys(*trimming, self.settings.max_keys, now)?;
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
