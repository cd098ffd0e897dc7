//! Requests that two parties on the way could read differently (RFC 9112 §11.2): each is refused, or read as exactly one
//! request, and what is hidden in it is never answered.

use keyward_harness::http_client::read_answer;
use keyward_harness::service::{broken_rules, error};
use keyward_harness::wire::{CHUNKED, EMPTY_REFRESH, Wire, answers, chunked, get, refresh, smuggled, statuses};

use crate::target::attack;

/// Holds that a request with any of these lines is refused, and that nothing after it on its connection is read as one.
#[track_caller]
fn are_refused(framings: &[&str]) {
    attack(|server| {
        let smuggled = smuggled();
        for framing in framings {
            for body in ["{}", &chunked("{}")] {
                assert_eq!(statuses(server.address, refresh(framing, body) + &smuggled), [400], "{framing:?}");
            }
        }
    });
}

#[test]
fn lengths_that_could_be_read_in_two_ways_are_refused() {
    are_refused(&[
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 2",
        "Content-Length: 2, 3",
        "Content-Length: +2",
        "Content-Length: -2",
        "Content-Length: 02",
        "Content-Length: 0000000000000000000000002",
        "Content-Length: 0x2",
        "Content-Length: 2 2",
        "Content-Length: 2.0",
        "Content-Length: two",
        "Content-Length: \u{662}",
        "Content-Length:",
        "Content-Length: 18446744073709551618",
        "Content-Length: 2;",
        "Content-Length: \"2\"",
        "Content-Length: 2\r\nContent-Length: 2, 2\r\nContent-Length: 3",
        "Content-Length: 9223372036854775808\r\nContent-Length: 2",
    ]);
}

#[test]
fn codings_that_could_be_read_in_two_ways_are_refused() {
    are_refused(&[
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: cow",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
        "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked chunked",
        "Transfer-Encoding: chunke\u{12d}",
        "Transfer-Encoding: chunked\r\nContent-Length: +2",
    ]);
}

/// RFC 9112 §5.2. Others may see no length in them, or another one.
#[test]
fn folded_lines_are_refused() {
    are_refused(&[
        "Content-Length:\r\n 2",
        "Transfer-Encoding:\r\n chunked",
        "X-Folded: a\r\n Content-Length: 2",
        "X-Folded: a\r\n\tTransfer-Encoding: chunked",
        "Content-Length: 1\r\n 2",
        "Transfer-Encoding: chun\r\n ked",
        " Content-Length: 2",
        "\tTransfer-Encoding: chunked",
    ]);
}

/// RFC 9112 §2.2. It ends a line for some.
#[test]
fn a_cr_alone_is_refused() {
    are_refused(&[
        "X-Bare-Return: a\rContent-Length: 2",
        "Content-Length: 2\rTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r",
        "Transfer-Encoding: \rchunked",
        "\rTransfer-Encoding: chunked",
    ]);
}

#[test]
fn nul_and_other_control_characters_are_refused() {
    are_refused(&[
        "Transfer-Encoding: \u{b}chunked",
        "X-Nul: a\0b\r\nContent-Length: 2",
        "X: a\u{c}\r\nContent-Length: 2\0",
        "Content-Length: 2\0",
        "Content-Length\0: 2",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding\u{b}: chunked",
        "Transfer_Encoding\u{7f}: chunked",
    ]);
}

/// RFC 9112 §5.1.
#[test]
fn names_with_a_space_before_the_colon_are_refused() {
    are_refused(&["Content-Length : 2", "Transfer-Encoding : chunked", "X No Colon\r\nContent-Length: 2"]);
}

#[test]
fn a_host_that_is_missing_repeated_or_none_is_refused() {
    attack(|server| {
        let smuggled = smuggled();
        for host in [
            "X-No: host",
            "Host: a\r\nHost: b",
            "Host: a\r\nHost: a",
            "Host: a b",
            "Host: a/b",
            "Host: user@a",
            "Host: http://a",
            "Host: a?b",
            "Host: a:b",
            "Host: [::1",
            "Host: a\\b",
            "Host: \u{e4}",
            "Host: a\r\n b",
            "Host: a, b",
            "Host: a#b",
            "Host: a\0",
            "Host: a\rb",
            "Host: a:99999999999999x",
            "Host: @",
            "Host: %00",
            " Host: a",
            "Host : a",
        ] {
            let request = format!("GET /health HTTP/1.1\r\n{host}\r\n\r\n");
            assert_eq!(statuses(server.address, request + &smuggled), [400], "{host:?}");
        }
    });
}

