//! What slows down those who guess passwords and keys: limits by address, and waits after failed logins.

use std::sync::Barrier;
use std::time::Duration;

use keyward::base::clock::Timestamp;
use keyward::run;
use keyward_harness::http_client::{Answer, Client, PATIENCE, Request};
use keyward_harness::openapi;
use keyward_harness::program::{Server, in_both_homes};
use keyward_harness::service::{Backend, PASSWORD, Service, error, on_both_stores, within};
use serde_json::{Value, json};

const HERE: &str = "198.51.100.7";
const ELSEWHERE: &str = "203.0.113.9";

/// Plays a client with this address: a proxy on this machine is believed.
fn from<'a>(address: &str, request: Request<'a>) -> Request<'a> {
    request.header("x-forwarded-for", address)
}

fn log_in(service: &Service, address: &str, email: &str, password: &str) -> Answer {
    log_in_at(&service.client(), address, email, password)
}

fn log_in_at(client: &Client, address: &str, email: &str, password: &str) -> Answer {
    from(address, client.post("/auth/login")).json(json!({ "email": email, "password": password })).send()
}

/// Status, body, and how long to wait.
fn told(answer: &Answer) -> (u16, Value, Option<&str>) {
    (answer.status, answer.json(), answer.header("retry-after"))
}

fn too_many<'a>(message: &str, seconds: &'a str) -> (u16, Value, Option<&'a str>) {
    (429, error(429, message), Some(seconds))
}

const REQUESTS: &str = "Too many requests from this address, try again later";
const KEYS: &str = "Too many invalid API keys from this address, try again later";
const ATTEMPTS: &str = "Too many failed attempts, try again later";

fn limited(service: &mut Service, name: &str, limit: &str) {
    service.set(name, limit);
    service.restart();
}

