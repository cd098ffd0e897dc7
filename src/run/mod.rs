//! From settings to a running server: opens the database, wires the services, starts the server and the jobs, and stops
//! them.

pub mod clock_check;
pub mod database;
mod deliveries;
pub mod jobs;
pub mod signals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use log::info;

use crate::api::routes::ROUTES;
use crate::app::{App, SecretKeys, ServiceSettings, Stores};
use crate::base::clock::Clock;
use crate::base::data_key::DataKey;
use crate::base::pool::cores;
use crate::config::Config;
use crate::http::lanes::password_threads;
use crate::http::server::Server;
use crate::http::tls::Tls;
use crate::mail::mailer::Mailer;
use crate::memory::changes::Changes;
use crate::memory::settings::MemorySettings;
use crate::outbox::deliverer::Deliverer;
use crate::run::jobs::Jobs;
use crate::store::Store;
use crate::store::postgres::Patience;
use crate::tokens::key_files::{self, JwtKeys};

/// The services of a server, and their store. The error is one line for the operator.
pub fn open_app(config: &Config, clock: Clock) -> Result<(App, Arc<dyn Store>), String> {
    let database = config.store.database()?;
    database::refuse_strangers(&database).map_err(|error| error.to_string())?;
    // Bad key files are reported before the database is touched.
    let file = database.sqlite_file();
    let jwt = key_files::resolve(&config.tokens, file)?;
    let data = DataKey::resolve(&config.data_key, file, config.tokens.refresh_secret.as_ref())?;
    let secret_keys = SecretKeys { jwt, data };
    let changes = Arc::new(Changes::default());
    let reach = deliveries::reach(config);
    let (store, applied) = database::open(&database, &clock, changes.clone(), reach, Patience::OfAClient)
        .map_err(|error| error.to_string())?;
    for migration in applied.migrations {
        info!("migration {migration} was applied");
    }
    let app =
        App::new(stores(&store), secret_keys, service_settings(config), password_threads(cores()), clock, changes);
    app.start_lookups()?;
    Ok((app, store))
}

/// The services for a command of an operator. The error is one line for the operator.
///
/// No thread uses the store, so the database is closed when this is dropped. The keys of tokens are not read: a command
/// issues none, and the operator need not have them. The data key is, if it is there.
pub fn open_operator_app(config: &Config) -> Result<App, String> {
    let (clock, changes) = (Clock::default(), Arc::new(Changes::default()));
    let database = config.store.database()?;
    let data =
        DataKey::resolve_existing(&config.data_key, database.sqlite_file(), config.tokens.refresh_secret.as_ref())?;
    let store = database::open_existing(&database, &clock, changes.clone(), deliveries::reach(config))
        .map_err(|error| error.to_string())?;
    let secret_keys = SecretKeys { jwt: JwtKeys::ephemeral()?, data };
    let memory = MemorySettings { cache_entries: 1 };
    let settings = ServiceSettings { memory: &memory, ..service_settings(config) };
    Ok(App::new(stores(&store), secret_keys, settings, 1, clock, changes))
}

/// The store, as each noun needs it.
pub fn stores(store: &Arc<dyn Store>) -> Stores {
    Stores {
        users: store.clone(),
        recovery: store.clone(),
        second_factors: store.clone(),
        sealed: store.clone(),
        addresses: store.clone(),
        sessions: store.clone(),
        failures: store.clone(),
        keys: store.clone(),
        usage: store.clone(),
        events: store.clone(),
        statistics: store.clone(),
        outbox: store.clone(),
        webhooks: store.clone(),
    }
}

/// The settings of the services among all.
pub fn service_settings(config: &Config) -> ServiceSettings<'_> {
    let Config { accounts, tokens, keys, audit, outbox, webhooks, memory, .. } = config;
    let sends_mail = deliveries::reach(config).mail;
    ServiceSettings { accounts, tokens, keys, audit, outbox, webhooks, memory, sends_mail }
}

/// A running Keyward.
pub struct Keyward {
    server: Server,
    jobs: Jobs,
    deliverer: Deliverer,
    /// The store, if it is SQLite: to be closed at the end.
    embedded: Option<Arc<dyn Store>>,
    lost: Option<Receiver<String>>,
}

impl Keyward {
    /// Starts everything; the server answers when this returns. The error is one line for the operator.
    pub fn start(config: &Config, clock: Clock) -> Result<Keyward, String> {
        // A bad certificate and bad texts of mails are reported before the database is touched.
        let tls = config.http.tls_files().as_ref().map(Tls::start).transpose()?;
        let mailer = Mailer::open(&config.mail)?;
        let (app, store) = open_app(config, clock)?;
        let app = Arc::new(app);
        // Read before anything is written by this clock.
        let latest = store.latest().map_err(|error| error.to_string())?.unwrap_or_else(|| app.clock.now());
        // The first refused login already takes as long as verifying the costliest stored hash.
        app.users.note_costs().map_err(|error| error.to_string())?;
        let (lose, lost) = channel();
        store.clone().listen(lose);
        let deliverer = deliveries::start(&app, &store, mailer, config)?;
        let embedded = config.store.database()?.sqlite_file().is_some().then_some(store);
        let server = Server::start(app.clone(), &ROUTES, tls, &config.http)?;
        let jobs = Jobs::start(app, latest)?;
        // Logged before the lines that scripts wait for: they may stop the server as soon as they see those.
        for address in server.redirects() {
            info!("sending http://{address} to HTTPS");
        }
        let scheme = server.scheme();
        for address in server.addresses() {
            info!("listening on {scheme}://{address}, API documentation at {scheme}://{address}/api/docs");
        }
        Ok(Keyward { server, jobs, deliverer, embedded, lost: Some(lost) })
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        self.server.addresses()
    }

    /// The addresses that redirect plain HTTP to HTTPS.
    pub fn redirects(&self) -> &[SocketAddr] {
        self.server.redirects()
    }

    /// Reads the files again that may change while the server runs: the certificate's.
    pub(crate) fn reload(&self) {
        self.server.reload();
    }

    /// Gets one line for the operator as soon as the server cannot go on. `None` from the second call on.
    pub(crate) fn lost(&mut self) -> Option<Receiver<String>> {
        self.lost.take()
    }

    /// Finishes the requests under way, then writes what is only in memory.
    pub fn stop(self) {
        self.server.stop();
        self.deliverer.stop();
        self.jobs.stop();
        // The last owner of the store closes the SQLite file and tidies up beside it. It must be this thread: the
        // others end with the process, wherever they are.
        let Some(store) = self.embedded else { return };
        let deadline = Instant::now() + CLOSING;
        while Arc::strong_count(&store) > 1 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// How long the store's threads may take to let go of it.
const CLOSING: Duration = Duration::from_secs(1);
