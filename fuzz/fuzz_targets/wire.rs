//! Any bytes on a connection of their own: each answer is one, none is a fault of ours, and the server goes on.
#![no_main]

use std::cell::RefCell;
use std::io::{Cursor, ErrorKind};

use keyward_fuzz::service::Service;
use keyward_harness::http_client::read_answer;
use keyward_harness::http2::PREFACE;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SERVICE: RefCell<Service> = RefCell::new(Service::start());
}

fuzz_target!(|data: &[u8]| {
    SERVICE.with_borrow_mut(|service| {
        let sent = service.account.fill(data);
        // What begins like this speaks HTTP/2, and has a target of its own. Empty lines before it are passed over.
        if sent.trim_ascii_start().starts_with(PREFACE) {
            return;
        }
        let answers = service.send_all(&sent);
        let mut rest = Cursor::new(answers.as_slice());
        let mut changed = false;
        while (rest.position() as usize) < answers.len() {
            let behind = rest.position() as usize;
            assert!(answers[behind..].starts_with(b"HTTP/1."), "{}\n→ {}", sent.escape_ascii(), answers.escape_ascii());
            // An answer to HEAD has no body, whatever length it tells.
            let is_bodyless = |mut answer: &[u8]| {
                loop {
                    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
                    let (head, rest) = answer.split_at(end.map_or(answer.len(), |end| end + 4));
                    if !head.starts_with(b"HTTP/1.1 1") {
                        return rest.is_empty() || rest.starts_with(b"HTTP/1.");
                    }
                    answer = rest;
                }
            };
            let answer = match read_answer(&mut rest, is_bodyless(&answers[behind..])) {
                Ok(answer) => answer,
                // A client that is gone gets part of an answer.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) => panic!("{}\n→ {error}: {}", sent.escape_ascii(), answers.escape_ascii()),
            };
            assert!(answer.status < 500 || matches!(answer.status, 501 | 505), "{}\n→ {answer:?}", sent.escape_ascii());
            // What cannot be read at all is refused without a word.
            let is_ours = !answer.body.is_empty();
            assert!(!is_ours || answer.header("x-request-id").is_some(), "{}\n→ {answer:?}", sent.escape_ascii());
            changed |= answer.status < 300;
        }
        if changed && data.starts_with(b"GET ") {
            assert_one_host(&sent, &answers);
        }
        if changed {
            service.renew_account();
        }
        assert_eq!(service.send(b"GET /health HTTP/1.1\r\nHost: keyward.example\r\n\r\n").status, 200);
    });
});

/// A first request that was granted named exactly one host, and framed its body in one way (RFC 9112 §3.2, §6.3).
fn assert_one_host(sent: &[u8], answers: &[u8]) {
    if !answers.starts_with(b"HTTP/1.1 200") {
        return;
    }
    let sent = String::from_utf8_lossy(sent);
    // Lines may end in LF alone (RFC 9112 §2.2).
    let lines = sent.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).map(str::to_ascii_lowercase).collect();
    let values = |name: &str| head.iter().filter_map(|line| line.strip_prefix(name)).map(str::trim).collect::<Vec<_>>();
    let (hosts, codings, lengths) = (values("host:"), values("transfer-encoding:"), values("content-length:"));
    if let [host] = hosts[..] {
        assert!(!host.contains(['/', '@', '?', '#', ' ', '\t', '\\', '<', '>', '"']), "{head:?}");
    } else {
        assert!(hosts.is_empty(), "{head:?}");
    }
    assert!(codings.is_empty() || codings == ["chunked"], "{head:?}");
    assert!(lengths.iter().all(|length| !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit())), "{head:?}");
    assert!(lengths.windows(2).all(|two| two[0] == two[1]), "{head:?}");
    assert!(codings.is_empty() || lengths.is_empty(), "{head:?}");
}
