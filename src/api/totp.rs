//! `/auth/totp`: the user's second factor.

use serde::Serialize;

use super::auth::code;
use crate::accounts::second_factor::codes::Code;
use crate::accounts::second_factor::shown::Proof;
use crate::app::App;
use crate::base::error::Error;
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};

#[derive(Serialize)]
struct Begun<'a> {
    secret: &'a str,
    url: &'a str,
}

/// `POST /auth/totp` → 200 with the secret for the user's app; 409 if a second factor is on, 501 without a data key. It
/// counts for nothing until a code confirms it.
pub(crate) fn begin(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["password"])?;
    let password = form.required("password", |text| Ok(text.to_string()));
    let password = form.finish(password)?;
    let user = request.principal.user()?;
    let begun = app.second_factors.begin(user.id, &user.email, &password, &request.by())?;
    response::ok(&Begun { secret: &begun.secret, url: &begun.url })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Enabled<'a> {
    recovery_codes: &'a [String],
}

/// `POST /auth/totp/confirm` → 200 with the recovery codes; 401 for a wrong code, 409 if there is nothing to confirm. The
/// other sessions of the user end.
pub(crate) fn confirm(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["code"])?;
    let code = form.required("code", |text| Ok(Code::parse(text)));
    let code = form.finish(code)?;
    let user = request.principal.user()?;
    let recovery_codes = app.second_factors.enable(user.id, user.session, &code, &request.by())?;
    response::ok(&Enabled { recovery_codes: &recovery_codes })
}

/// `POST /auth/totp/disable` → 200; 401 for a wrong password or code, 409 if no second factor is on.
pub(crate) fn disable(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["password", "code"])?;
    let password = form.required("password", |text| Ok(text.to_string()));
    let code = code(&mut form);
    let password = form.finish(password)?;
    let proof = Proof { password: &password, code: code.as_ref() };
    let user = request.principal.user()?;
    app.second_factors.disable(user.id, &user.email, &proof, &request.by())?;
    response::message("Second factor disabled")
}
