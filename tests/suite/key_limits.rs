//! Rate limits of keys, where they are presented to Keyward itself.

use std::io::{BufRead, BufReader, Write};

use keyward_harness::http_client::{Answer, connect, read_answer};
use keyward_harness::service::{Account, Service, error, on_both_stores};
use serde_json::{Value, json};

const MESSAGE: &str = "API key is over its rate limit";

fn limited_key(service: &Service, owner: &Account, limit: u32, window: &str) -> Value {
    service.create_key(&owner.access, json!({ "name": "ci", "rateLimit": { "limit": limit, "window": window } }))
}

fn present(service: &Service, key: &Value) -> Answer {
    service.get("/protected/service-only").api_key(key["key"].as_str().unwrap()).send()
}

fn told(answer: &Answer) -> (u16, Option<&str>, Option<&str>, Option<&str>) {
    let header = |name| answer.header(name);
    (answer.status, header("ratelimit-policy"), header("ratelimit"), header("retry-after"))
}

on_both_stores! {
    fn a_key_over_its_limit_is_refused_until_some_of_it_is_back(service) {
        let ann = service.sign_up("ann@example.com");
        let key = limited_key(service, &ann, 3, "1h");
        let policy = Some("\"default\";q=3;w=3600");
        for (left, reset) in [(2, 1200), (1, 2400), (0, 3600)] {
            let answer = present(service, &key);
            assert_eq!(told(&answer), (200, policy, Some(format!("\"default\";r={left};t={reset}").as_str()), None));
        }
        let answer = present(service, &key);
        assert_eq!(answer.json(), error(429, MESSAGE));
        assert_eq!(told(&answer), (429, policy, Some("\"default\";r=0;t=3600"), Some("1200")));
        service.advance(1200);
        assert_eq!((present(service, &key).status, present(service, &key).status), (200, 429));
        service.advance(3600);
        assert_eq!(told(&present(service, &key)), (200, policy, Some("\"default\";r=2;t=1200"), None));
    }

    fn of_a_key_that_is_no_good_not_even_a_limit_is_told(service) {
        let ann = service.sign_up("ann@example.com");
        let key = limited_key(service, &ann, 3, "1h");
        assert_eq!(present(service, &key).status, 200);
        let revoked = service.delete(&format!("/keys/{}", key["id"].as_str().unwrap())).bearer(&ann.access).send();
        assert_eq!(revoked.status, 200);
        assert_eq!(told(&present(service, &key)), (401, None, None, None));
        let key = key["key"].as_str().unwrap();
        let answer = service.get("/protected/flexible").api_key(key).bearer(&ann.access).send();
        assert_eq!(told(&answer), (200, None, None, None));
    }

    fn a_limit_is_spent_by_nothing_but_its_own_key_and_survives_what_makes_verdicts_forgotten(service) {
        let ann = service.sign_up("ann@example.com");
        let (key, other) = (limited_key(service, &ann, 1, "1d"), limited_key(service, &ann, 1, "1d"));
        assert_eq!(present(service, &key).status, 200);
        let target = format!("/keys/{}", key["id"].as_str().unwrap());
        assert_eq!(service.patch(&target).bearer(&ann.access).json(json!({ "name": "renamed" })).send().status, 200);
        assert_eq!(present(service, &key).status, 429);
        service.advance(6);
        assert_eq!((present(service, &key).status, present(service, &other).status), (429, 200));
        // A paused key is no good, whatever is left, and no other answer says so.
        for (body, status) in [(json!({ "isActive": false }), 401), (json!({ "isActive": true }), 429)] {
            assert_eq!(service.patch(&target).bearer(&ann.access).json(body).send().status, 200);
            assert_eq!(present(service, &key).status, status);
        }
        // Another limit holds at once, and so does none.
        for (limit, status) in [(json!({ "limit": 1, "window": "12h" }), 429), (json!(null), 200), (json!(null), 200)] {
            let changed = service.patch(&target).bearer(&ann.access).json(json!({ "rateLimit": limit })).send();
            assert_eq!((changed.status, &changed.json()["rateLimit"]), (200, &limit));
            let answer = present(service, &key);
            assert_eq!((answer.status, answer.header("ratelimit").is_some()), (status, !limit.is_null()));
        }
    }

    fn where_a_jwt_is_taken_too_it_decides_about_a_key_over_its_limit(service) {
        let ann = service.sign_up("ann@example.com");
        let key = limited_key(service, &ann, 1, "1d");
        let ask = |bearer: Option<&str>| {
            let request = service.get("/protected/flexible").api_key(key["key"].as_str().unwrap());
            bearer.map_or(request, |token| service.get("/protected/flexible").api_key(key["key"].as_str().unwrap()).bearer(token)).send()
        };
        assert_eq!(ask(Some(&ann.access)).json()["accessType"], "service");
        let answer = ask(Some(&ann.access));
        assert_eq!((answer.status, &answer.json()["accessType"]), (200, &json!("user")));
        assert_eq!(answer.header("ratelimit"), Some("\"default\";r=0;t=86400"));
        for bearer in [None, Some("nonsense")] {
            let answer = ask(bearer);
            assert_eq!((answer.status, answer.json()), (429, error(429, MESSAGE)));
        }
    }

    fn refusals_by_a_limit_are_counted_apart(service) {
        let ann = service.sign_up("ann@example.com");
        let key = limited_key(service, &ann, 1, "1d");
        for status in [200, 429, 429] {
            assert_eq!(present(service, &key).status, status);
        }
        let target = format!("/keys/{}/usage?by=day", key["id"].as_str().unwrap());
        for _ in 0..2 {
            let usage = service.get(&target).bearer(&ann.access).send().json();
            let today = usage["series"].as_array().unwrap().last().unwrap().clone();
            assert_eq!(today["allowed"], 1);
            assert_eq!(
                today["refused"],
                json!({ "disabled": 0, "expired": 0, "forbiddenAddress": 0, "insufficientScope": 0, "rateLimited": 2 })
            );
            service.restart();
        }
    }

    fn of_many_at_once_no_more_than_the_limit_are_admitted(service) {
        let ann = service.sign_up("ann@example.com");
        let key = limited_key(service, &ann, 10, "1d");
        let key = key["key"].as_str().unwrap();
        let clients: Vec<_> = (0..4).map(|_| service.client()).collect();
        let admitted: usize = std::thread::scope(|scope| {
            let asking = clients.iter().map(|client| {
                scope.spawn(move || {
                    let ask = || client.get("/protected/service-only").api_key(key).send().status;
                    (0..10).filter(|_| ask() == 200).count()
                })
            });
            asking.collect::<Vec<_>>().into_iter().map(|asked| asked.join().unwrap()).sum()
        });
        assert_eq!(admitted, 10);
    }

    fn a_request_that_is_judged_anew_when_its_body_comes_spends_once(service) {
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({
            "name": "ci", "scopes": ["keys:verify"], "rateLimit": { "limit": 1, "window": "1d" },
        }));
        let body = json!({ "key": "sk_" }).to_string();
        let mut stream = connect(service.address()).unwrap();
        write!(
            stream,
            "POST /keys/verify HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\nexpect: 100-continue\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            key["key"].as_str().unwrap(),
            body.len()
        )
        .unwrap();
        // The server asks for the body when it knows who asks.
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 100 "), "{line}");
        reader.read_line(&mut line).unwrap();
        let target = format!("/keys/{}", key["id"].as_str().unwrap());
        assert_eq!(service.patch(&target).bearer(&ann.access).json(json!({ "name": "renamed" })).send().status, 200);
        stream.write_all(body.as_bytes()).unwrap();
        let answer = read_answer(&mut reader, false).unwrap();
        assert_eq!(told(&answer), (200, Some("\"default\";q=1;w=86400"), Some("\"default\";r=0;t=86400"), None));
        let listed = service.get("/keys").bearer(&ann.access).send().json();
        assert_eq!(listed[0]["usesLast24h"], 1);
    }

    fn a_key_revokes_itself_even_over_its_limit(service) {
        let ann = service.sign_up("ann@example.com");
        let key = limited_key(service, &ann, 1, "1d");
        assert_eq!((present(service, &key).status, present(service, &key).status), (200, 429));
        let ask = || service.post("/keys/revoke-self").api_key(key["key"].as_str().unwrap()).send();
        let answer = ask();
        assert_eq!((answer.status, answer.json()), (200, json!({ "message": "API key revoked successfully" })));
        assert_eq!(ask().status, 401);
        let listed = service.get("/keys").bearer(&ann.access).send().json();
        assert_eq!((&listed[0]["isActive"], listed[0]["revokedAt"].is_string()), (&json!(false), true));
        // A user would have to say which.
        assert_eq!(service.post("/keys/revoke-self").bearer(&ann.access).send().status, 401);
    }
}
