//! Accounts: creating and deleting them, turning them off and on, changing passwords. Signing up and logging in are in
//! [`crate::accounts::sessions`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::accounts::changing::UserChange;
use crate::accounts::creating::UserDraft;
use crate::accounts::granting::ScopeChange;
use crate::accounts::operators::LAST_OPERATOR;
use crate::accounts::passwords::{NewPassword, PasswordHash, Passwords};
use crate::accounts::second_factor::shown::{CodeFault, Confirmed, Proof, Shown};
use crate::accounts::session::NewSession;
use crate::accounts::settings::AccountSettings;
use crate::accounts::store::{Created, Deleted, PasswordSet, UserChanged, UserStore};
use crate::accounts::throttling::{LoginThrottle, PasswordAttempt};
use crate::accounts::user::{NO_PASSWORD, User, UserFilter, UserKind, UserRef};
use crate::audit::event::{By, Kind};
use crate::audit::events::Events;
use crate::base::clock::Clock;
use crate::base::data_key::DataKey;
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
    /// Whether new users have to verify their e-mails.
    pub(super) verified_email_required: bool,
    pub(super) data_key: Arc<DataKey>,
    events: Arc<Events>,
    clock: Clock,
}

impl Users {
    pub(crate) fn new(
        store: Arc<dyn UserStore>,
        passwords: Arc<Passwords>,
        throttle: LoginThrottle,
        settings: &AccountSettings,
        data_key: Arc<DataKey>,
        events: Arc<Events>,
        clock: Clock,
    ) -> Users {
        let AccountSettings { user_scopes, verified_email_required, .. } = settings.clone();
        Users { store, passwords, throttle, user_scopes, verified_email_required, data_key, events, clock }
    }

    /// Creates an active user. An error: a broken rule, or the e-mail is taken.
    pub fn create(&self, draft: UserDraft, by: &By) -> Result<User, Error> {
        let (mut user, password) = draft.judge(&self.user_scopes, self.clock.now()).map_err(Error::BrokenRules)?;
        user.needs_verified_email = self.verified_email_required && user.kind == UserKind::User;
        let hash = password.map_or_else(|| Ok(PasswordHash::none()), |password| self.passwords.hash(password))?;
        match self.store.create_user(&user, &hash, None, true, by)? {
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
        proof: &Proof<'_>,
        new: NewPassword,
        session: &NewSession,
        by: &By,
    ) -> Result<(), Error> {
        let (mut new, mut hash) = (Some(new), None);
        self.confirmed(user, email, proof, by, |shown| {
            // Hashing is work that a wrong password must not cause.
            if let Some(new) = new.take() {
                hash = Some(self.passwords.hash(new)?);
            }
            let hash = hash.as_ref().ok_or_else(|| Error::Internal("no new password".to_string()))?;
            Ok(self.store.change_password(user, shown, hash, session, by)?)
        })
    }

    /// Deletes a user who gives their password, with their sessions and keys.
    pub fn delete_own(&self, user: UserId, email: &str, proof: &Proof<'_>, by: &By) -> Result<(), Error> {
        self.confirmed(user, email, proof, by, |shown| {
            Ok(match self.store.delete_user(user, Some(shown), by, self.clock.now())? {
                Deleted::Refused(fault) => Confirmed::Refused(fault),
                outcome if deleted(outcome)? => Confirmed::Done(()),
                _ => Confirmed::UserChanged,
            })
        })?;
        self.delete_rows_for_a_while();
        Ok(())
    }

    /// Most accounts are gone completely after this. The job that deletes the rows of deleted users does the rest, and all
    /// of it if the store fails now.
    fn delete_rows_for_a_while(&self) {
        let started = Instant::now();
        while started.elapsed() < DELETING && self.delete_rows_of_deleted_users().unwrap_or(false) {}
    }

    /// Does what needs the user's password, and a code where they have a second factor. `act` is called when the password is
    /// right, and checks in its transaction that it still is, and the code. A wrong password counts like a failed login.
    pub(crate) fn confirmed<T>(
        &self,
        user: UserId,
        email: &str,
        proof: &Proof<'_>,
        by: &By,
        mut act: impl FnMut(&Shown<'_>) -> Result<Confirmed<T>, Error>,
    ) -> Result<T, Error> {
        // A login may have replaced the hash of the same password meanwhile; the second round reads the new one.
        for _ in 0..2 {
            let hash = self.store.password_of(user)?;
            let attempt = PasswordAttempt {
                email,
                user: Some(user),
                hash: hash.as_ref(),
                is_active: true,
                by,
                failure: Kind::PasswordFailed,
            };
            let right = self.throttle.verify(&attempt, proof.password)?;
            let Some(hash) = &hash else { break };
            match act(&Shown { password: hash, code: proof.code, key: &self.data_key })? {
                Confirmed::Done(value) => {
                    self.throttle.clear(&attempt, &right);
                    return Ok(value);
                }
                Confirmed::Refused(fault) => return Err(self.refused(fault, user, by)),
                Confirmed::UserChanged => {}
            }
        }
        Err(Error::invalid_credentials())
    }

    /// The error for a code that is not enough. One that is missing is no failure.
    pub(super) fn refused(&self, fault: CodeFault, user: UserId, by: &By) -> Error {
        if matches!(fault, CodeFault::Wrong | CodeFault::Resting(_)) {
            self.events.note_failure(Kind::TotpFailed, Some(user), by);
        }
        fault.error()
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
        Deleted::Refused(fault) => Err(fault.error()),
    }
}
