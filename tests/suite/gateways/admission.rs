//! Who comes through, and that nobody else does.

use keyward_harness::http_client::{self};
use keyward_harness::postgres_cluster;
use keyward_harness::service::Backend;
use serde_json::json;

use super::site::{FORGED, Gateway, Site, behind_each_gateway};
use super::upstream::HELLO;
use super::{GRANTED, exchange, last_exchange, sign_up_with_key, told, with_headers};

behind_each_gateway! {
    fn a_user_and_a_service_come_through_and_the_service_is_told_who_they_are(site) {
        those_who_are_admitted_come_through_until_they_are_not(site);
    }

    fn without_a_good_credential_nothing_comes_through_by_any_method(site) {
        let key = sign_up_with_key(site, &[]);
        let revoked = site.service.create_key(&key.owner.access, json!({ "name": "revoked" }));
        let target = format!("/keys/{}", revoked["id"].as_str().unwrap());
        assert_eq!(site.service.delete(&target).bearer(&key.owner.access).send().status, 200);
        let unknown = format!("sk_{}", "0".repeat(64));
        let (head, _) = key.owner.access.rsplit_once('.').unwrap();
        let (_, of_another) = key.owner.refresh.rsplit_once('.').unwrap();
        let attempts = [
            vec![],
            vec![("x-api-key", unknown.clone())],
            vec![("x-api-key", revoked["key"].as_str().unwrap().to_string())],
            vec![("x-api-key", String::new())],
            vec![("x-api-key", format!("{} ", &key.secret[..66]))],
            vec![("x_api_key", key.secret.clone())],
            vec![("authorization", format!("Bearer {head}.{of_another}"))],
            vec![("authorization", format!("Bearer {head}."))],
            vec![("authorization", format!("Bearer {}", key.owner.refresh))],
            vec![("authorization", format!("Basic {}", key.secret))],
            vec![("cookie", format!("authorization=Bearer {}", key.owner.access))],
        ];
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
            for headers in &attempts {
                for target in ["/", "/reports/1", "/internal/1?allow=user,service"] {
                    let answer = with_headers(site.client().method(method, target), headers).send();
                    assert_eq!(answer.status, 401, "{method} {target} {headers:?}: {answer:?}");
                    assert!(answer.header("www-authenticate").is_some(), "{answer:?}");
                    assert!(answer.header("x-request-id").is_some(), "{answer:?}");
                    if method != "HEAD" {
                        site.assert_refused(&answer, 401);
                    }
                }
            }
        }
        for method in ["TRACE", "CONNECT"] {
            let answer = exchange(site, &format!("{method} / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"));
            assert!((400..=501).contains(&answer.status), "{answer:?}");
        }
        site.assert_nothing_came_through("without a credential");
    }

    fn no_way_of_writing_a_request_leads_around_the_question(site) {
        let targets = [
            "//", "//x", "/x//y", "/./", "/../", "/x/..", "/x/../y", "/%2e%2e/x", "/x/%2E%2e/y", "/x/..%2fy", "/x%2fy", "/x%5cy",
            "/x\\y", "/x/..\\y", "/;/x", "/..;/x", "/x%00", "/x%0d%0ay", "/x.", "/x%20", "/%72eports/1", "/REPORTS/1", "/reports./1",
            "/reports;a/1", "/auth/../x", "/auth/..%2fx", "/auth/%2e%2e/x", "/auth/..;/x", "/keys/../x", "/keys%2f..%2fx", "/keysx",
            "/KEYS", "/api/docsx", "/api/docs/../../x", "/.well-known/jwks.json/../../x", "/.well-known/jwks.jsonx",
            "/account", "/account/", "/account/resets", "/account/reset/x", "/account/reset/../../x", "/account/account.jsx",
            "/_keyward/any", "/_keyward/any/", "/_keyward/x", "/authz/auth-request", "/authz/forward-auth", "/x?y=/auth/login",
            "/?/auth/login", "/x#/auth/login", "/auth/login#/../../x", "http://here/x", "http://127.0.0.1:8080/x",
            "http://here/auth/../x", "https://here:443/x", "*", "x", "?", "@unauthorized", "/@unauthorized", "/%40unauthorized",
        ];
        let lines = [
            "Host: here\r\n",
            "Host: 127.0.0.1:8080\r\n",
            "Host: here\r\nX-Original-URI: /auth/login\r\nX-Rewrite-URL: /auth/login\r\nX-Forwarded-Uri: /auth/login\r\n",
            "Host: here\r\nX-HTTP-Method-Override: OPTIONS\r\nX-Accel-Redirect: /auth/login\r\nX-Auth-Type: forged\r\n",
        ];
        for target in targets {
            for lines in lines {
                let answer = exchange(site, &format!("GET {target} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n"));
                assert!((400..500).contains(&answer.status), "{target} {lines:?}: {answer:?}");
            }
            let answer = last_exchange(site, &format!("GET {target} HTTP/1.0\r\n\r\n"));
            assert!(!answer.contains(HELLO), "{target}: {answer}");
        }
        for request in [
            "GET /x HTTP/1.1\r\nConnection: close\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: here\r\nHost: there\r\nConnection: close\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
            "GET /x HTTP/1.0\r\nConnection: X-Api-Key\r\n\r\n",
            "GET /x\r\n",
            "GET /x HTTP/2.0\r\nHost: here\r\nConnection: close\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET  /x HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n",
            "get /x HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n",
        ] {
            let answer = last_exchange(site, request);
            assert!(!answer.contains(HELLO), "{request:?}: {answer}");
        }
        site.assert_nothing_came_through("without a credential");
    }

    fn what_asks_for_more_is_reached_by_no_other_spelling(site) {
        let key = sign_up_with_key(site, &["reports:write"]);
        let user = &key.owner;
        for target in [
            "/reports", "/reports/", "/reports/1", "/Reports/1", "/REPORTS/1", "/%72eports/1", "/reports.", "/reports./1",
            "/reports%20/1", "/reports%2e/1", "/reports;x/1", "/reports%3bx/1", "/;x/reports", "/reports%2f1", "/reports\\1",
            "/reports%5c1", "//reports/1", "/./reports/1", "/x/../reports/1", "/x/%2e%2e/reports/1", "/x/..%2freports/1",
            "/x/..;/reports/1", "/reports/..%2f..%2freports/1", "/auth/../reports/1", "/reports?scope=reports:write",
            "http://here/reports/1",
        ] {
            let line = format!("x-api-key: {}", key.secret);
            let answer = exchange(site, &format!("GET {target} HTTP/1.1\r\nHost: here\r\n{line}\r\n\r\n"));
            assert!([400, 403].contains(&answer.status), "{target}: {answer:?}");
            site.assert_nothing_came_through(target);
        }
        let answer = site.client().get("/reports/1").api_key(&key.secret).send();
        site.assert_refused(&answer, 403);
        let challenge = "ApiKey error=\"insufficient_scope\", scope=\"reports:read\"";
        assert_eq!(answer.header("www-authenticate"), Some(challenge), "{answer:?}");
        assert_eq!(answer.header("retry-after"), None);

        for target in ["/internal", "/internal/1", "/Internal/1", "/internal./1", "/%69nternal/1"] {
            site.assert_refused(&site.client().get(target).bearer(&user.access).send(), 401);
            site.assert_nothing_came_through(target);
        }

        let reader = site.service.create_key(&user.access, json!({ "name": "reader", "scopes": ["reports:read", "a:b"] }));
        for (target, secret, scopes) in [
            ("/reports/1?a=%2f..//", reader["key"].as_str().unwrap(), "reports:read a:b"),
            ("/internal/1", &key.secret, "reports:write"),
            ("/x/r%C3%A9sum%C3%A9%25?y", &key.secret, "reports:write"),
        ] {
            let answer = site.client().get(target).api_key(secret).send();
            assert_eq!((answer.status, answer.text()), (200, HELLO), "{target}: {answer:?}");
            let seen = site.upstream.take_one();
            assert_eq!((seen.target.as_str(), seen.header("x-auth-scopes")), (target, Some(scopes)));
        }
    }

    fn what_is_hidden_in_a_request_is_no_request_of_its_own(site) {
        let key = sign_up_with_key(site, &[]);
        let credential = format!("x-api-key: {}", key.secret);
        let hidden = format!("GET /hidden HTTP/1.1\r\nHost: here\r\nX-Auth-Type: {FORGED}\r\n\r\n");
        let last = "GET /last HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
        let length = hidden.len();
        let chunks = format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n");
        let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA";
        let after_chunks = format!("0\r\n\r\n{hidden}");
        for (lines, body) in [
            (&*format!("Content-Length: {}\r\nTransfer-Encoding: chunked", length + 5), &*after_chunks),
            ("Content-Length: 4\r\nTransfer-Encoding: chunked", &chunks),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", &after_chunks),
            ("Transfer-Encoding: xchunked\r\nContent-Length: 5", &after_chunks),
            ("Transfer-Encoding : chunked\r\nContent-Length: 5", &after_chunks),
            ("Transfer-Encoding:\x0bchunked\r\nContent-Length: 5", &after_chunks),
            (&format!("Content-Length: 0\r\nContent-Length: {length}"), &hidden),
            (&format!("Content-Length: +{length}"), &hidden),
            (&format!("Content-Length: 0, {length}"), &hidden),
            ("Content-Length: 0\r\nExpect: 100-continue", &hidden),
            (h2c, &hidden),
        ] {
            let head = format!("POST /x HTTP/1.1\r\nHost: here\r\n{credential}\r\n{lines}\r\n\r\n");
            let answers = http_client::raw(site.address(), format!("{head}{body}{last}").as_bytes());
            let answers = String::from_utf8_lossy(&answers);
            for seen in site.upstream.take_seen() {
                assert_eq!(seen.target, "/x", "{lines:?} {answers}: {seen:?}");
                assert_eq!(seen.told(), key.told(""), "{lines:?}");
                assert!(seen.headers.iter().all(|(_, value)| !value.contains("h2c")), "{lines:?} {seen:?}");
            }
        }
        // One after the other on a connection, each is asked about.
        let good = format!("GET /x HTTP/1.1\r\nHost: here\r\n{credential}\r\n\r\n");
        let answers = http_client::raw(site.address(), format!("{good}{good}{last}").as_bytes());
        let statuses = String::from_utf8_lossy(&answers).matches("HTTP/1.1 ").count();
        assert_eq!(statuses, 3, "{}", String::from_utf8_lossy(&answers));
        let targets: Vec<String> = site.upstream.take_seen().into_iter().map(|seen| seen.target).collect();
        assert_eq!(targets, ["/x", "/x"]);
    }
}

