//! `/auth/…`: e-mails that are verified and changed, and other changes by the user of their own account.

use crate::accounts::changing::UserChange;
use crate::accounts::email::Email;
use crate::accounts::second_factor::shown::Proof;
use crate::accounts::user::parse_name;
use crate::api::auth;
use crate::app::App;
use crate::base::error::Error;
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};

/// `POST /auth/verify-email` → 200; 401 if the token is unknown, used or expired, 409 if it completes a change of address
/// and the address was taken meanwhile.
pub(crate) fn verify_email(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["token"])?;
    let token = form.required("token", |text| Ok(text.to_string()));
    let token = form.finish(token)?;
    app.addresses.verify(&token, &request.by())?;
    response::message("E-mail address verified")
}

/// `POST /auth/verify-email/request` → 202; a link is mailed, unless the address is verified. 501 if no mail is sent.
pub(crate) fn request_verification(app: &App, request: &mut Request) -> Result<Response, Error> {
    Form::read(request, &[])?.finish(Some(()))?;
    app.addresses.request_verification(request.principal.user()?.id)?;
    response::accepted_message("If the address is not verified yet, a mail with a link is sent to it")
}

/// `POST /auth/forgot-password` → 202, whoever has this address; 501 if no mail is sent.
pub(crate) fn forgot_password(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["email"])?;
    let email = form.text_or_empty("email", Email::parse);
    let email = form.finish(email)?;
    app.recovery.note_forgotten(&email, &request.by())?;
    response::accepted_message("If there is an account with this address, a mail with a link is sent to it")
}

/// `POST /auth/email` → 202; a link is mailed to the new address. 401 if the password is wrong or a code is due, 429 after
/// too many failures or changes, 501 if no mail is sent.
pub(crate) fn change_email(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["newEmail", "password", "code"])?;
    let current = request.principal.user()?.email.clone();
    let email = form.text_or_empty("newEmail", |text| match Email::parse(text)? {
        email if email.as_str() == &*current => Err("must differ from the current address"),
        email => Ok(email),
    });
    let password = form.required("password", |text| Ok(text.to_string()));
    let code = auth::code(&mut form);
    let (email, password) = form.finish(email.zip(password))?;
    let proof = Proof { password: &password, code: code.as_ref() };
    app.addresses.request_change(request.principal.user()?.id, &current, &email, &proof, &request.by())?;
    response::accepted_message("A mail with a link is sent to the new address")
}

/// `PATCH /auth/me` → 200 with the user.
pub(crate) fn change_me(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read(request, &["name"])?;
    let change = UserChange { name: form.nullable("name", parse_name), ..UserChange::default() };
    let change = form.finish(Some(change))?;
    let user = app.users.change(request.principal.user()?.id, &change, &request.by())?;
    // The user may have been deleted since the guard judged.
    auth::shown(&user.ok_or(Error::NotFound("User not found".into()))?)
}
