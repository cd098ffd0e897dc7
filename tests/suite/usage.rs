//! How often keys were used.

use keyward::base::clock::Timestamp;
use keyward::base::period::{DAY, HOUR};
use keyward_harness::http_client::PATIENCE;
use keyward_harness::service::{Account, Service, broken_rules, error, on_both_stores, within};
use serde_json::{Value, json};

fn usage(service: &Service, access: &str, id: &str, query: &str) -> Value {
    let answer = service.get(&format!("/keys/{id}/usage{query}")).bearer(access).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn point(start: Timestamp, allowed: u64, disabled: u64, expired: u64) -> Value {
    let refused = json!({ "disabled": disabled, "expired": expired, "forbiddenAddress": 0, "insufficientScope": 0, "rateLimited": 0 });
    json!({ "start": start.to_string(), "allowed": allowed, "refused": refused })
}

on_both_stores! {
    fn uses_are_counted_by_hour_and_by_how_they_ended(service) {
        let ann = service.sign_up("ann@example.com");
        let expires_at = service.clock.now().plus(HOUR).to_string();
        let made = service.create_key(&ann.access, json!({ "name": "ci", "expiresAt": expires_at }));
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        let first = service.clock.now().start_of(HOUR);
        for _ in 0..3 {
            assert_eq!(service.key_status(key), 200);
        }
        service.advance(3600);
        let second = service.clock.now().start_of(HOUR);
        assert_eq!((service.key_status(key), service.key_status(key)), (401, 401));
        let ann = service.log_in(&ann.email);
        service.delete(&format!("/keys/{id}")).bearer(&ann.access).send();
        assert_eq!(service.key_status(key), 401);

        let expected = [point(first, 3, 0, 0), point(second, 0, 1, 2)];
        // At once, and after everything was written.
        for _ in 0..2 {
            let body = usage(service, &ann.access, id, "");
            let series = body["series"].as_array().unwrap();
            assert_eq!((series.len(), &series[22..]), (24, &expected[..]));
            assert_eq!((&body["by"], &body["from"]), (&json!("hour"), &series[0]["start"]));
            let listed = service.get("/keys").bearer(&ann.access).send().json();
            assert_eq!(listed[0]["usesLast24h"], 3);
            service.restart();
        }
    }

    fn a_series_has_every_step_of_its_span(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        assert_eq!(service.key_status(key), 200);
        let hour = service.clock.now().start_of(HOUR);
        let span = |from: Timestamp, to: Timestamp| format!("?from={from}&to={to}");
        let hours = usage(service, &ann.access, id, &span(hour.minus(2 * HOUR), hour.plus(2 * HOUR)));
        assert_eq!(
            hours["series"],
            json!([
                point(hour.minus(2 * HOUR), 0, 0, 0), point(hour.minus(HOUR), 0, 0, 0),
                point(hour, 1, 0, 0), point(hour.plus(HOUR), 0, 0, 0),
            ])
        );
        let today = service.clock.now().start_of(DAY);
        let query = span(today.minus(DAY).plus(HOUR), today.plus(DAY)) + "&by=day";
        let days = usage(service, &ann.access, id, &query);
        assert_eq!(days["series"], json!([point(today.minus(DAY), 0, 0, 0), point(today, 1, 0, 0)]));
        // An offset's plus sign is a space unless it is encoded.
        let offset = hour.to_string().replace('Z', "%2B00:00");
        assert_eq!(usage(service, &ann.access, id, &format!("?from={offset}"))["series"], json!([point(hour, 1, 0, 0)]));
    }

    fn a_query_that_breaks_rules_hears_of_each(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let id = made["id"].as_str().unwrap();
        let format = "must be an RFC 3339 date and time with an offset";
        for (query, rules) in [
            ("by=week", vec!["by must be one of the following values: hour, day".to_string()]),
            ("from=yesterday&to=", vec![format!("from {format}"), format!("to {format}")]),
            ("since=2026-01-01T00:00:00Z", vec!["property since should not exist".to_string()]),
            ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", vec!["from must be before to".to_string()]),
            ("from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", vec!["from and to must be at most 1000 steps apart".to_string()]),
        ] {
            let answer = service.get(&format!("/keys/{id}/usage?{query}")).bearer(&ann.access).send();
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&rules)), "{query}");
        }
        let answer = service.get(&format!("/keys/{id}/usage?by=day&by=hour")).bearer(&ann.access).send();
        assert_eq!((answer.status, answer.json()), (400, error(400, "Query has by twice")));
    }

    fn the_span_that_is_left_out_ends_at_the_year_0(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let id = made["id"].as_str().unwrap();
        for by in ["hour", "day"] {
            let answer = usage(service, &ann.access, id, &format!("?to=0000-01-01T00:30:00Z&by={by}"));
            assert_eq!(answer["from"], "0000-01-01T00:00:00.000Z");
            assert_eq!(answer["series"].as_array().unwrap().len(), 1);
        }
    }

    fn the_use_of_a_key_that_is_not_ones_own_does_not_exist(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        for id in [made["id"].as_str().unwrap(), "nonsense"] {
            let answer = service.get(&format!("/keys/{id}/usage")).bearer(&bob.access).send();
            assert_eq!((answer.status, answer.json()), (404, error(404, "API key not found")));
        }
    }

    fn a_deleted_keys_count_is_dropped_and_the_others_are_written(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let gone = service.create_key(&ann.access, json!({ "name": "gone" }));
        let stays = service.create_key(&bob.access, json!({ "name": "stays" }));
        assert_eq!(service.key_status(gone["key"].as_str().unwrap()), 200);
        assert_eq!(service.key_status(stays["key"].as_str().unwrap()), 200);
        service.operator(&["user", "delete", &ann.email]);
        service.restart();
        let listed = service.get("/keys").bearer(&bob.access).send().json();
        assert_eq!(listed[0]["usesLast24h"], 1);
    }
}

