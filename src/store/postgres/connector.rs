//! Opens connections to the one of several hosts that accepts writes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::time::{timeout, timeout_at};
use tokio_postgres::{Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::connection::{Begin, Connection, Patience, SIGN_OF_LIFE, silent};
use super::findings::{Findings, Trust};
use super::link::Link;
use super::pooler::announced_process;
use super::search_path::{SearchPath, quoted};
use super::target::{Endpoint, PostgresTarget};
use super::values::{fault, without_controls};
use crate::base::deadline;
use crate::base::error::StoreError;

/// How long connecting takes at most, all hosts together; also how long to wait for a connection of the pool.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);
/// How long everything that is done for a client takes at most. PostgreSQL itself ends a statement a little earlier.
const ANSWER: Duration = Duration::from_millis(4800);

/// For direct connections. Our statements are planned once: planning one anew for its parameters costs more than
/// running it. The statements rely on seeing what others have committed, so the database's default isolation does not
/// count.
const OWN_SETTINGS: [(&str, &str); 5] = [
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
    ("plan_cache_mode", "force_generic_plan"),
    ("default_transaction_isolation", "'read committed'"),
];

pub(crate) struct Connector {
    target: PostgresTarget,
    tls: MakeRustlsConnect,
    endpoints: Vec<Endpoint>,
    /// The endpoint that accepted the last connection. It is tried first.
    latest: AtomicUsize,
    patience: Patience,
    begin: Arc<Begin>,
    findings: Arc<Findings>,
}

impl Connector {
    pub(crate) fn new(target: &PostgresTarget, patience: Patience) -> Result<Connector, StoreError> {
        Ok(Connector {
            tls: MakeRustlsConnect::new(target.tls_config()?),
            endpoints: target.endpoints(),
            target: target.clone(),
            latest: AtomicUsize::new(0),
            patience,
            begin: Arc::new(Begin::new(patience, target.search_path())),
            findings: Arc::new(Findings::new()),
        })
    }

    /// The schema that the tables are in. Empty before the first connection.
    pub(crate) fn schema(&self) -> &str {
        self.findings.schema()
    }

    /// When somebody who begins now stops waiting for all that they ask.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let answer = Instant::now() + ANSWER;
        match self.patience {
            Patience::OfAClient => Some(deadline::current().map_or(answer, |until| until.min(answer))),
            Patience::Endless => None,
        }
    }

    /// The server may be silent: connections are tried before they are used.
    pub(crate) fn notice_silence(&self) {
        self.findings.notice_silence();
    }

    /// Whether a connection that lay in the pool can be expected to answer. The caller waits for that until `deadline`.
    pub(crate) fn trusts(&self, connection: &mut Connection, deadline: Option<Instant>) -> bool {
        match self.findings.trust(connection.answered_at()) {
            Trust::Yes => return true,
            Trust::No => return false,
            Trust::IfItAnswers => {}
        }
        let asked = Instant::now();
        connection.set_deadline(Some(deadline.map_or(asked + SIGN_OF_LIFE, |at| at.min(asked + SIGN_OF_LIFE))));
        let answers = connection.check().is_ok();
        if !answers && asked.elapsed() >= SIGN_OF_LIFE {
            self.findings.confirm_silence(asked);
        }
        answers
    }

    /// Each host has its share of the time, so that a frozen one does not keep us from the others.
    pub(crate) fn connect(&self) -> Result<Connection, StoreError> {
        let (latest, count) = (self.latest.load(Ordering::Relaxed), self.endpoints.len());
        let share = self.target.connect_timeout().unwrap_or(CONNECT / u32::try_from(count).unwrap_or(u32::MAX).max(1));
        let mut refused = StoreError::Internal("PostgreSQL: no host is named".to_string());
        for index in (0..count).map(|number| (latest + number) % count) {
            match self.connect_to(&self.endpoints[index], Instant::now() + share) {
                Ok(connection) => {
                    self.latest.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn connect_to(&self, endpoint: &Endpoint, deadline: Instant) -> Result<Connection, StoreError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| StoreError::Unavailable(format!("PostgreSQL: cannot connect: {error}")))?;
        match runtime.block_on(self.try_addresses(endpoint, deadline)) {
            Ok((link, pooled)) => {
                let (begin, tls, findings) = (self.begin.clone(), self.tls.clone(), self.findings.clone());
                Ok(Connection::new(runtime, link, pooled, begin, tls, findings))
            }
            Err(error) => {
                // The lookup of a name may still be under way, and is not waited for.
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// A link to the first address of the host that answers, and whether there is a pooler between.
    async fn try_addresses(&self, endpoint: &Endpoint, deadline: Instant) -> Result<(Link, bool), StoreError> {
        let unknown = |error: io::Error| StoreError::Unavailable(format!("PostgreSQL: error connecting: {error}"));
        let resolved = timeout_at(deadline.into(), self.target.resolve(endpoint)).await;
        let configs = resolved.map_err(|_| silent())?.map_err(unknown)?;
        let mut refused = StoreError::Unavailable("PostgreSQL: the host has no address".to_string());
        for (index, config) in configs.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(configs.len() - index).unwrap_or(u32::MAX);
            match timeout(share, self.set_up(config)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => refused = error,
                Err(_) => refused = silent(),
            }
        }
        Err(refused)
    }

    /// Connects, refuses a standby, finds out whether there is a pooler between, and sets what a direct connection
    /// needs.
    async fn set_up(&self, config: &Config) -> Result<(Link, bool), StoreError> {
        let (client, wire) = config.connect(self.tls.clone()).await.map_err(fault)?;
        let mut link = Link::new(client, wire);
        // Nothing is set yet: a pooler may give its next client the same server process.
        let about = "SELECT pg_backend_pid(), current_setting('transaction_read_only'), current_schema(), \
            current_setting('search_path'), current_user";
        let about = format!("{}; {about}; COMMIT", self.begin.script(true));
        let answer = link.ask(async |client| client.simple_query(&about).await).await.map_err(fault)?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let text = |column: usize| row.and_then(|row| row.get(column));
        // A standby learns of a revocation late, and cannot notify of one.
        let (pid, Some("off")) = (text(0), text(1)) else {
            return Err(StoreError::Unavailable("PostgreSQL: database does not allow writes".to_string()));
        };
        self.enter(text(2), text(3).unwrap_or_default(), text(4).unwrap_or_default())?;
        let process: Option<i32> = pid.and_then(|pid| pid.parse().ok());
        let announced = announced_process(link.client()).await;
        let pooled = announced.is_none() || process != announced || self.findings.has_pooler();
        if !pooled {
            let settings = self.patience.settings().into_iter().chain(OWN_SETTINGS);
            let mut settings: String = settings.map(|(name, value)| format!("SET {name} = {value}; ")).collect();
            if let Some(path) = self.target.search_path() {
                settings += &format!("SET search_path = {}", path.statement_list());
            }
            link.ask(async |client| client.batch_execute(&settings).await).await.map_err(fault)?;
        }
        Ok((link, pooled))
    }

    /// Takes note of the schema that the tables are in. Refuses one that is not meant.
    fn enter(&self, schema: Option<&str>, server_path: &str, role: &str) -> Result<(), StoreError> {
        let asked = self.target.search_path();
        let Some(schema) = schema.filter(|schema| asked.is_none_or(|path| path.means(schema, role))) else {
            let path = asked.cloned().or_else(|| SearchPath::parse(server_path));
            return Err(no_schema(path.as_ref().and_then(SearchPath::first).unwrap_or("public"), role));
        };
        let first = self.findings.settle(schema);
        if first != schema {
            return Err(StoreError::Unavailable(format!(
                "PostgreSQL: search_path leads to the schema {schema}, but at the start it led to {first}"
            )));
        }
        Ok(())
    }
}

fn no_schema(schema: &str, role: &str) -> StoreError {
    let [name, owner] = [schema, role].map(quoted);
    StoreError::Unavailable(without_controls(&format!(
        "PostgreSQL: the schema {schema} of search_path does not exist, or {role} may not use it; make it with CREATE \
         SCHEMA {name} AUTHORIZATION {owner}, or allow it with GRANT USAGE, CREATE ON SCHEMA {name} TO {owner}"
    )))
}
