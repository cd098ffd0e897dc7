//! A request as handlers see it.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue};

use crate::audit::event::{By, Origin};
use crate::base::error::Error;
use crate::guard::principal::Principal;

/// What a handler may know of a request.
pub struct Request {
    /// Also in the answer and in the log.
    pub id: HeaderValue,
    pub headers: HeaderMap,
    /// The values of the path's parameters.
    pub parameters: Parameters,
    /// The part after `?`, as it was sent.
    pub query: Option<String>,
    /// Read if the route takes a body. An error is only reported once the credential is judged.
    pub body: Result<Bytes, Error>,
    /// Who asks, as the guard found.
    pub principal: Principal,
    /// The client's address, behind trusted proxies.
    pub client: IpAddr,
}

impl Request {
    pub(crate) fn origin(&self) -> Origin {
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_string);
        Origin {
            ip: self.client,
            user_agent: self.headers.get(USER_AGENT).and_then(text),
            request_id: text(&self.id).unwrap_or_default(),
        }
    }

    /// Whose request this is, for the audit trail.
    pub(crate) fn by(&self) -> By {
        By { actor: self.principal.actor(), origin: Some(self.origin()) }
    }

    /// The same on a route for operators.
    pub(crate) fn by_operator(&self) -> By {
        By { actor: self.principal.operator(), origin: Some(self.origin()) }
    }
}

/// The most parameters that the path of a route may have.
pub const PARAMETERS: usize = 2;

/// The values of a path's parameters by their names; that of a `*` has the name `*`.
#[derive(Default)]
pub struct Parameters {
    /// The route's.
    path: &'static str,
    values: [String; PARAMETERS],
}

impl Parameters {
    /// `path`: the route's. `values`: in the order of the path's parameters.
    pub fn new(path: &'static str, values: [String; PARAMETERS]) -> Parameters {
        Parameters { path, values }
    }

    /// Empty if the path has no such parameter.
    pub fn get(&self, name: &str) -> &str {
        parameter_names(self.path).zip(&self.values).find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// The names in the path of a route: `/keys/:id/*` has `id` and `*`.
pub(crate) fn parameter_names(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/').filter_map(|segment| if segment == "*" { Some(segment) } else { segment.strip_prefix(':') })
}

/// The id that the client sent, if it is a short token. It goes into the log; keys and JWTs are too long to pass.
pub fn request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(super::response::X_REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        (1..=64).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    })
}