on_both_stores! {
    fn an_address_may_log_in_only_so_often(service) {
        limited(service, "RATE_LIMIT_LOGIN", "3/1m");
        let ann = service.sign_up("ann@example.com");
        // Good, bad and senseless ones.
        assert_eq!(log_in(service, HERE, &ann.email, PASSWORD).status, 200);
        assert_eq!(log_in(service, HERE, &ann.email, "wrong").status, 401);
        assert_eq!(from(HERE, service.post("/auth/login")).json(json!({})).send().status, 400);
        assert_eq!(told(&log_in(service, HERE, &ann.email, PASSWORD)), too_many(REQUESTS, "20"));
        // Judged before the body is read.
        let oversized = from(HERE, service.post("/auth/login")).body("application/json", vec![b' '; 20_000]).send();
        assert_eq!(oversized.status, 429);
        // Others are not held up, and the other routes are limited on their own.
        assert_eq!(log_in(service, ELSEWHERE, &ann.email, PASSWORD).status, 200);
        let refreshed = from(HERE, service.post("/auth/refresh")).json(json!({ "refreshToken": ann.refresh })).send();
        assert_eq!(refreshed.status, 200);
        service.advance(19);
        assert_eq!(log_in(service, HERE, &ann.email, PASSWORD).status, 429);
        service.advance(1);
        assert_eq!(log_in(service, HERE, &ann.email, PASSWORD).status, 200);
        assert_eq!(log_in(service, HERE, &ann.email, PASSWORD).status, 429);
    }

    fn an_address_may_sign_up_and_refresh_only_so_often(service) {
        for (name, route, body) in [
            ("RATE_LIMIT_SIGNUP", "/auth/signup", json!({})),
            ("RATE_LIMIT_REFRESH", "/auth/refresh", json!({ "refreshToken": "nonsense" })),
        ] {
            limited(service, name, "2/1h");
            let ask = |address| from(address, service.post(route)).json(body.clone()).send();
            assert!((0..2).all(|_| ask(HERE).status < 429));
            assert_eq!(told(&ask(HERE)), too_many(REQUESTS, "1800"));
            assert!(ask(ELSEWHERE).status < 429);
            service.set(name, "off");
            service.restart();
            let ask = |address| from(address, service.post(route)).json(body.clone()).send();
            assert!((0..10).all(|_| ask(HERE).status < 429));
        }
    }

    fn an_ipv6_client_is_limited_by_its_64_first_bits(service) {
        limited(service, "RATE_LIMIT_LOGIN", "2/1m");
        let ask = |address| from(address, service.post("/auth/login")).json(json!({})).send().status;
        assert_eq!([ask("2001:db8:0:1::1"), ask("[2001:db8:0:1:ffff::]:443")], [400, 400]);
        assert_eq!([ask("2001:db8:0:1::3"), ask("2001:db8:0:2::1")], [429, 400]);
    }

    fn an_address_may_present_only_so_many_bad_keys(service) {
        limited(service, "RATE_LIMIT_FAILED_KEYS", "3/1m");
        let ann = service.sign_up("ann@example.com");
        let key = || service.create_key(&ann.access, json!({ "name": "ci" }))["key"].as_str().unwrap().to_string();
        let (used, unused) = (key(), key());
        let ask = |address, key: &str| from(address, service.get("/protected/service-only")).api_key(key).send();
        let unknown = |digit: &str| format!("sk_{}", digit.repeat(64));
        assert_eq!(ask(HERE, &used).status, 200);
        for bad in [unknown("1"), unknown("1"), "nonsense".to_string()] {
            let answer = ask(HERE, &bad);
            assert_eq!((answer.status, answer.json()), (401, error(401, "Invalid or expired API key")));
        }
        for bad in [unknown("1"), unknown("2"), "nonsense".to_string()] {
            assert_eq!(told(&ask(HERE, &bad)), too_many(KEYS, "20"));
        }
        // A key that was good here before stays so, also when it has to be looked up again.
        assert_eq!(ask(HERE, &used).status, 200);
        service.operator(&["user", "activate", &ann.email]);
        assert_eq!(ask(HERE, &used).status, 200);
        // One that was never seen is not looked up when too many have been, until it is known from elsewhere.
        for bad in [unknown("5"), unknown("6")] {
            assert_eq!(told(&ask(HERE, &bad)), too_many(KEYS, "20"));
        }
        assert_eq!(ask(HERE, &unused).status, 429);
        assert_eq!((ask(ELSEWHERE, &unused).status, ask(HERE, &unused).status), (200, 200));
        // A token decides where a key is no good.
        let flexible = from(HERE, service.get("/protected/flexible")).api_key(&unknown("3"));
        assert_eq!(flexible.bearer(&ann.access).send().json()["accessType"], "user");
        assert_eq!(from(HERE, service.get("/protected/flexible")).api_key(&unknown("3")).send().status, 429);
        service.advance(20);
        assert_eq!((ask(HERE, &unknown("4")).status, ask(HERE, &unknown("4")).status), (401, 429));
    }

    fn good_keys_that_are_over_their_limit_or_lack_a_scope_do_not_count_as_bad_ones(service) {
        limited(service, "RATE_LIMIT_FAILED_KEYS", "3/1m");
        let ann = service.sign_up("ann@example.com");
        let once = json!({ "name": "ci", "rateLimit": { "limit": 1, "window": "1d" } });
        let create = |body: Value| service.create_key(&ann.access, body)["key"].as_str().unwrap().to_string();
        let (limited, unseen) = (create(once), create(json!({ "name": "unseen" })));
        let derived = service.post("/auth/token").api_key(&limited).json(json!({})).send().json();
        let derived = derived["accessToken"].as_str().unwrap();
        let asked = json!({ "key": limited, "scopes": ["a"] });
        for _ in 0..5 {
            let ask = |path: &'static str| from(HERE, service.get(path));
            assert_eq!(ask("/protected/service-only").api_key(&limited).send().status, 429);
            assert_eq!(ask("/protected/service-only").bearer(derived).send().status, 429);
            let either = ask("/protected/flexible").api_key(&limited).bearer(&ann.access);
            assert_eq!(either.send().json()["accessType"], "user");
            assert_eq!(ask("/authz/forward-auth?scope=a").api_key(&limited).send().status, 403);
            let verify = from(HERE, service.post("/keys/verify"));
            assert_eq!(verify.api_key(&limited).json(json!({ "key": limited })).send().status, 403);
            let verify = |body: &Value| from(HERE, service.post("/keys/verify")).bearer(&ann.access).json(body.clone());
            assert_eq!(verify(&asked).send().json()["code"], "INSUFFICIENT_SCOPE");
            assert_eq!(verify(&json!({ "key": limited })).send().json()["code"], "RATE_LIMITED");
        }
        // One that was never seen here is looked up still.
        assert_eq!(from(HERE, service.get("/protected/service-only")).api_key(&unseen).send().status, 200);
        // A bad one counts.
        let bad = || from(HERE, service.get("/protected/service-only")).api_key("nonsense").send().status;
        assert_eq!([bad(), bad(), bad(), bad()], [401, 401, 401, 429]);
    }

    fn bad_keys_that_are_repeated_keep_no_good_key_of_the_same_address_out(service) {
        // Each is looked up, and again when the instance hears of changes and therefore forgets.
        limited(service, "RATE_LIMIT_FAILED_KEYS", "20/1m");
        let ann = service.sign_up("ann@example.com");
        let key = || service.create_key(&ann.access, json!({ "name": "ci" }));
        let [good, another, revoked, paused] = [key(), key(), key(), key()];
        let path = |key: &Value| format!("/keys/{}", key["id"].as_str().unwrap());
        assert_eq!(service.delete(&path(&revoked)).bearer(&ann.access).send().status, 200);
        let pause = json!({ "isActive": false });
        assert_eq!(service.patch(&path(&paused)).bearer(&ann.access).json(pause).send().status, 200);
        // Nothing is known of any of them.
        service.restart();
        let ask = |key: &str| from(HERE, service.get("/protected/service-only")).api_key(key).send();
        let secret = |key: &Value| key["key"].as_str().unwrap().to_string();
        let unknown = |digit: &str| format!("sk_{}", digit.repeat(64));
        for turn in 0..10 {
            for bad in [secret(&revoked), secret(&paused), unknown("1"), "nonsense".to_string()] {
                let answer = ask(&bad);
                assert!(answer.status == 401 || turn > 0 && told(&answer) == too_many(KEYS, "3"), "{answer:?}");
            }
        }
        assert_eq!(ask(&secret(&good)).status, 200);
        // Guessing keeps the store busy, so it has a limit.
        for number in 0..20 {
            ask(&format!("sk_{number:064x}"));
        }
        assert_eq!((ask(&secret(&another)).status, ask(&secret(&good)).status), (429, 200));
    }

    fn failures_from_one_ipv6_network_are_one_event_that_says_so(service) {
        let ann = service.sign_up("ann@example.com");
        let networks = ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:1::3", "2001:db8:0:2::1"];
        for address in networks.into_iter().chain([HERE]) {
            assert_eq!(log_in(service, address, &ann.email, "wrong").status, 401);
        }
        // What was gathered is written.
        service.restart();
        let events = service.get("/auth/events").bearer(&ann.access).send().json();
        let failed = events.as_array().unwrap().iter().filter(|event| event["type"] == "login.failed");
        let mut told: Vec<Value> =
            failed.map(|event| json!([event["ip"], event["details"], event["count"]])).collect();
        told.sort_by_key(Value::to_string);
        assert_eq!(told, [
            json!([HERE, {}, 1]),
            json!(["2001:db8:0:1::", { "network": "2001:db8:0:1::/64" }, 3]),
            json!(["2001:db8:0:2::", { "network": "2001:db8:0:2::/64" }, 1]),
        ]);
    }

    fn bad_keys_that_a_user_has_verified_count_and_those_of_a_service_do_not(service) {
        limited(service, "RATE_LIMIT_FAILED_KEYS", "3/1m");
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "gateway", "scopes": ["keys:verify"] }));
        let key = key["key"].as_str().unwrap();
        let body = json!({ "key": format!("sk_{}", "1".repeat(64)) });
        let as_user = |path| from(HERE, service.post(path)).bearer(&ann.access);
        let batch = json!({ "keys": [body, body, { "key": key }] });
        assert_eq!(as_user("/keys/verify-batch").json(batch).send().status, 200);
        assert_eq!(as_user("/keys/verify").json(body.clone()).send().status, 200);
        assert_eq!(told(&as_user("/keys/verify").json(json!({ "key": key })).send()), too_many(KEYS, "20"));
        // So do those that are only asked about.
        let asked = json!({ "key": key, "consume": false });
        assert_eq!(told(&as_user("/keys/verify").json(asked).send()), too_many(KEYS, "20"));
        for _ in 0..5 {
            let as_service = from(HERE, service.post("/keys/verify")).api_key(key).json(body.clone()).send();
            assert_eq!((as_service.status, &as_service.json()["code"]), (200, &json!("NOT_FOUND")));
        }
    }

    fn seven_failed_logins_make_their_address_wait_a_minute(service) {
        let ann = service.sign_up("ann@example.com");
        let fail = || log_in(service, HERE, &ann.email, "wrong");
        for _ in 0..7 {
            assert_eq!(told(&fail()), (401, error(401, "Invalid credentials"), None));
        }
        assert_eq!(told(&fail()), too_many(ATTEMPTS, "60"));
        // Also when it is right, and to ask makes the wait no longer.
        service.advance(59);
        assert_eq!(log_in(service, HERE, &ann.email, PASSWORD).status, 429);
        // Somewhere else, nobody waits; what happens there ends no wait here.
        assert_eq!(log_in(service, ELSEWHERE, &ann.email, PASSWORD).status, 200);
        assert_eq!(log_in(service, HERE, &ann.email, PASSWORD).status, 429);
        // Nor does anyone who tries another account.
        assert_eq!(log_in(service, HERE, "bob@example.com", PASSWORD).status, 401);
        service.advance(1);
        assert_eq!(log_in(service, HERE, &ann.email, PASSWORD).status, 200);
        // The success has cleared the count.
        assert!((0..7).all(|_| fail().status == 401));
        assert_eq!(fail().status, 429);
    }

    fn attempts_during_a_wait_are_seen_in_the_trail(service) {
        let ann = service.sign_up("ann@example.com");
        for number in 0..10 {
            let status = log_in(service, HERE, &ann.email, "wrong").status;
            assert_eq!(status, if number < 7 { 401 } else { 429 });
        }
        for _ in 0..3 {
            let body = json!({ "currentPassword": "wrong", "newPassword": "another Password" });
            let change = from(HERE, service.post("/auth/password")).bearer(&ann.access).json(body);
            assert_eq!(change.send().status, 429);
        }
        // What was gathered is written.
        service.restart();
        let events = service.get("/auth/events").bearer(&ann.access).send().json();
        let count = |kind: &str| -> u64 {
            let failed = events.as_array().unwrap().iter().filter(|event| event["type"] == kind);
            failed.map(|event| event["count"].as_u64().unwrap()).sum()
        };
        assert_eq!((count("login.failed"), count("password.failed")), (10, 3));
    }

    fn wrong_passwords_of_someone_who_is_logged_in_count_as_well(service) {
        let ann = service.sign_up("ann@example.com");
        let change = |password: &str| {
            let body = json!({ "currentPassword": password, "newPassword": "another Password" });
            service.post("/auth/password").bearer(&ann.access).json(body).send()
        };
        let delete = |access: &str, password: &str| {
            service.delete("/auth/me").bearer(access).json(json!({ "password": password })).send()
        };
        assert!((0..4).all(|_| change("wrong").status == 401));
        assert!((0..3).all(|_| delete(&ann.access, "wrong").status == 401));
        assert_eq!(told(&change(PASSWORD)), too_many(ATTEMPTS, "60"));
        assert_eq!(told(&delete(&ann.access, PASSWORD)), too_many(ATTEMPTS, "60"));
        assert_eq!(log_in(service, "127.0.0.1", &ann.email, PASSWORD).status, 429);
        service.advance(60);
        let changed = change(PASSWORD);
        assert_eq!(changed.status, 200);
        assert_eq!(delete(changed.json()["accessToken"].as_str().unwrap(), "another Password").status, 200);
    }
}

