//! The store: what it promises, in domain terms. [`sql`] holds every statement once; [`sqlite`] and [`postgres`] own
//! what differs between the two databases.
//!
//! Every method is one transaction: done as a whole when it returns `Ok`, not at all or unknown when it returns an
//! error. A method that is told [`By`] whom writes an [`Event`] of what it changes, in the same transaction; where
//! nothing changes, there is none. A method that changes a verdict on a key, a session or a user notes it in
//! [`crate::memory::changes::Changes`] before it returns, whatever it returns, and tells the other instances. `Unavailable` is any
//! method's answer when the database is away; only what else a caller acts on is said at the method.

pub mod migrate;
pub mod postgres;
pub mod settings;
pub mod sql;
pub mod sqlite;

use crate::accounts::email::Email;
use crate::accounts::passwords::PasswordHash;
use crate::accounts::rotation::RotationRules;
use crate::accounts::session::{Lifespan, LiveSession, NewSession, Session};
use crate::accounts::user::User;
use crate::audit::event::{By, Event, Filter};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, StoreError};
use crate::base::id::{EventId, KeyId, SessionId, UserId};
use crate::keys::key::{ApiKey, KeyChange, KeyDraft, KeyHash, KeyRefusal, KnownKey};
use crate::keys::usage::HourOfUse;
use std::sync::Arc;
use std::sync::mpsc::Sender;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    Done,
    EmailTaken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    Done,
    /// The user is gone or inactive, or his password is another one by now.
    UserChanged,
}

/// Where a refresh left the session.
#[derive(Debug)]
pub enum Rotated {
    /// The session lives and is at this generation.
    At { generation: i64, user: UserId, email: String, expires_at: Timestamp },
    /// The user was not admitted; all is as it was.
    Refused(Error),
    /// Somebody else holds the session too; it has been ended for it.
    Reused,
    /// No such living session, or a generation that it has not reached.
    Gone,
}

pub trait Store: Send + Sync {
    /// Stores a user with his password and, if given, his first session.
    fn create_user(
        &self,
        user: &User,
        password: &PasswordHash,
        session: Option<&NewSession>,
        by: &By,
    ) -> Result<Created, StoreError>;

    fn user(&self, id: UserId) -> Result<Option<User>, StoreError>;

    /// The user and the hash of his password, whether he is active or not.
    fn user_by_email(&self, email: &Email) -> Result<Option<(User, PasswordHash)>, StoreError>;

    /// Up to `limit` users by ascending id, from the one after `after`.
    fn users(&self, after: Option<UserId>, limit: i64) -> Result<Vec<User>, StoreError>;

    /// Deactivating ends the user's sessions. False: no such user.
    fn set_user_active(&self, id: UserId, active: bool, by: &By, now: Timestamp) -> Result<bool, StoreError>;

    /// Ends the user's sessions. False: no such user.
    fn set_password(&self, id: UserId, password: &PasswordHash, by: &By, now: Timestamp) -> Result<bool, StoreError>;

    /// The hash of an active user's password.
    fn password_of(&self, id: UserId) -> Result<Option<PasswordHash>, StoreError>;

    /// Puts a new password in the place of the one it is, ends all of the user's sessions, and opens this one. False: the
    /// user is gone or inactive, or their password is another one by now.
    fn change_password(
        &self,
        id: UserId,
        old: &PasswordHash,
        new: &PasswordHash,
        session: &NewSession,
        by: &By,
    ) -> Result<bool, StoreError>;

