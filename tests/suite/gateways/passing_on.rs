//! What of a request arrives at Keyward and at the service, and what of it never does.

use std::io::{BufReader, Read, Write};
use std::net::Ipv4Addr;

use keyward_harness::http_client::{connect, read_answer};
use keyward_harness::service::{Backend, PASSWORD};
use serde_json::json;

use super::site::{FORGED, Gateway, MARK, Site, behind_each_gateway};
use super::upstream::{HELLO, NAMES};
use super::{exchange, get_from, send_from, sign_up_with_key, user_told};

behind_each_gateway! {
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
        // Not all in one: Envoy refuses to read so many.
        for names in NAMES.chunks(5) {
            attempts.push(format!("Connection: close, {}\r\n", names.join(", ")));
        }
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

    fn a_websocket_is_opened_for_those_who_are_let_in(site) {
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

    fn the_longest_texts_and_the_most_scopes_arrive_whole(site) {
        let ann = site.service.sign_up("ann@example.com");
        let (name, scopes) = ("😀".repeat(255), (0..50).map(|n| format!("{n:!<100}")).collect::<Vec<String>>());
        let key = site.service.create_key(&ann.access, json!({ "name": name, "scopes": scopes, "externalId": name }));
        let answer = site.client().get("/x").api_key(key["key"].as_str().unwrap()).send();
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = site.upstream.take_one();
        let decoded = |name| {
            let value = seen.header(name).unwrap();
            percent_encoding::percent_decode_str(value).decode_utf8().unwrap().into_owned()
        };
        assert_eq!((decoded("x-auth-key-name"), decoded("x-auth-external-id")), (name.clone(), name));
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
        // Without mail, links lead nowhere, so Keyward has no pages for them.
        for target in ["/account/reset", "/account/verify", "/account/account.js", "/account/account.css"] {
            assert_eq!(site.client().get(target).send().status, 404, "{target}");
        }
        site.assert_nothing_came_through("Keyward's own");
        // What is not for everyone is the service's, or nobody's.
        for target in ["/authz/auth-request", "/authz/forward-auth", "/health", "/protected/flexible"] {
            let answer = site.client().get(target).bearer(&access).send();
            assert_eq!((answer.status, answer.text()), (200, HELLO), "{target}: {answer:?}");
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
