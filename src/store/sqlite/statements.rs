//! Running statements on a connection: their parameters, rows and errors.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ffi};

use crate::base::error::StoreError;
use crate::store::driver::{Row, Value};

/// Runs a statement without parameters and rows, and keeps it prepared.
pub(super) fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute(()).map(drop)
}

pub(super) fn query(connection: &Connection, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
    // There are no round trips to save, so a list's statement runs once for each item.
    let (sql, rounds): (_, Vec<[&[Value]; 2]>) = match parameters {
        [Value::List(items), others @ ..] => {
            (numbered(sql).replace("= ANY(?1)", "= ?1"), items.chunks(1).map(|item| [item, others]).collect())
        }
        _ => (numbered(sql), vec![[parameters, &[]]]),
    };
    let mut statement = connection.prepare_cached(&sql).map_err(fault)?;
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| value(row.get_ref(column)?)).collect();
    let mut rows = Vec::with_capacity(rounds.len());
    for parameters in rounds {
        for found in
            statement.query_map(rusqlite::params_from_iter(parameters.into_iter().flatten()), row).map_err(fault)?
        {
            rows.push(Row(found.map_err(fault)?));
        }
    }
    Ok(rows)
}

pub(super) fn execute(connection: &Connection, sql: &str, parameters: &[Value]) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached(&numbered(sql)).map_err(fault)?;
    statement.execute(rusqlite::params_from_iter(parameters)).map(|changed| changed as u64).map_err(fault)
}

/// Our `$1` becomes `?1`, the first parameter: SQLite takes `$1` for a name, numbered by its first appearance. `FOR
/// UPDATE` is dropped, because a transaction locks the whole file.
fn numbered(sql: &str) -> String {
    let unlocked = sql.split_once(" FOR UPDATE").map_or(sql, |(statement, _)| statement);
    unlocked.replace('$', "?")
}

fn value(column: ValueRef<'_>) -> rusqlite::Result<Value> {
    Ok(match column {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Text(text) => Value::Text(std::str::from_utf8(text)?.to_string()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
        ValueRef::Real(_) => return Err(rusqlite::Error::InvalidQuery),
    })
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Bool(truth) => ToSqlOutput::from(*truth),
            Value::Int(number) => ToSqlOutput::from(*number),
            Value::Text(text) => ToSqlOutput::from(text.as_str()),
            Value::Bytes(bytes) => ToSqlOutput::from(bytes.as_slice()),
            Value::Uuid(uuid) => ToSqlOutput::from(uuid.to_string()),
            Value::Timestamp(timestamp) => ToSqlOutput::from(timestamp.to_string()),
            Value::List(_) => return Err(rusqlite::Error::InvalidQuery),
        })
    }
}

pub(super) fn fault(error: rusqlite::Error) -> StoreError {
    let text = format!("SQLite: {error}");
    let rusqlite::Error::SqliteFailure(failure, _) = &error else { return StoreError::Internal(text) };
    if matches!(failure.extended_code, ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) {
        return StoreError::Conflict(text);
    }
    match failure.code {
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::DiskFull
        | ErrorCode::ReadOnly
        | ErrorCode::CannotOpen
        | ErrorCode::SystemIoFailure => StoreError::Unavailable(text),
        _ => StoreError::Internal(text),
    }
}
