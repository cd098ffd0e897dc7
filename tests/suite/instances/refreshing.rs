//! Refreshing at several instances.

use std::time::Duration;

use keyward::base::clock::Clock;
use keyward_harness::forge::claims;
use keyward_harness::http_client::{Answer, Client};
use keyward_harness::postgres_cluster::available;
use keyward_harness::service::{Backend, on_both_stores, soon};
use serde_json::json;

use super::{Instance, start};

fn refresh(client: &Client, token: &str) -> Answer {
    client.post("/auth/refresh").json(json!({ "refreshToken": token })).send()
}

/// The access token and the refresh token of an answer.
#[track_caller]
fn pair(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let token = |name: &str| body[name].as_str().unwrap().to_string();
    (token("accessToken"), token("refreshToken"))
}

#[test]
fn clocks_that_are_apart_end_no_honest_session() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let ann = service.sign_up("ann@example.com");
    let ahead = Clock::default();
    ahead.advance(Duration::from_secs(15));
    let instances = [Instance::start(service.config(), &Clock::default()), Instance::start(service.config(), &ahead)];
    let [one, other] = [instances[0].client(), instances[1].client()];
    let mut token = ann.refresh;
    for (here, there) in [(&one, &other), (&other, &one), (&one, &one), (&other, &other)] {
        let (_, moved) = pair(&refresh(here, &token));
        // The other tab, a moment later, at the other instance.
        let (access, again) = pair(&refresh(there, &token));
        assert_eq!((&claims(&again)["gen"], &claims(&access)["gen"]), (&claims(&moved)["gen"], &claims(&moved)["gen"]));
        token = again;
    }
    // Nor was anybody taken for one whose answer was lost.
    let (access, _) = pair(&refresh(&one, &token));
    let events = one.get("/auth/events").bearer(&access).send().json();
    let kinds: Vec<&str> = events.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["user.signed_up"]);
}

on_both_stores! {
    fn what_a_retry_or_a_theft_ends_is_refused_at_once_here_and_on_another_instance(service) {
        let ann = service.sign_up("ann@example.com");
        let second = Instance::beside(service);
        let (here, there) = (service.client(), second.client());
        let status = |client: &Client, access: &str| client.get("/protected/user-only").bearer(access).send().status;
        let is_good = |access: &str| assert_eq!((status(&here, access), status(&there, access)), (200, 200));
        // On the other one sooner than it would forget by itself.
        let is_ended = |access: &str| {
            assert_eq!(status(&here, access), 401);
            soon("it is refused there", || status(&there, access) == 401);
        };
        let (lost_access, lost) = pair(&refresh(&here, &ann.refresh));
        is_good(&lost_access);
        service.advance(11);
        let (access, token) = pair(&refresh(&here, &ann.refresh));
        is_ended(&lost_access);
        is_good(&access);
        is_good(&ann.access);
        service.advance(11);
        let (latest, _) = pair(&refresh(&here, &token));
        for access in [&access, &latest, &ann.access] {
            is_good(access);
        }
        assert_eq!(refresh(&here, &lost).status, 401);
        // The one that was just used as well.
        for access in [&latest, &access, &ann.access] {
            is_ended(access);
        }
    }
}
