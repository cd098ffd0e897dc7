//! Refreshing: rotation, the grace after it, and theft.

use std::sync::Barrier;

use keyward::accounts::refresh::rotation::{Move, Rotation};
use keyward_harness::forge::claims;
use keyward_harness::http_client::Answer;
use keyward_harness::service::{Backend, Service, error, on_both_stores};
use proptest::collection::vec;
use proptest::prop_oneof;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

fn refresh(service: &Service, token: &str) -> Answer {
    service.post("/auth/refresh").json(json!({ "refreshToken": token })).send()
}

#[track_caller]
fn refreshed(service: &Service, token: &str) -> (String, String) {
    let answer = refresh(service, token);
    assert_eq!(answer.status, 200, "{answer:?}");
    pair(&answer)
}

fn pair(answer: &Answer) -> (String, String) {
    let body = answer.json();
    let token = |name: &str| body[name].as_str().unwrap().to_string();
    (token("accessToken"), token("refreshToken"))
}

#[track_caller]
fn assert_refused(answer: &Answer) {
    assert_eq!((answer.status, answer.json()), (401, error(401, "Unauthorized")));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
}

/// The account's events of a type, newest first.
fn of_type(service: &Service, access: &str, kind: &str) -> Vec<Value> {
    let events = service.get("/auth/events").bearer(access).send().json();
    events.as_array().unwrap().iter().filter(|event| event["type"] == kind).cloned().collect()
}

