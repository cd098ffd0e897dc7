//! What is under way when the server stops.

use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use keyward_harness::http_client::PATIENCE;
use keyward_harness::service::PASSWORD;
use keyward_harness::wire::{Wire, get};
use serde_json::json;

use super::{LINGER, patient_service};

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
