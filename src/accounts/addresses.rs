//! E-mails of users: verifying the one that an account has, and changing it.

use std::sync::Arc;

use crate::accounts::email::Email;
use crate::accounts::one_time::{TokenHash, not_good};
use crate::accounts::second_factor::shown::Proof;
use crate::accounts::store::{AddressStore, Asked, Verified};
use crate::accounts::users::{Users, email_taken};
use crate::audit::event::By;
use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::id::UserId;

/// What a client is told where no mail is sent.
const NO_MAIL: &str = "This server sends no mail: its operator has to set SMTP_URL, or to change the account for you";

pub struct Addresses {
    store: Arc<dyn AddressStore>,
    users: Arc<Users>,
    sends_mail: bool,
    clock: Clock,
}

impl Addresses {
    pub(crate) fn new(store: Arc<dyn AddressStore>, users: Arc<Users>, sends_mail: bool, clock: Clock) -> Addresses {
        Addresses { store, users, sends_mail, clock }
    }

    /// Has a link mailed that verifies the user's e-mail. None is sent if it is verified.
    pub fn request_verification(&self, user: UserId) -> Result<(), Error> {
        self.check_mail()?;
        Ok(self.store.request_verification(user, self.clock.now())?)
    }

    /// Has a link mailed to the e-mail that the user wants, which makes it theirs, and a notice to the one that they have. If
    /// the wanted one is somebody else's, the answer is the same and no link is sent: only its owner may know.
    pub fn request_change(
        &self,
        user: UserId,
        email: &str,
        wanted: &Email,
        proof: &Proof<'_>,
        by: &By,
    ) -> Result<(), Error> {
        self.check_mail()?;
        let asked = self.users.confirmed(user, email, proof, by, |shown| {
            Ok(self.store.request_address_change(user, shown, wanted, by, self.clock.now())?)
        })?;
        match asked {
            Asked::Done => Ok(()),
            Asked::TooOften(wait) => {
                Err(Error::TooMany { message: "Too many changes of the e-mail address, try again later", wait })
            }
        }
    }

    /// Verifies the e-mail to which the token was mailed. Of a change of address, it is the account's from now on. An error:
    /// the token is not good, or the e-mail that was wanted is somebody else's by now.
    pub fn verify(&self, token: &str, by: &By) -> Result<(), Error> {
        let token = TokenHash::of(token).ok_or_else(not_good)?;
        match self.store.verify_email(&token, by, self.clock.now())? {
            Verified::Done => Ok(()),
            Verified::EmailTaken => Err(email_taken()),
            Verified::NotGood => Err(not_good()),
        }
    }

    fn check_mail(&self) -> Result<(), Error> {
        if self.sends_mail { Ok(()) } else { Err(Error::NotConfigured(NO_MAIL)) }
    }
}
