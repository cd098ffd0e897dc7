//! Which request goes where, and which goes nowhere.

use std::collections::BTreeSet;

use keyward::api::routes::ROUTES;
use keyward_harness::http_client::Client;
use keyward_harness::openapi;
use keyward_harness::service::{broken_rules, error};
use keyward_harness::wire::{EMPTY_REFRESH, Wire, answers, get, refresh, smuggled, statuses};
use serde_json::json;

use super::{KIB, patient_service};

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let service = patient_service(&[], |_| {});
    // One connection: a body where none may be would be taken for the next answer.
    let client = Client::unobserved(service.address());
    let ask = |method: &str, target: &str, encoding: &str| {
        let mut answer = client.method(method, target).header("accept-encoding", encoding).send();
        assert!(answer.headers.remove("x-request-id").is_some() && answer.headers.remove("date").is_some());
        answer
    };
    for (target, status) in [
        ("/health", 200),
        ("/api/docs", 200),
        ("/api/docs/openapi.json", 200),
        ("/api/docs/swagger-ui.css", 200),
        ("/keys", 401),
        ("/protected/flexible", 401),
    ] {
        for encoding in ["identity", "gzip"] {
            let (head, get) = (ask("HEAD", target, encoding), ask("GET", target, encoding));
            assert_eq!((head.status, head.headers), (status, get.headers), "{target}");
            assert_eq!(get.status, status, "{target}");
        }
    }
    // These name the method in their message: it is another one.
    for (target, status) in [("/nowhere", 404), ("/auth/login", 405)] {
        assert_eq!(ask("HEAD", target, "identity").status, status, "{target}");
    }
    assert_eq!(ask("GET", "/health", "identity").status, 200);
}

#[test]
fn a_wrong_method_is_a_405_that_names_the_right_ones() {
    let service = patient_service(&[], |_| {});
    let routes = || ROUTES.iter().filter(|route| route.method.is_some());
    let paths: BTreeSet<&str> = routes().map(|route| route.path).collect();
    for path in paths {
        let mut right: BTreeSet<&str> = routes().filter(|route| route.path == path).map(|route| route.verb()).collect();
        if right.contains("GET") {
            right.insert("HEAD");
        }
        right.insert("OPTIONS");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY"] {
            if !right.contains(method) {
                let answer = service.method(method, &path.replace(':', "")).send();
                assert_eq!(answer.status, 405, "{method} {path}");
                let allow: BTreeSet<&str> = answer.header("allow").unwrap().split(", ").collect();
                assert_eq!(allow, right, "{method} {path}");
                assert!(method == "HEAD" || answer.json()["error"] == "Method Not Allowed", "{answer:?}");
            }
        }
    }
}

/// RFC 9110 §9.3.7. It needs no credential, and a path with a limit does not spend it.
#[test]
fn options_says_what_a_path_takes() {
    let service = patient_service(&[("RATE_LIMIT_LOGIN", "1/1h")], |_| {});
    // One connection: a body where none may be would be taken for the next answer.
    let client = Client::new(service.address(), openapi::check);
    for (target, allow) in [
        ("/health", "GET, HEAD, OPTIONS"),
        ("/health/?a=b", "GET, HEAD, OPTIONS"),
        ("/auth/login", "POST, OPTIONS"),
        ("/auth/me", "GET, HEAD, PATCH, DELETE, OPTIONS"),
        ("/keys", "GET, HEAD, OPTIONS"),
        ("/keys/x", "GET, HEAD, PATCH, DELETE, OPTIONS"),
        ("/api/docs/docs.js", "GET, HEAD, OPTIONS"),
        ("/protected/flexible", "GET, HEAD, OPTIONS"),
        ("*", "POST, GET, HEAD, PATCH, DELETE, OPTIONS"),
    ] {
        let answer = client.method("OPTIONS", target).send();
        assert_eq!((answer.status, answer.header("allow")), (204, Some(allow)), "{target}");
        for absent in ["content-length", "content-type", "transfer-encoding", "vary", "access-control-allow-origin"] {
            assert_eq!(answer.header(absent), None, "{target}: {answer:?}");
        }
        assert!(answer.header("x-request-id").is_some() && answer.header("cache-control") == Some("no-store"));
    }
    // A gateway asks by whatever method it was asked itself.
    for target in ["/authz/forward-auth", "/authz/auth-request", "/authz/ext-authz/a"] {
        assert_eq!(client.method("OPTIONS", target).send().status, 401, "{target}");
    }
    for target in ["/nowhere", "/", "/keys/a/b"] {
        let answer = client.method("OPTIONS", target).send();
        assert_eq!((answer.status, answer.json()), (404, error(404, &format!("Cannot OPTIONS {target}"))));
    }
    assert_eq!(client.post("/auth/login").json(json!({})).send().status, 400);
    assert_eq!(client.post("/auth/login").json(json!({})).send().status, 429);
}

