//! HTTP/2, frame by frame: what a connection may cost, whatever its client does with its streams, and what could be read
//! in two ways and is refused. The store plays no part: it is SQLite throughout.

use std::collections::BTreeSet;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use keyward::http::limits::Limits;
use keyward_harness::http_client::PATIENCE;
use keyward_harness::http2::{
    self, ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, GOAWAY,
    HEADER_TABLE_SIZE, HEADERS, INITIAL_WINDOW_SIZE, NO_ERROR, PING, PREFACE, PROTOCOL_ERROR, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame, head, read_frame, status,
};
use keyward_harness::service::{Backend, PASSWORD, Service};
use keyward_harness::tls_client::{Secure, TlsWire};
use keyward_harness::wire::Wire;
use serde_json::json;

/// A time that runs out in a test.
const SHORT: Duration = Duration::from_millis(500);
/// A time that does not.
const NEVER: Duration = Duration::from_secs(600);

/// A service that cuts nobody, but for the limits that the test shortens.
fn patient_service(settings: &[(&str, &str)], shorten: impl FnOnce(&mut Limits)) -> Secure {
    Secure::start(settings, |config| {
        let Limits { handshake, head, body, idle, unread_answer, handler, .. } = &mut config.http.limits;
        for limit in [handshake, head, body, idle, unread_answer, handler] {
            *limit = NEVER;
        }
        shorten(&mut config.http.limits);
    })
}

/// One connection with HTTP/2.
struct Http2(TlsWire);

impl Http2 {
    #[track_caller]
    fn open(secure: &Secure) -> Http2 {
        Http2::open_with(secure, &[])
    }

    #[track_caller]
    fn open_with(secure: &Secure, settings: &[(u16, u32)]) -> Http2 {
        let mut wire = secure.connect(&["h2"]);
        assert_eq!(wire.protocol(), Some("h2"));
        wire.send(PREFACE);
        let mut connection = Http2(wire);
        // Without a table, each head can be read by itself.
        let settings = [&[(HEADER_TABLE_SIZE, 0)], settings].concat();
        connection.send(&frame(SETTINGS, 0, 0, &http2::settings(&settings)));
        connection
    }

    #[track_caller]
    fn send(&mut self, frames: &[u8]) {
        self.0.send(frames);
    }

    fn try_read(&mut self) -> io::Result<Frame> {
        read_frame(&mut self.0.0)
    }

    /// The next frame of one of these types.
    #[track_caller]
    fn next_of(&mut self, kinds: &[u8]) -> Frame {
        loop {
            let frame = self.try_read().unwrap_or_else(|error| panic!("no frame of {kinds:?}: {error}"));
            if kinds.contains(&frame.kind) {
                return frame;
            }
            assert_ne!(frame.kind, GOAWAY, "{frame:?}");
        }
    }

    /// The next head of an answer: its stream and its status.
    #[track_caller]
    fn status(&mut self) -> (u32, u16) {
        self.next_of(&[HEADERS, RST_STREAM]).answered()
    }

    /// The status of the answer on this stream, whatever becomes of others.
    #[track_caller]
    fn status_of(&mut self, stream: u32) -> u16 {
        loop {
            let frame = self.next_of(&[HEADERS, RST_STREAM]);
            if frame.stream == stream {
                return frame.answered().1;
            }
        }
    }

    /// So many answers, each to its end, before which its stream counts as one of a hundred (RFC 9113 §5.1.2): their
    /// streams and statuses.
    #[track_caller]
    fn statuses_of_whole_answers(&mut self, count: usize) -> BTreeSet<(u32, u16)> {
        let mut statuses = BTreeSet::new();
        let mut ended = 0;
        while ended < count {
            let frame = self.next_of(&[HEADERS, DATA, RST_STREAM]);
            if frame.kind != DATA {
                statuses.insert(frame.answered());
            }
            ended += usize::from(frame.flags & END_STREAM);
        }
        statuses
    }

    /// Why the server ended the connection; it is closed by then.
    #[track_caller]
    fn end(&mut self) -> u32 {
        let reason = loop {
            match self.try_read() {
                Ok(frame) if frame.kind == GOAWAY => break frame.reason(),
                Ok(_) => {}
                Err(error) => panic!("no goodbye: {error}"),
            }
        };
        self.0.rest();
        reason
    }

