//! Refreshing: rotation, the grace after it, and theft.

use std::sync::Barrier;

use proptest::collection::vec;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::http_client::Answer;
use crate::service::{Service, error, on_both_stores};

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

/// The claims of a token, unverified.
pub fn claims(token: &str) -> Value {
    jsonwebtoken::dangerous::insecure_decode_claims(token).unwrap()
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

    fn one_generation_behind_after_ten_seconds_is_theft(service) {
        let ann = service.sign_up("ann@example.com");
        let (access, refresh_token) = refreshed(service, &ann.refresh);
        service.advance(11);
        assert_refused(&refresh(service, &ann.refresh));
        assert_refused(&refresh(service, &refresh_token));
        assert_eq!(service.token_status(&access), 401);
    }

    fn two_generations_behind_is_theft_at_once(service) {
        let ann = service.sign_up("ann@example.com");
        let elsewhere = service.log_in("ann@example.com");
        let (_, second) = refreshed(service, &ann.refresh);
        let (access, third) = refreshed(service, &second);
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

    fn whatever_the_order_of_refreshes_one_family_survives_or_none(service) {
        const GRACE: u64 = 10;
        service.sign_up("ann@example.com");
        // Each step: seconds that pass, and which of the tokens seen so far is presented (mostly one of the last).
        let steps = vec((0..15u64, 0..4usize), 1..12);
        let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&steps, |steps| {
            // By generation; `tokens.len()` is the current one.
            let mut tokens = Vec::from([service.log_in("ann@example.com").refresh]);
            let (mut alive, mut since_move) = (true, u64::MAX);
            for (seconds, back) in steps {
                service.advance(seconds);
                since_move = since_move.saturating_add(seconds);
                let index = tokens.len() - 1 - back.min(tokens.len() - 1);
                let answer = refresh(service, &tokens[index]);
                let is_current = index + 1 == tokens.len();
                let honoured = alive && (is_current || (index + 2 == tokens.len() && since_move <= GRACE));
                assert_eq!(answer.status, if honoured { 200 } else { 401 }, "{index} of {}", tokens.len());
                if honoured {
                    let (_, token) = pair(&answer);
                    let generation = claims(&token)["gen"].as_u64().unwrap();
                    if is_current {
                        assert_eq!(generation, tokens.len() as u64 + 1);
                        tokens.push(token);
                        since_move = 0;
                    } else {
                        assert_eq!(generation, tokens.len() as u64, "the current pair, not a second family");
                    }
                } else {
                    alive = false;
                }
            }
            // The last token alone goes on, or nothing does.
            assert_eq!(refresh(service, tokens.last().unwrap()).status, if alive { 200 } else { 401 });
            if !alive {
                assert!(tokens.iter().all(|token| refresh(service, token).status == 401));
            }
            Ok(())
        });
        outcome.unwrap();
    }
}