#[test]
fn an_unknown_path_is_a_404_that_does_not_repeat_the_query() {
    let service = patient_service(&[], |_| {});
    for (method, target, message) in [
        ("GET", "/nowhere", "Cannot GET /nowhere"),
        ("GET", "/nowhere?token=secret", "Cannot GET /nowhere"),
        ("POST", "/nowhere/?token=secret", "Cannot POST /nowhere/"),
        ("DELETE", "/keys/a/b", "Cannot DELETE /keys/a/b"),
        ("GET", "/", "Cannot GET /"),
        ("GET", "//", "Cannot GET //"),
        ("GET", "//health", "Cannot GET //health"),
        ("GET", "/health/..", "Cannot GET /health/.."),
        ("GET", "/api/docs/../../health", "Cannot GET /api/docs/../../health"),
        ("GET", "/api/docs/..%2f..%2fetc%2fpasswd", "Cannot GET /api/docs/..%2f..%2fetc%2fpasswd"),
        ("QUERY", "/nowhere", "Cannot QUERY /nowhere"),
    ] {
        let answer = service.method(method, target).send();
        assert_eq!((answer.status, answer.json()), (404, error(404, message)), "{target}");
    }
}

#[test]
fn one_trailing_slash_is_accepted_and_two_are_not() {
    let service = patient_service(&[], |_| {});
    let client = Client::unobserved(service.address());
    for (method, path, status) in [
        ("GET", "/health", 200),
        ("GET", "/api/docs", 200),
        ("GET", "/api/docs/docs.js", 200),
        ("GET", "/protected/user-only", 401),
        ("POST", "/auth/refresh", 400),
        ("DELETE", "/keys/x", 401),
        ("PUT", "/health", 405),
    ] {
        for (suffix, status) in [("", status), ("/", status), ("/?a=b", status), ("//", 404), ("//?a=b", 404)] {
            let answer = client.method(method, &format!("{path}{suffix}")).send();
            assert_eq!(answer.status, status, "{method} {path}{suffix}");
        }
    }
}

