//! The way from plain HTTP to HTTPS.

use std::io::Write;
use std::time::{Duration, Instant};

use keyward_harness::http_client::connect;
use keyward_harness::service::PASSWORD;
use keyward_harness::tls_client::Secure;
use serde_json::{Value, json};

use super::{GET_HEALTH, SHORT, redirected};

#[test]
fn plain_http_is_sent_to_the_same_place_with_tls() {
    let secure = Secure::start(&[("HTTP_REDIRECT_PORT", "0")], |_| {});
    let port = secure.address().port();
    for (request, host, path) in [
        ("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "example.com", "/"),
        ("GET /keys/7?a=%20b&c HTTP/1.1\r\nHost: example.com:80\r\n\r\n", "example.com", "/keys/7?a=%20b&c"),
        ("GET /health HTTP/1.0\r\nHost: [::1]:8080\r\n\r\n", "[::1]", "/health"),
        ("HEAD //a HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", "192.0.2.1", "//a"),
        ("OPTIONS * HTTP/1.1\r\nHost: example.com\r\n\r\n", "example.com", "/"),
        ("GET http://example.org/x HTTP/1.1\r\nHost: example.com\r\n\r\n", "example.org", "/x"),
        ("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", "a", "/1"),
    ] {
        let answer = redirected(&secure, request);
        assert_eq!((answer.status, answer.body.as_slice()), (308, &b""[..]), "{request:?}");
        assert_eq!(answer.header("location"), Some(format!("https://{host}:{port}{path}").as_str()), "{request:?}");
        assert_eq!(answer.header("connection"), Some("close"));
    }
}

#[test]
fn a_host_that_is_none_is_not_repeated() {
    let secure = Secure::start(&[("HTTP_REDIRECT_PORT", "0")], |_| {});
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: :80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: ann@example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ] {
        let answer = redirected(&secure, request);
        assert_eq!((answer.status, answer.header("location")), (400, None), "{request:?}");
    }
}

#[test]
fn nothing_else_is_done_there() {
    let secure = Secure::start(&[("HTTP_REDIRECT_PORT", "0")], |_| {});
    let body = json!({ "email": "ann@example.com", "password": PASSWORD }).to_string();
    let sign_up = |length: usize| {
        let head = "POST /auth/signup HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
        format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    assert_eq!(redirected(&secure, &sign_up(body.len())).status, 308);
    // Its body is not waited for.
    assert_eq!(redirected(&secure, &sign_up(100_000)).status, 308);
    let wrong = "GET /protected/user-only HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n";
    let answer = redirected(&secure, wrong);
    assert_eq!((answer.status, answer.header("www-authenticate")), (308, None));
    let users = secure.service.operator(&["user", "list", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&users).unwrap(), json!([]));
}

#[test]
fn its_clients_have_the_limits_of_all_others() {
    // Time enough for a good client's head.
    let limit = 4 * SHORT;
    let secure = Secure::start(&[("HTTP_REDIRECT_PORT", "0"), ("MAX_CONNECTIONS", "1")], |config| {
        config.http.limits.head = limit;
    });
    let started = Instant::now();
    let mut silent = connect(secure.service.redirect()).unwrap();
    silent.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
    assert_eq!(redirected(&secure, GET_HEALTH).status, 308);
    assert!(started.elapsed() + Duration::from_millis(10) >= limit, "the only place was taken");
    let large = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(16 * 1024));
    assert_eq!(redirected(&secure, &large).status, 431);
}
