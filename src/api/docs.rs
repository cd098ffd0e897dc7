//! `/api/docs`: Swagger UI and the OpenAPI document, embedded compressed by the build script.

use std::io::Read;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, REFERRER_POLICY, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::app::App;
use crate::error::Error;
use crate::http::request::Request;
use crate::http::response::{self, Response};

/// A file in the binary.
struct Embedded {
    name: &'static str,
    content_type: &'static str,
    gzipped: &'static [u8],
    /// Unpacked once, for the first client that does not take gzip.
    plain: OnceLock<Bytes>,
}

macro_rules! embedded {
    ($name:literal, $content_type:literal) => {
        Embedded {
            name: $name,
            content_type: $content_type,
            gzipped: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
            plain: OnceLock::new(),
        }
    };
}

static PAGE: Embedded = embedded!("docs.html", "text/html; charset=utf-8");
static OPENAPI: Embedded = embedded!("openapi.json", "application/json; charset=utf-8");
static FILES: [Embedded; 6] = [
    embedded!("docs.js", "text/javascript; charset=utf-8"),
    embedded!("swagger-ui.css", "text/css; charset=utf-8"),
    embedded!("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    embedded!("favicon-32x32.png", "image/png"),
    embedded!("LICENSE", "text/plain; charset=utf-8"),
    embedded!("NOTICE", "text/plain; charset=utf-8"),
];

/// Scripts and styles are files of ours; Swagger UI's icons are data: images.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl Embedded {
    fn answer(&'static self, headers: &HeaderMap, cache: &'static str) -> Result<Response, Error> {
        let gzip = takes_gzip(headers);
        let body = if gzip { Bytes::from_static(self.gzipped) } else { self.plain()? };
        let mut response = response::with_body(StatusCode::OK, self.content_type, body);
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(response)
    }

    fn plain(&self) -> Result<Bytes, Error> {
        if let Some(plain) = self.plain.get() {
            return Ok(plain.clone());
        }
        let mut plain = Vec::new();
        GzDecoder::new(self.gzipped)
            .read_to_end(&mut plain)
            .map_err(|error| Error::Internal(format!("unpacking {}: {error}", self.name)))?;
        Ok(self.plain.get_or_init(|| plain.into()).clone())
    }
}

/// RFC 9110 §12.5.3, as far as gzip is concerned.
fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
            name.trim().eq_ignore_ascii_case("gzip") && !refused
        })
}

/// `GET /api/docs` → 200, the page.
pub fn page(_: &App, request: &mut Request) -> Result<Response, Error> {
    let mut response = PAGE.answer(&request.headers, "no-cache")?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

/// `GET /api/docs/openapi.json` and, where generators of the old service look, `/api/docs-json` → 200.
pub fn openapi(_: &App, request: &mut Request) -> Result<Response, Error> {
    OPENAPI.answer(&request.headers, "no-cache")
}

/// `GET /api/docs/:file` → 200, what the page loads.
pub fn file(_: &App, request: &mut Request) -> Result<Response, Error> {
    let file = FILES.iter().find(|file| file.name == request.parameter);
    let file = file.ok_or_else(|| Error::NotFound(format!("Cannot GET /api/docs/{}", request.parameter).into()))?;
    file.answer(&request.headers, "public, max-age=3600")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        let takes = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            takes_gzip(&headers)
        };
        assert!(takes("gzip, deflate, br") && takes("br;q=1.0, GZIP;q=0.8"));
        assert!(!takes("") && !takes("br") && !takes("gzip;q=0") && !takes("gzip; q=0.0"));
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
