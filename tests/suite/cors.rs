//! Which web pages may read answers (`CORS_ORIGINS`). The store plays no part: it is SQLite throughout.

use std::collections::BTreeSet;

use http::HeaderMap;
use keyward::api::routes::ROUTES;
use keyward_harness::http_client::{Answer, Request, connect, read_answer};
use keyward_harness::service::{Backend, Service};
use serde_json::json;

const APP: &str = "https://app.example.com";
const LOCAL: &str = "http://localhost:5173";

fn service_with(settings: &[(&str, &str)]) -> Service {
    Service::start_with(Backend::Sqlite, settings, |_| {})
}

fn open_service() -> Service {
    service_with(&[("CORS_ORIGINS", &format!("{APP}, {LOCAL}")), ("RATE_LIMIT_LOGIN", "1/1h")])
}

fn preflight<'a>(service: &'a Service, target: &str, method: &str, origin: &str) -> Request<'a> {
    let request = service.method("OPTIONS", target).header("origin", origin);
    request
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "authorization,content-type,x-api-key")
}

/// What an answer says to browsers about other origins.
fn access_control(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let all = headers.iter().filter(|(name, _)| name.as_str().starts_with("access-control-"));
    let mut all: Vec<_> = all.map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    all.sort();
    all
}

fn vary(answer: &Answer) -> BTreeSet<&str> {
    let lines = answer.headers.get_all("vary").iter().map(|line| line.to_str().unwrap());
    lines.flat_map(|line| line.split(", ")).collect()
}

const EXPOSED: &str = "etag, link, ratelimit, ratelimit-policy, retry-after, www-authenticate, x-request-id";

/// The answers of every kind, each asked for from this origin.
fn answers(service: &Service, origin: &str) -> Vec<Answer> {
    let with = |request: Request<'_>| request.header("origin", origin).send();
    let ann = service.sign_up("ann@example.com");
    let answers = vec![
        with(service.get("/health")),
        with(service.method("HEAD", "/health")),
        with(service.get("/auth/me").bearer(&ann.access)),
        with(service.get("/auth/me")),
        with(service.get("/protected/service-only").api_key("bad")),
        with(service.post("/keys/create").bearer(&ann.access).json(json!({ "name": "ci" }))),
        with(service.post("/keys/create").bearer(&ann.access).json(json!({}))),
        with(service.post("/keys/create").bearer(&ann.access).body("application/json", vec![b' '; 20_000])),
        with(service.get("/api/docs/openapi.json")),
        with(service.get("/api/docs/openapi.json").header("if-none-match", "*")),
        with(service.get("/nowhere")),
        with(service.method("PUT", "/health")),
        with(service.method("OPTIONS", "/health")),
        with(service.post("/auth/login").json(json!({}))),
        with(service.post("/auth/login").json(json!({}))),
        {
            let mut wire = std::io::BufReader::new(connect(service.address()).unwrap());
            let head = format!("GET /health HTTP/1.1\r\nOrigin: {origin}\r\n\r\n");
            std::io::Write::write_all(wire.get_mut(), head.as_bytes()).unwrap();
            read_answer(&mut wire, false).unwrap()
        },
    ];
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 200, 401, 401, 201, 400, 413, 200, 304, 404, 405, 204, 400, 429, 400]);
    answers
}

#[test]
fn without_cors_origins_no_answer_speaks_of_origins() {
    let service = service_with(&[("RATE_LIMIT_LOGIN", "1/1h")]);
    for answer in answers(&service, APP) {
        assert_eq!(access_control(&answer.headers), [], "{answer:?}");
        assert!(!vary(&answer).contains("origin"), "{answer:?}");
    }
    let answer = preflight(&service, "/auth/login", "POST", APP).send();
    assert_eq!((answer.status, answer.header("allow")), (204, Some("POST, OPTIONS")));
    assert_eq!((access_control(&answer.headers), vary(&answer)), (vec![], BTreeSet::new()));
}

#[test]
fn pages_of_a_listed_origin_may_read_every_answer() {
    let service = open_service();
    for answer in answers(&service, LOCAL) {
        let expected = [("access-control-allow-origin", LOCAL), ("access-control-expose-headers", EXPOSED)];
        assert_eq!(access_control(&answer.headers), expected, "{answer:?}");
        assert!(vary(&answer).contains("origin"), "{answer:?}");
    }
    let answer = service.get("/health").header("origin", APP).send();
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    // Both forms of a file, for both kinds of pages.
    let answer = service.get("/api/docs/openapi.json").header("origin", APP).send();
    assert_eq!(vary(&answer), BTreeSet::from(["accept-encoding", "origin"]));
}

#[test]
fn pages_of_other_origins_are_answered_and_may_read_nothing() {
    let service = open_service();
    for answer in answers(&service, "https://evil.example") {
        assert_eq!(access_control(&answer.headers), [], "{answer:?}");
        // A cache must not give a page of a listed origin what another got.
        assert!(vary(&answer).contains("origin"), "{answer:?}");
    }
    for origin in [
        "null",
        "*",
        "",
        "http://app.example.com",
        "https://app.example.com:443",
        "https://app.example.com:8443",
        "https://app.example.com/",
        "https://APP.example.com",
        "https://app.example.com.evil.example",
        "https://evil-app.example.com",
        "https://evil.example/https://app.example.com",
        "https://app.example.com https://evil.example",
        "https://app.example.com, http://localhost:5173",
        "https://app.example.co",
        "http://localhost",
    ] {
        let answer = service.get("/health").header("origin", origin).send();
        assert_eq!((answer.status, access_control(&answer.headers)), (200, vec![]), "{origin}");
        let answer = preflight(&service, "/health", "GET", origin).send();
        assert_eq!((answer.status, access_control(&answer.headers)), (204, vec![]), "{origin}");
    }
    let twice = service.get("/health").header("origin", APP).header("origin", APP).send();
    assert_eq!((twice.status, access_control(&twice.headers)), (200, vec![]));
    assert_eq!(access_control(&service.get("/health").send().headers), []);
}