    /// Everything that was sent so far has been read when this returns.
    #[track_caller]
    fn is_read(&mut self) -> &mut Http2 {
        self.send(&frame(PING, 0, 0, b"are you?"));
        let ack = self.next_of(&[PING]);
        assert_eq!((ack.flags, ack.payload.as_slice()), (ACK, &b"are you?"[..]));
        self
    }
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET", path, &[]))
}

/// The head of a request to a route that reads its body and needs nothing else: with `{}` it is a 400.
fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head("POST", "/auth/refresh", &[("content-type", "application/json")]))
}

#[test]
fn a_hundred_streams_are_answered_at_once_and_a_thousand_after_one_another() {
    let secure = patient_service(&[], |_| {});
    let mut client = Http2::open(&secure);
    let streams: Vec<u32> = (0..1000).map(|number| 2 * number + 1).collect();
    for hundred in streams.chunks(100) {
        client.send(&hundred.iter().flat_map(|stream| get(*stream, "/health")).collect::<Vec<u8>>());
        assert_eq!(client.statuses_of_whole_answers(100), hundred.iter().map(|stream| (*stream, 200)).collect());
    }
}

#[test]
fn a_request_that_takes_its_time_holds_up_no_other() {
    let secure = patient_service(&[], |_| {});
    let mut client = Http2::open(&secure);
    client.send(&post(1));
    client.send(&get(3, "/health"));
    assert_eq!(client.status(), (3, 200));
    client.send(&frame(DATA, END_STREAM, 1, b"{}"));
    assert_eq!(client.status(), (1, 400));
}

#[test]
fn what_is_not_done_in_time_is_a_503_of_its_stream() {
    let secure = patient_service(&[], |limits| limits.handler = SHORT);
    let mut client = Http2::open(&secure);
    // More than can be hashed by then.
    let streams: Vec<u32> = (0..90).map(|number| 2 * number + 1).collect();
    for stream in &streams {
        let body = json!({ "email": format!("nobody{stream}@example.com"), "password": PASSWORD }).to_string();
        let head = head("POST", "/auth/login", &[("content-type", "application/json")]);
        let head = frame(HEADERS, END_HEADERS, *stream, &head);
        client.send(&[head, frame(DATA, END_STREAM, *stream, body.as_bytes())].concat());
    }
    let statuses: BTreeSet<u16> = streams.iter().map(|_| client.status().1).collect();
    assert!(statuses.contains(&503) && statuses.is_subset(&[401, 503].into()), "{statuses:?}");
    client.send(&get(201, "/health"));
    assert_eq!(client.status(), (201, 200));
}

#[test]
fn an_answer_to_head_has_no_body() {
    let secure = patient_service(&[], |_| {});
    let mut client = Http2::open(&secure);
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("HEAD", "/api/docs/swagger-ui.css", &[])));
    let answer = client.next_of(&[HEADERS]);
    assert_eq!((answer.flags, status(&answer.payload)), (END_HEADERS | END_STREAM, 200));
}

#[test]
fn a_body_over_its_limit_is_a_413_and_the_connection_goes_on() {
    let secure = patient_service(&[], |_| {});
    let mut client = Http2::open(&secure);
    client.send(&post(1));
    client.send(&frame(DATA, 0, 1, &[b' '; 16 * 1024]));
    client.send(&frame(DATA, 0, 1, b" "));
    assert_eq!(client.status(), (1, 413));
    client.send(&[frame(DATA, END_STREAM, 1, b" "), get(3, "/health")].concat());
    assert_eq!(client.status_of(3), 200);
}

#[test]
fn a_body_that_does_not_arrive_in_time_is_a_408_of_its_stream() {
    let secure = patient_service(&[], |limits| limits.body = SHORT);
    let mut client = Http2::open(&secure);
    let started = Instant::now();
    client.send(&post(1));
    client.send(&frame(DATA, 0, 1, b"{"));
    assert_eq!(client.status(), (1, 408));
    assert!(started.elapsed() >= SHORT);
    client.send(&get(3, "/health"));
    assert_eq!(client.status_of(3), 200);
}

