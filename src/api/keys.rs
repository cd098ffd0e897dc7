//! `/keys`: a user's API keys.

use std::time::Duration;

use serde::Serialize;

use super::paging;
use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::duration;
use crate::base::error::{Challenge, Error, Sent};
use crate::base::form_encoding::url_encoded;
use crate::base::id::{KeyId, UserId};
use crate::base::metadata::Metadata;
use crate::base::period::DAY;
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};
use crate::keys::allowed_ips::AllowedIps;
use crate::keys::key::{
    ApiKey, KeyChange, KeySecret, LONGEST_WINDOW, MOST_IN_A_WINDOW, parse_external_id, parse_key_name,
};
use crate::keys::listing::{KeyFilter, KeyStatus};
use crate::keys::scopes::Scopes;
use crate::keys::service::{KeySpec, Successor};
use crate::memory::limiter::Rate;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewKey<'a> {
    id: KeyId,
    key: &'a str,
    name: &'a str,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
    scopes: &'a Scopes,
    rate_limit: Option<ShownLimit>,
    // What was not given is left out: most keys have none of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_ips: Option<&'a AllowedIps>,
}

/// What the list without pages leaves out: of a thousand keys, it would be megabytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'a> {
    metadata: Option<&'a Metadata>,
    allowed_ips: Option<&'a AllowedIps>,
}

impl Details<'_> {
    fn of(key: &ApiKey) -> Details<'_> {
        Details { metadata: key.metadata.as_ref(), allowed_ips: key.allowed_ips.as_ref() }
    }
}

/// A rate limit in requests and answers.
#[derive(Serialize)]
struct ShownLimit {
    limit: u32,
    window: String,
}

impl From<Rate> for ShownLimit {
    fn from(rate: Rate) -> ShownLimit {
        ShownLimit { limit: rate.limit, window: duration::write(rate.window) }
    }
}

impl<'a> NewKey<'a> {
    pub(super) fn new(key: &'a ApiKey, secret: &'a KeySecret) -> NewKey<'a> {
        NewKey {
            id: key.id,
            key: secret.expose(),
            name: &key.name,
            expires_at: key.expires_at,
            created_at: key.created_at,
            scopes: &key.scopes,
            rate_limit: key.rate_limit.map(ShownLimit::from),
            external_id: key.external_id.as_deref(),
            metadata: key.metadata.as_ref(),
            allowed_ips: key.allowed_ips.as_ref(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedKey<'a> {
    id: KeyId,
    name: &'a str,
    hint: &'a str,
    is_active: bool,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    #[serde(rename = "usesLast24h")]
    uses_last_24h: u64,
    created_at: Timestamp,
    scopes: &'a Scopes,
    rate_limit: Option<ShownLimit>,
    revoked_at: Option<Timestamp>,
    replaced_by: Option<KeyId>,
    external_id: Option<&'a str>,
    #[serde(flatten)]
    details: Option<Details<'a>>,
}

impl ListedKey<'_> {
    pub(super) fn new(counted: &(ApiKey, u64)) -> ListedKey<'_> {
        ListedKey { details: Some(Details::of(&counted.0)), ..ListedKey::without_details(counted) }
    }

    fn without_details((key, uses_last_24h): &(ApiKey, u64)) -> ListedKey<'_> {
        ListedKey {
            id: key.id,
            name: &key.name,
            hint: &key.hint,
            is_active: key.is_active,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            uses_last_24h: *uses_last_24h,
            created_at: key.created_at,
            scopes: &key.scopes,
            rate_limit: key.rate_limit.map(ShownLimit::from),
            revoked_at: key.revoked_at,
            replaced_by: key.replaced_by,
            external_id: key.external_id.as_deref(),
            details: None,
        }
    }
}

#[derive(Serialize)]
pub(super) struct RotatedKey<'a> {
    #[serde(flatten)]
    key: NewKey<'a>,
    replaces: ReplacedKey,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReplacedKey {
    id: KeyId,
    expires_at: Timestamp,
}

