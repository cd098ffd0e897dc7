//! One connection to PostgreSQL. What is asked of it is answered in time, or it is given up: nobody waits for a server that
//! says nothing, nor for one to take leave.
//!
//! The thread that asks drives the connection itself, on a runtime of the connection's own.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::time::{timeout, timeout_at};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Error, Notification, Row, SimpleQueryMessage, Socket, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::pooler::announced_process;
use super::target::{Endpoint, PostgresTarget};
use super::values::{fault, parameter_type, references, tells_of_a_pooler};
use crate::base::deadline;
use crate::base::error::StoreError;
use crate::store::driver::Value;

/// How long connecting takes at most, all hosts together; also how long to wait for a connection of the pool.
pub const CONNECT: Duration = Duration::from_secs(2);
/// How long everything takes at most that is done for a client. PostgreSQL itself ends a statement a little earlier.
const ANSWER: Duration = Duration::from_millis(4800);
/// How long a server may take to say that it is there.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// How long something may be under way that was given up.
const CANCEL: Duration = Duration::from_secs(1);
/// Notifications that are kept until somebody looks at them. Of more it is known that they came.
const NOTIFICATIONS: usize = 1024;

/// How long whoever asks waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as a client waits for an answer.
    OfAClient,
    /// Until it is done: an operator's command, a migration.
    Endless,
}

impl Patience {
    /// PostgreSQL gives up a statement before its request is given up, and the locks of an instance that is gone without
    /// a word in seconds.
    fn settings(self) -> [(&'static str, &'static str); 2] {
        let statement = match self {
            Patience::OfAClient => "'4500ms'",
            Patience::Endless => "0",
        };
        [("statement_timeout", statement), ("idle_in_transaction_session_timeout", "'10s'")]
    }
}

/// For connections that are ours alone. Our statements are planned once: planning one anew for its parameters costs more
/// than running it. They count on seeing what others have committed, whatever the database's default is.
const OWN_SETTINGS: [(&str, &str); 5] = [
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
    ("plan_cache_mode", "force_generic_plan"),
    ("default_transaction_isolation", "'read committed'"),
];

/// Opens connections to the one of several hosts that takes writes.
pub struct Connector {
    target: PostgresTarget,
    tls: MakeRustlsConnect,
    endpoints: Vec<Endpoint>,
    /// The one that took us last is asked first.
    latest: AtomicUsize,
    patience: Patience,
    findings: Arc<Findings>,
}

/// What one connection says of the others.
struct Findings {
    /// Prepared statements do not hold, on a connection that looked like one of our own.
    pooled: AtomicBool,
    silence: Mutex<Silence>,
}

struct Silence {
    /// One was silent then: what has not answered since is asked for a sign of life before its next use.
    noticed: Instant,
    /// One gave no sign of life then: what has not answered since is given up.
    confirmed: Instant,
}

impl Findings {
    fn silence(&self) -> MutexGuard<'_, Silence> {
        // Nothing panics while it is held.
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notice_silence(&self) {
        self.silence().noticed = Instant::now();
    }
}

impl Connector {
    pub fn new(target: &PostgresTarget, patience: Patience) -> Result<Connector, StoreError> {
        Ok(Connector {
            tls: MakeRustlsConnect::new(target.tls_config()?),
            endpoints: target.endpoints(),
            target: target.clone(),
            latest: AtomicUsize::new(0),
            patience,
            findings: Arc::new(Findings {
                pooled: AtomicBool::new(false),
                silence: Mutex::new(Silence { noticed: Instant::now(), confirmed: Instant::now() }),
            }),
        })
    }

    /// Until when somebody who begins now waits for the whole of what is asked.
    pub fn deadline(&self) -> Option<Instant> {
        let answer = Instant::now() + ANSWER;
        match self.patience {
            Patience::OfAClient => Some(deadline::current().map_or(answer, |until| until.min(answer))),
            Patience::Endless => None,
        }
    }