#[test]
fn requests_that_are_taken_back_again_and_again_end_the_connection() {
    let secure = patient_service(&[], |_| {});
    let take_back = |stream| frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    // As many as fit into a few packets.
    let mut client = Http2::open(&secure);
    let burst = (0..1000).flat_map(|number| [get(2 * number + 1, "/health"), take_back(2 * number + 1)].concat());
    let _ = client.0.try_send(burst.collect::<Vec<u8>>());
    assert_eq!(client.end(), ENHANCE_YOUR_CALM);

    // One after the other, each when it has been begun.
    let mut client = Http2::open(&secure);
    let mut stream = 1;
    let goodbye = loop {
        assert!(stream < 1000, "nobody minds");
        client.send(&[post(stream), frame(PING, 0, 0, b"are you?")].concat());
        let answer = client.next_of(&[PING, GOAWAY]);
        if answer.kind == GOAWAY {
            break answer.reason();
        }
        client.send(&take_back(stream));
        stream += 2;
    };
    assert_eq!(goodbye, ENHANCE_YOUR_CALM);

    // A client that mostly waits for its answers may take back a request now and then, for as long as it likes.
    let mut client = Http2::open(&secure);
    for number in 0..300 {
        let stream = 4 * number + 1;
        client.send(&[post(stream), take_back(stream), get(stream + 2, "/health")].concat());
        assert_eq!(client.status(), (stream + 2, 200));
    }
}

#[test]
fn a_head_of_more_than_16_kib_is_a_431_and_an_endless_one_ends_the_connection() {
    let secure = patient_service(&[], |_| {});
    let padded = |length: usize| head("GET", "/health", &[("x-padding", &"x".repeat(length))]);
    let mut client = Http2::open(&secure);
    for (stream, length, expected) in [(1, 15 * 1024, 200), (3, 16 * 1024, 431), (5, 15 * 1024, 200)] {
        let block = padded(length);
        let (start, rest) = block.split_at(9000);
        client.send(&frame(HEADERS, END_STREAM, stream, start));
        client.send(&frame(CONTINUATION, END_HEADERS, stream, rest));
        assert_eq!(client.status(), (stream, expected), "{length}");
    }
    let mut client = Http2::open(&secure);
    client.send(&frame(HEADERS, END_STREAM, 1, &padded(100)));
    let more = frame(CONTINUATION, 0, 1, &block(&[("x-padding", &"x".repeat(1000))]));
    assert!((0..100_000).any(|_| client.0.try_send(&more).is_err()), "100 MB were taken");
    let mut client = Http2::open(&secure);
    client.send(&get(1, "/health"));
    assert_eq!(client.status(), (1, 200));
}

#[test]
fn an_answer_for_which_there_is_no_room_is_cut_and_no_other() {
    let secure = patient_service(&[], |limits| limits.unread_answer = SHORT);
    let mut client = Http2::open_with(&secure, &[(INITIAL_WINDOW_SIZE, 0)]);
    let started = Instant::now();
    client.send(&get(1, "/health"));
    assert_eq!(client.status(), (1, 200));
    let end = client.next_of(&[DATA, RST_STREAM]);
    assert_eq!((end.kind, end.stream, end.reason()), (RST_STREAM, 1, CANCEL));
    assert!(started.elapsed() >= SHORT);
    client.send(&[get(3, "/health"), frame(WINDOW_UPDATE, 0, 3, &100u32.to_be_bytes())].concat());
    assert_eq!(client.status(), (3, 200));
    assert_eq!(client.next_of(&[DATA, RST_STREAM]).kind, DATA);
}

#[test]
fn an_answer_that_is_taken_byte_by_byte_is_cut_and_no_other() {
    let limit = 2 * SHORT;
    let secure = patient_service(&[], |limits| limits.unread_answer = limit);
    let mut client = Http2::open_with(&secure, &[(INITIAL_WINDOW_SIZE, 0)]);
    let started = Instant::now();
    client.send(&get(1, "/api/docs/swagger-ui.css"));
    assert_eq!(client.status(), (1, 200));
    let end = loop {
        client.send(&frame(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes()));
        let part = client.next_of(&[DATA, RST_STREAM]);
        if part.kind == RST_STREAM {
            break part;
        }
        assert!(started.elapsed() < PATIENCE, "a client that takes little is never cut");
        thread::sleep(limit / 20);
    };
    assert_eq!((end.stream, end.reason()), (1, CANCEL));
    assert!(started.elapsed() >= limit);
    client.send(&[get(3, "/health"), frame(WINDOW_UPDATE, 0, 3, &100u32.to_be_bytes())].concat());
    assert_eq!(client.status_of(3), 200);
}