impl RotatedKey<'_> {
    pub(super) fn new(made: &Successor) -> RotatedKey<'_> {
        RotatedKey {
            key: NewKey::new(&made.key, &made.secret),
            replaces: ReplacedKey { id: made.old, expires_at: made.old_expires_at },
        }
    }
}

/// The fields of a new key.
pub(super) const NEW: [&str; 7] = ["name", "expiresAt", "scopes", "rateLimit", "externalId", "metadata", "allowedIps"];

/// Reads [`NEW`].
pub(super) fn read_spec(app: &App, form: &mut Form) -> Option<KeySpec> {
    let name = form.required("name", parse_key_name);
    let expires_at = form.optional("expiresAt", |text| app.keys.parse_expiry(text));
    let scopes = form.texts("scopes", Scopes::parse).unwrap_or_default();
    let rate_limit = rate_limit(form).flatten();
    let external_id = form.optional("externalId", parse_external_id);
    let metadata = form.any_object("metadata", Metadata::new).flatten();
    let allowed_ips = form.nullable_texts("allowedIps", AllowedIps::parse).flatten();
    name.map(|name| KeySpec { name, expires_at, scopes, rate_limit, external_id, metadata, allowed_ips })
}

/// `POST /keys/create` → 201, the only answer that shows the key.
pub(crate) fn create(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &NEW)?;
    let spec = read_spec(app, &mut form);
    let spec = form.finish(spec)?;
    // The owner may have been deleted or deactivated since the guard judged.
    let gone = || Error::unauthorized(Challenge { token: Some(Sent::Yes), key: false, basic: false });
    let (key, secret) = app.keys.create(request.principal.user()?.id, spec, &request.by())?.ok_or_else(gone)?;
    response::created(&NewKey::new(&key, &secret))
}

/// The field `rateLimit`; `Some(None)` is null.
fn rate_limit(form: &mut Form) -> Option<Option<Rate>> {
    form.object("rateLimit", &["limit", "window"], |form| {
        let limit = form.number("limit", 1..=MOST_IN_A_WINDOW);
        let window = form.required("window", |text| {
            const RULE: &str = "must be a whole number with a unit (s, m, h, d), such as 1s, 1m or 1h; at most 1d";
            duration::parse(text).ok().filter(|span| !span.is_zero() && *span <= LONGEST_WINDOW).ok_or(RULE)
        });
        limit.zip(window).map(|(limit, window)| Rate { limit, window })
    })
}

/// The query fields of a page.
const PAGE: [&str; 5] = ["name", "externalId", "status", "limit", "after"];

/// A page that is asked for.
pub(super) struct AskedPage {
    pub filter: KeyFilter,
    pub limit: usize,
    pub after: Option<KeyId>,
}

impl AskedPage {
    /// Reads [`PAGE`]. `owner`: whose keys; `None`: everyone's.
    pub(super) fn read(form: &mut Form, owner: Option<UserId>) -> AskedPage {
        AskedPage {
            filter: KeyFilter {
                owner,
                name: form.optional("name", parse_key_name),
                external_id: form.optional("externalId", parse_external_id),
                status: form.optional("status", KeyStatus::parse),
            },
            limit: paging::limit(form),
            after: form.optional("after", |text| KeyId::parse(text).ok_or("must be a UUID")),
        }
    }
}

/// `GET /keys` → 200, newest first, a thousand at most. With any of [`PAGE`]: a page of those that have this external id
/// and status and whose names begin so, with a link to the next one if there may be one.
pub(crate) fn list(app: &App, request: &mut Request) -> Result<Response, Error> {
    let owner = request.principal.user()?.id;
    let mut asked = url_encoded(request.query.as_deref().unwrap_or_default()).flatten();
    // Other fields in the query are ignored, as they always were.
    if !asked.any(|(name, _)| PAGE.contains(&&*name)) {
        let keys = app.keys.of_owner(owner)?;
        return response::ok(&keys.iter().map(ListedKey::without_details).collect::<Vec<_>>());
    }
    let mut form = Form::read_query(request, &PAGE)?;
    let AskedPage { filter, limit, after } = AskedPage::read(&mut form, Some(owner));
    form.finish(Some(()))?;
    let page = app.keys.page(&filter, after, limit)?;
    let what = if filter.name.is_some() { "one of the API keys in this list" } else { "one of your API keys" };
    let page = page.ok_or_else(|| paging::no_such_place(what))?;
    let shown: Vec<_> = page.keys.iter().map(ListedKey::new).collect();
    paging::answer(request, "/keys", limit, &shown, page.next)
}

