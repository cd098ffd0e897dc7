//! What accounts need of a database.
//!
//! Every method is one transaction: done as a whole when it returns `Ok`, not at all or unknown when it returns an
//! error. A method with a parameter `by` records an [`crate::audit::event::Event`] of what it changes in the same
//! transaction; if it changes nothing, it records none. A method that changes whether a key, a session or a user is good
//! notes it in [`crate::memory::changes::Changes`] before it returns, whatever it returns, and tells the other instances.
//! Any method returns `Unavailable` if the database cannot be reached; only other outcomes are documented at the methods.

use crate::accounts::email::Email;
use crate::accounts::passwords::PasswordHash;
use crate::accounts::rotation::RotationRules;
use crate::accounts::session::{Lifespan, LiveSession, NewSession, Session};
use crate::accounts::user::User;
use crate::audit::event::By;
use crate::base::clock::Timestamp;
use crate::base::error::{Error, StoreError};
use crate::base::id::{SessionId, UserId};

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

/// Users and their passwords.
pub trait UserStore: Send + Sync {
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

    /// How the stored password hashes begin, up to their cost (`$2b$10$`), each beginning once.
    fn hash_prefixes(&self) -> Result<Vec<String>, StoreError>;
}

/// Sessions.
pub trait SessionStore: Send + Sync {
    /// Stores a session if its user is active and still has this password, and puts another hash of it in its place. Of more
    /// than `most` sessions of the user some end (see [`crate::accounts::ending::surplus`]), up to a hundred at once, and of those
    /// that have ended the latest 200 are kept.
    fn open_session(
        &self,
        session: &NewSession,
        password: &PasswordHash,
        rehashed: Option<&PasswordHash>,
        most: u32,
        by: &By,
    ) -> Result<Opened, StoreError>;

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

    /// Deletes up to a thousand sessions that have expired, ended or not. False: there were none.
    fn prune_sessions(&self, now: Timestamp) -> Result<bool, StoreError>;
}