#[test]
fn a_coding_in_http_1_0_is_refused() {
    attack(|server| {
        let smuggled = smuggled();
        let old = "POST /auth/refresh HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n";
        assert_eq!(statuses(server.address, old.to_string() + &chunked("{}") + &smuggled), [400]);
    });
}

#[test]
fn what_looks_odd_but_can_be_read_in_one_way_only_is_served() {
    attack(|server| {
        let mut wire = Wire::open(server.address);
        for host in ["Host:", "Host: [::1]:3000", "hOST:\t127.0.0.1:3000 "] {
            assert_eq!(wire.send(format!("GET /health HTTP/1.1\r\n{host}\r\n\r\n")).answer().status, 200, "{host:?}");
        }
        for (framing, body) in [("content-length:2 ", "{}"), ("transfer-encoding: Chunked", chunked("{}").as_str())] {
            assert_eq!(wire.send(refresh(framing, body)).answer().json(), broken_rules(EMPTY_REFRESH), "{framing:?}");
        }
    });
}

/// RFC 9112 §6.1 and §6.3: the coding wins, and nothing that follows is believed.
#[test]
fn a_length_beside_a_coding_is_read_as_chunked_and_ends_the_connection() {
    attack(|server| {
        for framing in [
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 4",
            "Content-Length: 12\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive",
        ] {
            let answers = answers(server.address, refresh(framing, &chunked("{}")) + &smuggled());
            let [answer] = answers.as_slice() else { panic!("one answer, not {answers:?}: {framing}") };
            assert_eq!(answer.json(), broken_rules(EMPTY_REFRESH), "{framing}");
            assert_eq!(answer.header("connection"), Some("close"), "{framing}");
        }
    });
}

#[test]
fn a_body_is_never_taken_for_a_request() {
    attack(|server| {
        let hidden = smuggled();
        // One that the route does not read is passed over, or ends the connection.
        let last = smuggled().replace("/health", "/nowhere");
        for framed in [
            format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len()),
            format!("{CHUNKED}\r\n\r\n{}", chunked(&hidden)),
        ] {
            let request = format!("GET /health HTTP/1.1\r\nHost: keyward\r\n{framed}{last}");
            let answers = answers(server.address, request);
            let heard: Vec<_> = answers.iter().map(|answer| (answer.status, answer.header("connection"))).collect();
            assert!(
                [vec![(200, None), (404, Some("close"))], vec![(200, Some("close"))]].contains(&heard),
                "{answers:?}"
            );
        }
        // One whose end cannot be told ends the connection, read or not.
        for chunks in [
            "zz\r\n{}\r\n0\r\n\r\n",
            "-2\r\n{}\r\n0\r\n\r\n",
            "+2\r\n{}\r\n0\r\n\r\n",
            "0x2\r\n{}\r\n0\r\n\r\n",
            "\r\n{}\r\n0\r\n\r\n",
            "2\r\n{}}\r\n0\r\n\r\n",
            "2\r\n{}0\r\n\r\n",
            "2\n{}\n0\n\n",
            "2;a=\nb\r\n{}\r\n0\r\n\r\n",
            "10000000000000002\r\n{}\r\n0\r\n\r\n",
            "2\r\n{}\r\n0\r\nbad trailer\r\n\r\n",
            "2 2\r\n{}\r\n0\r\n\r\n",
            "2\0\r\n{}\r\n0\r\n\r\n",
            "2\r{}\r\n0\r\n\r\n",
            "2\r\n{}\r0\r\n\r\n",
            "2\r\n{}\n0\r\n\r\n",
            "2;a\0=b\n\r\n{}\r\n0\r\n\r\n",
            "fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
            "2h\r\n{}\r\n0\r\n\r\n",
            "2.0\r\n{}\r\n0\r\n\r\n",
            "2\r\n{}\r\n0\r\n folded: trailer\r\n\r\n",
            "2\r\n{}\r\n0\r\nTrailer\0: a\r\n\r\n",
        ] {
            assert_eq!(statuses(server.address, refresh(CHUNKED, chunks) + &hidden), [400], "{chunks:?}");
            let unread = format!("GET /nowhere HTTP/1.1\r\nHost: keyward\r\n{CHUNKED}\r\n\r\n{chunks}{hidden}");
            assert_eq!(statuses(server.address, unread), [404], "{chunks:?}");
        }
    });
}

