//! `/admin/webhooks`: the installation's endpoints, which are told what happens to everyone. What is done here is what users
//! do at `/webhooks`.

use serde::Serialize;

use crate::api::webhooks::{ListedWebhook, Queued, WithSecret, list_deliveries, read_change, read_spec};
use crate::app::App;
use crate::base::error::Error;
use crate::base::id::UserId;
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};
use crate::webhooks::webhook::{Holder, Webhook};

/// An endpoint as a user sees theirs, and which operator made it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made<'a> {
    #[serde(flatten)]
    webhook: ListedWebhook<'a>,
    created_by: UserId,
}

fn shown(webhook: &Webhook) -> Made<'_> {
    Made { webhook: ListedWebhook::new(webhook), created_by: webhook.owner }
}

fn check(app: &App) -> Result<Holder, Error> {
    app.webhooks.check(Holder::Operators)?;
    Ok(Holder::Operators)
}

/// `POST /admin/webhooks` → 201, the only answer that shows the secret; 409 if there are a hundred.
pub(crate) fn create(app: &App, request: &mut Request) -> Result<Response, Error> {
    let holder = check(app)?;
    let spec = read_spec(app, request, holder)?;
    let no_longer = || Error::Forbidden("The operator is gone or inactive");
    let maker = request.principal.account().ok_or_else(no_longer)?;
    let made = app.webhooks.create(holder, maker, spec, &request.by_operator())?;
    let (webhook, secret) = made.ok_or_else(no_longer)?;
    response::created(&WithSecret::new(shown(&webhook), &secret))
}

/// `GET /admin/webhooks` → 200, oldest first.
pub(crate) fn list(app: &App, _: &mut Request) -> Result<Response, Error> {
    let webhooks = app.webhooks.of(check(app)?)?;
    response::ok(&webhooks.iter().map(shown).collect::<Vec<_>>())
}

/// `GET /admin/webhooks/:id` → 200.
pub(crate) fn show(app: &App, request: &mut Request) -> Result<Response, Error> {
    response::ok(&shown(&app.webhooks.get(check(app)?, request.parameters.get("id"))?))
}

/// `PATCH /admin/webhooks/:id` → 200 with the endpoint.
pub(crate) fn change(app: &App, request: &mut Request) -> Result<Response, Error> {
    let holder = check(app)?;
    let change = read_change(app, request, holder)?;
    let (id, by) = (request.parameters.get("id"), request.by_operator());
    response::ok(&shown(&app.webhooks.change(holder, id, &change, &by)?))
}

/// `DELETE /admin/webhooks/:id` → 200; what waits for it is not sent any more.
pub(crate) fn delete(app: &App, request: &mut Request) -> Result<Response, Error> {
    app.webhooks.delete(check(app)?, request.parameters.get("id"), &request.by_operator())?;
    response::message("Webhook deleted successfully")
}

/// `POST /admin/webhooks/:id/rotate-secret` → 200 with a new secret, in the only answer that shows it.
pub(crate) fn rotate_secret(app: &App, request: &mut Request) -> Result<Response, Error> {
    let holder = check(app)?;
    Form::read(request, &[])?.finish(Some(()))?;
    let (id, by) = (request.parameters.get("id"), request.by_operator());
    let (webhook, secret) = app.webhooks.rotate_secret(holder, id, &by)?;
    response::ok(&WithSecret::new(shown(&webhook), &secret))
}

/// `POST /admin/webhooks/:id/test` → 202; 409 if the endpoint is switched off.
pub(crate) fn test(app: &App, request: &mut Request) -> Result<Response, Error> {
    let holder = check(app)?;
    Form::read(request, &[])?.finish(Some(()))?;
    response::accepted(&Queued { id: app.webhooks.test(holder, request.parameters.get("id"))? })
}

/// `GET /admin/webhooks/:id/deliveries?limit=&after=` → 200, newest first, with the beginning of each answer.
pub(crate) fn deliveries(app: &App, request: &mut Request) -> Result<Response, Error> {
    list_deliveries(app, request, check(app)?, "/admin/webhooks")
}

/// `POST /admin/webhooks/:id/deliveries/:delivery/resend` → 202; 409 if the endpoint is switched off.
pub(crate) fn resend(app: &App, request: &mut Request) -> Result<Response, Error> {
    let holder = check(app)?;
    Form::read(request, &[])?.finish(Some(()))?;
    let (id, delivery) = (request.parameters.get("id"), request.parameters.get("delivery"));
    response::accepted(&Queued { id: app.webhooks.resend(holder, id, delivery)? })
}