#[test]
fn a_frame_that_has_begun_must_end_within_the_time_for_a_head() {
    let limit = 2 * SHORT;
    let whole = get(3, "/health");
    let open_block = frame(HEADERS, END_STREAM, 3, &head("GET", "/health", &[]));
    for begun in [&whole[..5], &whole[..20], &open_block, &[&open_block[..], &[0, 0, 1]].concat()] {
        let secure = patient_service(&[], |limits| limits.head = limit);
        let mut client = Http2::open(&secure);
        client.send(&get(1, "/health"));
        assert_eq!(client.status(), (1, 200));
        let started = Instant::now();
        client.send(begun);
        assert_eq!(client.end(), NO_ERROR);
        assert!(started.elapsed() + Duration::from_millis(10) >= limit, "{:?}", started.elapsed());
    }
    // A body has the time of a body, and frames that end one after the other have all the time there is.
    let secure = patient_service(&[], |limits| limits.head = limit);
    let mut client = Http2::open(&secure);
    client.send(&post(1));
    let data = frame(DATA, END_STREAM, 1, b"{}");
    client.send(&data[..10]);
    thread::sleep(limit + SHORT);
    client.send(&data[10..]);
    assert_eq!(client.status(), (1, 400));
    let knock = frame(PING, 0, 0, b"are you?");
    client.send(&knock[..9]);
    for _ in 0..20 {
        thread::sleep(limit / 10);
        client.send(&[&knock[9..], &knock[..9]].concat());
    }
    client.send(&[&knock[9..], &get(3, "/health")].concat());
    assert_eq!(client.status(), (3, 200));
}

#[test]
fn trailers_are_passed_over() {
    let secure = patient_service(&[], |_| {});
    let mut client = Http2::open(&secure);
    let trailers = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[("x-trailer", "1")]));
    client.send(&[post(1), frame(DATA, 0, 1, b"{}"), trailers(1)].concat());
    assert_eq!(client.status(), (1, 400));
    // Also where nobody reads them.
    let request = frame(HEADERS, END_HEADERS, 3, &head("GET", "/health", &[]));
    client.send(&[request, frame(DATA, 0, 3, b"{}"), trailers(3)].concat());
    assert_eq!(client.status_of(3), 200);
    client.send(&post(5));
    client.is_read();
    client.send(&[frame(DATA, 0, 5, b"{}"), trailers(5)].concat());
    assert_eq!(client.status_of(5), 400);
}

#[test]
fn a_client_that_reads_nothing_is_cut() {
    let secure = patient_service(&[("MAX_CONNECTIONS", "1")], |limits| limits.unread_answer = SHORT);
    const ROOM: u32 = 1 << 30;
    let mut reads_nothing = Http2::open_with(&secure, &[(INITIAL_WINDOW_SIZE, ROOM)]);
    reads_nothing.send(&frame(WINDOW_UPDATE, 0, 0, &ROOM.to_be_bytes()));
    let requests = (0..50).flat_map(|number| get(2 * number + 1, "/api/docs/swagger-ui-bundle.js"));
    reads_nothing.send(&requests.collect::<Vec<u8>>());
    // The only place is free again when the server has given up.
    let mut client = Http2::open(&secure);
    client.send(&get(1, "/health"));
    assert_eq!(client.status(), (1, 200));
}