/// Tells a story on each store, with hashes that cost next to nothing.
fn with_cheap_hashes(story: impl Fn(&mut Service)) {
    for backend in Backend::installed() {
        story(&mut Service::start_with(backend, &[], |config| config.accounts.bcrypt_cost = 4));
    }
}

#[test]
fn waits_grow_with_the_failures_whether_the_account_exists_or_not() {
    with_cheap_hashes(|service| {
        service.sign_up("ann@example.com");
        let steps = [(7, 60), (10, 600), (15, 900), (20, 3600), (25, 86_400), (26, 86_400)];
        let mut failures = 0;
        for (count, wait) in steps {
            for email in ["ann@example.com", "nobody@example.com"] {
                for _ in failures..count {
                    let answer = log_in(service, HERE, email, "wrong");
                    assert_eq!(told(&answer), (401, error(401, "Invalid credentials"), None), "{email} {count}");
                }
                let answer = log_in(service, HERE, email, PASSWORD);
                assert_eq!(told(&answer), too_many(ATTEMPTS, &wait.to_string()), "{email} {count}");
            }
            failures = count;
            service.advance(wait);
        }
        assert_eq!(log_in(service, HERE, "ann@example.com", PASSWORD).status, 200);
    });
}

#[test]
fn guesses_at_the_same_time_learn_no_more_than_one_after_the_other() {
    with_cheap_hashes(|service| {
        let ann = service.sign_up("ann@example.com");
        let guesses = (0..24).map(|_| (service.client(), HERE.to_string())).collect();
        assert_eq!(outcomes(&at_the_same_time(guesses, &ann.email)), (7, 17));
    });
}

