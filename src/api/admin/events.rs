//! `/admin/events`: the audit trail of everyone.

use crate::api::paging;
use crate::app::App;
use crate::audit::event::{Filter, Kind};
use crate::base::clock::Timestamp;
use crate::base::error::Error;
use crate::base::id::{EventId, UserId};
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::Response;

/// `GET /admin/events?userId=&type=&since=&limit=&after=` → 200, newest first.
pub(crate) fn list(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read_query(request, &["userId", "type", "since", "limit", "after"])?;
    let filter = Filter {
        user: form.optional("userId", |text| UserId::parse(text).ok_or("must be a UUID")),
        kind: form.optional("type", |text| Kind::parse(text).ok_or("must be a type of event, such as key.created")),
        since: form
            .optional("since", |text| Timestamp::parse(text).ok_or("must be an RFC 3339 date and time with an offset")),
    };
    let limit = paging::limit(&mut form);
    let after = form.optional("after", |text| EventId::parse(text).ok_or("must be a UUID"));
    let filter = form.finish(Some(filter))?;
    let page = app.events.newest(&filter, after, limit)?.ok_or_else(|| paging::no_such_place("an event"))?;
    let last = page.items.last().filter(|_| page.more).map(|event| event.id);
    paging::answer(request, "/admin/events", limit, &page.items, last)
}
