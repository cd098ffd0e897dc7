//! Answers, and the one place that maps an [`Error`] to a status.

use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_NONE_MATCH, LINK, LOCATION, RETRY_AFTER, STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::base::error::{Challenge, Error, Presenter, Sent};
use crate::base::id::KeyId;
use crate::memory::limiter::Quota;

pub(crate) type Response = http::Response<Bytes>;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// `Retry-After` in seconds when the server or the store is too busy or unreachable.
const RETRY_AFTER_SECONDS: &str = "1";

/// Larger answers do not fit into the system's send buffer.
const MAY_WAIT: usize = 16 * 1024;

pub(crate) fn ok<T: Serialize>(body: &T) -> Result<Response, Error> {
    json(StatusCode::OK, body)
}

pub(crate) fn created<T: Serialize>(body: &T) -> Result<Response, Error> {
    json(StatusCode::CREATED, body)
}

pub(crate) fn accepted<T: Serialize>(body: &T) -> Result<Response, Error> {
    json(StatusCode::ACCEPTED, body)
}

#[derive(Serialize)]
struct Told<'a> {
    message: &'a str,
}

/// `{"message": …}`
pub(crate) fn message(text: &str) -> Result<Response, Error> {
    ok(&Told { message: text })
}

/// The same with 202.
pub(crate) fn accepted_message(text: &str) -> Result<Response, Error> {
    accepted(&Told { message: text })
}

fn json<T: Serialize>(status: StatusCode, body: &T) -> Result<Response, Error> {
    let mut body = serde_json::to_vec(body).map_err(|error| Error::Internal(format!("writing an answer: {error}")))?;
    // It may wait long for its client.
    if body.len() > MAY_WAIT {
        body.shrink_to_fit();
    }
    Ok(with_body(status, "application/json; charset=utf-8", body.into()))
}

pub(crate) fn with_body(status: StatusCode, content_type: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A strong tag of this content; the suffix distinguishes its representations.
pub(crate) fn entity_tag(content: &[u8], suffix: &str) -> Result<HeaderValue, Error> {
    let hash = hex::encode(&digest::digest(&digest::SHA256, content).as_ref()[..16]);
    HeaderValue::try_from(format!("\"{hash}{suffix}\"")).map_err(|error| Error::Internal(format!("a tag: {error}")))
}

/// A 200 with its entity tag. A client that has this content already gets a 304 (RFC 9110 §13.1.2, §15.4.5); one that
/// requires other content gets a 412 (§13.1.1), which is checked first (§13.2.2).
pub(crate) fn with_entity_tag(mut response: Response, tag: HeaderValue, asked: &HeaderMap) -> Response {
    // Strong comparison (§8.8.3.2).
    if asked.contains_key(IF_MATCH) && !tags(asked, IF_MATCH).any(|wanted| wanted == b"*" || wanted == tag.as_bytes()) {
        let message = Message::One("If-Match names another version than there is");
        return error_body(StatusCode::PRECONDITION_FAILED, message, More::default());
    }
    // Weak comparison.
    let is = |known: &[u8]| known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes();
    if tags(asked, IF_NONE_MATCH).any(is) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.body_mut().clear();
        response.headers_mut().remove(CONTENT_TYPE);
        response.headers_mut().remove(CONTENT_ENCODING);
    }
    response.headers_mut().insert(ETAG, tag);
    response
}

/// The members of a list of tags. Our tags have no comma, so the list is split at commas.
fn tags(asked: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lists = asked.get_all(name).into_iter().flat_map(|list| list.as_bytes().split(|b| *b == b','));
    lists.map(<[u8]>::trim_ascii)
}

/// The contract's error shape.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody<'a> {
    status_code: u16,
    message: Message<'a>,
    error: &'a str,
    #[serde(flatten)]
    more: More<'a>,
}