/// `GET /keys/:id` → 200 with the key; 404 for anyone but the owner.
pub(crate) fn show(app: &App, request: &mut Request) -> Result<Response, Error> {
    let key = app.keys.get(request.principal.user()?.id, request.parameters.get("id"))?;
    response::ok(&ListedKey::new(&key))
}

/// Reads what to change of a key.
pub(super) fn read_change(app: &App, request: &mut Request) -> Result<KeyChange, Error> {
    const FIELDS: [&str; 8] =
        ["name", "isActive", "expiresAt", "scopes", "rateLimit", "externalId", "metadata", "allowedIps"];
    let mut form = Form::read(request, &FIELDS)?;
    let change = KeyChange {
        name: form.given("name", parse_key_name),
        is_active: form.boolean("isActive"),
        expires_at: form.nullable("expiresAt", |text| app.keys.parse_expiry(text)),
        scopes: form.texts("scopes", Scopes::parse),
        rate_limit: rate_limit(&mut form),
        external_id: form.nullable("externalId", parse_external_id),
        metadata: form.any_object("metadata", Metadata::new),
        allowed_ips: form.nullable_texts("allowedIps", AllowedIps::parse),
    };
    form.finish(Some(change))
}

/// `PATCH /keys/:id` → 200 with the key; 409 if it is revoked or if too many would be usable.
pub(crate) fn change(app: &App, request: &mut Request) -> Result<Response, Error> {
    let change = read_change(app, request)?;
    let key = app.keys.change(request.principal.user()?.id, request.parameters.get("id"), &change, &request.by())?;
    response::ok(&ListedKey::new(&key))
}

/// The default grace period of a rotated key.
const GRACE: Duration = DAY;

/// The longest grace period: rotated keys must not become a second set of keys.
const LONGEST_GRACE: Duration = Duration::from_secs(30 * DAY.as_secs());

/// Reads for how long a rotated key stays valid.
pub(super) fn read_grace(request: &mut Request) -> Result<Duration, Error> {
    let mut form = Form::read(request, &["gracePeriod"])?;
    let grace = form.optional("gracePeriod", |text| {
        const RULE: &str = "must be a whole number with a unit (s, m, h, d), such as 0s, 30m, 24h or 7d; at most 30d";
        duration::parse(text).ok().filter(|span| *span <= LONGEST_GRACE).ok_or(RULE)
    });
    form.finish(Some(grace.unwrap_or(GRACE)))
}

/// `POST /keys/:id/rotate` → 201 with a new key, in the only answer that shows it; 409 if the key cannot be rotated.
pub(crate) fn rotate(app: &App, request: &mut Request) -> Result<Response, Error> {
    let grace = read_grace(request)?;
    let owner = request.principal.user()?.id;
    let made = app.keys.rotate(owner, request.parameters.get("id"), grace, &request.by())?;
    response::created(&RotatedKey::new(&made))
}

/// `DELETE /keys/:id` → 200, also if it is revoked already; 404 for anyone but the owner.
pub(crate) fn revoke(app: &App, request: &mut Request) -> Result<Response, Error> {
    app.keys.revoke(request.principal.user()?.id, request.parameters.get("id"), &request.by())?;
    response::message("API key revoked successfully")
}

/// `POST /keys/revoke-self` → 200; by the key itself, also if it is over its limit or paused.
pub(crate) fn revoke_self(app: &App, request: &mut Request) -> Result<Response, Error> {
    let key = &request.principal.service()?.key;
    app.keys.revoke_own(key.id, key.owner, &request.by())?;
    response::message("API key revoked successfully")
}
