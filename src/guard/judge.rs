//! Who asks: turns the credentials of a request into a [`Principal`].
//!
//! It never blocks. What it needs it finds in memory, or it says what has to be asked of the store first.

use std::sync::Arc;

use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::error::{Challenge, Error, Presenter, Sent};
use crate::base::id::{KeyId, SessionId};
use crate::guard::credentials::{Credential, Credentials};
use crate::guard::principal::{AuthenticatedService, AuthenticatedUser, Principal};
use crate::guard::requirements::{Guard, Requirements};
use crate::keys::key::{Demand, KeyHash, KnownKey};
use crate::keys::usage::Outcome;
use crate::tokens::claims::ServiceClaims;

/// What a guard says.
pub enum Decision {
    Admit(Principal),
    Refuse(Error),
    /// It cannot say before this is looked up in the store; the answer is to be put into the credentials.
    AskForKey(KeyHash),
    AskForService(KeyId),
    AskForSession(SessionId),
}

impl Guard {
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
