//! Many clients at once: connections, addresses, and more work than can be done.

use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use keyward::base::pool::cores;
use keyward::run::Keyward;
use keyward_harness::http_client::{Client, PATIENCE, read_answer};
use keyward_harness::openapi;
use keyward_harness::service::{PASSWORD, error};
use keyward_harness::wire::{Wire, get, refresh};
use serde_json::json;

use super::{SHORT, SLACK, patient_service};

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
    // Those who asked later are still there, and so is the one that is busy.
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
                    let client = Client::unobserved(address);
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
        // A refusal does not close the connection.
        assert_eq!(wire.send(get("/health")).answer().status, 200);
    }
    let took = started.elapsed();
    assert!(took < limit + SLACK, "{took:?}");
    assert!(refused > 0);
    drop(storm);
    stormy.stop();
}