    /// Deletes the user; with a password, only if it still is theirs. The account is gone then, with its sessions and keys,
    /// for everyone; their rows stay until [`Store::sweep`] deletes them. False: no such user.
    fn delete_user(
        &self,
        id: UserId,
        password: Option<&PasswordHash>,
        by: &By,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Deletes up to some thousand rows of what users who were deleted have left. False: there was nothing.
    fn sweep(&self) -> Result<bool, StoreError>;

    /// Stores a session if its user is active and still has this password, and puts another hash of it in its place. Of more
    /// than `most` sessions of the user some end (see [`crate::accounts::session::surplus`]), up to a hundred at once, and of those
    /// that have ended the latest 200 are kept.
    fn open_session(
        &self,
        session: &NewSession,
        password: &PasswordHash,
        rehashed: Option<&PasswordHash>,
        most: u32,
        by: &By,
    ) -> Result<Opened, StoreError>;

    /// How the stored password hashes begin, up to their cost (`$2b$10$`), each beginning once.
    fn hash_prefixes(&self) -> Result<Vec<String>, StoreError>;

    /// Those of these sessions that have not ended and whose user is active. Expiry is the caller's to judge.
    fn live_sessions(&self, ids: &[SessionId]) -> Result<Vec<(SessionId, LiveSession)>, StoreError>;

    /// Does with a living session what the refresh token of this generation means by the rules (see
    /// [`crate::accounts::rotation::Rotation::judge`]), one after the other however many ask at once. A session that moves lives on for
    /// as long as `lifespan` has it. Times are those of the store's own clock, where it has one. `admit` is asked before
    /// something is written for the user, unless it ends the session.
    fn rotate_session(
        &self,
        id: SessionId,
        generation: i64,
        lifespan: &Lifespan,
        rules: &RotationRules,
        admit: &dyn Fn(UserId) -> Result<(), Error>,
        by: &By,
    ) -> Result<Rotated, StoreError>;

    /// Up to `limit` sessions of the user that have neither ended nor expired, newest first.
    fn sessions_of(&self, user: UserId, now: Timestamp, limit: i64) -> Result<Vec<Session>, StoreError>;

    /// Where the user's sessions were opened, as far as they are kept: up to `limit` of those that live, and as many of those
    /// that have ended, the latest of each.
    fn addresses_of(&self, user: UserId, limit: i64) -> Result<Vec<String>, StoreError>;

    /// Ends a session of the user's. False: he has no such session, or it has ended or expired already.
    fn end_session(&self, id: SessionId, user: UserId, by: &By, now: Timestamp) -> Result<bool, StoreError>;

    /// Ends all sessions of the user but `kept`, as many as there may be. False, and none ends: that one has itself ended.
    fn end_other_sessions(&self, user: UserId, kept: SessionId, by: &By, now: Timestamp) -> Result<bool, StoreError>;

    /// When something happened last, by what is kept of it. `None`: nothing is.
    fn latest(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Deletes up to a thousand sessions that have expired, ended or not. False: there were none.
    fn prune_sessions(&self, now: Timestamp) -> Result<bool, StoreError>;

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
    ) -> Result<Result<(ApiKey, Timestamp), KeyRefusal>, StoreError>;

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

    /// Writes events of failures; one that is there already adds its count.
    fn record_failures(&self, failures: &[Event]) -> Result<(), StoreError>;

    /// Up to `limit` events of the user's account, newest first, from the one before `before`; none if that is no event
    /// of his.
    fn events_of(&self, user: UserId, before: Option<EventId>, limit: i64) -> Result<Vec<Event>, StoreError>;

    /// Up to `limit` events that pass the filter, oldest first, from the one after `after`.
    fn events(
        &self,
        filter: &Filter,
        after: Option<(Timestamp, EventId)>,
        limit: i64,
    ) -> Result<Vec<Event>, StoreError>;

    /// Deletes up to a thousand events from before `before`. False: there were none.
    fn prune_events(&self, before: Timestamp) -> Result<bool, StoreError>;

    /// Notes what other instances and processes change, on a thread of its own, as long as the store lives. Without it
    /// a change made elsewhere takes effect when what is remembered has grown too old. Should the database be lost, the
    /// line that says so goes to `lost`, and nothing more is noted.
    fn watch(self: Arc<Self>, lost: Sender<String>);
}