    /// The server may be silent: connections are tried before they are used.
    pub fn notice_silence(&self) {
        self.findings.notice_silence();
    }

    /// Whether a connection that lay in the pool can be expected to answer. Whoever wants to use it waits until `deadline`.
    pub fn trusts(&self, connection: &mut Connection, deadline: Option<Instant>) -> bool {
        {
            let silence = self.findings.silence();
            if connection.heard > silence.noticed {
                return true;
            }
            if connection.heard <= silence.confirmed {
                return false;
            }
        }
        let asked = Instant::now();
        connection.deadline = Some(deadline.map_or(asked + SIGN_OF_LIFE, |at| at.min(asked + SIGN_OF_LIFE)));
        let answers = connection.check().is_ok();
        if !answers && asked.elapsed() >= SIGN_OF_LIFE {
            self.findings.silence().confirmed = asked;
        }
        answers
    }

    /// Each host has its share of the time, so that one that is frozen keeps nobody from the others.
    pub fn connect(&self) -> Result<Connection, StoreError> {
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
        match runtime.block_on(self.reach(endpoint, deadline)) {
            Ok((link, pooled)) => Ok(Connection {
                open: Some((runtime, link)),
                statements: HashMap::new(),
                patience: self.patience,
                pooled,
                in_transaction: false,
                was_silent: false,
                deadline: None,
                heard: Instant::now(),
                tls: self.tls.clone(),
                broken: false,
                findings: self.findings.clone(),
            }),
            Err(error) => {
                // A name may still be looked up, for as long as that takes.
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Also tells whether there is a pooler between.
    async fn reach(&self, endpoint: &Endpoint, deadline: Instant) -> Result<(Link, bool), StoreError> {
        let unknown = |error: io::Error| StoreError::Unavailable(format!("PostgreSQL: error connecting: {error}"));
        let resolved = timeout_at(deadline.into(), self.target.resolve(endpoint)).await;
        let configs = resolved.map_err(|_| silent())?.map_err(unknown)?;
        let mut refused = StoreError::Unavailable("PostgreSQL: the host has no address".to_string());
        for (index, config) in configs.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(configs.len() - index).unwrap_or(u32::MAX);
            match timeout(share, self.greet(config)).await {
                Ok(Ok(greeted)) => return Ok(greeted),
                Ok(Err(error)) => refused = error,
                Err(_) => refused = silent(),
            }
        }
        Err(refused)
    }

    async fn greet(&self, config: &Config) -> Result<(Link, bool), StoreError> {
        let (client, wire) = config.connect(self.tls.clone()).await.map_err(fault)?;
        let mut link = Link { client, wire, notifications: Vec::new(), missed: false, ended: false };
        let about = "SELECT pg_backend_pid(), current_setting('transaction_read_only')";
        let answer = link.ask(async |client| client.simple_query(about).await).await.map_err(fault)?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((row.get(0), row.get(1))),
            _ => None,
        });
        // A standby knows neither what was revoked a moment ago nor tells of it.
        let Some((pid, Some("off"))) = row else {
            return Err(StoreError::Unavailable("PostgreSQL: database does not allow writes".to_string()));
        };
        let process: Option<i32> = pid.and_then(|pid| pid.parse().ok());
        let announced = announced_process(&link.client).await;
        let pooled = announced.is_none() || process != announced || self.findings.pooled.load(Ordering::Relaxed);
        if !pooled {
            let settings = self.patience.settings().into_iter().chain(OWN_SETTINGS);
            let settings: String = settings.map(|(name, value)| format!("SET {name} = {value}; ")).collect();
            link.ask(async |client| client.batch_execute(&settings).await).await.map_err(fault)?;
        }
        Ok((link, pooled))
    }
}

type Wire = tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Both halves of what the library calls a connection.
struct Link {
    client: Client,
    wire: Wire,
    notifications: Vec<Notification>,
    /// There were more of them.
    missed: bool,
    ended: bool,
}

