//! What a route requires of a credential.

use crate::keys::scopes::{NO_SCOPES, Scopes};

/// The credential that a route accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    Public,
    /// An access token, as `Authorization: Bearer`.
    Jwt,
    /// An API key, as `x-api-key` or `Authorization: Bearer`.
    ApiKey,
    /// Either; a valid key comes first.
    Flexible,
}

/// What a route requires of a credential, beside that it is valid.
#[derive(Clone, Copy, Debug)]
pub struct Requirements<'a> {
    /// The key, or the user, must have all of these.
    pub scopes: &'a Scopes,
    /// Whether a token that was derived from the key is accepted too.
    pub derived: bool,
    /// Whether the request counts against the key's limit.
    pub limited: bool,
    /// Whether a paused key is accepted.
    pub even_paused: bool,
    /// Whether a key is accepted from every address, whatever it allows.
    pub from_anywhere: bool,
    /// Whether a user is accepted who has to verify their e-mail first.
    pub even_unverified: bool,
    /// Whether a key is also accepted as the password of `Basic` or as the `client_secret` of a form, as OAuth clients
    /// send their secrets (RFC 6749 §2.3.1). Then it is accepted in one way at a time (§2.3).
    pub oauth: bool,
}

impl Requirements<'static> {
    /// Any valid key or token derived from one.
    pub(crate) const fn plain() -> Requirements<'static> {
        Requirements {
            scopes: &NO_SCOPES,
            derived: true,
            limited: true,
            even_paused: false,
            from_anywhere: false,
            even_unverified: false,
            oauth: false,
        }
    }
}

/// The guard and scopes that a gateway asks for on its client's behalf.
pub struct GatewayDemand {
    pub guard: Guard,
    pub scopes: Scopes,
}

impl Guard {
    pub(crate) fn takes_key(self) -> bool {
        matches!(self, Guard::ApiKey | Guard::Flexible)
    }

    pub(crate) fn takes_token(self) -> bool {
        matches!(self, Guard::Jwt | Guard::Flexible)
    }
}
