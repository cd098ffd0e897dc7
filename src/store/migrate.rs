//! Brings a database's schema up to this binary: migrations in order, each in one transaction, recorded with a
//! checksum. Several instances may start at once; a database that is newer than the binary is refused.

use super::driver::{Driver, Migration, Row, Transaction, Value};
use super::spellings;
use super::strangers::{Found, Query};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;

/// The migrations that a database lacks.
#[derive(Debug, PartialEq, Eq)]
pub struct Pending {
    /// Their titles (`0001_name`), in order.
    pub migrations: Vec<String>,
}

impl Pending {
    /// Those that a database that does not exist lacks.
    pub fn all<D: Driver>() -> Pending {
        Pending { migrations: D::MIGRATIONS.iter().map(Migration::title).collect() }
    }
}

/// Returns what [`migrate`] would apply; changes nothing.
pub(crate) fn check<D: Driver>(driver: &D) -> Result<Pending, StoreError> {
    let missing = missing::<D>(&mut |sql, parameters| driver.query(sql, parameters))?;
    Ok(Pending { migrations: missing.iter().map(Migration::title).collect() })
}

/// Applies the migrations that are missing, and returns them.
pub fn migrate<D: Driver>(driver: &D, now: Timestamp) -> Result<Pending, StoreError> {
    let mut done = Vec::new();
    // Each turn looks again: another instance may have applied the migration meanwhile.
    while let Some(title) = driver.transaction(|transaction| apply_next::<D>(transaction, now, done.is_empty()))? {
        done.push(title);
    }
    Ok(Pending { migrations: done })
}

/// The migrations that a database lacks. Refuses one that is another program's, or whose history is not ours.
pub(crate) fn missing<D: Driver>(query: Query<'_>) -> Result<&'static [Migration], StoreError> {
    let found = Found::look::<D>(query)?;
    let mut applied = Vec::new();
    if found.has_history() {
        applied = self::applied(query(SELECT_APPLIED, &[])?).map_err(|_| found.refuse_history::<D>())?;
        if applied.first().is_some_and(|first| D::MIGRATIONS.first().is_some_and(|ours| ours.name != first.name)) {
            return Err(found.refuse_history::<D>());
        }
    }
    let missing = pending::<D>(&applied)?;
    found.check::<D>(applied.len(), found.has_history())?;
    Ok(missing)
}

const SELECT_APPLIED: &str = "SELECT version, name, checksum FROM schema_migrations ORDER BY version";

/// `is_first`: it is not known yet whose database this is.
fn apply_next<D: Driver>(
    transaction: &mut dyn Transaction,
    now: Timestamp,
    is_first: bool,
) -> Result<Option<String>, StoreError> {
    if let Some(lock) = D::LOCK_SCHEMA {
        transaction.script(lock)?;
    }
    let missing = match is_first {
        true => missing::<D>(&mut |sql, parameters| transaction.query(sql, parameters))?,
        false => pending::<D>(&applied(transaction.query(SELECT_APPLIED, &[])?)?)?,
    };
    let Some(next) = missing.first() else { return Ok(None) };
    transaction.script(
        "CREATE TABLE IF NOT EXISTS schema_migrations \
         (version BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at TEXT NOT NULL)",
    )?;
    transaction.script(next.sql)?;
    if next.version == spellings::MIGRATION {
        spellings::note(transaction)?;
    }
    transaction.execute(
        "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)",
        &[
            Value::Int(next.version),
            Value::Text(next.name.to_string()),
            Value::Text(next.checksum()),
            Value::Text(now.to_string()),
        ],
    )?;
    Ok(Some(next.title()))
}

struct Applied {
    version: i64,
    name: String,
    checksum: String,
}

fn applied(rows: Vec<Row>) -> Result<Vec<Applied>, StoreError> {
    rows.into_iter()
        .map(|mut row| Ok(Applied { version: row.int(0)?, name: row.text(1)?, checksum: row.text(2)? }))
        .collect()
}

/// The migrations that follow the applied ones. Refuses a database whose history is not ours.
fn pending<D: Driver>(applied: &[Applied]) -> Result<&'static [Migration], StoreError> {
    for (index, step) in applied.iter().enumerate() {
        let Some(known) = D::MIGRATIONS.get(index) else {
            return Err(StoreError::Internal(format!(
                "the database is newer than this binary: it has migration {:04}_{}; use the version that applied it, \
                 or a later one",
                step.version, step.name
            )));
        };
        if known.version != step.version || known.checksum() != step.checksum {
            return Err(StoreError::Internal(format!(
                "the database's migration {:04}_{} is not the {} of this binary; restore a backup, or use the version \
                 that applied it",
                step.version,
                step.name,
                known.title()
            )));
        }
    }
    Ok(&D::MIGRATIONS[applied.len()..])
}
