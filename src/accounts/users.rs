//! Accounts: creating and deleting them, turning them off and on, changing passwords. Signing up and logging in are in
//! [`crate::accounts::sessions`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::accounts::changing::UserChange;
use crate::accounts::creating::UserDraft;
use crate::accounts::granting::ScopeChange;
use crate::accounts::operators::LAST_OPERATOR;
use crate::accounts::passwords::{NewPassword, PasswordHash, Passwords};
use crate::accounts::session::NewSession;
use crate::accounts::store::{Created, Deleted, PasswordSet, UserChanged, UserStore};
use crate::accounts::throttling::{LoginThrottle, PasswordAttempt};
use crate::accounts::user::{NO_PASSWORD, User, UserFilter, UserRef};
use crate::audit::event::{By, Kind};
use crate::base::clock::Clock;
use crate::base::error::{Error, StoreError};
use crate::base::id::UserId;
use crate::base::page::Page;
use crate::keys::grants::Grants;

/// How long the answer to a user who deletes their account waits for the rows that belong to it to be deleted.
const DELETING: Duration = Duration::from_millis(500);

pub struct Users {
    pub(super) store: Arc<dyn UserStore>,
    pub(super) passwords: Arc<Passwords>,
    pub(super) throttle: LoginThrottle,
    /// What a new user gets.
    pub(super) user_scopes: Grants,
    clock: Clock,
}

impl Users {
    pub(crate) fn new(
        store: Arc<dyn UserStore>,
        passwords: Arc<Passwords>,
        throttle: LoginThrottle,
        user_scopes: Grants,
        clock: Clock,
    ) -> Users {
        Users { store, passwords, throttle, user_scopes, clock }
    }

    /// Creates an active user. An error: a broken rule, or the e-mail is taken.
    pub fn create(&self, draft: UserDraft, by: &By) -> Result<User, Error> {
        let (user, password) = draft.judge(&self.user_scopes, self.clock.now()).map_err(Error::BrokenRules)?;
        let hash = password.map_or_else(|| Ok(PasswordHash::none()), |password| self.passwords.hash(password))?;
        match self.store.create_user(&user, &hash, None, by)? {
            Created::Done => Ok(user),
            Created::EmailTaken => Err(email_taken()),
        }
    }

    pub fn find(&self, user: &UserRef) -> Result<Option<User>, Error> {
        Ok(match user {
            UserRef::Id(id) => self.store.user(*id)?,
            UserRef::Email(email) => self.store.user_by_email(email)?.map(|(user, _)| user),
        })
    }

    pub fn by_id(&self, id: UserId) -> Result<Option<User>, Error> {
        Ok(self.store.user(id)?)
    }

    /// A page of at most `limit` users, in the order of their e-mails if the filter names some, otherwise of their ids.
    /// `None`: there is no user `after`.
    pub fn page(&self, filter: &UserFilter, after: Option<UserId>, limit: usize) -> Result<Option<Page<User>>, Error> {
        let users = self.store.users(filter, after, Page::<User>::read(limit))?;
        Ok(users.map(|users| Page::cut(users, limit)))
    }

    /// The next e-mail after this one that several users have, in different spellings, and up to a thousand of them.
    pub fn sharing_email(&self, after: &str) -> Result<Option<(String, Vec<User>)>, Error> {
        let mut found = self.store.respelled(after)?;
        while let Some((email, users)) = &found
            && users.len() < 2
        {
            found = self.store.respelled(email)?;
        }
        Ok(found)
    }

    /// Deactivating ends the user's sessions and turns their keys off; activating turns the keys back on. `None`: there is
    /// no such user. An error: the e-mail is taken, or no operator would be left.
    pub fn change(&self, id: UserId, change: &UserChange, by: &By) -> Result<Option<User>, Error> {
        changed(self.store.change_user(id, change, by, self.clock.now())?)
    }

    /// Changes what the user may do and may hand to their keys. Their keys and tokens lose at once what is withdrawn.
    /// `None`: there is no such user. An error: a broken rule, or no operator would be left.
    pub fn change_scopes(&self, id: UserId, change: &ScopeChange, by: &By) -> Result<Option<User>, Error> {
        changed(self.store.change_scopes(id, change, by, self.clock.now())?)
    }

    /// Sets a password without asking for the current one, and ends all of the user's sessions: someone who knew the
    /// old password may have opened one. False: there is no such user. An error: it is a service account.
    pub fn set_password(&self, id: UserId, password: NewPassword, by: &By) -> Result<bool, Error> {
        let hash = self.passwords.hash(password)?;
        match self.store.set_password(id, &hash, by, self.clock.now())? {
            PasswordSet::Done => Ok(true),
            PasswordSet::NoSuchUser => Ok(false),
            PasswordSet::Service => Err(Error::Conflict(NO_PASSWORD.into())),
        }
    }