on_both_stores! {
    fn a_refresh_gives_a_new_pair_of_the_same_session(service) {
        let ann = service.sign_up("ann@example.com");
        let (access, refresh) = refreshed(service, &ann.refresh);
        assert_eq!(claims(&access)["sid"], claims(&ann.access)["sid"]);
        assert_eq!((&claims(&ann.refresh)["gen"], &claims(&refresh)["gen"]), (&json!(1), &json!(2)));
        assert_eq!((service.token_status(&access), service.token_status(&ann.access)), (200, 200));
        let (_, third) = refreshed(service, &refresh);
        assert_eq!(claims(&third)["gen"], 3);
    }

    fn one_generation_behind_is_honoured_for_ten_seconds(service) {
        let ann = service.sign_up("ann@example.com");
        refreshed(service, &ann.refresh);
        service.advance(10);
        let (access, refresh) = refreshed(service, &ann.refresh);
        assert_eq!(claims(&refresh)["gen"], 2);
        assert_eq!(service.token_status(&access), 200);
        assert_eq!(claims(&refreshed(service, &refresh).1)["gen"], 3);
    }

    fn a_lost_answer_costs_no_session_and_what_it_said_is_worth_nothing(service) {
        let ann = service.sign_up("ann@example.com");
        // Twice: the client has heard nothing.
        let (first_access, first) = refreshed(service, &ann.refresh);
        assert_eq!(service.token_status(&first_access), 200);
        service.advance(11);
        let (second_access, second) = refreshed(service, &ann.refresh);
        assert_eq!((service.token_status(&first_access), service.token_status(&second_access)), (401, 200));
        assert_eq!(service.token_status(&ann.access), 200);
        service.advance(3000);
        let (access, third) = refreshed(service, &ann.refresh);
        assert_eq!(claims(&third)["gen"], 4);
        assert_eq!((service.token_status(&second_access), service.token_status(&access)), (401, 200));
        let events: Vec<Value> = of_type(service, &access, "session.retried");
        assert_eq!(events.len(), 2);
        assert_eq!(events[0]["subject"], json!({ "type": "session", "id": claims(&access)["sid"] }));
        assert_eq!(events[0]["actor"], json!({ "type": "anonymous" }));
        // It goes on as if nothing had been.
        service.advance(60);
        let (access, _) = refreshed(service, &third);
        assert_eq!((service.token_status(&access), service.token_status(&first_access)), (200, 401));
        // The one who has the pair that was given first is not the client.
        assert_refused(&refresh(service, &first));
        assert_eq!((service.token_status(&access), refresh(service, &second).status), (401, 401));
    }

    fn a_thief_and_the_client_are_both_out_when_the_one_who_lost_uses_their_token_again(service) {
        // One of the two refreshes first; the other goes on from the same token, and the first one has lost.
        let ann = service.sign_up("ann@example.com");
        let (one_access, one) = refreshed(service, &ann.refresh);
        service.advance(11);
        let (other_access, other) = refreshed(service, &ann.refresh);
        assert_eq!((service.token_status(&one_access), service.token_status(&other_access)), (401, 200));
        assert_refused(&refresh(service, &one));
        assert_refused(&refresh(service, &other));
        assert_eq!(service.token_status(&other_access), 401);
    }

    fn an_answer_that_was_lost_for_longer_than_an_hour_is_theft(service) {
        let ann = service.sign_up("ann@example.com");
        let (access, refresh_token) = refreshed(service, &ann.refresh);
        service.advance(3601);
        assert_refused(&refresh(service, &ann.refresh));
        assert_refused(&refresh(service, &refresh_token));
        assert_eq!(service.token_status(&access), 401);
    }

    fn three_tabs_that_have_not_heard_of_each_other_keep_the_session(service) {
        let ann = service.sign_up("ann@example.com");
        let (_, second) = refreshed(service, &ann.refresh);
        service.advance(1);
        refreshed(service, &second);
        service.advance(1);
        for token in [&ann.refresh, &second] {
            assert_eq!(claims(&refreshed(service, token).1)["gen"], 3);
        }
    }

    fn two_generations_behind_is_theft_after_the_grace(service) {
        let ann = service.sign_up("ann@example.com");
        let elsewhere = service.log_in("ann@example.com");
        let (_, second) = refreshed(service, &ann.refresh);
        service.advance(11);
        let (access, third) = refreshed(service, &second);
        assert_eq!(service.token_status(&access), 200);
        assert_refused(&refresh(service, &ann.refresh));
        assert_refused(&refresh(service, &third));
        assert_eq!(service.token_status(&access), 401);
        // Only the session that was stolen ends.
        assert_eq!(service.token_status(&elsewhere.access), 200);
    }

    fn two_refreshes_at_once_get_the_same_generation(service) {
        let ann = service.sign_up("ann@example.com");
        let mut token = ann.refresh;
        for generation in 2..8 {
            let start = Barrier::new(4);
            let (start, current) = (&start, &token);
            let answers = std::thread::scope(|scope| {
                let racers = [0; 4].map(|_| service.client()).map(|client| scope.spawn(move || {
                    start.wait();
                    client.post("/auth/refresh").json(json!({ "refreshToken": current })).send()
                }));
                racers.map(|racer| racer.join().unwrap())
            });
            for answer in &answers {
                assert_eq!(answer.status, 200, "{answer:?}");
                let (access, refresh) = pair(answer);
                assert_eq!(claims(&refresh)["gen"], generation);
                assert_eq!(service.token_status(&access), 200);
            }
            token = pair(&answers[0]).1;
        }
    }

    fn a_generation_that_the_session_has_not_reached_is_refused(service) {
        // As after a backup is restored: the client is ahead of the store.
        let ann = service.sign_up("ann@example.com");
        let (_, second) = refreshed(service, &ann.refresh);
        match service.database() {
            Some(database) => {
                database.client().execute("UPDATE sessions SET generation = 1", &[]).unwrap();
            }
            None => {
                let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
                file.execute("UPDATE sessions SET generation = 1", []).unwrap();
            }
        }
        assert_refused(&refresh(service, &second));
        assert_eq!(service.token_status(&ann.access), 200);
    }

    fn an_access_token_expires_to_the_second(service) {
        let ann = service.sign_up("ann@example.com");
        let lives = claims(&ann.access)["exp"].as_i64().unwrap() - claims(&ann.access)["iat"].as_i64().unwrap();
        assert_eq!(lives, 3600);
        let left = claims(&ann.access)["exp"].as_i64().unwrap() - service.clock.now().seconds();
        service.advance(u64::try_from(left).unwrap() - 1);
        assert_eq!(service.token_status(&ann.access), 200);
        service.advance(1);
        let answer = service.get("/protected/user-only").bearer(&ann.access).send();
        assert_refused(&answer);
    }

    fn a_refresh_slides_the_session_and_without_one_it_ends(service) {
        let day = 24 * 60 * 60;
        let ann = service.sign_up("ann@example.com");
        service.advance(6 * day);
        let (_, second) = refreshed(service, &ann.refresh);
        service.advance(6 * day);
        let (_, third) = refreshed(service, &second);
        service.advance(7 * day + 1);
        assert_refused(&refresh(service, &third));
    }

    fn neither_token_passes_for_the_other(service) {
        let ann = service.sign_up("ann@example.com");
        assert_refused(&refresh(service, &ann.access));
        assert_eq!(service.token_status(&ann.refresh), 401);
    }

    fn a_deactivated_user_cannot_refresh(service) {
        let ann = service.sign_up("ann@example.com");
        service.operator(&["user", "deactivate", &ann.email]);
        assert_refused(&refresh(service, &ann.refresh));
        service.operator(&["user", "activate", &ann.email]);
        assert_refused(&refresh(service, &ann.refresh));
        assert_eq!(service.token_status(&ann.access), 401);
        assert_eq!(service.token_status(&service.log_in(&ann.email).access), 200);
    }

    fn a_theft_is_on_record(service) {
        let ann = service.sign_up("ann@example.com");
        let (_, second) = refreshed(service, &ann.refresh);
        service.advance(11);
        refreshed(service, &second);
        refresh(service, &ann.refresh);
        let reason: String = match service.database() {
            Some(database) => database.client().query_one("SELECT end_reason FROM sessions", &[]).unwrap().get(0),
            None => {
                let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
                file.query_row("SELECT end_reason FROM sessions", [], |row| row.get(0)).unwrap()
            }
        };
        assert_eq!(reason, "reuse");
    }

    fn whatever_the_order_of_refreshes_the_rules_are_kept(service) {
        let rules = service.config().accounts.rotation;
        service.sign_up("ann@example.com");
        // Each step: seconds that pass, and which of the tokens seen so far is presented (mostly one of the last).
        let seconds = prop_oneof![0..15u64, 0..15u64, 1000..2500u64];
        let steps = vec((seconds, 0..4usize), 1..12);
        let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&steps, |steps| {
            // By generation.
            let mut tokens = Vec::from([service.log_in("ann@example.com").refresh]);
            let mut session = Some(Rotation::start());
            for (seconds, back) in steps {
                service.advance(seconds);
                let index = tokens.len() - 1 - back.min(tokens.len() - 1);
                let answer = refresh(service, &tokens[index]);
                let judged = session.take().map(|session| session.judge(index as i64 + 1, service.clock.now(), &rules));
                session = match judged {
                    Some(Move::Forward(next) | Move::Retried(next) | Move::Again(next)) => Some(next),
                    _ => None,
                };
                let Some(session) = &session else {
                    assert_refused(&answer);
                    continue;
                };
                assert_eq!(answer.status, 200, "{index} of {}", tokens.len());
                let (access, token) = pair(&answer);
                assert_eq!(claims(&token)["gen"], session.generation);
                assert_eq!(claims(&access)["gen"], session.generation);
                if session.generation as usize > tokens.len() {
                    tokens.push(token);
                }
            }
            if session.is_none() {
                assert!(tokens.iter().all(|token| refresh(service, token).status == 401));
            }
            Ok(())
        });
        outcome.unwrap();
    }
}

