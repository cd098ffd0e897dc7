//! `/.well-known/jwks.json`: the public keys by which other services verify access tokens.

use http::HeaderValue;
use http::header::CACHE_CONTROL;

use crate::app::App;
use crate::base::error::Error;
use crate::http::request::Request;
use crate::http::response::{self, Response};

/// `GET /.well-known/jwks.json` → 200, a JWK set (RFC 7517 §5). It is empty where nothing but secrets signs.
pub(crate) fn jwks(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut response = response::ok(&app.tokens.jwks())?;
    // Ten minutes: a new key must be published at least this long before it signs.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=600"));
    let tag = response::entity_tag(response.body(), "")?;
    Ok(response::with_entity_tag(response, tag, &request.headers))
}