/// Runs statements past the server.
fn run(service: &Service, statements: &str) {
    match service.database() {
        Some(database) => database.client().batch_execute(statements).unwrap(),
        None => rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap().execute_batch(statements).unwrap(),
    }
}

/// The only number that it gives; none is 0.
fn number(service: &Service, sql: &str) -> i64 {
    match service.database() {
        Some(database) => database.client().query_one(sql, &[]).unwrap().get::<_, Option<i64>>(0),
        None => {
            let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
            file.query_row(sql, [], |row| row.get(0)).unwrap()
        }
    }
    .unwrap_or(0)
}

fn written(service: &Service) -> i64 {
    number(service, "SELECT CAST(SUM(allowed) AS BIGINT) FROM key_hours")
}

/// Waits until everything that was noted before has been tried to be written: a failed login is written after the uses of
/// the same round.
fn round(service: &Service, account: &Account) {
    let failures = || number(service, "SELECT CAST(SUM(count) AS BIGINT) FROM events WHERE kind = 'login.failed'");
    let before = failures();
    let wrong = json!({ "email": account.email, "password": "wrong" });
    assert_eq!(service.post("/auth/login").json(wrong).send().status, 401);
    within(PATIENCE, "a round of writing", || failures() > before);
}

/// Nobody writes counts while this is there.
enum Held {
    Postgres(postgres::Client),
    Sqlite(rusqlite::Connection),
}

impl Held {
    fn hold(service: &Service) -> Held {
        match service.database() {
            Some(database) => {
                let mut client = database.client();
                client.batch_execute("BEGIN; LOCK TABLE key_hours IN EXCLUSIVE MODE").unwrap();
                Held::Postgres(client)
            }
            None => {
                let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
                file.busy_timeout(PATIENCE).unwrap();
                file.execute_batch("BEGIN IMMEDIATE").unwrap();
                Held::Sqlite(file)
            }
        }
    }

    fn release(self) {
        match self {
            Held::Postgres(mut client) => client.batch_execute("ROLLBACK").unwrap(),
            Held::Sqlite(file) => file.execute_batch("ROLLBACK").unwrap(),
        }
    }
}

on_both_stores! {
    fn uses_that_could_not_be_written_are_counted_later_and_once(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        let use_it = || assert_eq!(service.key_status(key), 200);
        run(service, "ALTER TABLE key_hours RENAME TO hidden");
        use_it();
        round(service, &ann);
        // In another hour, and in one of which something waits already.
        use_it();
        service.advance(3600);
        let ann = service.log_in(&ann.email);
        use_it();
        round(service, &ann);
        run(service, "ALTER TABLE hidden RENAME TO key_hours");
        assert_eq!(written(service), 0);
        within(PATIENCE, "they are written", || written(service) > 0);
        use_it();
        round(service, &ann);
        round(service, &ann);
        assert_eq!(written(service), 4);
        let hour = service.clock.now().start_of(HOUR);
        let series = usage(service, &ann.access, id, "")["series"].as_array().unwrap()[22..].to_vec();
        assert_eq!(series, [point(hour.minus(HOUR), 2, 0, 0), point(hour, 2, 0, 0)]);
    }

    fn no_use_is_missed_or_seen_twice_while_it_is_written(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        let mut uses = 0;
        let seen = |uses: u64| {
            let listed = service.get("/keys").bearer(&ann.access).send().json();
            let counted = &usage(service, &ann.access, id, "")["series"][23]["allowed"];
            assert_eq!((&listed[0]["usesLast24h"], counted), (&json!(uses), &json!(uses)));
        };
        for _ in 0..3 {
            let held = Held::hold(service);
            for _ in 0..2 {
                assert_eq!(service.key_status(key), 200);
                uses += 1;
            }
            // Before the round, and when it waits to write them.
            for _ in 0..30 {
                seen(uses);
            }
            held.release();
            while written(service) < i64::try_from(uses).unwrap() {
                seen(uses);
            }
            for _ in 0..5 {
                seen(uses);
            }
        }
    }
}
