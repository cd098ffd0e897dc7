//! From settings to a running server: the store is opened, the services are wired, the server and the jobs are started and
//! stopped.

pub mod jobs;
pub mod signals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use log::info;

use crate::accounts::passwords::{PasswordRules, Passwords};
use crate::api::routes::ROUTES;
use crate::app::App;
use crate::base::clock::Clock;
use crate::base::error::StoreError;
use crate::base::pool::cores;
use crate::config::{Config, Database};
use crate::http::lanes::password_threads;
use crate::http::server::Server;
use crate::http::tls::Tls;
use crate::memory::changes::Changes;
use crate::run::jobs::Maintenance;
use crate::store::Store;
use crate::store::migrate::{self, Pending};
use crate::store::postgres::{Patience, Postgres};
use crate::store::sql::{Driver, SqlStore};
use crate::store::sqlite::Sqlite;
use crate::tokens::key_files::{self, JwtKeys};

/// Opens the configured database and applies the migrations it lacks; says which. What is changed through it is noted in
/// `changes`.
pub fn open_store(
    config: &Config,
    clock: &Clock,
    changes: Arc<Changes>,
    patience: Patience,
) -> Result<(Arc<dyn Store>, Pending), StoreError> {
    match &config.database {
        Database::Sqlite(path) => {
            let driver = Sqlite::open(path)?;
            let applied = migrate::migrate(&driver, clock.now())?;
            Ok((Arc::new(SqlStore::new(driver, changes, clock.clone())), applied))
        }
        Database::Postgres(target) => {
            // A migration may take its time, or wait for another instance's.
            let migrating = Postgres::connect(target.direct(), Patience::Endless)?;
            let applied = migrate::migrate(&migrating, clock.now())?;
            let store = SqlStore::new(Postgres::connect(target, patience)?, changes, clock.clone());
            Ok((Arc::new(store), applied))
        }
    }
}

/// Opens the configured database for a command of an operator. It must exist and be up to date; statements have no time
/// limit.
fn use_store(config: &Config, clock: &Clock, changes: Arc<Changes>) -> Result<Arc<dyn Store>, StoreError> {
    fn ready<D: Driver>(driver: D, clock: &Clock, changes: Arc<Changes>) -> Result<Arc<dyn Store>, StoreError> {
        let lacking = migrate::check(&driver)?.migrations;
        match lacking.len() {
            0 => Ok(Arc::new(SqlStore::new(driver, changes, clock.clone()))),
            count => Err(StoreError::Unavailable(format!(
                "the database lacks {count} of this version's migrations, from {} on; run `keyward migrate`",
                lacking[0]
            ))),
        }
    }
    match &config.database {
        Database::Sqlite(path) => ready(Sqlite::open_existing(path)?, clock, changes),
        Database::Postgres(target) => ready(Postgres::connect(target, Patience::Endless)?, clock, changes),
    }
}

/// What [`open_store`] would apply. Changes nothing; a SQLite file that is not there is not made.
pub fn check_store(config: &Config) -> Result<Pending, StoreError> {
    match &config.database {
        Database::Sqlite(path) if !path.exists() => Ok(Pending::all::<Sqlite>()),
        Database::Sqlite(path) => migrate::check(&Sqlite::inspect(path)?),
        Database::Postgres(target) => migrate::check(&Postgres::connect(target.direct(), Patience::Endless)?),
    }
}

/// Hashing for callers that run in the password lane.
pub fn passwords(config: &Config) -> Arc<Passwords> {
    let cores = cores();
    let rules = PasswordRules::new(config.password_min_length);
    Arc::new(Passwords::new(config.bcrypt_cost, rules, cores, password_threads(cores)))
}

/// Opens the store and wires the services. The error is one line for the operator.
pub fn open_app(config: &Config, clock: Clock) -> Result<(App, Arc<dyn Store>), String> {
    // What makes no sense is told before anything is touched.
    let jwt_keys = key_files::resolve(config)?;
    let changes = Arc::new(Changes::default());
    let (store, applied) =
        open_store(config, &clock, changes.clone(), Patience::OfAClient).map_err(|error| error.to_string())?;
    for migration in applied.migrations {
        info!("migration {migration} was applied");
    }
    Ok((App::over(store.clone(), jwt_keys, passwords(config), config, clock, changes), store))
}

/// The services for a command of an operator. The error is one line for the operator.
///
/// It starts no thread that uses the store, so the database is closed when this is dropped. The keys of tokens are not
/// read: a command issues none, and the operator need not have them.
pub fn open_operator_app(config: &Config) -> Result<App, String> {
    let (clock, changes) = (Clock::default(), Arc::new(Changes::default()));
    let store = use_store(config, &clock, changes.clone()).map_err(|error| error.to_string())?;
    // A command remembers nothing.
    let config = Config { cache_entries: 1, ..config.clone() };
    Ok(App::over(store, JwtKeys::ephemeral()?, passwords(&config), &config, clock, changes))
}

/// A running Keyward.
pub struct Keyward {
    server: Server,
    maintenance: Maintenance,
    /// A store within this process, to be closed.
    embedded: Option<Arc<dyn Store>>,
    lost: Option<Receiver<String>>,
}

impl Keyward {
    /// Starts everything; the server answers when this returns. The error is one line for the operator.
    pub fn start(config: &Config, clock: Clock) -> Result<Keyward, String> {
        let tls = config.tls.as_ref().map(Tls::start).transpose()?;
        let (app, store) = open_app(config, clock)?;
        let app = Arc::new(app);
        // Before anything happens by this clock, and anyone is refused.
        let latest = store.latest().map_err(|error| error.to_string())?;
        let believed = latest.unwrap_or_else(|| app.clock.now());
        app.users.note_costs().map_err(|error| error.to_string())?;
        let (lose, lost) = channel();
        store.clone().watch(lose);
        let embedded = matches!(config.database, Database::Sqlite(_)).then_some(store);
        let server = Server::start(app.clone(), ROUTES, tls, config)?;
        let maintenance = Maintenance::start(app, believed)?;
        // First: who waits for the next lines may stop the server.
        for address in server.redirects() {
            info!("sending http://{address} to HTTPS");
        }
        let scheme = server.scheme();
        for address in server.addresses() {
            info!("listening on {scheme}://{address}, API documentation at {scheme}://{address}/api/docs");
        }
        Ok(Keyward { server, maintenance, embedded, lost: Some(lost) })
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        self.server.addresses()
    }

    /// Where plain HTTP is sent to HTTPS from.
    pub fn redirects(&self) -> &[SocketAddr] {
        self.server.redirects()
    }

    /// Reads anew what may change while it runs: the certificate.
    pub fn reload(&self) {
        self.server.reload();
    }

    /// Hears why it cannot go on, as soon as it cannot: one line for the operator. `None` from the second time on.
    pub fn lost(&mut self) -> Option<Receiver<String>> {
        self.lost.take()
    }

    /// Finishes what is under way, then writes what is only in memory.
    pub fn stop(self) {
        self.server.stop();
        self.maintenance.stop();
        // Whoever drops it last closes SQLite's file, which tidies up beside it; that is not to happen on a thread that
        // the end of the process cuts off.
        let Some(store) = self.embedded else { return };
        let deadline = Instant::now() + CLOSING;
        while Arc::strong_count(&store) > 1 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// How long the store's threads may take to let go of it.
const CLOSING: Duration = Duration::from_secs(1);
