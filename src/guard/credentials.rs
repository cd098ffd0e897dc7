//! Reads the credentials of a request from its headers.

use std::net::IpAddr;
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

/// The state of one credential of a request.
pub enum Credential<T, V> {
    Absent,
    /// Invalid, as the request alone shows.
    Bad,
    /// It may be valid: that depends on what is remembered or stored.
    Plausible(T),
    /// What the store has; `None`: nothing.
    Found(T, Option<Arc<V>>),
}

/// The credentials that a request presented to its guard.
pub struct Credentials {
    pub key: Credential<KeyHash, KnownKey>,
    /// A token that was derived from a key.
    pub derived: Credential<Arc<ServiceClaims>, KnownKey>,
    /// The outcome of the key, of the key behind the token, or of a user who lacks a scope, once it was judged.
    pub outcome: Option<(Outcome, Presenter)>,
    /// What is left of the key's limit, if it has one.
    pub quota: Option<Quota>,
    /// Set if these credentials were judged before: that use is counted already, and they must not admit anybody else
    /// now.
    pub again: Option<Principal>,
    pub token: Credential<AccessClaims, LiveSession>,
    /// The address of the client who presented them. `None`: it is not known.
    pub client: Option<IpAddr>,
    /// Whether a key was sent as the token of `Bearer`.
    pub bearer_key: bool,
    /// Whether the user has to verify their e-mail first; set once the token was judged.
    pub is_unverified: bool,
    /// Why no key counts, whatever the keys are worth.
    pub misuse: Option<Misuse>,
}

/// How keys must not be sent.
#[derive(Clone, Copy, Debug)]
pub enum Misuse {
    /// In more than one way, where OAuth forbids it (RFC 6749 §2.3).
    SeveralWays,
    /// It is not clear which of two keys counts.
    TwoKeys,
    /// As `Bearer`, on a route that takes only users' tokens.
    InPlaceOfToken,
}

impl Credentials {
    fn none(client: Option<IpAddr>) -> Credentials {
        Credentials {
            key: Credential::Absent,
            derived: Credential::Absent,
            outcome: None,
            quota: None,
            again: None,
            token: Credential::Absent,
            client,
            bearer_key: false,
            is_unverified: false,
            misuse: None,
        }
    }

    pub(crate) fn of_key(hash: KeyHash, client: Option<IpAddr>) -> Credentials {
        Credentials { key: Credential::Plausible(hash), ..Credentials::none(client) }
    }

    pub(crate) fn of_token(claims: Claims, client: Option<IpAddr>) -> Credentials {
        let none = Credentials::none(client);
        match claims {
            Claims::User(claims) => Credentials { token: Credential::Plausible(claims), ..none },
            Claims::Service(claims) => Credentials { derived: Credential::Plausible(claims), ..none },
        }
    }

    fn add_bearer_key(&mut self, guard: Guard, hash: KeyHash) {
        self.bearer_key = true;
        match self.key {
            _ if !guard.takes_key() => self.misuse = Some(Misuse::InPlaceOfToken),
            Credential::Absent => self.key = Credential::Plausible(hash),
            Credential::Plausible(other) if other == hash => {}
            _ => {
                self.key = Credential::Bad;
                self.misuse = Some(Misuse::TwoKeys);
            }
        }
    }

    /// A key as the `client_secret` of a form (RFC 6749 §2.3.1).
    pub(crate) fn add_client_secret(&mut self, secret: &str) {
        if let (Credential::Absent, Credential::Absent, Credential::Absent) = (&self.key, &self.derived, &self.token) {
            self.key = KeyHash::of(secret.as_bytes()).map_or(Credential::Bad, Credential::Plausible);
        } else {
            (self.key, self.derived, self.token) = (Credential::Bad, Credential::Absent, Credential::Absent);
            self.misuse = Some(Misuse::SeveralWays);
        }
    }

    pub(crate) fn found_key(&mut self, found: Option<Arc<KnownKey>>) {
        if let Credential::Plausible(hash) = self.key {
            self.key = Credential::Found(hash, found);
        }
    }

    pub(crate) fn found_service(&mut self, found: Option<Arc<KnownKey>>) {
        if let Credential::Plausible(claims) = std::mem::replace(&mut self.derived, Credential::Bad) {
            self.derived = Credential::Found(claims, found);
        }
    }

