//! `/admin/stats`: figures of the whole installation.

use serde::Serialize;

use crate::api::usage::{Series, Uses, period};
use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::error::Error;
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    /// When users, sessions and keys were counted.
    counted_at: Timestamp,
    users: Users,
    sessions: Sessions,
    keys: Keys,
    #[serde(flatten)]
    activity: Series<Point>,
}

#[derive(Serialize)]
struct Users {
    active: u64,
    inactive: u64,
    services: u64,
}

#[derive(Serialize)]
struct Sessions {
    open: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Keys {
    usable: u64,
    #[serde(rename = "expiringIn7Days")]
    expiring: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Point {
    start: Timestamp,
    logins: u64,
    failed_logins: u64,
    #[serde(flatten)]
    uses: Uses,
}

/// `GET /admin/stats?from=&to=&by=` → 200; what there is was counted up to a minute ago.
pub(crate) fn stats(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read_query(request, &["from", "to", "by"])?;
    let period = period(&mut form, app.clock.now());
    form.finish(Some(()))?;
    let (counted_at, inventory) = app.statistics.inventory()?;
    let points = app.statistics.activity(&period)?.into_iter().map(|point| Point {
        start: point.start,
        logins: point.logins,
        failed_logins: point.failed_logins,
        uses: Uses::from(&point.uses),
    });
    response::ok(&Stats {
        counted_at,
        users: Users {
            active: inventory.active_users,
            inactive: inventory.inactive_users,
            services: inventory.services,
        },
        sessions: Sessions { open: inventory.sessions },
        keys: Keys { usable: inventory.usable_keys, expiring: inventory.expiring_keys },
        activity: Series::new(&period, points.collect()),
    })
}
