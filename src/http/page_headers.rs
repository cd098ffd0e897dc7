//! Which headers web pages of other origins may send, as the answer to a preflight says.
//!
//! Libraries for tracing and monitoring add headers of their own to every call of a page, so what is not known here must
//! pass. What does not pass is what the server or a proxy believes about the connection.

use http::header::{ACCESS_CONTROL_REQUEST_HEADERS, FORWARDED};
use http::{HeaderMap, HeaderName, HeaderValue};

/// What the API reads. Pages may always send it.
const OWN: &str = "authorization, content-type, x-api-key, x-request-id";
/// How many names of a preflight are looked at. Pages send about ten.
const MOST: usize = 64;
/// The longest name that is allowed, in bytes.
const LONGEST: usize = 128;

/// `CORS_HEADERS`: what pages may send beside what the API reads.
#[derive(Clone, Debug, Default)]
pub enum PageHeaders {
    #[default]
    Any,
    Listed(Vec<HeaderName>),
}

impl PageHeaders {
    /// Reads `any`, `none`, or names that are separated by commas or spaces.
    pub fn parse(list: &str) -> Result<PageHeaders, String> {
        match list {
            "any" => return Ok(PageHeaders::Any),
            "none" => return Ok(PageHeaders::Listed(Vec::new())),
            _ => {}
        }
        let names = list.split([',', ' ', '\t']).filter(|text| !text.is_empty()).map(|text| match name(text) {
            None => Err(format!("has {}, which is not the name of a header", text.escape_debug())),
            Some(name) if is_kept_from_pages(&name) => Err(format!("has {name}, which no page may send")),
            Some(name) => Ok(name),
        });
        match names.collect::<Result<Vec<_>, _>>()? {
            names if names.is_empty() => Err("names no header".to_string()),
            names => Ok(PageHeaders::Listed(names)),
        }
    }

    /// Whether the operator has named this header.
    pub fn lists(&self, name: &HeaderName) -> bool {
        matches!(self, PageHeaders::Listed(names) if names.contains(name))
    }

    /// The answer to what a preflight asks for. `address_header`: in which proxies name the client's address.
    pub fn allowed(&self, asked: &HeaderMap, address_header: &HeaderName) -> HeaderValue {
        let asked = asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
        let asked = asked.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).take(MOST);
        let names = asked.filter_map(|text| name(std::str::from_utf8(text).ok()?.trim_matches([' ', '\t'])));
        let allowed = names.filter(|name| {
            let is_wanted = matches!(self, PageHeaders::Any) || self.lists(name);
            is_wanted && name != address_header && !is_kept_from_pages(name) && !OWN.split(", ").any(|own| own == name)
        });
        let list = allowed.fold(OWN.to_string(), |list, name| list + ", " + name.as_str());
        HeaderValue::try_from(list).unwrap_or(HeaderValue::from_static(OWN))
    }
}

/// In lower case. `*` is the name of no header: in an answer, it would stand for all of them.
fn name(text: &str) -> Option<HeaderName> {
    let name = HeaderName::try_from(text).ok()?;
    (name != "*" && text.len() <= LONGEST).then_some(name)
}

/// What proxies report of a client, and what no script can set anyway
/// ([Fetch](https://fetch.spec.whatwg.org/#forbidden-request-header)).
fn is_kept_from_pages(name: &HeaderName) -> bool {
    const FORBIDDEN: [&str; 18] = [
        "accept-charset",
        "accept-encoding",
        "connection",
        "content-length",
        "cookie",
        "cookie2",
        "date",
        "dnt",
        "expect",
        "host",
        "keep-alive",
        "origin",
        "referer",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    const FORBIDDEN_FAMILIES: [&str; 3] = ["access-control-", "proxy-", "sec-"];
    let reported =
        *name == FORWARDED || name == "via" || name == "x-real-ip" || name.as_str().starts_with("x-forwarded-");
    reported
        || FORBIDDEN.iter().any(|forbidden| name == forbidden)
        || FORBIDDEN_FAMILIES.iter().any(|family| name.as_str().starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(list: &str, asked: &[&str]) -> String {
        let headers = asked.iter().map(|line| (ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_str(line).unwrap()));
        let answer = PageHeaders::parse(list)
            .unwrap()
            .allowed(&headers.collect::<HeaderMap>(), &HeaderName::from_static("cf-connecting-ip"));
        answer.to_str().unwrap().strip_prefix(OWN).unwrap().trim_start_matches(", ").to_string()
    }

    #[test]
    fn what_a_page_asks_for_is_allowed_unless_a_server_believes_it() {
        for (asked, expected) in [
            (&[][..], ""),
            (&["authorization,x-api-key"], ""),
            (&["traceparent, Sentry-Trace,baggage"], "traceparent, sentry-trace, baggage"),
            (&["x-datadog-origin", "x-requested-with\t"], "x-datadog-origin, x-requested-with"),
            (
                &["forwarded, via, x-forwarded-for, x-forwarded-host, x-forwarded-, x-real-ip, CF-Connecting-IP, ok"],
                "ok",
            ),
            (&["host, cookie, te, connection, upgrade, sec-fetch-site, proxy-authorization, ok"], "ok"),
            (&["*, a b, a(b, , \"q\", ok"], "ok"),
            (&["x-forwarded", "forwarded-for"], "x-forwarded, forwarded-for"),
        ] {
            assert_eq!(allowed("any", asked), expected, "{asked:?}");
        }
        let long = |length| "x".repeat(length);
        assert_eq!(allowed("any", &[&long(LONGEST)]), long(LONGEST));
        assert_eq!(allowed("any", &[&long(LONGEST + 1)]), "");
        let many: Vec<String> = (0..1000).map(|number| format!("x-{number}")).collect();
        assert_eq!(allowed("any", &[&many.join(",")]), many[..MOST].join(", "));
    }

    #[test]
    fn a_list_of_the_operators_narrows_it() {
        let asked = ["traceparent, x-requested-with, x-other"];
        for (list, expected) in [
            ("traceparent", "traceparent"),
            ("X-Requested-With,  Traceparent", "traceparent, x-requested-with"),
            ("tracestate traceparent", "traceparent"),
            ("none", ""),
        ] {
            assert_eq!(allowed(list, &asked), expected, "{list}");
        }
        for (list, fault) in [
            ("*", "has *, which is not the name of a header"),
            ("traceparent;q", "has traceparent;q, which is not the name of a header"),
            ("a\r\nb", "has a\\r\\nb, which is not the name of a header"),
            ("X-Forwarded-For", "has x-forwarded-for, which no page may send"),
            (" , ", "names no header"),
        ] {
            assert_eq!(PageHeaders::parse(list).unwrap_err(), fault);
        }
    }
}
