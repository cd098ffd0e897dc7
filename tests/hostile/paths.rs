//! Paths that are written differently, to get past a guard.

use http::Method;
use keyward::api::routes::ROUTES;
use keyward::guard::requirements::Guard;
use keyward_harness::http_client::Client;
use keyward_harness::wire::{Wire, answers};

use crate::target::attack;

/// Other ways to write a path, some of which other servers take for the same.
fn disguises(path: &str) -> Vec<String> {
    let (first, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let last = path.rsplit('/').next().unwrap();
    let hex: String = first.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut disguises = vec![
        format!("/{path}"),
        format!("//{path}"),
        path.replacen('/', "//", 2),
        path.replace('/', "//"),
        format!("{path}//"),
        format!("/.{path}"),
        format!("/./.{path}"),
        format!("/health/..{path}"),
        format!("/health/%2e%2e{path}"),
        format!("/health/.%2E{path}"),
        format!("/%2e%2e{path}"),
        format!("/api/docs/..%2f..{path}"),
        format!("/api/docs/..%2f..{}", path.replace('/', "%2f")),
        format!("/api/docs/..%5c..{path}"),
        format!("/health;{path}"),
        format!("/health/..;{path}"),
        format!("/health%00{path}"),
        format!("/health%23{path}"),
        format!("/health%3f{path}"),
        format!("/{hex}/{rest}"),
        format!("/{}", path[1..].replace('/', "%2f")),
        format!("/{}", path[1..].replace('/', "%2F")),
        format!("/{}", path[1..].replace('/', "%252f")),
        format!("/{}", path[1..].replace('/', "%5c")),
        format!("/{}", path[1..].replace('/', "\\")),
        format!("%2f{}", &path[1..]),
        format!("/%2f{}", &path[1..]),
        format!("/%c0%af{}", &path[1..]),
        format!("/%c0%ae%c0%ae{path}"),
        format!("/%e0%80%af{}", &path[1..]),
        format!("/%ef%bc%8f{}", &path[1..]),
        format!("{path};a=b"),
        format!("{path};"),
        format!("{path}/."),
        format!("{path}/.."),
        format!("{path}/../{last}"),
        format!("{path}/..;/{last}"),
        format!("{path}/%2e%2e/{last}"),
        format!("{path}%2f"),
        format!("{path}%00"),
        format!("{path}%00.css"),
        format!("{path}%20"),
        format!("{path}%09"),
        format!("{path}%0a"),
        format!("{path}%0d%0a"),
        format!("{path}%3f"),
        format!("{path}%23"),
        format!("{path}."),
        format!("{path}.json"),
        format!("{path}.css"),
        format!("{path}~"),
        format!("{path}*"),
        path.to_uppercase(),
        format!("{path}{}", "/".repeat(10_000)),
        format!("/{}..{path}", "a/../".repeat(2000)),
        format!("{path}{}", "%2f".repeat(4000)),
        format!("{path}{}", "a".repeat(15_000)),
    ];
    // Those that change what only longer paths have.
    disguises.retain(|disguise| disguise != path);
    disguises
}

/// Guarded paths, with something in the place of their parameter, and their methods.
fn guarded() -> Vec<(&'static str, String)> {
    ROUTES
        .iter()
        .filter(|route| route.guard != Guard::Public)
        .map(|route| {
            // Where any method will do, GET does.
            let method = route.method.as_ref().map_or("GET", Method::as_str);
            (method, route.path.replace(":id", "0192f0c1-0000-7000-8000-000000000001").replace('*', "a/b"))
        })
        .collect()
}

#[test]
fn no_way_to_write_a_path_gets_past_its_guard() {
    attack(|server| {
        let mut tried = 0;
        for (method, path) in guarded() {
            let mut wire = Wire::open(server.address);
            for disguise in disguises(&path) {
                for head in [
                    format!("{method} {disguise} HTTP/1.1\r\nHost: keyward\r\n\r\n"),
                    format!("{method} http://keyward{disguise} HTTP/1.1\r\nHost: keyward\r\n\r\n"),
                    format!("{method} {disguise}?a=b HTTP/1.1\r\nHost: keyward\r\n\r\n"),
                    // Where others look for the path that is meant.
                    format!(
                        "{method} {disguise} HTTP/1.1\r\nHost: keyward\r\nX-Original-URL: /health\r\nX-Rewrite-URL: /health\r\n\r\n"
                    ),
                    format!(
                        "{method} /nowhere HTTP/1.1\r\nHost: keyward\r\nX-Original-URL: {disguise}\r\nX-Forwarded-Prefix: {disguise}\r\n\r\n"
                    ),
                ] {
                    let answer = wire.send(&head).answer();
                    let shown = &head[..head.len().min(200)];
                    assert!([400, 401, 403, 404, 405, 431].contains(&answer.status), "{shown:?}: {answer:?}");
                    if answer.header("connection") == Some("close") {
                        wire = Wire::open(server.address);
                    }
                    tried += 1;
                }
            }
        }
        println!("{tried} requests");
    });
}

/// With a credential as well: what is reached is what is written, or nothing.
#[test]
fn a_path_has_one_way_to_be_written_and_one_trailing_slash() {
    attack(|server| {
        let client = Client::unobserved(server.address);
        let status = |target: &str| {
            let request = client.get(target).api_key(&server.key).bearer(&server.account.access);
            request.send().status
        };
        for path in ["/health", "/keys", "/auth/me", "/auth/sessions", "/protected/flexible", "/protected/user-only"] {
            assert_eq!(
                [status(path), status(&format!("{path}/")), status(&format!("{path}?a=/b"))][..2],
                [200; 2],
                "{path}"
            );
            for disguise in disguises(path) {
                let status = status(&disguise);
                // An address of its own, such as that of a key, which only has other methods.
                assert!([400, 404, 405].contains(&status), "{disguise:?}: {status}");
            }
        }
    });
}

#[test]
fn files_are_served_by_their_name_alone() {
    attack(|server| {
        for name in ["docs.js", "LICENSE"] {
            for target in disguises(&format!("/api/docs/{name}")) {
                let request = format!("GET {target} HTTP/1.1\r\nHost: keyward\r\nConnection: close\r\n\r\n");
                let answers = answers(server.address, request);
                assert!(answers.iter().all(|answer| [400, 404].contains(&answer.status)), "{target:?}: {answers:?}");
            }
        }
        for file in [
            "..%2fkeyward.db",
            "%2e%2e%2fkeyward.db.secrets",
            "..\\keyward.db",
            "%2fetc%2fpasswd",
            "../keyward.db",
            "%00",
        ] {
            let request = format!("GET /api/docs/{file} HTTP/1.1\r\nHost: keyward\r\n\r\n");
            assert_eq!(Wire::open(server.address).send(request).answer().status, 404, "{file}");
        }
    });
}
