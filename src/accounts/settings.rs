//! The settings of this room, and what follows from several of them.

use std::time::Duration;

use crate::accounts::limits::{AddressRates, WriteRates};
use crate::accounts::links::Pages;
use crate::accounts::refresh::rotation::RotationRules;
use crate::accounts::session::Lifespan;
use crate::keys::grants::Grants;

#[derive(Clone, Debug, Default)]
pub struct AccountSettings {
    /// Whether anyone may sign up.
    pub signup_open: bool,
    /// Whether users have to verify their e-mail before they are admitted to more than their own account.
    pub verified_email_required: bool,
    /// What a new user may do and may hand to their keys.
    pub user_scopes: Grants,
    /// In characters.
    pub password_min_length: usize,
    pub bcrypt_cost: u32,
    /// The pages that take one-time tokens.
    pub pages: Pages,
    /// How long a token that sets a password is good.
    pub reset_lifetime: Duration,
    /// How long a token that verifies an e-mail is good, and an invitation.
    pub verify_lifetime: Duration,
    /// How many sessions one user may have.
    pub max_sessions: u32,
    /// How long a session lives after its login, however often it is refreshed. `None`: no limit.
    pub session_max_age: Option<Duration>,
    /// How long a session lives after its login or last refresh. `None`: as long as its refresh token.
    pub session_idle: Option<Duration>,
    pub rotation: RotationRules,
    pub address_rates: AddressRates,
    pub write_rates: WriteRates,
}

impl AccountSettings {
    /// How long access tokens live, where the settings of tokens say `wanted`: at most half of [`Self::session_idle`]. A
    /// client that refreshes when its access token has expired must find its session alive.
    pub(crate) fn access_lifetime(&self, wanted: Duration) -> Duration {
        self.session_idle.map_or(wanted, |idle| wanted.min(idle / 2).max(Duration::from_secs(1)))
    }

    /// How long sessions live, where the longer-lived token of a pair lives for `tokens`.
    pub(crate) fn lifespan(&self, tokens: Duration) -> Lifespan {
        Lifespan { unrenewed: self.session_idle.map_or(tokens, |idle| idle.min(tokens)), max_age: self.session_max_age }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn an_idle_limit_shortens_access_tokens_to_half_of_it_and_sessions_to_all_of_it() {
        for (idle, access, session) in [(None, 3600, 86_400), (Some(1800), 900, 1800), (Some(100_000), 3600, 86_400)] {
            let settings = AccountSettings { session_idle: idle.map(seconds), ..AccountSettings::default() };
            assert_eq!(settings.access_lifetime(seconds(3600)), seconds(access), "{idle:?}");
            assert_eq!(settings.lifespan(seconds(86_400)).unrenewed, seconds(session), "{idle:?}");
        }
        let settings = AccountSettings { session_idle: Some(seconds(1)), ..AccountSettings::default() };
        assert_eq!(settings.access_lifetime(seconds(3600)), seconds(1));
    }
}
