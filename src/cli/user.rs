//! `keyward user`: lists and shows users, creates and deletes them, turns them off and on, sets their passwords.

use pico_args::Arguments;
use serde_json::{Value, json};

use crate::accounts::email::Email;
use crate::accounts::user::{User, UserRef, parse_name};
use crate::audit::event::By;
use crate::cli::arguments::{finish, required, user_ref};
use crate::cli::failure::Failure;
use crate::cli::operator::{find_user, open_app, wait_until_applied};
use crate::cli::output::{PAGE, Rows, print, time_or_dash, yes_or_no};
use crate::cli::password::read_password;

pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let json = arguments.contains("--json");
    match arguments.subcommand()?.as_deref() {
        Some("list") => list(json, arguments),
        Some("show") => show(json, &named_user(arguments)?),
        Some("create") => create(json, arguments),
        Some("activate") => set_active(json, &named_user(arguments)?, true),
        Some("deactivate") => set_active(json, &named_user(arguments)?, false),
        Some("set-password") => set_password(json, &named_user(arguments)?),
        Some("delete") => delete(json, &named_user(arguments)?),
        Some(other) => Err(Failure::Usage(format!("there is no command \"user {other}\""))),
        None => Err(Failure::Usage(
            "user needs a command: list, show, create, activate, deactivate, set-password or delete".to_string(),
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

fn list(json: bool, arguments: Arguments) -> Result<(), Failure> {
    finish(arguments)?;
    let app = open_app()?;
    let mut rows = Rows::start(json, HEADER)?;
    let mut after = None;
    loop {
        let users = app.users.list(after, PAGE)?;
        for user in &users {
            rows.write(&line(user), &object(user))?;
        }
        after = users.last().map(|user| user.id);
        if after.is_none() {
            return rows.end();
        }
    }
}

fn show(json: bool, name: &UserRef) -> Result<(), Failure> {
    let app = open_app()?;
    print_user(json, &find_user(&app, name)?)
}

fn create(json: bool, mut arguments: Arguments) -> Result<(), Failure> {
    let name: Option<String> = arguments.opt_value_from_str("--name")?;
    let email = required(&mut arguments, "the e-mail is missing")?;
    finish(arguments)?;
    let email = Email::parse(&email).map_err(|rule| Failure::Usage(format!("the e-mail {rule}")))?;
    let name = name.map(|name| parse_name(&name)).transpose();
    let name = name.map_err(|rule| Failure::Usage(format!("the name {rule}")))?;
    let app = open_app()?;
    let password = read_password(&app.password_rules)?;
    match app.users.create(email, name, password, &By::operator())? {
        Some(user) => print_user(json, &user),
        None => Err(Failure::Failed("User already exists".to_string())),
    }
}

fn set_active(json: bool, name: &UserRef, active: bool) -> Result<(), Failure> {
    let app = open_app()?;
    let user = find_user(&app, name)?;
    found(app.users.set_active(user.id, active, &By::operator())?)?;
    wait_until_applied();
    print_user(json, &User { is_active: active, ..user })
}

fn set_password(json: bool, name: &UserRef) -> Result<(), Failure> {
    let app = open_app()?;
    let user = find_user(&app, name)?;
    let password = read_password(&app.password_rules)?;
    found(app.users.set_password(user.id, password, &By::operator())?)?;
    wait_until_applied();
    print_user(json, &user)
}

fn delete(json: bool, name: &UserRef) -> Result<(), Failure> {
    let app = open_app()?;
    let user = find_user(&app, name)?;
    found(app.users.delete(user.id, &By::operator())?)?;
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
    })
}

fn print_user(json: bool, user: &User) -> Result<(), Failure> {
    print(json, &format!("{HEADER}\n{}", line(user)), &object(user))
}
