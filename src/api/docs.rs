//! `/api/docs`: Swagger UI and the OpenAPI document, embedded in the binary. The build script compresses large files.

use std::io::Read;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, REFERRER_POLICY, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::app::App;
use crate::base::error::Error;
use crate::http::request::Request;
use crate::http::response::{self, Response};

/// A file in the binary.
struct Embedded {
    name: &'static str,
    content_type: &'static str,
    content: Content,
    /// The tags of the plain and the compressed form, which are different representations (RFC 9110 §8.8.3.3).
    tags: OnceLock<[HeaderValue; 2]>,
}

enum Content {
    /// A file that is too small for compression to help.
    Plain(&'static [u8]),
    /// The compressed form; the plain one is made when a client that does not accept gzip asks for it.
    Gzipped(&'static [u8], OnceLock<Bytes>),
}

const fn embedded(name: &'static str, content_type: &'static str, content: Content) -> Embedded {
    Embedded { name, content_type, content, tags: OnceLock::new() }
}

/// A file that the build script wrote.
macro_rules! built {
    ($name:expr) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name))
    };
}

macro_rules! gzipped {
    ($name:literal) => {
        Content::Gzipped(built!(concat!($name, ".gz")), OnceLock::new())
    };
}

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

static PAGE: Embedded = embedded("docs.html", HTML, Content::Plain(include_bytes!("../../static/docs.html")));
static OPENAPI: Embedded = embedded("openapi.json", "application/json; charset=utf-8", gzipped!("openapi.json"));
static FILES: [Embedded; 6] = [
    embedded("docs.js", JAVASCRIPT, Content::Plain(include_bytes!("../../static/docs.js"))),
    embedded("swagger-ui.css", "text/css; charset=utf-8", gzipped!("swagger-ui.css")),
    embedded("swagger-ui-bundle.js", JAVASCRIPT, gzipped!("swagger-ui-bundle.js")),
    embedded("favicon-32x32.png", "image/png", Content::Plain(built!("favicon-32x32.png"))),
    embedded("LICENSE", TEXT, gzipped!("LICENSE")),
    embedded("NOTICE", TEXT, Content::Plain(built!("NOTICE"))),
];

/// Scripts and styles come from this server only; Swagger UI's icons are `data:` images.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl Embedded {
    fn answer(&'static self, asked: &HeaderMap, cache: &'static str) -> Result<Response, Error> {
        let gzip = matches!(self.content, Content::Gzipped(..)) && prefers_gzip(asked);
        let body = match &self.content {
            Content::Plain(content) => Bytes::from_static(content),
            Content::Gzipped(gzipped, _) if gzip => Bytes::from_static(gzipped),
            Content::Gzipped(gzipped, plain) => self.unpacked(gzipped, plain)?,
        };
        let mut response = response::with_body(StatusCode::OK, self.content_type, body);
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
        if matches!(self.content, Content::Gzipped(..)) {
            headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        }
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let [plain_tag, gzip_tag] = self.tags()?;
        let tag = if gzip { gzip_tag } else { plain_tag };
        Ok(response::with_entity_tag(response, tag.clone(), asked))
    }

    fn unpacked(&self, gzipped: &[u8], plain: &OnceLock<Bytes>) -> Result<Bytes, Error> {
        if let Some(plain) = plain.get() {
            return Ok(plain.clone());
        }
        let mut unpacked = Vec::new();
        GzDecoder::new(gzipped)
            .read_to_end(&mut unpacked)
            .map_err(|error| Error::Internal(format!("unpacking {}: {error}", self.name)))?;
        Ok(plain.get_or_init(|| unpacked.into()).clone())
    }

    fn tags(&self) -> Result<&[HeaderValue; 2], Error> {
        if let Some(tags) = self.tags.get() {
            return Ok(tags);
        }
        // Both tags come from the embedded bytes, which change whenever either form does.
        let (Content::Plain(content) | Content::Gzipped(content, _)) = &self.content;
        let tags = [response::entity_tag(content, "")?, response::entity_tag(content, "-gzip")?];
        Ok(self.tags.get_or_init(|| tags))
    }
}

/// Whether the client ranks gzip at least as high as `identity` (RFC 9110 §12.5.3); `*` ranks either that is not
/// listed. A client that accepts neither gets `identity`.
fn prefers_gzip(asked: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    let lists = asked.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for coding in lists.flat_map(|list| list.split(',')) {
        let (name, parameter) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let parameter = parameter.trim().to_ascii_lowercase();
        let Some(weight) = parameter.strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok()) else { continue };
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(weight),
            "identity" => identity = Some(weight),
            "*" => any = Some(weight),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity.or(any).unwrap_or(0.0)
}

/// `GET /api/docs` → 200, the page.
pub(crate) fn page(_: &App, request: &mut Request) -> Result<Response, Error> {
    let mut response = PAGE.answer(&request.headers, "no-cache")?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

/// `GET /api/docs/openapi.json` and `/api/docs-json`, where clients of the previous service look for it → 200.
pub(crate) fn openapi(_: &App, request: &mut Request) -> Result<Response, Error> {
    OPENAPI.answer(&request.headers, "no-cache")
}

/// `GET /api/docs/:file` → 200, a file that the page loads.
pub(crate) fn file(_: &App, request: &mut Request) -> Result<Response, Error> {
    let name = request.parameters.get("file");
    let file = FILES.iter().find(|file| file.name == name);
    let file = file.ok_or_else(|| Error::NotFound(format!("Cannot GET /api/docs/{name}").into()))?;
    file.answer(&request.headers, "public, max-age=3600")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_prefer_it() {
        let prefers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_static(value));
            }
            prefers_gzip(&headers)
        };
        for taken in [
            "gzip",
            "gzip, deflate, br",
            "br;q=1.0, GZIP;q=0.8",
            "gzip; Q=0.001",
            "x-gzip",
            "*",
            "br, *;q=0.1",
            "gzip;q=0.5, *;q=0",
            "identity;q=0, gzip",
            "identity;q=0.5, gzip;q=0.5",
            "identity;q=0, *",
            "identity;q=0.5, *",
        ] {
            assert!(prefers(&[taken]), "{taken}");
        }
        for refused in [
            "",
            "br",
            "identity",
            "gzip;q=0",
            "gzip; q=0.000",
            "gzip;q=0, *",
            "*;q=0",
            "identity;q=0",
            "identity, gzip;q=0.9",
            "gzip;q=NaN",
            "gzip;q=-1",
            "gzip;level=9",
            "gzipped",
            // `*` ranks `identity` as well.
            "gzip;q=0.5, *;q=1",
            "gzip;q=0.5, *",
        ] {
            assert!(!prefers(&[refused]), "{refused}");
        }
        assert!(!prefers(&[]));
        assert!(prefers(&["br", "gzip"]));
    }
}
