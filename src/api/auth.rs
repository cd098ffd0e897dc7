//! `/auth/…`: signing up, logging in, refreshing, logging out, and the user's own account.

use std::time::Duration;

use serde::Serialize;

use crate::accounts::email::Email;
use crate::accounts::limits::Limited;
use crate::accounts::passwords::is_same;
use crate::accounts::second_factor::codes::Code;
use crate::accounts::second_factor::shown::Proof;
use crate::accounts::sessions::LoggedIn;
use crate::accounts::user::{User, parse_name};
use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::duration;
use crate::base::error::{Challenge, Error};
use crate::base::id::UserId;
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};
use crate::keys::grants::Grants;
use crate::keys::scopes::Scopes;
use crate::tokens::service::TokenPair;

#[derive(Serialize)]
struct AuthResult<'a> {
    user: Profile<'a>,
    #[serde(flatten)]
    tokens: &'a TokenPair,
}

#[derive(Serialize)]
struct Profile<'a> {
    id: UserId,
    email: &'a str,
    name: Option<&'a str>,
}

fn auth_result(logged_in: &LoggedIn) -> AuthResult<'_> {
    let user = &logged_in.user;
    let user = Profile { id: user.id, email: &user.email, name: user.name.as_deref() };
    AuthResult { user, tokens: &logged_in.tokens }
}

/// `POST /auth/signup` → 201; 409 when the e-mail is taken, 403 when sign-up is closed, 429 for too many from one
/// address.
pub(crate) fn sign_up(app: &App, request: &mut Request) -> Result<Response, Error> {
    app.sessions.may_sign_up()?;
    let mut form = Form::read(request, &["email", "password", "name"])?;
    let email = form.text_or_empty("email", Email::parse);
    let password = form.required("password", |text| app.password_rules.judge(text));
    let name = form.optional("name", parse_name);
    let (email, password) = form.finish(email.zip(password))?;
    // The mail goes to an address that nobody has verified. Without it, the user may ask for one later.
    let with_link = app.address_limits.spend(Limited::Mail, request.client).is_ok();
    let logged_in = app.sessions.sign_up(email, name, password, with_link, request.origin())?;
    response::created(&auth_result(&logged_in))
}

/// The code of a second factor. An empty one is none.
pub(super) fn code(form: &mut Form) -> Option<Code> {
    form.optional("code", |text| Ok((!text.is_empty()).then(|| Code::parse(text)))).flatten()
}

/// `POST /auth/login` → 200; 401 if anything is wrong with the credentials, or a code is due, 429 after too many failures.
pub(crate) fn log_in(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["email", "password", "code"])?;
    let email = form.text_or_empty("email", Email::parse);
    // No minimum: passwords of imported accounts may be shorter.
    let password = form.required("password", |text| Ok(text.to_string()));
    let code = code(&mut form);
    let (email, password) = form.finish(email.zip(password))?;
    let proof = Proof { password: &password, code: code.as_ref() };
    let logged_in = app.sessions.log_in(&email, &proof, request.origin())?;
    response::ok(&auth_result(&logged_in))
}

/// `POST /auth/refresh` → 200 with a new pair; 401 if the token is invalid or was used before.
pub(crate) fn refresh(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["refreshToken"])?;
    let token = form.required("refreshToken", |text| Ok(text.to_string()));
    let token = form.finish(token)?;
    response::ok(&app.sessions.refresh(&token, &request.by())?)
}

/// `POST /auth/logout` → 200; the session's tokens are refused afterwards.
pub(crate) fn log_out(app: &App, request: &mut Request) -> Result<Response, Error> {
    let user = request.principal.user()?;
    // Somebody else may have ended it since the guard judged: it has ended all the same.
    app.sessions.end(user.id, user.session, &request.by())?;
    response::message("Logged out successfully")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DerivedToken<'a> {
    access_token: String,
    token_type: &'static str,
    expires_at: Timestamp,
    scopes: &'a Scopes,
}

/// The longest lifetime of a derived token, and the default.
const DERIVED: Duration = Duration::from_secs(60 * 60);

