//! `/health`: whether this process answers. It says nothing about the store, which may come back by itself.

use serde::Serialize;

use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::error::Error;
use crate::http::request::Request;
use crate::http::response::{self, Response};

#[derive(Serialize)]
struct Health {
    status: &'static str,
    timestamp: Timestamp,
}

/// `GET /health` → 200.
pub(crate) fn health(app: &App, _: &mut Request) -> Result<Response, Error> {
    response::ok(&Health { status: "ok", timestamp: app.clock.now() })
}
