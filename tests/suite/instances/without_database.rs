//! An instance whose database is away.

use std::thread;
use std::time::Instant;

use keyward_harness::http_client::Client;
use keyward_harness::postgres_cluster::available;
use keyward_harness::relay::Relay;
use keyward_harness::service::{Backend, SOON};

use super::{Credential, Instance, MAX_AGE, database_address, start, unknown_key, until};

#[test]
fn without_its_database_an_instance_honours_what_it_knows_for_five_seconds_then_answers_503_never_401() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let relay = Relay::to(database_address(&service));
    let second = Instance::behind(&relay, &service, |_| {});
    let ann = service.sign_up("ann@example.com");
    let credentials = [Credential::key(&service, &ann), Credential::Token(ann.access.clone())];
    let known = Instant::now();
    for credential in &credentials {
        assert_eq!(credential.status(&second.client()), 200);
    }
    relay.cut();
    let cut = Instant::now();
    thread::scope(|scope| {
        for credential in &credentials {
            let client = second.client();
            scope.spawn(move || {
                until("the store is missed", || {
                    let asked = Instant::now();
                    match credential.status(&client) {
                        200 => assert!(asked - cut < MAX_AGE, "{credential:?} honoured after {:?}", asked - cut),
                        status => {
                            assert_eq!(status, 503);
                            assert!(asked - known > SOON, "{credential:?} forgotten after {:?}", asked - known);
                            return true;
                        }
                    }
                    false
                });
                assert_eq!(credential.status(&client), 503);
            });
        }
        let client = Client::new(second.address, keyward_harness::openapi::check);
        scope.spawn(move || {
            let answer = client.get("/protected/service-only").api_key(&unknown_key(1)).send();
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            // What the request alone tells is told without a store.
            assert_eq!(client.get("/protected/service-only").api_key("sk_").send().status, 401);
            assert_eq!(client.get("/protected/user-only").bearer("no.such.token").send().status, 401);
            assert_eq!(client.get("/health").send().status, 200);
        });
    });
    relay.restore();
    for credential in &credentials {
        until("it is accepted again", || match credential.status(&second.client()) {
            503 => false,
            status => {
                assert_eq!(status, 200);
                true
            }
        });
    }
}