impl Link {
    /// Drives the connection until the answer is there.
    async fn ask<T>(&mut self, ask: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, Error> {
        let Link { client, wire, notifications, missed, ended } = self;
        let mut answer = pin!(ask(client));
        poll_fn(|context| {
            // First asked, then sent; first received, then heard.
            if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                return Poll::Ready(answer);
            }
            let end = drive(wire, context, notifications, missed);
            *ended |= end.is_err();
            match (answer.as_mut().poll(context), end) {
                (Poll::Pending, Err(error)) => Poll::Ready(Err(error)),
                (answer, _) => answer,
            }
        })
        .await
    }

    /// Drives the connection until a notification is there.
    async fn listen(&mut self) -> Result<(), Error> {
        poll_fn(|context| {
            let end = drive(&mut self.wire, context, &mut self.notifications, &mut self.missed);
            self.ended |= end.is_err();
            match end {
                Ok(()) if self.notifications.is_empty() => Poll::Pending,
                end => Poll::Ready(end),
            }
        })
        .await
    }
}

/// Sends and receives what can be without waiting.
fn drive(
    wire: &mut Wire,
    context: &mut Context<'_>,
    notifications: &mut Vec<Notification>,
    missed: &mut bool,
) -> Result<(), Error> {
    // Its end in good order comes when the client is gone.
    while let Poll::Ready(Some(message)) = wire.poll_message(context) {
        match message? {
            AsyncMessage::Notification(notification) if notifications.len() < NOTIFICATIONS => {
                notifications.push(notification);
            }
            AsyncMessage::Notification(_) => *missed = true,
            _ => {}
        }
    }
    Ok(())
}

pub struct Connection {
    /// `None`: it was given up, or has ended by itself.
    open: Option<(Runtime, Link)>,
    statements: HashMap<String, Statement>,
    patience: Patience,
    pooled: bool,
    in_transaction: bool,
    was_silent: bool,
    /// When whoever uses it will wait no longer.
    deadline: Option<Instant>,
    /// When it answered last.
    heard: Instant,
    /// Not to be used again: nobody knows how a transaction on it has ended, or the server has turned away.
    pub broken: bool,
    tls: MakeRustlsConnect,
    findings: Arc<Findings>,
}

impl Connection {
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether it was given up for its silence.
    pub fn was_silent(&self) -> bool {
        self.was_silent
    }

