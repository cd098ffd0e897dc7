//! Databases that are new, older or newer than the program, or not its own.

use std::sync::Barrier;
use std::thread;

use keyward::base::clock::Clock;
use keyward::run::Keyward;
use keyward::store::driver::Driver;
use keyward::store::postgres::Postgres;
use keyward::store::sqlite::Sqlite;
use keyward_harness::http_client::Client;
use keyward_harness::openapi;
use keyward_harness::program::in_both_homes;
use keyward_harness::service::{PASSWORD, account};
use serde_json::json;

use super::{execute, recorded};

in_both_homes! {
    fn servers_that_start_at_once_on_an_empty_database_all_come_up(home) {
        const SERVERS: usize = 6;
        let config = home.config();
        let ready = Barrier::new(SERVERS);
        let servers: Vec<Keyward> = thread::scope(|scope| {
            let start = || {
                ready.wait();
                Keyward::start(&config, Clock::default()).unwrap()
            };
            let starts: Vec<_> = (0..SERVERS).map(|_| scope.spawn(start)).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert_eq!(recorded(&home).len(), Sqlite::MIGRATIONS.len());
        let clients: Vec<Client> =
            servers.iter().map(|server| Client::new(server.addresses()[0], openapi::check)).collect();
        let form = json!({ "email": "ann@example.com", "password": PASSWORD });
        let ann = account(&clients[0].post("/auth/signup").json(form).send().json());
        for client in &clients {
            assert_eq!(client.token_status(&ann.access), 200);
        }
        for server in servers {
            server.stop();
        }
    }

    fn a_database_that_is_newer_than_the_program_or_not_its_own_is_refused_and_stays_as_it_is(home) {
        let mut home = home;
        home.set("JWT_SECRET", "the-secret-of-access-tokens-of-a-test");
        home.set("JWT_REFRESH_SECRET", "the-secret-of-refresh-tokens-of-a-test");
        home.run(&["migrate"]).succeeded();
        let ours = recorded(&home);
        for (change, undo, expected) in [
            (
                "INSERT INTO schema_migrations VALUES (9999, 'from_the_future', 'x', '2026-01-01T00:00:00.000Z')",
                "DELETE FROM schema_migrations WHERE version = 9999",
                "newer than this binary: it has migration 9999_from_the_future",
            ),
            (
                "UPDATE schema_migrations SET checksum = 'not ' || checksum WHERE version = 1",
                "UPDATE schema_migrations SET checksum = substr(checksum, 5) WHERE version = 1",
                "migration 0001_users_sessions_keys is not the 0001_users_sessions_keys of this binary",
            ),
        ] {
            execute(&home, change);
            let before = recorded(&home);
            for arguments in [&[][..], &["migrate"], &["migrate", "--check"], &["user", "list"], &["key", "list"]] {
                let finished = home.run(arguments);
                assert!(finished.failed(1).contains(expected), "{arguments:?}: {finished:?}");
                assert_eq!(finished.stdout, "");
            }
            assert_eq!(recorded(&home), before);
            execute(&home, undo);
        }
        assert_eq!(recorded(&home), ours);
        home.start(&[]);
    }
}

in_both_homes! {
    fn what_was_counted_before_an_upgrade_is_there_afterwards(home) {
        let mut home = home;
        home.set("JWT_SECRET", "the-secret-of-access-tokens-of-a-test");
        home.set("JWT_REFRESH_SECRET", "the-secret-of-refresh-tokens-of-a-test");
        home.set("USAGE_RETENTION", "3650d");
        // As the first version left it.
        let first = if home.database().is_some() { &Postgres::MIGRATIONS[0] } else { &Sqlite::MIGRATIONS[0] };
        execute(&home, first.sql);
        execute(&home, &format!(
            "CREATE TABLE schema_migrations \
             (version BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at TEXT NOT NULL); \
             INSERT INTO schema_migrations VALUES (1, '{}', '{}', '2026-01-01T00:00:00.000Z')",
            first.name, first.checksum()
        ));
        let (ann, key) = ("0192f0c1-0000-7000-8000-000000000001", "0192f0c1-0000-7000-8000-000000000002");
        let no_bytes = if home.database().is_some() { "''" } else { "x''" };
        let hash = "$2b$04$/////////////////////uvqjOVEKXrY7JNW5dF/tLx5kLzpnqcAi";
        execute(&home, &format!(
            "INSERT INTO users (id, email, password_hash, is_active, created_at) \
             VALUES ('{ann}', 'ann@example.com', '{hash}', TRUE, '2026-01-01T00:00:00.000Z'); \
             INSERT INTO api_keys (id, user_id, hash, hint, name, is_active, created_at) \
             VALUES ('{key}', '{ann}', {no_bytes}, 'sk_1a2b…9f0e', 'old', TRUE, '2026-01-01T00:00:00.000Z'); \
             INSERT INTO key_last_use VALUES ('{key}', '2026-01-01T12:34:56.789Z'); \
             INSERT INTO key_usage VALUES ('{key}', '2026-01-01T11:00:00.000Z', 'expired', 1), \
             ('{key}', '2026-01-01T12:00:00.000Z', 'allowed', 7), ('{key}', '2026-01-01T12:00:00.000Z', 'disabled', 2)"
        ));
        home.run(&["migrate"]).succeeded();
        home.run_reading(&["user", "set-password", ann], &format!("{PASSWORD}\n")).succeeded();
        let server = home.start(&[]);
        let form = json!({ "email": "ann@example.com", "password": PASSWORD });
        let ann = account(&server.client().post("/auth/login").json(form).send().json());
        let ask = |target: &str| server.client().get(target).bearer(&ann.access).send().json();
        assert_eq!(ask("/keys")[0]["lastUsedAt"], "2026-01-01T12:34:56.789Z");
        let span = "from=2026-01-01T11:00:00Z&to=2026-01-01T13:00:00Z";
        let point = |start: &str, allowed: u64, disabled: u64, expired: u64| {
            json!({
                "start": start, "allowed": allowed,
                "refused": {
                    "disabled": disabled, "expired": expired, "insufficientScope": 0, "rateLimited": 0,
                },
            })
        };
        assert_eq!(
            ask(&format!("/keys/{key}/usage?{span}"))["series"],
            json!([point("2026-01-01T11:00:00.000Z", 0, 0, 1), point("2026-01-01T12:00:00.000Z", 7, 2, 0)])
        );
    }
}