#[test]
fn a_connection_without_a_request_is_closed() {
    // Time enough for a client on a busy machine.
    let limit = 4 * SHORT;
    // Of which nothing is heard, not even the preface.
    let secure = patient_service(&[], |limits| limits.head = limit);
    assert_eq!(secure.connect(&["h2"]).rest().len(), preface_length(&secure));
    // Of which no request is heard.
    let started = Instant::now();
    assert_eq!(Http2::open(&secure).is_read().end(), NO_ERROR);
    assert!(started.elapsed() + Duration::from_millis(10) >= limit);

    let secure = patient_service(&[], |limits| limits.idle = limit);
    let mut client = Http2::open(&secure);
    client.send(&get(1, "/health"));
    assert_eq!(client.status(), (1, 200));
    let started = Instant::now();
    client.send(&get(3, "/health"));
    assert_eq!(client.status(), (3, 200));
    // To knock is not to ask.
    assert_eq!(client.is_read().end(), NO_ERROR);
    assert!(started.elapsed() + Duration::from_millis(10) >= limit, "{:?}", started.elapsed());
}

#[test]
fn an_idle_connection_goes_for_a_newcomer_with_a_goodbye() {
    let secure = patient_service(&[("MAX_CONNECTIONS", "1")], |_| {});
    let mut idle = Http2::open(&secure);
    for _ in 0..2 {
        idle.send(&get(1, "/health"));
        assert_eq!(idle.statuses_of_whole_answers(1), [(1, 200)].into());
        // It is quiet when all of it has been read.
        idle.is_read();
        // Which version the newcomer speaks is known later.
        let mut newcomer = Http2::open(&secure);
        assert_eq!(idle.end(), NO_ERROR);
        newcomer.is_read();
        idle = newcomer;
    }
}

/// What the server says before it has heard anything: nothing, or its settings.
fn preface_length(secure: &Secure) -> usize {
    let mut client = Http2::open(secure);
    let first = client.try_read().unwrap();
    assert_eq!((first.kind, first.flags), (SETTINGS, 0));
    9 + first.payload.len()
}

#[test]
fn whom_a_request_is_for_is_said_once() {
    let secure = patient_service(&[], |_| {});
    let mut client = Http2::open(&secure);
    let bare = [(":method", "GET"), (":scheme", "https"), (":path", "/health")];
    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[(":authority", "localhost")], 200),
        (&[(":authority", "localhost"), ("host", "localhost")], 200),
        (&[("host", "localhost")], 200),
        (&[], 400),
        (&[(":authority", "localhost"), ("host", "elsewhere")], 400),
        (&[(":authority", "localhost"), ("host", "")], 400),
        (&[("host", "localhost"), ("host", "localhost")], 400),
        (&[("host", "local host")], 400),
        (&[(":authority", "ann@localhost")], 400),
        (&[(":authority", "localhost:https")], 400),
        (&[(":authority", ":443")], 400),
        (&[(":authority", "localhost,elsewhere")], 400),
    ];
    for ((fields, expected), stream) in cases.iter().zip((1..).step_by(2)) {
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[&bare, *fields].concat())));
        assert_eq!(client.status(), (stream, *expected), "{fields:?}");
    }
}

/// RFC 9113 §8.3.1, RFC 9110 §7.4: what is meant for a connection without TLS did not come over one.
#[test]
fn a_scheme_that_is_not_the_connections_is_refused() {
    let secure = patient_service(&[], |_| {});
    let mut client = Http2::open(&secure);
    for ((scheme, expected), stream) in [("http", 400), ("ftp", 400), ("https", 200)].iter().zip((1..).step_by(2)) {
        let fields = [(":method", "GET"), (":scheme", scheme), (":path", "/health"), (":authority", "localhost")];
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields)));
        assert_eq!(client.status(), (stream, *expected), "{scheme}");
    }
}

/// As with HTTP/1.1. Browsers send each cookie by itself (RFC 9113 §8.2.3).
#[test]
fn a_head_may_have_a_hundred_fields_beside_its_cookies() {
    let secure = patient_service(&[], |_| {});
    let mut client = Http2::open(&secure);
    let cases = [("x-a", 100, 200), ("x-a", 101, 431), ("cookie", 150, 200)];
    for ((name, count, expected), stream) in cases.iter().zip((1..).step_by(2)) {
        let fields = vec![(*name, "b"); *count];
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET", "/health", &fields)));
        assert_eq!(client.status(), (stream, *expected), "{count} of {name}");
    }
}

