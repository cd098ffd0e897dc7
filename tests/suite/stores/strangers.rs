//! Databases that another program uses, and databases of earlier versions, which are never taken for such.

use keyward::store::driver::Driver;
use keyward::store::postgres::Postgres;
use keyward::store::sqlite::Sqlite;
use keyward_harness::program::{Home, in_both_homes};

use super::{execute, make_before, recorded};

/// Every command that opens the database.
const COMMANDS: [&[&str]; 6] =
    [&[], &["migrate"], &["migrate", "--check"], &["user", "list"], &["key", "list"], &["events"]];

/// The names and columns of all relations outside PostgreSQL's own schemas; on SQLite the whole file, and those beside it.
fn everything(home: &Home) -> Vec<String> {
    let Some(database) = home.database() else {
        let files = home.files().into_iter();
        return files.map(|name| format!("{name} {}", hex::encode(std::fs::read(home.path(&name)).unwrap()))).collect();
    };
    let query = "SELECT relnamespace::regnamespace || '.' || relname || ' ' || oid || ' ' || xmin || ' ' || coalesce( \
        (SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = pg_class.oid), '') \
        FROM pg_class WHERE relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema') \
        AND relnamespace::regnamespace::text NOT LIKE 'pg_t%' ORDER BY 1";
    database.client().query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// An empty database again.
fn clear(home: &Home) {
    match home.database() {
        Some(_) => {
            execute(home, "DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS auth CASCADE")
        }
        None => home.files().iter().for_each(|name| std::fs::remove_file(home.path(name)).unwrap()),
    }
}

fn migrations(home: &Home) -> usize {
    if home.database().is_some() { Postgres::MIGRATIONS.len() } else { Sqlite::MIGRATIONS.len() }
}

/// Secrets, so that a server of SQLite's needs no file for them.
fn with_secrets(mut home: Home) -> Home {
    home.set("JWT_SECRET", "the-secret-of-access-tokens-of-a-test");
    home.set("JWT_REFRESH_SECRET", "the-secret-of-refresh-tokens-of-a-test");
    home
}

in_both_homes! {
    fn a_database_of_another_program_is_refused_by_every_command_and_stays_as_it_is(home) {
        let users = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT); INSERT INTO users VALUES (1, 'ann');";
        for (tables, expected) in [
            ("", "another program: it already has users."),
            (
                "CREATE TABLE schema_migrations (version VARCHAR(255) PRIMARY KEY); \
                 CREATE TABLE ar_internal_metadata (key TEXT)",
                "Rails (there is ar_internal_metadata): it already has schema_migrations, users.",
            ),
            ("CREATE TABLE schema_migrations (version BIGINT, dirty BOOLEAN)", "a program with golang-migrate"),
            ("CREATE TABLE schema_migrations (version BIGINT, inserted_at TIMESTAMP)", "a program with Ecto (Phoenix)"),
            ("CREATE TABLE django_migrations (id INTEGER)", "Django (there is django_migrations)"),
            ("CREATE TABLE migrations (id INTEGER, migration TEXT, batch INTEGER)", "Laravel (there is migrations)"),
            ("CREATE TABLE _prisma_migrations (id TEXT)", "a program with Prisma"),
            (
                "CREATE TABLE api_keys (id TEXT, \"isActive\" BOOLEAN, \"expiresAt\" TIMESTAMP)",
                "the NestJS service that Keyward replaces (there is api_keys): it already has api_keys, users.",
            ),
            ("CREATE TABLE migrations (id INTEGER, timestamp BIGINT, name TEXT)", "a program with TypeORM (NestJS)"),
            // Its table has all of our columns.
            (
                "CREATE TABLE schema_migrations (version BIGINT, name TEXT, checksum TEXT, applied_at TEXT); \
                 INSERT INTO schema_migrations VALUES (1, 'create_orders', 'x', 'y')",
                "another program: its schema_migrations is not Keyward's.",
            ),
            (
                "CREATE TABLE schema_migrations (version TEXT, name TEXT, checksum TEXT, applied_at TEXT); \
                 INSERT INTO schema_migrations VALUES ('one', 'create_orders', 'x', 'y')",
                "another program: its schema_migrations is not Keyward's.",
            ),
        ] {
            clear(&home);
            execute(&home, &format!("{users} {tables}"));
            let before = everything(&home);
            let commands = if tables.is_empty() { &COMMANDS[..] } else { &[&[][..], &["user", "list"]] };
            for arguments in commands {
                let finished = home.run(arguments);
                let line = finished.failed(1);
                assert!(line.contains(expected), "{arguments:?}: {line}");
                let advice = if home.database().is_some() {
                    "run CREATE SCHEMA keyward, and end DATABASE_URL with ?options=-csearch_path%3Dkeyward"
                } else {
                    "Let KEYWARD_DB name another file"
                };
                assert!(line.contains("Nothing was changed.") && line.contains(advice), "{line}");
                assert_eq!(finished.stdout, "");
                assert_eq!(everything(&home), before, "{arguments:?}");
            }
        }
    }

    fn any_one_of_our_names_is_enough(home) {
        let home = with_secrets(home);
        for relation in [
            "CREATE TABLE schema_migrations (version TEXT)",
            "CREATE TABLE sessions (sid TEXT, sess TEXT, expire TEXT)",
            "CREATE TABLE events (id INTEGER)",
            "CREATE TABLE clicks (id INTEGER); CREATE INDEX events_by_time ON clicks (id)",
            "CREATE TABLE people (id INTEGER); CREATE VIEW users AS SELECT id FROM people",
        ] {
            clear(&home);
            execute(&home, relation);
            let before = everything(&home);
            let finished = home.run(&[]);
            assert!(finished.failed(1).contains("another program") || relation.contains("schema_migrations"), "{finished:?}");
            assert_eq!(everything(&home), before);
        }
    }

    fn other_tables_may_be_there(home) {
        let home = with_secrets(home);
        execute(&home, "CREATE TABLE orders (id INTEGER); CREATE TABLE django_migrations (id INTEGER)");
        home.run(&["migrate"]).succeeded();
        home.start(&[]).stop();
        assert_eq!(recorded(&home).len(), migrations(&home));
    }

    fn capitals_make_another_name_only_where_the_database_says_so(home) {
        let home = with_secrets(home);
        execute(&home, "CREATE TABLE \"Users\" (id INTEGER)");
        let finished = home.run(&["migrate"]);
        match home.database() {
            Some(_) => _ = finished.succeeded(),
            None => assert!(finished.failed(1).contains("already has users"), "{finished:?}"),
        }
    }

    fn a_database_of_any_earlier_version_is_brought_up_to_date(home) {
        let home = with_secrets(home);
        for version in 1..=migrations(&home) {
            clear(&home);
            make_before(&home, version as i64 + 1);
            home.run(&["migrate"]).succeeded();
            assert_eq!(recorded(&home).len(), migrations(&home), "from version {version}");
        }
    }

    fn a_stranger_beside_our_tables_is_refused_before_an_upgrade(home) {
        let home = with_secrets(home);
        make_before(&home, 3);
        execute(&home, "CREATE TABLE events (id INTEGER)");
        let before = everything(&home);
        for arguments in COMMANDS {
            let finished = home.run(arguments);
            let line = finished.failed(1);
            assert!(line.contains("has events of another program beside Keyward's tables"), "{arguments:?}: {line}");
            assert_eq!(everything(&home), before, "{arguments:?}");
        }
        execute(&home, "ALTER TABLE events RENAME TO clicks");
        home.run(&["migrate"]).succeeded();
    }
}
