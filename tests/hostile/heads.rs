//! Heads that have no end, or more in them than anyone has to say, and lengths that nobody could send.

use std::time::Instant;

use keyward_harness::service::error;
use keyward_harness::wire::{Wire, parsed, refresh, smuggled, statuses};

use crate::target::{SLACK, attack};

/// Sends the same again and again until the server has had enough, and gives its only answer's status.
fn endless(wire: &mut Wire, start: &str, again: &str) -> u16 {
    let started = Instant::now();
    wire.send(start);
    let piece = again.repeat(64 * 1024 / again.len());
    let mut sent = 0;
    while wire.try_send(&piece).is_ok() {
        sent += piece.len();
        assert!(sent < 64 * 1024 * 1024, "64 MiB were taken");
    }
    let answers = parsed(&wire.rest());
    let [answer] = answers.as_slice() else { panic!("one answer, not {answers:?}") };
    assert!(started.elapsed() < SLACK, "refused after {:?}", started.elapsed());
    answer.status
}

#[test]
fn a_head_without_an_end_is_a_431_however_it_goes_on() {
    attack(|server| {
        for (start, again) in [
            ("GET /", "a"),
            ("GET /health?", "a=b&"),
            ("GET /health HTTP/1.1\r\nHost: keyward\r\nX-Endless: ", "a"),
            ("GET /health HTTP/1.1\r\nHost: keyward\r\nCookie: ", "a=b; "),
            ("GET /health HTTP/1.1\r\nHost: keyward\r\n", "X-Endless: a\r\n"),
            ("GET /health HTTP/1.1\r\nHost: keyward\r\n", "a:\r\n"),
            ("GET /health HTTP/1.1\r\nHost: keyward\r\n", "a"),
        ] {
            assert_eq!(endless(&mut Wire::open(server.address), start, again), 431, "{start:?}");
        }
        // No method is so long; and who never comes to the point has said nothing.
        assert!([400, 431].contains(&endless(&mut Wire::open(server.address), "", "A")));
        assert!([400, 431].contains(&endless(&mut Wire::open(server.address), "", "\r\n")));
    });
}

#[test]
fn ten_thousand_headers_are_a_431() {
    attack(|server| {
        for header in ["a:\r\n", "X-Header: value\r\n", "Authorization: Bearer a\r\n", "X-Api-Key: a\r\n"] {
            let head = format!("GET /health HTTP/1.1\r\nHost: keyward\r\n{}\r\n", header.repeat(10_000));
            assert_eq!(statuses(server.address, head + &smuggled()), [431], "{header:?}");
        }
        // As many as fit into the bytes that a head may have are too many as well.
        let head = format!("GET /health HTTP/1.1\r\nHost: keyward\r\n{}\r\n", "a:\r\n".repeat(3000));
        assert_eq!(statuses(server.address, head + &smuggled()), [431]);
    });
}

#[test]
fn a_body_of_ten_gigabytes_is_refused_before_it_is_sent() {
    attack(|server| {
        for length in ["10737418240", "9223372036854775807"] {
            let mut wire = Wire::open(server.address);
            let asked = Instant::now();
            let answer = wire.send(refresh(&format!("Content-Length: {length}"), "{")).answer();
            assert_eq!((answer.status, answer.json()), (413, error(413, "Request body is larger than 16384 bytes")));
            assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
            assert_eq!(wire.rest(), b"");
            // Where none is read, none is waited for.
            let mut wire = Wire::open(server.address);
            let head = format!("GET /health HTTP/1.1\r\nHost: keyward\r\nContent-Length: {length}\r\n\r\n");
            let answer = wire.send(head).answer();
            assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
            assert_eq!(wire.rest(), b"");
        }
        // Lengths that no number has room for, or that are none.
        for length in [
            "18446744073709551614",
            "18446744073709551615",
            "18446744073709551616",
            "99999999999999999999999999",
            "1e10",
        ] {
            let request = refresh(&format!("Content-Length: {length}"), "{}") + &smuggled();
            let heard = statuses(server.address, request);
            assert!([[400], [413], [431]].iter().any(|one| heard == one), "{length}: {heard:?}");
        }
    });
}
