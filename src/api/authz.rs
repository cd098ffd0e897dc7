//! `/authz/…`: whether a gateway may pass on a request, and whose it is. Each gateway's contract has a route; one guard
//! judges for all.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use log::info;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::app::App;
use crate::base::error::Error;
use crate::base::form_encoding::url_encoded;
use crate::guard::principal::Principal;
use crate::guard::requirements::{GatewayDemand, Guard};
use crate::http::request::Request;
use crate::http::response::Response;
use crate::keys::scopes::Scopes;

const X_AUTH_TYPE: HeaderName = HeaderName::from_static("x-auth-type");
const X_AUTH_USER_ID: HeaderName = HeaderName::from_static("x-auth-user-id");
const X_AUTH_EMAIL: HeaderName = HeaderName::from_static("x-auth-email");
const X_AUTH_KEY_ID: HeaderName = HeaderName::from_static("x-auth-key-id");
const X_AUTH_KEY_NAME: HeaderName = HeaderName::from_static("x-auth-key-name");
const X_AUTH_SCOPES: HeaderName = HeaderName::from_static("x-auth-scopes");
const X_AUTH_EMAIL_VERIFIED: HeaderName = HeaderName::from_static("x-auth-email-verified");
const X_AUTH_EXTERNAL_ID: HeaderName = HeaderName::from_static("x-auth-external-id");
const X_AUTH_KEY_EXPIRES_AT: HeaderName = HeaderName::from_static("x-auth-key-expires-at");

/// The headers of [`admit`]'s answer.
static TOLD: [HeaderName; 9] = [
    X_AUTH_TYPE,
    X_AUTH_USER_ID,
    X_AUTH_EMAIL,
    X_AUTH_EMAIL_VERIFIED,
    X_AUTH_KEY_ID,
    X_AUTH_KEY_NAME,
    X_AUTH_KEY_EXPIRES_AT,
    X_AUTH_EXTERNAL_ID,
    X_AUTH_SCOPES,
];

/// The characters that are percent-encoded: all but letters, digits and the usual ones of e-mails and scopes. `+` is
/// encoded, because some read it as a space.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@').remove(b':').remove(b'/');

/// Any method, `/authz/forward-auth`, `/authz/auth-request` and `/authz/ext-authz/*` → 200 without a body; the headers
/// in [`TOLD`] tell whose request it is. All are always there, empty if need be: a gateway that copies them overwrites what the
/// client has sent under these names. A client's header with another spelling of such a name would reach the service,
/// so it is a 403.
pub(crate) fn admit(_: &App, request: &mut Request) -> Result<Response, Error> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    // These, and the headers of every answer.
    headers.reserve(15);
    let (user, email, is_verified) = match &request.principal {
        Principal::User(user) => {
            headers.insert(X_AUTH_TYPE, HeaderValue::from_static("user"));
            headers.insert(X_AUTH_SCOPES, list(user.scopes.iter())?);
            for none in [X_AUTH_KEY_ID, X_AUTH_KEY_NAME, X_AUTH_KEY_EXPIRES_AT, X_AUTH_EXTERNAL_ID] {
                headers.insert(none, EMPTY);
            }
            (user.id, &user.email, user.email_verified)
        }
        Principal::Service(service) => {
            let key = &*service.key;
            let expires_at = key.expires_at.map(|expires_at| value(&expires_at.to_string()));
            headers.insert(X_AUTH_TYPE, HeaderValue::from_static("service"));
            headers.insert(X_AUTH_SCOPES, list(service.scopes())?);
            headers.insert(X_AUTH_KEY_ID, id(key.id.0)?);
            headers.insert(X_AUTH_KEY_NAME, text(&key.name)?);
            headers.insert(X_AUTH_KEY_EXPIRES_AT, expires_at.unwrap_or(Ok(EMPTY))?);
            headers.insert(X_AUTH_EXTERNAL_ID, key.external_id.as_deref().map_or(Ok(EMPTY), text)?);
            (key.owner, &key.email, key.email_verified)
        }
        Principal::Anonymous => return Err(Error::Internal("a gateway's route has no guard".to_string())),
    };
    headers.insert(X_AUTH_USER_ID, id(user.0)?);
    headers.insert(X_AUTH_EMAIL, text(email)?);
    headers.insert(X_AUTH_EMAIL_VERIFIED, HeaderValue::from_static(if is_verified { "true" } else { "false" }));
    Ok(response)
}

const EMPTY: HeaderValue = HeaderValue::from_static("");

fn id(id: Uuid) -> Result<HeaderValue, Error> {
    value(id.hyphenated().encode_lower(&mut [0; Hyphenated::LENGTH]))
}

