//! How much a client may send and how long it may take: for a head, a body, and the reading of an answer.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use keyward_harness::openapi;
use keyward_harness::service::{Service, broken_rules, error};
use keyward_harness::wire::{CHUNKED, EMPTY_REFRESH, Wire, answers, chunked, get, parsed, refresh, smuggled, statuses};

use super::{KIB, SHORT, SLACK, patient_service, took};

#[test]
fn a_head_may_have_16_kib_and_not_a_byte_more() {
    let service = patient_service(&[], |_| {});
    let long_header = |bytes: usize| {
        let start = "GET /health HTTP/1.1\r\nHost: keyward\r\nX-Padding: ";
        format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
    };
    let long_target = |bytes: usize| get(&format!("/{}", "x".repeat(bytes - get("/").len())));
    let many_headers = |bytes: usize| {
        let start = format!("GET /health HTTP/1.1\r\nHost: keyward\r\n{}", "X-Padding: xxxxxxxx\r\n".repeat(90));
        format!("{start}X-Padding: {}\r\n\r\n", "x".repeat(bytes - start.len() - 15))
    };
    let mut wire = Wire::open(service.address());
    for (head, status) in [(long_header(16 * KIB), 200), (long_target(16 * KIB), 404), (many_headers(16 * KIB), 200)] {
        assert_eq!((head.len(), wire.send(head).answer().status), (16 * KIB, status));
    }
    for head in [long_header(16 * KIB + 1), long_target(16 * KIB + 1), many_headers(16 * KIB + 1)] {
        assert_eq!(statuses(service.address(), head + &smuggled()), [431]);
    }
    // Nobody waits for the end of such a head.
    assert_eq!(statuses(service.address(), "GET /".to_string() + &"x".repeat(512 * KIB)), [431]);
}

#[test]
fn a_body_may_have_16_kib_and_not_a_byte_more() {
    let service = patient_service(&[], |_| {});
    let padded = |bytes: usize| format!("{{{}}}", " ".repeat(bytes - 2));
    let in_small_chunks = |body: &str| {
        let (chunks, rest) = body.as_bytes().as_chunks::<64>();
        let chunks: String =
            chunks.iter().map(|chunk| format!("40\r\n{}\r\n", str::from_utf8(chunk).unwrap())).collect();
        chunks + &chunked(str::from_utf8(rest).unwrap()).replace("0\r\n\r\n0\r\n", "0\r\n")
    };
    let requests = |bytes: usize| {
        let body = padded(bytes);
        [
            refresh(&format!("Content-Length: {bytes}"), &body),
            refresh(CHUNKED, &chunked(&body)),
            refresh(CHUNKED, &in_small_chunks(&body)),
        ]
    };
    let mut wire = Wire::open(service.address());
    for request in requests(16 * KIB) {
        let answer = wire.send(request).answer();
        assert_eq!((answer.status, answer.json()), (400, broken_rules(EMPTY_REFRESH)));
    }
    for request in requests(16 * KIB + 1) {
        let answers = answers(service.address(), request + &smuggled());
        let [answer] = answers.as_slice() else { panic!("one answer, not {answers:?}") };
        assert_eq!((answer.status, answer.json()), (413, error(413, "Request body is larger than 16384 bytes")));
        assert_eq!(answer.header("connection"), Some("close"));
    }
}

