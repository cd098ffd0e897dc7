//! A schema of Keyward's own in a database of PostgreSQL's that it shares with others.

use keyward_harness::http_client::{Client, PATIENCE};
use keyward_harness::postgres_cluster::{Database, available};
use keyward_harness::program::Home;
use keyward_harness::service::{Backend, SOON, within};
use postgres::fallible_iterator::FallibleIterator;
use serde_json::json;

/// A home on this database, in a schema of its own.
fn home_in(database: &Database, schema: &str) -> Home {
    let mut home = Home::fresh(Backend::Sqlite);
    home.set("JWT_SECRET", "the-secret-of-access-tokens-of-a-test");
    home.set("JWT_REFRESH_SECRET", "the-secret-of-refresh-tokens-of-a-test");
    home.set("DATABASE_URL", &format!("{}?options=-csearch_path%3D{schema}", database.url()));
    home
}

/// The tables in this schema.
fn tables(database: &Database, schema: &str) -> i64 {
    let count = "SELECT count(*) FROM pg_tables WHERE schemaname = $1";
    database.client().query_one(count, &[&schema]).unwrap().get(0)
}

/// Signs up, makes a key, has it verified, and revokes it.
fn revoke_a_key(client: &Client, email: &str) -> String {
    let ann = client.sign_up(email);
    let key = client.create_key(&ann.access, json!({ "name": "ci" }));
    assert_eq!(client.key_status(key["key"].as_str().unwrap()), 200);
    let id = key["id"].as_str().unwrap().to_string();
    assert_eq!(client.delete(&format!("/keys/{id}")).bearer(&ann.access).send().status, 200);
    assert_eq!(client.key_status(key["key"].as_str().unwrap()), 401);
    id
}

#[test]
fn beside_another_programs_tables_it_has_a_schema_of_its_own() {
    if !available() {
        return;
    }
    let database = Database::fresh();
    database.client().batch_execute("CREATE TABLE users (id INTEGER); CREATE SCHEMA keyward").unwrap();
    let home = home_in(&database, "keyward");
    home.run(&["migrate"]).succeeded();
    let server = home.start(&[]);
    revoke_a_key(&server.client(), "ann@example.com");
    assert!(home.run(&["user", "list"]).succeeded().contains("ann@example.com"));
    home.run(&["user", "deactivate", "ann@example.com"]).succeeded();
    let said = server.stop().stderr;
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    assert_eq!(tables(&database, "public"), 1);
    assert!(tables(&database, "keyward") > 5);
    // Other options of the URL are sent as they are.
    let mut home = home;
    let url = format!("{}%20-cwork_mem%3Dnonsense", home.setting("DATABASE_URL").unwrap());
    home.set("DATABASE_URL", &url);
    assert!(home.run(&["user", "list"]).failed(1).contains("work_mem"));
}

#[test]
fn a_name_with_capitals_and_spaces_is_a_schema_too() {
    if !available() {
        return;
    }
    let database = Database::fresh();
    database.client().batch_execute("CREATE SCHEMA \"Key \"\"ward\"").unwrap();
    let home = home_in(&database, "%22Key%5C%20%22%22ward%22");
    let server = home.start(&[]);
    revoke_a_key(&server.client(), "ann@example.com");
    assert_eq!((tables(&database, "public"), tables(&database, "Key \"ward") > 5), (0, true));
}

#[test]
fn a_schema_that_does_not_exist_is_named_with_what_makes_it() {
    if !available() {
        return;
    }
    let database = Database::fresh();
    for path in ["keyward", "keyward,public"] {
        let home = home_in(&database, path);
        for arguments in [&[][..], &["migrate"], &["migrate", "--check"], &["user", "list"]] {
            let finished = home.run(arguments);
            let line = finished.failed(1);
            assert!(line.contains("the schema keyward of search_path does not exist"), "{line}");
            assert!(line.contains("CREATE SCHEMA \"keyward\" AUTHORIZATION \"keyward\""), "{line}");
        }
        assert_eq!(tables(&database, "public"), 0);
    }
    database.client().batch_execute("CREATE SCHEMA \"keyward\" AUTHORIZATION \"keyward\"").unwrap();
    home_in(&database, "keyward").run(&["migrate"]).succeeded();
}

