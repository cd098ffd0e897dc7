//! HTTP/2 over TLS: frames of any kind, requests among them, and headers of any name. No answer is a fault of ours, and the
//! server goes on.
#![no_main]

use std::cell::RefCell;
use std::io::{Read, Write};

use keyward_fuzz::account::Account;
use keyward_fuzz::service::Service;
use keyward_harness::http2::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, SETTINGS, block, frame, read_frame,
};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SERVICE: RefCell<Service> = RefCell::new(Service::start_with_tls());
}

/// Frames of one input.
const MOST: usize = 12;

fuzz_target!(|data: &[u8]| {
    SERVICE.with_borrow_mut(|service| {
        let mut u = Unstructured::new(data);
        let mut sent = PREFACE.to_vec();
        sent.extend(frame(SETTINGS, 0, 0, &[]));
        let mut stream = 1;
        for _ in 0..MOST {
            if u.is_empty() {
                break;
            }
            let Ok(frames) = frames(&mut u, &service.account, &mut stream) else { break };
            sent.extend(frames);
        }
        let mut connection = service.connect_tls();
        // The server may end the connection before it has read them all.
        let _ = connection.write_all(&sent);
        for round in [1, 2] {
            // What was sent before is read when this comes back.
            let ping = frame(PING, 0, 0, &[round; 8]);
            if connection.write_all(&ping).is_err() || !comes_back(&mut connection, round) {
                break;
            }
        }
        if service.has_changed() {
            service.renew_account();
        }
    });
});

/// A request, what may belong to one, or anything.
fn frames(u: &mut Unstructured<'_>, account: &Account, stream: &mut u32) -> Result<Vec<u8>> {
    Ok(match u.int_in_range(0..=7)? {
        0..=4 => {
            let block = header_block(u, account)?;
            let ends = if u.ratio(2, 3)? { END_STREAM } else { 0 };
            let mut frames = frame(HEADERS, END_HEADERS | ends, *stream, &block);
            if ends == 0 {
                let length = u.int_in_range(0..=64)?.min(u.len());
                frames.extend(frame(DATA, u.choose(&[0, END_STREAM])?.to_owned(), *stream, u.bytes(length)?));
            }
            *stream += 2;
            frames
        }
        5 => frame(SETTINGS, 0, 0, &[&[0, u.int_in_range(0..=8)?], u.arbitrary::<[u8; 4]>()?.as_slice()].concat()),
        _ => {
            let (kind, flags) = (u.int_in_range(0..=10)?, u.arbitrary()?);
            let stream = u.choose(&[0, 1, *stream, stream.saturating_sub(2), 2])?.to_owned();
            let length = u.int_in_range(0..=32)?.min(u.len());
            frame(kind, flags, stream, u.bytes(length)?)
        }
    })
}

fn header_block(u: &mut Unstructured<'_>, account: &Account) -> Result<Vec<u8>> {
    let bearer = format!("Bearer {}", account.access);
    let usual = [
        (":method", *u.choose(&["GET", "GET", "GET", "HEAD", "POST", "DELETE", "OPTIONS", "CONNECT", "PATCH"])?),
        (":scheme", *u.choose(&["https", "https", "https", "http", "ws"])?),
        (":authority", *u.choose(&["keyward.example", "keyward.example", "a@b", "[::1]:443", "", "a:b", "a/b"])?),
        (
            ":path",
            *u.choose(&[
                "/health",
                "/protected/flexible",
                "/keys",
                "/auth/login",
                "/api/docs/",
                "*",
                "",
                "x",
                "//",
                "/a?b",
            ])?,
        ),
        ("authorization", &bearer),
        ("x-api-key", &account.key),
        ("content-type", "application/json"),
    ];
    let mut made = Vec::new();
    let left_out = if u.ratio(1, 4)? { u.int_in_range(0..=6)? } else { 6 };
    for (_, (name, value)) in usual.iter().enumerate().filter(|(index, _)| *index != left_out) {
        made.extend(block(&[(name, value)]));
    }
    for _ in 0..u.int_in_range(0..=3)? {
        let name = *u.choose(&[
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "te",
            "cookie",
            "expect",
            "upgrade",
            "x-forwarded-for",
            "x-request-id",
            "origin",
            "accept-encoding",
            "if-none-match",
            ":method",
            ":path",
            ":status",
            ":protocol",
            "Upper",
            "",
        ])?;
        let value: &str = u.arbitrary()?;
        let value: String = value.chars().take(u.int_in_range(0..=40)?).collect();
        made.extend(block(&[(name, &value)]));
    }
    Ok(made)
}

/// Reads frames until this ping is acknowledged. False: the connection has ended.
fn comes_back(connection: &mut impl Read, round: u8) -> bool {
    while let Ok(frame) = read_frame(connection) {
        if frame.kind == PING && frame.flags & ACK != 0 && frame.payload == [round; 8] {
            return true;
        }
    }
    false
}