#[test]
fn the_operator_decides_how_long_a_used_token_is_good_for_anything() {
    for backend in Backend::installed() {
        let settings = [("REFRESH_REUSE_GRACE", "30s"), ("REFRESH_RETRY", "off")];
        let service = Service::start_with(backend, &settings, |_| {});
        let ann = service.sign_up("ann@example.com");
        refreshed(&service, &ann.refresh);
        service.advance(30);
        let (access, _) = refreshed(&service, &ann.refresh);
        service.advance(1);
        assert_refused(&refresh(&service, &ann.refresh));
        assert_eq!(service.token_status(&access), 401);
    }
}

on_both_stores! {
    fn a_session_from_before_an_upgrade_goes_on(service) {
        let mut accounts = [0; 3].map(|_| None);
        for (number, account) in accounts.iter_mut().enumerate() {
            *account = Some(service.sign_up(&format!("user-{number}@example.com")));
        }
        let [never, once, lost] = accounts.map(Option::unwrap);
        let (_, second) = refreshed(service, &once.refresh);
        refreshed(service, &lost.refresh);
        let before = "UPDATE sessions SET parent = NULL, left_at = NULL, given_at = NULL, moves = '[]'";
        match service.database() {
            Some(database) => database.client().batch_execute(before).unwrap(),
            None => rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap().execute_batch(before).unwrap(),
        }
        assert_eq!(claims(&refreshed(service, &once.refresh).1)["gen"], 2);
        service.advance(11);
        assert_eq!(claims(&refreshed(service, &never.refresh).1)["gen"], 2);
        assert_eq!(claims(&refreshed(service, &second).1)["gen"], 3);
        assert_eq!(claims(&refreshed(service, &lost.refresh).1)["gen"], 3);
    }
}
