//! What operators do over HTTP.

mod events;
mod invitations;
mod keys;
mod last_operator;
mod statistics;
mod users;

use keyward_harness::http_client::Answer;
use keyward_harness::service::{Account, Service};

const LAST: &str = "This is the last operator: grant keyward:admin to another user first";

/// A user who may administer.
fn operator(service: &Service, email: &str) -> Account {
    let operator = service.sign_up(email);
    service.grant(&operator.id, &["keyward:admin"]);
    operator
}

/// The path of the next page.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    Some(link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_string())
}
