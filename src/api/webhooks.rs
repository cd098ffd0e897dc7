//! `/webhooks`: a user's endpoints, which are told what happens to their account and keys.

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::paging;
use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::error::{Challenge, Error, Sent};
use crate::base::id::{DeliveryId, WebhookId};
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};
use crate::webhooks::secret::WebhookSecret;
use crate::webhooks::sent::{DeliveryState, SentDelivery};
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

/// A delivery that was queued.
#[derive(Serialize)]
pub(super) struct Queued {
    pub id: DeliveryId,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedDelivery<'a> {
    id: DeliveryId,
    message_id: Uuid,
    #[serde(rename = "type")]
    kind: &'a str,
    body: Option<&'a RawValue>,
    created_at: Timestamp,
    state: DeliveryState,
    tries: u32,
    last_tried_at: Option<Timestamp>,
    next_try_at: Option<Timestamp>,
    response_status: Option<u16>,
    reason: Option<&'a str>,
    #[serde(flatten)]
    answer: Option<ShownAnswer<'a>>,
}

/// What the receiver said. Only operators see it: an answer from within a network could tell others of it.
#[derive(Serialize)]
struct ShownAnswer<'a> {
    response: Option<&'a str>,
}

impl ListedDelivery<'_> {
    fn new(delivery: &SentDelivery, holder: Holder) -> ListedDelivery<'_> {
        ListedDelivery {
            id: delivery.id,
            message_id: delivery.event.map_or(delivery.id.0, |event| event.0),
            kind: &delivery.kind,
            body: delivery.body.as_deref().and_then(|body| serde_json::from_str(body).ok()),
            created_at: delivery.created_at,
            state: delivery.state,
            tries: delivery.tries,
            last_tried_at: delivery.last_tried_at,
            next_try_at: delivery.next_try_at,
            response_status: delivery.status,
            reason: delivery.reason.as_deref(),
            answer: (holder == Holder::Operators).then_some(ShownAnswer { response: delivery.answer.as_deref() }),
        }
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

/// `POST /webhooks/:id/test` → 202; 409 if the endpoint is switched off.
pub(crate) fn test(app: &App, request: &mut Request) -> Result<Response, Error> {
    let holder = holder(app, request)?;
    Form::read(request, &[])?.finish(Some(()))?;
    response::accepted(&Queued { id: app.webhooks.test(holder, request.parameters.get("id"))? })
}

/// 200 with a page of deliveries, newest first. `path`: of the endpoints.
pub(super) fn list_deliveries(app: &App, request: &Request, holder: Holder, path: &str) -> Result<Response, Error> {
    let mut form = Form::read_query(request, &["limit", "after"])?;
    let limit = paging::limit(&mut form);
    let after = form.optional("after", |text| DeliveryId::parse(text).ok_or("must be a UUID"));
    form.finish(Some(()))?;
    let id = request.parameters.get("id");
    let page = app.webhooks.deliveries(holder, id, after, limit)?;
    let page = page.ok_or_else(|| paging::no_such_place("a delivery to this webhook"))?;
    let last = page.items.last().filter(|_| page.more).map(|delivery| delivery.id);
    let shown: Vec<_> = page.items.iter().map(|delivery| ListedDelivery::new(delivery, holder)).collect();
    paging::answer(request, &format!("{path}/{id}/deliveries"), limit, &shown, last)
}

/// `GET /webhooks/:id/deliveries?limit=&after=` → 200, newest first.
pub(crate) fn deliveries(app: &App, request: &mut Request) -> Result<Response, Error> {
    let holder = holder(app, request)?;
    list_deliveries(app, request, holder, "/webhooks")
}

/// `POST /webhooks/:id/deliveries/:delivery/resend` → 202; 409 if the endpoint is switched off.
pub(crate) fn resend(app: &App, request: &mut Request) -> Result<Response, Error> {
    let holder = holder(app, request)?;
    Form::read(request, &[])?.finish(Some(()))?;
    let (id, delivery) = (request.parameters.get("id"), request.parameters.get("delivery"));
    response::accepted(&Queued { id: app.webhooks.resend(holder, id, delivery)? })
}
