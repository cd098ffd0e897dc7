//! `/.well-known/openid-configuration` and `/.well-known/oauth-authorization-server`: where others find what they need to
//! verify tokens.

use http::HeaderValue;
use http::header::CACHE_CONTROL;

use crate::app::App;
use crate::base::error::Error;
use crate::http::request::Request;
use crate::http::response::{self, Response};

/// `GET /.well-known/openid-configuration` and `GET /.well-known/oauth-authorization-server` → 200 with the issuer's
/// metadata (RFC 8414 §3.2). Both have the same members: a reader passes over those it does not know.
pub(crate) fn metadata(app: &App, request: &mut Request) -> Result<Response, Error> {
    let metadata = app.tokens.metadata().ok_or_else(|| {
        let what = "There is no such document: set JWT_ISSUER to an https URL, such as https://auth.example.com";
        Error::NotFound(what.into())
    })?;
    let mut response = response::ok(&metadata)?;
    // As long as the key set that it leads to.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=600"));
    let tag = response::entity_tag(response.body(), "")?;
    Ok(response::with_entity_tag(response, tag, &request.headers))
}
