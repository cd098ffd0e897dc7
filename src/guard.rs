//! Who asks: turns the credentials of a request into a [`Principal`].
//!
//! It never blocks. What it needs it finds in memory, or it says what has to be asked of the store first.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use crate::app::App;
use crate::clock::Timestamp;
use crate::error::{Challenge, Error, Sent};
use crate::id::SessionId;
use crate::key::{KeyHash, KnownKey};
use crate::principal::{Principal, Service, User};
use crate::quota::Quota;
use crate::session::LiveSession;
use crate::token::AccessClaims;
use crate::usage::Outcome;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub scope: Option<&'static str>,
    /// Whether it spends the key's limit, and is refused when there is none left.
    pub limited: bool,
}

/// One credential of a request.
enum Presented<T, V> {
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
    key: Presented<KeyHash, KnownKey>,
    /// What became of the key, once it was judged.
    outcome: Option<Outcome>,
    /// What is left of the key's limit, if it has one.
    pub quota: Option<Quota>,
    /// Counted and spent before.
    again: bool,
    token: Presented<AccessClaims, LiveSession>,
}

/// What a guard says.
pub enum Verdict {
    Admitted(Principal),
    Refused(Error),
    /// It cannot say before this is looked up in the store; the answer is to be put into the credentials.
    AskForKey(KeyHash),
    AskForSession(SessionId),
}

impl Credentials {
    pub fn found_key(&mut self, found: Option<Arc<KnownKey>>) {
        if let Presented::Plausible(hash) = self.key {
            self.key = Presented::Found(hash, found);
        }
    }

    pub fn found_session(&mut self, found: Option<Arc<LiveSession>>) {
        if let Presented::Plausible(claims) = std::mem::replace(&mut self.token, Presented::Bad) {
            self.token = Presented::Found(claims, found);
        }
    }
}

impl Credentials {
    /// Whether a key was presented that is no good; one that is merely used too often or for too much is.
    pub fn key_failed(&self, admitted: &Principal) -> bool {
        let is_real = matches!(self.outcome, Some(Outcome::RateLimited | Outcome::InsufficientScope));
        !matches!(self.key, Presented::Absent) && !matches!(admitted, Principal::Service(_)) && !is_real
    }
}

impl Guard {
    /// Reads the credentials that this guard takes.
    pub fn read(self, app: &App, headers: &HeaderMap) -> Credentials {
        Credentials {
            key: if self.takes_key() { presented_key(headers) } else { Presented::Absent },
            outcome: None,
            quota: None,
            again: false,
            token: if self.takes_token() { presented_token(app, headers) } else { Presented::Absent },
        }
    }

    /// Reads the credentials of a request once more, which they have admitted before: a use is counted once.
    pub fn read_again(self, app: &App, headers: &HeaderMap, principal: &Principal) -> Credentials {
        let mut credentials = self.read(app, headers);
        credentials.again = true;
        if matches!(principal, Principal::User(_)) && !matches!(credentials.key, Presented::Absent) {
            credentials.key = Presented::Bad;
        }
        credentials
    }

    /// Judges the credentials. The key goes first; where it is no good, the token decides. Never blocks.
    pub fn judge(self, app: &App, terms: Terms, credentials: &mut Credentials) -> Verdict {
        if self == Guard::Public {
            return Verdict::Admitted(Principal::Anonymous);
        }
        let now = app.clock.now();
        judge_key(app, terms, credentials, now)
            .or_else(|| judge_token(app, credentials, now))
            .unwrap_or_else(|| Verdict::Refused(self.refusal(terms, credentials)))
    }

    fn takes_key(self) -> bool {
        matches!(self, Guard::ApiKey | Guard::Flexible)
    }

    fn takes_token(self) -> bool {
        matches!(self, Guard::Jwt | Guard::Flexible)
    }

    /// The error for credentials none of which is good: a key's comes before a token's.
    fn refusal(self, terms: Terms, credentials: &Credentials) -> Error {
        match (credentials.outcome, terms.scope, credentials.quota) {
            (Some(Outcome::InsufficientScope), Some(scope), _) => return Error::InsufficientScope(scope),
            (Some(Outcome::RateLimited), _, Some(quota)) => {
                let message = "API key is over its rate limit";
                return Error::TooMany { message, wait: quota.retry_after() };
            }
            _ => {}
        }
        let sent = if matches!(credentials.token, Presented::Absent) { Sent::No } else { Sent::Yes };
        let challenge = Challenge { token: self.takes_token().then_some(sent), key: self.takes_key() };
        match credentials.key {
            Presented::Absent => Error::unauthorized(challenge),
            _ => Error::Unauthenticated { message: "Invalid or expired API key", challenge },
        }
    }
}

/// `None`: the key is no good, or there is none. A key that is known is counted, once, whatever becomes of it.
fn judge_key(app: &App, terms: Terms, credentials: &mut Credentials, now: Timestamp) -> Option<Verdict> {
    let known = match &credentials.key {
        Presented::Absent | Presented::Bad => return None,
        Presented::Plausible(hash) => match app.known_keys.recall(hash) {
            Some(known) => known,
            None => return Some(Verdict::AskForKey(*hash)),
        },
        Presented::Found(_, known) => known.clone(),
    };
    credentials.key = Presented::Bad;
    let key = known?;
    let outcome = if credentials.again {
        key.outcome(terms.scope, now)
    } else {
        let (outcome, quota) = app.keys.present(&key, terms.scope, terms.limited, now);
        credentials.quota = quota;
        outcome
    };
    credentials.outcome = Some(outcome);
    (outcome == Outcome::Allowed).then(|| {
        Verdict::Admitted(Principal::Service(Service { key: key.id, owner: key.owner, email: key.email.clone() }))
    })
}

/// `None`: the token is no good, or there is none.
fn judge_token(app: &App, credentials: &Credentials, now: Timestamp) -> Option<Verdict> {
    let (claims, live) = match &credentials.token {
        Presented::Absent | Presented::Bad => return None,
        Presented::Plausible(claims) => match app.live_sessions.recall(&claims.sid) {
            // One that has expired as far as is remembered may have been refreshed elsewhere.
            Some(live) if live.as_ref().is_none_or(|session| session.expires_at > now) => (claims, live),
            _ => return Some(Verdict::AskForSession(claims.sid)),
        },
        Presented::Found(claims, live) => (claims, live.clone()),
    };
    let session = live.filter(|session| session.user == claims.sub && session.expires_at > now)?;
    Some(Verdict::Admitted(Principal::User(User {
        id: session.user,
        email: session.email.clone(),
        session: session.id,
    })))
}

fn presented_key(headers: &HeaderMap) -> Presented<KeyHash, KnownKey> {
    let mut values = headers.get_all(X_API_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Presented::Absent,
        (Some(value), None) => KeyHash::of(value.as_bytes()).map_or(Presented::Bad, Presented::Plausible),
        // Which of two would count is anybody's guess.
        (Some(_), Some(_)) => Presented::Bad,
    }
}

/// RFC 6750 §2.1. Another scheme's credential is no token, good or bad.
fn presented_token(app: &App, headers: &HeaderMap) -> Presented<AccessClaims, LiveSession> {
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
