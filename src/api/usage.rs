//! `/keys/:id/usage`: how often a key was used, and the periods of all such series.

use serde::Serialize;

use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::error::Error;
use crate::base::id::UserId;
use crate::base::period::{DAY, HOUR, Period};
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};
use crate::keys::usage::{Counts, Outcome};

/// The most points of a series: a month of hours, or more than a year of days.
const POINTS: u32 = 1000;

/// Reads the fields `from`, `to` and `by`. The default: the last day by hours, or the last month by days, including the
/// current one.
pub(crate) fn period(form: &mut Form, now: Timestamp) -> Period {
    let time = |text: &str| Timestamp::parse(text).ok_or("must be an RFC 3339 date and time with an offset");
    let (from, to) = (form.optional("from", time), form.optional("to", time));
    let step = form.optional("by", |text| match text {
        "hour" => Ok(HOUR),
        "day" => Ok(DAY),
        _ => Err("must be one of the following values: hour, day"),
    });
    let step = step.unwrap_or(HOUR);
    let to = to.unwrap_or(now);
    let from = from.unwrap_or_else(|| to.minus(if step == DAY { 29 * DAY } else { 23 * HOUR }).max(Timestamp::FIRST));
    let from = from.start_of(step);
    form.require(from < to, "from must be before to");
    form.require(from.plus(POINTS * step) >= to, "from and to must be at most 1000 steps apart");
    Period { from, to, step }
}

/// A series as answers show it.
#[derive(Serialize)]
pub(crate) struct Series<T> {
    by: &'static str,
    from: Timestamp,
    to: Timestamp,
    series: Vec<T>,
}

impl<T> Series<T> {
    pub(crate) fn new(period: &Period, series: Vec<T>) -> Series<T> {
        let by = if period.step == DAY { "day" } else { "hour" };
        Series { by, from: period.from, to: period.to, series }
    }
}

/// How presentations of keys ended.
#[derive(Serialize)]
pub(crate) struct Uses {
    allowed: u64,
    refused: Refused,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused {
    disabled: u64,
    expired: u64,
    forbidden_address: u64,
    insufficient_scope: u64,
    rate_limited: u64,
}

impl From<&Counts> for Uses {
    fn from(counts: &Counts) -> Uses {
        Uses {
            allowed: counts.of(Outcome::Allowed),
            refused: Refused {
                disabled: counts.of(Outcome::Disabled),
                expired: counts.of(Outcome::Expired),
                forbidden_address: counts.of(Outcome::ForbiddenAddress),
                insufficient_scope: counts.of(Outcome::InsufficientScope),
                rate_limited: counts.of(Outcome::RateLimited),
            },
        }
    }
}

#[derive(Serialize)]
struct Point {
    start: Timestamp,
    #[serde(flatten)]
    uses: Uses,
}

/// `GET /keys/:id/usage?from=&to=&by=` → 200 with a series without gaps; 404 for anyone but the owner.
pub(crate) fn of_key(app: &App, request: &mut Request) -> Result<Response, Error> {
    of_key_of(app, request, request.principal.user()?.id)
}

/// The same for a key of this owner.
pub(super) fn of_key_of(app: &App, request: &Request, owner: UserId) -> Result<Response, Error> {
    let mut form = Form::read_query(request, &["from", "to", "by"])?;
    let period = period(&mut form, app.clock.now());
    form.finish(Some(()))?;
    let points = app.keys.usage(owner, request.parameters.get("id"), &period)?;
    let points = points.iter().map(|point| Point { start: point.start, uses: Uses::from(&point.counts) });
    response::ok(&Series::new(&period, points.collect()))
}
