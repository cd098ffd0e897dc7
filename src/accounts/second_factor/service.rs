//! Setting up a second factor and removing it.

use std::sync::Arc;

use crate::accounts::second_factor::codes::{Code, CodeHash, RECOVERY_CODES, RecoveryCode};
use crate::accounts::second_factor::shown::Proof;
use crate::accounts::second_factor::totp::{TotpSecret, place};
use crate::accounts::store::{FactorBegun, FactorEnabled, SecondFactorStore};
use crate::accounts::users::Users;
use crate::audit::event::By;
use crate::base::clock::Clock;
use crate::base::data_key::DataKey;
use crate::base::error::{Challenge, Error, Sent};
use crate::base::id::{SessionId, UserId};

const IS_ON: &str = "A second factor is on already";
const IS_OFF: &str = "No second factor is on";
const NONE_BEGUN: &str = "No second factor waits to be confirmed: POST /auth/totp first";

/// What apps show as the service, if its operator has not named it.
const NAME: &str = "Keyward";

/// A factor that a code has to confirm. Shown once.
pub struct NewFactor {
    /// In base32.
    pub secret: String,
    pub url: String,
}

pub struct SecondFactors {
    store: Arc<dyn SecondFactorStore>,
    users: Arc<Users>,
    data_key: Arc<DataKey>,
    /// What apps show as the service.
    name: String,
    clock: Clock,
}

impl SecondFactors {
    /// `issuer`: of tokens; apps show its host.
    pub(crate) fn new(
        store: Arc<dyn SecondFactorStore>,
        users: Arc<Users>,
        data_key: Arc<DataKey>,
        issuer: Option<&str>,
        clock: Clock,
    ) -> SecondFactors {
        SecondFactors { store, users, data_key, name: name(issuer), clock }
    }

    /// Makes a factor, which counts for nothing until a code confirms it. An error: one is on already.
    pub fn begin(&self, user: UserId, email: &str, password: &str, by: &By) -> Result<NewFactor, Error> {
        self.data_key.check()?;
        let secret = TotpSecret::generate()?;
        let sealed = self.data_key.seal(&place(user), secret.as_bytes())?;
        let proof = Proof { password, code: None };
        let begun = self.users.confirmed(user, email, &proof, by, |shown| {
            Ok(self.store.begin_factor(user, shown, &sealed, self.clock.now())?)
        })?;
        match begun {
            FactorBegun::Done => Ok(NewFactor { secret: secret.base32(), url: secret.url(&self.name, email) }),
            FactorBegun::IsOn => Err(Error::Conflict(IS_ON.into())),
        }
    }

    /// Turns on the factor that was begun, and returns the recovery codes. The user's other sessions end: nobody has shown
    /// a code for them.
    pub fn enable(&self, user: UserId, session: SessionId, code: &Code, by: &By) -> Result<Vec<String>, Error> {
        self.data_key.check()?;
        let codes = (0..RECOVERY_CODES).map(|_| RecoveryCode::generate()).collect::<Result<Vec<_>, _>>()?;
        let hashes: Vec<CodeHash> = codes.iter().map(RecoveryCode::hash).collect();
        match self.store.enable_factor(user, session, code, &self.data_key, &hashes, by)? {
            FactorEnabled::Done => Ok(codes.iter().map(RecoveryCode::grouped).collect()),
            FactorEnabled::NoneBegun => Err(Error::Conflict(NONE_BEGUN.into())),
            FactorEnabled::IsOn => Err(Error::Conflict(IS_ON.into())),
            FactorEnabled::Refused(fault) => Err(self.users.refused(fault, user, by)),
            FactorEnabled::SessionEnded => {
                Err(Error::unauthorized(Challenge { token: Some(Sent::Yes), key: false, basic: false }))
            }
        }
    }

    /// Removes the factor. An error: none is on.
    pub fn disable(&self, user: UserId, email: &str, proof: &Proof<'_>, by: &By) -> Result<(), Error> {
        let was_on =
            self.users.confirmed(user, email, proof, by, |shown| Ok(self.store.disable_factor(user, shown, by)?))?;
        was_on.then_some(()).ok_or(Error::Conflict(IS_OFF.into()))
    }

    /// Removes the factor of somebody who has lost it, for an operator. `Some(false)`: none was on. `None`: there is no such
    /// user.
    pub fn reset(&self, user: UserId, by: &By) -> Result<Option<bool>, Error> {
        Ok(self.store.remove_factor(user, by, self.clock.now())?)
    }
}

/// The host of an issuer that is a URL.
fn name(issuer: Option<&str>) -> String {
    let issuer = issuer.unwrap_or(NAME);
    let rest = ["https://", "http://"].iter().find_map(|scheme| issuer.strip_prefix(scheme));
    rest.map_or(issuer, |rest| rest.split(['/', '?', '#']).next().unwrap_or(rest)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_show_the_host_of_the_issuer() {
        for (issuer, expected) in [
            (None, "Keyward"),
            (Some("https://auth.example.com/"), "auth.example.com"),
            (Some("https://auth.example.com:8443"), "auth.example.com:8443"),
            (Some("http://localhost/id?x"), "localhost"),
            (Some("my service"), "my service"),
        ] {
            assert_eq!(name(issuer), expected);
        }
    }
}
