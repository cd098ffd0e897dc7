//! `/admin/users`: everyone's accounts.

use serde::Serialize;

use super::{named_user, no_such_user};
use crate::accounts::changing::UserChange;
use crate::accounts::creating::UserDraft;
use crate::accounts::email::Email;
use crate::accounts::granting::ScopeChange;
use crate::accounts::user::{User, UserFilter, UserKind, parse_name};
use crate::api::paging;
use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::error::Error;
use crate::base::id::UserId;
use crate::base::metadata::Metadata;
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};
use crate::keys::grants::Grants;

/// As `MAX_KEYS_PER_USER` has it.
const MOST_KEYS: u32 = 1_000_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedUser<'a> {
    id: UserId,
    kind: UserKind,
    email: &'a str,
    name: Option<&'a str>,
    is_active: bool,
    email_verified: bool,
    scopes: &'a Grants,
    metadata: Option<&'a Metadata>,
    has_password: bool,
    max_keys: Option<u32>,
    created_at: Timestamp,
    last_login_at: Option<Timestamp>,
}

impl ListedUser<'_> {
    fn new(user: &User) -> ListedUser<'_> {
        ListedUser {
            id: user.id,
            kind: user.kind,
            email: &user.email,
            name: user.name.as_deref(),
            is_active: user.is_active,
            email_verified: user.email_verified,
            scopes: &user.scopes,
            metadata: user.metadata.as_ref(),
            has_password: user.has_password,
            max_keys: user.max_keys,
            created_at: user.created_at,
            last_login_at: user.last_login_at,
        }
    }
}

/// 200 with the user; 404 if there is none.
fn shown(user: Option<User>) -> Result<Response, Error> {
    response::ok(&ListedUser::new(&user.ok_or_else(no_such_user)?))
}

/// `GET /admin/users?email=&kind=&active=&limit=&after=` → 200, by id; with `email`, by e-mail.
pub(crate) fn list(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read_query(request, &["email", "kind", "active", "limit", "after"])?;
    let filter = UserFilter {
        email: form.optional("email", |text| Ok(Email::beginning(text))),
        kind: form.optional("kind", |text| UserKind::parse(text).ok_or("must be user or service")),
        is_active: form.optional("active", |text| text.parse().map_err(|_| "must be true or false")),
    };
    let limit = paging::limit(&mut form);
    let after = form.optional("after", |text| UserId::parse(text).ok_or("must be a UUID"));
    let filter = form.finish(Some(filter))?;
    let page = app.users.page(&filter, after, limit)?.ok_or_else(|| paging::no_such_place("a user"))?;
    let last = page.items.last().filter(|_| page.more).map(|user| user.id);
    let users: Vec<ListedUser<'_>> = page.items.iter().map(ListedUser::new).collect();
    paging::answer(request, "/admin/users", limit, &users, last)
}

/// `POST /admin/users` → 201; 409 if the e-mail is taken.
pub(crate) fn create(app: &App, request: &mut Request) -> Result<Response, Error> {
    const FIELDS: [&str; 8] = ["kind", "email", "password", "name", "scopes", "metadata", "emailVerified", "maxKeys"];
    let mut form = Form::read(request, &FIELDS)?;
    let kind = form.optional("kind", |text| UserKind::parse(text).ok_or("must be user or service"));
    let email = form.text_or_empty("email", Email::parse);
    let password = form.optional("password", |text| app.password_rules.judge(text));
    let name = form.optional("name", parse_name);
    let scopes = form.nullable_texts("scopes", Grants::parse).flatten();
    let metadata = form.any_object("metadata", Metadata::new).flatten();
    let email_verified = form.boolean("emailVerified").unwrap_or(false);
    let max_keys = form.nullable_number("maxKeys", 0..=MOST_KEYS).flatten();
    let draft = UserDraft {
        kind: kind.unwrap_or(UserKind::User),
        password,
        name,
        scopes,
        metadata,
        email_verified,
        max_keys,
        ..UserDraft::invited(form.finish(email)?)
    };
    response::created(&ListedUser::new(&app.users.create(draft, &request.by_operator())?))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewToken<'a> {
    token: &'a str,
    expires_at: Timestamp,
    url: Option<&'a str>,
}

/// `POST /admin/users/:id/reset-password` → 200 with a token, for the operator to hand over; 409 for a service account.
pub(crate) fn reset_password(app: &App, request: &mut Request) -> Result<Response, Error> {
    Form::read(request, &[])?.finish(Some(()))?;
    let reset = app.recovery.request_reset(named_user(request)?, &request.by_operator())?;
    let reset = reset.ok_or_else(no_such_user)?;
    response::ok(&NewToken { token: reset.token.expose(), expires_at: reset.expires_at, url: reset.url.as_deref() })
}

/// `GET /admin/users/:id` → 200.
pub(crate) fn show(app: &App, request: &mut Request) -> Result<Response, Error> {
    shown(app.users.by_id(named_user(request)?)?)
}

/// `PATCH /admin/users/:id` → 200 with the user; 409 if the e-mail is taken, or if no operator would be left.
pub(crate) fn change(app: &App, request: &mut Request) -> Result<Response, Error> {
    const FIELDS: [&str; 6] = ["email", "name", "isActive", "emailVerified", "metadata", "maxKeys"];
    let mut form = Form::read(request, &FIELDS)?;
    let change = UserChange {
        email: form.given("email", Email::parse),
        name: form.nullable("name", parse_name),
        is_active: form.boolean("isActive"),
        email_verified: form.boolean("emailVerified"),
        metadata: form.any_object("metadata", Metadata::new),
        max_keys: form.nullable_number("maxKeys", 0..=MOST_KEYS),
    };
    let change = form.finish(Some(change))?;
    shown(app.users.change(named_user(request)?, &change, &request.by_operator())?)
}

/// `DELETE /admin/users/:id` → 200; 409 if no operator would be left. Sessions and keys are deleted too.
pub(crate) fn delete(app: &App, request: &mut Request) -> Result<Response, Error> {
    if !app.users.delete(named_user(request)?, &request.by_operator())? {
        return Err(no_such_user());
    }
    response::message("Account deleted successfully")
}

/// `POST /admin/users/:id/grant` → 200 with the user.
pub(crate) fn grant(app: &App, request: &mut Request) -> Result<Response, Error> {
    change_scopes(app, request, ScopeChange::Grant)
}

/// `POST /admin/users/:id/withdraw` → 200 with the user; 409 if no operator would be left.
pub(crate) fn withdraw(app: &App, request: &mut Request) -> Result<Response, Error> {
    change_scopes(app, request, ScopeChange::Withdraw)
}

fn change_scopes(
    app: &App,
    request: &mut Request,
    change: impl FnOnce(Grants) -> ScopeChange,
) -> Result<Response, Error> {
    let mut form = Form::read(request, &["scopes"])?;
    let scopes = form.required_texts("scopes", |scopes| match scopes {
        [] => Err("should not be empty"),
        scopes => Grants::parse(scopes),
    });
    let change = change(form.finish(scopes)?);
    shown(app.users.change_scopes(named_user(request)?, &change, &request.by_operator())?)
}
