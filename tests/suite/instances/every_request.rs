//! What is judged at every request, whatever is remembered.

use std::io::{BufRead, BufReader, Write};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use keyward_harness::http_client::{Client, connect, read_answer};
use keyward_harness::service::{Account, Service, on_both_stores};
use serde_json::json;

use super::{Credential, Finally};

/// Verifiers whose first questions race with the end of the credential: those who ask after its answer are refused.
fn race(service: &Service, credential: &Credential, owner: &Account) {
    const VERIFIERS: usize = 3;
    let address = service.address();
    let start = Barrier::new(VERIFIERS + 1);
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..VERIFIERS {
            scope.spawn(|| {
                let client = Client::unobserved(address);
                start.wait();
                let mut refusals = 0;
                for question in 0.. {
                    if refusals == 3 {
                        return;
                    }
                    // The first race. After it, the processor is left to the thread that ends the credential.
                    if question >= 10 {
                        thread::sleep(Duration::from_millis(1));
                    }
                    let asked_after = has_ended.load(Ordering::SeqCst);
                    let Some(status) = credential.verdict(&client) else { continue };
                    assert!(status == 401 || (status == 200 && !asked_after), "{status} after the end: {asked_after}");
                    refusals += usize::from(asked_after);
                }
            });
        }
        let client = Client::unobserved(address);
        // Also when it cannot be ended: the verifiers go on until then.
        let _over = Finally(|| has_ended.store(true, Ordering::SeqCst));
        start.wait();
        credential.end(&client, owner);
    });
}

on_both_stores! {
    fn a_credential_asked_for_while_it_ends_is_refused_after_the_answer(service) {
        service.set("RATE_LIMIT_FAILED_KEYS", "off");
        service.restart();
        let ann = service.sign_up("ann@example.com");
        for round in 0..100 {
            race(service, &Credential::key(service, &ann), &ann);
            if round % 25 == 0 {
                race(service, &Credential::Token(service.log_in(&ann.email).access), &ann);
            }
        }
    }

    fn expiry_is_judged_at_every_use_of_what_is_remembered(service) {
        let ann = service.sign_up("ann@example.com");
        let in_a_minute = service.clock.now().plus(Duration::from_secs(60)).to_string();
        let made = service.create_key(&ann.access, json!({ "name": "key", "expiresAt": in_a_minute }));
        let key = made["key"].as_str().unwrap();
        assert_eq!((service.key_status(key), service.token_status(&ann.access)), (200, 200));
        service.advance(59);
        assert_eq!(service.key_status(key), 200);
        service.advance(1);
        assert_eq!((service.key_status(key), service.token_status(&ann.access)), (401, 200));
        // The access token's hour, then the session's week.
        service.advance(60 * 60);
        assert_eq!(service.token_status(&ann.access), 401);
    }

    fn a_request_whose_body_comes_after_the_end_of_who_asks_is_refused(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let key = format!("x-api-key: {}", made["key"].as_str().unwrap());
        let token = format!("authorization: Bearer {}", ann.access);
        // The user's session first, then the owner of the key.
        assert_eq!(status_of_late_body(service, "/keys/create", &token, &json!({ "name": "late" }), || {
            Credential::Token(ann.access.clone()).end(&service.client(), &ann);
        }), 401);
        let body = json!({ "expiresIn": "1m" });
        assert_eq!(status_of_late_body(service, "/auth/token", &key, &body, || ()), 200);
        assert_eq!(status_of_late_body(service, "/auth/token", &key, &body, || {
            service.operator(&["user", "deactivate", &ann.email]);
        }), 401);
    }
}

/// Sends the body of a request when the server has asked for it, which it does when it knows who asks, and something else
/// has been done.
fn status_of_late_body(
    service: &Service,
    target: &str,
    credential: &str,
    body: &serde_json::Value,
    meanwhile: impl FnOnce(),
) -> u16 {
    let body = body.to_string();
    let mut stream = connect(service.address()).unwrap();
    write!(
        stream,
        "POST {target} HTTP/1.1\r\nhost: a\r\n{credential}\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 100 "), "{line}");
    reader.read_line(&mut line).unwrap();
    meanwhile();
    stream.write_all(body.as_bytes()).unwrap();
    read_answer(&mut reader, false).unwrap().status
}
