//! What the stores promise: several servers on one database, restarts, databases that are not ours, and a store that
//! is away.

mod away;
mod contents;
mod deleting;
mod migrations;
mod postgres_tls;
mod schemas;
mod sharing;
mod strangers;

use keyward::store::driver::Driver;
use keyward::store::postgres::Postgres;
use keyward::store::sqlite::Sqlite;
use keyward_harness::program::Home;
use keyward_harness::service::{Account, Service};
use serde_json::{Value, json};

/// A key of this account's.
struct Key {
    id: String,
    key: String,
}

#[track_caller]
fn new_key(service: &Service, owner: &Account) -> Key {
    key(&service.create_key(&owner.access, json!({ "name": "ci" })))
}

fn key(made: &Value) -> Key {
    let text = |name: &str| made[name].as_str().unwrap().to_string();
    Key { id: text("id"), key: text("key") }
}

/// Runs statements that both databases understand, past the program.
fn execute(home: &Home, statements: &str) {
    match home.database() {
        Some(database) => database.client().batch_execute(statements).unwrap(),
        None => rusqlite::Connection::open(home.path("keyward.db")).unwrap().execute_batch(statements).unwrap(),
    }
}

/// The recorded migrations: version, name and checksum of each.
fn recorded(home: &Home) -> Vec<String> {
    const SELECT: &str = "SELECT version || ' ' || name || ' ' || checksum FROM schema_migrations ORDER BY version";
    match home.database() {
        Some(database) => database.client().query(SELECT, &[]).unwrap().iter().map(|row| row.get(0)).collect(),
        None => {
            let connection = rusqlite::Connection::open(home.path("keyward.db")).unwrap();
            let mut statement = connection.prepare(SELECT).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        }
    }
}

/// A database as it was before the migration of this version.
pub(super) fn make_before(home: &Home, version: i64) {
    execute(
        home,
        "CREATE TABLE schema_migrations \
         (version BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at TEXT NOT NULL)",
    );
    let migrations = if home.database().is_some() { Postgres::MIGRATIONS } else { Sqlite::MIGRATIONS };
    for migration in migrations.iter().filter(|migration| migration.version < version) {
        execute(home, migration.sql);
        execute(
            home,
            &format!(
                "INSERT INTO schema_migrations VALUES ({}, '{}', '{}', '2026-01-01T00:00:00.000Z')",
                migration.version,
                migration.name,
                migration.checksum()
            ),
        );
    }
}