#[test]
fn a_preflight_of_every_path_is_answered_without_a_credential_and_spends_no_limit() {
    let service = open_service();
    // What takes any method judges OPTIONS as well.
    for (route, method) in ROUTES.iter().filter_map(|route| Some((route, route.method.as_ref()?.as_str()))) {
        let answer = preflight(&service, &route.path.replace(':', ""), method, APP).send();
        let allow = answer.header("allow").unwrap();
        assert!(answer.status == 204 && allow.split(", ").any(|allowed| allowed == method), "{answer:?}");
        let expected = [
            ("access-control-allow-headers", "authorization, content-type, x-api-key, x-request-id"),
            ("access-control-allow-methods", allow),
            ("access-control-allow-origin", APP),
            ("access-control-expose-headers", EXPOSED),
            ("access-control-max-age", "7200"),
        ];
        assert_eq!(access_control(&answer.headers), expected, "{}", route.path);
        let on = ["access-control-request-headers", "access-control-request-method", "origin"];
        assert_eq!(vary(&answer), BTreeSet::from(on), "{}", route.path);
        assert!(answer.body.is_empty() && answer.header("content-length").is_none(), "{answer:?}");
    }
    for _ in 0..5 {
        assert_eq!(preflight(&service, "/auth/login", "POST", APP).send().status, 204);
    }
    assert_eq!(service.post("/auth/login").json(json!({})).send().status, 400);
    // A path that is not there cannot be asked.
    assert_eq!(preflight(&service, "/nowhere", "GET", APP).send().status, 404);
}

/// What a page of ours may send, of what it asks for, beside what it always may.
fn allowed(service: &Service, asked: &str) -> String {
    let request = service.method("OPTIONS", "/auth/login").header("origin", APP);
    let request = request.header("access-control-request-method", "POST");
    let answer = request.header("access-control-request-headers", asked).send();
    let on = ["access-control-request-headers", "access-control-request-method", "origin"];
    assert_eq!((answer.status, vary(&answer)), (204, BTreeSet::from(on)));
    let list = answer.header("access-control-allow-headers").unwrap();
    let own = "authorization, content-type, x-api-key, x-request-id";
    list.strip_prefix(own).unwrap_or_else(|| panic!("{list}")).trim_start_matches(", ").to_string()
}

const TRACED: &str = "authorization,baggage,content-type,sentry-trace,traceparent,x-datadog-trace-id,x-requested-with";

#[test]
fn pages_may_send_the_headers_of_libraries_that_trace_them() {
    let service = open_service();
    let added = "baggage, sentry-trace, traceparent, x-datadog-trace-id, x-requested-with";
    assert_eq!(allowed(&service, TRACED), added);
    // And the request itself is answered as without them.
    let traced = service.get("/health").header("origin", APP).header("traceparent", "00-1-2-01").send();
    assert_eq!((traced.status, traced.header("access-control-allow-origin")), (200, Some(APP)));
}

#[test]
fn pages_may_not_send_what_proxies_are_believed_to_report() {
    let service = open_service();
    assert_eq!(allowed(&service, "forwarded,x-forwarded-for,x-forwarded-host,x-real-ip,x-other"), "x-other");
    // A wildcard would let all of them pass.
    assert_eq!(allowed(&service, "*,x-other"), "x-other");
    assert_eq!(allowed(&service, "x-client-address,x-other"), "x-client-address, x-other");
    let service = service_with(&[("CORS_ORIGINS", APP), ("TRUSTED_PROXY_HEADER", "X-Client-Address")]);
    assert_eq!(allowed(&service, "x-client-address,x-other"), "x-other");
}

#[test]
fn the_operator_may_name_the_headers_that_pages_may_send() {
    let service = service_with(&[("CORS_ORIGINS", APP), ("CORS_HEADERS", "Traceparent, X-Requested-With")]);
    assert_eq!(allowed(&service, TRACED), "traceparent, x-requested-with");
    assert_eq!(allowed(&service_with(&[("CORS_ORIGINS", APP), ("CORS_HEADERS", "none")]), TRACED), "");
}

#[test]
fn a_page_that_asks_for_any_number_of_headers_gets_a_short_answer() {
    let service = open_service();
    let many = |separator: &str| (0..2000).map(|number| format!("x{number}")).collect::<Vec<_>>().join(separator);
    let answer = allowed(&service, &many(","));
    assert_eq!(answer.split(", ").count(), 64, "{answer}");
    assert_eq!(allowed(&service, &",".repeat(10_000)), "");
    assert_eq!(allowed(&service, &"x".repeat(10_000)), "");
    assert_eq!(allowed(&service, &many(" ")), "");
}

#[test]
fn no_answer_invites_a_page_to_send_the_browsers_own_credentials() {
    let service = open_service();
    for answer in
        [preflight(&service, "/auth/login", "POST", APP).send(), service.get("/health").header("origin", APP).send()]
    {
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(answer.header("set-cookie"), None);
    }
}