/// What wrong guesses by these clients, from these addresses, are answered.
fn at_the_same_time(guesses: Vec<(Client, String)>, email: &str) -> Vec<u16> {
    let start = &Barrier::new(guesses.len());
    std::thread::scope(|scope| {
        let guess = |(client, address): (Client, String)| {
            scope.spawn(move || {
                start.wait();
                log_in_at(&client, &address, email, "wrong").status
            })
        };
        let guessing: Vec<_> = guesses.into_iter().map(guess).collect();
        guessing.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// How many guesses were judged, and how many have to wait.
#[track_caller]
fn outcomes(statuses: &[u16]) -> (usize, usize) {
    let count = |status| statuses.iter().filter(|found| **found == status).count();
    assert_eq!(count(401) + count(429), statuses.len(), "{statuses:?}");
    (count(401), count(429))
}

/// Tells a story to two servers on one database: the second gets clients of its own.
fn with_two_servers(story: impl Fn(&mut Service, &dyn Fn() -> Client)) {
    with_cheap_hashes(|service| {
        let (sibling, _) = service.sibling();
        story(service, &|| Client::new(sibling.addresses()[0], openapi::check));
        sibling.stop();
    });
}

#[test]
fn failures_count_at_all_instances_and_after_a_restart() {
    with_two_servers(|service, others| {
        let (ann, other) = (service.sign_up("ann@example.com"), &others());
        for email in [&ann.email, "nobody@example.com"] {
            for number in 0..7 {
                let client = if number % 2 == 0 { &service.client() } else { other };
                assert_eq!(log_in_at(client, HERE, email, "wrong").status, 401, "{email} {number}");
            }
            assert_eq!(told(&log_in(service, HERE, email, PASSWORD)), too_many(ATTEMPTS, "60"), "{email}");
            assert_eq!(told(&log_in_at(other, HERE, email, PASSWORD)), too_many(ATTEMPTS, "60"), "{email}");
        }
        service.restart();
        assert_eq!(told(&log_in(service, HERE, &ann.email, PASSWORD)), too_many(ATTEMPTS, "60"));
        service.advance(60);
        // A success anywhere clears the count.
        assert_eq!(log_in_at(other, HERE, &ann.email, PASSWORD).status, 200);
        assert!((0..7).all(|_| log_in(service, HERE, &ann.email, "wrong").status == 401));
        assert_eq!(log_in_at(other, HERE, &ann.email, PASSWORD).status, 429);
        // So does a new password.
        service.operator(&["user", "deactivate", &ann.email]);
        service.operator(&["user", "activate", &ann.email]);
        assert_eq!(log_in_at(other, HERE, &ann.email, PASSWORD).status, 429);
        service.store_hash(&bcrypt::hash(PASSWORD, 4).unwrap());
        assert_eq!(log_in_at(other, HERE, &ann.email, PASSWORD).status, 200);
    });
}

#[test]
fn guesses_at_the_same_time_at_two_instances_learn_no_more_than_one_after_the_other() {
    with_two_servers(|service, others| {
        let ann = service.sign_up("ann@example.com");
        for email in [&ann.email, "nobody@example.com"] {
            let client = |number| if number % 2 == 0 { service.client() } else { others() };
            let guesses = (0..24).map(|number| (client(number), HERE.to_string())).collect();
            assert_eq!(outcomes(&at_the_same_time(guesses, email)), (7, 17), "{email}");
        }
    });
}

#[test]
fn failures_are_forgotten_and_of_very_many_the_oldest_first() {
    with_cheap_hashes(|service| {
        let fail = |name: &str| {
            let email = format!("{name}@example.com");
            assert_eq!(log_in(service, HERE, &email, "wrong").status, 401);
            service.advance(1);
        };
        ["first", "second", "third"].into_iter().for_each(fail);
        let count = |table: &str| service.count(&format!("SELECT COUNT(*) FROM {table}"));
        assert_eq!(count("failures"), 3);
        let (app, store) = run::open_app(service.config(), service.clock.clone()).unwrap();
        let now = service.clock.now();
        while store.prune_failures(2, now).unwrap() {}
        let latest = now.minus(Duration::from_secs(2));
        let left = |until: Timestamp| service.count(&format!("SELECT COUNT(*) FROM failures WHERE until < '{until}'"));
        assert_eq!((left(latest), left(now)), (0, 2));
        drop((app, store));
        // The server itself forgets them when they are over.
        service.advance(86_400);
        within(PATIENCE, "all are forgotten", || count("failures") + count("account_failures") == 0);
    });
}

#[test]
fn a_deactivation_ends_no_wait_or_it_would_tell_that_there_is_an_account() {
    with_cheap_hashes(|service| {
        let bob = service.sign_up("bob@example.com");
        for email in [&bob.email, "nobody@example.com"] {
            for _ in 0..7 {
                assert_eq!(log_in(service, HERE, email, "wrong").status, 401, "{email}");
            }
        }
        service.operator(&["user", "deactivate", &bob.email]);
        for email in [&bob.email, "nobody@example.com"] {
            assert_eq!(told(&log_in(service, HERE, email, PASSWORD)), too_many(ATTEMPTS, "60"), "{email}");
        }
        assert_eq!(log_in(service, ELSEWHERE, &bob.email, PASSWORD).status, 401);
    });
}

#[test]
fn an_account_that_is_guessed_at_from_everywhere_slows_everyone_but_who_has_logged_in_there() {
    with_cheap_hashes(|service| {
        let ann = service.sign_up("ann@example.com");
        assert_eq!(log_in(service, "2001:db8:0:1::1", &ann.email, PASSWORD).status, 200);
        for email in [ann.email.as_str(), "nobody@example.com"] {
            let address = |number| format!("10.{}.{}.1", number / 250, number % 250);
            for number in 0..990 {
                assert_eq!(log_in(service, &address(number), email, "wrong").status, 401, "{email} {number}");
            }
            let guesses = (990..1014).map(|number| (service.client(), address(number))).collect();
            assert_eq!(outcomes(&at_the_same_time(guesses, email)), (10, 14), "{email}");
            assert_eq!(told(&log_in(service, ELSEWHERE, email, PASSWORD)), too_many(ATTEMPTS, "4"), "{email}");
        }
        // Also when that session has ended.
        assert_eq!(service.post("/auth/logout").bearer(&ann.access).send().status, 200);
        assert_eq!(log_in(service, "127.0.0.1", &ann.email, PASSWORD).status, 200);
        // From a new address of a network where they have logged in, and from another network.
        assert_eq!(log_in(service, "2001:db8:0:1:2::3", &ann.email, PASSWORD).status, 200);
        assert_eq!(log_in(service, "2001:db8:0:2::1", &ann.email, PASSWORD).status, 429);
        service.advance(4);
        assert_eq!(log_in(service, ELSEWHERE, &ann.email, PASSWORD).status, 200);
    });
}

/// What the threads that hash passwords have worked so far, in the system's ticks of 10 ms. Unlike the time that an answer
/// takes, it is the same on a machine that has other things to do.
fn work(server: &Server<'_>) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    // proc_pid_stat(5): the name in parentheses; the 14th and 15th field are the time in the program and in the system.
    let hashing = stats.filter_map(|stat| {
        let (name, rest) = stat.split_once('(')?.1.split_once(") ")?;
        let mut times = rest.split(' ').skip(11).map(|field| field.parse::<u64>().unwrap());
        name.starts_with("hash-").then(|| times.next().unwrap() + times.next().unwrap())
    });
    hashing.sum()
}

in_both_homes! {
    fn every_refused_login_costs_the_same_work_just_after_the_start_and_later(home) {
        // Some 25 ticks, more than four times what a new hash costs.
        let (dear, cheap) = (bcrypt::hash(PASSWORD, 12).unwrap(), bcrypt::hash(PASSWORD, 4).unwrap());
        home.run(&["migrate"]).succeeded();
        for name in ["dear", "cheap", "inactive"] {
            home.run_reading(&["user", "create", &format!("{name}@example.com")], &format!("{PASSWORD}\n")).succeeded();
        }
        home.run(&["user", "deactivate", "inactive@example.com"]).succeeded();
        for (name, hash) in [("dear", &dear), ("cheap", &cheap)] {
            let update = format!("UPDATE users SET password_hash = '{hash}' WHERE email = '{name}@example.com'");
            match home.database() {
                Some(database) => database.client().batch_execute(&update).unwrap(),
                None => rusqlite::Connection::open(home.path("keyward.db")).unwrap().execute_batch(&update).unwrap(),
            }
        }
        let server = home.start(&[]);
        let mut costs = Vec::new();
        // The first of all is one of whom nothing is known.
        for round in 0..2 {
            for name in ["nobody", "cheap", "inactive", "dear"] {
                let before = work(&server);
                let body = json!({ "email": format!("{name}@example.com"), "password": "wrong" });
                assert_eq!(server.client().post("/auth/login").json(body).send().status, 401);
                let ticks = work(&server) - before;
                costs.push((name, round, ticks));
            }
        }
        let dearest = costs.iter().filter(|(name, ..)| *name == "dear").map(|(_, _, ticks)| *ticks).min().unwrap();
        for (name, round, ticks) in &costs {
            assert!(ticks * 2 > dearest && *ticks < dearest * 2, "{name} in round {round}: {costs:?}");
        }
    }

    fn no_failure_that_was_answered_is_forgotten_when_the_process_is_killed(home) {
        home.run(&["migrate"]).succeeded();
        home.run_reading(&["user", "create", "ann@example.com"], &format!("{PASSWORD}\n")).succeeded();
        let status = |server: &Server<'_>, password: &str| {
            let body = json!({ "email": "ann@example.com", "password": password });
            server.client().post("/auth/login").json(body).send().status
        };
        for _ in 0..7 {
            let server = home.start(&[]);
            assert_eq!(status(&server, "wrong"), 401);
            server.kill();
        }
        assert_eq!(status(&home.start(&[]), PASSWORD), 429);
    }
}
