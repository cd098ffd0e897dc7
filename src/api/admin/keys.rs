//! `/admin/keys`: everyone's keys. What is done here is what their owners do at `/keys`.

use serde::Serialize;

use super::no_such_user;
use crate::api::keys::{AskedPage, ListedKey, NEW, NewKey, RotatedKey, read_change, read_grace, read_spec};
use crate::api::{paging, usage};
use crate::app::App;
use crate::base::error::Error;
use crate::base::id::UserId;
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};
use crate::keys::key::ApiKey;

/// A key as its owner sees it, and whose it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Owned<T> {
    user_id: UserId,
    #[serde(flatten)]
    key: T,
}

fn shown(key: &(ApiKey, u64)) -> Owned<ListedKey<'_>> {
    Owned { user_id: key.0.owner, key: ListedKey::new(key) }
}

/// Whose key the path names.
fn owner(app: &App, request: &Request) -> Result<UserId, Error> {
    app.keys.owner_of(request.parameters.get("id"))
}

/// `GET /admin/keys?userId=&externalId=&name=&status=&limit=&after=` → 200, newest first.
pub(crate) fn list(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read_query(request, &["userId", "externalId", "name", "status", "limit", "after"])?;
    let owner = form.optional("userId", |text| UserId::parse(text).ok_or("must be a UUID"));
    let AskedPage { filter, limit, after } = AskedPage::read(&mut form, owner);
    form.finish(Some(()))?;
    let page = app.keys.page(&filter, after, limit)?;
    let page = page.ok_or_else(|| paging::no_such_place("one of the API keys in this list"))?;
    let shown: Vec<_> = page.keys.iter().map(shown).collect();
    paging::answer(request, "/admin/keys", limit, &shown, page.next)
}

/// `POST /admin/keys` → 201, the only answer that shows the key; 403 for a scope that its owner does not have, 404 if the
/// owner is gone or inactive.
pub(crate) fn create(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &[&["userId"][..], &NEW].concat())?;
    let owner = form.required("userId", |text| UserId::parse(text).ok_or("must be a UUID"));
    let spec = read_spec(app, &mut form);
    let (owner, spec) = form.finish(owner.zip(spec))?;
    let (key, secret) = app.keys.create(owner, spec, &request.by_operator())?.ok_or_else(no_such_user)?;
    response::created(&Owned { user_id: owner, key: NewKey::new(&key, &secret) })
}

/// `GET /admin/keys/:id` → 200 with the key.
pub(crate) fn show(app: &App, request: &mut Request) -> Result<Response, Error> {
    response::ok(&shown(&app.keys.get(owner(app, request)?, request.parameters.get("id"))?))
}

/// `PATCH /admin/keys/:id` → 200 with the key; 409 if it is revoked or if too many would be usable.
pub(crate) fn change(app: &App, request: &mut Request) -> Result<Response, Error> {
    let change = read_change(app, request)?;
    let (owner, by) = (owner(app, request)?, request.by_operator());
    response::ok(&shown(&app.keys.change(owner, request.parameters.get("id"), &change, &by)?))
}

/// `DELETE /admin/keys/:id` → 200, also if it is revoked already.
pub(crate) fn revoke(app: &App, request: &mut Request) -> Result<Response, Error> {
    app.keys.revoke(owner(app, request)?, request.parameters.get("id"), &request.by_operator())?;
    response::message("API key revoked successfully")
}

/// `POST /admin/keys/:id/rotate` → 201 with a new key, in the only answer that shows it; 409 if the key cannot be rotated.
pub(crate) fn rotate(app: &App, request: &mut Request) -> Result<Response, Error> {
    let grace = read_grace(request)?;
    let owner = owner(app, request)?;
    let made = app.keys.rotate(owner, request.parameters.get("id"), grace, &request.by_operator())?;
    response::created(&Owned { user_id: owner, key: RotatedKey::new(&made) })
}

/// `GET /admin/keys/:id/usage?from=&to=&by=` → 200 with a series without gaps.
pub(crate) fn usage(app: &App, request: &mut Request) -> Result<Response, Error> {
    usage::of_key_of(app, request, owner(app, request)?)
}
