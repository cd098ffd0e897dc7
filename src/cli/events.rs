//! `keyward events`: lists the audit trail, oldest first.

use pico_args::Arguments;
use serde_json::{Value, json};

use crate::accounts::user::UserRef;
use crate::audit::event::{Actor, Event, Filter, Kind, Subject};
use crate::base::clock::Timestamp;
use crate::cli::arguments::{finish, user_ref};
use crate::cli::failure::Failure;
use crate::cli::operator::{find_user, open_app};
use crate::cli::output::{PAGE, Rows, text_or_dash};

pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let json = arguments.contains("--json");
    let user: Option<String> = arguments.opt_value_from_str("--user")?;
    let kind: Option<String> = arguments.opt_value_from_str("--type")?;
    let since: Option<String> = arguments.opt_value_from_str("--since")?;
    finish(arguments)?;
    let user = user.map(|text| user_ref(&text)).transpose()?;
    let kind = kind.map(|text| parse_kind(&text)).transpose()?;
    let since = since.map(|text| parse_since(&text)).transpose()?;
    let app = open_app()?;
    let user = match user {
        // A deleted user's events are kept, so there need not be a user with this id.
        Some(UserRef::Id(id)) => Some(id),
        Some(email) => Some(find_user(&app, &email)?.id),
        None => None,
    };
    let filter = Filter { user, kind, since };
    let mut rows = Rows::start(json, HEADER)?;
    let mut page: Vec<Event> = Vec::new();
    loop {
        page = app.events.list(&filter, page.last(), PAGE as i64)?;
        for event in &page {
            rows.write(&line(event), &json!(event))?;
        }
        if page.is_empty() {
            return rows.end();
        }
    }
}

fn parse_kind(text: &str) -> Result<Kind, Failure> {
    Kind::parse(text).ok_or_else(|| {
        let types: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        Failure::Usage(format!("{text:?} is none of the types {}", types.join(", ")))
    })
}

fn parse_since(text: &str) -> Result<Timestamp, Failure> {
    Timestamp::parse(text).ok_or_else(|| {
        let rule = "is not an RFC 3339 date and time with an offset, such as 2030-01-31T12:00:00Z";
        Failure::Usage(format!("{text:?} {rule}"))
    })
}

const HEADER: &str = "TIME                      TYPE                    COUNT  USER                                  \
                      ACTOR                                          SUBJECT                                       \
                      IP               REQUEST                               DETAILS";

fn line(event: &Event) -> String {
    let actor = match event.actor {
        Actor::Anonymous => "anonymous".to_string(),
        Actor::User { session_id } => format!("session {session_id}"),
        Actor::Key { key_id } => format!("key {key_id}"),
        Actor::Operator => "operator".to_string(),
        Actor::UserAsOperator { user_id, .. } => format!("operator {user_id}"),
        Actor::System => "system".to_string(),
    };
    let subject = event.subject.map(|subject| match subject {
        Subject::User(id) => format!("user {id}"),
        Subject::Session(id) => format!("session {id}"),
        Subject::Key(id) => format!("key {id}"),
        Subject::Webhook(id) => format!("webhook {id}"),
    });
    format!(
        "{:24}  {:22}  {:5}  {:36}  {actor:45}  {:44}  {:15}  {:36}  {}",
        event.at.to_string(),
        event.kind.as_str(),
        event.count,
        text_or_dash(event.user.map(|id| id.to_string())),
        text_or_dash(subject),
        text_or_dash(event.ip.map(|ip| ip.to_string())),
        text_or_dash(event.request_id.clone()),
        Value::Object(event.details.clone()),
    )
}
