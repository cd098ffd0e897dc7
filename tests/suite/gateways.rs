//! What is in packaging/, run: the real gateways with the configurations that are shipped, Keyward on one side of them and a
//! service on the other. The service sees what Keyward has admitted, with Keyward's words on whose it is.

pub mod site;
mod upstream;

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::Ipv4Addr;

use keyward_harness::http_client::{self, Answer, Request, connect, connect_from, read_answer};
use keyward_harness::postgres_cluster;
use keyward_harness::service::{Account, Backend, PASSWORD};
use serde_json::json;

use site::{FORGED, Gateway, MARK, Site, behind_each_gateway};
use upstream::{HELLO, NAMES};

/// A key, what it is worth, and whose it is.
struct Key {
    id: String,
    secret: String,
    owner: Account,
}

fn sign_up_with_key(site: &Site, scopes: &[&str]) -> Key {
    let owner = site.service.sign_up("ann@example.com");
    let created = site.service.create_key(&owner.access, json!({ "name": "ci", "scopes": scopes }));
    let text = |name: &str| created[name].as_str().unwrap().to_string();
    Key { id: text("id"), secret: text("key"), owner }
}

/// As [`upstream::Seen::told`] has it.
fn told(words: [(&str, &str); 6]) -> BTreeMap<String, String> {
    let words = words.into_iter().filter(|(_, value)| !value.is_empty());
    words.map(|(name, value)| (format!("x_auth_{name}"), value.to_string())).collect()
}

impl Key {
    fn told(&self, scopes: &str) -> BTreeMap<String, String> {
        told([
            ("type", "service"),
            ("user_id", &self.owner.id),
            ("email", "ann@example.com"),
            ("key_id", &self.id),
            ("key_name", "ci"),
            ("scopes", scopes),
        ])
    }
}

fn user_told(user: &Account) -> BTreeMap<String, String> {
    told([
        ("type", "user"),
        ("user_id", &user.id),
        ("email", &user.email),
        ("key_id", ""),
        ("key_name", ""),
        ("scopes", ""),
    ])
}

fn with_headers<'a>(request: Request<'a>, headers: &[(&str, String)]) -> Request<'a> {
    headers.iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// The answer to these bytes, on a connection of their own.
#[track_caller]
fn exchange(site: &Site, bytes: &str) -> Answer {
    let mut connection = BufReader::new(connect(site.address()).unwrap());
    connection.get_mut().write_all(bytes.as_bytes()).unwrap();
    read_answer(&mut connection, false).unwrap_or_else(|error| panic!("{bytes:?}: {error}"))
}