/// Requests for what the one in front may not ask for, hidden between a length and these codings. How many of the requests
/// around them are granted.
#[track_caller]
fn served_around(codings: &[&str], bodies: &[(&str, usize)]) -> u32 {
    let mut served = 0;
    attack(|server| {
        for coding in codings {
            for (body, length) in bodies {
                for framing in
                    [format!("Content-Length: {length}\r\n{coding}"), format!("{coding}\r\nContent-Length: {length}")]
                {
                    for method in ["POST /auth/refresh", "GET /health"] {
                        let request = refresh(&framing, body).replace("POST /auth/refresh", method);
                        let answers = answers(server.address, &request);
                        let [answer] = answers.as_slice() else { panic!("one answer, not {answers:?}: {request:?}") };
                        assert!([200, 400].contains(&answer.status), "{request:?}: {answer:?}");
                        served += u32::from(answer.status == 200);
                    }
                }
            }
        }
    });
    served
}

const HIDDEN: &str = "GET /nowhere HTTP/1.1\r\nHost: keyward\r\nConnection: close\r\n\r\n";

/// What follows the last chunk.
fn after_the_end() -> String {
    format!("0\r\n\r\n{HIDDEN}")
}

fn in_a_chunk() -> String {
    format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len())
}

const PLAIN: [&str; 6] = [
    "Transfer-Encoding: chunked",
    "Transfer-Encoding:chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: chunked ",
    "Transfer-Encoding: CHUNKED",
    "transfer-encoding: chunked",
];

/// CL.TE: the front believes the length, we the coding.
#[test]
fn what_is_hidden_after_the_last_chunk_is_never_answered() {
    let body = after_the_end();
    assert!(served_around(&PLAIN, &[(&body, body.len())]) > 0, "even a plain coding is refused");
}

/// TE.CL: the front believes the coding, we the length.
#[test]
fn what_is_hidden_in_a_chunk_is_never_answered() {
    let body = in_a_chunk();
    println!("{} are granted", served_around(&PLAIN, &[(&body, 4), (&body, 0)]));
}

/// TE.TE: one of the two does not see the coding.
#[test]
fn what_is_hidden_by_a_coding_that_only_one_sees_is_never_answered() {
    let (after_the_end, in_a_chunk) = (after_the_end(), in_a_chunk());
    let bodies = [(&*after_the_end, after_the_end.len()), (&*in_a_chunk, 4), (&*in_a_chunk, 0)];
    let served = served_around(
        &[
            "Transfer-Encoding : chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
            "X: y\nTransfer-Encoding: chunked",
            "X: y\rTransfer-Encoding: chunked",
            " Transfer-Encoding: chunked",
            "Transfer-Encoding\r\n: chunked",
            "Transfer-Encoding: \r\n chunked",
            "Transfer-Encoding: identity",
        ],
        &bodies,
    );
    println!("{served} are granted");
}

/// RFC 9112 §2.2 lets a server take a LF alone for the end of a line. Taken so, it ends lines for the lengths as well.
#[test]
fn a_bare_lf_ends_a_line_wherever_it_is_or_the_request_is_refused() {
    attack(|server| {
        let mut wire = Wire::open(server.address);
        assert_eq!(wire.send("GET /health HTTP/1.1\nHost: keyward\n\n").answer().status, 200);
        assert_eq!(wire.send("GET /health HTTP/1.1\r\nHost: keyward\n\r\n").answer().status, 200);
        let request =
            "POST /auth/refresh HTTP/1.1\nHost: keyward\nContent-Type: application/json\nContent-Length: 2\n\n{}";
        assert_eq!(wire.send(request).answer().json(), broken_rules(EMPTY_REFRESH));
        // A length that a LF brings in is a length, also beside another.
        for framing in ["X: y\nContent-Length: 3\r\nContent-Length: 2", "Content-Length: 2\nContent-Length: 3"] {
            assert_eq!(statuses(server.address, refresh(framing, "{}") + &smuggled()), [400], "{framing:?}");
        }
    });
}

/// RFC 9112 §5.4: the one length, said several times.
#[test]
fn a_length_that_is_said_twice_alike_is_refused_or_read_as_said() {
    attack(|server| {
        let last = smuggled().replace("/health", "/nowhere");
        for framing in ["Content-Length: 2\r\nContent-Length: 2", "Content-Length: 2, 2", "Content-Length: 2,2"] {
            let statuses = statuses(server.address, refresh(framing, "{}") + &last);
            assert!([vec![400], vec![400, 404]].contains(&statuses), "{framing:?}: {statuses:?}");
        }
    });
}