    /// Deletes the user, their sessions and their keys, without asking for their password. False: there is no such
    /// user. An error: no operator would be left.
    ///
    /// Most rows are deleted when this returns; see [`Users::delete_rows_of_deleted_users`] for the rest.
    pub fn delete(&self, id: UserId, by: &By) -> Result<bool, Error> {
        let found = deleted(self.store.delete_user(id, None, by, self.clock.now())?)?;
        self.delete_rows_for_a_while();
        Ok(found)
    }

    /// Deletes a part of the rows that belonged to deleted users. False: there were none.
    pub(crate) fn delete_rows_of_deleted_users(&self) -> Result<bool, Error> {
        Ok(self.store.delete_rows_of_deleted_users()?)
    }

    /// Changes the password of a user who gives the current one. Ends all their sessions and opens `session`.
    pub(crate) fn change_password(
        &self,
        user: UserId,
        email: &str,
        current: String,
        new: NewPassword,
        session: &NewSession,
        by: &By,
    ) -> Result<(), Error> {
        let old = self.confirm(user, email, &current, by)?;
        let new = self.passwords.hash(new)?;
        self.with_password(user, email, &current, old, by, |old| {
            Ok(self.store.change_password(user, old, &new, session, by)?)
        })
    }

    /// Deletes a user who gives their password, with their sessions and keys.
    pub fn delete_own(&self, user: UserId, email: &str, password: &str, by: &By) -> Result<(), Error> {
        let hash = self.confirm(user, email, password, by)?;
        let delete = |hash: &PasswordHash| deleted(self.store.delete_user(user, Some(hash), by, self.clock.now())?);
        self.with_password(user, email, password, hash, by, delete)?;
        self.delete_rows_for_a_while();
        Ok(())
    }

    /// Most accounts are gone completely after this. The job that deletes the rows of deleted users does the rest, and all
    /// of it if the store fails now.
    fn delete_rows_for_a_while(&self) {
        let started = Instant::now();
        while started.elapsed() < DELETING && self.delete_rows_of_deleted_users().unwrap_or(false) {}
    }

    /// The hash of the user's password if `password` is right. A wrong one counts like a failed login.
    fn confirm(&self, user: UserId, email: &str, password: &str, by: &By) -> Result<PasswordHash, Error> {
        let hash = self.store.password_of(user)?;
        let attempt = PasswordAttempt {
            email,
            user: Some(user),
            hash: hash.as_ref(),
            is_active: true,
            by,
            failure: Kind::PasswordFailed,
        };
        let right = self.throttle.verify(&attempt, password)?;
        self.throttle.clear(&attempt, &right)?;
        hash.ok_or_else(Error::invalid_credentials)
    }

    /// Does what needs the right password. `act` refuses if the stored hash has changed meanwhile. A login may have
    /// replaced the hash of the same password, so the password is confirmed once more before this gives up.
    fn with_password(
        &self,
        user: UserId,
        email: &str,
        password: &str,
        hash: PasswordHash,
        by: &By,
        act: impl Fn(&PasswordHash) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let done = act(&hash)? || act(&self.confirm(user, email, password, by)?)?;
        done.then_some(()).ok_or_else(Error::invalid_credentials)
    }

    /// Deletes a part of what is counted of wrong guesses and is over. False: there was none.
    pub(crate) fn prune_failures(&self) -> Result<bool, Error> {
        self.throttle.prune()
    }

    /// Reads the costs of the stored hashes, so that refusing an unknown user takes as long as refusing a known one.
    pub fn note_costs(&self) -> Result<(), StoreError> {
        self.store.hash_prefixes()?.iter().for_each(|prefix| self.passwords.note_cost(prefix));
        Ok(())
    }
}

pub(super) fn email_taken() -> Error {
    Error::Conflict("User already exists".into())
}

fn changed(changed: UserChanged) -> Result<Option<User>, Error> {
    match changed {
        UserChanged::To(user) => Ok(Some(*user)),
        UserChanged::NoSuchUser => Ok(None),
        UserChanged::EmailTaken => Err(email_taken()),
        UserChanged::LastOperator => Err(Error::Conflict(LAST_OPERATOR.into())),
        UserChanged::Breaks(rule) => Err(Error::BrokenRules(vec![format!("scopes {rule}")])),
    }
}

fn deleted(deleted: Deleted) -> Result<bool, Error> {
    match deleted {
        Deleted::Done => Ok(true),
        Deleted::NoSuchUser => Ok(false),
        Deleted::LastOperator => Err(Error::Conflict(LAST_OPERATOR.into())),
    }
}
