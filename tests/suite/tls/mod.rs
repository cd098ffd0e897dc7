//! HTTPS: what is spoken and what is not, certificates that change while the server runs, and the way there from plain
//! HTTP. The store plays no part: it is SQLite throughout.

mod redirecting;
mod refusing_to_start;
mod renewing;
mod speaking;

use std::time::Duration;

use keyward_harness::http_client::{Answer, raw, read_answer};
use keyward_harness::tls_client::Secure;

/// A time that runs out in a test.
const SHORT: Duration = Duration::from_millis(500);
/// How late a busy machine may be.
const SLACK: Duration = Duration::from_secs(10);

const GET_HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The one answer of the port for plain HTTP.
#[track_caller]
fn redirected(secure: &Secure, request: &str) -> Answer {
    let heard = raw(secure.service.redirect(), request.as_bytes());
    let mut heard = heard.as_slice();
    let answer = read_answer(&mut heard, false).unwrap();
    assert!(heard.is_empty(), "{}", String::from_utf8_lossy(heard));
    answer
}
