//! `/keys`: a user's API keys.

use serde::Serialize;

use crate::app::App;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::http::request::{Form, Request};
use crate::http::response::{self, Response};
use crate::id::KeyId;
use crate::key::parse_key_name;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewKey<'a> {
    id: KeyId,
    key: &'a str,
    name: &'a str,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedKey<'a> {
    id: KeyId,
    name: &'a str,
    hint: &'a str,
    is_active: bool,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    created_at: Timestamp,
}

/// `POST /keys/create` → 201, the only answer that shows the key.
pub fn create(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["name", "expiresAt"])?;
    let name = form.required("name", parse_key_name);
    let expires_at = form.optional("expiresAt", |text| app.keys.parse_expiry(text));
    let name = form.finish(name)?;
    let (key, secret) = app.keys.create(request.principal.user()?.id, name, expires_at)?;
    response::created(&NewKey {
        id: key.id,
        key: secret.expose(),
        name: &key.name,
        expires_at: key.expires_at,
        created_at: key.created_at,
    })
}

/// `GET /keys` → 200, newest first.
pub fn list(app: &App, request: &mut Request) -> Result<Response, Error> {
    let keys = app.keys.of_owner(request.principal.user()?.id)?;
    let listed: Vec<ListedKey<'_>> = keys
        .iter()
        .map(|key| ListedKey {
            id: key.id,
            name: &key.name,
            hint: &key.hint,
            is_active: key.is_active,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            created_at: key.created_at,
        })
        .collect();
    response::ok(&listed)
}

/// `DELETE /keys/:id` → 200, also when it is revoked already; 404 for anyone but the owner.
pub fn revoke(app: &App, request: &mut Request) -> Result<Response, Error> {
    app.keys.revoke(request.principal.user()?.id, &request.parameter)?;
    response::message("API key revoked successfully")
}
