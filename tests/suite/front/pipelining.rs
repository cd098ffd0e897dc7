//! How requests follow each other on a connection.

use std::net::Shutdown;

use keyward_harness::http_client::read_answer;
use keyward_harness::service::{PASSWORD, broken_rules};
use keyward_harness::wire::{CHUNKED, EMPTY_REFRESH, Wire, answers, chunked, get, parsed, refresh, statuses};
use serde_json::json;

use super::patient_service;

#[test]
fn pipelined_requests_are_answered_in_order_however_the_bytes_are_cut() {
    let service = patient_service(&[], |_| {});
    let login = json!({ "email": "nobody@example.com", "password": PASSWORD }).to_string();
    let requests = [
        ("GET", "/health", "", 200),
        // The slow one.
        ("POST", "/auth/login", login.as_str(), 401),
        ("HEAD", "/health", "", 200),
        ("GET", "/nowhere", "", 404),
        ("POST", "/auth/refresh", "{}", 400),
        ("HEAD", "/nowhere", "", 404),
        ("PUT", "/health", "", 405),
        ("GET", "/protected/user-only", "", 401),
        ("GET", "/health", "", 200),
    ];
    let mut bytes = String::new();
    for (number, (method, target, body, _)) in requests.iter().enumerate() {
        bytes += &format!("{method} {target} HTTP/1.1\r\nHost: keyward\r\nX-Request-Id: {number}\r\n");
        bytes += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }
    for piece in [bytes.len(), 100, 1] {
        let mut wire = Wire::open(service.address());
        for piece in bytes.as_bytes().chunks(piece) {
            wire.send(piece);
        }
        for (number, (method, target, _, status)) in requests.iter().enumerate() {
            let answer = read_answer(&mut wire.0, *method == "HEAD").unwrap();
            assert_eq!(answer.status, *status, "{method} {target}");
            assert_eq!(answer.header("x-request-id"), Some(number.to_string().as_str()));
        }
    }
}

#[test]
fn a_client_that_expects_a_100_gets_it_before_it_sends_the_body() {
    let service = patient_service(&[], |_| {});
    let mut wire = Wire::open(service.address());
    wire.send(refresh("Expect: 100-continue\r\nContent-Length: 2", "")).hears_100_continue();
    assert_eq!(wire.send("{}").answer().json(), broken_rules(EMPTY_REFRESH));
    wire.send(refresh(&format!("Expect: 100-Continue\r\n{CHUNKED}"), "")).hears_100_continue();
    assert_eq!(wire.send(chunked("{}")).answer().json(), broken_rules(EMPTY_REFRESH));
    // A client is not asked for a body that would not be read: the first thing that it hears is the refusal.
    for (request, refusal) in [
        (refresh("Expect: 100-continue\r\nContent-Length: 20000", ""), "HTTP/1.1 413 "),
        (
            refresh("Expect: 100-continue\r\nContent-Length: 2", "").replace("/auth/refresh", "/nowhere"),
            "HTTP/1.1 404 ",
        ),
        (
            refresh("Expect: 100-continue\r\nContent-Length: 2", "").replace("/auth/refresh", "/keys/create"),
            "HTTP/1.1 401 ",
        ),
    ] {
        let heard = String::from_utf8(Wire::open(service.address()).send(request).rest()).unwrap();
        assert!(heard.starts_with(refusal), "{heard}");
    }
}

#[test]
fn an_answer_that_does_not_wait_for_the_body_says_that_the_connection_closes() {
    let service = patient_service(&[], |_| {});
    for (method, target, status) in [
        ("POST", "/keys/create", 401),
        ("POST", "/nowhere", 404),
        ("PUT", "/health", 405),
        ("GET", "/health", 200),
        ("DELETE", "/keys/x", 401),
    ] {
        for framing in ["Content-Length: 2", CHUNKED] {
            let mut wire = Wire::open(service.address());
            let answer =
                wire.send(format!("{method} {target} HTTP/1.1\r\nHost: keyward\r\n{framing}\r\n\r\n")).answer();
            assert_eq!(answer.status, status, "{method} {target}");
            // A client that keeps connections would send its next request into the void (RFC 9112 §9.6).
            assert_eq!(answer.header("connection"), Some("close"), "{method} {target} {framing}: {answer:?}");
            assert_eq!(wire.rest(), b"");
        }
    }
}

/// RFC 9112 §9.6: to have said all is not to be gone.
#[test]
fn a_client_that_has_closed_its_side_gets_its_answers() {
    let service = patient_service(&[], |_| {});
    let login = json!({ "email": "nobody@example.com", "password": PASSWORD }).to_string();
    let head = "POST /auth/login HTTP/1.1\r\nHost: keyward\r\nContent-Type: application/json";
    let login = format!("{head}\r\nContent-Length: {}\r\n\r\n{login}", login.len());
    for (requests, statuses) in [
        (get("/health"), vec![200]),
        (login.clone(), vec![401]),
        (login.replace("HTTP/1.1", "HTTP/1.0"), vec![401]),
        (login.clone() + &get("/health") + &login, vec![401, 200, 401]),
        // Half of one is none.
        (get("/health") + "GET /", vec![200]),
        (refresh("Content-Length: 3", "{}"), vec![400]),
    ] {
        let mut wire = Wire::open(service.address());
        wire.send(&requests);
        wire.0.get_ref().shutdown(Shutdown::Write).unwrap();
        let mut heard = wire.rest();
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
        while heard.starts_with(interim) {
            assert!(requests.contains("HTTP/1.1"), "{requests:?}");
            heard.drain(..interim.len());
        }
        let heard: Vec<u16> = parsed(&heard).iter().map(|answer| answer.status).collect();
        assert_eq!(heard, statuses, "{requests:?}");
    }
}

#[test]
fn http_1_0_needs_no_host_and_keeps_a_connection_only_when_asked() {
    let service = patient_service(&[], |_| {});
    assert_eq!(statuses(service.address(), "GET /health HTTP/1.0\r\n\r\n"), [200]);
    assert_eq!(statuses(service.address(), "GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), [400]);
    let kept = "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let answers = answers(service.address(), kept.to_string() + kept + "GET /health HTTP/1.0\r\n\r\n" + kept);
    let connections: Vec<_> = answers.iter().map(|answer| (answer.status, answer.header("connection"))).collect();
    assert_eq!(connections, [(200, Some("keep-alive")), (200, Some("keep-alive")), (200, None)]);
}

#[test]
fn an_offer_to_upgrade_is_ignored_and_the_connection_stays_usable() {
    let service = patient_service(&[], |_| {});
    let mut wire = Wire::open(service.address());
    for offer in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ] {
        assert_eq!(wire.send(format!("GET /health HTTP/1.1\r\nHost: keyward\r\n{offer}\r\n\r\n")).answer().status, 200);
        let with_body = wire.send(refresh(&format!("{offer}\r\nContent-Length: 2"), "{}")).answer();
        assert_eq!(with_body.json(), broken_rules(EMPTY_REFRESH));
        assert_eq!(wire.send(get("/health")).answer().status, 200);
    }
}