#[test]
fn the_search_path_of_the_role_or_the_database_counts_as_well() {
    if !available() {
        return;
    }
    let database = Database::fresh();
    let name = database.name();
    database.client().batch_execute(&format!("ALTER DATABASE {name} SET search_path = auth_tables")).unwrap();
    let mut home = home_in(&database, "");
    home.set("DATABASE_URL", &database.url());
    let finished = home.run(&["migrate"]);
    assert!(finished.failed(1).contains("CREATE SCHEMA \"auth_tables\""), "{finished:?}");
    database.client().batch_execute("CREATE SCHEMA auth_tables").unwrap();
    let server = home.start(&[]);
    revoke_a_key(&server.client(), "ann@example.com");
    assert_eq!((tables(&database, "public"), tables(&database, "auth_tables") > 5), (0, true));
}

#[test]
fn a_direct_address_that_leads_to_another_schema_is_refused_before_it_is_used() {
    if !available() {
        return;
    }
    let database = Database::fresh();
    let mut home = home_in(&database, "");
    home.set("DATABASE_URL", &database.url());
    // By the settings of a database, because those of a role count for all tests.
    let elsewhere = Database::fresh();
    let set = format!("CREATE SCHEMA other; ALTER DATABASE {} SET search_path = other", elsewhere.name());
    set.split("; ").for_each(|statement| elsewhere.client().batch_execute(statement).unwrap());
    home.set("DATABASE_URL_DIRECT", &elsewhere.url());
    for arguments in [&[][..], &["migrate"]] {
        let finished = home.run(arguments);
        let line = finished.failed(1);
        let expected = "DATABASE_URL leads to the schema public, and DATABASE_URL_DIRECT to other;";
        assert!(line.contains(expected), "{arguments:?}: {line}");
    }
    assert_eq!((tables(&database, "public"), tables(&elsewhere, "other")), (0, 0));
}

#[test]
fn two_installations_in_one_database_neither_see_nor_hear_each_other() {
    if !available() {
        return;
    }
    let database = Database::fresh();
    database.client().batch_execute("CREATE SCHEMA other").unwrap();
    let (public, other) = (home_in(&database, "public"), home_in(&database, "other"));
    let (here, there) = (public.start(&[]), other.start(&[]));
    // What the instances in the schema `public` hear.
    let mut listener = database.client();
    listener.batch_execute("LISTEN keyward_changes").unwrap();
    let elsewhere = revoke_a_key(&there.client(), "ann@example.com");
    let revoked = revoke_a_key(&here.client(), "ann@example.com");
    let mut notifications = listener.notifications();
    let mut notifications = notifications.timeout_iter(PATIENCE);
    let mut heard = Vec::new();
    while heard.last() != Some(&revoked) {
        heard.push(notifications.next().unwrap().expect("a notification").payload().to_string());
    }
    assert!(!heard.contains(&elsewhere), "{heard:?}");

    // Within one schema they hear each other at once.
    let second = other.start(&[]);
    let ann = there.client().log_in("ann@example.com");
    let key = there.client().create_key(&ann.access, json!({ "name": "ci" }));
    let text = key["key"].as_str().unwrap();
    assert_eq!(second.client().key_status(text), 200);
    let path = format!("/keys/{}", key["id"].as_str().unwrap());
    assert_eq!(there.client().delete(&path).bearer(&ann.access).send().status, 200);
    within(SOON, "the other instance refuses the key", || second.client().key_status(text) == 401);
}

#[test]
fn nobody_waits_for_a_migration_in_another_schema() {
    if !available() {
        return;
    }
    let database = Database::fresh();
    database.client().batch_execute("CREATE SCHEMA other").unwrap();
    home_in(&database, "public").run(&["migrate"]).succeeded();
    let lock = "SELECT classid::bigint << 32 | objid::bigint FROM pg_locks WHERE locktype = 'advisory'";
    // As an instance in `public` that migrates holds it.
    let mut migrating = database.client();
    migrating.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(7739562938471253)").unwrap();
    let held: i64 = database.client().query_one(lock, &[]).unwrap().get(0);
    assert_eq!(held, 7_739_562_938_471_253);
    home_in(&database, "other").run(&["migrate"]).succeeded();
    // In the same schema it waits.
    let home = home_in(&database, "public");
    let mut waiting = home.command(&["migrate"]).spawn().unwrap();
    let mut observer = database.client();
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    within(PATIENCE, "it waits for the lock", || observer.query_one(waits, &[]).unwrap().get::<_, i64>(0) == 1);
    migrating.batch_execute("COMMIT").unwrap();
    assert!(waiting.wait().unwrap().success());
}
