//! What an instance remembers: for how long, what ends it, and what is left of it when a link or the process goes.
//!
//! Times are asserted with room for a slow machine; the figures themselves are printed.

mod deliveries;
mod ending;
mod every_request;
mod kills;
mod lookups;
mod refreshing;
mod sqlite_processes;
mod without_database;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyward::accounts::changing::UserChange;
use keyward::accounts::limits::AddressRates;
use keyward::accounts::users::Users;
use keyward::audit::event::By;
use keyward::base::clock::Clock;
use keyward::base::id::UserId;
use keyward::base::secret::Secret;
use keyward::config::Config;
use keyward::run;
use keyward::run::Keyward;
use keyward_harness::http_client::{Client, PATIENCE};
use keyward_harness::relay::Relay;
use keyward_harness::service::{Account, Backend, Service, within};
use serde_json::json;

/// The longest that a verdict is given from memory.
const MAX_AGE: Duration = Duration::from_secs(5);

/// One user makes them all.
const MANY_KEYS: (&str, &str) = ("MAX_KEYS_PER_USER", "1000000");
const MANY_SESSIONS: (&str, &str) = ("MAX_SESSIONS_PER_USER", "1000");

/// Many users sign up and log in here, and bad keys come in masses, but not to see how passwords are hashed and addresses
/// limited.
fn allow_masses(config: &mut Config) {
    config.accounts.bcrypt_cost = 4;
    config.accounts.address_rates = AddressRates::default();
}

fn start(backend: Backend) -> Service {
    Service::start_with(backend, &[MANY_KEYS, MANY_SESSIONS, ("RATE_LIMIT_WRITES", "off")], allow_masses)
}

/// A further server on a service's data; stopped when it is dropped.
struct Instance {
    keyward: Option<Keyward>,
    address: SocketAddr,
}

impl Instance {
    fn start(config: &Config, clock: &Clock) -> Instance {
        let keyward = Keyward::start(config, clock.clone()).unwrap();
        let address = keyward.addresses()[0];
        Instance { keyward: Some(keyward), address }
    }

    fn beside(service: &Service) -> Instance {
        Instance::start(service.config(), &service.clock)
    }

    /// One that reaches the service's database through the relay.
    fn behind(relay: &Relay, service: &Service, adjust: impl FnOnce(&mut Config)) -> Instance {
        let database = service.database().unwrap();
        let url = database.url_at(relay.addr().port());
        let mut config = service.config().clone();
        config.store.url = Some(Secret::new(url));
        adjust(&mut config);
        let instance = Instance::start(&config, &service.clock);
        // What it knows before is forgotten then.
        until_both_listen(service);
        instance
    }

    fn client(&self) -> Client {
        Client::unobserved(self.address)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(keyward) = self.keyward.take() {
            keyward.stop();
        }
    }
}

/// Of PostgreSQL's connections those on which an instance is told of changes, as it tells itself that it hears.
const LISTENING: &str = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'keyward' \
                         AND (query LIKE 'LISTEN%' OR query LIKE '%NOTIFY keyward_listener%')";

fn until_both_listen(service: &Service) {
    let mut client = service.database().unwrap().client();
    let mut links = || client.query_one(&format!("SELECT count(*) {LISTENING}"), &[]).unwrap().get::<_, i64>(0);
    until("both instances listen", || links() == 2);
}

fn database_address(service: &Service) -> SocketAddr {
    let database = service.database().unwrap();
    SocketAddr::new(database.host().parse().unwrap(), database.port())
}

/// What another process does to accounts: it has a store of its own on the same data.
fn operator(config: &Config) -> Arc<Users> {
    run::open_operator_app(config).unwrap().users
}

fn set_active(users: &Users, account: &Account, active: bool) {
    let change = UserChange { is_active: Some(active), ..UserChange::default() };
    assert!(users.change(UserId::parse(&account.id).unwrap(), &change, &By::operator()).unwrap().is_some());
}

#[derive(Clone, Debug)]
enum Credential {
    Key { id: String, key: String },
    Token(String),
}

impl Credential {
    fn key(service: &Service, owner: &Account) -> Credential {
        let made = service.create_key(&owner.access, json!({ "name": "key" }));
        let text = |name: &str| made[name].as_str().unwrap().to_string();
        Credential::Key { id: text("id"), key: text("key") }
    }

    /// What the route for this kind of credential answers.
    #[track_caller]
    fn status(&self, client: &Client) -> u16 {
        match self {
            Credential::Key { key, .. } => client.key_status(key),
            Credential::Token(token) => client.get("/protected/user-only").bearer(token).send().status,
        }
    }

    /// The same; `None`: the store was away.
    #[track_caller]
    fn verdict(&self, client: &Client) -> Option<u16> {
        let asked = Instant::now();
        let status = self.status(client);
        if status == 503 {
            was_away(asked);
        }
        (status != 503).then_some(status)
    }

    /// Its holder ends it through the API: the key is revoked, the session logged out.
    #[track_caller]
    fn end(&self, client: &Client, owner: &Account) {
        let end = || match self {
            Credential::Key { id, .. } => client.delete(&format!("/keys/{id}")).bearer(&owner.access).send(),
            Credential::Token(token) => client.post("/auth/logout").bearer(token).send(),
        };
        let mut is_unknown = false;
        until("it is ended", || {
            let asked = Instant::now();
            match end().status {
                503 => {
                    was_away(asked);
                    is_unknown = true;
                    false
                }
                // Ended by the request of which that was not known.
                401 if is_unknown => true,
                status => {
                    assert_eq!(status, 200);
                    true
                }
            }
        });
    }
}

/// A 503 is no answer to a test on a machine that stands still for seconds. Sooner, it would be wrong.
#[track_caller]
fn was_away(asked: Instant) {
    let waited = asked.elapsed();
    assert!(waited > Duration::from_secs(1), "503 after {waited:?}");
}

/// A well-formed key that nobody has.
fn unknown_key(number: usize) -> String {
    format!("sk_{number:064x}")
}

#[track_caller]
fn until(what: &str, holds: impl FnMut() -> bool) {
    within(PATIENCE, what, holds);
}

/// Asks until the credential is refused: when the last request was sent that was granted, after `since`. A store that is
/// away meanwhile (503) is neither.
#[track_caller]
fn honoured_for(since: Instant, credential: &Credential, client: &Client) -> Duration {
    let mut last = since;
    until("the credential is refused", || {
        let asked = Instant::now();
        match credential.status(client) {
            200 => {
                last = asked;
                false
            }
            503 => false,
            status => {
                assert_eq!(status, 401);
                true
            }
        }
    });
    last - since
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)]
}

/// Does something when it is dropped.
struct Finally<F: Fn()>(F);

impl<F: Fn()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
