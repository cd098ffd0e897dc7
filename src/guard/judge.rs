//! Who asks: turns the credentials of a request into a [`Principal`].
//!
//! It never blocks. What it needs it finds in memory, or it says what has to be asked of the store first.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use crate::accounts::session::LiveSession;
use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::error::{Challenge, Error, Presenter, Sent};
use crate::base::form_encoding::form_decoded;
use crate::base::id::{KeyId, SessionId};
use crate::guard::principal::{AuthenticatedService, AuthenticatedUser, Principal};
use crate::keys::key::{Demand, KeyHash, KnownKey};
use crate::keys::scopes::{NO_SCOPES, Scopes};
use crate::keys::usage::Outcome;
use crate::memory::limiter::Quota;
use crate::tokens::claims::{AccessClaims, Claims, ServiceClaims};

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

/// One credential of a request.
enum Credential<T, V> {
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
    key: Credential<KeyHash, KnownKey>,
    /// A token that was derived from a key.
    derived: Credential<Arc<ServiceClaims>, KnownKey>,
    /// What became of the key, or of the one behind the token, once it was judged.
    outcome: Option<(Outcome, Presenter)>,
    /// What is left of the key's limit, if it has one.
    pub quota: Option<Quota>,
    /// Whom they admitted before: that use is counted and spent, and nobody else may come of them now.
    again: Option<Principal>,
    token: Credential<AccessClaims, LiveSession>,
    /// More was sent than RFC 6749 §2.3 allows, be it good or bad.
    in_several_ways: bool,
}

/// What a guard says.
pub enum Decision {
    Admit(Principal),
    Refuse(Error),
    /// It cannot say before this is looked up in the store; the answer is to be put into the credentials.
    AskForKey(KeyHash),
    AskForService(KeyId),
    AskForSession(SessionId),
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

    /// Judges the credentials. The key goes first, then what was derived from one; where it is no good, the user's token
    /// decides. Never blocks.
    pub fn judge(self, app: &App, requirements: Requirements<'_>, credentials: &mut Credentials) -> Decision {
        if self == Guard::Public {
            return Decision::Admit(Principal::Anonymous);
        }
        let now = app.clock.now();
        judge_key(app, requirements, credentials, now)
            .or_else(|| judge_derived(app, requirements, credentials, now))
            .or_else(|| judge_token(app, credentials, now))
            .unwrap_or_else(|| Decision::Refuse(self.refusal(requirements, credentials)))
    }

    /// Judges credentials to the end; `None`: they are no good. Waits for the store: not on an I/O thread.
    pub fn settle(
        self,
        app: &App,
        requirements: Requirements<'_>,
        mut credentials: Credentials,
    ) -> Result<Option<Principal>, Error> {
        loop {
            match self.judge(app, requirements, &mut credentials) {
                Decision::Admit(principal) => return Ok(Some(principal)),
                Decision::Refuse(_) => return Ok(None),
                Decision::AskForKey(hash) => credentials.found_key(app.known_keys.fetch(hash)?),
                Decision::AskForService(id) => credentials.found_service(app.service_keys.fetch(id)?),
                Decision::AskForSession(id) => credentials.found_session(app.live_sessions.fetch(id)?),
            }
        }
    }

    fn takes_key(self) -> bool {
        matches!(self, Guard::ApiKey | Guard::Flexible)
    }

    fn takes_token(self) -> bool {
        matches!(self, Guard::Jwt | Guard::Flexible)
    }

    /// The error for credentials none of which is good: a key's comes before a token's.
    fn refusal(self, requirements: Requirements<'_>, credentials: &Credentials) -> Error {
        let key_is_absent = matches!(credentials.key, Credential::Absent);
        let told = credentials.outcome.filter(|(_, by)| *by == Presenter::Key || key_is_absent);
        match (told, credentials.quota) {
            (Some((Outcome::InsufficientScope, by)), _) => {
                return Error::InsufficientScope { scopes: requirements.scopes.to_string(), by };
            }
            (Some((Outcome::RateLimited, _)), Some(quota)) => {
                let message = "API key is over its rate limit";
                return Error::TooMany { message, wait: quota.retry_after() };
            }
            _ => {}
        }
        let derived = !matches!(credentials.derived, Credential::Absent);
        let sent = if derived || !matches!(credentials.token, Credential::Absent) { Sent::Yes } else { Sent::No };
        let challenge = Challenge {
            token: (derived || self.takes_token() || requirements.oauth).then_some(sent),
            key: self.takes_key(),
            basic: requirements.oauth,
        };
        match credentials.key {
            Credential::Absent => Error::unauthorized(challenge),
            _ if credentials.in_several_ways => {
                Error::Unauthenticated { message: "Send the API key in one way only", challenge }
            }
            _ => Error::Unauthenticated { message: "Invalid or expired API key", challenge },
        }
    }
}