    pub(crate) fn found_session(&mut self, found: Option<Arc<LiveSession>>) {
        if let Credential::Plausible(claims) = std::mem::replace(&mut self.token, Credential::Bad) {
            self.token = Credential::Found(claims, found);
        }
    }
}

impl Credentials {
    /// Whether an invalid key was presented. A key that is valid but over its limit or without the scope does not count
    /// as one.
    pub(crate) fn key_failed(&self) -> bool {
        let is_real = self.outcome.is_some_and(|(outcome, by)| by.sent_key() && outcome.is_of_good_key());
        self.again.is_none() && !is_real && !matches!(self.key, Credential::Absent)
    }
}

impl Guard {
    /// Reads the credentials that this guard takes. `client`: the address of the client.
    pub fn read(self, app: &App, requirements: Requirements<'_>, headers: &HeaderMap, client: IpAddr) -> Credentials {
        let derived = self.takes_key() && requirements.derived;
        let mut credentials = Credentials::none(Some(client));
        if self.takes_key() {
            credentials.key = presented_key(headers);
        }
        if self == Guard::Public {
            return credentials;
        }
        let takes_jwt = self.takes_token() || derived || requirements.oauth;
        match authorization(app, takes_jwt, requirements.oauth, headers) {
            Authorization::Absent => {}
            _ if requirements.oauth && !matches!(credentials.key, Credential::Absent) => {
                credentials.key = Credential::Bad;
                credentials.misuse = Some(Misuse::SeveralWays);
            }
            Authorization::Key(hash) => credentials.add_bearer_key(self, hash),
            Authorization::Password(key) => credentials.key = key,
            Authorization::Token(Claims::User(claims)) if self.takes_token() => {
                credentials.token = Credential::Plausible(claims);
            }
            Authorization::Token(Claims::Service(claims)) if derived => {
                credentials.derived = Credential::Plausible(claims);
            }
            // If only derived tokens are accepted, this one was meant to be one.
            _ if !self.takes_token() => credentials.derived = Credential::Bad,
            _ => credentials.token = Credential::Bad,
        }
        credentials
    }

    /// Reads the credentials of a request again, after they have admitted it: the use is counted only once.
    pub fn read_again(
        self,
        app: &App,
        requirements: Requirements<'_>,
        headers: &HeaderMap,
        client: IpAddr,
        principal: &Principal,
    ) -> Credentials {
        let mut credentials = self.read(app, requirements, headers, client);
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
        // Of two keys, it is not clear which one counts.
        (Some(_), Some(_)) => Credential::Bad,
    }
}

/// What was sent as `Authorization`.
enum Authorization {
    Absent,
    Bad,
    Token(Claims),
    /// A key as the token of `Bearer`.
    Key(KeyHash),
    /// A key as the password of `Basic`.
    Password(Credential<KeyHash, KnownKey>),
}

/// RFC 6750 §2.1, RFC 7617 §2. A credential of a scheme that the route does not accept is ignored.
fn authorization(app: &App, takes_jwt: bool, takes_basic: bool, headers: &HeaderMap) -> Authorization {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Authorization::Absent,
        (Some(value), None) => value.as_bytes(),
        (Some(_), Some(_)) => return Authorization::Bad,
    };
    if let Some(token) = of_scheme(b"Bearer ", value) {
        if let Some(hash) = KeyHash::of(token) {
            return Authorization::Key(hash);
        }
        if !takes_jwt {
            return Authorization::Absent;
        }
        let claims = std::str::from_utf8(token).ok().and_then(|token| app.tokens.judge(token));
        return claims.map_or(Authorization::Bad, Authorization::Token);
    }
    match of_scheme(b"Basic ", value).filter(|_| takes_basic) {
        Some(pair) => Authorization::Password(password(pair).map_or(Credential::Bad, Credential::Plausible)),
        None => Authorization::Absent,
    }
}

/// The credential after this scheme, whose case does not matter.
fn of_scheme<'a>(scheme: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (sent, credential) = value.split_at_checked(scheme.len())?;
    sent.eq_ignore_ascii_case(scheme).then(|| credential.trim_ascii())
}

/// A key as the password of `Basic`. The user name is ignored, because a key has its owner.
fn password(pair: &[u8]) -> Option<KeyHash> {
    let pair = String::from_utf8(BASE64_STANDARD.decode(pair).ok()?).ok()?;
    let (_, password) = pair.split_once(':')?;
    KeyHash::of(form_decoded(password)?.as_bytes())
}
