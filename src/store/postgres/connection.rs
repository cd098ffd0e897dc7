//! One connection to PostgreSQL. Whatever is asked of it is answered in time or the connection is given up, so that
//! nobody waits for a silent server, not even to close the connection.
//!
//! The thread that asks drives the connection itself, on a runtime of the connection's own.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::time::{timeout, timeout_at};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Notification, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::findings::Findings;
use super::link::Link;
use super::search_path::SearchPath;
use super::values::{fault, parameter_type, references, tells_of_a_pooler};
use crate::base::error::StoreError;
use crate::store::driver::Value;

/// How long a server may take to give a sign of life.
pub(crate) const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// How long cancelling may take after a statement was given up.
const CANCEL: Duration = Duration::from_secs(1);

/// How long the caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as a client waits for an answer.
    OfAClient,
    /// Until it is done: an operator's command, a migration.
    Endless,
}

impl Patience {
    /// PostgreSQL gives up a statement before we give up the request, and frees the locks of an instance that vanished
    /// after seconds.
    pub(crate) fn settings(self) -> [(&'static str, &'static str); 2] {
        let statement = match self {
            Patience::OfAClient => "'4500ms'",
            Patience::Endless => "0",
        };
        [("statement_timeout", statement), ("idle_in_transaction_session_timeout", "'10s'")]
    }
}

/// How transactions begin.
pub(crate) struct Begin {
    /// With settings that hold for the transaction only, because other clients of the pooler get the server process after
    /// us.
    pooled: String,
}

impl Begin {
    /// The isolation is named because the statements rely on seeing what others have committed, whatever the database's
    /// default is.
    const DIRECT: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

    pub(crate) fn new(patience: Patience, search_path: Option<&SearchPath>) -> Begin {
        let settings = patience.settings().map(|(name, value)| format!("; SET LOCAL {name} = {value}")).concat();
        let path = search_path.map(|path| format!("; SET LOCAL search_path = {}", path.statement_list()));
        Begin { pooled: format!("{}{settings}{}", Begin::DIRECT, path.unwrap_or_default()) }
    }

    pub(crate) fn script(&self, pooled: bool) -> &str {
        if pooled { &self.pooled } else { Begin::DIRECT }
    }
}

pub(crate) struct Connection {
    /// `None`: it was given up, or the server has closed it.
    open: Option<(Runtime, Link)>,
    statements: HashMap<String, Statement>,
    begin: Arc<Begin>,
    pooled: bool,
    in_transaction: bool,
    was_silent: bool,
    /// When the user of the connection stops waiting.
    deadline: Option<Instant>,
    answered_at: Instant,
    /// Not to be used again: it is unknown how a transaction on it ended, or the server refuses to work.
    pub broken: bool,
    tls: MakeRustlsConnect,
    findings: Arc<Findings>,
}

