//! What keys need of a database.
//!
//! Every method is one transaction: done as a whole when it returns `Ok`, not at all or unknown when it returns an
//! error. A method with a parameter `by` records an [`crate::audit::event::Event`] of what it changes in the same
//! transaction; if it changes nothing, it records none. A method that changes whether a key, a session or a user is
//! good notes it in [`crate::memory::changes::Changes`] before it returns, whatever it returns, and tells the other
//! instances. Any method returns `Unavailable` if the database cannot be reached; only other outcomes are documented at
//! the methods.

use crate::audit::event::By;
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::{KeyId, UserId};
use crate::keys::key::{ApiKey, KeyChange, KeyDraft, KeyHash, KeyRefusal, KnownKey};
use crate::keys::listing::{KeyFilter, KeyPage};
use crate::keys::rules::Replacement;
use crate::keys::usage::HourOfUse;

/// Keys.
pub trait KeyStore: Send + Sync {
    /// Stores a key of an active owner's if [`crate::keys::rules::create`] allows it; calls for one owner wait for each
    /// other. Whenever a key is made or ends, the owner's ended keys beyond [`crate::keys::key::most_ended`] are
    /// deleted, the first to end first.
    fn create_key(
        &self,
        key: &ApiKey,
        hash: &KeyHash,
        most: u32,
        by: &By,
    ) -> Result<Result<(), KeyRefusal>, StoreError>;

    /// Changes a key of the owner's as [`crate::keys::rules::change`] decides.
    fn update_key(
        &self,
        owner: UserId,
        id: KeyId,
        change: &KeyChange,
        by: &By,
        now: Timestamp,
        most: u32,
    ) -> Result<Result<(), KeyRefusal>, StoreError>;

    /// Replaces a key of the owner's as [`crate::keys::rules::rotate`] decides.
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

    /// The owner's keys, newest first, each as for [`KeyStore::key_of`]. If they have more than `limit`, the usable
    /// ones are chosen first, then the newest.
    fn keys_of(
        &self,
        owner: UserId,
        since: Timestamp,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<(ApiKey, u64)>, StoreError>;

    /// Up to `limit` of the keys that the filter takes at this time, from the one after `after`, each as for
    /// [`KeyStore::key_of`]: those of which it names the beginning of the name, but no external id, in the order of
    /// names; others from the newest on. `None`: there is no key `after`, or the list cannot have it.
    fn page_of_keys(
        &self,
        filter: &KeyFilter,
        after: Option<KeyId>,
        limit: usize,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Option<KeyPage>, StoreError>;

    /// Up to `limit` keys from the one after `after`: of one owner, oldest first, or of all owners, by ascending id.
    fn keys(&self, owner: Option<UserId>, after: Option<&ApiKey>, limit: i64) -> Result<Vec<ApiKey>, StoreError>;

    /// The stored keys among `hashes`, whatever their state.
    fn keys_by_hash(&self, hashes: &[KeyHash]) -> Result<Vec<(KeyHash, KnownKey)>, StoreError>;

    /// The stored keys among `ids`, whatever their state.
    fn keys_by_id(&self, ids: &[KeyId]) -> Result<Vec<(KeyId, KnownKey)>, StoreError>;

    /// Revokes the key if it belongs to `owner`; without one, any key. An owner may have `most` keys. False: no such
    /// key.
    fn revoke_key(
        &self,
        id: KeyId,
        owner: Option<UserId>,
        by: &By,
        now: Timestamp,
        most: u32,
    ) -> Result<bool, StoreError>;

    /// Records of up to a hundred keys that they expire soon or have expired, as [`crate::keys::expiry`] decides. Of
    /// several instances, one does it for each key and step. False: there were fewer.
    fn tell_of_expiry(&self, now: Timestamp) -> Result<bool, StoreError>;

    /// Deletes up to a thousand keys that ended before `before`. False: there were none.
    fn prune_keys(&self, before: Timestamp) -> Result<bool, StoreError>;

    /// Deletes up to a thousand ended keys of one user beyond [`crate::keys::key::most_ended`], as there may be in a
    /// database from before there was a bound. Looks for that user from `from` on. Returns the user to go on with;
    /// `None`: that was the last one.
    fn trim_keys(&self, from: UserId, most: u32, now: Timestamp) -> Result<Option<UserId>, StoreError>;
}

/// Counts of the use of keys.
pub trait UsageStore: Send + Sync {
    /// Adds to the counts of use; each key and hour is given once. Counts of a deleted key do no harm. The time of the
    /// last use only moves forward.
    fn record_uses(&self, uses: &[(KeyId, HourOfUse)]) -> Result<(), StoreError>;

    /// What was counted of the owner's key in the hours from `from` up to `to`. `None`: they have no such key.
    fn usage_of(
        &self,
        owner: UserId,
        key: KeyId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Vec<HourOfUse>>, StoreError>;

    /// Deletes up to a thousand counts of hours before `before`, but keeps the time of each key's last use. False:
    /// there were none.
    fn prune_usage(&self, before: Timestamp) -> Result<bool, StoreError>;
}
