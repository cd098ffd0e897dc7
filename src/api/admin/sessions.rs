//! `/admin/users/:id/sessions`: where a user is logged in.

use super::{named_user, no_such_user};
use crate::api::sessions::listed;
use crate::app::App;
use crate::base::error::Error;
use crate::http::request::Request;
use crate::http::response::{self, Response};

/// `GET /admin/users/:id/sessions` → 200, newest first, without those that have ended or expired.
pub(crate) fn list(app: &App, request: &mut Request) -> Result<Response, Error> {
    let user = app.users.by_id(named_user(request)?)?.ok_or_else(no_such_user)?;
    let own = request.principal.user().ok().map(|user| user.session);
    response::ok(&listed(&app.sessions.of_user(user.id)?, own))
}

/// `DELETE /admin/users/:id/sessions` → 200; all of them end.
pub(crate) fn end_all(app: &App, request: &mut Request) -> Result<Response, Error> {
    let ended = app.sessions.end_all(named_user(request)?, &request.by_operator())?;
    if !ended {
        return Err(no_such_user());
    }
    response::message("Sessions ended successfully")
}