/// The essence, for both stores.
fn those_who_are_admitted_come_through_until_they_are_not(site: &Site) {
    let ann = site.service.sign_up("ann+ci@example.com");
    let name = "Schlüssel 100% \"€\" 😀\u{202e}";
    site.service.execute("UPDATE users SET email_verified = TRUE");
    let key = site.service.create_key(
        &ann.access,
        json!({
            "name": name, "scopes": ["a:b", "c"], "externalId": name, "expiresAt": "2999-01-31T12:00:00Z",
        }),
    );
    let (id, secret) = (key["id"].as_str().unwrap(), key["key"].as_str().unwrap());
    let email = "ann%2Bci@example.com";
    let user = told([
        ("type", "user"),
        ("user_id", &ann.id),
        ("email", email),
        ("email_verified", "true"),
        ("scopes", GRANTED),
    ]);
    let encoded = "Schl%C3%BCssel%20100%25%20%22%E2%82%AC%22%20%F0%9F%98%80%E2%80%AE";
    let service = told([
        ("type", "service"),
        ("user_id", &ann.id),
        ("email", email),
        ("email_verified", "true"),
        ("key_id", id),
        ("key_name", encoded),
        ("key_expires_at", "2999-01-31T12:00:00.000Z"),
        ("external_id", encoded),
        ("scopes", "a:b c"),
    ]);
    let bearer = format!("Bearer {}", ann.access);
    let derived = site.service.post("/auth/token").api_key(secret).json(json!({ "scopes": ["c"] })).send();
    let derived = format!("Bearer {}", derived.json()["accessToken"].as_str().unwrap());
    let mut narrowed = service.clone();
    narrowed.insert("x_auth_scopes".to_string(), "c".to_string());
    for (header, value, expected) in [
        ("authorization", bearer.as_str(), &user),
        ("x-api-key", secret, &service),
        ("authorization", &format!("Bearer {secret}"), &service),
        ("authorization", &derived, &narrowed),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let answer = site.client().method(method, "/x?y=z").header(header, value).send();
            assert_eq!(answer.status, 200, "{method} {header}: {answer:?}");
            let seen = site.upstream.take_one();
            assert_eq!((seen.method.as_str(), seen.target.as_str()), (method, "/x?y=z"));
            assert_eq!(&seen.told(), expected);
            let from = ["authorization", "x-api-key", "x-forwarded-for"].map(|name| seen.header(name));
            assert_eq!(from, [None, None, Some("127.0.0.1")], "{seen:?}");
            assert!(seen.header("x-request-id").is_some_and(|id| id.len() >= 24), "{seen:?}");
        }
    }

    assert_eq!(site.service.delete(&format!("/keys/{id}")).bearer(&ann.access).send().status, 200);
    site.assert_refused(&site.client().get("/x").api_key(secret).send(), 401);
    site.assert_refused(&site.client().get("/x").header("authorization", &derived).send(), 401);
    assert_eq!(site.service.post("/auth/logout").bearer(&ann.access).send().status, 200);
    site.assert_refused(&site.client().get("/x").bearer(&ann.access).send(), 401);
    site.assert_nothing_came_through("after the end of the credential");
}

#[test]
fn on_postgres_too_those_who_are_admitted_come_through_until_they_are_not() {
    if postgres_cluster::available() {
        for gateway in Gateway::all() {
            those_who_are_admitted_come_through_until_they_are_not(&Site::start_with(gateway, Backend::Postgres, &[]));
        }
    }
}