#[test]
fn targets_in_other_forms_are_answered_and_the_server_goes_on() {
    let service = patient_service(&[], |_| {});
    let mut wire = Wire::open(service.address());
    for (line, status) in [
        // RFC 9112 §3.2.2: a server must take the form that is meant for proxies.
        ("GET http://keyward/health HTTP/1.1", 200),
        ("GET http://elsewhere:8080/health/?a=b HTTP/1.1", 200),
        ("GET http://keyward HTTP/1.1", 404),
        ("GET /%00 HTTP/1.1", 404),
        ("GET * HTTP/1.1", 404),
        ("OPTIONS * HTTP/1.1", 204),
        ("OPTIONS http://keyward/health HTTP/1.1", 204),
    ] {
        assert_eq!(wire.send(format!("{line}\r\nHost: keyward\r\n\r\n")).answer().status, status, "{line}");
        assert_eq!(wire.send(get("/health")).answer().status, 200, "after {line}");
    }
    // What follows is meant for the other end of a tunnel.
    let tunnel =
        answers(service.address(), format!("CONNECT keyward:443 HTTP/1.1\r\nHost: keyward\r\n\r\n{}", smuggled()));
    let [answer] = tunnel.as_slice() else { panic!("one answer, not {tunnel:?}") };
    assert_eq!((answer.json(), answer.header("connection")), (error(501, "Cannot CONNECT"), Some("close")));
    for target in ["health", "http://", "\\health", "/a\"b", "/\u{e4}", "?", "[::1]:80", ":0", "@", "%"] {
        let answers = answers(service.address(), get(target).replace("Host", "Connection: close\r\nHost"));
        let [answer] = answers.as_slice() else { panic!("one answer, not {answers:?}: {target}") };
        assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
    }
    assert_eq!(wire.send(get("/health")).answer().status, 200);
}

/// RFC 9112 §3.2: a target has no fragment; RFC 9110 §4.2.4: no user; §7.4: what is not http is none of ours.
#[test]
fn targets_that_name_a_fragment_a_user_or_another_scheme_are_refused() {
    let service = patient_service(&[], |_| {});
    let refused = |request: String, message: &str| {
        let answers = answers(service.address(), request.clone() + &smuggled());
        let [answer] = answers.as_slice() else { panic!("one answer, not {answers:?}: {request:?}") };
        assert_eq!((answer.status, answer.json()), (400, error(400, message)), "{request:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{request:?}");
    };
    for target in ["/health#fragment", "/health#", "/health?a#b", "http://keyward/health#a", "/#/health"] {
        refused(get(target), "Target has a fragment");
        // However it arrives.
        let mut wire = Wire::open(service.address());
        let request = get(target);
        for byte in request.as_bytes().chunks(1) {
            wire.send(byte);
        }
        assert_eq!(wire.answer().json(), error(400, "Target has a fragment"), "{target}");
        let mut kept = Wire::open(service.address());
        assert_eq!(kept.send(get("/health")).answer().status, 200);
        assert_eq!(kept.send(request).answer().json(), error(400, "Target has a fragment"), "{target}");
    }
    for target in ["http://ann@keyward/health", "http://ann:secret@keyward/health", "http://@keyward/health"] {
        refused(get(target), "Target names a user");
    }
    for target in ["ftp://keyward/health", "file://keyward/health", "ws://keyward/health"] {
        refused(get(target), "Target is not http");
    }
    // Elsewhere it means nothing.
    let fields = get("/health").replace("\r\n\r\n", "\r\nReferer: http://a/#b HTTP/1.1\r\n\r\n");
    let with_hash = refresh("Content-Length: 4", "#{} ");
    assert_eq!(statuses(service.address(), fields.repeat(2) + &with_hash + &smuggled()), [200, 200, 400, 200]);
}

/// RFC 9110 §7.2, RFC 9112 §3.2: a name is a name, and one of them.
#[test]
fn a_host_without_a_name_or_with_several_is_refused() {
    let service = patient_service(&[], |_| {});
    for host in [":80", ":", "a,b", "a,b:80"] {
        let request = format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(statuses(service.address(), request + &smuggled()), [400], "{host:?}");
        let target = format!("GET http://{host}/health HTTP/1.1\r\nHost: keyward\r\n\r\n");
        assert_eq!(statuses(service.address(), target + &smuggled()), [400], "{host:?}");
    }
    for host in ["", "a", "a:", "a:80", "[::1]", "[::1]:80", "a_b", "xn--a", "127.0.0.1:3000", "a."] {
        let request = format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(statuses(service.address(), request + &smuggled()), [200, 200], "{host:?}");
    }
}

