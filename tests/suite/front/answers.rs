//! What every answer carries.

use std::collections::BTreeSet;

use keyward::api::routes::ROUTES;
use keyward::guard::requirements::Guard;
use keyward_harness::openapi;
use keyward_harness::service::{PASSWORD, error};
use keyward_harness::wire::{CHUNKED, Wire, chunked, get, smuggled, statuses};
use serde_json::json;

use super::{KIB, SHORT, patient_service};

#[test]
fn a_sane_request_id_is_taken_over_and_any_other_replaced() {
    let service = patient_service(&[], |_| {});
    let longest = "x".repeat(64);
    for id in ["a", "0", "Az09._-", "3f2c9d7e-8a51-4a55-9d0c-0d6c3f1f9b1e", "..", &longest] {
        let answer = service.get("/health").header("x-request-id", id).send();
        assert_eq!(answer.header("x-request-id"), Some(id));
    }
    let too_long = "x".repeat(65);
    let mut made = BTreeSet::new();
    let replaced = ["", "a b", "a,b", "a/b", "a:b", "a\tb", "<script>", "a\"b", "ä", "%20", &too_long];
    for id in replaced {
        let answer = service.get("/health").header("x-request-id", id).send();
        let own = answer.header("x-request-id").unwrap();
        assert!(own != id && (8..=64).contains(&own.len()), "{id:?} → {own:?}");
        assert!(own.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{own:?}");
        made.insert(own.to_string());
    }
    made.insert(service.get("/health").send().header("x-request-id").unwrap().to_string());
    assert_eq!(made.len(), replaced.len() + 1, "an id was given twice");
}

#[test]
fn every_answer_has_an_id_and_forbids_sniffing_and_storing() {
    let service = patient_service(&[], |limits| limits.body = SHORT);
    let ann = service.sign_up("ann@example.com");
    let credentials = json!({ "email": "ann@example.com", "password": PASSWORD });
    let mut answers = vec![
        service.get("/health").send(),
        service.post("/auth/login").json(credentials.clone()).send(),
        service.post("/auth/signup").json(credentials).send(),
        service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send(),
        service.post("/keys/create").bearer(&ann.access).json(json!({ "name": "ci" })).send(),
        service.post("/keys/create").bearer(&ann.access).json(json!({})).send(),
        service.post("/keys/create").bearer(&ann.access).body("application/json", vec![b' '; 20_000]).send(),
        service.post("/keys/create").bearer(&ann.access).header("content-length", "1").send(),
        service.get("/keys").bearer(&ann.access).send(),
        service.get("/protected/user-only").bearer(&ann.access).send(),
        service.get("/protected/user-only").send(),
        service.method("HEAD", "/protected/user-only").bearer(&ann.access).send(),
        service.delete("/keys/x").bearer(&ann.access).send(),
        service.method("PUT", "/keys").send(),
        service.get("/nowhere").send(),
        service.get("/api/docs/nothing.js").send(),
        service.post("/auth/logout").bearer(&ann.access).send(),
    ];
    answers.push(Wire::open(service.address()).send("GET /health HTTP/1.1\r\n\r\n").answer());
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 409, 200, 201, 400, 413, 408, 200, 200, 401, 200, 404, 405, 404, 404, 200, 400]);
    for answer in answers {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        assert!(answer.header("x-request-id").is_some(), "{answer:?}");
    }
}

