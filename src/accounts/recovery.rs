//! Passwords that are set by a one-time token: by people who were invited, and by those who have forgotten theirs.

use std::sync::Arc;
use std::time::Duration;

use crate::accounts::links::Pages;
use crate::accounts::one_time::{OneTimeToken, TokenHash, TokenKind};
use crate::accounts::passwords::{NewPassword, Passwords};
use crate::accounts::store::{RecoveryStore, Reset, TokenAdded};
use crate::accounts::user::{NO_PASSWORD, User};
use crate::audit::event::By;
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::{Challenge, Error, Sent};
use crate::base::id::UserId;

/// A token for somebody who has to set a password.
pub struct ResetToken {
    pub token: OneTimeToken,
    pub expires_at: Timestamp,
    /// The link to the page that takes it, if the operator has said where it is.
    pub url: Option<String>,
}

pub struct Recovery {
    store: Arc<dyn RecoveryStore>,
    passwords: Arc<Passwords>,
    pages: Pages,
    lifetime: Duration,
    clock: Clock,
}

impl Recovery {
    pub(crate) fn new(
        store: Arc<dyn RecoveryStore>,
        passwords: Arc<Passwords>,
        pages: Pages,
        lifetime: Duration,
        clock: Clock,
    ) -> Recovery {
        Recovery { store, passwords, pages, lifetime, clock }
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
        let hash = self.passwords.hash(password)?;
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

fn not_good() -> Error {
    let challenge = Challenge { token: Some(Sent::No), key: false, basic: false };
    Error::Unauthenticated { message: "Invalid or expired token", challenge }
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
