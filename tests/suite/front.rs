//! The front, byte by byte: what a connection may cost, which request goes where, how the server stops, and what it does
//! when more is asked of it than it can do. The store plays no part: it is SQLite throughout. What could be read in two
//! ways and what is no HTTP is in the hostile suite.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use keyward::api::routes::ROUTES;
use keyward::base::pool::cores;
use keyward::guard::judge::Guard;
use keyward::http::limits::Limits;
use keyward::run::Keyward;
use keyward_harness::http_client::{Client, PATIENCE, read_answer};
use keyward_harness::openapi;
use keyward_harness::service::{Backend, PASSWORD, Service, broken_rules, error};
use keyward_harness::wire::{CHUNKED, EMPTY_REFRESH, Wire, answers, chunked, get, parsed, refresh, smuggled, statuses};
use serde_json::json;

const KIB: usize = 1024;

/// A time that runs out in a test.
const SHORT: Duration = Duration::from_millis(500);
/// A time that does not.
const NEVER: Duration = Duration::from_secs(600);
/// How long the server waits for someone who was answered to close his side.
const LINGER: Duration = Duration::from_secs(2);
/// How late a busy machine may be.
const SLACK: Duration = Duration::from_secs(10);

/// A service that cuts nobody, but for the limits that the test shortens.
fn patient_service(settings: &[(&str, &str)], shorten: impl FnOnce(&mut Limits)) -> Service {
    Service::start_with(Backend::Sqlite, settings, |config| {
        let Limits { head, body, idle, unread_answer, handler, .. } = &mut config.http.limits;
        for limit in [head, body, idle, unread_answer, handler] {
            *limit = NEVER;
        }
        shorten(&mut config.http.limits);
    })
}

/// The time since `started` is this limit, give or take what a busy machine needs.
#[track_caller]
fn took(started: Instant, limit: Duration) {
    let took = started.elapsed();
    // Times are counted in whole milliseconds.
    assert!(took + Duration::from_millis(10) >= limit, "cut too early, after {took:?}");
    assert!(took < limit + SLACK, "cut too late, after {took:?}");
}

// How much, and for how long.

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
fn a_slow_reader_is_served_as_long_as_he_reads() {
    let limit = Duration::from_secs(4);
    let service = patient_service(&[], |limits| limits.unread_answer = limit);
    let (request, size) = bundle(&service);
    let answers = 20u32;
    let mut wire = Wire::open(service.address());
    let started = Instant::now();
    wire.send(request.repeat(answers as usize));
    for number in 1..=answers {
        // His pace; when he was held up, he makes up for it.
        thread::sleep((2 * limit * number / answers).saturating_sub(started.elapsed()));
        assert_eq!(wire.answer().body.len(), size);
    }
    assert!(started.elapsed() > limit);
}

#[test]
fn further_connections_wait_until_another_closes_when_all_are_busy() {
    let service = patient_service(&[("MAX_CONNECTIONS", "2")], |_| {});
    let mut served = [(); 2].map(|()| Wire::open(service.address()));
    for wire in &mut served {
        // The other half of the second request does not come.
        wire.send(get("/health") + &refresh("Content-Length: 2", "{"));
        assert_eq!(wire.answer().status, 200);
    }
    let mut waiting = [(); 2].map(|()| Wire::open(service.address()));
    for wire in &mut waiting {
        wire.send(get("/health") + &refresh("Content-Length: 2", "{"));
        assert!(wire.is_silent_for(SHORT / 2), "a third connection was served");
    }
    let [first, second] = served;
    let [third, fourth] = &mut waiting;
    drop(first);
    assert_eq!(third.answer().status, 200);
    assert!(fourth.is_silent_for(SHORT / 2), "a third connection was served");
    drop(second);
    assert_eq!(fourth.answer().status, 200);
}

#[test]
fn at_the_limit_the_longest_idle_connection_goes_for_a_newcomer() {
    let service = patient_service(&[("MAX_CONNECTIONS", "4")], |_| {});
    let [mut busy, mut first, mut second, mut third] = [(); 4].map(|()| Wire::open(service.address()));
    assert_eq!(busy.send(get("/health") + &refresh("Content-Length: 2", "{")).answer().status, 200);
    let ask = |wire: &mut Wire| {
        assert_eq!(wire.send(get("/health")).answer().status, 200);
        // The times are told apart by a clock that is some milliseconds coarse.
        assert!(wire.is_silent_for(SHORT / 10));
    };
    ask(&mut second);
    ask(&mut first);
    ask(&mut third);
    ask(&mut second);
    let mut newcomer = Wire::open(service.address());
    ask(&mut newcomer);
    assert_eq!(first.rest(), b"");
    ask(&mut Wire::open(service.address()));
    assert_eq!(third.rest(), b"");
    // Those who asked later are still there, and whoever is busy.
    ask(&mut newcomer);
    ask(&mut second);
    assert_eq!(busy.send("}").answer().status, 400);
}

