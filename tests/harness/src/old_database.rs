//! Databases as an earlier version left them, for stories about upgrades.

use std::path::{Path, PathBuf};

use crate::service::Service;

/// Tables whose rows are taken along, those that others refer to first.
const TABLES: [&str; 5] = ["users", "sessions", "api_keys", "key_hours", "events"];

/// Stops the service and puts its users, sessions and keys into a database that has only the migrations up to `version`.
pub fn take_back(service: &mut Service, version: u32) {
    service.stop();
    let mut statements = String::new();
    if let Some(file) = service.sqlite_file() {
        let later = file.with_extension("later");
        std::fs::rename(&file, &later).unwrap();
        statements += &format!("ATTACH '{}' AS later;", later.display());
        statements += &migrations("sqlite", version);
    } else {
        statements += "ALTER SCHEMA public RENAME TO later; CREATE SCHEMA public;";
        statements += &migrations("postgres", version);
    }
    statements += &format!(
        "CREATE TABLE schema_migrations \
         (version BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at TEXT NOT NULL);
         INSERT INTO schema_migrations SELECT * FROM later.schema_migrations WHERE version <= {version};"
    );
    service.execute(&statements);
    let statements: String = TABLES
        .map(|table| {
            let columns = columns(service, table);
            format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM later.{table};")
        })
        .concat();
    match service.sqlite_file() {
        Some(file) => {
            let later = file.with_extension("later");
            service.execute(&format!("ATTACH '{}' AS later; {statements}", later.display()));
            std::fs::remove_file(later).unwrap();
        }
        None => service.execute(&format!("{statements} DROP SCHEMA later CASCADE;")),
    }
}

/// The scripts of the migrations up to `version`, in order.
fn migrations(database: &str, version: u32) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sql").join(database);
    let mut files: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let number = |file: &Path| -> u32 { file.file_name().unwrap().to_str().unwrap()[..4].parse().unwrap() };
    let wanted = files.iter().filter(|file| number(file) <= version);
    wanted.map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// The table's columns but those that the database works out.
fn columns(service: &Service, table: &str) -> String {
    let names: Vec<String> = match service.database() {
        Some(database) => {
            let query = "SELECT column_name::TEXT FROM information_schema.columns \
                 WHERE table_schema = 'public' AND table_name = $1 AND is_generated = 'NEVER'";
            database.client().query(query, &[&table]).unwrap().iter().map(|row| row.get(0)).collect()
        }
        None => {
            let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
            let mut statement = file.prepare("SELECT name FROM pragma_table_info(?1)").unwrap();
            let names = statement.query_map([table], |row| row.get(0)).unwrap();
            names.collect::<Result<_, _>>().unwrap()
        }
    };
    names.join(", ")
}
