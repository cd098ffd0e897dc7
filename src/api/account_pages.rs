//! `/account/…`: two plain pages to which links in mails lead, unless the operator has pages of their own.
//!
//! The token is in the fragment of the link, so no server sees it before the person presses the button.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};

use crate::accounts::one_time::TokenKind;
use crate::app::App;
use crate::base::error::Error;
use crate::http::request::Request;
use crate::http::response::{self, Response};

const HTML: &str = "text/html; charset=utf-8";

/// Everything comes from this server; nothing is inline, and nobody shows the page within theirs. The script sends the form,
/// not the browser.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// The tag of an embedded file.
type Tag = LazyLock<Result<HeaderValue, Error>>;

macro_rules! embedded {
    ($name:ident, $tag:ident, $file:literal) => {
        static $name: &[u8] = include_bytes!(concat!("../../static/account/", $file));
        static $tag: Tag = LazyLock::new(|| response::entity_tag($name, ""));
    };
}

embedded!(RESET, RESET_TAG, "reset.html");
embedded!(VERIFY, VERIFY_TAG, "verify.html");
embedded!(SCRIPT, SCRIPT_TAG, "account.js");
embedded!(STYLE, STYLE_TAG, "account.css");

fn answer(request: &Request, content_type: &'static str, content: &'static [u8], tag: &Tag) -> Result<Response, Error> {
    let tag = tag.as_ref().map_err(|_| Error::Internal("the tag of a page".to_string()))?.clone();
    let mut response = response::with_body(StatusCode::OK, content_type, Bytes::from_static(content));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response::with_entity_tag(response, tag, &request.headers))
}

fn absent(name: &str) -> Error {
    Error::NotFound(format!("Cannot GET /account/{name}").into())
}

/// `GET /account/reset` → 200, a page that sets a password; 404 if links lead elsewhere.
pub(crate) fn reset(app: &App, request: &mut Request) -> Result<Response, Error> {
    if !app.pages.are_ours(TokenKind::ResetPassword) {
        return Err(absent("reset"));
    }
    answer(request, HTML, RESET, &RESET_TAG)
}

/// `GET /account/verify` → 200, a page that verifies an e-mail; 404 if links lead elsewhere.
pub(crate) fn verify(app: &App, request: &mut Request) -> Result<Response, Error> {
    if !app.pages.are_ours(TokenKind::VerifyEmail) {
        return Err(absent("verify"));
    }
    answer(request, HTML, VERIFY, &VERIFY_TAG)
}

/// `GET /account/:file` → 200, a file that the pages load.
pub(crate) fn file(app: &App, request: &mut Request) -> Result<Response, Error> {
    let is_used = app.pages.are_ours(TokenKind::ResetPassword) || app.pages.are_ours(TokenKind::VerifyEmail);
    match request.parameters.get("file") {
        "account.js" if is_used => answer(request, "text/javascript; charset=utf-8", SCRIPT, &SCRIPT_TAG),
        "account.css" if is_used => answer(request, "text/css; charset=utf-8", STYLE, &STYLE_TAG),
        name => Err(absent(name)),
    }
}