/// `POST /auth/token` → 200 with a short-lived token for the key that asks. It ends with the key.
pub(crate) fn derive_token(app: &App, request: &mut Request) -> Result<Response, Error> {
    let key = request.principal.service()?.key.id;
    let key = app.service_keys.get(&[key])?.pop().flatten();
    // The user may have been deleted since the guard judged.
    let key = key.ok_or(Error::unauthorized(Challenge { token: None, key: true, basic: false }))?;
    let mut form = Form::read(request, &["scopes", "expiresIn"])?;
    let scopes = form.texts("scopes", |scopes| match Scopes::parse(scopes)? {
        scopes if !key.scopes.cover(&scopes) => Err("must be among those of the key"),
        scopes => Ok(scopes),
    });
    let lifetime = form.optional("expiresIn", |text| {
        const RULE: &str = "must be a whole number with a unit (s, m, h, d), such as 30s or 15m; at most 1h";
        duration::parse(text).ok().filter(|span| !span.is_zero() && *span <= DERIVED).ok_or(RULE)
    });
    form.finish(Some(()))?;
    let scopes = scopes.as_ref().unwrap_or(&key.scopes);
    let ends = app.clock.now().plus(lifetime.unwrap_or(DERIVED));
    // Tokens have whole seconds.
    let ends = key.expires_at.map_or(ends, |expires_at| expires_at.min(ends)).start_of(Duration::from_secs(1));
    let access_token = app.tokens.service(key.owner, key.id, scopes, ends)?;
    response::ok(&DerivedToken { access_token, token_type: "Bearer", expires_at: ends, scopes })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Me<'a> {
    id: UserId,
    email: &'a str,
    email_verified: bool,
    name: Option<&'a str>,
    created_at: Timestamp,
    scopes: &'a Grants,
}

/// `GET /auth/me` → 200.
pub(crate) fn me(app: &App, request: &mut Request) -> Result<Response, Error> {
    let user = app.users.by_id(request.principal.user()?.id)?;
    // The user may have been deleted since the guard judged.
    let user = user.ok_or(Error::NotFound("User not found".into()))?;
    shown(&user)
}

/// 200 with the user as they see themselves.
pub(super) fn shown(user: &User) -> Result<Response, Error> {
    response::ok(&Me {
        id: user.id,
        email: &user.email,
        email_verified: user.email_verified,
        name: user.name.as_deref(),
        created_at: user.created_at,
        scopes: &user.scopes,
    })
}

/// `POST /auth/reset-password` → 200; 401 if the token is unknown, used or expired. All sessions of its user end.
pub(crate) fn reset_password(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["token", "password"])?;
    let token = form.required("token", |text| Ok(text.to_string()));
    let password = form.required("password", |text| app.password_rules.judge(text));
    let (token, password) = form.finish(token.zip(password))?;
    app.recovery.reset_password(&token, password, &request.by())?;
    response::message("Password reset successfully")
}

#[derive(Serialize)]
struct PasswordChanged<'a> {
    message: &'static str,
    #[serde(flatten)]
    tokens: &'a TokenPair,
}

/// `POST /auth/password` → 200 with the tokens of a new session; 401 if the current password is wrong, 429 after too
/// many failures. All older sessions end, the one that asks too.
pub(crate) fn change_password(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["currentPassword", "newPassword", "code"])?;
    let current = form.required("currentPassword", |text| Ok(text.to_string()));
    let new = form.required("newPassword", |text| match &current {
        Some(current) if is_same(current, text) => Err("must differ from the current password"),
        _ => app.password_rules.judge(text),
    });
    let code = code(&mut form);
    let (current, new) = form.finish(current.zip(new))?;
    let proof = Proof { password: &current, code: code.as_ref() };
    let (user, by) = (request.principal.user()?, request.by());
    let tokens = app.sessions.change_password(user.id, &user.email, &proof, new, &by)?;
    response::ok(&PasswordChanged { message: "Password changed successfully", tokens: &tokens })
}

/// `DELETE /auth/me` → 200; 401 if the password is wrong, 429 after too many failures. Sessions and keys are deleted
/// too.
pub(crate) fn delete_me(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["password", "code"])?;
    let password = form.required("password", |text| Ok(text.to_string()));
    let code = code(&mut form);
    let password = form.finish(password)?;
    let proof = Proof { password: &password, code: code.as_ref() };
    let user = request.principal.user()?;
    app.users.delete_own(user.id, &user.email, &proof, &request.by())?;
    response::message("Account deleted successfully")
}
