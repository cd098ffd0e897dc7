//! What keys need of a database.
//!
//! Every method is one transaction: done as a whole when it returns `Ok`, not at all or unknown when it returns an
//! error. A method with a parameter `by` records an [`crate::audit::event::Event`] of what it changes in the same
//! transaction; if it changes nothing, it records none. A method that changes whether a key, a session or a user is good
//! notes it in [`crate::memory::changes::Changes`] before it returns, whatever it returns, and tells the other instances.
//! Any method returns `Unavailable` if the database cannot be reached; only other outcomes are documented at the methods.

use crate::audit::event::By;
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::{KeyId, UserId};
use crate::keys::key::{ApiKey, KeyChange, KeyDraft, KeyHash, KeyRefusal, KnownKey};
use crate::keys::rules::Replacement;
use crate::keys::usage::HourOfUse;

/// Keys.
pub trait KeyStore: Send + Sync {
    /// Stores a key of an active owner's, as long as they have fewer than `most` that are neither revoked nor expired. Of
    /// those who ask at once, no more succeed than may. Where more than [`crate::keys::key::most_ended`] of theirs have ended, those that
    /// ended first are deleted; so it is wherever a key is made or ended.
    fn create_key(
        &self,
        key: &ApiKey,
        hash: &KeyHash,
        most: u32,
        by: &By,
    ) -> Result<Result<(), KeyRefusal>, StoreError>;

    /// Changes a key of the owner's. A revoked one stays as it is; a replaced one may only expire earlier; one that has
    /// expired comes back only if he has fewer than `most`, as for [`Store::create_key`].
    fn update_key(
        &self,
        owner: UserId,
        id: KeyId,
        change: &KeyChange,
        by: &By,
        now: Timestamp,
        most: u32,
    ) -> Result<Result<(), KeyRefusal>, StoreError>;

    /// Makes a key with the settings of one of the owner's, which is replaced by it and expires at `grace_end`, if not
    /// before. A key is replaced once. Up to `most` of his may be in their grace. Gives the new key, and when the old one
    /// expires.
    fn rotate_key(
        &self,
        owner: UserId,
        id: KeyId,
        draft: &KeyDraft,
        grace_end: Timestamp,
        most: u32,
        by: &By,
    ) -> Result<Result<Replacement, KeyRefusal>, StoreError>;

    /// A key of the owner's, with how often it was allowed in the hours from `since` on.
    fn key_of(&self, owner: UserId, id: KeyId, since: Timestamp) -> Result<Option<(ApiKey, u64)>, StoreError>;

    /// The owner's keys, newest first, each as for [`Store::key_of`]. Of more than `limit`, those that are usable `now`
    /// come before those that have ended, then newer ones before older.
    fn keys_of(
        &self,
        owner: UserId,
        since: Timestamp,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<(ApiKey, u64)>, StoreError>;

    /// Up to `limit` of the owner's keys, newest first, from the one after `after`. `None`: they have no such key.
    fn page_of_keys(
        &self,
        owner: UserId,
        after: Option<KeyId>,
        since: Timestamp,
        limit: i64,
    ) -> Result<Option<Vec<(ApiKey, u64)>>, StoreError>;

    /// Up to `limit` keys, of one owner by their age, oldest first, or of all by ascending id, from the one after `after`.
    fn keys(&self, owner: Option<UserId>, after: Option<&ApiKey>, limit: i64) -> Result<Vec<ApiKey>, StoreError>;

    /// Those of these keys that there are, good or not.
    fn keys_by_hash(&self, hashes: &[KeyHash]) -> Result<Vec<(KeyHash, KnownKey)>, StoreError>;

    fn keys_by_id(&self, ids: &[KeyId]) -> Result<Vec<(KeyId, KnownKey)>, StoreError>;

    /// Revokes the key if it belongs to `owner`, or whoever's it is, who may have `most`. False: no such key.
    fn revoke_key(
        &self,
        id: KeyId,
        owner: Option<UserId>,
        by: &By,
        now: Timestamp,
        most: u32,
    ) -> Result<bool, StoreError>;

    /// Deletes up to a thousand keys that ended before `before`. False: there were none.
    fn prune_keys(&self, before: Timestamp) -> Result<bool, StoreError>;

    /// Looks at the keys of some users, `from` the first, and deletes up to a thousand that are too many of one user's
    /// ended ones, as in a database from before there was a bound. Gives the user to go on with; `None`: that was the last.
    fn trim_keys(&self, from: UserId, most: u32, now: Timestamp) -> Result<Option<UserId>, StoreError>;
}

/// Counts of the use of keys.
pub trait UsageStore: Send + Sync {
    /// Adds to what is known of the use of keys; each key and hour is given once. A key that is gone is passed over, and
    /// a time before the known one.
    fn record_uses(&self, uses: &[(KeyId, HourOfUse)]) -> Result<(), StoreError>;

    /// What was counted of the owner's key in the hours from `from` up to `to`. `None`: he has no such key.
    fn usage_of(
        &self,
        owner: UserId,
        key: KeyId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Vec<HourOfUse>>, StoreError>;

    /// Deletes up to a thousand counts of hours before `before`; when a key was used last stays known. False: there were
    /// none.
    fn prune_usage(&self, before: Timestamp) -> Result<bool, StoreError>;
}