/// RFC 9113 §3.3, as `curl --http2-prior-knowledge` does it.
#[test]
fn without_tls_http_2_is_spoken_with_those_who_know_it() {
    let service = Service::start(Backend::Sqlite);
    let mut wire = Wire::open(service.address());
    let asked = |stream, scheme| {
        let fields = [(":method", "GET"), (":scheme", scheme), (":path", "/health"), (":authority", "localhost")];
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))
    };
    let settings = frame(SETTINGS, 0, 0, &[&HEADER_TABLE_SIZE.to_be_bytes()[..], &0_u32.to_be_bytes()].concat());
    wire.send([PREFACE, &settings, &asked(1, "http"), &asked(3, "https")].concat());
    wire.send(asked(5, "http"));
    let mut heads = BTreeSet::new();
    while heads.len() < 3 {
        let frame = read_frame(&mut wire.0).unwrap();
        if frame.kind == HEADERS {
            heads.insert(frame.answered());
        }
    }
    assert_eq!(heads, [(1, 200), (3, 400), (5, 200)].into());
    // Only at the beginning.
    let late = format!("{}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", keyward_harness::wire::get("/health"));
    assert_eq!(keyward_harness::wire::statuses(service.address(), late), [200]);
}

#[test]
fn what_has_no_place_in_http_2_is_refused() {
    let secure = patient_service(&[], |_| {});
    let plain = [(":method", "GET"), (":scheme", "https"), (":path", "/health"), (":authority", "localhost")];
    let cases: &[Vec<(&str, &str)>] = &[
        [&plain[..], &[("connection", "close")]].concat(),
        [&plain[..], &[("transfer-encoding", "chunked")]].concat(),
        [&plain[..], &[("upgrade", "websocket")]].concat(),
        [&plain[..], &[("te", "gzip")]].concat(),
        [&plain[..], &[("X-Upper-Case", "1")]].concat(),
        [&plain[..], &[(":path", "/")]].concat(),
        plain[1..].to_vec(),
        vec![
            (":method", "CONNECT"),
            (":scheme", "https"),
            (":path", "/"),
            (":authority", "localhost"),
            (":protocol", "websocket"),
        ],
    ];
    for fields in cases {
        let mut client = Http2::open(&secure);
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields)));
        let end = client.next_of(&[HEADERS, RST_STREAM, GOAWAY]);
        assert!(end.kind != HEADERS && end.reason() == PROTOCOL_ERROR, "{fields:?}: {end:?}");
    }
    // A tunnel to elsewhere.
    let mut client = Http2::open(&secure);
    client.send(&frame(HEADERS, END_HEADERS, 1, &block(&[(":method", "CONNECT"), (":authority", "localhost:443")])));
    assert_eq!(client.status(), (1, 501));
}

#[test]
fn a_length_that_is_not_the_bodys_is_refused() {
    let secure = patient_service(&[], |_| {});
    let mut client = Http2::open(&secure);
    for (stream, length) in [(1, "1"), (3, "3")] {
        let fields = [("content-type", "application/json"), ("content-length", length)];
        client.send(&frame(HEADERS, END_HEADERS, stream, &head("POST", "/auth/refresh", &fields)));
        client.send(&frame(DATA, END_STREAM, stream, b"{}"));
        let end = client.next_of(&[HEADERS, RST_STREAM]);
        assert_eq!((end.kind, end.stream, end.reason()), (RST_STREAM, stream, PROTOCOL_ERROR), "{length}");
    }
}

#[test]
fn a_stop_lets_what_is_under_way_finish_and_waits_for_nobody_else() {
    let mut secure = patient_service(&[], |limits| limits.stopping = NEVER);
    let mut busy = Http2::open(&secure);
    busy.send(&post(1));
    busy.is_read();
    let mut idle = Http2::open(&secure);
    idle.send(&get(1, "/health"));
    assert_eq!(idle.status(), (1, 200));
    // Before it has said which protocol it speaks.
    let silent = secure.connect(&["h2"]);
    let stopping = thread::spawn(move || secure.service.stop());
    let goodbye = busy.next_of(&[GOAWAY]);
    assert_eq!(goodbye.reason(), NO_ERROR);
    busy.send(&frame(DATA, END_STREAM, 1, b"{}"));
    assert_eq!(busy.status(), (1, 400));
    // `idle` reads nothing of this, and is left behind.
    let started = Instant::now();
    stopping.join().unwrap();
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    drop((idle, silent));
}
