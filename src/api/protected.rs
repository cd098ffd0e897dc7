//! `/protected/…`: three routes that show who asks, one for each kind of credential.

use serde::Serialize;

use crate::app::App;
use crate::base::error::Error;
use crate::base::id::UserId;
use crate::guard::principal::Principal;
use crate::http::request::Request;
use crate::http::response::{self, Response};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Admitted<'a> {
    message: &'static str,
    user: Requester<'a>,
    access_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Requester<'a> {
    user_id: UserId,
    email: &'a str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
}

/// `GET /protected/user-only` → 200.
pub(crate) fn user_only(_: &App, request: &mut Request) -> Result<Response, Error> {
    let user = request.principal.user()?;
    response::ok(&Admitted {
        message: "This route is accessible only with user JWT token",
        user: Requester { user_id: user.id, email: &user.email, kind: None },
        access_type: "user",
    })
}

/// `GET /protected/service-only` → 200.
pub(crate) fn service_only(_: &App, request: &mut Request) -> Result<Response, Error> {
    admitted("This route is accessible only with API key", &request.principal)
}

/// `GET /protected/flexible` → 200.
pub(crate) fn flexible(_: &App, request: &mut Request) -> Result<Response, Error> {
    admitted("This route accepts both user JWT and API key", &request.principal)
}

fn admitted(message: &'static str, principal: &Principal) -> Result<Response, Error> {
    let (user_id, email, kind) = match principal {
        Principal::User(user) => (user.id, &user.email, "user"),
        Principal::Service(service) => (service.key.owner, &service.key.email, "service"),
        Principal::Anonymous => return Err(Error::Internal("a protected route has no guard".to_string())),
    };
    response::ok(&Admitted { message, user: Requester { user_id, email, kind: Some(kind) }, access_type: kind })
}
