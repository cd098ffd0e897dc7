//! PostgreSQL: a pool of connections, each with its statements prepared, and one that listens for changes.

mod connection;
mod connector;
mod findings;
mod link;
mod migrations;
mod notify;
mod pooler;
mod search_path;
mod target;
mod values;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use r2d2::{ManageConnection, NopErrorHandler, Pool, PooledConnection};
use tokio_postgres::types::Type;
use uuid::Uuid;

use self::connection::{Connection, SIGN_OF_LIFE};
use self::connector::{CONNECT, Connector};
use self::notify::Listener;
use self::values::{column_type, row};
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::StoreError;
use crate::memory::changes::Changes;
use crate::outbox::outlet::{CALL, Outlet};
use crate::store::driver::{Column, Driver, Migration, Row, Transaction, Value, unexpected};

pub use self::connection::Patience;
pub use self::target::{PostgresTarget, TlsMode};

/// Connections at most. PostgreSQL allows 100 by default, to all instances together.
const CONNECTIONS: u32 = 20;
/// What may be asked twice is asked of another connection when one is silent for so long.
const FIRST_ANSWER: Duration = Duration::from_millis(1500);

pub struct Postgres {
    pool: Pool<Connections>,
    connector: Arc<Connector>,
    /// For the connection that listens. It bypasses a pooler if `DATABASE_URL_DIRECT` is set.
    direct: Connector,
    /// Whether the log says that the pooler passes no notifications on.
    deaf: AtomicBool,
    outlet: Arc<Outlet>,
}

impl Postgres {
    pub fn connect(target: &PostgresTarget, patience: Patience) -> Result<Postgres, StoreError> {
        let connector = Arc::new(Connector::new(target, patience)?);
        // One connection before all others, so that its error is not hidden behind the pool's.
        let first = Mutex::new(Some(connector.connect()?));
        let pool = Pool::builder()
            .max_size(CONNECTIONS)
            .min_idle(Some(match patience {
                Patience::OfAClient => 1,
                Patience::Endless => 0,
            }))
            .test_on_check_out(false)
            .connection_timeout(CONNECT)
            // The error goes to the caller that waits for a connection, who logs it.
            .error_handler(Box::new(NopErrorHandler))
            .build(Connections { connector: connector.clone(), first })
            .map_err(|error| StoreError::Unavailable(format!("PostgreSQL: {error}")))?;
        let direct = Connector::new(target.direct(), Patience::OfAClient)?;
        Ok(Postgres { pool, connector, direct, deaf: AtomicBool::new(false), outlet: Arc::default() })
    }

    /// Delivers through this outlet. Until then nothing is delivered.
    pub fn with_outlet(self, outlet: Arc<Outlet>) -> Postgres {
        Postgres { outlet, ..self }
    }

    /// Refuses to go on if another connection leads to another schema: migrations and notifications would miss the
    /// tables.
    pub(crate) fn check_schema(&self, direct: &Postgres) -> Result<(), StoreError> {
        let [own, other] = [self, direct].map(|one| one.connector.schema());
        if own == other {
            return Ok(());
        }
        Err(StoreError::Internal(format!(
            "DATABASE_URL leads to the schema {own}, and DATABASE_URL_DIRECT to {other}; give both the same search_path"
        )))
    }

    /// A connection of the pool that can be expected to answer.
    fn connection(&self, deadline: Option<Instant>) -> Result<PooledConnection<Connections>, StoreError> {
        loop {
            let patience = deadline.map_or(CONNECT, |at| at.saturating_duration_since(Instant::now()).min(CONNECT));
            let connection = self.pool.get_timeout(patience);
            let mut connection = connection.map_err(|error| StoreError::Unavailable(format!("PostgreSQL: {error}")))?;
            if self.connector.trusts(&mut connection, deadline) {
                connection.set_deadline(deadline);
                return Ok(connection);
            }
            connection.broken = true;
        }
    }

