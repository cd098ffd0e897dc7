//! `/keys/verify…`: services ask about keys that others have presented to them.

use std::net::IpAddr;

use serde::Serialize;

use crate::accounts::limits::Limited;
use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::duration;
use crate::base::error::Error;
use crate::base::id::{KeyId, UserId};
use crate::base::metadata::Metadata;
use crate::guard::principal::Principal;
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response, whole_seconds};
use crate::keys::key::KeyHash;
use crate::keys::scopes::Scopes;
use crate::keys::usage::Outcome;
use crate::keys::verification::{self, Question, Verification};
use crate::memory::limiter::Quota;

/// For an unknown key, and for an invalid key of another user, everything else is null.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified<'a> {
    valid: bool,
    code: &'static str,
    key_id: Option<KeyId>,
    user_id: Option<UserId>,
    name: Option<&'a str>,
    scopes: Option<&'a Scopes>,
    expires_at: Option<Timestamp>,
    rate_limit: Option<ShownQuota>,
    external_id: Option<&'a str>,
    metadata: Option<&'a Metadata>,
    /// What is left of the key's limit; null where `rate_limit` is.
    remaining: Option<u32>,
}

/// Times are in seconds from now, as in the fields `RateLimit` and `Retry-After`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownQuota {
    limit: u32,
    window: String,
    remaining: u32,
    reset: u64,
    retry_after: Option<u64>,
}

#[derive(Serialize)]
struct Batch<'a> {
    results: Vec<Verified<'a>>,
}

impl Verified<'_> {
    fn new<'a>(verdict: &'a Verification, asker: &Principal) -> Verified<'a> {
        let Verification::Judged { key, outcome, quota } = verdict else {
            return Verified { code: "NOT_FOUND", ..Verified::default() };
        };
        let code = match outcome {
            Outcome::Allowed => "VALID",
            Outcome::Disabled => "DISABLED",
            Outcome::Expired => "EXPIRED",
            Outcome::ForbiddenAddress => "FORBIDDEN_ADDRESS",
            Outcome::InsufficientScope => "INSUFFICIENT_SCOPE",
            Outcome::RateLimited => "RATE_LIMITED",
        };
        // Ended keys turn up in old logs and repositories: only their code is told to others, nothing about their
        // owner.
        if !outcome.is_of_good_key() && asker.account() != Some(key.owner) {
            return Verified { code, ..Verified::default() };
        }
        Verified {
            valid: *outcome == Outcome::Allowed,
            code,
            key_id: Some(key.id),
            user_id: Some(key.owner),
            name: Some(&key.name),
            scopes: Some(&key.scopes),
            expires_at: key.expires_at,
            rate_limit: quota.as_ref().map(ShownQuota::from),
            external_id: key.external_id.as_deref(),
            metadata: key.metadata.as_ref(),
            remaining: quota.map(|quota| quota.remaining),
        }
    }
}

impl From<&Quota> for ShownQuota {
    fn from(quota: &Quota) -> ShownQuota {
        ShownQuota {
            limit: quota.policy.limit,
            window: duration::write(quota.policy.window),
            remaining: quota.remaining,
            reset: whole_seconds(quota.reset),
            retry_after: (quota.remaining == 0).then(|| whole_seconds(quota.retry_after())),
        }
    }
}

const FIELDS: [&str; 4] = ["key", "scopes", "ip", "consume"];

fn question(form: &mut Form) -> Option<Question> {
    let key = form.required("key", |text| Ok(KeyHash::of(text.as_bytes())));
    let scopes = form.texts("scopes", Scopes::parse).unwrap_or_default();
    let client = form.optional("ip", parse_ip);
    let consume = form.boolean("consume").unwrap_or(true);
    key.map(|key| Question { key, scopes, client, consume })
}

/// The address of the client who has sent the key to the service that asks.
pub(super) fn parse_ip(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| "must be an IP address")
}

/// A user who asks about unknown keys is limited as if they had presented them. A service that asks with its own key is
/// not: it passes on what others send, and they must not be able to stop its verifications.
fn judge(app: &App, request: &Request, asked: &[Question]) -> Result<Vec<Verification>, Error> {
    let is_user = matches!(request.principal, Principal::User(_));
    if is_user {
        app.address_limits.check(Limited::FailedKey, request.client)?;
    }
    let verdicts = verification::verify(&app.keys, &app.known_keys, asked, &app.clock)?;
    if is_user {
        for _ in verdicts.iter().filter(|verdict| matches!(verdict, Verification::NotFound)) {
            // If this one exceeds the limit, the next request is refused.
            let _ = app.address_limits.spend_on_key(true, request.client);
        }
    }
    Ok(verdicts)
}

/// `POST /keys/verify` → 200, whatever the key's state. It counts as a use of the key, unless `consume` is false.
pub(crate) fn verify(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &FIELDS)?;
    let asked = question(&mut form);
    let asked = form.finish(asked)?;
    let verdicts = judge(app, request, &[asked])?;
    let verdict = verdicts.first().unwrap_or(&Verification::NotFound);
    response::ok(&Verified::new(verdict, &request.principal))
}

/// The most keys of a batch.
const MOST: usize = 100;

/// `POST /keys/verify-batch` → 200 with an answer for each key, in order.
pub(crate) fn verify_batch(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["keys"])?;
    let asked = form.objects("keys", 1..=MOST, &FIELDS, question);
    let asked = form.finish(asked)?;
    let verdicts = judge(app, request, &asked)?;
    let results = verdicts.iter().map(|verdict| Verified::new(verdict, &request.principal)).collect();
    response::ok(&Batch { results })
}
