//! Refuses requests that two parties on the way could read differently, and that hyper and h2 accept.

use http::Version;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, Scheme};

use crate::http::front::Purpose;

/// In a request's extensions: its target had a fragment.
#[derive(Clone, Copy)]
pub(crate) struct Fragment;

/// What two parties on the way could read differently (RFC 9112 §3.2, §6.3, §11.2, RFC 9113 §8.3.1). `None`: nothing.
pub(crate) fn ambiguity(purpose: Purpose, head: &Parts) -> Option<&'static str> {
    let (version, headers) = (head.version, &head.headers);
    if head.extensions.get::<Fragment>().is_some() {
        return Some("Target has a fragment");
    }
    let mut hosts = headers.get_all(HOST).iter();
    if version < Version::HTTP_2 {
        // RFC 9112 §3.2.2: a server accepts the absolute form. RFC 9110 §4.2.4, §7.4.
        if head.uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
            return Some("Target is not http");
        }
        if let Some(authority) = head.uri.authority().map(|authority| authority.as_str().as_bytes()) {
            if authority.contains(&b'@') {
                return Some("Target names a user");
            }
            if !is_host(authority) {
                return Some("Target's host is invalid");
            }
        }
    } else if let Some(scheme) = head.uri.scheme() {
        let spoken = if purpose == (Purpose::Api { tls: true }) { Scheme::HTTPS } else { Scheme::HTTP };
        if *scheme != spoken {
            return Some(":scheme is not what is spoken here");
        }
    }
    // HTTP/2 has `:authority`.
    let authority = head.uri.authority().filter(|_| version >= Version::HTTP_2);
    match (hosts.next(), hosts.next()) {
        (None, _) if version >= Version::HTTP_11 && authority.is_none() => return Some("Host header is missing"),
        (Some(_), Some(_)) => return Some("Host header is repeated"),
        (Some(host), None) if !is_host(host.as_bytes()) => return Some("Host header is invalid"),
        (Some(host), None) if authority.is_some_and(|authority| authority.as_str() != host) => {
            return Some("Host header is not the :authority");
        }
        _ => {}
    }
    if authority.is_some_and(|authority| !is_host(authority.as_str().as_bytes())) {
        return Some(":authority is invalid");
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Some("Transfer-Encoding must be chunked");
    }
    if headers.get_all(CONTENT_LENGTH).iter().any(|length| {
        let digits = length.as_bytes();
        digits.len() > 1 && digits[0] == b'0'
    }) {
        return Some("Content-Length is invalid");
    }
    None
}

fn is_host(host: &[u8]) -> bool {
    // RFC 9112 §3.2: it is empty if the target has no authority. Most are a name or an IPv4 address with or without a
    // port, which is quick to check.
    let (name, port) = host.split_at(host.iter().position(|b| *b == b':').unwrap_or(host.len()));
    let is_plain = name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        && port.iter().skip(1).all(u8::is_ascii_digit);
    if is_plain || host.contains(&b',') {
        // RFC 9110 §4.2.1: a port alone is no host. With a comma, some would read two hosts.
        return is_plain && (host.is_empty() || !name.is_empty());
    }
    Authority::try_from(host).is_ok_and(|authority| {
        // The URI parser accepts user names and any text as a port.
        let port = authority.as_str().strip_prefix(authority.host());
        port.is_some_and(|port| port.strip_prefix(':').unwrap_or(port).bytes().all(|b| b.is_ascii_digit()))
    })
}
