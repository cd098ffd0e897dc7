//! The credentials of a request, as they are read from its headers.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use crate::accounts::session::LiveSession;
use crate::app::App;
use crate::base::error::Presenter;
use crate::base::form_encoding::form_decoded;
use crate::guard::principal::Principal;
use crate::guard::requirements::{Guard, Requirements};
use crate::keys::key::{KeyHash, KnownKey};
use crate::keys::usage::Outcome;
use crate::memory::limiter::Quota;
use crate::tokens::claims::{AccessClaims, Claims, ServiceClaims};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// One credential of a request.
pub enum Credential<T, V> {
    Absent,
    /// No good, as the request alone tells.
    Bad,
    /// It may be good; what is remembered or stored of it decides.
    Plausible(T),
    /// What was found in the store; `None`: nothing.
    Found(T, Option<Arc<V>>),
}

/// What a request presented to its guard.
pub struct Credentials {
    pub key: Credential<KeyHash, KnownKey>,
    /// A token that was derived from a key.
    pub derived: Credential<Arc<ServiceClaims>, KnownKey>,
    /// What became of the key, or of the one behind the token, once it was judged.
    pub outcome: Option<(Outcome, Presenter)>,
    /// What is left of the key's limit, if it has one.
    pub quota: Option<Quota>,
    /// Whom they admitted before: that use is counted and spent, and nobody else may come of them now.
    pub again: Option<Principal>,
    pub token: Credential<AccessClaims, LiveSession>,
    /// More was sent than RFC 6749 §2.3 allows, be it good or bad.
    pub in_several_ways: bool,
}

impl Credentials {
    fn none() -> Credentials {
        Credentials {
            key: Credential::Absent,
            derived: Credential::Absent,
            outcome: None,
            quota: None,
            again: None,
            token: Credential::Absent,
            in_several_ways: false,
        }
    }

    pub fn of_key(hash: KeyHash) -> Credentials {
        Credentials { key: Credential::Plausible(hash), ..Credentials::none() }
    }

    pub fn of_token(claims: Claims) -> Credentials {
        match claims {
            Claims::User(claims) => Credentials { token: Credential::Plausible(claims), ..Credentials::none() },
            Claims::Service(claims) => Credentials { derived: Credential::Plausible(claims), ..Credentials::none() },
        }
    }

    pub fn found_key(&mut self, found: Option<Arc<KnownKey>>) {
        if let Credential::Plausible(hash) = self.key {
            self.key = Credential::Found(hash, found);
        }
    }

    pub fn found_service(&mut self, found: Option<Arc<KnownKey>>) {
        if let Credential::Plausible(claims) = std::mem::replace(&mut self.derived, Credential::Bad) {
            self.derived = Credential::Found(claims, found);
        }
    }

    pub fn found_session(&mut self, found: Option<Arc<LiveSession>>) {
        if let Credential::Plausible(claims) = std::mem::replace(&mut self.token, Credential::Bad) {
            self.token = Credential::Found(claims, found);
        }
    }
}

impl Credentials {
    /// Whether a key was presented that is no good; one that is merely used too often or for too much is.
    pub fn key_failed(&self) -> bool {
        let is_real = matches!(self.outcome, Some((outcome, Presenter::Key)) if outcome.is_of_good_key());
        self.again.is_none() && !is_real && !matches!(self.key, Credential::Absent)
    }
}

impl Guard {
    /// Reads the credentials that this guard takes.
    pub fn read(self, app: &App, requirements: Requirements<'_>, headers: &HeaderMap) -> Credentials {
        let derived = self.takes_key() && requirements.derived;
        let mut credentials = Credentials::none();
        if self.takes_key() {
            credentials.key = presented_key(headers);
        }
        let authorization = if self.takes_token() || derived || requirements.oauth {
            authorization(app, requirements, headers)
        } else {
            Authorization::Absent
        };
        match authorization {
            Authorization::Absent => {}
            _ if requirements.oauth && !matches!(credentials.key, Credential::Absent) => {
                credentials.key = Credential::Bad;
                credentials.in_several_ways = true;
            }
            Authorization::Key(key) => credentials.key = key,
            Authorization::Token(Claims::User(claims)) if self.takes_token() => {
                credentials.token = Credential::Plausible(claims);
            }
            Authorization::Token(Claims::Service(claims)) if derived => {
                credentials.derived = Credential::Plausible(claims);
            }
            // Where only a derived token would do, this one was meant as one.
            _ if !self.takes_token() => credentials.derived = Credential::Bad,
            _ => credentials.token = Credential::Bad,
        }
        credentials
    }

    /// Reads the credentials of a request once more, which they have admitted before: a use is counted once.
    pub fn read_again(
        self,
        app: &App,
        requirements: Requirements<'_>,
        headers: &HeaderMap,
        principal: &Principal,
    ) -> Credentials {
        let mut credentials = self.read(app, requirements, headers);
        credentials.again = Some(principal.clone());
        if matches!(principal, Principal::User(_)) && !matches!(credentials.key, Credential::Absent) {
            credentials.key = Credential::Bad;
        }
        credentials
    }
}

fn presented_key(headers: &HeaderMap) -> Credential<KeyHash, KnownKey> {
    let mut values = headers.get_all(X_API_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Credential::Absent,
        (Some(value), None) => KeyHash::of(value.as_bytes()).map_or(Credential::Bad, Credential::Plausible),
        // Which of two would count is anybody's guess.
        (Some(_), Some(_)) => Credential::Bad,
    }
}

/// What was sent as `Authorization`.
enum Authorization {
    Absent,
    Bad,
    Token(Claims),
    Key(Credential<KeyHash, KnownKey>),
}

/// RFC 6750 §2.1, RFC 7617 §2. A credential of a scheme that is not taken is no credential, good or bad.
fn authorization(app: &App, requirements: Requirements<'_>, headers: &HeaderMap) -> Authorization {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Authorization::Absent,
        (Some(value), None) => value.as_bytes(),
        (Some(_), Some(_)) => return Authorization::Bad,
    };
    if let Some(token) = of_scheme(b"Bearer ", value) {
        if let Some(hash) = KeyHash::of(token).filter(|_| requirements.oauth) {
            return Authorization::Key(Credential::Plausible(hash));
        }
        let claims = std::str::from_utf8(token).ok().and_then(|token| app.tokens.judge(token));
        return claims.map_or(Authorization::Bad, Authorization::Token);
    }
    match of_scheme(b"Basic ", value).filter(|_| requirements.oauth) {
        Some(pair) => Authorization::Key(password(pair).map_or(Credential::Bad, Credential::Plausible)),
        None => Authorization::Absent,
    }
}

/// The credential of this scheme, whose case does not matter.
fn of_scheme<'a>(scheme: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (sent, credential) = value.split_at_checked(scheme.len())?;
    sent.eq_ignore_ascii_case(scheme).then(|| credential.trim_ascii())
}

/// A key that is the password of `Basic`, whoever the user is: a key has its owner.
fn password(pair: &[u8]) -> Option<KeyHash> {
    let pair = String::from_utf8(BASE64_STANDARD.decode(pair).ok()?).ok()?;
    let (_, password) = pair.split_once(':')?;
    KeyHash::of(form_decoded(password)?.as_bytes())
}