    /// Does something that may be done twice, and returns the connection as well. A connection may have died in the
    /// pool (after a restart of the server, all have) or be silent, which its first use shows: then another one is
    /// tried.
    fn begin<T>(
        &self,
        act: impl Fn(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<(PooledConnection<Connections>, T), StoreError> {
        let (started, deadline) = (Instant::now(), self.connector.deadline());
        let mut patience = deadline.map(|deadline| deadline.min(started + FIRST_ANSWER));
        loop {
            let mut connection = self.connection(deadline)?;
            if connection.is_pooled() {
                // Through a pooler, silence may mean that we wait in its queue.
                patience = deadline;
            }
            connection.set_deadline(patience);
            let error = match act(&mut connection) {
                Ok(value) => {
                    connection.set_deadline(deadline);
                    return Ok((connection, value));
                }
                Err(error) => error,
            };
            let again = if connection.was_silent() {
                patience < deadline
            } else {
                !connection.is_open() && started.elapsed() < CONNECT
            };
            if !again {
                return Err(error);
            }
            if connection.was_silent() {
                patience = deadline;
            }
        }
    }
}

/// Opens connections for the pool.
struct Connections {
    connector: Arc<Connector>,
    /// The connection that is open already.
    first: Mutex<Option<Connection>>,
}

impl ManageConnection for Connections {
    type Connection = Connection;
    type Error = StoreError;

    fn connect(&self) -> Result<Connection, StoreError> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.map_or_else(|| self.connector.connect(), Ok)
    }

    /// Not checked here: a check costs a round trip before each use. See [`Postgres::begin`] for what is done instead.
    fn is_valid(&self, _: &mut Connection) -> Result<(), StoreError> {
        Ok(())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.broken || !connection.is_open()
    }
}

/// How many rows one statement is given.
const ROWS: usize = 4096;

impl Driver for Postgres {
    type Link = Listener;
    /// [`Driver::listen`] itself waits for notifications.
    const PAUSE: Duration = Duration::ZERO;

    const MIGRATIONS: &'static [Migration] = migrations::ALL;
    const FIND_RELATIONS: &'static str = "WITH relations AS (\
            SELECT pg_class.oid, CASE WHEN nspname = current_schema() THEN relname::text \
                ELSE nspname::text || '.' || relname::text END AS name \
            FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace) \
        SELECT name, attname::text, 'the schema ' || current_schema()::text \
        FROM relations LEFT JOIN pg_attribute ON attrelid = relations.oid AND attnum > 0 AND NOT attisdropped \
        WHERE name = ANY($1)";
    const ELSEWHERE: &'static str = "Let Keyward have a database of its own, or a schema in this one: run CREATE SCHEMA \
        keyward, and end DATABASE_URL with ?options=-csearch_path%3Dkeyward";
    // A migration may take its time. The number is arbitrary. Other schemas have locks of their own; that of `public` is
    // the one of earlier versions.
    const LOCK_SCHEMA: Option<&'static str> = Some(
        "SET LOCAL statement_timeout = 0; \
        SELECT pg_advisory_xact_lock(7739562938471253 + CASE nspname WHEN 'public' THEN 0 ELSE oid::bigint END) \
        FROM pg_namespace WHERE nspname = current_schema()",
    );

    fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    fn query(&self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        rows(self.begin(|connection| connection.query(sql, parameters))?.1)
    }

    fn execute(&self, sql: &'static str, parameters: &[Value]) -> Result<u64, StoreError> {
        self.connection(self.connector.deadline())?.execute(sql, parameters, None)
    }

    fn now(&self, clock: &Clock) -> Result<Timestamp, StoreError> {
        Ok(self.begin(|connection| now(connection, clock))?.1)
    }