#[test]
fn a_client_that_is_still_sending_gets_to_see_the_413() {
    let service = patient_service(&[], |_| {});
    let half = "x".repeat(400 * KIB);
    for (request, rest) in [
        (refresh("Content-Length: 819200", &half), half.clone()),
        (refresh("Content-Length: 819200", ""), half.clone()),
        (refresh(CHUNKED, &format!("{:x}\r\n{half}\r\n", half.len())), chunked(&half)),
    ] {
        let mut wire = Wire::open(service.address());
        let started = Instant::now();
        // The server closes its side only: what is on its way does not come back as a reset, which on many systems
        // takes the unread answer with it.
        let send = |wire: &mut Wire, bytes: &str| {
            let sent = wire.try_send(bytes);
            assert!(sent.is_ok() || started.elapsed() > Duration::from_secs(1), "{sent:?}");
        };
        send(&mut wire, &request);
        assert_eq!(wire.answer().status, 413);
        send(&mut wire, &rest);
        assert_eq!(wire.rest(), b"");
    }
    // Those who never stop are cut, and still see it.
    let mut wire = Wire::open(service.address());
    wire.send(refresh(CHUNKED, ""));
    let chunk = format!("{:x}\r\n{half}\r\n", half.len());
    assert!((0..1000).any(|_| wire.try_send(&chunk).is_err()), "400 MiB were taken");
    assert_eq!(wire.answer().status, 413);
}

#[test]
fn a_head_that_does_not_arrive_in_time_is_cut() {
    // Time enough for a client who sends on a new connection at once.
    let limit = 2 * SHORT;
    let service = patient_service(&[], |limits| limits.head = limit);
    let address = service.address();
    thread::scope(|scope| {
        scope.spawn(move || {
            let started = Instant::now();
            assert_eq!(Wire::open(address).rest(), b"", "a connection on which nothing is sent");
            took(started, limit);
        });
        scope.spawn(move || {
            let started = Instant::now();
            assert_eq!(Wire::open(address).send("GET /health HT").rest(), b"", "a head that stops half-way");
            took(started, limit);
        });
        scope.spawn(move || {
            let started = Instant::now();
            let mut wire = Wire::open(address);
            assert_eq!(
                wire.send("GET /health HTTP/1.1\r\nX-Endless: ").trickle(limit / 10, limit + SLACK),
                b"",
                "a head that trickles"
            );
            took(started, limit);
        });
        // On a kept connection the time begins with the first byte, not with the end of the last answer.
        scope.spawn(move || {
            let mut wire = Wire::open(address);
            assert_eq!(wire.send(get("/health")).answer().status, 200);
            assert!(wire.is_silent_for(2 * limit), "a kept connection was cut");
            assert_eq!(wire.send(get("/health")).answer().status, 200);
            let started = Instant::now();
            assert_eq!(
                wire.send("GET /health HTTP/1.1\r\nX-Endless: ").trickle(limit / 10, limit + SLACK),
                b"",
                "a second head that trickles"
            );
            took(started, limit);
        });
        // What came with the request before it begins when that is answered, if nothing follows as well.
        for first in [get("/health"), refresh("Content-Length: 2", "{}"), refresh(CHUNKED, &chunked("{}"))] {
            scope.spawn(move || {
                let mut wire = Wire::open(address);
                let started = Instant::now();
                wire.send(first + "GET /health HTTP/1.1\r\nX-Half: ").answer();
                assert_eq!(wire.rest(), b"", "half a pipelined head");
                took(started, limit);
            });
        }
        // Whole requests that came together leave nothing that would begin a head.
        for first in [get("/health"), refresh("Content-Length: 2", "{}"), refresh(CHUNKED, &chunked("{}"))] {
            scope.spawn(move || {
                let mut wire = Wire::open(address);
                for piece in [1, 7, first.len()] {
                    for part in first.as_bytes().chunks(piece) {
                        wire.send(part);
                    }
                    wire.answer();
                }
                assert_eq!(wire.send(get("/health") + &get("/health")).answer().status, 200);
                assert_eq!(wire.answer().status, 200);
                assert!(wire.is_silent_for(2 * limit), "a kept connection was cut");
            });
        }
        // Nor with the end of an answer to which the second head came too early.
        scope.spawn(move || {
            let mut wire = Wire::open(address);
            let started = Instant::now();
            assert_eq!(wire.send(get("/health") + "GET /health HTTP/1.1\r\nX-Endless: ").answer().status, 200);
            assert_eq!(wire.trickle(limit / 10, limit + SLACK), b"", "a pipelined head that trickles");
            took(started, limit);
        });
    });
}

