//! `keyward user`: lists and shows users, creates, invites and deletes them, turns them off and on, and helps those who
//! have forgotten their passwords or cannot verify their e-mails.

use pico_args::Arguments;
use serde_json::{Value, json};

use crate::accounts::changing::UserChange;
use crate::accounts::creating::UserDraft;
use crate::accounts::email::Email;
use crate::accounts::granting::ScopeChange;
use crate::accounts::user::{User, UserFilter, UserKind, UserRef, parse_name};
use crate::app::App;
use crate::audit::event::By;
use crate::base::error::Error;
use crate::cli::arguments::{finish, required, user_ref};
use crate::cli::failure::Failure;
use crate::cli::operator::{find_user, open_app, wait_until_applied};
use crate::cli::output::{PAGE, Rows, print, time_or_dash, yes_or_no};
use crate::cli::password::read_password;
use crate::keys::grants::Grants;

pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let json = arguments.contains("--json");
    match arguments.subcommand()?.as_deref() {
        Some("list") => list(json, arguments),
        Some("show") => show(json, &named_user(arguments)?),
        Some("create") => create(json, arguments),
        Some("activate") => set_active(json, &named_user(arguments)?, true),
        Some("deactivate") => set_active(json, &named_user(arguments)?, false),
        Some("grant") => change_scopes(json, arguments, ScopeChange::Grant),
        Some("withdraw") => change_scopes(json, arguments, ScopeChange::Withdraw),
        Some("invite") => invite(json, arguments),
        Some("reset-link") => reset_link(json, &named_user(arguments)?),
        Some("verify-email") => verify_email(json, arguments),
        Some("set-password") => set_password(json, &named_user(arguments)?),
        Some("reset-totp") => reset_totp(json, &named_user(arguments)?),
        Some("delete") => delete(json, &named_user(arguments)?),
        Some(other) => Err(Failure::Usage(format!("there is no command \"user {other}\""))),
        None => Err(Failure::Usage(
            "user needs a command: list, show, create, invite, reset-link, verify-email, grant, withdraw, activate, \
             deactivate, set-password, reset-totp or delete"
                .to_string(),
        )),
    }
}

/// The user whom the only argument names.
fn named_user(mut arguments: Arguments) -> Result<UserRef, Failure> {
    let name = required(&mut arguments, "which user? An e-mail or an id is missing")?;
    let name = user_ref(&name)?;
    finish(arguments)?;
    Ok(name)
}

fn list(json: bool, mut arguments: Arguments) -> Result<(), Failure> {
    let same_email = arguments.contains("--same-email");
    finish(arguments)?;
    let app = open_app()?;
    let mut rows = Rows::start(json, HEADER)?;
    if same_email {
        let mut after = String::new();
        while let Some((email, users)) = app.users.sharing_email(&after)? {
            for user in &users {
                rows.write(&line(user), &object(user))?;
            }
            after = email;
        }
        return rows.end();
    }
    for_every_user(&app, |user| rows.write(&line(user), &object(user)))?;
    rows.end()
}

/// Page by page.
fn for_every_user(app: &App, mut act: impl FnMut(&User) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut after = None;
    loop {
        // Without a filter, nothing is looked up of the one after whom the page begins.
        let page = app.users.page(&UserFilter::default(), after, PAGE)?.ok_or_else(Failure::no_such_user)?;
        page.items.iter().try_for_each(&mut act)?;
        after = page.items.last().map(|user| user.id);
        if !page.more {
            return Ok(());
        }
    }
}

fn show(json: bool, name: &UserRef) -> Result<(), Failure> {
    let app = open_app()?;
    print_user(json, &find_user(&app, name)?)
}

fn create(json: bool, mut arguments: Arguments) -> Result<(), Failure> {
    let draft = named_draft(&mut arguments)?;
    finish(arguments)?;
    let app = open_app()?;
    let password = Some(read_password(&app.password_rules)?);
    print_user(json, &app.users.create(UserDraft { password, ..draft }, &By::operator())?)
}

