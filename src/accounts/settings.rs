//! The settings of this room, and what follows from several of them.

use std::time::Duration;

use crate::accounts::limits::AddressRates;
use crate::accounts::rotation::RotationRules;
use crate::accounts::session::Lifespan;
use crate::memory::limiter::Rate;

#[derive(Clone, Copy, Debug, Default)]
pub struct AccountSettings {
    /// Whether anyone may sign up.
    pub signup_open: bool,
    /// In characters.
    pub password_min_length: usize,
    pub bcrypt_cost: u32,
    /// How many sessions one user may have.
    pub max_sessions: u32,
    /// How long a session lives after its login, however often it is refreshed. `None`: no limit.
    pub session_max_age: Option<Duration>,
    /// How long a session lives after its login or last refresh. `None`: as long as its refresh token.
    pub session_idle: Option<Duration>,
    pub rotation: RotationRules,
    pub address_rates: AddressRates,
    /// How much a user may write. `None`: no limit.
    pub write_rate: Option<Rate>,
}

impl AccountSettings {
    /// How long access tokens live, where the settings of tokens say `wanted`: at most half of [`Self::session_idle`]. A
    /// client that refreshes when its access token has expired must find its session alive.
    pub fn access_lifetime(&self, wanted: Duration) -> Duration {
        self.session_idle.map_or(wanted, |idle| wanted.min(idle / 2).max(Duration::from_secs(1)))
    }

    /// How long sessions live, where the longer-lived token of a pair lives for `tokens`.
    pub fn lifespan(&self, tokens: Duration) -> Lifespan {
        Lifespan { unrenewed: self.session_idle.map_or(tokens, |idle| idle.min(tokens)), max_age: self.session_max_age }
    }
}
