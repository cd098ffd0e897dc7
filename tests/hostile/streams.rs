//! HTTP/2: as many streams as a client may have, on each of many connections, and on each stream as much as it may hold.

use std::thread;

use keyward_harness::http2::{DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, block, frame, indexed};
use keyward_harness::program::Home;
use keyward_harness::service::Backend;
use keyward_harness::tls_client::{Pair, TlsWire};

use crate::target::{NO_LIMITS, has_no_faults, keeps_to_its_memory};

const CONNECTIONS: usize = 100;
const STREAMS: u32 = 100;

/// A request of half a kilobyte whose head takes a hundred times as much to hold, and whose body never comes whole.
fn stream(number: u32) -> Vec<u8> {
    let names =
        [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/authz/forward-auth")];
    let mut block = block(&names);
    if number == 0 {
        block.extend(indexed("a", ""));
    }
    // The latest entry of the table, again and again.
    block.extend([0xBE; 400]);
    let id = 2 * number + 1;
    [frame(HEADERS, END_HEADERS, id, &block), frame(DATA, 0, id, b"abc")].concat()
}

#[test]
fn streams_that_never_end_hold_little_memory_however_many_there_are_and_others_are_served() {
    let home = Home::fresh(Backend::Sqlite);
    let pair = Pair::make(&home.path(""), "server");
    let settings = [NO_LIMITS.as_slice(), &[("TLS_CERT", "server.pem"), ("TLS_KEY", "server.key")]].concat();
    let server = home.start(&settings);
    let (address, certificate) = (server.address(), pair.der());
    let attack: Vec<u8> =
        [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].into_iter().chain((0..STREAMS).map(stream)).flatten().collect();
    let held: Vec<TlsWire> = thread::scope(|scope| {
        let open = || {
            let mut wire = TlsWire::try_open(address, &certificate, &["h2"]).unwrap();
            wire.send(&attack);
            wire
        };
        let opening: Vec<_> =
            (0..4).map(|_| scope.spawn(move || (0..CONNECTIONS / 4).map(|_| open()).collect::<Vec<_>>())).collect();
        opening.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for protocol in ["http/1.1", "h2"] {
        let mut wire = TlsWire::try_open(address, &certificate, &[protocol]).unwrap();
        match protocol {
            "h2" => {
                let names =
                    [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/health")];
                let block = block(&names);
                wire.send(PREFACE).send(frame(SETTINGS, 0, 0, &[]));
                wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
                assert!(status_is_200(&mut wire));
            }
            _ => assert_eq!(wire.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").answer().status, 200),
        }
    }
    keeps_to_its_memory(server.pid());
    drop(held);
    let said = server.stop();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    has_no_faults(&said.stderr);
}

/// Whether the head of the answer begins with `:status: 200`, which is entry 8 of the static table (RFC 7541 Appendix A).
fn status_is_200(wire: &mut TlsWire) -> bool {
    use std::io::Read;
    loop {
        let mut head = [0; 9];
        wire.0.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        wire.0.read_exact(&mut payload).unwrap();
        if head[3] == HEADERS {
            return payload.first() == Some(&0x88);
        }
    }
}
