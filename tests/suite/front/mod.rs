//! The front, byte by byte: what a connection may cost, which request goes where, how the server stops, and what it does
//! when more is asked of it than it can do. The store plays no part: it is SQLite throughout. What could be read in two
//! ways and what is no HTTP is in the hostile suite.

mod answers;
mod limits;
mod many_clients;
mod pipelining;
mod routing;
mod stopping;

use std::time::{Duration, Instant};

use keyward::http::limits::Limits;
use keyward_harness::service::{Backend, Service};

const KIB: usize = 1024;

/// A time that runs out in a test.
const SHORT: Duration = Duration::from_millis(500);
/// A time that does not.
const NEVER: Duration = Duration::from_secs(600);
/// How long the server waits for a client that was answered to close its side.
const LINGER: Duration = Duration::from_secs(2);
/// How late a busy machine may be.
const SLACK: Duration = Duration::from_secs(10);

/// A service that cuts nobody, but for the limits that the test shortens.
fn patient_service(settings: &[(&str, &str)], shorten: impl FnOnce(&mut Limits)) -> Service {
    Service::start_with(Backend::Sqlite, settings, |config| {
        let Limits { head, body, idle, unread_answer, handler, .. } = &mut config.http.limits;
        for limit in [head, body, idle, unread_answer, handler] {
            *limit = NEVER;
        }
        shorten(&mut config.http.limits);
    })
}

/// The time since `started` is this limit, give or take what a busy machine needs.
#[track_caller]
fn took(started: Instant, limit: Duration) {
    let took = started.elapsed();
    // Times are counted in whole milliseconds.
    assert!(took + Duration::from_millis(10) >= limit, "cut too early, after {took:?}");
    assert!(took < limit + SLACK, "cut too late, after {took:?}");
}
