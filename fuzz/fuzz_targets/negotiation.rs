//! What clients say of codings and entity tags, and pages of their origin: a file's name on the first line, then headers.
#![no_main]

use std::sync::LazyLock;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use keyward::api::routes::ROUTES;
use keyward::app::App;
use keyward::http::cors::Cors;
use keyward::http::response;
use keyward::http::router::{Destination, Router};
use keyward_fuzz::account::{ORIGIN, config, open};
use keyward_fuzz::request;
use libfuzzer_sys::fuzz_target;

static APP: LazyLock<App> = LazyLock::new(|| open(&config()));
static ROUTER: LazyLock<Router> = LazyLock::new(|| Router::new(&ROUTES).expect("a sound table"));
static CORS: LazyLock<Cors> = LazyLock::new(|| {
    let mut cors = Cors::default();
    cors.set_origins(ORIGIN).expect("an origin");
    cors
});
static ADDRESS_HEADER: HeaderName = HeaderName::from_static("x-client-address");

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|b| *b == b'\n');
    let path = format!("/api/docs/{}", String::from_utf8_lossy(lines.next().unwrap_or_default()));
    let Destination::Route(route, values) = ROUTER.find(&Method::GET, &path) else { return };
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let Ok(name) = HeaderName::from_bytes(&line[..colon]) else { continue };
        let Ok(value) = HeaderValue::from_bytes(&line[colon + 1..]) else { continue };
        headers.append(name, value);
    }
    let mut asked = request(headers.clone(), None, b"");
    asked.parameters = values.named(route);
    // There is no such file.
    let Ok(mut answer) = route.call(&APP, &mut asked) else { return };
    let tag = answer.headers()[ETAG].to_str().expect("a tag in ASCII").to_string();
    let all = |name: HeaderName| -> String {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        values.collect::<Vec<_>>().join(",")
    };
    match answer.status().as_u16() {
        200 => assert!(!answer.body().is_empty() && answer.headers().contains_key(CONTENT_TYPE)),
        304 => {
            let known = all(IF_NONE_MATCH);
            assert!(known.contains(&tag) || known.split(',').any(|one| one.trim() == "*"), "{known}");
            assert!(answer.body().is_empty() && !answer.headers().contains_key(CONTENT_TYPE), "{answer:?}");
        }
        status => panic!("{status}"),
    }
    let taken = all(ACCEPT_ENCODING).to_ascii_lowercase();
    let takes_gzip = taken.contains("gzip") || taken.contains('*');
    let is_gzip = tag.ends_with("-gzip\"");
    assert!(takes_gzip || !is_gzip, "{taken}");
    assert_eq!(answer.headers().contains_key(CONTENT_ENCODING), is_gzip && answer.status() == 200, "{taken}");
    assert_eq!(answer.body().starts_with(b"\x1f\x8b"), is_gzip && answer.status() == 200, "{taken}");

    let origin = CORS.origin(&headers);
    let sent: Vec<&HeaderValue> = headers.get_all("origin").iter().collect();
    assert_eq!(origin.is_some(), sent == [ORIGIN], "{sent:?}");
    CORS.finish(origin.clone(), &mut answer);
    assert_eq!(answer.headers().get("access-control-allow-origin"), origin.as_ref());
    let mut preflight = response::options("GET");
    CORS.preflight(origin.as_ref(), &headers, &ADDRESS_HEADER, "GET", &mut preflight);
    let is_preflight = origin.is_some() && headers.contains_key("access-control-request-method");
    assert_eq!(preflight.headers().contains_key("access-control-allow-methods"), is_preflight);
    let allowed = preflight.headers().get("access-control-allow-headers").map_or("", |list| list.to_str().expect("ASCII"));
    assert!(allowed.len() < 64 * 130 + 80, "{allowed}");
    for name in allowed.split(", ") {
        assert!(!["*", "forwarded", "host", "x-client-address", "x-real-ip"].contains(&name), "{allowed}");
        assert!(!name.starts_with("x-forwarded-"), "{allowed}");
    }
});