/// `EMAIL [--name NAME]`.
fn named_draft(arguments: &mut Arguments) -> Result<UserDraft, Failure> {
    let name: Option<String> = arguments.opt_value_from_str("--name")?;
    let email = required(arguments, "the e-mail is missing")?;
    let email = Email::parse(&email).map_err(|rule| Failure::Usage(format!("the e-mail {rule}")))?;
    let name = name.map(|name| parse_name(&name)).transpose();
    let name = name.map_err(|rule| Failure::Usage(format!("the name {rule}")))?;
    Ok(UserDraft { name, ..UserDraft::invited(email) })
}

/// Creates a user without a password, and shows the token that sets one.
fn invite(json: bool, mut arguments: Arguments) -> Result<(), Failure> {
    let draft = named_draft(&mut arguments)?;
    finish(arguments)?;
    let app = open_app()?;
    let user = app.users.create(draft, &By::operator())?;
    print_token(json, &app, &user)
}

/// For somebody who has forgotten their password, where there is no mail.
fn reset_link(json: bool, name: &UserRef) -> Result<(), Failure> {
    let app = open_app()?;
    let user = find_user(&app, name)?;
    print_token(json, &app, &user)
}

fn print_token(json: bool, app: &App, user: &User) -> Result<(), Failure> {
    let made = app.recovery.request_reset(user.id, &By::operator())?.ok_or_else(Failure::no_such_user)?;
    let token = made.token.expose();
    let shown = made.url.as_deref().unwrap_or(token);
    let text = format!("{shown}\nfor {}, once, until {}", user.email, made.expires_at);
    let object = json!({ "user": object(user), "token": token, "url": made.url, "expiresAt": made.expires_at });
    print(json, &text, &object)
}

/// `USER` or `--all`.
fn verify_email(json: bool, mut arguments: Arguments) -> Result<(), Failure> {
    let change = UserChange { email_verified: Some(true), ..UserChange::default() };
    if !arguments.contains("--all") {
        let name = named_user(arguments)?;
        let app = open_app()?;
        let user = find_user(&app, &name)?;
        let user = app.users.change(user.id, &change, &By::operator())?.ok_or_else(Failure::no_such_user)?;
        wait_until_applied();
        return print_user(json, &user);
    }
    finish(arguments)?;
    let app = open_app()?;
    let mut count = 0_u64;
    for_every_user(&app, |user| {
        if user.kind == UserKind::User && !user.email_verified {
            // They may have been deleted meanwhile.
            count += u64::from(app.users.change(user.id, &change, &By::operator())?.is_some());
        }
        Ok(())
    })?;
    wait_until_applied();
    print(json, &format!("{count} users"), &json!({ "users": count }))
}

fn set_active(json: bool, name: &UserRef, active: bool) -> Result<(), Failure> {
    let app = open_app()?;
    let user = find_user(&app, name)?;
    let change = UserChange { is_active: Some(active), ..UserChange::default() };
    let user = app.users.change(user.id, &change, &By::operator())?.ok_or_else(Failure::no_such_user)?;
    wait_until_applied();
    print_user(json, &user)
}

/// `USER SCOPE…` or `--all SCOPE…`.
fn change_scopes(
    json: bool,
    mut arguments: Arguments,
    change: impl FnOnce(Grants) -> ScopeChange,
) -> Result<(), Failure> {
    let user = if arguments.contains("--all") {
        None
    } else {
        Some(user_ref(&required(&mut arguments, "which user? An e-mail, an id or --all is missing")?)?)
    };
    let scopes = arguments.finish().into_iter().map(|scope| scope.into_string());
    let scopes: Vec<String> =
        scopes.collect::<Result<_, _>>().map_err(|scope| Failure::Usage(format!("{scope:?} is no scope")))?;
    if scopes.is_empty() {
        return Err(Failure::Usage("which scopes? One at least is missing".to_string()));
    }
    let scopes = Grants::parse(&scopes.iter().map(String::as_str).collect::<Vec<_>>());
    let change = change(scopes.map_err(|rule| Failure::Usage(format!("the scopes {rule}")))?);
    let app = open_app()?;
    let Some(user) = user else { return change_all(json, &app, &change) };
    let user = find_user(&app, &user)?;
    let user = app.users.change_scopes(user.id, &change, &By::operator())?.ok_or_else(Failure::no_such_user)?;
    wait_until_applied();
    print_user(json, &user)
}