    /// Whether it may have another server, and another session, for each transaction.
    pub fn is_pooled(&self) -> bool {
        self.pooled || self.findings.pooled.load(Ordering::Relaxed)
    }

    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    pub fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        if self.is_pooled() {
            let typed = typed(parameters, None);
            return self.alone(async |client| client.query_typed(sql, &typed).await);
        }
        let statement = self.prepared(sql)?;
        self.wait(async |client| client.query(&statement, &references(parameters)).await)
    }

    /// Whether there is anybody.
    pub fn check(&mut self) -> Result<(), StoreError> {
        self.wait(async |client| client.check_connection().await)
    }

    /// `types`: those of the parameters, where the values do not tell.
    pub fn execute(&mut self, sql: &str, parameters: &[Value], types: Option<&[Type]>) -> Result<u64, StoreError> {
        if self.is_pooled() {
            let typed = typed(parameters, types);
            return self.alone(async |client| client.execute_typed(sql, &typed).await);
        }
        let statement = self.prepared(sql)?;
        self.wait(async |client| client.execute(&statement, &references(parameters)).await)
    }

    pub fn script(&mut self, sql: &str) -> Result<(), StoreError> {
        self.wait(async |client| client.batch_execute(sql).await)
    }

    pub fn begin(&mut self) -> Result<(), StoreError> {
        let begin = self.begin_script();
        self.script(&begin)?;
        self.in_transaction = true;
        Ok(())
    }

    /// Commits or takes back.
    pub fn end(&mut self, script: &str) -> Result<(), StoreError> {
        self.script(script)?;
        self.in_transaction = false;
        Ok(())
    }

    /// Whatever the database's default is: the statements count on seeing what others have committed.
    fn begin_script(&self) -> String {
        const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
        if !self.is_pooled() {
            return BEGIN.to_string();
        }
        // Others have the server after us: nothing is left set.
        let settings = self.patience.settings();
        let settings: String = settings.iter().map(|(name, value)| format!("; SET LOCAL {name} = {value}")).collect();
        format!("{BEGIN}{settings}")
    }

    /// One statement through a pooler. Outside of a transaction it has one of its own, for its settings; all is sent at
    /// once.
    fn alone<T>(&mut self, ask: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, StoreError> {
        if self.in_transaction {
            return self.wait(ask);
        }
        let begin = self.begin_script();
        self.wait(async |client| {
            let (begun, answer, ended) =
                tokio::join!(client.batch_execute(&begin), ask(client), client.batch_execute("COMMIT"));
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

    /// Notifications that came so far, or within this time. `None`: more than are kept.
    pub fn listen(&mut self, within: Duration) -> Result<Option<Vec<Notification>>, StoreError> {
        let Some((runtime, link)) = &mut self.open else { return Err(gone()) };
        let heard = runtime.block_on(async { timeout(within, link.listen()).await });
        if let Ok(Err(error)) = heard {
            self.open = None;
            return Err(fault(error));
        }
        let notifications = std::mem::take(&mut link.notifications);
        Ok(if std::mem::take(&mut link.missed) { None } else { Some(notifications) })
    }

    fn wait<T>(&mut self, ask: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, StoreError> {
        let Some((runtime, link)) = &mut self.open else { return Err(gone()) };
        let answer = match self.deadline {
            Some(deadline) if deadline <= Instant::now() => {
                // Nothing is under way here, but maybe a transaction is open.
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
        self.heard = Instant::now();
        let answer = answer.map_err(|error| {
            if tells_of_a_pooler(&error) {
                self.findings.pooled.store(true, Ordering::Relaxed);
            }
            let error = fault(error);
            self.broken |= matches!(error, StoreError::Unavailable(_));
            error
        });
        if link.ended {
            self.open = None;
        }
        answer
    }

    /// What was asked may go on there, and hold locks: it is cancelled, on a thread of its own, as nobody waits for it.
    fn give_up(&mut self) {
        let Some((runtime, mut link)) = self.open.take() else { return };
        self.was_silent = true;
        // A pooler lets wait for a server those for whom it has none.
        if !self.is_pooled() {
            self.findings.notice_silence();
        }
        let tls = self.tls.clone();
        let cancel = move || {
            let token = link.client.cancel_token();
            let _ = runtime.block_on(async {
                timeout(CANCEL, async {
                    token.cancel_query(tls).await?;
                    // A pooler passes it on for those whom it still has.
                    link.ask(async |client| client.check_connection().await).await
                })
                .await
            });
            take_leave(&runtime, link);
        };
        // Without a thread it ends by the server's own clock.
        let _ = thread::Builder::new().name("cancel".to_string()).spawn(cancel);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some((runtime, link)) = self.open.take() {
            take_leave(&runtime, link);
        }
    }
}

/// Says goodbye, as far as it can be said without waiting.
fn take_leave(runtime: &Runtime, link: Link) {
    let Link { client, mut wire, .. } = link;
    drop(client);
    let _within = runtime.enter();
    let _ = Pin::new(&mut wire).poll(&mut Context::from_waker(Waker::noop()));
}

fn typed<'a>(parameters: &'a [Value], types: Option<&[Type]>) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    let value_types = parameters.iter().map(parameter_type);
    let types = types.map_or_else(|| value_types.collect(), <[Type]>::to_vec);
    references(parameters).into_iter().zip(types).collect()
}

fn silent() -> StoreError {
    StoreError::Unavailable("PostgreSQL: the server does not answer".to_string())
}

fn gone() -> StoreError {
    StoreError::Unavailable("PostgreSQL: the connection was given up".to_string())
}
