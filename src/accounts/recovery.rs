//! Passwords that are set by a one-time token: by people who were invited, and by those who have forgotten theirs.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::accounts::email::Email;
use crate::accounts::links::Pages;
use crate::accounts::one_time::{OneTimeToken, TokenHash, TokenKind, not_good};
use crate::accounts::passwords::NewPassword;
use crate::accounts::settings::AccountSettings;
use crate::accounts::store::{RecoveryStore, Reset, TokenAdded};
use crate::accounts::user::{NO_PASSWORD, User, UserRef};
use crate::accounts::users::Users;
use crate::audit::event::By;
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::Error;
use crate::base::id::UserId;

/// A token for somebody who has to set a password.
pub struct ResetToken {
    pub token: OneTimeToken,
    pub expires_at: Timestamp,
    /// The link to the page that takes it, if the operator has said where it is.
    pub url: Option<String>,
}

/// What a client is told where no mail is sent.
const NO_MAIL: &str =
    "This server sends no mail: its operator has to set SMTP_URL, or hands over a token that sets a password";

pub struct Recovery {
    store: Arc<dyn RecoveryStore>,
    users: Arc<Users>,
    pages: Pages,
    lifetime: Duration,
    sends_mail: bool,
    clock: Clock,
}

impl Recovery {
    pub(crate) fn new(
        store: Arc<dyn RecoveryStore>,
        users: Arc<Users>,
        settings: &AccountSettings,
        sends_mail: bool,
        clock: Clock,
    ) -> Recovery {
        let AccountSettings { pages, reset_lifetime, .. } = settings.clone();
        Recovery { store, users, pages, lifetime: reset_lifetime, sends_mail, clock }
    }

    /// Has a link mailed to somebody who says that they have forgotten their password. Whether there is such an account,
    /// and whether it gets a mail, shows neither in the answer nor in the time that it takes: the same is read and written,
    /// and what becomes of the mail is decided when its turn comes.
    pub fn note_forgotten(&self, email: &Email, by: &By) -> Result<(), Error> {
        if !self.sends_mail {
            return Err(Error::NotConfigured(NO_MAIL));
        }
        let nobody = self.receiver_of_nobody(email);
        let user = self.users.find(&UserRef::Email(email.clone()))?.map(|user| user.id);
        Ok(self.store.note_forgotten(user, user.map_or(nobody, |user| user.0), by, self.clock.now())?)
    }

    /// Stands for an address that is not stored. No account has such an id: theirs are of another version.
    fn receiver_of_nobody(&self, email: &Email) -> Uuid {
        let hash = self.users.data_key.keyed_hash("forgotten password", email.as_str());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// A token that sets the user's password once. `None`: there is no such user. An error: it is a service account.
    pub fn request_reset(&self, user: UserId, by: &By) -> Result<Option<ResetToken>, Error> {
        let (token, now) = (OneTimeToken::generate()?, self.clock.now());
        let expires_at = now.plus(self.lifetime);
        match self.store.add_reset_token(user, &token.hash(), expires_at, by, now)? {
            TokenAdded::Done => {
                let url = self.pages.link(TokenKind::ResetPassword, &token);
                Ok(Some(ResetToken { token, expires_at, url }))
            }
            TokenAdded::NoSuchUser => Ok(None),
            TokenAdded::Service => Err(Error::Conflict(NO_PASSWORD.into())),
        }
    }

    /// Sets the password of the user to whom the token belongs, and ends all their sessions. The token, and every other of
    /// the user's, is used up.
    pub fn reset_password(&self, token: &str, password: NewPassword, by: &By) -> Result<(), Error> {
        let token = TokenHash::of(token).ok_or_else(not_good)?;
        // Hashing a password is work that a wrong token must not cause.
        let user = self.store.user_of_reset_token(&token, self.clock.now())?.ok_or_else(not_good)?;
        let hash = self.users.passwords.hash(password)?;
        loop {
            match self.store.reset_password(user, &token, &hash, by, self.clock.now())? {
                Reset::Done => return Ok(()),
                Reset::More => {}
                Reset::NotGood => return Err(not_good()),
            }
        }
    }

    /// Deletes a part of the tokens that have expired. False: there were none.
    pub(crate) fn prune(&self) -> Result<bool, Error> {
        Ok(self.store.prune_tokens(self.clock.now())?)
    }
}

/// Whether a reset ends the keys of this account too: somebody else may have signed up with an e-mail that is not theirs,
/// made keys, and waited for its owner (account pre-hijacking). Into an account without a password, nobody could log in.
pub(crate) fn ends_keys(user: &User) -> bool {
    user.has_password && !user.email_verified
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::email::Email;
    use crate::accounts::user::new_user;
    use crate::keys::grants::Grants;

    #[test]
    fn keys_end_where_somebody_else_may_have_made_them() {
        let email = Email::parse("ann@example.com").unwrap();
        let ann = new_user(email, None, Grants::default(), Timestamp::EPOCH);
        for (has_password, email_verified, ends) in
            [(true, false, true), (true, true, false), (false, false, false), (false, true, false)]
        {
            assert_eq!(ends_keys(&User { has_password, email_verified, ..ann.clone() }), ends);
        }
    }
}