/// User by user: a failure leaves those who come after as they were, and the command can be repeated.
fn change_all(json: bool, app: &App, change: &ScopeChange) -> Result<(), Failure> {
    let mut count = 0_u64;
    for_every_user(app, |user| {
        let changed = app.users.change_scopes(user.id, change, &By::operator()).map_err(|error| match error {
            Error::BrokenRules(rules) => Failure::Failed(format!("{}: {}", user.email, rules.join(", "))),
            other => other.into(),
        })?;
        // They may have been deleted meanwhile.
        count += u64::from(changed.is_some());
        Ok(())
    })?;
    wait_until_applied();
    print(json, &format!("{count} users"), &json!({ "users": count }))
}

fn set_password(json: bool, name: &UserRef) -> Result<(), Failure> {
    let app = open_app()?;
    let user = find_user(&app, name)?;
    let password = read_password(&app.password_rules)?;
    found(app.users.set_password(user.id, password, &By::operator())?)?;
    wait_until_applied();
    print_user(json, &user)
}

fn reset_totp(json: bool, name: &UserRef) -> Result<(), Failure> {
    let app = open_app()?;
    let user = find_user(&app, name)?;
    let was_on = app.second_factors.reset(user.id, &By::operator())?.ok_or_else(Failure::no_such_user)?;
    let told = if was_on { "removed the second factor of" } else { "there was no second factor of" };
    print(json, &format!("{told} {}", user.email), &json!({ "id": user.id, "wasOn": was_on }))
}

fn delete(json: bool, name: &UserRef) -> Result<(), Failure> {
    let app = open_app()?;
    let user = find_user(&app, name)?;
    found(app.users.delete(user.id, &By::operator())?)?;
    // There need not be a server whose job would delete the rest.
    while app.users.delete_rows_of_deleted_users()? {}
    wait_until_applied();
    print(json, &format!("deleted {}", user.email), &json!({ "deleted": user.id }))
}

/// Somebody else may delete the user after they were looked up.
fn found(is_found: bool) -> Result<(), Failure> {
    is_found.then_some(()).ok_or_else(Failure::no_such_user)
}

const HEADER: &str = "ID                                    ACTIVE  CREATED                   \
                      LAST LOGIN                EMAIL                           NAME";

fn line(user: &User) -> String {
    format!(
        "{:36}  {:6}  {:24}  {:24}  {:30}  {}",
        user.id.to_string(),
        yes_or_no(user.is_active),
        user.created_at.to_string(),
        time_or_dash(user.last_login_at),
        user.email,
        user.name.as_deref().unwrap_or("-").escape_debug()
    )
}

fn object(user: &User) -> Value {
    json!({
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "isActive": user.is_active,
        "createdAt": user.created_at,
        "lastLoginAt": user.last_login_at,
        "kind": user.kind,
        "emailVerified": user.email_verified,
        "scopes": user.scopes,
        "metadata": user.metadata,
        "hasPassword": user.has_password,
        "maxKeys": user.max_keys,
    })
}

fn print_user(json: bool, user: &User) -> Result<(), Failure> {
    print(json, &format!("{HEADER}\n{}\n\n{}", line(user), more(user)), &object(user))
}

/// What a line has no room for.
fn more(user: &User) -> String {
    let kind = match user.kind {
        UserKind::User => "a person",
        UserKind::Service => "a service account",
    };
    let verified = if user.email_verified { "verified" } else { "not verified" };
    let password = if user.has_password { "a password" } else { "no password" };
    let keys = user.max_keys.map_or("as MAX_KEYS_PER_USER says".to_string(), |most| format!("at most {most}"));
    let scopes = if user.scopes.as_str().is_empty() { "none" } else { user.scopes.as_str() };
    format!("{kind}, {password}, e-mail {verified}\nusable keys: {keys}\nscopes: {scopes}")
}