/// Linux gives every machine the whole of 127.0.0.0/8.
#[cfg(target_os = "linux")]
#[test]
fn an_address_has_its_share_of_the_connections_and_keeps_nobody_else_out() {
    const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    let settings = [("MAX_CONNECTIONS", "16"), ("TRUSTED_PROXIES", "127.0.0.1"), ("RUST_LOG", "off")];
    let service = patient_service(&settings, |_| {});
    let address = service.address();
    let open = |request: String| {
        let mut wire = Wire::open_from(HERE, address);
        assert_eq!(wire.send(request).answer().status, 200);
        wire
    };
    let busy = || get("/health") + &refresh("Content-Length: 2", "{");
    // Of a quarter of them, one is idle, and goes for the next of the same address.
    let mut idle = open(get("/health"));
    let mut held: Vec<Wire> = (0..4).map(|_| open(busy())).collect();
    assert_eq!(idle.rest(), b"");
    // None is idle now, and no more are served, though there are places.
    for _ in 0..3 {
        let mut refused = Wire::open_from(HERE, address);
        let _ = refused.try_send(get("/health"));
        assert_eq!(refused.rest(), b"");
    }
    // Another address has a share of its own, and those who are trusted have all that is left.
    assert_eq!(Wire::open_from(Ipv4Addr::new(127, 0, 0, 3), address).send(get("/health")).answer().status, 200);
    let proxies: Vec<Wire> = (0..10)
        .map(|_| {
            let mut wire = Wire::open(address);
            assert_eq!(wire.send(busy()).answer().status, 200);
            wire
        })
        .collect();
    drop(proxies);
    // A connection that ends makes room for one of the same address, as soon as the server has heard of it.
    drop(held.pop());
    let started = Instant::now();
    let is_served = || {
        let mut wire = Wire::open_from(HERE, address);
        let _ = wire.try_send(get("/health"));
        read_answer(&mut wire.0, false).is_ok_and(|answer| answer.status == 200)
    };
    while !is_served() {
        assert!(started.elapsed() < PATIENCE, "a place is never free again");
    }

    let settings = [("MAX_CONNECTIONS_PER_ADDRESS", "1"), ("TRUSTED_PROXIES", "none"), ("RUST_LOG", "off")];
    let service = patient_service(&settings, |_| {});
    let mut wire = Wire::open_from(HERE, service.address());
    assert_eq!(wire.send(busy()).answer().status, 200);
    assert_eq!(Wire::open_from(HERE, service.address()).rest(), b"");
    assert_eq!(Wire::open(service.address()).send(get("/health")).answer().status, 200);
}

/// Linux gives every machine the whole of 127.0.0.0/8.
#[cfg(target_os = "linux")]
#[test]
fn one_connection_at_a_time_is_enough_for_two_addresses() {
    let service = patient_service(&[("MAX_CONNECTIONS", "1"), ("HOST", "127.0.0.1,127.0.0.2")], |_| {});
    let port = service.address().port();
    for host in ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.1"] {
        let mut wire = Wire::open(format!("{host}:{port}").parse().unwrap());
        assert_eq!(wire.send(get("/health")).answer().status, 200);
    }
}

/// On Linux `::` takes the addresses of IPv4 as well, unless it is told not to.
#[test]
fn all_addresses_of_both_families_are_listened_on_however_they_are_named() {
    for hosts in ["0.0.0.0,::", "::,0.0.0.0", "::"] {
        let service = patient_service(&[("HOST", hosts)], |_| {});
        let port = service.address().port();
        for host in ["127.0.0.1", "[::1]"] {
            let mut wire = Wire::open(format!("{host}:{port}").parse().unwrap());
            assert_eq!(wire.send(get("/health")).answer().status, 200, "{hosts}: {host}");
        }
    }
}