/// All that comes for these bytes, after which nothing more is sent: Envoy waits a second for whoever might.
fn last_exchange(site: &Site, bytes: &str) -> String {
    let mut stream = connect(site.address()).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    // A client that is not understood may find its connection reset.
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// The answer to a GET from this address of this machine.
#[track_caller]
fn get_from(site: &Site, from: Ipv4Addr, target: &str, lines: &str) -> Answer {
    send_from(site, from, &format!("GET {target} HTTP/1.1\r\nHost: here\r\n{lines}\r\n"))
}

#[track_caller]
fn send_from(site: &Site, from: Ipv4Addr, request: &str) -> Answer {
    let mut connection = BufReader::new(connect_from(from, site.address()).unwrap());
    connection.get_mut().write_all(request.as_bytes()).unwrap();
    read_answer(&mut connection, false).unwrap()
}

behind_each_gateway! {
    fn a_user_and_a_service_come_through_and_the_service_is_told_who_they_are(site) {
        whoever_is_admitted_comes_through_until_he_is_not(site);
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

    fn what_a_client_says_of_itself_never_arrives(site) {
        let key = sign_up_with_key(site, &[]);
        let (by_key, by_user) = (key.told(""), user_told(&key.owner));
        let mut attempts = vec![String::new()];
        let mut all = String::new();
        for name in NAMES {
            for name in [name.to_string(), name.to_lowercase(), name.to_uppercase()] {
                attempts.push(format!("{name}: {FORGED}\r\n"));
                all += &format!("{name}: {FORGED}\r\n{name}:\r\n{name}: {FORGED} too\r\n");
            }
            // What is listed in Connection is meant for the next hop alone; Keyward's words are not.
            attempts.push(format!("Connection: {name}\r\n"));
            attempts.push(format!("Connection: keep-alive, {}\r\n{name}: {FORGED}\r\n", name.to_lowercase()));
        }
        attempts.push(format!("Connection: close, {}\r\n", NAMES.join(", ")));
        // What must arrive ends here.
        let plain = attempts.len();
        attempts.push(format!("Connection: upgrade\r\nConnection: {}\r\nUpgrade: h2c\r\n", NAMES.join("\r\nConnection: ")));
        // Unfolded, it is a value of the other header.
        attempts.push("X-Other: a\r\n X-Auth-Type: b\r\n".to_string());
        // Every character that a name may have and a variable may not (RFC 9110 §5.6.2).
        for character in "!#$%&'*+.^_`|~".chars().map(String::from) {
            for name in NAMES {
                attempts.push(format!("{}: {FORGED}\r\n", name.replace('-', &character)));
            }
            attempts.push(format!("{}: {FORGED}\r\n", NAMES[1].replacen('-', &character, 1)));
            attempts.push(format!("{}: {FORGED}\r\n", NAMES[1].to_uppercase().replacen('-', &character, 2)));
        }
        attempts.push(format!("X-Auth.User_Id: {FORGED}\r\nX.Auth-User-Id: {FORGED}\r\nx-auth-user.id: {FORGED}\r\n"));
        attempts.push(format!("X-Auth-Type : {FORGED}\r\n"));
        attempts.push(format!("X-Auth-Type\t: {FORGED}\r\n"));
        attempts.push(format!("X-Auth-Type\0: {FORGED}\r\n"));
        attempts.push(format!(" X-Auth-Type: {FORGED}\r\n"));
        attempts.push(all);
        let credentials = [
            (format!("x-api-key: {}\r\n", key.secret), &by_key),
            (format!("Authorization: Bearer {}\r\n", key.owner.access), &by_user),
        ];
        for (credential, expected) in credentials {
            for (number, lines) in attempts.iter().enumerate() {
                let answer = exchange(site, &format!("GET /x HTTP/1.1\r\nHost: here\r\n{lines}{credential}\r\n"));
                let seen = site.upstream.take_seen();
                // It may be refused, by the gateway where it is no header at all, or by Keyward.
                if number < plain || ![400, 403].contains(&answer.status) {
                    assert_eq!((answer.status, seen.len()), (200, 1), "{lines:?}: {answer:?}");
                }
                assert!(seen.iter().all(|seen| seen.told() == *expected), "{lines:?}: {seen:?}");
            }
            let chunked = format!("Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: {}\r\n", NAMES.join(", "));
            let trailers: String = NAMES.iter().map(|name| format!("{name}: {FORGED}\r\n")).collect();
            let head = format!("POST /x HTTP/1.1\r\nHost: here\r\n{chunked}{credential}\r\n");
            let answer = exchange(site, &format!("{head}4\r\nbody\r\n0\r\n{trailers}\r\n"));
            assert_eq!(answer.status, 200, "{answer:?}");
            let seen = site.upstream.take_one();
            assert_eq!((seen.told(), seen.body.as_slice()), (expected.clone(), &b"body"[..]), "{seen:?}");
        }
        assert!(!site.forged_words_arrived());
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

    fn a_websocket_is_opened_for_whoever_is_let_in(site) {
        let key = sign_up_with_key(site, &[]);
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let answer = exchange(site, &format!("GET /x HTTP/1.1\r\nHost: here\r\n{upgrade}\r\n"));
        site.assert_refused(&answer, 401);
        site.assert_nothing_came_through("without a credential");

        let mut connection = BufReader::new(connect(site.address()).unwrap());
        let credential = format!("x-api-key: {}\r\n", key.secret);
        let request = format!("GET /x HTTP/1.1\r\nHost: here\r\n{credential}{upgrade}\r\n");
        connection.get_mut().write_all(request.as_bytes()).unwrap();
        assert_eq!(read_answer(&mut connection, false).unwrap().status, 101);
        assert_eq!(site.upstream.take_one().told(), key.told(""));
        connection.get_mut().write_all(b"ping").unwrap();
        let mut echo = [0; 4];
        connection.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"ping");
        drop(connection);

        // Nothing else is, also in its company.
        for lines in ["h2c", "h2c\r\nUpgrade: websocket", "websocket\r\nUpgrade: h2c", "websocket, h2c", "h2c, websocket"] {
            let upgrade = format!("Connection: Upgrade\r\nUpgrade: {lines}\r\n");
            let answer = exchange(site, &format!("GET /x HTTP/1.1\r\nHost: here\r\n{credential}{upgrade}\r\n"));
            assert!([101, 200, 400, 403].contains(&answer.status), "{lines:?}: {answer:?}");
            let seen = site.upstream.take_seen();
            let upgrades = seen.iter().flat_map(|seen| &seen.headers).filter(|(name, _)| name == "upgrade");
            assert!(upgrades.into_iter().all(|(_, value)| value == "websocket"), "{lines:?}: {seen:?}");
        }
    }

    fn connections_are_kept_by_the_client_and_by_the_gateway_whatever_the_answers(site) {
        let key = sign_up_with_key(site, &[]);
        let good = format!("GET /x HTTP/1.1\r\nHost: here\r\nx-api-key: {}\r\n\r\n", key.secret);
        let bad = "POST /x HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nbody";
        let address = site.address();
        let talk = || {
            let mut connection = BufReader::new(connect(address).unwrap());
            for _ in 0..50 {
                for (request, status) in [(good.as_str(), 200), (bad, 401)] {
                    connection.get_mut().write_all(request.as_bytes()).unwrap();
                    assert_eq!(read_answer(&mut connection, false).unwrap().status, status);
                }
            }
        };
        talk();
        assert!(site.link.connections() <= 2, "{} connections to Keyward", site.link.connections());
        assert!(site.wire.connections() <= 2, "{} connections to the service", site.wire.connections());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(talk);
            }
        });
        // Traefik keeps two.
        let is_kept = site.gateway == Gateway::Traefik || site.link.connections() <= 10;
        assert!(is_kept, "{} connections to Keyward", site.link.connections());
        assert!(site.wire.connections() <= 10, "{} connections to the service", site.wire.connections());
        assert_eq!(site.upstream.take_seen().len(), 250);
    }

    fn the_longest_name_and_the_most_scopes_arrive_whole(site) {
        let ann = site.service.sign_up("ann@example.com");
        let (name, scopes) = ("😀".repeat(255), (0..50).map(|n| format!("{n:!<100}")).collect::<Vec<String>>());
        let key = site.service.create_key(&ann.access, json!({ "name": name, "scopes": scopes }));
        let answer = site.client().get("/x").api_key(key["key"].as_str().unwrap()).send();
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = site.upstream.take_one();
        let decoded = |name| {
            let value = seen.header(name).unwrap();
            percent_encoding::percent_decode_str(value).decode_utf8().unwrap().into_owned()
        };
        assert_eq!(decoded("x-auth-key-name"), name);
        assert_eq!(decoded("x-auth-scopes").split(' ').count(), 50);
    }

    fn a_body_arrives_as_it_was_sent_and_keyward_does_not_get_it(site) {
        let key = sign_up_with_key(site, &[]);
        let body: Vec<u8> = (0..1024 * 1024_u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let request = site.client().method(method, "/upload?a=b").api_key(&key.secret);
            let answer = request.body("application/octet-stream", body.clone()).send();
            assert_eq!((answer.status, answer.text()), (200, HELLO), "{answer:?}");
            let seen = site.upstream.take_one();
            assert_eq!((seen.method.as_str(), seen.target.as_str()), (method, "/upload?a=b"));
            assert_eq!(seen.header("content-type"), Some("application/octet-stream"));
            assert!(seen.body == body, "{method}: {} bytes", seen.body.len());
        }
    }

    fn one_id_goes_to_keyward_and_to_the_service_and_comes_back(site) {
        let key = sign_up_with_key(site, &[]);
        let is_sane = |id: &str| {
            (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        let long = format!("{MARK}{}", "x".repeat(60));
        let quoted = format!("{MARK} status=200 principal=user:root");
        let get = |lines: &str| {
            let answer = exchange(site, &format!("GET /x HTTP/1.1\r\nHost: here\r\nx-api-key: {}\r\n{lines}\r\n", key.secret));
            let seen = site.upstream.take_one();
            let ids: Vec<_> = seen.headers.iter().filter(|(name, _)| name == "x-request-id").collect();
            assert_eq!((answer.status, ids.len()), (200, 1), "{lines:?}: {seen:?}");
            let id = ids[0].1.clone();
            assert!(is_sane(&id), "{lines:?}: {id:?}");
            // Traefik has no way of putting a header of the request into the answer.
            if site.gateway != Gateway::Traefik {
                let answered: Vec<_> = answer.headers.get_all("x-request-id").iter().collect();
                assert_eq!(answered, [&*id], "{lines:?}: {answer:?}");
            }
            id
        };
        for bad in [&quoted, &long, &format!("{MARK}\t"), &format!("\"{MARK}\""), &format!("{MARK}%0a"), &format!("{MARK}é"), ""] {
            let id = get(&format!("X-Request-Id: {bad}\r\n"));
            // White space at its ends is none of a value's (RFC 9110 §5.5).
            assert!(!id.contains(MARK) || bad.trim() == id, "{bad:?}: {id:?}");
        }
        let id = get(&format!("X-Request-Id: {MARK}\r\nX-Request-Id: {MARK} too\r\n"));
        assert!(!id.contains(' ') && !id.contains(','), "{id:?}");
        assert_ne!(get(""), get(""));

        // Where it is taken over, it is the same for all three.
        let id = format!("{}-1.2_{MARK}", "a".repeat(50));
        assert_eq!(get(&format!("X-Request-Id: {id}\r\n")) == id, site.gateway != Gateway::Envoy);
        assert_eq!(site.link.heard_words(), site.gateway != Gateway::Envoy);

        // Refused, and on Keyward's own routes.
        for target in ["/x", "/auth/me"] {
            for (sent, is_good) in [(&*quoted, false), ("mine", true)] {
                let answer = site.client().get(target).header("X-Request-Id", sent).send();
                let answered: Vec<_> = answer.headers.get_all("x-request-id").iter().collect();
                assert_eq!((answer.status, answered.len()), (401, 1), "{target} {answer:?}");
                let answered = answered[0].to_str().unwrap();
                assert!(is_sane(answered), "{target} {answered:?}");
                assert_eq!(answered == "mine", is_good && site.gateway != Gateway::Envoy, "{target} {answered:?}");
            }
        }
        // What Keyward writes down is what the client has heard.
        let login = json!({ "email": "ann@example.com", "password": PASSWORD });
        let answer = site.client().post("/auth/login").header("X-Request-Id", &quoted).json(login).send();
        assert_eq!(answer.status, 200, "{answer:?}");
        let events = site.service.get("/auth/events").bearer(&key.owner.access).send().json();
        assert_eq!(events[0]["requestId"], answer.header("x-request-id").unwrap(), "{events}");
    }

    fn a_bad_id_is_not_told_to_keyward(site) {
        let key = sign_up_with_key(site, &[]);
        for bad in [format!("{MARK} status=200"), format!("{MARK}\""), format!("{MARK}{}", "x".repeat(60))] {
            for target in ["/x", "/reports/1", "/internal/1", "/auth/me"] {
                site.client().get(target).api_key(&key.secret).header("X-Request-Id", &bad).send();
            }
        }
        // Traefik leaves it to Keyward, which puts one of its own in the place.
        assert_eq!(site.link.heard_words(), site.gateway == Gateway::Traefik);
    }

    fn a_credential_that_cannot_be_one_is_the_clients_fault(site) {
        let (long, longest) = ("a".repeat(9_000), "a".repeat(17_000));
        for lines in [
            "x-api-key: sk_\x01\r\n", "x-api-key: \x7f\r\n", "Authorization: Bearer \x1b[31m\r\n", "Authorization: \x0b\r\n",
            "x-api-key: \u{fc}\r\n", "Authorization: Bearer a\tb\r\n", "x-api-key: a\r\nx-api-key: b\r\n",
            &format!("Authorization: Bearer {long}\r\nx-api-key: {long}\r\n"), &format!("x-api-key: {longest}\r\n"),
        ] {
            for target in ["/x", "/reports/1", "/auth/me"] {
                let answer = exchange(site, &format!("GET {target} HTTP/1.1\r\nHost: here\r\n{lines}\r\n"));
                assert!([400, 401, 431].contains(&answer.status), "{target} {lines:.40?}: {answer:?}");
            }
        }
        site.assert_nothing_came_through("with no credential");
    }

    fn many_cookies_arrive_and_are_no_concern_of_keywards(site) {
        let key = sign_up_with_key(site, &["reports:read"]);
        let cookies = format!("a={MARK}{}", "b".repeat(17_000));
        for target in ["/x", "/reports/1", "/internal/1"] {
            let answer = site.client().get(target).api_key(&key.secret).header("cookie", &cookies).send();
            assert_eq!(answer.status, 200, "{target} {answer:?}");
            assert_eq!(site.upstream.take_one().header("cookie"), Some(&*cookies));
        }
        assert!(!site.link.heard_words());
    }

    fn its_log_has_no_warning(site) {
        let key = sign_up_with_key(site, &[]);
        assert_eq!(site.client().get("/x").api_key(&key.secret).send().status, 200);
        assert_eq!(site.client().get("/x").send().status, 401);
        assert_eq!(site.client().get("//").send().status, 400);
        assert_eq!(site.warnings(), Vec::<String>::new());
    }

    fn while_keyward_is_away_nothing_comes_through_and_after_its_return_everything_does(site) {
        let key = sign_up_with_key(site, &[]);
        let get = || site.client().get("/x").api_key(&key.secret).send();
        assert_eq!(get().status, 200);
        site.upstream.take_one();
        for _ in 0..2 {
            site.link.cut();
            for _ in 0..3 {
                let answer = get();
                if site.gateway == Gateway::Traefik {
                    // It has no other status for that.
                    assert_eq!(answer.status, 500, "{answer:?}");
                } else {
                    site.assert_refused(&answer, 503);
                    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
                    assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1, "{answer:?}");
                }
            }
            let answer = site.client().get("/auth/me").send();
            assert!([502, 503].contains(&answer.status), "{answer:?}");
            site.assert_nothing_came_through("while Keyward was away");
            site.link.restore();
            assert_eq!(get().status, 200);
            site.upstream.take_one();
        }
        // The service's own absence is not Keyward's.
        site.wire.cut();
        let answer = get();
        let expected = if site.gateway == Gateway::Envoy { 503 } else { 502 };
        assert_eq!((answer.status, answer.header("retry-after")), (expected, None), "{answer:?}");
    }

    fn what_keyward_says_while_its_store_is_away_arrives(site) {
        let body = json!({ "statusCode": 503, "message": "later", "error": "Service Unavailable" }).to_string();
        let stub = tiny_http::Server::http("127.0.0.1:0").unwrap();
        site.link.redirect(stub.server_addr().to_ip().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let header = |name: &str, value: &str| tiny_http::Header::from_bytes(name, value).unwrap();
                for request in stub.incoming_requests() {
                    let answer = tiny_http::Response::from_string(&body).with_status_code(503);
                    let answer = answer.with_header(header("content-type", "application/json; charset=utf-8"));
                    let _ = request.respond(answer.with_header(header("retry-after", "1")));
                }
            });
            let answer = site.client().get("/x").header("x-api-key", "some").send();
            stub.unblock();
            site.assert_refused(&answer, 503);
            assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
        });
        site.assert_nothing_came_through("while the store was away");
    }

    fn a_key_over_its_limit_hears_when_it_may_come_again(site) {
        let ann = site.service.sign_up("ann@example.com");
        let limit = json!({ "limit": 2, "window": "1h" });
        let key = site.service.create_key(&ann.access, json!({ "name": "ci", "rateLimit": limit }));
        let get = || {
            let answer = site.client().get("/x").api_key(key["key"].as_str().unwrap()).send();
            let fields = ["ratelimit-policy", "ratelimit", "retry-after"];
            let fields = fields.map(|name| answer.header(name).unwrap_or_default().to_string());
            (answer.status, fields)
        };
        let fields = |left: &str, after: &str| ["\"default\";q=2;w=3600", left, after].map(str::to_string);
        // Traefik has no way of telling while the key is good.
        let is_told = site.gateway != Gateway::Traefik;
        let admitted = |left: &str| (200, if is_told { fields(left, "") } else { <[String; 3]>::default() });
        assert_eq!(get(), admitted("\"default\";r=1;t=1800"));
        assert_eq!(get(), admitted("\"default\";r=0;t=3600"));
        assert_eq!(site.upstream.take_seen().len(), 2);
        assert_eq!(get(), (429, fields("\"default\";r=0;t=3600", "1800")));
        site.assert_nothing_came_through("over the limit");
        site.service.advance(1800);
        assert_eq!(get().0, 200);
        assert!(site.upstream.take_one().headers.iter().all(|(name, _)| !name.starts_with("ratelimit")));
        let answer = site.client().get("/x").bearer(&ann.access).header("RateLimit", "forged").send();
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
    }

    fn keywards_own_routes_are_open_and_the_service_does_not_see_them(site) {
        let answer = site.client().post("/auth/signup").json(json!({ "email": "ann@example.com", "password": PASSWORD })).send();
        assert_eq!(answer.status, 201, "{answer:?}");
        let access = answer.json()["accessToken"].as_str().unwrap().to_string();
        let created = site.client().post("/keys/create").bearer(&access).json(json!({ "name": "ci" })).send();
        assert_eq!(created.status, 201, "{created:?}");
        for (target, status) in [("/auth/me", 200), ("/keys", 200), ("/keys/", 200), ("/auth/nothing", 404)] {
            assert_eq!(site.client().get(target).bearer(&access).send().status, status, "{target}");
        }
        for target in ["/api/docs", "/api/docs-json", "/api/docs/openapi.json", "/.well-known/jwks.json"] {
            assert_eq!(site.client().get(target).send().status, 200, "{target}");
        }
        site.assert_nothing_came_through("Keyward's own");
        // What is not for everyone is the service's, or nobody's.
        for target in ["/authz/auth-request", "/authz/forward-auth", "/health", "/protected/flexible"] {
            let answer = site.client().get(target).bearer(&access).send();
            assert_eq!((answer.status, answer.text()), (200, HELLO), "{target}: {answer:?}");
        }
    }
}

