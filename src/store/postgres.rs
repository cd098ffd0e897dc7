//! PostgreSQL: a pool of connections, each with its statements prepared; TLS as libpq's `sslmode` has it.

use std::collections::HashMap;
use std::error::Error as _;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres::config::{Host, SslMode, TargetSessionAttrs};
use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Config, Statement};
use r2d2::{ManageConnection, NopErrorHandler, Pool, PooledConnection};
use r2d2_postgres::PostgresConnectionManager;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use super::StoreError;
use super::migrate::Migration;
use super::sql::{Column, Driver, Row, Transaction, Value};
use crate::cache::{Change, Changes};
use crate::clock::Timestamp;
use crate::trust::Verifier;

/// Connections at most. PostgreSQL allows 100 by default, to all instances together.
const CONNECTIONS: u32 = 20;
/// How long to wait for a connection, new or free.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a server may take to greet the first connection.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// PostgreSQL gives up a statement before its request is given up, and the locks of an instance that is gone without a
/// word in seconds. Our statements are planned once: planning one anew for its parameters costs more than running it.
const SETTINGS: &str = "SET statement_timeout = '4500ms'; SET idle_in_transaction_session_timeout = '10s'; \
    SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3; \
    SET plan_cache_mode = force_generic_plan";

/// `DB_SSLMODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    Prefer,
    Require,
    VerifyFull,
}

impl TlsMode {
    pub const NAMES: &'static str = "disable, prefer, require or verify-full";

    pub fn parse(text: &str) -> Option<TlsMode> {
        match text {
            "disable" => Some(TlsMode::Disable),
            "prefer" => Some(TlsMode::Prefer),
            "require" => Some(TlsMode::Require),
            "verify-full" => Some(TlsMode::VerifyFull),
            _ => None,
        }
    }
}

/// Where PostgreSQL is and how to talk to it. Its `Debug` form leaves the password out.
#[derive(Clone, Debug)]
pub struct PostgresTarget {
    config: Config,
    tls: TlsMode,
    root_cert: Option<PathBuf>,
}

impl PostgresTarget {
    /// From a URL; `sslmode` and `sslrootcert` in it win over the other arguments. The error says what is wrong with
    /// the URL and repeats nothing of it.
    pub fn from_url(url: &str, mut tls: TlsMode, mut root_cert: Option<PathBuf>) -> Result<PostgresTarget, String> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("does not begin with postgres:// or postgresql://".to_string());
        }
        // The driver knows fewer modes than libpq, so these two are taken out of what it reads.
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut others = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", mode)) => {
                    tls =
                        TlsMode::parse(mode).ok_or(format!("has an unknown sslmode; accepted: {}", TlsMode::NAMES))?;
                }
                Some(("sslrootcert", path)) if path.contains('%') => {
                    return Err("has a percent-encoded sslrootcert; set DB_SSLROOTCERT instead".to_string());
                }
                Some(("sslrootcert", path)) => root_cert = Some(PathBuf::from(path)),
                _ => others.push(parameter),
            }
        }
        let config: Config = format!("{base}?{}", others.join("&"))
            .parse()
            .map_err(|_| "is not a PostgreSQL URL; accepted: postgres://user:password@host:port/name".to_string())?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("names no host; accepted: postgres://user:password@host:port/name".to_string());
        }
        PostgresTarget { config, tls, root_cert }.checked()
    }

    pub fn from_parts(
        host: &str,
        port: u16,
        user: Option<&str>,
        password: Option<&str>,
        name: Option<&str>,
        tls: TlsMode,
        root_cert: Option<PathBuf>,
    ) -> Result<PostgresTarget, String> {
        let mut config = Config::new();
        config.host(host).port(port);
        if let Some(user) = user {
            config.user(user);
        }
        if let Some(password) = password {
            config.password(password);
        }
        if let Some(name) = name {
            config.dbname(name);
        }
        PostgresTarget { config, tls, root_cert }.checked()
    }

    fn checked(mut self) -> Result<PostgresTarget, String> {
        if self.tls == TlsMode::VerifyFull && self.root_cert.is_none() {
            return Err("is to be verified in full, but DB_SSLROOTCERT is not set; accepted: the path of a PEM file, \
                        such as /etc/ssl/certs/ca-certificates.crt"
                .to_string());
        }
        // As with libpq, there is no TLS over a Unix socket.
        let local = self.config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        self.config.ssl_mode(match self.tls {
            _ if local && self.config.get_hostaddrs().is_empty() => SslMode::Disable,
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyFull => SslMode::Require,
        });
        if self.config.get_connect_timeout().is_none() {
            // For each host: when the others are switched off, the last one is reached in time.
            let hosts = self.config.get_hosts().len().max(self.config.get_hostaddrs().len()).max(1);
            self.config.connect_timeout(CONNECT / u32::try_from(hosts).unwrap_or(u32::MAX));
        }
        if self.config.get_tcp_user_timeout().is_none() {
            self.config.tcp_user_timeout(Duration::from_secs(5));
        }
        // A peer that is gone without a word is noticed in seconds, not in the two hours of the default.
        self.config.keepalives_idle(Duration::from_secs(5));
        self.config.keepalives_interval(Duration::from_secs(1));
        self.config.keepalives_retries(3);
        // Of several hosts the one that is written to now. A standby knows neither what was revoked a moment ago nor tells
        // of it.
        self.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if self.config.get_application_name().is_none() {
            self.config.application_name("keyward");
        }
        Ok(self)
    }

    fn tls_config(&self) -> Result<ClientConfig, StoreError> {
        let failed = |error: String| StoreError::Internal(format!("TLS to PostgreSQL: {error}"));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?;
        let mut verifier =
            Verifier { trusted: Vec::new(), chain: None, name: self.tls == TlsMode::VerifyFull, provider };
        if let (Some(path), TlsMode::Require | TlsMode::VerifyFull) = (&self.root_cert, self.tls) {
            let (trusted, roots) = read_roots(path).map_err(failed)?;
            let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), verifier.provider.clone())
                .build()
                .map_err(|error| failed(error.to_string()))?;
            verifier.trusted = trusted;
            verifier.chain = Some(chain);
        }
        Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
    }
}

