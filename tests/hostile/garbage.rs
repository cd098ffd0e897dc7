//! What is no HTTP/1.1, or none at all.

use std::thread;

use keyward_harness::wire::{Wire, answers, get, statuses};
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use crate::target::{Witness, attack};

/// Whatever is said to each of these is a refusal, on connections at the same time: some end by a time limit only.
fn each_is_turned_away(server: &Witness, garbage: &[Vec<u8>]) {
    thread::scope(|scope| {
        for garbage in garbage {
            scope.spawn(move || {
                for answer in answers(server.address, garbage) {
                    let shown = String::from_utf8_lossy(&garbage[..garbage.len().min(100)]);
                    assert!((400..500).contains(&answer.status) || answer.status == 505, "{shown:?}: {answer:?}");
                }
            });
        }
    });
}

#[test]
fn what_is_no_http_is_turned_away() {
    attack(|server| {
        let garbage: [&[u8]; 20] = [
            // Only the whole of it begins HTTP/2.
            b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            b"GET /health HTTP/3.0\r\nHost: a\r\n\r\n",
            b"GET /health HTTP/1.2\r\nHost: a\r\n\r\n",
            b"GET /health HTTP/01.1\r\nHost: a\r\n\r\n",
            b"GET /health http/1.1\r\nHost: a\r\n\r\n",
            b"GET /health HTTP/1.1 \r\nHost: a\r\n\r\n",
            b"GET  /health HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET\t/health\tHTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /he\xffalth\0 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"G\0T /health HTTP/1.1\r\nHost: a\r\n\r\n",
            b"G(T) /health HTTP/1.1\r\nHost: a\r\n\r\n",
            b" GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"\0\0\0\0\0\0\0\0",
            b"\r\n\r\n\r\n\r\n",
            b"\r",
            b"\r\r\r\r",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"EHLO example.com\r\nMAIL FROM:<a@example.com>\r\n",
            b"{\"email\":\"a@b.co\"}",
        ];
        each_is_turned_away(server, &garbage.map(<[u8]>::to_vec));
    });
}

#[test]
fn http_0_9_is_refused() {
    attack(|server| {
        for request in ["GET /health\r\n", "GET /health\r\n\r\n", "GET /\n\n", "GET /health HTTP/0.9\r\n\r\n"] {
            let heard = statuses(server.address, request);
            assert!(heard.is_empty() || heard == [400] || heard == [505], "{request:?}: {heard:?}");
        }
    });
}

#[test]
fn http_1_0_is_served_and_closed() {
    attack(|server| {
        for (request, expected) in [
            ("GET /health HTTP/1.0\r\n\r\n", &[200][..]),
            ("GET /protected/user-only HTTP/1.0\r\n\r\n", &[401]),
            ("GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", &[400]),
            // It knows no chunks (RFC 9112 §6.1).
            ("GET /health HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
            // Nor has it more than one request, unless it asks for that.
            ("GET /health HTTP/1.0\r\n\r\nGET /health HTTP/1.0\r\n\r\n", &[200]),
            (
                "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /nowhere HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
                &[200, 404],
            ),
        ] {
            assert_eq!(statuses(server.address, request), expected, "{request:?}");
        }
    });
}

#[test]
fn tls_on_the_plain_port_is_turned_away() {
    attack(|server| {
        // A ClientHello's record and handshake headers (RFC 8446 §4.1.2, §5.1), its random and a session id.
        let hello = |version: u8, length: u16| {
            let [high, low] = length.to_be_bytes();
            let mut hello = vec![0x16, 3, version, high, low, 1, 0, high, low.wrapping_sub(4), 3, 3];
            hello.extend((0..32).map(|byte: u8| byte.wrapping_mul(7)));
            hello.push(32);
            hello.extend((0..32).map(|byte: u8| byte.wrapping_mul(11)));
            hello.extend([0, 4, 0x13, 1, 0x13, 2, 1, 0]);
            hello.resize(5 + usize::from(length), 0);
            hello
        };
        let mut garbage: Vec<Vec<u8>> =
            [(0, 160), (1, 160), (3, 512), (1, 0x0d0a)].map(|(version, length)| hello(version, length)).into();
        garbage.push([hello(1, 160), b"\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()].concat());
        // SSL 2.0's form of it, and an alert.
        garbage.push(b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80\r\n\r\n".to_vec());
        garbage.push(b"\x15\x03\x01\x00\x02\x02\x28".to_vec());
        each_is_turned_away(server, &garbage);
    });
}

#[test]
fn noise_is_turned_away() {
    attack(|server| {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(5);
        let mut noise = |length: usize| -> Vec<u8> { (0..length).map(|_| random.random()).collect() };
        let pure: Vec<Vec<u8>> = (0..100).map(|round| noise(1 << (round % 16))).collect();
        each_is_turned_away(server, &pure);
    });
}

/// Good requests with some bytes that are others: each is a request still, or a refusal, and never a fault of the server.
#[test]
fn requests_with_bytes_that_were_changed_are_answered_or_refused() {
    attack(|server| {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(6);
        let body = r#"{"email":"ann@example.com","password":"short","name":"Ann"}"#;
        let good = [
            get("/protected/flexible").replace("\r\n\r\n", &format!("\r\nX-Api-Key: {}\r\n\r\n", server.key)),
            format!(
                "POST /auth/signup HTTP/1.1\r\nHost: keyward\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            ),
            get("/auth/events?limit=5&before=x").replace("\r\n\r\n", "\r\nAuthorization: Bearer e30.e30.AA\r\n\r\n"),
        ];
        let mut heard = 0;
        for round in 0..2000 {
            let mut bytes = good[round % good.len()].clone().into_bytes();
            for _ in 0..random.random_range(1..4) {
                let place = random.random_range(0..bytes.len());
                match random.random_range(0..3) {
                    0 => bytes[place] = random.random(),
                    1 => bytes.insert(place, random.random()),
                    _ => drop(bytes.remove(place)),
                }
            }
            // What is cut short is not waited for.
            let mut wire = Wire::open(server.address);
            wire.send(&bytes);
            wire.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
            for answer in keyward_harness::wire::parsed(&wire.rest()) {
                assert!(answer.status < 500, "{:?}: {answer:?}", String::from_utf8_lossy(&bytes));
                heard += 1;
            }
        }
        assert!(heard > 500, "{heard} answers");
    });
}
