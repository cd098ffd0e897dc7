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

use super::{execute, make_before, recorded};

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
                    "disabled": disabled, "expired": expired, "forbiddenAddress": 0, "insufficientScope": 0, "rateLimited": 0,
                },
            })
        };
        assert_eq!(
            ask(&format!("/keys/{key}/usage?{span}"))["series"],
            json!([point("2026-01-01T11:00:00.000Z", 0, 0, 1), point("2026-01-01T12:00:00.000Z", 7, 2, 0)])
        );
    }
    fn accounts_whose_e_mails_become_the_same_stay_two_and_are_told_of_once(home) {
        make_before(&home, 11);
        let id = |number: usize| format!("0192f0c1-0000-7000-8000-00000000000{number}");
        let hash = bcrypt::hash(PASSWORD, 4).unwrap();
        let stored = [
            // One is stored as new accounts are, the other is not.
            "ann@b\u{fc}cher.example", "ann@xn--bcher-kva.example",
            // Neither is.
            "eve@\u{ff42}\u{fc}cher.example", "eve@xn--bcher-kva.example",
            // Letters that are not composed, which the oldest versions stored as they were typed.
            "\u{d55c}@example.com", "\u{1112}\u{1161}\u{11ab}@example.com",
            // No other account has the same.
            "bob@xn--bcher-kva.example", "j\u{f6}rg@example.com", "kim@example.com", "kim@xn--zzzzzzzzz.example",
        ];
        for (number, email) in stored.iter().enumerate() {
            execute(&home, &format!(
                "INSERT INTO users (id, email, password_hash, is_active, created_at) \
                 VALUES ('{}', '{email}', '{hash}', TRUE, '2026-01-01T00:00:00.000Z')", id(number)
            ));
        }
        let told = |log: &[String]| {
            log.iter().filter(|line| line.contains("--same-email")).cloned().collect::<Vec<_>>()
        };
        let server = home.start(&[]);
        let [line] = &told(server.log())[..] else { panic!("{:?}", server.log()) };
        assert!(line.contains("6 accounts have an e-mail that is also another account's"), "{line}");
        for number in 0..stored.len() {
            assert_eq!(line.contains(&id(number)), number < 6, "{line}");
        }
        server.stop();
        let server = home.start(&[]);
        assert_eq!(told(server.log()), [""; 0]);

        let account_of = |email: &str| {
            let form = json!({ "email": email, "password": PASSWORD });
            let user = server.client().post("/auth/login").json(form).send().json()["user"].clone();
            (user["id"].as_str().unwrap().to_string(), user["email"].as_str().unwrap().to_string())
        };
        for (number, email) in stored.iter().enumerate() {
            assert_eq!(account_of(email), (id(number), email.to_string()));
        }
        for (other, number) in [
            ("ann@bu\u{308}cher.example", 0), ("ann@\u{ff42}\u{fc}cher.example", 0), ("bob@b\u{fc}cher.example", 6),
            ("eve@b\u{fc}cher.example", 2), ("\u{d55c}@\u{ff45}xample.com", 4),
        ] {
            assert_eq!(account_of(other), (id(number), stored[number].to_string()));
        }
        let sign_up = |email: &str| {
            server.client().post("/auth/signup").json(json!({ "email": email, "password": PASSWORD })).send().status
        };
        for email in stored.iter().chain(&["bob@b\u{fc}cher.example", "eve@b\u{fc}cher.example", "eve@bu\u{308}cher.example"]) {
            assert_eq!(sign_up(email), 409, "{email}");
        }
        let create = ["user", "create", "bob@b\u{fc}cher.example"];
        let refused = home.run_reading(&create, &format!("{PASSWORD}\n"));
        assert!(refused.failed(1).contains("already exists"), "{refused:?}");

        let listed = || {
            let listed = home.run(&["user", "list", "--same-email", "--json"]).succeeded();
            let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
            listed.iter().map(|user| user["email"].as_str().unwrap().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(listed(), stored[..6]);
        home.run(&["user", "delete", stored[1]]).succeeded();
        home.run(&["user", "delete", "bob@b\u{fc}cher.example"]).succeeded();
        assert_eq!(listed(), stored[2..6]);
        assert_eq!(account_of(stored[1]), (id(0), stored[0].to_string()));
        assert_eq!(sign_up(stored[6]), 201);
        assert_eq!(account_of(stored[6]).1, "bob@b\u{fc}cher.example");
    }

    fn many_accounts_are_read_in_parts_at_the_upgrade(home) {
        make_before(&home, 11);
        const MANY: usize = 2500;
        let rows: Vec<String> = (0..MANY).map(|number| format!(
            "('0192f0c1-0000-7000-8000-{number:012x}', 'a{number}@xn--bcher-kva.example', '', TRUE, '2026-01-01T00:00:00.000Z')"
        )).collect();
        execute(&home, &format!("INSERT INTO users (id, email, password_hash, is_active, created_at) VALUES {}", rows.join(",")));
        let pair = "'0192f0c1-0000-7000-9000-000000000000', 'a7@b\u{fc}cher.example', '', TRUE, '2026-01-01T00:00:00.000Z'";
        execute(&home, &format!("INSERT INTO users (id, email, password_hash, is_active, created_at) VALUES ({pair})"));
        // The command tells of them too.
        let finished = home.run(&["migrate"]);
        assert!(finished.stderr.contains("2 accounts have an e-mail that is also another account's"), "{finished:?}");
        assert_eq!(finished.code, Some(0), "{finished:?}");
        for number in [0, 999, 1000, MANY - 1] {
            let shown = home.run(&["user", "show", &format!("a{number}@b\u{fc}cher.example")]).succeeded();
            assert!(shown.contains(&format!("a{number}@xn--bcher-kva.example")), "{shown}");
        }
        assert_eq!(home.run(&["user", "list", "--same-email"]).succeeded().lines().count(), 3);
    }
}