fn read_roots(path: &PathBuf) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), String> {
    let failed = |error: String| format!("DB_SSLROOTCERT: {}: {error}", path.display());
    let pem = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let trusted = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        // The library's own message repeats a line, which may be a private key's.
        .map_err(|_| failed("is not PEM".to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in &trusted {
        roots.add(certificate.clone()).map_err(|error| failed(error.to_string()))?;
    }
    if trusted.is_empty() { Err(failed("there is no certificate in it".to_string())) } else { Ok((trusted, roots)) }
}

pub struct Postgres {
    pool: Pool<Connections>,
    /// For connections beside the pool's.
    direct: PostgresConnectionManager<MakeRustlsConnect>,
}

impl Postgres {
    pub fn connect(target: &PostgresTarget) -> Result<Postgres, StoreError> {
        let tls = MakeRustlsConnect::new(target.tls_config()?);
        let connections = Connections { inner: PostgresConnectionManager::new(target.config.clone(), tls.clone()) };
        let direct = PostgresConnectionManager::new(target.config.clone(), tls.clone());
        // One connection before all others, so that its error is not hidden behind the pool's.
        first_connection(target, tls)?;
        let pool = Pool::builder()
            .max_size(CONNECTIONS)
            .min_idle(Some(1))
            .test_on_check_out(false)
            .connection_timeout(CONNECT)
            // Whoever waits for a connection is told why he gets none, and tells it.
            .error_handler(Box::new(NopErrorHandler))
            .build(connections)
            .map_err(|error| StoreError::Unavailable(format!("PostgreSQL: {error}")))?;
        Ok(Postgres { pool, direct })
    }

    fn connection(&self) -> Result<PooledConnection<Connections>, StoreError> {
        self.pool.get().map_err(|error| StoreError::Unavailable(format!("PostgreSQL: {error}")))
    }

    /// Does something that may be done twice, on a connection that it gives as well. Those that have died while they lay
    /// in the pool, all of them after a restart of the server, are found out by their first use.
    fn begin<T>(
        &self,
        act: impl Fn(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<(PooledConnection<Connections>, T), StoreError> {
        let started = Instant::now();
        loop {
            let mut connection = self.connection()?;
            match act(&mut connection) {
                Ok(value) => return Ok((connection, value)),
                Err(error) if !connection.client.is_closed() || started.elapsed() >= CONNECT => return Err(error),
                Err(_) => {}
            }
        }
    }
}

/// Whether there is a PostgreSQL at all. The driver's own limit ends with the TCP handshake: one that accepts and says
/// nothing would be waited for for ever.
fn first_connection(target: &PostgresTarget, tls: MakeRustlsConnect) -> Result<(), StoreError> {
    let (config, (sender, receiver)) = (target.config.clone(), mpsc::channel());
    let spawned = std::thread::Builder::new().name("connect".to_string()).spawn(move || {
        let _ = sender.send(config.connect(tls).map(drop).map_err(fault));
    });
    spawned.map_err(|error| StoreError::Internal(format!("PostgreSQL: no thread to connect: {error}")))?;
    receiver
        .recv_timeout(FIRST_ANSWER)
        .unwrap_or_else(|_| Err(StoreError::Unavailable("PostgreSQL: the server does not answer".to_string())))
}

/// Opens connections for the pool.
struct Connections {
    inner: PostgresConnectionManager<MakeRustlsConnect>,
}

struct Connection {
    client: Client,
    statements: HashMap<String, Statement>,
    /// Not to be used again: a transaction may still be open on it, or the server has turned away.
    broken: bool,
}

impl ManageConnection for Connections {
    type Connection = Connection;
    type Error = StoreError;

    fn connect(&self) -> Result<Connection, StoreError> {
        let mut client = self.inner.connect().map_err(fault)?;
        client.batch_execute(SETTINGS).map_err(fault)?;
        Ok(Connection { client, statements: HashMap::new(), broken: false })
    }

    /// To know, one would have to ask the server before each use: see [`Postgres::begin`].
    fn is_valid(&self, _: &mut Connection) -> Result<(), StoreError> {
        Ok(())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.broken || connection.client.is_closed()
    }
}

impl Connection {
    fn prepared(&mut self, sql: &str) -> Result<Statement, postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql)?;
        self.statements.insert(sql.to_string(), statement.clone());
        Ok(statement)
    }

    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        let rows = self.prepared(sql).and_then(|statement| self.client.query(&statement, &references(parameters)));
        self.noting_faults(rows)?.iter().map(row).collect()
    }

    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError> {
        let changed = self.prepared(sql).and_then(|statement| self.client.execute(&statement, &references(parameters)));
        self.noting_faults(changed)
    }

    fn script(&mut self, sql: &str) -> Result<(), StoreError> {
        let done = self.client.batch_execute(sql);
        self.noting_faults(done)
    }

    fn noting_faults<T>(&mut self, outcome: Result<T, postgres::Error>) -> Result<T, StoreError> {
        outcome.map_err(|error| {
            let error = fault(error);
            self.broken |= matches!(error, StoreError::Unavailable(_));
            error
        })
    }
}

fn references(parameters: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    parameters.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

/// The channel of NOTIFY on which instances tell each other of changes: an id, or `all`.
const CHANNEL: &str = "keyward_changes";
/// How long a notification is waited for before the link is tried; also how long the trial may take.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Rows that are given to one statement.
const ROWS: usize = 4096;

impl Driver for Postgres {
    type Link = Client;
    /// It waits for notifications by itself.
    const PAUSE: Duration = Duration::ZERO;

    const MIGRATIONS: &'static [Migration] = &[
        Migration {
            version: 1,
            name: "users_sessions_keys",
            sql: include_str!("../../sql/postgres/0001_users_sessions_keys.sql"),
        },
        Migration { version: 2, name: "key_hours", sql: include_str!("../../sql/postgres/0002_key_hours.sql") },
        Migration { version: 3, name: "events", sql: include_str!("../../sql/postgres/0003_events.sql") },
        Migration { version: 4, name: "key_life", sql: include_str!("../../sql/postgres/0004_key_life.sql") },
        Migration { version: 5, name: "indexes", sql: include_str!("../../sql/postgres/0005_indexes.sql") },
    ];
    const FIND_TABLE: &'static str =
        "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() AND tablename = $1::text";
    // A migration may take its time; the number is any that nobody else uses.
    const LOCK_SCHEMA: Option<&'static str> =
        Some("SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock(7739562938471253)");

    fn query(&self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        Ok(self.begin(|connection| connection.query(sql, parameters))?.1)
    }

    fn execute(&self, sql: &'static str, parameters: &[Value]) -> Result<u64, StoreError> {
        self.connection()?.execute(sql, parameters)
    }

    fn transaction<T>(
        &self,
        work: impl FnOnce(&mut dyn Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // Whatever the database's default is: the statements count on seeing what others have committed.
        let (mut connection, ()) =
            self.begin(|connection| connection.script("BEGIN ISOLATION LEVEL READ COMMITTED"))?;
        // Until it is known how it ended; a panic in `work` leaves it so, and the pool closes the connection.
        connection.broken = true;
        let outcome = work(&mut *connection);
        let end = connection.client.batch_execute(if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" });
        match (outcome, end) {
            (Ok(value), Ok(())) => {
                connection.broken = false;
                Ok(value)
            }
            (Ok(_), Err(error)) => Err(fault(error)),
            (Err(error), end) => {
                connection.broken = end.is_err() || matches!(error, StoreError::Unavailable(_));
                Err(error)
            }
        }
    }

    fn hear(&self, link: &mut Option<Client>, changes: &Changes) -> Result<(), StoreError> {
        let client = match link {
            Some(client) => client,
            None => link.insert(self.listen(changes)?),
        };
        while let Some(said) = client.notifications().timeout_iter(HEARTBEAT).next().map_err(fault)? {
            // `all`, and what a later version may say.
            changes.note(Uuid::try_parse(said.payload()).map_or(Change::Everything, Change::Of));
        }
        // Silence and death look the same to the iterator.
        client.is_valid(HEARTBEAT).map_err(fault)
    }
}

impl Postgres {
    fn listen(&self, changes: &Changes) -> Result<Client, StoreError> {
        let mut client = self.direct.connect().map_err(fault)?;
        client.batch_execute(&format!("LISTEN {CHANNEL}")).map_err(fault)?;
        // Whatever was said before nobody has heard.
        changes.note(Change::Everything);
        Ok(client)
    }
}

impl Transaction for Connection {
    fn query(&mut self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        self.query(sql, parameters)
    }

    fn execute(&mut self, sql: &'static str, parameters: &[Value]) -> Result<u64, StoreError> {
        self.execute(sql, parameters)
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
        // Each statement has to be done within its time.
        loop {
            let mut arrays = vec![Vec::new(); columns.len()];
            for row in (&mut *rows).take(ROWS) {
                arrays.iter_mut().zip(row).for_each(|(array, value)| array.push(value));
            }
            if arrays.iter().all(Vec::is_empty) {
                return Ok(());
            }
            self.execute(&sql, &arrays.into_iter().map(Value::List).collect::<Vec<_>>())?;
        }
    }

    fn script(&mut self, sql: &str) -> Result<(), StoreError> {
        self.script(sql)
    }

    fn tell(&mut self, change: Uuid) -> Result<(), StoreError> {
        self.execute("SELECT pg_notify($1, $2)", &[Value::Text(CHANNEL.to_string()), Value::Text(change.to_string())])?;
        Ok(())
    }
}

fn row(row: &postgres::Row) -> Result<Row, StoreError> {
    let columns = row.columns().iter().enumerate();
    columns.map(|(index, column)| value(row, index, column.type_())).collect::<Result<_, _>>().map(Row).map_err(fault)
}

fn value(row: &postgres::Row, column: usize, kind: &Type) -> Result<Value, postgres::Error> {
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

fn fault(error: postgres::Error) -> StoreError {
    if let Some(server) = error.as_db_error() {
        let text = format!("PostgreSQL: {} {}: {}", server.severity(), server.code().code(), server.message());
        let class = &server.code().code()[..2];
        return match server.code() {
            &SqlState::UNIQUE_VIOLATION => StoreError::Conflict(text),
            // A standby after a failover, and what passes when it is tried again.
            &SqlState::READ_ONLY_SQL_TRANSACTION
            | &SqlState::QUERY_CANCELED
            | &SqlState::LOCK_NOT_AVAILABLE
            | &SqlState::T_R_SERIALIZATION_FAILURE
            | &SqlState::T_R_DEADLOCK_DETECTED => StoreError::Unavailable(text),
            // Connection exceptions, insufficient resources, operator intervention, faults of the server's system.
            _ if ["08", "53", "57", "58"].contains(&class) => StoreError::Unavailable(text),
            _ => StoreError::Internal(text),
        };
    }
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    let text = format!("PostgreSQL: {error}{cause}");
    let connection_is_gone = error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>());
    if connection_is_gone { StoreError::Unavailable(text) } else { StoreError::Internal(text) }
}