/// `None`: the key is no good, or there is none. A key that is known is counted, once, whatever becomes of it.
fn judge_key(
    app: &App,
    requirements: Requirements<'_>,
    credentials: &mut Credentials,
    now: Timestamp,
) -> Option<Decision> {
    let known = match &credentials.key {
        Credential::Absent | Credential::Bad => return None,
        Credential::Plausible(hash) => match app.known_keys.recall(hash) {
            Some(known) => known,
            None => return Some(Decision::AskForKey(*hash)),
        },
        Credential::Found(_, known) => known.clone(),
    };
    credentials.key = Credential::Bad;
    present(app, requirements, credentials, known?, None, now)
}

/// `None`: the key behind the token is no good, or there is no such token. It counts as the key.
fn judge_derived(
    app: &App,
    requirements: Requirements<'_>,
    credentials: &mut Credentials,
    now: Timestamp,
) -> Option<Decision> {
    let (claims, known) = match &credentials.derived {
        Credential::Absent | Credential::Bad => return None,
        Credential::Plausible(claims) => match app.service_keys.recall(&claims.key) {
            Some(known) => (claims.clone(), known),
            None => return Some(Decision::AskForService(claims.key)),
        },
        Credential::Found(claims, known) => (claims.clone(), known.clone()),
    };
    credentials.derived = Credential::Bad;
    present(app, requirements, credentials, known?, Some(claims), now)
}

fn present(
    app: &App,
    requirements: Requirements<'_>,
    credentials: &mut Credentials,
    key: Arc<KnownKey>,
    derived: Option<Arc<ServiceClaims>>,
    now: Timestamp,
) -> Option<Decision> {
    let narrowed = derived.as_ref().map(|claims| &claims.scopes);
    let Requirements { scopes, limited, even_paused, .. } = requirements;
    let demand = Demand { scopes, narrowed, limited, even_paused };
    let outcome = if let Some(admitted) = &credentials.again {
        if !matches!(admitted, Principal::Service(service) if service.key.id == key.id) {
            return None;
        }
        key.outcome(demand, now)
    } else {
        let (outcome, quota) = app.keys.present(&key, demand, now);
        // Of a key that is no good nothing is told, not even that it has a limit; of two, what the answer is about.
        if credentials.outcome.is_none() || outcome == Outcome::Allowed {
            credentials.quota = quota.filter(|_| outcome.is_of_good_key());
        }
        outcome
    };
    let presenter = if narrowed.is_some() { Presenter::Token } else { Presenter::Key };
    // The error speaks of the key, where both were sent.
    credentials.outcome.get_or_insert((outcome, presenter));
    (outcome == Outcome::Allowed).then_some(Decision::Admit(Principal::Service(AuthenticatedService { key, derived })))
}

/// `None`: the token is no good, or there is none.
fn judge_token(app: &App, credentials: &Credentials, now: Timestamp) -> Option<Decision> {
    let (claims, live) = match &credentials.token {
        Credential::Absent | Credential::Bad => return None,
        Credential::Plausible(claims) => match app.live_sessions.recall(&claims.sid) {
            // One that has expired as far as is remembered may have been refreshed elsewhere.
            Some(live) if live.as_ref().is_none_or(|session| session.expires_at > now) => (claims, live),
            _ => return Some(Decision::AskForSession(claims.sid)),
        },
        Credential::Found(claims, live) => (claims, live.clone()),
    };
    let session = live.filter(|session| session.user == claims.sub && session.expires_at > now)?;
    // It was put aside for another one: whoever has it is not the client.
    if claims.generation.is_some_and(|generation| session.orphans.contains(generation)) {
        return None;
    }
    Some(Decision::Admit(Principal::User(AuthenticatedUser {
        id: session.user,
        email: session.email.clone(),
        session: session.id,
    })))
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
