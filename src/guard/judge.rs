//! Judges credentials: who asks, or why the request is refused.
//!
//! It never blocks. What it needs is in memory, or it says what has to be looked up in the store first.

use std::sync::Arc;

use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::error::{Challenge, Error, Presenter, Sent};
use crate::base::id::{KeyId, SessionId};
use crate::guard::credentials::{Credential, Credentials, Misuse};
use crate::guard::principal::{AuthenticatedService, AuthenticatedUser, Principal};
use crate::guard::requirements::{Guard, Requirements};
use crate::keys::key::{Demand, KeyHash, KnownKey};
use crate::keys::usage::Outcome;
use crate::tokens::claims::ServiceClaims;

/// What a guard decides.
pub(crate) enum Decision {
    Admit(Principal),
    Refuse(Error),
    /// It cannot decide before this is looked up in the store; put the answer into the credentials and judge again.
    AskForKey(KeyHash),
    AskForService(KeyId),
    AskForSession(SessionId),
}

impl Guard {
    /// Judges the credentials. The key comes first, then the token that was derived from a key; if neither is valid,
    /// the user's token decides. Never blocks.
    pub(crate) fn judge(self, app: &App, requirements: Requirements<'_>, credentials: &mut Credentials) -> Decision {
        if self == Guard::Public {
            return Decision::Admit(Principal::Anonymous);
        }
        let now = app.clock.now();
        judge_key(app, requirements, credentials, now)
            .or_else(|| judge_derived(app, requirements, credentials, now))
            .or_else(|| judge_token(app, requirements, credentials, now))
            .unwrap_or_else(|| Decision::Refuse(self.refusal(requirements, credentials)))
    }

    /// Judges credentials, looking up what is needed. `None`: they are not valid. Blocks: not for I/O threads.
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

    /// The error if no credential is valid; a key's error comes before a token's.
    fn refusal(self, requirements: Requirements<'_>, credentials: &Credentials) -> Error {
        let key_is_absent = matches!(credentials.key, Credential::Absent);
        let told = credentials.outcome.filter(|(_, by)| by.sent_key() || key_is_absent);
        match (told, credentials.quota) {
            (Some((Outcome::InsufficientScope, by)), _) => {
                return Error::InsufficientScope { scopes: requirements.scopes.to_string(), by };
            }
            (Some((Outcome::ForbiddenAddress, _)), _) => {
                return Error::Forbidden("API key may not be used from this address");
            }
            (Some((Outcome::RateLimited, _)), Some(quota)) => {
                let message = "API key is over its rate limit";
                return Error::TooMany { message, wait: quota.retry_after() };
            }
            _ => {}
        }
        if credentials.is_unverified && key_is_absent {
            return Error::Forbidden("E-mail address is not verified");
        }
        // A token that was derived from a key, or a key in its place.
        let of_service = credentials.bearer_key || !matches!(credentials.derived, Credential::Absent);
        let sent = if of_service || !matches!(credentials.token, Credential::Absent) { Sent::Yes } else { Sent::No };
        let challenge = Challenge {
            token: (of_service || self.takes_token() || requirements.oauth).then_some(sent),
            key: self.takes_key(),
            basic: requirements.oauth,
        };
        let message = match credentials.misuse {
            Some(Misuse::SeveralWays) => "Send the API key in one way only",
            Some(Misuse::TwoKeys) => "Two different API keys were sent, send one",
            Some(Misuse::InPlaceOfToken) => "API keys are not accepted here, send a user's access token",
            None if key_is_absent => return Error::unauthorized(challenge),
            None => "Invalid or expired API key",
        };
        Error::Unauthenticated { message, challenge }
    }
}

/// `None`: there is no valid key. A known key is counted once, whatever the outcome.
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

/// `None`: there is no valid derived token. It counts as a use of its key.
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
    let Requirements { scopes, limited, even_paused, from_anywhere, .. } = requirements;
    let demand = Demand { scopes, narrowed, limited, even_paused, client: credentials.client, from_anywhere };
    let outcome = if let Some(admitted) = &credentials.again {
        if !matches!(admitted, Principal::Service(service) if service.key.id == key.id) {
            return None;
        }
        key.outcome(demand, now)
    } else {
        let (outcome, quota) = app.keys.present(&key, demand, now);
        // Nothing is told of an invalid key, not even that it has a limit. If two keys were presented, the quota is
        // that of the one the answer is about.
        if credentials.outcome.is_none() || outcome == Outcome::Allowed {
            credentials.quota = quota.filter(|_| outcome.is_of_good_key());
        }
        outcome
    };
    let presenter = match narrowed {
        Some(_) => Presenter::Token,
        None if credentials.bearer_key => Presenter::BearerKey,
        None => Presenter::Key,
    };
    // If both were sent, the error is about the key.
    credentials.outcome.get_or_insert((outcome, presenter));
    (outcome == Outcome::Allowed).then_some(Decision::Admit(Principal::Service(AuthenticatedService { key, derived })))
}

/// `None`: there is no valid user's token, or the user lacks a scope. What counts is what the user has now, not what the
/// token says.
fn judge_token(
    app: &App,
    requirements: Requirements<'_>,
    credentials: &mut Credentials,
    now: Timestamp,
) -> Option<Decision> {
    let (claims, live) = match &credentials.token {
        Credential::Absent | Credential::Bad => return None,
        Credential::Plausible(claims) => match app.live_sessions.recall(&claims.sid) {
            // A remembered session that has expired may have been refreshed on another instance.
            Some(live) if live.as_ref().is_none_or(|session| session.expires_at > now) => (claims, live),
            _ => return Some(Decision::AskForSession(claims.sid)),
        },
        Credential::Found(claims, live) => (claims, live.clone()),
    };
    let session = live.filter(|session| session.user == claims.sub && session.expires_at > now)?;
    // A retry has replaced this generation, so its holder is not the client.
    if claims.generation.is_some_and(|generation| session.orphans.contains(generation)) {
        return None;
    }
    if session.awaits_verification && !requirements.even_unverified {
        credentials.is_unverified = true;
        return None;
    }
    if !session.scopes.cover(requirements.scopes) {
        credentials.outcome.get_or_insert((Outcome::InsufficientScope, Presenter::User));
        return None;
    }
    Some(Decision::Admit(Principal::User(AuthenticatedUser {
        id: session.user,
        email: session.email.clone(),
        email_verified: session.email_verified,
        scopes: session.scopes.clone(),
        session: session.id,
    })))
}