#[test]
fn a_body_that_does_not_arrive_in_time_is_a_408() {
    let service = patient_service(&[], |limits| limits.body = SHORT);
    let address = service.address();
    thread::scope(|scope| {
        for (framing, start) in [("Content-Length: 100", ""), ("Content-Length: 16000", "{"), (CHUNKED, "3e80\r\n{")] {
            scope.spawn(move || {
                let mut wire = Wire::open(address);
                let started = Instant::now();
                let heard = wire.send(refresh(framing, start)).trickle(SHORT / 10, SHORT + SLACK);
                took(started, SHORT);
                let answers = parsed(&heard);
                let [answer] = answers.as_slice() else { panic!("one answer, not {answers:?}") };
                openapi::check("POST", "/auth/refresh", answer);
                assert_eq!((answer.status, answer.json()), (408, error(408, "Request body was not received in time")));
                assert_eq!(answer.header("connection"), Some("close"));
            });
        }
    });
}

#[test]
fn a_kept_connection_without_a_request_is_closed() {
    // Time enough between two requests for a client on a busy machine.
    let limit = 4 * SHORT;
    let service = patient_service(&[], |limits| limits.idle = limit);
    let mut wire = Wire::open(service.address());
    assert_eq!(wire.send(get("/health")).answer().status, 200);
    let started = Instant::now();
    assert_eq!(wire.send(get("/health")).answer().status, 200);
    assert_eq!(wire.rest(), b"");
    took(started, limit);
}

/// A large answer, and its size as it is sent without compression.
fn bundle(service: &Service) -> (String, usize) {
    let target = "/api/docs/swagger-ui-bundle.js";
    let size = service.get(target).send().body.len();
    assert!(size > 1000 * KIB, "{size}");
    (get(target), size)
}

#[test]
fn answers_that_nobody_reads_are_cut() {
    let service = patient_service(&[("MAX_CONNECTIONS", "1")], |limits| {
        limits.unread_answer = SHORT;
        limits.idle = SHORT;
    });
    let (request, size) = bundle(&service);
    let requests = 100;
    let mut reads_nothing = Wire::open(service.address());
    let started = Instant::now();
    reads_nothing.send(request.repeat(requests));
    // The only place is free again when the server has given up.
    assert_eq!(Wire::open(service.address()).send(get("/health")).answer().status, 200);
    took(started, SHORT);
    assert!(reads_nothing.rest().len() < requests * size);
}

#[test]
fn a_client_who_takes_a_byte_now_and_then_is_cut_as_well() {
    let limit = 2 * SHORT;
    let service = patient_service(&[], |limits| limits.unread_answer = limit);
    let (request, _) = bundle(&service);
    let mut wire = Wire::open(service.address());
    wire.send(request.repeat(20));
    let started = Instant::now();
    let mut taken = 0;
    // Less than is asked for, and never nothing for long. What the system keeps for a client is not the server's.
    while wire.try_send("x").is_ok() {
        assert!(started.elapsed() < limit + SLACK, "a client that takes little is never cut");
        thread::sleep(limit / 20);
        taken += wire.0.read(&mut [0; 64]).unwrap_or_default();
    }
    assert!(started.elapsed() >= limit && taken > 0);
}

#[test]
fn a_slow_reader_is_served_as_long_as_they_read() {
    let limit = Duration::from_secs(4);
    let service = patient_service(&[], |limits| limits.unread_answer = limit);
    let (request, size) = bundle(&service);
    let answers = 20u32;
    let mut wire = Wire::open(service.address());
    let started = Instant::now();
    wire.send(request.repeat(answers as usize));
    for number in 1..=answers {
        // Their pace; when they were held up, they make up for it.
        thread::sleep((2 * limit * number / answers).saturating_sub(started.elapsed()));
        assert_eq!(wire.answer().body.len(), size);
    }
    assert!(started.elapsed() > limit);
}