/// RFC 9110 §15.6.6.
#[test]
fn a_version_that_is_not_spoken_is_a_505() {
    let service = patient_service(&[], |_| {});
    for version in ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/1.2"] {
        let answers = answers(service.address(), get("/health").replace("HTTP/1.1", version) + &smuggled());
        let [answer] = answers.as_slice() else { panic!("one answer, not {answers:?}: {version}") };
        assert_eq!((answer.status, answer.json()), (505, error(505, "HTTP/1.1 is spoken here")), "{version}");
    }
    for version in ["HTTP/1", "HTTP/2", "http/1.1", "HTTP/11.0", "HTTP/1.1x", "HTTQ/1.1"] {
        let request = get("/health").replace("HTTP/1.1", version);
        assert_eq!(statuses(service.address(), request + &smuggled()), [400], "{version}");
    }
}

/// RFC 9110 §15.5.16. Unread, it would be taken for what it is not.
#[test]
fn a_body_in_a_coding_or_a_charset_that_is_not_read_is_a_415() {
    let service = patient_service(&[], |_| {});
    let ask = |fields: &[(&str, &str)]| {
        let request = service.post("/auth/refresh").body("application/json", "{}");
        fields.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
    };
    for coding in ["gzip", "x-gzip", "br", "identity, gzip", "deflate", "aes128gcm"] {
        let answer = ask(&[("content-encoding", coding)]);
        let message = "Content-Encoding must be identity";
        assert_eq!((answer.status, answer.json()), (415, error(415, message)), "{coding}");
        // RFC 7694 §3.
        assert_eq!(answer.header("accept-encoding"), Some("identity"), "{coding}");
    }
    for coding in ["identity", "Identity", "", "identity, identity"] {
        assert_eq!(ask(&[("content-encoding", coding)]).json(), broken_rules(EMPTY_REFRESH), "{coding}");
    }
    assert_eq!(ask(&[("content-encoding", "identity"), ("content-encoding", "gzip")]).status, 415);
    let in_charset = |content_type: &str| service.post("/auth/refresh").body(content_type, "{}").send();
    for charset in ["iso-8859-1", "utf-16", "\"windows-1252\"", "", "utf-8x"] {
        let answer = in_charset(&format!("application/json;a=b; charset={charset}"));
        let message = "Charset must be utf-8";
        assert_eq!((answer.status, answer.json()), (415, error(415, message)), "{charset}");
    }
    for charset in ["utf-8", "UTF-8", "\"utf-8\"", "us-ascii"] {
        let answer = in_charset(&format!("application/json; Charset={charset}"));
        assert_eq!(answer.json(), broken_rules(EMPTY_REFRESH), "{charset}");
    }
    // A wrong type stays what it is.
    let answer = in_charset("text/plain; charset=iso-8859-1");
    assert_eq!((answer.status, answer.json()), (400, error(400, "Content-Type must be application/json")));
}

/// What costs 15 KiB is not answered with 60.
#[test]
fn at_most_ten_broken_rules_are_told_and_how_many_more() {
    let service = patient_service(&[], |_| {});
    let unknown = |count: usize| {
        let fields: serde_json::Map<_, _> = (100..100 + count).map(|number| (format!("x{number}"), json!(1))).collect();
        let answer = service.post("/auth/refresh").json(json!(fields)).send();
        assert_eq!(answer.status, 400);
        answer.json()["message"].as_array().unwrap().clone()
    };
    // One more is about what is lacking.
    let told = unknown(99);
    assert_eq!(
        (told.len(), &told[0], &told[9]),
        (11, &json!("property x100 should not exist"), &json!("property x109 should not exist"))
    );
    assert_eq!(told[10], "and 90 more");
    assert_eq!((unknown(10)[10].clone(), unknown(9).len()), (json!("and 1 more"), 10));
    // Nor is a long name.
    let name = "\u{1}".repeat(2000);
    let answer = service.post("/auth/refresh").json(json!({ name: 1 })).send();
    assert!(answer.status == 400 && answer.body.len() < KIB, "{}", answer.body.len());
}