#[test]
fn clients_that_arrive_at_one_instant_and_stay_busy_all_get_answers() {
    const BUSY: Duration = Duration::from_secs(5);
    let service = patient_service(&[], |_| {});
    let ann = service.sign_up("ann@example.com");
    let key = service.create_key(&ann.access, json!({ "name": "ci" }));
    let (address, key) = (service.address(), key["key"].as_str().unwrap());
    let start = &Barrier::new(64);
    let served: Vec<(u32, Duration)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(move || {
                    // Held against openapi.json, the answers would be slower than the server.
                    let client = Client::new(address, |_, _, _| {});
                    let mut longest = Duration::ZERO;
                    let mut count = 0;
                    start.wait();
                    let started = Instant::now();
                    while started.elapsed() < BUSY {
                        for request in [client.get("/health"), client.get("/protected/service-only").api_key(key)] {
                            let asked = Instant::now();
                            assert_eq!(request.send().status, 200);
                            longest = longest.max(asked.elapsed());
                            count += 1;
                        }
                    }
                    (count, longest)
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    // A machine that stands still holds up everyone.
    let luckiest = served.iter().map(|(_, longest)| *longest).min().unwrap();
    assert!(luckiest < SLACK, "{served:?}");
    let most = luckiest + Duration::from_secs(3);
    assert!(served.iter().all(|(count, longest)| *count > 0 && *longest < most), "{served:?}");
}

#[test]
fn more_logins_than_can_be_hashed_are_refused_and_hold_up_nobody_else() {
    let limit = Duration::from_secs(2);
    let calm = patient_service(&[], |_| {});
    let ann = calm.sign_up("ann@example.com");
    let key = calm.create_key(&ann.access, json!({ "name": "ci" }));
    let mut config = calm.config().clone();
    config.http.limits.handler = limit;
    let stormy = Keyward::start(&config, calm.clock.clone()).unwrap();
    let address = stormy.addresses()[0];
    let login = |number: usize| {
        let body = json!({ "email": format!("nobody{number}@example.com"), "password": PASSWORD }).to_string();
        let head = "POST /auth/login HTTP/1.1\r\nHost: keyward\r\nContent-Type: application/json";
        format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let started = Instant::now();
    // Sent faster than they can be hashed, and far more than may wait.
    let mut storm: Vec<Wire> = (0..cores() * 128)
        .map(|number| {
            let mut wire = Wire::open(address);
            wire.send(login(number));
            wire
        })
        .collect();
    let client = Client::new(address, openapi::check);
    for _ in 0..20 {
        assert_eq!(client.get("/health").send().status, 200);
        let answer = client.get("/protected/service-only").api_key(key["key"].as_str().unwrap()).send();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let mut refused = 0;
    for wire in &mut storm {
        let answer = wire.answer();
        openapi::check("POST", "/auth/login", &answer);
        match answer.status {
            401 => {}
            503 => {
                let message = "Service temporarily unavailable, try again shortly";
                assert_eq!((answer.json(), answer.header("retry-after")), (error(503, message), Some("1")));
                refused += 1;
            }
            _ => panic!("{answer:?}"),
        }
        // A refusal costs nobody his connection.
        assert_eq!(wire.send(get("/health")).answer().status, 200);
    }
    let took = started.elapsed();
    assert!(took < limit + SLACK, "{took:?}");
    assert!(refused > 0);
    drop(storm);
    stormy.stop();
}

// How requests follow each other.

#[test]
fn pipelined_requests_are_answered_in_order_however_the_bytes_are_cut() {
    let service = patient_service(&[], |_| {});
    let login = json!({ "email": "nobody@example.com", "password": PASSWORD }).to_string();
    let requests = [
        ("GET", "/health", "", 200),
        // The slow one.
        ("POST", "/auth/login", login.as_str(), 401),
        ("HEAD", "/health", "", 200),
        ("GET", "/nowhere", "", 404),
        ("POST", "/auth/refresh", "{}", 400),
        ("HEAD", "/nowhere", "", 404),
        ("PUT", "/health", "", 405),
        ("GET", "/protected/user-only", "", 401),
        ("GET", "/health", "", 200),
    ];
    let mut bytes = String::new();
    for (number, (method, target, body, _)) in requests.iter().enumerate() {
        bytes += &format!("{method} {target} HTTP/1.1\r\nHost: keyward\r\nX-Request-Id: {number}\r\n");
        bytes += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }
    for piece in [bytes.len(), 100, 1] {
        let mut wire = Wire::open(service.address());
        for piece in bytes.as_bytes().chunks(piece) {
            wire.send(piece);
        }
        for (number, (method, target, _, status)) in requests.iter().enumerate() {
            let answer = read_answer(&mut wire.0, *method == "HEAD").unwrap();
            assert_eq!(answer.status, *status, "{method} {target}");
            assert_eq!(answer.header("x-request-id"), Some(number.to_string().as_str()));
        }
    }
}

#[test]
fn who_expects_a_100_gets_it_before_he_sends_the_body() {
    let service = patient_service(&[], |_| {});
    let mut wire = Wire::open(service.address());
    wire.send(refresh("Expect: 100-continue\r\nContent-Length: 2", "")).hears_100_continue();
    assert_eq!(wire.send("{}").answer().json(), broken_rules(EMPTY_REFRESH));
    wire.send(refresh(&format!("Expect: 100-Continue\r\n{CHUNKED}"), "")).hears_100_continue();
    assert_eq!(wire.send(chunked("{}")).answer().json(), broken_rules(EMPTY_REFRESH));
    // Nobody is asked for a body that would not be read: the first thing he hears is the refusal.
    for (request, refusal) in [
        (refresh("Expect: 100-continue\r\nContent-Length: 20000", ""), "HTTP/1.1 413 "),
        (
            refresh("Expect: 100-continue\r\nContent-Length: 2", "").replace("/auth/refresh", "/nowhere"),
            "HTTP/1.1 404 ",
        ),
        (
            refresh("Expect: 100-continue\r\nContent-Length: 2", "").replace("/auth/refresh", "/keys/create"),
            "HTTP/1.1 401 ",
        ),
    ] {
        let heard = String::from_utf8(Wire::open(service.address()).send(request).rest()).unwrap();
        assert!(heard.starts_with(refusal), "{heard}");
    }
}

#[test]
fn an_answer_that_does_not_wait_for_the_body_says_that_the_connection_closes() {
    let service = patient_service(&[], |_| {});
    for (method, target, status) in [
        ("POST", "/keys/create", 401),
        ("POST", "/nowhere", 404),
        ("PUT", "/health", 405),
        ("GET", "/health", 200),
        ("DELETE", "/keys/x", 401),
    ] {
        for framing in ["Content-Length: 2", CHUNKED] {
            let mut wire = Wire::open(service.address());
            let answer =
                wire.send(format!("{method} {target} HTTP/1.1\r\nHost: keyward\r\n{framing}\r\n\r\n")).answer();
            assert_eq!(answer.status, status, "{method} {target}");
            // A client that keeps connections would send its next request into the void (RFC 9112 §9.6).
            assert_eq!(answer.header("connection"), Some("close"), "{method} {target} {framing}: {answer:?}");
            assert_eq!(wire.rest(), b"");
        }
    }
}

/// RFC 9112 §9.6: to have said all is not to be gone.
#[test]
fn a_client_that_has_closed_its_side_gets_its_answers() {
    let service = patient_service(&[], |_| {});
    let login = json!({ "email": "nobody@example.com", "password": PASSWORD }).to_string();
    let head = "POST /auth/login HTTP/1.1\r\nHost: keyward\r\nContent-Type: application/json";
    let login = format!("{head}\r\nContent-Length: {}\r\n\r\n{login}", login.len());
    for (requests, statuses) in [
        (get("/health"), vec![200]),
        (login.clone(), vec![401]),
        (login.replace("HTTP/1.1", "HTTP/1.0"), vec![401]),
        (login.clone() + &get("/health") + &login, vec![401, 200, 401]),
        // Half of one is none.
        (get("/health") + "GET /", vec![200]),
        (refresh("Content-Length: 3", "{}"), vec![400]),
    ] {
        let mut wire = Wire::open(service.address());
        wire.send(&requests);
        wire.0.get_ref().shutdown(Shutdown::Write).unwrap();
        let mut heard = wire.rest();
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
        while heard.starts_with(interim) {
            assert!(requests.contains("HTTP/1.1"), "{requests:?}");
            heard.drain(..interim.len());
        }
        let heard: Vec<u16> = parsed(&heard).iter().map(|answer| answer.status).collect();
        assert_eq!(heard, statuses, "{requests:?}");
    }
}

#[test]
fn http_1_0_needs_no_host_and_keeps_a_connection_only_when_asked() {
    let service = patient_service(&[], |_| {});
    assert_eq!(statuses(service.address(), "GET /health HTTP/1.0\r\n\r\n"), [200]);
    assert_eq!(statuses(service.address(), "GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), [400]);
    let kept = "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let answers = answers(service.address(), kept.to_string() + kept + "GET /health HTTP/1.0\r\n\r\n" + kept);
    let connections: Vec<_> = answers.iter().map(|answer| (answer.status, answer.header("connection"))).collect();
    assert_eq!(connections, [(200, Some("keep-alive")), (200, Some("keep-alive")), (200, None)]);
}

#[test]
fn an_offer_to_upgrade_is_ignored_and_the_connection_stays_usable() {
    let service = patient_service(&[], |_| {});
    let mut wire = Wire::open(service.address());
    for offer in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ] {
        assert_eq!(wire.send(format!("GET /health HTTP/1.1\r\nHost: keyward\r\n{offer}\r\n\r\n")).answer().status, 200);
        let with_body = wire.send(refresh(&format!("{offer}\r\nContent-Length: 2"), "{}")).answer();
        assert_eq!(with_body.json(), broken_rules(EMPTY_REFRESH));
        assert_eq!(wire.send(get("/health")).answer().status, 200);
    }
}

// Which request goes where.

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let service = patient_service(&[], |_| {});
    // One connection: a body where none may be would be taken for the next answer.
    let client = Client::new(service.address(), |_, _, _| {});
    let ask = |method: &str, target: &str, encoding: &str| {
        let mut answer = client.method(method, target).header("accept-encoding", encoding).send();
        assert!(answer.headers.remove("x-request-id").is_some() && answer.headers.remove("date").is_some());
        answer
    };
    for (target, status) in [
        ("/health", 200),
        ("/api/docs", 200),
        ("/api/docs/openapi.json", 200),
        ("/api/docs/swagger-ui.css", 200),
        ("/keys", 401),
        ("/protected/flexible", 401),
    ] {
        for encoding in ["identity", "gzip"] {
            let (head, get) = (ask("HEAD", target, encoding), ask("GET", target, encoding));
            assert_eq!((head.status, head.headers), (status, get.headers), "{target}");
            assert_eq!(get.status, status, "{target}");
        }
    }
    // These name the method in their message: it is another one.
    for (target, status) in [("/nowhere", 404), ("/auth/login", 405)] {
        assert_eq!(ask("HEAD", target, "identity").status, status, "{target}");
    }
    assert_eq!(ask("GET", "/health", "identity").status, 200);
}

#[test]
fn a_wrong_method_is_a_405_that_names_the_right_ones() {
    let service = patient_service(&[], |_| {});
    let routes = || ROUTES.iter().filter(|route| route.method.is_some());
    let paths: BTreeSet<&str> = routes().map(|route| route.path).collect();
    for path in paths {
        let mut right: BTreeSet<&str> = routes().filter(|route| route.path == path).map(|route| route.verb()).collect();
        if right.contains("GET") {
            right.insert("HEAD");
        }
        right.insert("OPTIONS");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY"] {
            if !right.contains(method) {
                let answer = service.method(method, &path.replace(':', "")).send();
                assert_eq!(answer.status, 405, "{method} {path}");
                let allow: BTreeSet<&str> = answer.header("allow").unwrap().split(", ").collect();
                assert_eq!(allow, right, "{method} {path}");
                assert!(method == "HEAD" || answer.json()["error"] == "Method Not Allowed", "{answer:?}");
            }
        }
    }
}

/// RFC 9110 §9.3.7. It needs no credential, and a path with a limit does not spend it.
#[test]
fn options_says_what_a_path_takes() {
    let service = patient_service(&[("RATE_LIMIT_LOGIN", "1/1h")], |_| {});
    // One connection: a body where none may be would be taken for the next answer.
    let client = Client::new(service.address(), openapi::check);
    for (target, allow) in [
        ("/health", "GET, HEAD, OPTIONS"),
        ("/health/?a=b", "GET, HEAD, OPTIONS"),
        ("/auth/login", "POST, OPTIONS"),
        ("/auth/me", "GET, HEAD, DELETE, OPTIONS"),
        ("/keys", "GET, HEAD, OPTIONS"),
        ("/keys/x", "PATCH, DELETE, OPTIONS"),
        ("/api/docs/docs.js", "GET, HEAD, OPTIONS"),
        ("/protected/flexible", "GET, HEAD, OPTIONS"),
        ("*", "POST, GET, HEAD, DELETE, PATCH, OPTIONS"),
    ] {
        let answer = client.method("OPTIONS", target).send();
        assert_eq!((answer.status, answer.header("allow")), (204, Some(allow)), "{target}");
        for absent in ["content-length", "content-type", "transfer-encoding", "vary", "access-control-allow-origin"] {
            assert_eq!(answer.header(absent), None, "{target}: {answer:?}");
        }
        assert!(answer.header("x-request-id").is_some() && answer.header("cache-control") == Some("no-store"));
    }
    // A gateway asks by whatever method it was asked itself.
    for target in ["/authz/forward-auth", "/authz/auth-request", "/authz/ext-authz/a"] {
        assert_eq!(client.method("OPTIONS", target).send().status, 401, "{target}");
    }
    for target in ["/nowhere", "/", "/keys/a/b"] {
        let answer = client.method("OPTIONS", target).send();
        assert_eq!((answer.status, answer.json()), (404, error(404, &format!("Cannot OPTIONS {target}"))));
    }
    assert_eq!(client.post("/auth/login").json(json!({})).send().status, 400);
    assert_eq!(client.post("/auth/login").json(json!({})).send().status, 429);
}

#[test]
fn an_unknown_path_is_a_404_that_does_not_repeat_the_query() {
    let service = patient_service(&[], |_| {});
    for (method, target, message) in [
        ("GET", "/nowhere", "Cannot GET /nowhere"),
        ("GET", "/nowhere?token=secret", "Cannot GET /nowhere"),
        ("POST", "/nowhere/?token=secret", "Cannot POST /nowhere/"),
        ("DELETE", "/keys/a/b", "Cannot DELETE /keys/a/b"),
        ("GET", "/", "Cannot GET /"),
        ("GET", "//", "Cannot GET //"),
        ("GET", "//health", "Cannot GET //health"),
        ("GET", "/health/..", "Cannot GET /health/.."),
        ("GET", "/api/docs/../../health", "Cannot GET /api/docs/../../health"),
        ("GET", "/api/docs/..%2f..%2fetc%2fpasswd", "Cannot GET /api/docs/..%2f..%2fetc%2fpasswd"),
        ("QUERY", "/nowhere", "Cannot QUERY /nowhere"),
    ] {
        let answer = service.method(method, target).send();
        assert_eq!((answer.status, answer.json()), (404, error(404, message)), "{target}");
    }
}

#[test]
fn one_trailing_slash_is_accepted_and_two_are_not() {
    let service = patient_service(&[], |_| {});
    let client = Client::new(service.address(), |_, _, _| {});
    for (method, path, status) in [
        ("GET", "/health", 200),
        ("GET", "/api/docs", 200),
        ("GET", "/api/docs/docs.js", 200),
        ("GET", "/protected/user-only", 401),
        ("POST", "/auth/refresh", 400),
        ("DELETE", "/keys/x", 401),
        ("PUT", "/health", 405),
    ] {
        for (suffix, status) in [("", status), ("/", status), ("/?a=b", status), ("//", 404), ("//?a=b", 404)] {
            let answer = client.method(method, &format!("{path}{suffix}")).send();
            assert_eq!(answer.status, status, "{method} {path}{suffix}");
        }
    }
}

#[test]
fn targets_in_other_forms_are_answered_and_the_server_goes_on() {
    let service = patient_service(&[], |_| {});
    let mut wire = Wire::open(service.address());
    for (line, status) in [
        // RFC 9112 §3.2.2: a server must take the form that is meant for proxies.
        ("GET http://keyward/health HTTP/1.1", 200),
        ("GET http://elsewhere:8080/health/?a=b HTTP/1.1", 200),
        ("GET http://keyward HTTP/1.1", 404),
        ("GET /%00 HTTP/1.1", 404),
        ("GET * HTTP/1.1", 404),
        ("OPTIONS * HTTP/1.1", 204),
        ("OPTIONS http://keyward/health HTTP/1.1", 204),
    ] {
        assert_eq!(wire.send(format!("{line}\r\nHost: keyward\r\n\r\n")).answer().status, status, "{line}");
        assert_eq!(wire.send(get("/health")).answer().status, 200, "after {line}");
    }
    // What follows is meant for the other end of a tunnel.
    let tunnel =
        answers(service.address(), format!("CONNECT keyward:443 HTTP/1.1\r\nHost: keyward\r\n\r\n{}", smuggled()));
    let [answer] = tunnel.as_slice() else { panic!("one answer, not {tunnel:?}") };
    assert_eq!((answer.json(), answer.header("connection")), (error(501, "Cannot CONNECT"), Some("close")));
    for target in ["health", "http://", "\\health", "/a\"b", "/\u{e4}", "?", "[::1]:80", ":0", "@", "%"] {
        let answers = answers(service.address(), get(target).replace("Host", "Connection: close\r\nHost"));
        let [answer] = answers.as_slice() else { panic!("one answer, not {answers:?}: {target}") };
        assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
    }
    assert_eq!(wire.send(get("/health")).answer().status, 200);
}

/// RFC 9112 §3.2: a target has no fragment; RFC 9110 §4.2.4: no user; §7.4: what is not http is none of ours.
#[test]
fn targets_that_name_a_fragment_a_user_or_another_scheme_are_refused() {
    let service = patient_service(&[], |_| {});
    let refused = |request: String, message: &str| {
        let answers = answers(service.address(), request.clone() + &smuggled());
        let [answer] = answers.as_slice() else { panic!("one answer, not {answers:?}: {request:?}") };
        assert_eq!((answer.status, answer.json()), (400, error(400, message)), "{request:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{request:?}");
    };
    for target in ["/health#fragment", "/health#", "/health?a#b", "http://keyward/health#a", "/#/health"] {
        refused(get(target), "Target has a fragment");
        // However it arrives.
        let mut wire = Wire::open(service.address());
        let request = get(target);
        for byte in request.as_bytes().chunks(1) {
            wire.send(byte);
        }
        assert_eq!(wire.answer().json(), error(400, "Target has a fragment"), "{target}");
        let mut kept = Wire::open(service.address());
        assert_eq!(kept.send(get("/health")).answer().status, 200);
        assert_eq!(kept.send(request).answer().json(), error(400, "Target has a fragment"), "{target}");
    }
    for target in ["http://ann@keyward/health", "http://ann:secret@keyward/health", "http://@keyward/health"] {
        refused(get(target), "Target names a user");
    }
    for target in ["ftp://keyward/health", "file://keyward/health", "ws://keyward/health"] {
        refused(get(target), "Target is not http");
    }
    // Elsewhere it means nothing.
    let fields = get("/health").replace("\r\n\r\n", "\r\nReferer: http://a/#b HTTP/1.1\r\n\r\n");
    let with_hash = refresh("Content-Length: 4", "#{} ");
    assert_eq!(statuses(service.address(), fields.repeat(2) + &with_hash + &smuggled()), [200, 200, 400, 200]);
}

/// RFC 9110 §7.2, RFC 9112 §3.2: a name is a name, and one of them.
#[test]
fn a_host_without_a_name_or_with_several_is_refused() {
    let service = patient_service(&[], |_| {});
    for host in [":80", ":", "a,b", "a,b:80"] {
        let request = format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(statuses(service.address(), request + &smuggled()), [400], "{host:?}");
        let target = format!("GET http://{host}/health HTTP/1.1\r\nHost: keyward\r\n\r\n");
        assert_eq!(statuses(service.address(), target + &smuggled()), [400], "{host:?}");
    }
    for host in ["", "a", "a:", "a:80", "[::1]", "[::1]:80", "a_b", "xn--a", "127.0.0.1:3000", "a."] {
        let request = format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(statuses(service.address(), request + &smuggled()), [200, 200], "{host:?}");
    }
}

/// RFC 9110 §15.6.6.
#[test]
fn a_version_that_is_not_spoken_is_a_505() {
    let service = patient_service(&[], |_| {});
    for version in ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/1.2"] {
        let answers = answers(service.address(), get("/health").replace("HTTP/1.1", version) + &smuggled());
        let [answer] = answers.as_slice() else { panic!("one answer, not {answers:?}: {version}") };
        assert_eq!((answer.status, answer.json()), (505, error(505, "HTTP/1.1 is spoken here")), "{version}");
    }
    for version in ["HTTP/1", "HTTP/2", "http/1.1", "HTTP/11.0", "HTTP/1.1x", "HTTQ/1.1"] {
        let request = get("/health").replace("HTTP/1.1", version);
        assert_eq!(statuses(service.address(), request + &smuggled()), [400], "{version}");
    }
}

/// RFC 9110 §15.5.16. Unread, it would be taken for what it is not.
#[test]
fn a_body_in_a_coding_or_a_charset_that_is_not_read_is_a_415() {
    let service = patient_service(&[], |_| {});
    let ask = |fields: &[(&str, &str)]| {
        let request = service.post("/auth/refresh").body("application/json", "{}");
        fields.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
    };
    for coding in ["gzip", "x-gzip", "br", "identity, gzip", "deflate", "aes128gcm"] {
        let answer = ask(&[("content-encoding", coding)]);
        let message = "Content-Encoding must be identity";
        assert_eq!((answer.status, answer.json()), (415, error(415, message)), "{coding}");
        // RFC 7694 §3.
        assert_eq!(answer.header("accept-encoding"), Some("identity"), "{coding}");
    }
    for coding in ["identity", "Identity", "", "identity, identity"] {
        assert_eq!(ask(&[("content-encoding", coding)]).json(), broken_rules(EMPTY_REFRESH), "{coding}");
    }
    assert_eq!(ask(&[("content-encoding", "identity"), ("content-encoding", "gzip")]).status, 415);
    let in_charset = |content_type: &str| service.post("/auth/refresh").body(content_type, "{}").send();
    for charset in ["iso-8859-1", "utf-16", "\"windows-1252\"", "", "utf-8x"] {
        let answer = in_charset(&format!("application/json;a=b; charset={charset}"));
        let message = "Charset must be utf-8";
        assert_eq!((answer.status, answer.json()), (415, error(415, message)), "{charset}");
    }
    for charset in ["utf-8", "UTF-8", "\"utf-8\"", "us-ascii"] {
        let answer = in_charset(&format!("application/json; Charset={charset}"));
        assert_eq!(answer.json(), broken_rules(EMPTY_REFRESH), "{charset}");
    }
    // A wrong type stays what it is.
    let answer = in_charset("text/plain; charset=iso-8859-1");
    assert_eq!((answer.status, answer.json()), (400, error(400, "Content-Type must be application/json")));
}

/// What costs 15 KiB is not answered with 60.
#[test]
fn at_most_ten_broken_rules_are_told_and_how_many_more() {
    let service = patient_service(&[], |_| {});
    let unknown = |count: usize| {
        let fields: serde_json::Map<_, _> = (100..100 + count).map(|number| (format!("x{number}"), json!(1))).collect();
        let answer = service.post("/auth/refresh").json(json!(fields)).send();
        assert_eq!(answer.status, 400);
        answer.json()["message"].as_array().unwrap().clone()
    };
    // One more is about what is lacking.
    let told = unknown(99);
    assert_eq!(
        (told.len(), &told[0], &told[9]),
        (11, &json!("property x100 should not exist"), &json!("property x109 should not exist"))
    );
    assert_eq!(told[10], "and 90 more");
    assert_eq!((unknown(10)[10].clone(), unknown(9).len()), (json!("and 1 more"), 10));
    // Nor is a long name.
    let name = "\u{1}".repeat(2000);
    let answer = service.post("/auth/refresh").json(json!({ name: 1 })).send();
    assert!(answer.status == 400 && answer.body.len() < KIB, "{}", answer.body.len());
}

// What every answer carries.

#[test]
fn a_sane_request_id_is_taken_over_and_any_other_replaced() {
    let service = patient_service(&[], |_| {});
    let longest = "x".repeat(64);
    for id in ["a", "0", "Az09._-", "3f2c9d7e-8a51-4a55-9d0c-0d6c3f1f9b1e", "..", &longest] {
        let answer = service.get("/health").header("x-request-id", id).send();
        assert_eq!(answer.header("x-request-id"), Some(id));
    }
    let too_long = "x".repeat(65);
    let mut made = BTreeSet::new();
    let replaced = ["", "a b", "a,b", "a/b", "a:b", "a\tb", "<script>", "a\"b", "ä", "%20", &too_long];
    for id in replaced {
        let answer = service.get("/health").header("x-request-id", id).send();
        let own = answer.header("x-request-id").unwrap();
        assert!(own != id && (8..=64).contains(&own.len()), "{id:?} → {own:?}");
        assert!(own.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{own:?}");
        made.insert(own.to_string());
    }
    made.insert(service.get("/health").send().header("x-request-id").unwrap().to_string());
    assert_eq!(made.len(), replaced.len() + 1, "an id was given twice");
}

#[test]
fn every_answer_has_an_id_and_forbids_sniffing_and_storing() {
    let service = patient_service(&[], |limits| limits.body = SHORT);
    let ann = service.sign_up("ann@example.com");
    let credentials = json!({ "email": "ann@example.com", "password": PASSWORD });
    let mut answers = vec![
        service.get("/health").send(),
        service.post("/auth/login").json(credentials.clone()).send(),
        service.post("/auth/signup").json(credentials).send(),
        service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send(),
        service.post("/keys/create").bearer(&ann.access).json(json!({ "name": "ci" })).send(),
        service.post("/keys/create").bearer(&ann.access).json(json!({})).send(),
        service.post("/keys/create").bearer(&ann.access).body("application/json", vec![b' '; 20_000]).send(),
        service.post("/keys/create").bearer(&ann.access).header("content-length", "1").send(),
        service.get("/keys").bearer(&ann.access).send(),
        service.get("/protected/user-only").bearer(&ann.access).send(),
        service.get("/protected/user-only").send(),
        service.method("HEAD", "/protected/user-only").bearer(&ann.access).send(),
        service.delete("/keys/x").bearer(&ann.access).send(),
        service.method("PUT", "/keys").send(),
        service.get("/nowhere").send(),
        service.get("/api/docs/nothing.js").send(),
        service.post("/auth/logout").bearer(&ann.access).send(),
    ];
    answers.push(Wire::open(service.address()).send("GET /health HTTP/1.1\r\n\r\n").answer());
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 409, 200, 201, 400, 413, 408, 200, 200, 401, 200, 404, 405, 404, 404, 200, 400]);
    for answer in answers {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        assert!(answer.header("x-request-id").is_some(), "{answer:?}");
    }
}

/// hyper says nothing but the status of these.
#[test]
fn heads_that_cannot_be_taken_are_answered_like_everything_else() {
    let service = patient_service(&[], |_| {});
    let too_large = "Request head has more than 16384 bytes or 100 fields";
    let fields =
        |count: usize| get("/health").replace("\r\n\r\n", &format!("\r\n{}\r\n", "X-A: b\r\n".repeat(count - 1)));
    assert_eq!(statuses(service.address(), fields(100) + &smuggled()), [200, 200]);
    let mut ids = BTreeSet::new();
    for (head, status, message) in [
        (fields(101), 431, too_large),
        (get(&format!("/{}", "x".repeat(17 * KIB))), 431, too_large),
        ("GET /health HTTP/1.1\r\nno field\r\n\r\n".to_string(), 400, "Request head is malformed"),
        ("GET /health\r\n\r\n".to_string(), 400, "Request head is malformed"),
        ("nonsense\r\n\r\n".to_string(), 400, "Request head is malformed"),
        (get("/health").replace("1.1", "3.0"), 505, "HTTP/1.1 is spoken here"),
    ] {
        // Alone, on a kept connection, and behind another request.
        let mut kept = Wire::open(service.address());
        assert_eq!(kept.send(get("/health")).answer().status, 200);
        let mut behind = Wire::open(service.address());
        let is_version = status == 505;
        behind.send(get("/health") + if is_version { "" } else { &head });
        assert_eq!(behind.answer().status, 200);
        if is_version {
            behind.send(&head);
        }
        for mut wire in [Wire::open(service.address()), kept, behind] {
            // The last has it already.
            let _ = wire.try_send(&head);
            let answer = wire.answer();
            assert_eq!((answer.status, answer.json()), (status, error(status, message)));
            for (name, value) in [
                ("connection", "close"),
                ("cache-control", "no-store"),
                ("x-content-type-options", "nosniff"),
                ("content-type", "application/json; charset=utf-8"),
            ] {
                assert_eq!(answer.header(name), Some(value), "{answer:?}");
            }
            assert!(answer.header("date").is_some(), "{answer:?}");
            assert!(ids.insert(answer.header("x-request-id").unwrap().to_string()), "{answer:?}");
        }
    }
}

#[test]
fn the_documentation_page_runs_nothing_but_its_own_files() {
    let service = patient_service(&[], |_| {});
    let page = service.get("/api/docs").send();
    let policy = page.header("content-security-policy").unwrap();
    let directives: BTreeSet<&str> = policy.split(';').map(str::trim).collect();
    for directive in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(directives.contains(directive), "{directive} is missing in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    // What the policy forbids would not work: no script and no style is in the page itself.
    let html = page.text();
    assert!(html.contains("<script src=") && !html.contains("<script>") && !html.contains("<style"), "{html}");
    for file in ["docs.js", "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"] {
        assert_eq!(service.get(&format!("/api/docs/{file}")).send().header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn the_credential_is_judged_before_the_body() {
    let service = patient_service(&[], |_| {});
    let ann = service.sign_up("ann@example.com");
    assert_eq!(service.post("/auth/logout").bearer(&ann.access).send().status, 200);
    let ended = format!("Authorization: Bearer {}", ann.access);
    let guarded: Vec<(&str, &str)> = ROUTES
        .iter()
        .filter(|route| route.guard != Guard::Public && route.takes_body())
        .map(|route| (route.verb(), route.path))
        .filter(|(_, path)| !path.contains(':'))
        .collect();
    assert!(guarded.contains(&("POST", "/keys/create")) && guarded.contains(&("DELETE", "/auth/me")));
    for (method, path) in guarded {
        for credential in ["X-No: credential", "Authorization: Basic YTpi", "Authorization: Bearer bad", &ended] {
            for framed in [
                "Content-Length: 1\r\n\r\n{".to_string(),
                format!("{CHUNKED}\r\n\r\nnonsense"),
                format!("Content-Length: 20000\r\n\r\n{}", " ".repeat(20_000)),
                format!("{CHUNKED}\r\n\r\n{}", chunked(&" ".repeat(20_000))),
                // Nobody waits for a body that is held back.
                "Content-Length: 100\r\n\r\n".to_string(),
                "Content-Length: 20000\r\n\r\n".to_string(),
                format!("{CHUNKED}\r\n\r\n"),
            ] {
                let head = format!("{method} {path} HTTP/1.1\r\nHost: keyward\r\n{credential}\r\n{framed}");
                let answer = Wire::open(service.address()).send(&head).answer();
                openapi::check(method, path, &answer);
                let shown = &head[..head.len().min(200)];
                let is_key = path == "/oauth/introspect" && credential.contains("Basic");
                let message = if is_key { "Invalid or expired API key" } else { "Unauthorized" };
                assert_eq!((answer.status, answer.json()), (401, error(401, message)), "{shown}");
            }
        }
    }
}

// Stopping.

#[test]
fn a_server_that_stops_answers_what_is_under_way_and_takes_nothing_new() {
    let mut service = patient_service(&[], |limits| limits.stopping = PATIENCE);
    let address = service.address();
    let mut kept = Wire::open(service.address());
    assert_eq!(kept.send(get("/health")).answer().status, 200);
    let mut under_way = Wire::open(service.address());
    let body = json!({ "email": "ann@example.com", "password": PASSWORD }).to_string();
    let head = "POST /auth/signup HTTP/1.1\r\nHost: keyward\r\nContent-Type: application/json\r\nExpect: 100-continue";
    under_way.send(format!("{head}\r\nContent-Length: {}\r\n\r\n", body.len())).hears_100_continue();
    thread::scope(|scope| {
        let client = scope.spawn(move || {
            // The server is stopping when nobody is let in any more.
            let deadline = Instant::now() + PATIENCE;
            while TcpStream::connect(address).is_ok() {
                assert!(Instant::now() < deadline, "a server that stops still listens");
            }
            assert_eq!(kept.rest(), b"", "a kept connection is not closed");
            let answer = under_way.send(body).answer();
            assert_eq!((answer.status, answer.header("connection")), (201, Some("close")), "{answer:?}");
            assert_eq!(under_way.rest(), b"");
        });
        service.stop();
        client.join().unwrap();
    });
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_server_that_nobody_uses_stops_at_once() {
    let stop = || {
        let mut service = patient_service(&[], |limits| limits.stopping = PATIENCE);
        let mut kept = [(); 8].map(|()| Wire::open(service.address()));
        for wire in &mut kept {
            assert_eq!(wire.send(get("/health")).answer().status, 200);
        }
        let mut silent = Wire::open(service.address());
        let started = Instant::now();
        service.stop();
        let took = started.elapsed();
        for wire in kept.iter_mut().chain([&mut silent]) {
            assert_eq!(wire.rest(), b"");
        }
        took
    };
    // Less than anyone is waited for who was answered and does not close; the disk may hold up one of three.
    assert!((0..3).filter(|_| stop() < LINGER).count() >= 2);
}
