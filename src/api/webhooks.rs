//! `/webhooks`: a user's endpoints, which are told what happens to their account and keys.

use serde::Serialize;

use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::error::{Challenge, Error, Sent};
use crate::base::id::WebhookId;
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};
use crate::webhooks::secret::WebhookSecret;
use crate::webhooks::service::WebhookSpec;
use crate::webhooks::types::Types;
use crate::webhooks::webhook::{DisabledReason, Holder, Webhook, WebhookChange, parse_description};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedWebhook<'a> {
    id: WebhookId,
    url: &'a str,
    types: Option<&'a Types>,
    description: Option<&'a str>,
    is_active: bool,
    disabled_at: Option<Timestamp>,
    disabled_reason: Option<DisabledReason>,
    previous_secret_until: Option<Timestamp>,
    created_at: Timestamp,
}

impl ListedWebhook<'_> {
    pub(super) fn new(webhook: &Webhook) -> ListedWebhook<'_> {
        ListedWebhook {
            id: webhook.id,
            url: webhook.url.as_str(),
            types: webhook.types.as_ref(),
            description: webhook.description.as_deref(),
            is_active: webhook.is_active,
            disabled_at: webhook.disabled.map(|(at, _)| at),
            disabled_reason: webhook.disabled.map(|(_, reason)| reason),
            previous_secret_until: webhook.previous_secret_until,
            created_at: webhook.created_at,
        }
    }
}

/// With the secret, which only the answer shows that makes it.
#[derive(Serialize)]
pub(super) struct WithSecret<T> {
    #[serde(flatten)]
    webhook: T,
    secret: String,
}

impl<T> WithSecret<T> {
    pub(super) fn new(webhook: T, secret: &WebhookSecret) -> WithSecret<T> {
        WithSecret { webhook, secret: secret.written() }
    }
}

/// Whose endpoints the request is about, on a route for users.
fn holder(app: &App, request: &Request) -> Result<Holder, Error> {
    let holder = Holder::User(request.principal.user()?.id);
    app.webhooks.check(holder)?;
    Ok(holder)
}

/// Reads the fields of a new endpoint.
pub(super) fn read_spec(app: &App, request: &mut Request, holder: Holder) -> Result<WebhookSpec, Error> {
    let mut form = Form::read(request, &["url", "types", "description"])?;
    let url = form.required("url", |text| app.webhooks.parse_url(holder, text));
    let types = form.nullable_texts("types", Types::parse).flatten();
    let description = form.optional("description", parse_description);
    form.finish(url.map(|url| WebhookSpec { url, types, description }))
}

/// Reads what to change of an endpoint.
pub(super) fn read_change(app: &App, request: &mut Request, holder: Holder) -> Result<WebhookChange, Error> {
    let mut form = Form::read(request, &["url", "types", "description", "isActive"])?;
    let change = WebhookChange {
        url: form.given("url", |text| app.webhooks.parse_url(holder, text)),
        types: form.nullable_texts("types", Types::parse),
        description: form.nullable("description", parse_description),
        is_active: form.boolean("isActive"),
    };
    form.finish(Some(change))
}

/// `POST /webhooks` → 201, the only answer that shows the secret; 409 if there are ten.
pub(crate) fn create(app: &App, request: &mut Request) -> Result<Response, Error> {
    let holder = holder(app, request)?;
    let spec = read_spec(app, request, holder)?;
    // The user may have been deleted or deactivated, or their session ended, since the guard judged.
    let gone = || Error::unauthorized(Challenge { token: Some(Sent::Yes), key: false, basic: false });
    let made = app.webhooks.create(holder, request.principal.user()?.id, spec, &request.by())?;
    let (webhook, secret) = made.ok_or_else(gone)?;
    response::created(&WithSecret::new(ListedWebhook::new(&webhook), &secret))
}

/// `GET /webhooks` → 200, oldest first.
pub(crate) fn list(app: &App, request: &mut Request) -> Result<Response, Error> {
    let webhooks = app.webhooks.of(holder(app, request)?)?;
    response::ok(&webhooks.iter().map(ListedWebhook::new).collect::<Vec<_>>())
}

/// `GET /webhooks/:id` → 200; 404 for anyone but the owner.
pub(crate) fn show(app: &App, request: &mut Request) -> Result<Response, Error> {
    let webhook = app.webhooks.get(holder(app, request)?, request.parameters.get("id"))?;
    response::ok(&ListedWebhook::new(&webhook))
}

/// `PATCH /webhooks/:id` → 200 with the endpoint.
pub(crate) fn change(app: &App, request: &mut Request) -> Result<Response, Error> {
    let holder = holder(app, request)?;
    let change = read_change(app, request, holder)?;
    let webhook = app.webhooks.change(holder, request.parameters.get("id"), &change, &request.by())?;
    response::ok(&ListedWebhook::new(&webhook))
}

/// `DELETE /webhooks/:id` → 200; what waits for it is not sent any more.
pub(crate) fn delete(app: &App, request: &mut Request) -> Result<Response, Error> {
    app.webhooks.delete(holder(app, request)?, request.parameters.get("id"), &request.by())?;
    response::message("Webhook deleted successfully")
}

/// `POST /webhooks/:id/rotate-secret` → 200 with a new secret, in the only answer that shows it.
pub(crate) fn rotate_secret(app: &App, request: &mut Request) -> Result<Response, Error> {
    let holder = holder(app, request)?;
    Form::read(request, &[])?.finish(Some(()))?;
    let (webhook, secret) = app.webhooks.rotate_secret(holder, request.parameters.get("id"), &request.by())?;
    response::ok(&WithSecret::new(ListedWebhook::new(&webhook), &secret))
}
