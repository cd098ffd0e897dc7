//! `keyward key`: lists keys and revokes them.

use pico_args::Arguments;
use serde_json::{Value, json};

use crate::audit::event::By;
use crate::base::id::KeyId;
use crate::cli::arguments::{finish, required, user_ref};
use crate::cli::failure::Failure;
use crate::cli::operator::{find_user, open_app, wait_until_applied};
use crate::cli::output::{PAGE, Rows, print, time_or_dash, yes_or_no};
use crate::keys::key::ApiKey;

pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let json = arguments.contains("--json");
    match arguments.subcommand()?.as_deref() {
        Some("list") => list(json, arguments),
        Some("revoke") => revoke(json, arguments),
        Some(other) => Err(Failure::Usage(format!("there is no command \"key {other}\""))),
        None => Err(Failure::Usage("key needs a command: list or revoke".to_string())),
    }
}

fn list(json: bool, mut arguments: Arguments) -> Result<(), Failure> {
    let owner: Option<String> = arguments.opt_value_from_str("--user")?;
    finish(arguments)?;
    let owner = owner.map(|text| user_ref(&text)).transpose()?;
    let app = open_app()?;
    let owner = owner.map(|owner| find_user(&app, &owner)).transpose()?.map(|user| user.id);
    let mut rows = Rows::start(json, HEADER)?;
    let mut after = None;
    loop {
        let mut keys = app.keys.list(owner, after.as_ref(), PAGE as i64)?;
        for key in &keys {
            rows.write(&line(key), &object(key))?;
        }
        after = keys.pop();
        if after.is_none() {
            return rows.end();
        }
    }
}

fn revoke(json: bool, mut arguments: Arguments) -> Result<(), Failure> {
    let id = required(&mut arguments, "the key's id is missing")?;
    finish(arguments)?;
    let id = KeyId::parse(&id).ok_or_else(|| Failure::Usage("a key's id is a UUID; key list shows it".to_string()))?;
    if !open_app()?.keys.revoke_any(id, &By::operator())? {
        return Err(Failure::Failed("there is no such key".to_string()));
    }
    wait_until_applied();
    print(json, &format!("revoked {id}"), &json!({ "revoked": id }))
}

const HEADER: &str = "ID                                    ACTIVE  EXPIRES                   \
                      LAST USED                 HINT           OWNER                                 NAME";

fn line(key: &ApiKey) -> String {
    format!(
        "{:36}  {:6}  {:24}  {:24}  {:13}  {:36}  {}",
        key.id.to_string(),
        yes_or_no(key.is_active),
        time_or_dash(key.expires_at),
        time_or_dash(key.last_used_at),
        key.hint,
        key.owner.to_string(),
        key.name.escape_debug()
    )
}

fn object(key: &ApiKey) -> Value {
    json!({
        "id": key.id,
        "userId": key.owner,
        "name": key.name,
        "hint": key.hint,
        "isActive": key.is_active,
        "expiresAt": key.expires_at,
        "lastUsedAt": key.last_used_at,
        "createdAt": key.created_at,
        "revokedAt": key.revoked_at,
    })
}