#[test]
fn targets_of_other_forms_reach_no_other_route_and_no_other_host() {
    attack(|server| {
        for (target, expected) in [
            // RFC 9112 §3.2.2: a server must take the form that is meant for proxies.
            ("GET http://keyward/health", &[200][..]),
            ("GET HTTP://keyward/health", &[200, 400]),
            ("GET https://keyward:443/health", &[200, 400]),
            ("GET http://elsewhere/protected/user-only", &[401]),
            ("GET http://keyward@elsewhere/protected/user-only", &[400, 401]),
            ("GET http://elsewhere/http://keyward/health", &[404]),
            ("GET http:///health", &[400, 404]),
            ("GET http://keyward//health", &[404]),
            ("GET ftp://keyward/health", &[200, 400]),
            ("GET file:///etc/passwd", &[400, 404]),
            ("GET keyward:80", &[400, 404]),
            ("GET keyward", &[400, 404]),
            ("CONNECT keyward:443", &[400, 404, 405, 501]),
            ("CONNECT /health", &[400, 404, 405, 501]),
            ("CONNECT http://keyward/health", &[400, 404, 405, 501]),
            ("GET *", &[400, 404]),
            ("GET /health /health", &[400]),
            ("GET /health%20HTTP/1.1%0d%0aHost:%20b", &[404]),
            ("GET /health\tHTTP/1.1", &[400]),
            ("GET", &[400]),
            ("", &[400]),
        ] {
            let request = format!("{target} HTTP/1.1\r\nHost: keyward\r\n\r\n");
            let heard = statuses(server.address, request + &smuggled());
            // One that is served is followed by the next, which is a request of its own; the other form of CONNECT's
            // answer would make the rest of the connection a tunnel.
            let (first, rest) = heard.split_first().unwrap();
            assert!(expected.contains(first), "{target:?}: {heard:?}");
            assert!([&[][..], &[200]].contains(&rest), "{target:?}: {heard:?}");
        }
    });
}

#[test]
fn chunks_with_long_extensions_many_chunks_and_many_trailers_are_bounded() {
    attack(|server| {
        // What is within bounds is passed over.
        let mut wire = Wire::open(server.address);
        for chunks in ["2;a=b;c=\"d\"\r\n{}\r\n0;e\r\n\r\n", "02\r\n{}\r\n000\r\nA: b\r\nC: d\r\n\r\n"] {
            assert_eq!(wire.send(refresh(CHUNKED, chunks)).answer().json(), broken_rules(EMPTY_REFRESH), "{chunks:?}");
        }
        let extension = "e".repeat(1024);
        let many = |what: String, count: usize| what.repeat(count);
        for chunks in [
            format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "e".repeat(1024 * 1024)),
            many(format!("1;{extension}\r\n \r\n"), 1024) + "0\r\n\r\n",
            many("1;a\r\n \r\n".to_string(), 100_000) + "0\r\n\r\n",
            format!("2\r\n{{}}\r\n0\r\n{}\r\n", many(format!("T: {extension}\r\n"), 1024)),
            format!("2\r\n{{}}\r\n0\r\n{}\r\n", many("a:\r\n".to_string(), 10_000)),
            format!("2\r\n{{}}\r\n0\r\n{}", "t".repeat(1024 * 1024)),
        ] {
            let mut wire = Wire::open(server.address);
            // Refused before all of it has been sent.
            let _ = wire.try_send(refresh(CHUNKED, &chunks) + &smuggled());
            let answer = read_answer(&mut wire.0, false).unwrap();
            let shown = &chunks[..40];
            assert!([400, 413].contains(&answer.status), "{shown:?}: {answer:?}");
            assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
            assert_eq!(wire.rest(), b"", "{shown:?}");
        }
        // A trailer changes nothing (RFC 9110 §6.5.1).
        let request = format!(
            "GET /protected/user-only HTTP/1.1\r\nHost: keyward\r\nTrailer: Authorization\r\n{CHUNKED}\r\n\r\n"
        );
        let trailer = format!("0\r\nAuthorization: Bearer {}\r\n\r\n", server.account.access);
        let answer = Wire::open(server.address).send(request + &trailer).answer();
        assert_eq!((answer.status, answer.json()), (401, error(401, "Unauthorized")));
        assert_eq!(Wire::open(server.address).send(get("/health")).answer().status, 200);
    });
}
