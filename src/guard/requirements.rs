//! What a route requires of a credential.

use crate::keys::scopes::{NO_SCOPES, Scopes};

/// The credential that a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    Public,
    /// An access token, as `Authorization: Bearer`.
    Jwt,
    /// An API key, as `x-api-key`.
    ApiKey,
    /// Either; a good key is preferred.
    Flexible,
}

/// What a route asks of a key beside being good.
#[derive(Clone, Copy, Debug)]
pub struct Requirements<'a> {
    /// All of these.
    pub scopes: &'a Scopes,
    /// Whether a token that was derived from the key does as well.
    pub derived: bool,
    /// Whether it spends the key's limit, and is refused when there is none left.
    pub limited: bool,
    /// Whether a paused key will do.
    pub even_paused: bool,
    /// Whether a key may also be the token of `Bearer` or the password of `Basic`, as OAuth's clients send their secrets
    /// (RFC 6749 §2.3.1).
    pub oauth: bool,
}

impl Requirements<'static> {
    /// Whatever stands for a key does, if it is good.
    pub const fn plain() -> Requirements<'static> {
        Requirements { scopes: &NO_SCOPES, derived: true, limited: true, even_paused: false, oauth: false }
    }
}

/// What a request that stands for another one says of the credentials that it is to be judged by.
pub struct GatewayDemand {
    pub guard: Guard,
    pub scopes: Scopes,
}

impl Guard {
    pub fn takes_key(self) -> bool {
        matches!(self, Guard::ApiKey | Guard::Flexible)
    }

    pub fn takes_token(self) -> bool {
        matches!(self, Guard::Jwt | Guard::Flexible)
    }
}
