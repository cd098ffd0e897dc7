//! Converts our values to PostgreSQL's and back, and its errors to ours.

use std::error::Error as _;
use std::sync::LazyLock;

use bytes::BytesMut;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::store::driver::{Column, Row, Value};

/// A type that PostgreSQL infers by itself.
static UNSPECIFIED: LazyLock<Type> =
    LazyLock::new(|| Type::new("unspecified".to_string(), 0, Kind::Pseudo, String::new()));

/// The type of a parameter of a statement that is not prepared.
pub(crate) fn parameter_type(value: &Value) -> Type {
    match value {
        Value::Null => UNSPECIFIED.clone(),
        Value::Bool(_) => Type::BOOL,
        Value::Int(_) => Type::INT8,
        Value::Text(_) => Type::TEXT,
        Value::Bytes(_) => Type::BYTEA,
        Value::Uuid(_) => Type::UUID,
        Value::Timestamp(_) => Type::TIMESTAMPTZ,
        Value::List(items) => match items.iter().find(|item| !matches!(item, Value::Null)) {
            Some(Value::Bool(_)) => Type::BOOL_ARRAY,
            Some(Value::Int(_)) => Type::INT8_ARRAY,
            Some(Value::Text(_)) => Type::TEXT_ARRAY,
            Some(Value::Bytes(_)) => Type::BYTEA_ARRAY,
            Some(Value::Uuid(_)) => Type::UUID_ARRAY,
            Some(Value::Timestamp(_)) => Type::TIMESTAMPTZ_ARRAY,
            _ => UNSPECIFIED.clone(),
        },
    }
}

/// The type of the array that carries a column of given rows.
pub(crate) fn column_type(column: &Column) -> Type {
    match column {
        Column::Int => Type::INT8_ARRAY,
        Column::Text => Type::TEXT_ARRAY,
        Column::Uuid => Type::UUID_ARRAY,
        Column::Timestamp => Type::TIMESTAMPTZ_ARRAY,
    }
}

pub(crate) fn references(parameters: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    parameters.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

pub(crate) fn row(row: &tokio_postgres::Row) -> Result<Row, StoreError> {
    let columns = row.columns().iter().enumerate();
    columns.map(|(index, column)| value(row, index, column.type_())).collect::<Result<_, _>>().map(Row).map_err(fault)
}

fn value(row: &tokio_postgres::Row, column: usize, kind: &Type) -> Result<Value, tokio_postgres::Error> {
    let value = match *kind {
        Type::BOOL => row.try_get::<_, Option<bool>>(column)?.map(Value::Bool),
        Type::INT8 => row.try_get::<_, Option<i64>>(column)?.map(Value::Int),
        Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(column)?.map(Value::Bytes),
        Type::UUID => row.try_get::<_, Option<Uuid>>(column)?.map(Value::Uuid),
        Type::TIMESTAMPTZ => row
            .try_get::<_, Option<chrono::DateTime<chrono::Utc>>>(column)?
            .map(|instant| Value::Timestamp(Timestamp::from(instant))),
        _ => row.try_get::<_, Option<String>>(column)?.map(Value::Text),
    };
    Ok(value.unwrap_or(Value::Null))
}

impl ToSql for Value {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Bool(truth) => truth.to_sql_checked(kind, out),
            Value::Int(number) => number.to_sql_checked(kind, out),
            Value::Text(text) => text.to_sql_checked(kind, out),
            Value::Bytes(bytes) => bytes.to_sql_checked(kind, out),
            Value::Uuid(uuid) => uuid.to_sql_checked(kind, out),
            Value::Timestamp(timestamp) => timestamp.to_datetime().to_sql_checked(kind, out),
            Value::List(items) => items.to_sql_checked(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Whether the error shows an unnoticed pooler: a statement was prepared in another session, or this session has
/// statements of another client.
pub(crate) fn tells_of_a_pooler(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        [
            SqlState::INVALID_SQL_STATEMENT_NAME,
            SqlState::DUPLICATE_PSTATEMENT,
            SqlState::INVALID_CURSOR_NAME,
            SqlState::PROTOCOL_VIOLATION,
        ]
        .contains(code)
    })
}

pub(crate) fn fault(error: tokio_postgres::Error) -> StoreError {
    if let Some(server) = error.as_db_error() {
        let code = server.code();
        let text = format!("PostgreSQL: {} {}: {}", server.severity(), code.code(), server.message());
        let text = without_controls(&text);
        return match code {
            &SqlState::UNIQUE_VIOLATION => StoreError::Conflict(text),
            // A standby after a failover, and errors that may pass.
            &SqlState::READ_ONLY_SQL_TRANSACTION
            | &SqlState::QUERY_CANCELED
            | &SqlState::LOCK_NOT_AVAILABLE
            | &SqlState::T_R_SERIALIZATION_FAILURE
            | &SqlState::T_R_DEADLOCK_DETECTED
            | &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => StoreError::Unavailable(text),
            // A prepared statement no longer fits: another version has changed a table.
            &SqlState::FEATURE_NOT_SUPPORTED if server.message().starts_with("cached plan") => {
                StoreError::Unavailable(text)
            }
            _ if tells_of_a_pooler(&error) => StoreError::Unavailable(text),
            // Connection exceptions, insufficient resources, operator intervention, system errors.
            _ if ["08", "53", "57", "58"].iter().any(|class| code.code().starts_with(class)) => {
                StoreError::Unavailable(text)
            }
            _ => StoreError::Internal(text),
        };
    }
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    let text = without_controls(&format!("PostgreSQL: {error}{cause}"));
    let connection_is_gone = error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>());
    if connection_is_gone { StoreError::Unavailable(text) } else { StoreError::Internal(text) }
}

/// The text comes from the server and goes to terminals and logs.
pub(crate) fn without_controls(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
