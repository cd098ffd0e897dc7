//! Ten thousand requests that are sent at once.

use std::io::Write;
use std::thread;
use std::time::Duration;

use keyward_harness::http_client::connect;
use keyward_harness::wire::Wire;

use crate::target::attack;

const REQUESTS: usize = 10_000;

/// Each with its number; every second one is verified.
fn requests(key: &str) -> Vec<u8> {
    let mut requests = Vec::new();
    for number in 0..REQUESTS {
        let target = if number % 2 == 0 { "/health" } else { "/protected/service-only" };
        write!(requests, "GET {target} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\nX-Request-Id: {number}\r\n\r\n")
            .unwrap();
    }
    requests
}

#[test]
fn ten_thousand_pipelined_requests_are_answered_in_order() {
    attack(|server| {
        let mut wire = Wire::open(server.address);
        let mut sender = wire.0.get_ref().try_clone().unwrap();
        let requests = requests(&server.key);
        thread::scope(|scope| {
            scope.spawn(move || sender.write_all(&requests).unwrap());
            for number in 0..REQUESTS {
                let answer = wire.answer();
                assert_eq!((answer.status, answer.header("x-request-id")), (200, Some(number.to_string().as_str())));
            }
        });
    });
}

#[test]
fn ten_thousand_pipelined_requests_of_clients_that_do_not_read_or_go_away_hold_up_nobody() {
    attack(|server| {
        let requests = requests(&server.key);
        // Every second one goes away with its answers on their way, the others stay.
        let mut waiting = Vec::new();
        for number in 0..20 {
            let mut stream = connect(server.address).unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
            let _ = stream.write_all(&requests);
            if number % 2 == 0 {
                waiting.push(stream);
            }
        }
        server.is_served();
        drop(waiting);
    });
}
