//! `/admin`: what operators do over HTTP, by the services that the command line uses.

pub mod events;
pub mod keys;
pub mod sessions;
pub mod stats;
pub mod users;
pub mod webhooks;

use crate::base::error::Error;
use crate::base::id::UserId;
use crate::http::request::Request;

/// The user whom the path names. An error: nobody can have this id.
fn named_user(request: &Request) -> Result<UserId, Error> {
    UserId::parse(request.parameters.get("id")).ok_or_else(no_such_user)
}

fn no_such_user() -> Error {
    Error::NotFound("User not found".into())
}