    fn transaction<T>(
        &self,
        work: impl FnOnce(&mut dyn Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (mut connection, ()) = self.begin(Connection::begin)?;
        // Until it is known how the transaction ended. If `work` panics, it stays so, and the pool closes the
        // connection.
        connection.broken = true;
        let mut begun = Begun { connection: &mut connection, outlet: &self.outlet, wakes: false };
        let outcome = work(&mut begun);
        let wakes = begun.wakes;
        let end = connection.end(if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" });
        if wakes && outcome.is_ok() {
            // Also if it is unknown how it ended.
            self.outlet.wake();
        }
        match (outcome, end) {
            (Ok(value), Ok(())) => {
                connection.broken = false;
                Ok(value)
            }
            (Ok(_), Err(error)) => Err(error),
            (Err(error), end) => {
                connection.broken = end.is_err() || matches!(error, StoreError::Unavailable(_));
                Err(error)
            }
        }
    }

    fn listen(&self, link: &mut Option<Listener>, changes: &Changes) -> Result<(), StoreError> {
        let listener = match link {
            Some(listener) => listener,
            None => link.insert(Listener::start(&self.direct, changes)?),
        };
        let elsewhere = |script: &str| {
            self.connection(Some(Instant::now() + SIGN_OF_LIFE)).and_then(|mut other| other.script(script))
        };
        let outcome = listener.listen(elsewhere, &self.deaf, changes, &self.outlet);
        if listener.was_silent() {
            // The whole server may be silent.
            self.connector.notice_silence();
        }
        outcome
    }
}

/// A transaction on a connection.
struct Begun<'a> {
    connection: &'a mut Connection,
    outlet: &'a Outlet,
    /// Whether its commit wakes the deliverer.
    wakes: bool,
}

impl Transaction for Begun<'_> {
    fn query(&mut self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        rows(self.connection.query(sql, parameters)?)
    }

    fn execute(&mut self, sql: &'static str, parameters: &[Value]) -> Result<u64, StoreError> {
        self.connection.execute(sql, parameters, None)
    }

    fn execute_with_rows(
        &mut self,
        sql: &'static str,
        columns: &'static [Column],
        rows: &mut dyn Iterator<Item = Vec<Value>>,
    ) -> Result<(), StoreError> {
        let arrays = columns.iter().enumerate().map(|(index, column)| {
            let kind = match column {
                Column::Int => "bigint",
                Column::Text => "text",
                Column::Uuid => "uuid",
                Column::Timestamp => "timestamptz",
            };
            format!("${}::{kind}[]", index + 1)
        });
        let given = format!("SELECT * FROM unnest({})", arrays.collect::<Vec<_>>().join(", "));
        let sql = sql.replace("ROWS", &given);
        let types: Vec<Type> = columns.iter().map(column_type).collect();
        // Few enough rows at once that each statement is done before its timeout.
        loop {
            let mut arrays = vec![Vec::new(); columns.len()];
            for row in (&mut *rows).take(ROWS) {
                arrays.iter_mut().zip(row).for_each(|(array, value)| array.push(value));
            }
            if arrays.iter().all(Vec::is_empty) {
                return Ok(());
            }
            self.connection.execute(&sql, &arrays.into_iter().map(Value::List).collect::<Vec<_>>(), Some(&types))?;
        }
    }

    fn script(&mut self, sql: &str) -> Result<(), StoreError> {
        self.connection.script(sql)
    }

    fn outlet(&self) -> &Outlet {
        self.outlet
    }

    fn wake_deliverers(&mut self) -> Result<(), StoreError> {
        // Not by every commit: those that notify wait for each other.
        if !self.wakes && !self.outlet.is_served() {
            self.notify(CALL)?;
        }
        self.wakes = true;
        Ok(())
    }

    fn now(&mut self, clock: &Clock) -> Result<Timestamp, StoreError> {
        now(self.connection, clock)
    }

    fn notify(&mut self, change: Uuid) -> Result<(), StoreError> {
        notify::notify(self.connection, change)
    }
}

fn now(connection: &mut Connection, clock: &Clock) -> Result<Timestamp, StoreError> {
    if !clock.is_the_systems() {
        return Ok(clock.now());
    }
    let rows = rows(connection.query("SELECT clock_timestamp()", &[])?)?;
    rows.into_iter().next().map_or_else(|| Err(unexpected(0)), |mut row| row.timestamp(0))
}

fn rows(rows: Vec<tokio_postgres::Row>) -> Result<Vec<Row>, StoreError> {
    rows.iter().map(row).collect()
}