/// hyper says nothing but the status of these.
#[test]
fn heads_that_cannot_be_taken_are_answered_like_everything_else() {
    let service = patient_service(&[], |_| {});
    let too_large = "Request head has more than 16384 bytes or 100 fields";
    let fields =
        |count: usize| get("/health").replace("\r\n\r\n", &format!("\r\n{}\r\n", "X-A: b\r\n".repeat(count - 1)));
    assert_eq!(statuses(service.address(), fields(100) + &smuggled()), [200, 200]);
    let mut ids = BTreeSet::new();
    for (head, status, message) in [
        (fields(101), 431, too_large),
        (get(&format!("/{}", "x".repeat(17 * KIB))), 431, too_large),
        ("GET /health HTTP/1.1\r\nno field\r\n\r\n".to_string(), 400, "Request head is malformed"),
        ("GET /health\r\n\r\n".to_string(), 400, "Request head is malformed"),
        ("nonsense\r\n\r\n".to_string(), 400, "Request head is malformed"),
        (get("/health").replace("1.1", "3.0"), 505, "HTTP/1.1 is spoken here"),
    ] {
        // Alone, on a kept connection, and behind another request.
        let mut kept = Wire::open(service.address());
        assert_eq!(kept.send(get("/health")).answer().status, 200);
        let mut behind = Wire::open(service.address());
        let is_version = status == 505;
        behind.send(get("/health") + if is_version { "" } else { &head });
        assert_eq!(behind.answer().status, 200);
        if is_version {
            behind.send(&head);
        }
        for mut wire in [Wire::open(service.address()), kept, behind] {
            // The last has it already.
            let _ = wire.try_send(&head);
            let answer = wire.answer();
            assert_eq!((answer.status, answer.json()), (status, error(status, message)));
            for (name, value) in [
                ("connection", "close"),
                ("cache-control", "no-store"),
                ("x-content-type-options", "nosniff"),
                ("content-type", "application/json; charset=utf-8"),
            ] {
                assert_eq!(answer.header(name), Some(value), "{answer:?}");
            }
            assert!(answer.header("date").is_some(), "{answer:?}");
            assert!(ids.insert(answer.header("x-request-id").unwrap().to_string()), "{answer:?}");
        }
    }
}

#[test]
fn the_documentation_page_runs_nothing_but_its_own_files() {
    let service = patient_service(&[], |_| {});
    let page = service.get("/api/docs").send();
    let policy = page.header("content-security-policy").unwrap();
    let directives: BTreeSet<&str> = policy.split(';').map(str::trim).collect();
    for directive in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(directives.contains(directive), "{directive} is missing in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    // What the policy forbids would not work: no script and no style is in the page itself.
    let html = page.text();
    assert!(html.contains("<script src=") && !html.contains("<script>") && !html.contains("<style"), "{html}");
    for file in ["docs.js", "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"] {
        assert_eq!(service.get(&format!("/api/docs/{file}")).send().header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn the_credential_is_judged_before_the_body() {
    let service = patient_service(&[], |_| {});
    let ann = service.sign_up("ann@example.com");
    assert_eq!(service.post("/auth/logout").bearer(&ann.access).send().status, 200);
    let ended = format!("Authorization: Bearer {}", ann.access);
    let guarded: Vec<(&str, &str)> = ROUTES
        .iter()
        // Introspection's form may hold the credential (RFC 6749 §2.3.1).
        .filter(|route| route.guard != Guard::Public && route.takes_body() && !route.requirements.oauth)
        .map(|route| (route.verb(), route.path))
        .filter(|(_, path)| !path.contains(':'))
        .collect();
    assert!(guarded.contains(&("POST", "/keys/create")) && guarded.contains(&("DELETE", "/auth/me")));
    for (method, path) in guarded {
        for credential in ["X-No: credential", "Authorization: Basic YTpi", "Authorization: Bearer bad", &ended] {
            for framed in [
                "Content-Length: 1\r\n\r\n{".to_string(),
                format!("{CHUNKED}\r\n\r\nnonsense"),
                format!("Content-Length: 20000\r\n\r\n{}", " ".repeat(20_000)),
                format!("{CHUNKED}\r\n\r\n{}", chunked(&" ".repeat(20_000))),
                // Nobody waits for a body that is held back.
                "Content-Length: 100\r\n\r\n".to_string(),
                "Content-Length: 20000\r\n\r\n".to_string(),
                format!("{CHUNKED}\r\n\r\n"),
            ] {
                let head = format!("{method} {path} HTTP/1.1\r\nHost: keyward\r\n{credential}\r\n{framed}");
                let answer = Wire::open(service.address()).send(&head).answer();
                openapi::check(method, path, &answer);
                let shown = &head[..head.len().min(200)];
                assert_eq!((answer.status, answer.json()), (401, error(401, "Unauthorized")), "{shown}");
            }
        }
    }
}
