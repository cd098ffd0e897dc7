//! `/auth/events`: what happened to a user's account.

use crate::app::App;
use crate::base::error::Error;
use crate::base::id::EventId;
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};

/// Events in one answer.
const USUALLY: i64 = 50;
const MOST: i64 = 200;

/// `GET /auth/events?limit=&before=` → 200, newest first; `before` is the id of the last event of the page before.
pub(crate) fn list(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read_query(request, &["limit", "before"])?;
    let limit = form.optional("limit", |text| match text.parse() {
        Ok(limit) if (1..=MOST).contains(&limit) => Ok(limit),
        _ => Err("must be a whole number from 1 to 200"),
    });
    let before = form.optional("before", |text| EventId::parse(text).ok_or("must be a UUID"));
    form.finish(Some(()))?;
    let user = request.principal.user()?.id;
    response::ok(&app.events.of_user(user, before, limit.unwrap_or(USUALLY))?)
}