/// The essence, for both stores.
fn whoever_is_admitted_comes_through_until_he_is_not(site: &Site) {
    let ann = site.service.sign_up("ann+ci@example.com");
    let name = "Schlüssel 100% \"€\" 😀\u{202e}";
    let key = site.service.create_key(&ann.access, json!({ "name": name, "scopes": ["a:b", "c"] }));
    let (id, secret) = (key["id"].as_str().unwrap(), key["key"].as_str().unwrap());
    let email = "ann%2Bci@example.com";
    let user = told([
        ("type", "user"),
        ("user_id", &ann.id),
        ("email", email),
        ("key_id", ""),
        ("key_name", ""),
        ("scopes", ""),
    ]);
    let encoded = "Schl%C3%BCssel%20100%25%20%22%E2%82%AC%22%20%F0%9F%98%80%E2%80%AE";
    let service = told([
        ("type", "service"),
        ("user_id", &ann.id),
        ("email", email),
        ("key_id", id),
        ("key_name", encoded),
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
fn on_postgres_too_whoever_is_admitted_comes_through_until_he_is_not() {
    if postgres_cluster::available() {
        for gateway in Gateway::all() {
            whoever_is_admitted_comes_through_until_he_is_not(&Site::start_with(gateway, Backend::Postgres, &[]));
        }
    }
}

#[test]
fn keyward_knows_the_address_of_the_client_behind_the_gateway() {
    for gateway in Gateway::all() {
        let settings = [("TRUSTED_PROXIES", "127.0.0.1"), ("RATE_LIMIT_FAILED_KEYS", "3/1h")];
        let site = Site::start_with(gateway, Backend::Sqlite, &settings);
        let (one, other) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
        let bad = "x-api-key: nonsense\r\n";
        for n in 0..3 {
            let invented = format!("{bad}X-Forwarded-For: 203.0.113.{n}\r\nX-Real-IP: 203.0.113.{n}\r\n");
            assert_eq!(get_from(&site, one, "/x", &invented).status, 401);
        }
        let refused = get_from(&site, one, "/x", bad);
        site.assert_refused(&refused, 429);
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
        // Neither the gateway nor anybody else behind it has to suffer for that.
        assert_eq!(get_from(&site, other, "/x", bad).status, 401);
        site.assert_nothing_came_through("with a bad key");

        let body = json!({ "email": "ann@example.com", "password": PASSWORD }).to_string();
        let head = format!(
            "POST /auth/signup HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        let answer = send_from(&site, one, &format!("{head}X-Forwarded-For: 203.0.113.9\r\n\r\n{body}"));
        assert_eq!(answer.status, 201, "{answer:?}");
        let access = answer.json()["accessToken"].as_str().unwrap().to_string();
        let sessions = site.service.get("/auth/sessions").bearer(&access).send().json();
        assert_eq!(sessions[0]["ip"], "127.0.0.2", "{sessions}");
        let invented = ["X-Forwarded-For: ", "X-Real-IP: ", "Forwarded: for=", "X.Real.IP: ", "X_Forwarded_For: "];
        let invented: String = invented.iter().map(|start| format!("{start}203.0.113.9\r\n")).collect();
        let credential = format!("Authorization: Bearer {access}\r\n{invented}");
        assert_eq!(get_from(&site, one, "/x", &credential).status, 200);
        let seen = site.upstream.take_one();
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.2"));
        // Caddy has no means against other spellings than Keyward, which looks for those of its own names.
        let may_stay = |name: &str| gateway == Gateway::Caddy && name.contains(['.', '_']);
        let believed = |(name, value): &(String, String)| value.contains("203.0.113") && !may_stay(name);
        assert!(!seen.headers.iter().any(believed), "{seen:?}");
    }
}
