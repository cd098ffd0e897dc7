//! What accounts need of a database.
//!
//! Every method is one transaction: done as a whole when it returns `Ok`, not at all or unknown when it returns an
//! error. A method with a parameter `by` records an [`crate::audit::event::Event`] of what it changes in the same
//! transaction; if it changes nothing, it records none. A method that changes whether a key, a session or a user is
//! good notes it in [`crate::memory::changes::Changes`] before it returns, whatever it returns, and tells the other
//! instances. Any method returns `Unavailable` if the database cannot be reached; only other outcomes are documented at
//! the methods.

use std::time::Duration;

use uuid::Uuid;

use crate::accounts::address_change::AddressNews;
use crate::accounts::changing::UserChange;
use crate::accounts::email::Email;
use crate::accounts::failures::{FailureIds, Failures};
use crate::accounts::granting::ScopeChange;
use crate::accounts::one_time::TokenHash;
use crate::accounts::passwords::PasswordHash;
use crate::accounts::purposes::Purpose;
use crate::accounts::refresh::rotation::RotationRules;
use crate::accounts::second_factor::codes::{Code, CodeHash};
use crate::accounts::second_factor::shown::{CodeFault, Confirmed, Shown};
use crate::accounts::session::{Lifespan, LiveSession, NewSession, Session};
use crate::accounts::user::{User, UserFilter};
use crate::audit::event::By;
use crate::base::clock::Timestamp;
use crate::base::data_key::DataKey;
use crate::base::error::{Error, StoreError};
use crate::base::id::{SessionId, UserId};
use crate::tokens::claims::UserClaims;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    Done,
    EmailTaken,
}

