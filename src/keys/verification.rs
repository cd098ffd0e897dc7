//! Verifies keys for services that have received them from others, as if the keys had been presented to Keyward.

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::keys::key::{Demand, KeyHash, KnownKey};
use crate::keys::scopes::Scopes;
use crate::keys::service::Keys;
use crate::keys::usage::Outcome;
use crate::memory::limiter::Quota;
use crate::memory::lookup::Lookup;

/// Is this key valid, and does it have these scopes?
pub(crate) struct Question {
    /// `None`: the text does not have the form of a key.
    pub key: Option<KeyHash>,
    pub scopes: Scopes,
    /// The address of the client who has sent the key.
    pub client: Option<IpAddr>,
    /// Whether the question counts as a use of the key and spends its rate limit.
    pub consume: bool,
}

impl Question {
    fn demand(&self) -> Demand<'_> {
        Demand {
            scopes: &self.scopes,
            narrowed: None,
            limited: true,
            even_paused: false,
            client: self.client,
            from_anywhere: false,
        }
    }
}

/// The answer to a [`Question`].
pub(crate) enum Verification {
    NotFound,
    Judged { key: Arc<KnownKey>, outcome: Outcome, quota: Option<Quota> },
}

/// Answers in the order of the questions. Each known key is counted and spends its rate limit, as if the client had
/// presented it here, unless the question says otherwise. Keys that are not in memory are read from the store, so this
/// may block.
pub(crate) fn verify(
    keys: &Keys,
    known_keys: &Lookup<KeyHash, KnownKey>,
    questions: &[Question],
    clock: &Clock,
) -> Result<Vec<Verification>, Error> {
    let hashes: Vec<KeyHash> = questions.iter().filter_map(|question| question.key).collect();
    let mut found = known_keys.get(&hashes)?.into_iter();
    let now = clock.now();
    let judged = questions.iter().map(|question| {
        let known = question.key.and_then(|_| found.next().flatten());
        known.map_or(Verification::NotFound, |key| {
            let judge = if question.consume { Keys::present } else { Keys::look };
            let (outcome, quota) = judge(keys, &key, question.demand(), now);
            Verification::Judged { key, outcome, quota }
        })
    });
    Ok(judged.collect())
}
