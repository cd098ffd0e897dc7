//! Users: what an e-mail address and a name are, and what operators and users do with accounts.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use unicode_normalization::UnicodeNormalization;

use crate::clock::{Clock, Timestamp};
use crate::error::Error;
use crate::event::{By, Kind};
use crate::guess::{Guess, Guesses};
use crate::id::UserId;
use crate::password::{NewPassword, PasswordHash, Passwords};
use crate::principal;
use crate::session::NewSession;
use crate::store::{Created, Store, StoreError};

/// An e-mail address in lower case and composed (Unicode's normalization form C), so that equal addresses are equal texts,
/// however they were typed (RFC 8265 §3.3, but for its mapping of widths).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// Letters of any script are taken; quoted local parts, comments and address literals are not.
    /// The error is the rule it breaks, to be put behind the field's name.
    pub fn parse(text: &str) -> Result<Email, &'static str> {
        const NO_EMAIL: &str = "must be an email";
        let email: String = text.to_lowercase().nfc().collect();
        if email.chars().count() > 254 {
            return Err("must be shorter than or equal to 254 characters");
        }
        let (local, domain) = email.rsplit_once('@').ok_or(NO_EMAIL)?;
        let local_is_good = local.chars().count() <= 64
            && local.split('.').all(|atom| {
                !atom.is_empty() && atom.chars().all(|c| c.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~-".contains(c))
            });
        let labels: Vec<&str> = domain.split('.').collect();
        let labels_are_good = labels.iter().all(|label| {
            (1..=63).contains(&label.chars().count())
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
        let top = labels.last().copied().unwrap_or_default();
        let top_is_good = top.chars().count() >= 2 && !top.chars().all(|c| c.is_ascii_digit());
        if local_is_good && labels_are_good && labels.len() >= 2 && top_is_good {
            Ok(Email(email))
        } else {
            Err(NO_EMAIL)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A person's name, as he writes it.
pub fn parse_name(text: &str) -> Result<String, &'static str> {
    if text.chars().count() > 255 {
        Err("must be shorter than or equal to 255 characters")
    } else {
        Ok(text.to_string())
    }
}

/// A user as stored, without his password.
#[derive(Clone, Debug)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub name: Option<String>,
    pub is_active: bool,
    pub created_at: Timestamp,
}

/// How an operator names a user on the command line.
#[derive(Clone, Debug)]
pub enum UserRef {
    Id(UserId),
    Email(Email),
}

impl UserRef {
    pub fn parse(text: &str) -> Option<UserRef> {
        UserId::parse(text).map(UserRef::Id).or_else(|| Email::parse(text).map(UserRef::Email).ok())
    }
}

/// How long a user who deletes their account waits for what hangs on it to be deleted too.
const SWEEPING: Duration = Duration::from_millis(500);

/// What is done with accounts, beside signing up and logging in (see [`crate::session`]).
pub struct Users {
    store: Arc<dyn Store>,
    passwords: Arc<Passwords>,
    guesses: Arc<Guesses>,
    clock: Clock,
}

impl Users {
    pub fn new(store: Arc<dyn Store>, passwords: Arc<Passwords>, guesses: Arc<Guesses>, clock: Clock) -> Users {
        Users { store, passwords, guesses, clock }
    }

    /// Makes an active user, for the operator. `None`: the e-mail is taken.
    pub fn create(&self, email: Email, name: Option<String>, password: NewPassword) -> Result<Option<User>, Error> {
        let hash = self.passwords.hash(password)?;
        let user = new_user(email, name, self.clock.now());
        match self.store.create_user(&user, &hash, None, &By::operator())? {
            Created::Done => Ok(Some(user)),
            Created::EmailTaken => Ok(None),
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

    /// Up to `limit` users in the order of their ids, from the one after `after`.
    pub fn list(&self, after: Option<UserId>, limit: i64) -> Result<Vec<User>, Error> {
        Ok(self.store.users(after, limit)?)
    }

    /// For the operator. Deactivating ends his sessions and silences his keys; activating lets his keys speak again.
    /// False: there is no such user.
    pub fn set_active(&self, id: UserId, active: bool) -> Result<bool, Error> {
        Ok(self.store.set_user_active(id, active, &By::operator(), self.clock.now())?)
    }

    /// For the operator. Ends all his sessions too: whoever knew the old password is out. False: there is no such user.
    pub fn set_password(&self, id: UserId, password: NewPassword) -> Result<bool, Error> {
        let hash = self.passwords.hash(password)?;
        Ok(self.store.set_password(id, &hash, &By::operator(), self.clock.now())?)
    }

    /// For the operator. Deletes them, their sessions and their keys. False: there is no such user.
    pub fn delete(&self, id: UserId) -> Result<bool, Error> {
        let found = self.store.delete_user(id, None, &By::operator(), self.clock.now())?;
        // There need not be a server that does it.
        while self.sweep()? {}
        Ok(found)
    }

    /// Deletes some of what users who were deleted have left. False: there was nothing.
    pub fn sweep(&self) -> Result<bool, Error> {
        Ok(self.store.sweep()?)
    }

    /// What a user does with their own password; all their sessions end, and `session` is opened.
    pub fn change_password(
        &self,
        user: &principal::User,
        current: String,
        new: NewPassword,
        session: &NewSession,
        by: &By,
    ) -> Result<(), Error> {
        let old = self.confirm(user, &current, by)?;
        let new = self.passwords.hash(new)?;
        self.with_password(user, &current, old, by, |old| self.store.change_password(user.id, old, &new, session, by))
    }

    /// Deletes a user who has given his password, his sessions and his keys.
    pub fn delete_own(&self, user: &principal::User, password: &str, by: &By) -> Result<(), Error> {
        let hash = self.confirm(user, password, by)?;
        let delete = |hash: &PasswordHash| self.store.delete_user(user.id, Some(hash), by, self.clock.now());
        self.with_password(user, password, hash, by, delete)?;
        // Mostly that is all; what is left of much, or in a store that has gone meanwhile, is deleted within a minute.
        let started = Instant::now();
        while started.elapsed() < SWEEPING && self.sweep().unwrap_or(false) {}
        Ok(())
    }

    /// The hash of the user's password, when this is it. When it is not, that counts like a failed login.
    fn confirm(&self, user: &principal::User, password: &str, by: &By) -> Result<PasswordHash, Error> {
        let hash = self.store.password_of(user.id)?;
        let guess = Guess {
            email: &user.email,
            user: Some(user.id),
            hash: hash.as_ref(),
            is_active: true,
            by,
            failure: Kind::PasswordFailed,
        };
        self.guesses.verify(&guess, password)?;
        hash.ok_or_else(Error::invalid_credentials)
    }

    /// Does what needs a confirmed password. A login may hash it anew in between; it is confirmed once more, then.
    fn with_password(
        &self,
        user: &principal::User,
        password: &str,
        hash: PasswordHash,
        by: &By,
        act: impl Fn(&PasswordHash) -> Result<bool, StoreError>,
    ) -> Result<(), Error> {
        let done = act(&hash)? || act(&self.confirm(user, password, by)?)?;
        done.then_some(()).ok_or_else(Error::invalid_credentials)
    }

    /// Learns what the stored hashes cost, so that refusing an unknown user takes as long as refusing a known one.
    pub fn note_costs(&self) -> Result<(), StoreError> {
        self.store.hash_prefixes()?.iter().for_each(|prefix| self.passwords.note_cost(prefix));
        Ok(())
    }
}

/// An active user who is about to be stored.
pub fn new_user(email: Email, name: Option<String>, now: Timestamp) -> User {
    User { id: UserId::new(), email: email.0, name, is_active: true, created_at: now }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_lower_case() {
        assert_eq!(Email::parse("Ann.O'Hara+keys@Example.CO.uk").unwrap().as_str(), "ann.o'hara+keys@example.co.uk");
        assert_eq!(Email::parse("JÖRG@BÜCHER.example").unwrap().as_str(), "jörg@bücher.example");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "a",
            "a@",
            "@b.co",
            "a@b",
            "a b@c.de",
            "a@b..de",
            ".a@b.de",
            "a.@b.de",
            "a..b@c.de",
            "a@-b.de",
            "a@b-.de",
            "a@b.c",
            "a@1.2.3.44",
            "a@b@c.de",
            "a@b.de\n",
            "a\0@b.de",
            "\u{200b}a@b.de",
            "a@b.de ",
            "\"a b\"@c.de",
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
        assert!(Email::parse(&format!("{}@b.de", "a".repeat(65))).is_err());
        let long = format!("a@{}.de", vec!["b".repeat(60); 5].join("."));
        assert_eq!(Email::parse(&long).unwrap_err(), "must be shorter than or equal to 254 characters");
    }
}
