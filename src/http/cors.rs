//! Which web pages may read answers: the CORS protocol of the [Fetch standard](https://fetch.spec.whatwg.org/#http-cors-protocol),
//! server's side.
//!
//! It keeps nobody out. Credentials travel in headers that a page must hold itself, never in cookies, so a page of another
//! origin can ask no more than anybody; what a browser keeps from it is the answer, unless its origin is listed here.

use std::net::Ipv6Addr;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::page_headers::PageHeaders;
use crate::http::response::Response;

/// The origins whose pages may read answers. If there are none, answers do not mention origins.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// As browsers write them. Static, so that answers on several threads do not contend for one reference count.
    origins: Vec<HeaderValue>,
    /// What their pages may send.
    pub headers: PageHeaders,
}

/// Headers that pages may read, beside those that they always may.
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("etag, link, ratelimit, ratelimit-policy, retry-after, www-authenticate, x-request-id");
/// How long browsers may cache the answer to a preflight, in seconds. No browser caches it for more than a day.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

impl Cors {
    /// Takes origins, separated by commas. The error says what is wrong with the list and, where possible, what was
    /// meant.
    pub fn set_origins(&mut self, list: &str) -> Result<(), String> {
        let origins = list.split(',').map(|text| {
            let origin = origin(text.trim())?;
            // A handful of texts, made once for the life of the process.
            Ok(HeaderValue::from_static(origin.leak()))
        });
        self.origins = origins.collect::<Result<_, String>>()?;
        Ok(())
    }

    /// The request's origin, if it is listed.
    pub fn origin(&self, asked: &HeaderMap) -> Option<HeaderValue> {
        if self.origins.is_empty() {
            return None;
        }
        let mut sent = asked.get_all(ORIGIN).iter();
        let (Some(sent), None) = (sent.next(), sent.next()) else { return None };
        self.origins.iter().find(|listed| *listed == sent).cloned()
    }

    /// Adds to the answer to a preflight what a page of this origin may ask of the path. `address_header`: in which
    /// proxies name the client's address.
    pub fn preflight(
        &self,
        origin: Option<&HeaderValue>,
        asked: &HeaderMap,
        address_header: &HeaderName,
        allow: &'static str,
        answer: &mut Response,
    ) {
        if self.origins.is_empty() {
            return;
        }
        let headers = answer.headers_mut();
        let on = HeaderValue::from_static("access-control-request-method, access-control-request-headers");
        headers.append(VARY, on);
        if origin.is_some() && asked.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(allow));
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.allowed(asked, address_header));
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        }
    }

    /// Lets pages of this origin read the answer, whatever its status.
    pub fn finish(&self, origin: Option<HeaderValue>, answer: &mut Response) {
        if self.origins.is_empty() {
            return;
        }
        let headers = answer.headers_mut();
        // Also if the origin is not listed, or a cache could give one origin the answer for another.
        headers.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }
}

/// The origin as browsers write it (RFC 6454 §6.2): scheme and host in lower case, and the port unless it is the
/// scheme's default. Anything that browsers never write is refused: it would match nothing, and nobody would know why.
fn origin(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("has an empty origin".to_string());
    }
    let lower = text.to_ascii_lowercase();
    // The message is one line.
    let text = text.escape_debug();
    if lower.contains('*') {
        return Err(format!("has {text}, but every origin must be named"));
    }
    if lower == "null" {
        return Err("has null, which is the origin of any file and any sandboxed page".to_string());
    }
    let Some((scheme, rest)) = lower.split_once("://") else {
        return Err(format!("has {text} without a scheme, write https://{text}"));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if !is_scheme(scheme) || !is_host(host) || !port.is_none_or(is_port) {
        return Err(format!("has {text}, which is no origin"));
    }
    let (without_port, default) = (format!("{scheme}://{host}"), [("http", "80"), ("https", "443")]);
    let is_default = port.is_some_and(|port| default.contains(&(scheme, port)));
    let origin = if is_default { without_port } else { format!("{scheme}://{authority}") };
    match &rest[authority.len()..] {
        "" if is_default => Err(format!("has {text} with the port that browsers leave out, write {origin}")),
        "" => Ok(origin),
        "/" => Err(format!("has {text} with a slash at its end, write {origin}")),
        _ => Err(format!("has {text} with a path, write {origin}")),
    }
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// A name in ASCII, or an address.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')),
    }
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok_and(|number| number.to_string() == port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_taken_as_browsers_write_them_and_nothing_else_is() {
        for (text, expected) in [
            ("https://app.example.com", "https://app.example.com"),
            ("HTTPS://App.Example.com:8443", "https://app.example.com:8443"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
        ] {
            assert_eq!(origin(text).as_deref(), Ok(expected));
        }
        for (text, fault) in [
            ("", "has an empty origin"),
            ("*", "has *, but every origin must be named"),
            ("https://*.example.com", "has https://*.example.com, but every origin must be named"),
            ("null", "has null, which is the origin of any file and any sandboxed page"),
            ("app.example.com", "has app.example.com without a scheme, write https://app.example.com"),
            ("https://a.example/", "has https://a.example/ with a slash at its end, write https://a.example"),
            ("https://a.example/b?c", "has https://a.example/b?c with a path, write https://a.example"),
            (
                "https://a.example:443",
                "has https://a.example:443 with the port that browsers leave out, write https://a.example",
            ),
            ("http://a.example:80/", "has http://a.example:80/ with a slash at its end, write http://a.example"),
            ("https://", "has https://, which is no origin"),
            ("https://user@a.example", "has https://user@a.example, which is no origin"),
            ("https://b\u{fc}cher.example", "has https://b\u{fc}cher.example, which is no origin"),
            ("https://a.example:", "has https://a.example:, which is no origin"),
            ("https://a.example:08", "has https://a.example:08, which is no origin"),
            ("http://[::1]:80443", "has http://[::1]:80443, which is no origin"),
            ("https://a\r\n.example", "has https://a\\r\\n.example, which is no origin"),
            ("https://a.example b.example", "has https://a.example b.example, which is no origin"),
        ] {
            assert_eq!(origin(text).unwrap_err(), fault);
        }
        let mut cors = Cors::default();
        cors.set_origins("https://a.example, http://b.example").unwrap();
        assert_eq!(cors.origins.len(), 2);
        assert!(cors.set_origins("https://a.example,").is_err());
    }
}