/// What became of an operator's change of a user.
#[derive(Clone, Debug)]
pub enum UserChanged {
    /// The user as they are now.
    To(Box<User>),
    NoSuchUser,
    EmailTaken,
    /// It would have taken away the last operator.
    LastOperator,
    /// The rule that it would have broken; it follows the field's name.
    Breaks(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    Done,
    /// Or they have another password.
    NoSuchUser,
    /// It would have taken away the last operator.
    LastOperator,
    /// What was shown for the second factor is not enough.
    Refused(CodeFault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordSet {
    Done,
    NoSuchUser,
    /// It has no password.
    Service,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAdded {
    Done,
    NoSuchUser,
    /// It gets no token.
    Service,
}

/// What became of a wish for another e-mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Done,
    /// The user has asked too often, and may ask again after this time.
    TooOften(Duration),
}

/// What became of a token that verifies an e-mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    Done,
    /// The e-mail that the user wanted is somebody else's by now. Nothing was changed.
    EmailTaken,
    /// The token is not, or the user is inactive. Nothing was changed.
    NotGood,
}

/// What became of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    Done,
    /// Some of the user's keys have been revoked, and the token is still good: go on.
    More,
    /// The token is not, or the user is inactive. Nothing was changed.
    NotGood,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactorBegun {
    Done,
    /// One is on already.
    IsOn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactorEnabled {
    Done,
    NoneBegun,
    /// One is on already.
    IsOn,
    Refused(CodeFault),
    /// Or the user is gone or inactive.
    SessionEnded,
}

/// What a refresh did with the session.
#[derive(Debug)]
pub enum Rotated {
    /// The session lives and is at this generation.
    At { generation: i64, user: UserClaims, expires_at: Timestamp },
    /// The user was not admitted. Nothing was changed.
    Refused(Error),
    /// Somebody else holds the session too, so it was ended.
    Reused,
    /// There is no such session, it has ended or expired, or it never was at this generation.
    Gone,
}

/// Users and their passwords.
pub trait UserStore: Send + Sync {
    /// Stores a user with their password, which may be none, and, if given, their first session. `with_link`: queues the mail
    /// with a link that verifies the e-mail of somebody who has signed up, or that sets the password of somebody who is
    /// invited.
    fn create_user(
        &self,
        user: &User,
        password: &PasswordHash,
        session: Option<&NewSession>,
        with_link: bool,
        by: &By,
    ) -> Result<Created, StoreError>;

    fn user(&self, id: UserId) -> Result<Option<User>, StoreError>;

    /// The user and the hash of their password, whether they are active or not: the one whose e-mail is stored as it is
    /// typed here, or else one whose e-mail is the same address.
    fn user_by_email(&self, email: &Email) -> Result<Option<(User, PasswordHash)>, StoreError>;

    /// The next e-mail after this one that an older account has in another spelling, and up to a thousand users whose
    /// e-mail it is.
    fn respelled(&self, after: &str) -> Result<Option<(String, Vec<User>)>, StoreError>;

    /// Up to `limit` users that pass the filter, from the one after `after`: in the order of their e-mails if the filter
    /// names some, otherwise of their ids. `None`: there is no user `after`, so their e-mail is not known.
    fn users(&self, filter: &UserFilter, after: Option<UserId>, limit: i64) -> Result<Option<Vec<User>>, StoreError>;

    /// Deactivating ends the user's sessions.
    fn change_user(&self, id: UserId, change: &UserChange, by: &By, now: Timestamp) -> Result<UserChanged, StoreError>;

    fn change_scopes(
        &self,
        id: UserId,
        change: &ScopeChange,
        by: &By,
        now: Timestamp,
    ) -> Result<UserChanged, StoreError>;

    /// Ends the user's sessions, and voids their one-time tokens.
    fn set_password(
        &self,
        id: UserId,
        password: &PasswordHash,
        by: &By,
        now: Timestamp,
    ) -> Result<PasswordSet, StoreError>;

    /// The hash of an active user's password.
    fn password_of(&self, id: UserId) -> Result<Option<PasswordHash>, StoreError>;

    /// Replaces the password, ends all of the user's sessions, voids their one-time tokens and opens this session.
    fn change_password(
        &self,
        id: UserId,
        shown: &Shown<'_>,
        new: &PasswordHash,
        session: &NewSession,
        by: &By,
    ) -> Result<Confirmed<()>, StoreError>;

    /// Deletes the user, and asks for nothing if nothing is shown. From then on nobody finds the user, their sessions or
    /// their keys; the rows stay until [`UserStore::delete_rows_of_deleted_users`].
    fn delete_user(
        &self,
        id: UserId,
        shown: Option<&Shown<'_>>,
        by: &By,
        now: Timestamp,
    ) -> Result<Deleted, StoreError>;

    /// Deletes up to some thousand rows that deleted users left. False: there were none.
    fn delete_rows_of_deleted_users(&self) -> Result<bool, StoreError>;

    /// The distinct beginnings of the stored password hashes, up to their cost (`$2b$10$`).
    fn hash_prefixes(&self) -> Result<Vec<String>, StoreError>;
}

/// One-time tokens.
pub trait RecoveryStore: Send + Sync {
    /// Stores a token that sets the user's password. Of their earlier ones the latest two stay good.
    fn add_reset_token(
        &self,
        user: UserId,
        token: &TokenHash,
        expires_at: Timestamp,
        by: &By,
        now: Timestamp,
    ) -> Result<TokenAdded, StoreError>;

    /// Records that somebody says that they have forgotten a password, and queues the mail with a link to `receiver`: the
    /// account's id, or an id that stands for the address where there is no account. The same statements in both cases.
    fn note_forgotten(&self, user: Option<UserId>, receiver: Uuid, by: &By, now: Timestamp) -> Result<(), StoreError>;

    /// Stores a token that is to be mailed, together with the address that it proves, and returns this address. Of the
    /// earlier ones of its kind the latest two stay good. `None`: nobody is to be written to, as
    /// [`crate::accounts::purposes::recipient`] says, or the address that the user wants is somebody else's.
    fn add_mailed_token(
        &self,
        user: UserId,
        purpose: Purpose,
        token: &TokenHash,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError>;

    /// What is still to be told of changes of the user's e-mail.
    fn address_news(&self, user: UserId) -> Result<AddressNews, StoreError>;

    /// This former address was told, or cannot be.
    fn forget_former_address(&self, user: UserId, address: &str) -> Result<(), StoreError>;

    /// The active user whose password the token sets. `None`: it is not good, or no longer.
    fn user_of_reset_token(&self, token: &TokenHash, now: Timestamp) -> Result<Option<UserId>, StoreError>;

    /// Sets the password, ends the user's sessions and voids all their tokens; see also
    /// [`crate::accounts::recovery::ends_keys`].
    fn reset_password(
        &self,
        user: UserId,
        token: &TokenHash,
        password: &PasswordHash,
        by: &By,
        now: Timestamp,
    ) -> Result<Reset, StoreError>;

    /// Deletes up to a thousand tokens that have expired. False: there were none.
    fn prune_tokens(&self, now: Timestamp) -> Result<bool, StoreError>;
}

/// Whose e-mail is which.
pub trait AddressStore: Send + Sync {
    /// Queues a mail with a link that verifies the user's e-mail.
    fn request_verification(&self, user: UserId, now: Timestamp) -> Result<(), StoreError>;

    /// Queues a mail with a link to the e-mail that the user wants, and one to the e-mail that they have, if
    /// [`crate::accounts::address_change::AddressChange::ask`] lets them.
    fn request_address_change(
        &self,
        user: UserId,
        shown: &Shown<'_>,
        wanted: &Email,
        by: &By,
        now: Timestamp,
    ) -> Result<Confirmed<Asked>, StoreError>;

    /// Uses up a token that was mailed to an address: it turned out to be the user's. After a change of address it is theirs
    /// from now on, which voids all their tokens.
    fn verify_email(&self, token: &TokenHash, by: &By, now: Timestamp) -> Result<Verified, StoreError>;
}

/// Sessions.
pub trait SessionStore: Send + Sync {
    /// Stores a session if what is shown is enough, and replaces the hash of the password by `rehashed` if given. If the
    /// user then has more than `most` sessions, up to a hundred end (see
    /// [`crate::accounts::ending::surplus`]). Of the user's ended sessions the latest 200 are kept. `admit` is asked once
    /// everything that is shown is good, a code too, which is used up then; what it refuses is given back.
    fn open_session(
        &self,
        session: &NewSession,
        shown: &Shown<'_>,
        rehashed: Option<&PasswordHash>,
        most: u32,
        admit: &dyn Fn() -> Result<(), Error>,
        by: &By,
    ) -> Result<Confirmed<Result<(), Error>>, StoreError>;

    /// The sessions among `ids` that have not ended and whose user is active. Whether they have expired is for the
    /// caller to check.
    fn live_sessions(&self, ids: &[SessionId]) -> Result<Vec<(SessionId, LiveSession)>, StoreError>;

    /// Does what [`crate::accounts::refresh::decision::StoredSession::refresh`] decides about a refresh token of this generation.
    /// Refreshes of one session wait for each other. The time is the database's, where several instances share it.
    /// `admit` is asked if the refresh counts as a change of the user's.
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

    /// The addresses from which the user's sessions were opened: of the latest `limit` that have not ended, and of as
    /// many that have ended.
    fn addresses_of(&self, user: UserId, limit: i64) -> Result<Vec<String>, StoreError>;

    /// Ends a session of the user's. False: they have no such session, or it has already ended or expired.
    fn end_session(&self, id: SessionId, user: UserId, by: &By, now: Timestamp) -> Result<bool, StoreError>;

    /// Ends all sessions of the user but `kept`. False, and none ends: `kept` itself has ended, or there is no such user.
    fn end_sessions(&self, user: UserId, kept: Option<SessionId>, by: &By, now: Timestamp) -> Result<bool, StoreError>;

    /// Deletes up to a thousand sessions that have expired, whether they have ended or not. False: there were none.
    fn prune_sessions(&self, now: Timestamp) -> Result<bool, StoreError>;
}

/// Wrong guesses at passwords.
pub trait FailureStore: Send + Sync {
    /// What is counted now. The time is the database's, where several instances share it.
    fn failures(&self, of: &FailureIds) -> Result<Failures, StoreError>;

    /// Adds one, unless the address has to wait. Returns what was counted before; failures of one account are counted one
    /// after the other.
    fn add_failure(&self, of: &FailureIds) -> Result<Failures, StoreError>;

    /// Clears the failures from this address.
    fn clear_failures(&self, of: &FailureIds) -> Result<(), StoreError>;

    /// Deletes up to some thousand counts that are over, or that are more than `most`. False: there were none.
    fn prune_failures(&self, most: i64, now: Timestamp) -> Result<bool, StoreError>;
}

/// Second factors. Every method that takes what was shown, here and above, uses up a good code and counts a wrong one. The
/// time of codes is the database's, where several instances share it.
pub trait SecondFactorStore: Send + Sync {
    /// Stores the sealed secret of a factor that is to be confirmed, in place of an earlier one that was not. Asks for no
    /// code.
    fn begin_factor(
        &self,
        user: UserId,
        shown: &Shown<'_>,
        sealed: &[u8],
        now: Timestamp,
    ) -> Result<Confirmed<FactorBegun>, StoreError>;

    /// With a good code of it, turns on the factor that was begun, stores the recovery codes and ends the user's other
    /// sessions.
    fn enable_factor(
        &self,
        user: UserId,
        session: SessionId,
        code: &Code,
        key: &DataKey,
        recovery_codes: &[CodeHash],
        by: &By,
    ) -> Result<FactorEnabled, StoreError>;

    /// Removes the factor and its recovery codes. `Done(false)`: none is on.
    fn disable_factor(&self, user: UserId, shown: &Shown<'_>, by: &By) -> Result<Confirmed<bool>, StoreError>;

    /// The same for an operator, who shows nothing; also a factor that was only begun. `Some(false)`: none is on. `None`:
    /// there is no such user.
    fn remove_factor(&self, user: UserId, by: &By, now: Timestamp) -> Result<Option<bool>, StoreError>;
}
