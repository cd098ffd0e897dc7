//! Links with a one-time token that are mailed. A queued mail names its kind and the account alone: the token is made when
//! the mail is about to be sent, so none waits in the database.

use std::sync::Arc;
use std::time::Duration;

use crate::accounts::address_change::AddressNews;
use crate::accounts::links::Pages;
use crate::accounts::one_time::OneTimeToken;
use crate::accounts::purposes::Purpose;
use crate::accounts::settings::AccountSettings;
use crate::accounts::store::RecoveryStore;
use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::id::UserId;

/// What a mail with a link needs.
pub struct MailedLink {
    /// Where the mail goes.
    pub address: String,
    pub url: String,
    /// How long the link is good from now on.
    pub lifetime: Duration,
}

pub struct MailedLinks {
    store: Arc<dyn RecoveryStore>,
    pages: Pages,
    reset_lifetime: Duration,
    verify_lifetime: Duration,
    clock: Clock,
}

impl MailedLinks {
    pub(crate) fn new(store: Arc<dyn RecoveryStore>, settings: &AccountSettings, clock: Clock) -> MailedLinks {
        let AccountSettings { pages, reset_lifetime, verify_lifetime, .. } = settings.clone();
        MailedLinks { store, pages, reset_lifetime, verify_lifetime, clock }
    }

    /// How long a link is good, and a mail with one is worth sending.
    pub fn lifetime(&self, purpose: Purpose) -> Duration {
        match purpose {
            Purpose::Reset => self.reset_lifetime,
            // Nobody has asked for an invitation, so it may be read a day later.
            Purpose::Invitation | Purpose::Verification | Purpose::AddressChange => self.verify_lifetime,
        }
    }

    /// A link with a new token. `None`: the mail has lost its sense since it was queued, or never had one: there is no such
    /// active person, the e-mail is verified, or the one that is wanted is somebody else's.
    pub fn make(&self, user: UserId, purpose: Purpose) -> Result<Option<MailedLink>, Error> {
        let (token, now) = (OneTimeToken::generate()?, self.clock.now());
        let lifetime = self.lifetime(purpose);
        let kind = purpose.token_kind();
        let url = self.pages.link(kind, &token);
        let url = url.ok_or_else(|| Error::Internal(format!("no page is known that takes a token: {kind:?}")))?;
        let address = self.store.add_mailed_token(user, purpose, &token.hash(), now.plus(lifetime), now)?;
        Ok(address.map(|address| MailedLink { address, url, lifetime }))
    }

    /// What is still to be told of changes of the user's e-mail.
    pub fn address_news(&self, user: UserId) -> Result<AddressNews, Error> {
        Ok(self.store.address_news(user)?)
    }

    /// This former address was told, or cannot be.
    pub fn note_told(&self, user: UserId, address: &str) -> Result<(), Error> {
        Ok(self.store.forget_former_address(user, address)?)
    }
}
