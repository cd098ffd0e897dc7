//! Verifying keys for services that have received one from someone: what a guard would say of it.

use std::sync::Arc;

use crate::cache::Lookup;
use crate::clock::Clock;
use crate::error::Error;
use crate::key::{Demand, KeyHash, Keys, KnownKey};
use crate::limit::Quota;
use crate::scope::Scopes;
use crate::usage::Outcome;

/// Is this key good for something that needs these scopes?
pub struct Question {
    /// `None`: it does not even look like a key.
    pub key: Option<KeyHash>,
    pub scopes: Scopes,
}

impl Question {
    fn demand(&self) -> Demand<'_> {
        Demand { scopes: &self.scopes, narrowed: None, limited: true, even_paused: false }
    }
}

/// What is said of a key.
pub enum Verdict {
    NotFound,
    Judged { key: Arc<KnownKey>, outcome: Outcome, quota: Option<Quota> },
}

/// Answers in order. Each known key is counted and spends its limit, as if it had been presented here. Waits for what is
/// not remembered.
pub fn verify(
    keys: &Keys,
    known_keys: &Lookup<KeyHash, KnownKey>,
    questions: &[Question],
    clock: &Clock,
) -> Result<Vec<Verdict>, Error> {
    let hashes: Vec<KeyHash> = questions.iter().filter_map(|question| question.key).collect();
    let mut found = known_keys.get(&hashes)?.into_iter();
    let now = clock.now();
    let judged = questions.iter().map(|question| {
        let known = question.key.and_then(|_| found.next().flatten());
        known.map_or(Verdict::NotFound, |key| {
            let (outcome, quota) = keys.present(&key, question.demand(), now);
            Verdict::Judged { key, outcome, quota }
        })
    });
    Ok(judged.collect())
}
