//! Who asks: turns the credentials of a request into a [`Principal`].
//!
//! It works in two steps. [`Guard::screen`] needs only the request and refuses what cannot succeed; it never blocks.
//! [`Guard::admit`] asks the store about what is left.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use crate::app::App;
use crate::error::{Challenge, Error, Sent};
use crate::key::KeyHash;
use crate::principal::Principal;
use crate::token::AccessClaims;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

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

/// One credential of a request, as far as the request alone tells.
enum Presented<T> {
    Absent,
    Bad,
    Plausible(T),
}

/// What a request presented to its guard, screened.
pub struct Credentials {
    key: Presented<KeyHash>,
    token: Presented<AccessClaims>,
}

impl Guard {
    /// Reads the credentials that this guard takes and refuses when none of them can be good. Never blocks.
    pub fn screen(self, app: &App, headers: &HeaderMap) -> Result<Credentials, Error> {
        let key = if self.takes_key() { presented_key(headers) } else { Presented::Absent };
        let token = if self.takes_token() { presented_token(app, headers) } else { Presented::Absent };
        let credentials = Credentials { key, token };
        let hopeful = matches!(credentials.key, Presented::Plausible(_))
            || matches!(credentials.token, Presented::Plausible(_))
            || self == Guard::Public;
        if hopeful { Ok(credentials) } else { Err(self.refusal(&credentials)) }
    }

    /// Judges the credentials against what is stored. The key goes first; where it is no good, the token decides.
    pub fn admit(self, app: &App, credentials: &Credentials) -> Result<Principal, Error> {
        if self == Guard::Public {
            return Ok(Principal::Anonymous);
        }
        if let Presented::Plausible(hash) = &credentials.key
            && let Some(service) = app.keys.authenticate(hash)?
        {
            return Ok(Principal::Service(service));
        }
        if let Presented::Plausible(claims) = &credentials.token
            && let Some(user) = app.sessions.authenticate(claims)?
        {
            return Ok(Principal::User(user));
        }
        Err(self.refusal(credentials))
    }

    fn takes_key(self) -> bool {
        matches!(self, Guard::ApiKey | Guard::Flexible)
    }

    fn takes_token(self) -> bool {
        matches!(self, Guard::Jwt | Guard::Flexible)
    }

    /// The 401 for credentials none of which is good: a key's error comes before a token's.
    fn refusal(self, credentials: &Credentials) -> Error {
        let sent = if matches!(credentials.token, Presented::Absent) { Sent::No } else { Sent::Yes };
        let challenge = Challenge { token: self.takes_token().then_some(sent), key: self.takes_key() };
        match credentials.key {
            Presented::Absent => Error::unauthorized(challenge),
            _ => Error::Unauthenticated { message: "Invalid or expired API key", challenge },
        }
    }
}

fn presented_key(headers: &HeaderMap) -> Presented<KeyHash> {
    let mut values = headers.get_all(X_API_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Presented::Absent,
        (Some(value), None) => KeyHash::of(value.as_bytes()).map_or(Presented::Bad, Presented::Plausible),
        // Which of two would count is anybody's guess.
        (Some(_), Some(_)) => Presented::Bad,
    }
}

/// RFC 6750 §2.1. Another scheme's credential is no token, good or bad.
fn presented_token(app: &App, headers: &HeaderMap) -> Presented<AccessClaims> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Presented::Absent,
        (Some(value), None) => value.as_bytes(),
        (Some(_), Some(_)) => return Presented::Bad,
    };
    let Some((scheme, token)) = value.split_at_checked("Bearer ".len()) else { return Presented::Absent };
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Presented::Absent;
    }
    std::str::from_utf8(token)
        .ok()
        .and_then(|token| app.tokens.judge_access(token.trim_ascii()))
        .map_or(Presented::Bad, Presented::Plausible)
}