/// What only some errors have.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct More<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<KeyId>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Message<'a> {
    One(&'a str),
    Many(&'a [String]),
}

fn error_body(status: StatusCode, message: Message<'_>, more: More<'_>) -> Response {
    let error = status.canonical_reason().unwrap_or("Error");
    let body = ErrorBody { status_code: status.as_u16(), message, error, more };
    json(status, &body).unwrap_or_else(|_| with_body(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", Bytes::new()))
}

/// The answer to an error. `too_many` is the status of [`Error::TooMany`].
pub fn error(error: &Error, too_many: StatusCode, request_id: &str) -> Response {
    let status = match error {
        Error::BrokenRules(_) | Error::Malformed(_) => StatusCode::BAD_REQUEST,
        Error::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Error::TooSlow => StatusCode::REQUEST_TIMEOUT,
        Error::UnsupportedCoding | Error::UnsupportedCharset => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Error::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
        Error::Forbidden(_) | Error::InsufficientScope { .. } => StatusCode::FORBIDDEN,
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::Conflict(_) | Error::KeyReplaced { .. } => StatusCode::CONFLICT,
        Error::TooMany { .. } => too_many,
        Error::NotConfigured(_) => StatusCode::NOT_IMPLEMENTED,
        Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let lacking;
    let too_large;
    let message = match error {
        Error::BrokenRules(rules) => Message::Many(rules),
        Error::Malformed(what) => Message::One(what),
        Error::TooLarge(most) => {
            too_large = format!("Request body is larger than {most} bytes");
            Message::One(&too_large)
        }
        Error::TooSlow => Message::One("Request body was not received in time"),
        Error::UnsupportedCoding => Message::One("Content-Encoding must be identity"),
        Error::UnsupportedCharset => Message::One("Charset must be utf-8"),
        Error::Unauthenticated { message, .. } | Error::KeyReplaced { message, .. } => Message::One(message),
        Error::Forbidden(what) => Message::One(what),
        Error::NotFound(what) | Error::Conflict(what) => Message::One(what),
        Error::InsufficientScope { scopes, by } => {
            let what = match by {
                Presenter::Key | Presenter::BearerKey => "API key",
                Presenter::Token => "Token",
                Presenter::User => "User",
            };
            let scope = if scopes.contains(' ') { "one of the scopes" } else { "the scope" };
            lacking = format!("{what} lacks {scope} {scopes}");
            Message::One(&lacking)
        }
        Error::TooMany { message, .. } => Message::One(message),
        Error::NotConfigured(what) => Message::One(what),
        Error::Unavailable(_) => Message::One("Service temporarily unavailable, try again shortly"),
        Error::Internal(_) => Message::One("Internal server error"),
    };
    let more = match error {
        Error::Internal(_) => More { request_id: Some(request_id), ..More::default() },
        Error::KeyReplaced { by, .. } => More { replaced_by: Some(*by), ..More::default() },
        _ => More::default(),
    };
    let mut response = error_body(status, message, more);
    let headers = response.headers_mut();
    match error {
        Error::Unauthenticated { challenge, .. } => {
            for value in challenges(*challenge) {
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
            }
        }
        Error::InsufficientScope { scopes, by } => {
            let scheme = if *by == Presenter::Key { "ApiKey" } else { "Bearer" };
            let challenge = format!("{scheme} error=\"insufficient_scope\", scope=\"{scopes}\"");
            headers.extend(HeaderValue::from_str(&challenge).ok().map(|value| (WWW_AUTHENTICATE, value)));
        }
        // RFC 7694 §3.
        Error::UnsupportedCoding => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        Error::TooMany { wait, .. } => {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(*wait).max(1)));
        }
        Error::Unavailable(_) => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        _ => {}
    }
    response
}

/// RFC 6750 §3, RFC 7617 §2 and RFC 9110 §11.6.1.
fn challenges(challenge: Challenge) -> impl Iterator<Item = &'static str> {
    let bearer = challenge.token.map(|sent| match sent {
        Sent::Yes => "Bearer error=\"invalid_token\"",
        Sent::No => "Bearer",
    });
    let basic = challenge.basic.then_some("Basic realm=\"keyward\", charset=\"UTF-8\"");
    bearer.into_iter().chain(challenge.key.then_some("ApiKey")).chain(basic)
}

/// 404 for an unknown path.
pub(crate) fn no_such_route(method: &http::Method, path: &str) -> Response {
    error_body(StatusCode::NOT_FOUND, Message::One(&format!("Cannot {method} {path}")), More::default())
}

/// 405 for a path that has only other methods.
pub(crate) fn method_not_allowed(method: &http::Method, path: &str, allow: &str) -> Response {
    let text = format!("Cannot {method} {path}; allowed: {allow}");
    let mut response = error_body(StatusCode::METHOD_NOT_ALLOWED, Message::One(&text), More::default());
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// 204 with the methods of a path, or of the server (RFC 9110 §9.3.7).
pub fn options(allow: &'static str) -> Response {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// 501 for CONNECT, which is for proxies. Anything the client sent after it is meant for the other end of the tunnel,
/// so it is not read.
pub(crate) fn no_tunnel() -> Response {
    let mut response = error_body(StatusCode::NOT_IMPLEMENTED, Message::One("Cannot CONNECT"), More::default());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// 400 for a request that two parties could read differently. Nothing after it on the connection can be trusted.
pub(crate) fn ambiguous(why: &str) -> Response {
    let mut response = error_body(StatusCode::BAD_REQUEST, Message::One(why), More::default());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The answer to a head that cannot be read. Where the next request begins is unknown.
pub(crate) fn refused(status: StatusCode, most_bytes: usize, most_fields: usize) -> Response {
    let too_large = format!("Request head has more than {most_bytes} bytes or {most_fields} fields");
    let message = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => &too_large,
        StatusCode::HTTP_VERSION_NOT_SUPPORTED => "HTTP/1.1 is spoken here",
        _ => "Request head is malformed",
    };
    let mut response = error_body(status, Message::One(message), More::default());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// 308: the same request at this address. The connection ends.
pub(crate) fn moved(address: HeaderValue) -> Response {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, address);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Reports a key's limit and what is left of it (draft-ietf-httpapi-ratelimit-headers-10 §3, §4).
pub(crate) fn tell_quota(response: &mut Response, quota: &Quota) {
    let policy = format!("\"default\";q={};w={}", quota.policy.limit, quota.policy.window.as_secs());
    let left = format!("\"default\";r={};t={}", quota.remaining, whole_seconds(quota.reset));
    for (name, value) in [(RATELIMIT_POLICY, policy), (RATELIMIT, left)] {
        response.headers_mut().extend(HeaderValue::from_str(&value).ok().map(|value| (name, value)));
    }
}

/// Links to the next page of a list (RFC 8288), with a path of ours.
pub(crate) fn tell_next(response: &mut Response, path: &str) {
    let link = HeaderValue::from_str(&format!("<{path}>; rel=\"next\"")).ok();
    response.headers_mut().extend(link.map(|link| (LINK, link)));
}

/// Rounded up, so that a client who waits this long has waited long enough.
pub(crate) fn whole_seconds(span: Duration) -> u64 {
    span.as_nanos().div_ceil(1_000_000_000) as u64
}

/// Turns the answer to GET into that to HEAD: the same headers, no body (RFC 9110 §9.3.2).
pub(crate) fn drop_body(response: &mut Response) {
    let length = std::mem::take(response.body_mut()).len();
    if response.status() != StatusCode::NOT_MODIFIED {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// The headers that every answer carries.
pub(crate) fn finish(response: &mut Response, request_id: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id);
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Answers hold tokens, keys and personal data: no cache may store them.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// RFC 6797: browsers use only TLS for this host for a year. Other hosts of the domain are left out, because they may
/// have no TLS. It must not be sent without TLS (§7.2).
pub(crate) fn insist_on_tls(response: &mut Response) {
    response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
}