impl Connection {
    pub(crate) fn new(
        runtime: Runtime,
        link: Link,
        pooled: bool,
        begin: Arc<Begin>,
        tls: MakeRustlsConnect,
        findings: Arc<Findings>,
    ) -> Connection {
        Connection {
            open: Some((runtime, link)),
            statements: HashMap::new(),
            begin,
            pooled,
            in_transaction: false,
            was_silent: false,
            deadline: None,
            answered_at: Instant::now(),
            broken: false,
            tls,
            findings,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether it was given up because the server was silent.
    pub(crate) fn was_silent(&self) -> bool {
        self.was_silent
    }

    /// When the server last answered on it.
    pub(crate) fn answered_at(&self) -> Instant {
        self.answered_at
    }

    /// Whether each transaction may run on another server process, in another session.
    pub(crate) fn is_pooled(&self) -> bool {
        self.pooled || self.findings.has_pooler()
    }

    /// The schema that the tables are in.
    pub(crate) fn schema(&self) -> &str {
        self.findings.schema()
    }

    pub(crate) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    pub(crate) fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        if self.is_pooled() {
            let typed = typed(parameters, None);
            return self.unprepared(async |client| client.query_typed(sql, &typed).await);
        }
        let statement = self.prepared(sql)?;
        self.wait(async |client| client.query(&statement, &references(parameters)).await)
    }

    /// Asks the server for a sign of life.
    pub(crate) fn check(&mut self) -> Result<(), StoreError> {
        self.wait(async |client| client.check_connection().await)
    }

    /// `types`: those of the parameters, where the values do not tell.
    pub(crate) fn execute(
        &mut self,
        sql: &str,
        parameters: &[Value],
        types: Option<&[Type]>,
    ) -> Result<u64, StoreError> {
        if self.is_pooled() {
            let typed = typed(parameters, types);
            return self.unprepared(async |client| client.execute_typed(sql, &typed).await);
        }
        let statement = self.prepared(sql)?;
        self.wait(async |client| client.execute(&statement, &references(parameters)).await)
    }

    pub(crate) fn script(&mut self, sql: &str) -> Result<(), StoreError> {
        self.wait(async |client| client.batch_execute(sql).await)
    }

    pub(crate) fn begin(&mut self) -> Result<(), StoreError> {
        let begin = self.begin.clone();
        self.script(begin.script(self.is_pooled()))?;
        self.in_transaction = true;
        Ok(())
    }

    /// Ends the transaction with `COMMIT` or `ROLLBACK`.
    pub(crate) fn end(&mut self, script: &str) -> Result<(), StoreError> {
        self.script(script)?;
        self.in_transaction = false;
        Ok(())
    }

    /// One statement through a pooler. Outside a transaction it gets its own, for the settings; all is sent at once.
    fn unprepared<T>(&mut self, ask: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, StoreError> {
        if self.in_transaction {
            return self.wait(ask);
        }
        let begin = self.begin.clone();
        let begin = begin.script(true);
        self.wait(async |client| {
            let (begun, answer, ended) =
                tokio::join!(client.batch_execute(begin), ask(client), client.batch_execute("COMMIT"));
            begun?;
            let answer = answer?;
            ended.map(|()| answer)
        })
    }

    fn prepared(&mut self, sql: &str) -> Result<Statement, StoreError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.wait(async |client| client.prepare(sql).await)?;
        self.statements.insert(sql.to_string(), statement.clone());
        Ok(statement)
    }

    /// The notifications that have come, or the first that come within this time. `None`: there were more than are
    /// kept.
    pub(crate) fn notifications(&mut self, within: Duration) -> Result<Option<Vec<Notification>>, StoreError> {
        let Some((runtime, link)) = &mut self.open else { return Err(gone()) };
        let outcome = runtime.block_on(async { timeout(within, link.wait_for_notification()).await });
        if let Ok(Err(error)) = outcome {
            self.open = None;
            return Err(fault(error));
        }
        Ok(link.take_notifications())
    }

    fn wait<T>(&mut self, ask: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, StoreError> {
        let Some((runtime, link)) = &mut self.open else { return Err(gone()) };
        let answer = match self.deadline {
            Some(deadline) if deadline <= Instant::now() => {
                // The server was not asked, but a transaction may be open.
                self.broken |= self.in_transaction;
                return Err(StoreError::Unavailable("PostgreSQL: no time is left to ask".to_string()));
            }
            Some(deadline) => runtime.block_on(async { timeout_at(deadline.into(), link.ask(ask)).await.ok() }),
            None => Some(runtime.block_on(link.ask(ask))),
        };
        let Some(answer) = answer else {
            self.give_up();
            return Err(silent());
        };
        self.answered_at = Instant::now();
        let answer = answer.map_err(|error| {
            if tells_of_a_pooler(&error) {
                self.findings.notice_pooler();
            }
            let error = fault(error);
            self.broken |= matches!(error, StoreError::Unavailable(_));
            error
        });
        if link.has_ended() {
            self.open = None;
        }
        answer
    }

    /// The statement may go on in the server and hold locks. It is cancelled on a thread of its own, so that nobody
    /// waits.
    fn give_up(&mut self) {
        let Some((runtime, mut link)) = self.open.take() else { return };
        self.was_silent = true;
        // A pooler may keep us waiting because all its server processes are in use.
        if !self.is_pooled() {
            self.findings.notice_silence();
        }
        let tls = self.tls.clone();
        let cancel = move || {
            let token = link.client().cancel_token();
            let _ = runtime.block_on(async {
                timeout(CANCEL, async {
                    token.cancel_query(tls).await?;
                    // A pooler passes a cancellation on only while the client is connected.
                    link.ask(async |client| client.check_connection().await).await
                })
                .await
            });
            link.close(&runtime);
        };
        // If no thread can be started, the statement ends by its timeout in the server.
        let _ = thread::Builder::new().name("cancel".to_string()).spawn(cancel);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some((runtime, link)) = self.open.take() {
            link.close(&runtime);
        }
    }
}

fn typed<'a>(parameters: &'a [Value], types: Option<&[Type]>) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    let value_types = parameters.iter().map(parameter_type);
    let types = types.map_or_else(|| value_types.collect(), <[Type]>::to_vec);
    references(parameters).into_iter().zip(types).collect()
}

pub(crate) fn silent() -> StoreError {
    StoreError::Unavailable("PostgreSQL: the server does not answer".to_string())
}

fn gone() -> StoreError {
    StoreError::Unavailable("PostgreSQL: the connection was given up".to_string())
}