fn text(text: &str) -> Result<HeaderValue, Error> {
    value(&Cow::from(utf8_percent_encode(text, ENCODED)))
}

/// Each scope encoded, separated by spaces.
fn list<'a>(scopes: impl Iterator<Item = &'a str>) -> Result<HeaderValue, Error> {
    let mut listed = String::new();
    for scope in scopes {
        if !listed.is_empty() {
            listed.push(' ');
        }
        listed.extend(utf8_percent_encode(scope, ENCODED));
    }
    value(&listed)
}

fn value(encoded: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(encoded).map_err(|error| Error::Internal(format!("writing a header: {error}")))
}

/// Reads the query that the gateway's operator has written: `allow=user`, `allow=service` or both, separated by a
/// comma, and `scope=` with scopes separated by spaces, all of which the user or the key needs. Anything else in the query denies
/// everything.
pub fn demand(request: &Request) -> Result<GatewayDemand, Error> {
    without_aliases(&request.headers)?;
    read_demand(request, request.query.as_deref().unwrap_or_default())
}

/// The same for a gateway that appends the client's path and query to the operator's URL, as Envoy does. The client
/// must not be able to change anything. So nothing after the first slash is read, and in the operator's query nothing
/// after `path=`.
pub fn demand_before_path(request: &Request) -> Result<GatewayDemand, Error> {
    without_aliases(&request.headers)?;
    let query = request.query.as_deref().unwrap_or_default();
    let (operators, clients) = match query.strip_prefix("path=") {
        Some(clients) => ("", Some(clients)),
        None => query.split_once("&path=").map_or((query, None), |(operators, clients)| (operators, Some(clients))),
    };
    let rest = request.parameters.get("*");
    // Refuses an operator's words that would be ignored, because they come after `path=` or a slash.
    if rest.is_empty() && clients.is_some_and(|path| !matches!(path.as_bytes(), [] | [b'*'] | [b'/', ..])) {
        return Err(misconfigured(request, "must have nothing after path="));
    }
    if rest == "/"
        && (clients.is_some() || operators.contains('/'))
        && ["allow=", "scope="].iter().any(|word| operators.starts_with(word))
    {
        return Err(misconfigured(request, "must not come behind a slash"));
    }
    read_demand(request, if rest.is_empty() { operators } else { "" })
}

/// Denies a request in which a client sets a header of ours in another spelling. PHP, CGI and WSGI turn every character
/// of a header's name that is no letter or digit into `_`: for them `x.auth_type` is `x-auth-type`, for gateways it is
/// another header.
fn without_aliases(headers: &HeaderMap) -> Result<(), Error> {
    if headers.keys().any(|name| TOLD.iter().any(|told| is_alias(name.as_str(), told.as_str()))) {
        return Err(Error::Forbidden("A header has another spelling of a name that begins with X-Auth-"));
    }
    Ok(())
}

/// Both are in lower case, as [`HeaderName`] has them.
fn is_alias(name: &str, told: &str) -> bool {
    let reads_alike = |(a, b): (u8, u8)| a == b || (b == b'-' && !a.is_ascii_alphanumeric());
    name.len() == told.len() && name != told && name.bytes().zip(told.bytes()).all(reads_alike)
}

/// Logs the operator's mistake at the level debug: any client could cause this line.
fn misconfigured(request: &Request, rule: &str) -> Error {
    info!("{}: a gateway's request is denied, its query {rule}", request.id.to_str().unwrap_or_default());
    Error::Forbidden("The gateway is misconfigured: its query is not understood")
}

fn read_demand(request: &Request, query: &str) -> Result<GatewayDemand, Error> {
    let (mut allowed, mut scopes) = (None, None);
    let read = url_encoded(query).try_for_each(|pair| {
        let (name, value) = pair.ok_or("must be percent-encoded UTF-8")?;
        match &*name {
            "allow" if allowed.is_none() => allowed = Some(guard(&value)?),
            "scope" if scopes.is_none() => {
                let tokens: Vec<&str> = value.split(' ').collect();
                scopes = Some(Scopes::parse(&tokens).map_err(|_| "must have scopes in scope, separated by spaces")?);
            }
            _ => return Err("must hold nothing but allow and scope, once each"),
        }
        Ok(())
    });
    read.map_err(|rule| misconfigured(request, rule))?;
    Ok(GatewayDemand { guard: allowed.unwrap_or(Guard::Flexible), scopes: scopes.unwrap_or_default() })
}

fn guard(allowed: &str) -> Result<Guard, &'static str> {
    match allowed {
        "user" => Ok(Guard::Jwt),
        "service" => Ok(Guard::ApiKey),
        "user,service" | "service,user" => Ok(Guard::Flexible),
        _ => Err("must have user, service or both, separated by a comma, in allow"),
    }
}
