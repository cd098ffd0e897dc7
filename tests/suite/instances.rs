//! What an instance remembers: for how long, what ends it, and what is left of it when a link or the process goes.
//!
//! Times are asserted with room for a slow machine; the figures themselves are printed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use keyward::accounts::email::Email;
use keyward::accounts::limits::AddressRates;
use keyward::accounts::passwords::PasswordRules;
use keyward::accounts::users::Users;
use keyward::audit::event::By;
use keyward::base::clock::Clock;
use keyward::base::id::{KeyId, UserId};
use keyward::base::secret::Secret;
use keyward::config::Config;
use keyward::keys::key::KeyHash;
use keyward::run;
use keyward::run::Keyward;
use keyward_harness::http_client::{Answer, Client, PATIENCE, Request, connect, read_answer};
use keyward_harness::postgres_cluster::available;
use keyward_harness::program::{Home, in_both_homes};
use keyward_harness::relay::Relay;
use keyward_harness::service::{Account, Backend, PASSWORD, SOON, Service, on_both_stores, soon, within};
use postgres::fallible_iterator::FallibleIterator;
use serde_json::{Value, json};

use crate::refresh::claims;

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

/// Requests in masses are not held against the API's description one by one.
fn unobserved(address: SocketAddr) -> Client {
    Client::new(address, |_, _, _| {})
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
        unobserved(self.address)
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
                         AND (query LIKE 'LISTEN%' OR query LIKE '%NOTIFY keyward_ear%')";

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
    assert!(users.set_active(UserId::parse(&account.id).unwrap(), active, &By::operator()).unwrap());
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
            Credential::Key { key, .. } => key_status(client, key),
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

#[track_caller]
fn key_status(client: &Client, key: &str) -> u16 {
    client.get("/protected/service-only").api_key(key).send().status
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

// Several instances.

/// A credential that is watched from its first acceptance to its refusal.
struct Victim {
    credential: Credential,
    /// The instance that ends it; `None`: another process does.
    ended_by: Option<usize>,
    /// When whoever ended it had the answer.
    ended: OnceLock<Instant>,
}

impl Victim {
    fn new(credential: Credential, ended_by: Option<usize>) -> Victim {
        Victim { credential, ended_by, ended: OnceLock::new() }
    }
}

enum Sight {
    Accepted,
    /// With the time at which was asked when it was accepted last.
    Refused(Instant),
}

struct Report {
    round: usize,
    instance: usize,
    sight: Sight,
}

/// What the watchers look at; `None`: they may go.
type Board = Mutex<Option<(usize, Arc<Victim>)>>;

/// Presents the victim to one instance again and again, in turn with credentials that stay good.
fn watch(instance: usize, address: SocketAddr, board: &Board, good: &[Credential], reports: &Sender<Report>) {
    let client = unobserved(address);
    let mut round = None;
    let mut accepted: Option<Instant> = None;
    let mut refused = false;
    for turn in 0.. {
        let Some((number, victim)) = board.lock().unwrap().clone() else { return };
        if round != Some(number) {
            (round, accepted, refused) = (Some(number), None, false);
        }
        let is_over = victim.ended.get().is_some();
        let report = |sight| reports.send(Report { round: number, instance, sight }).unwrap();
        let asked = Instant::now();
        match victim.credential.verdict(&client) {
            None => {}
            Some(200) => {
                assert!(!refused, "refused, then accepted again");
                assert!(!is_over || victim.ended_by != Some(instance), "accepted by the instance that has ended it");
                if accepted.replace(asked).is_none() {
                    report(Sight::Accepted);
                }
            }
            Some(401) => {
                let last = accepted.expect("it was good at first");
                if !refused {
                    report(Sight::Refused(last));
                }
                refused = true;
            }
            Some(status) => panic!("{status}"),
        }
        assert!(matches!(good[turn % good.len()].verdict(&client), None | Some(200)));
        // Clients and servers that wake each other without end can keep everyone else from a small machine.
        thread::sleep(Duration::from_micros(200));
    }
}

const WATCHERS: usize = 4;

/// Puts the victim on the board, ends it when every watcher has seen it accepted, and tells how long after the end an
/// instance that had to be told still accepted it.
fn end_watched(
    round: usize,
    victim: Victim,
    board: &Board,
    reports: &Receiver<Report>,
    end: impl FnOnce(&Credential),
) -> Duration {
    let victim = Arc::new(victim);
    *board.lock().unwrap() = Some((round, victim.clone()));
    let next = || loop {
        let report = reports.recv_timeout(PATIENCE).expect("every watcher sees it accepted, then refused");
        if report.round == round {
            return report;
        }
    };
    for _ in 0..WATCHERS {
        assert!(matches!(next().sight, Sight::Accepted));
    }
    end(&victim.credential);
    let ended = *victim.ended.get_or_init(Instant::now);
    let mut longest = Duration::ZERO;
    for _ in 0..WATCHERS {
        let Report { instance, sight: Sight::Refused(last), .. } = next() else { panic!("accepted twice") };
        if victim.ended_by != Some(instance) {
            longest = longest.max(last.saturating_duration_since(ended));
        }
    }
    longest
}

#[test]
fn what_ends_under_load_ends_at_once_where_it_was_ended_and_soon_on_the_other_instance() {
    const REVOCATIONS: usize = 200;
    const LOGOUTS: usize = 20;
    const DEACTIVATIONS: usize = 20;
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let second = Instance::beside(&service);
    let users = operator(service.config());
    let ann = service.sign_up("ann@example.com");
    let mut good: Vec<Credential> = (0..8).map(|_| Credential::key(&service, &ann)).collect();
    good.push(Credential::Token(ann.access.clone()));
    let clients = [service.client(), second.client()];
    let addresses = [service.address(), second.address];
    let board = Mutex::new(Some((usize::MAX, Arc::new(Victim::new(good[0].clone(), None)))));
    let (sender, reports) = channel();

    // Made beforehand, so that the rounds follow each other closely. Of those who are deactivated, every second one
    // presents a key.
    let rounds = REVOCATIONS + LOGOUTS + DEACTIVATIONS;
    let victims: Vec<(Account, Credential)> = (0..rounds)
        .map(|round| {
            let owner = if round < REVOCATIONS + LOGOUTS {
                service.log_in(&ann.email)
            } else {
                service.sign_up(&format!("user-{round}@example.com"))
            };
            let presents_key = round < REVOCATIONS || (round >= REVOCATIONS + LOGOUTS && round % 2 == 0);
            let credential =
                if presents_key { Credential::key(&service, &owner) } else { Credential::Token(owner.access.clone()) };
            (owner, credential)
        })
        .collect();
    let mut delays: [Vec<Duration>; 3] = Default::default();
    let mut late = 0;
    let started = Instant::now();
    thread::scope(|scope| {
        // Also when the test fails.
        let _over = Finally(|| *board.lock().unwrap() = None);
        for watcher in 0..WATCHERS {
            let (board, good, sender, instance) = (&board, &good, sender.clone(), watcher % 2);
            scope.spawn(move || watch(instance, addresses[instance], board, good, &sender));
        }
        for (round, (owner, credential)) in victims.into_iter().enumerate() {
            let is_deactivation = round >= REVOCATIONS + LOGOUTS;
            let kind = usize::from(round >= REVOCATIONS) + usize::from(is_deactivation);
            let ended_by = (!is_deactivation).then_some(round % 2);
            let victim = Victim::new(credential, ended_by);
            let delay = end_watched(round, victim, &board, &reports, |credential| match ended_by {
                Some(instance) => {
                    credential.end(&clients[instance], &owner);
                    assert_eq!(credential.status(&clients[instance]), 401, "right after the answer");
                }
                None => set_active(&users, &owner, false),
            });
            delays[kind].push(delay);
            late += usize::from(delay >= Duration::from_secs(1));
            assert!(late <= rounds / 100, "{late} of {rounds} were honoured for a second and more");
        }
    });
    eprintln!("{rounds} rounds under load in {:?}", started.elapsed());
    for (kind, mut delays) in ["revocation", "logout", "deactivation"].into_iter().zip(delays) {
        delays.sort_unstable();
        let (median, p99) = (percentile(&delays, 50), percentile(&delays, 99));
        eprintln!("honoured elsewhere after its {kind}: median {median:?}, p99 {p99:?}, {} times", delays.len());
    }
}

#[test]
fn over_a_silent_link_what_has_ended_is_honoured_for_five_seconds_at_most() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let relay = Relay::to_marking(database_address(&service), "LISTEN");
    let second = Instance::behind(&relay, &service, |_| {});
    let users = operator(service.config());
    let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
    let here = service.client();

    // Its queries go through, but it is told nothing.
    relay.freeze_marked();
    let key = Credential::key(&service, &ann);
    let session = Credential::Token(service.log_in(&ann.email).access);
    let (bobs_key, bobs_session) = (Credential::key(&service, &bob), Credential::Token(bob.access.clone()));
    let victims = [&key, &session, &bobs_key, &bobs_session];
    let there = second.client();
    for victim in victims {
        assert_eq!(victim.status(&there), 200);
    }
    key.end(&here, &ann);
    let key_ended = Instant::now();
    session.end(&here, &ann);
    let session_ended = Instant::now();
    set_active(&users, &bob, false);
    let bob_ended = Instant::now();
    for victim in [&key, &session] {
        assert_eq!(victim.status(&here), 401);
    }
    let honoured: Vec<Duration> = thread::scope(|scope| {
        let ended = [key_ended, session_ended, bob_ended, bob_ended];
        let watches: Vec<_> = victims
            .into_iter()
            .zip(ended)
            .map(|(victim, ended)| {
                let client = second.client();
                scope.spawn(move || honoured_for(ended, victim, &client))
            })
            .collect();
        watches.into_iter().map(|watch| watch.join().unwrap()).collect()
    });
    eprintln!("honoured over a silent link: {honoured:?} (key, logout, key and session of a deactivated user)");
    assert!(honoured.iter().all(|span| *span < MAX_AGE), "{honoured:?}");
    assert!(honoured.iter().any(|span| *span > Duration::from_secs(1)), "{honoured:?}: was the link not silent?");

    // A change made while the link was down is seen when it is back, and then everything is fast again.
    for name in ["while the link was down", "with the link back"] {
        let key = Credential::key(&service, &ann);
        assert_eq!(key.status(&there), 200);
        key.end(&here, &ann);
        let ended = Instant::now();
        relay.thaw();
        let span = honoured_for(ended, &key, &there);
        eprintln!("honoured, revoked {name}: {span:?}");
        assert!(span < SOON, "{name}: honoured for {span:?}");
    }
}

#[test]
fn a_link_that_is_cut_is_made_again_and_what_was_missed_is_not_honoured_longer() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let second = Instance::beside(&service);
    let ann = service.sign_up("ann@example.com");
    let (here, there) = (service.client(), second.client());
    let mut client = service.database().unwrap().client();
    for round in ["first", "second"] {
        until_both_listen(&service);
        let key = Credential::key(&service, &ann);
        assert_eq!(key.status(&there), 200);
        client.execute(&format!("SELECT pg_terminate_backend(pid) {LISTENING}"), &[]).unwrap();
        key.end(&here, &ann);
        let span = honoured_for(Instant::now(), &key, &there);
        eprintln!("honoured, revoked as the link was cut, {round} time: {span:?}");
        assert!(span < SOON, "honoured for {span:?}");
    }
}

#[test]
fn a_key_revoked_while_an_instance_had_no_database_is_refused_when_it_is_back() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let relay = Relay::to(database_address(&service));
    let second = Instance::behind(&relay, &service, |_| {});
    let ann = service.sign_up("ann@example.com");
    let (here, there) = (service.client(), second.client());
    let key = Credential::key(&service, &ann);
    assert_eq!(key.status(&there), 200);
    relay.cut();
    key.end(&here, &ann);
    assert_eq!(key.status(&there), 200, "from memory");
    relay.restore();
    let span = honoured_for(Instant::now(), &key, &there);
    eprintln!("honoured after the database was back: {span:?}");
    assert!(span < SOON, "honoured for {span:?}");
}

#[test]
fn a_session_refreshed_on_one_instance_lives_on_where_its_earlier_expiry_is_remembered() {
    if !available() {
        return;
    }
    let settings = [("JWT_EXPIRES_IN", "100s"), ("JWT_REFRESH_EXPIRES_IN", "100s")];
    let service = Service::start_with(Backend::Postgres, &settings, allow_masses);
    let second = Instance::beside(&service);
    let ann = service.sign_up("ann@example.com");
    let there = second.client();
    service.advance(60);
    assert_eq!(service.token_status(&ann.access), 200);
    let answer = there.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    let access = answer.json()["accessToken"].as_str().unwrap().to_string();
    service.advance(60);
    assert_eq!((service.token_status(&ann.access), service.token_status(&access)), (401, 200));
    service.advance(60);
    assert_eq!(service.token_status(&access), 401);
}

// A store that is away.

#[test]
fn without_its_database_an_instance_honours_what_it_knows_for_five_seconds_then_answers_503_never_401() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let relay = Relay::to(database_address(&service));
    let second = Instance::behind(&relay, &service, |_| {});
    let ann = service.sign_up("ann@example.com");
    let credentials = [Credential::key(&service, &ann), Credential::Token(ann.access.clone())];
    let known = Instant::now();
    for credential in &credentials {
        assert_eq!(credential.status(&second.client()), 200);
    }
    relay.cut();
    let cut = Instant::now();
    thread::scope(|scope| {
        for credential in &credentials {
            let client = second.client();
            scope.spawn(move || {
                until("the store is missed", || {
                    let asked = Instant::now();
                    match credential.status(&client) {
                        200 => assert!(asked - cut < MAX_AGE, "{credential:?} honoured after {:?}", asked - cut),
                        status => {
                            assert_eq!(status, 503);
                            assert!(asked - known > SOON, "{credential:?} forgotten after {:?}", asked - known);
                            return true;
                        }
                    }
                    false
                });
                assert_eq!(credential.status(&client), 503);
            });
        }
        let client = Client::new(second.address, keyward_harness::openapi::check);
        scope.spawn(move || {
            let answer = client.get("/protected/service-only").api_key(&unknown_key(1)).send();
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            // What the request alone tells is told without a store.
            assert_eq!(client.get("/protected/service-only").api_key("sk_").send().status, 401);
            assert_eq!(client.get("/protected/user-only").bearer("no.such.token").send().status, 401);
            assert_eq!(client.get("/health").send().status, 200);
        });
    });
    relay.restore();
    for credential in &credentials {
        until("it is accepted again", || match credential.status(&second.client()) {
            503 => false,
            status => {
                assert_eq!(status, 200);
                true
            }
        });
    }
}

/// Presents all keys over a few connections, each of which sends its requests without waiting for answers.
fn statuses(address: SocketAddr, keys: &[String], connections: usize) -> Vec<u16> {
    let mut pending: Vec<_> = keys
        .chunks(keys.len().div_ceil(connections))
        .map(|keys| {
            let mut stream = connect(address).unwrap();
            let request =
                |key: &String| format!("GET /protected/service-only HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n");
            stream.write_all(keys.iter().map(request).collect::<String>().as_bytes()).unwrap();
            (BufReader::new(stream), keys.len())
        })
        .collect();
    pending
        .iter_mut()
        .flat_map(|(stream, count)| (0..*count).map(|_| read_answer(stream, false).unwrap().status).collect::<Vec<_>>())
        .collect()
}

#[test]
fn ten_thousand_unknown_keys_push_no_known_one_out() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let ann = service.sign_up("ann@example.com");
    // What is known is known for five seconds: on a machine that needs longer, fewer have to do.
    let mut count = 10_000;
    loop {
        let relay = Relay::to(database_address(&service));
        let second = Instance::behind(&relay, &service, |config| config.memory.cache_entries = 64);
        let there = second.client();
        let key = Credential::key(&service, &ann);
        let known = Instant::now();
        assert_eq!(key.status(&there), 200);
        let unknown: Vec<String> = (0..count).map(unknown_key).collect();
        let answers = statuses(second.address, &unknown, 100);
        assert!(answers.iter().all(|status| *status == 401), "{answers:?}");
        relay.cut();
        let status = key.status(&there);
        let passed = known.elapsed();
        if passed < MAX_AGE {
            eprintln!("{count} unknown keys in {passed:?}");
            assert_eq!(status, 200, "from memory");
            return;
        }
        count /= 2;
    }
}

/// Runs the story while nobody can read the table of keys, from when queries for these keys wait for that, and
/// returns what they are answered in the end. The story can ask how many wait.
fn with_keys_locked(service: &Service, keys: &[String], story: impl FnOnce(&mut dyn FnMut() -> i64)) -> Vec<u16> {
    let database = service.database().unwrap();
    let (mut locker, mut observer) = (database.client(), database.observer());
    let mut lock = locker.transaction().unwrap();
    lock.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE", &[]).unwrap();
    let mut sent: Vec<_> = keys.iter().map(|key| present(service.address(), key)).collect();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 \
                   AND wait_event_type = 'Lock' AND query LIKE '%api_keys.hash = ANY%'";
    let mut count = || observer.query_one(waiting, &[&database.name()]).unwrap().get::<_, i64>(0);
    until("they wait", || count() > 0 && has_read_everything(service.address()));
    story(&mut count);
    lock.rollback().unwrap();
    sent.iter_mut().map(|stream| read_answer(stream, false).unwrap().status).collect()
}

/// Whether no connection of the server waits to be accepted, and nothing that was sent to it waits to be read.
pub fn has_read_everything(server: SocketAddr) -> bool {
    // proc_pid_net(5): the second field is the local address, the fifth what is queued in both directions.
    let port = format!(":{:04X}", server.port());
    let sockets = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let mut of_server = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    of_server.all(|fields| !fields[1].ends_with(&port) || fields[4].ends_with(":00000000"))
}

fn present(address: SocketAddr, key: &str) -> BufReader<TcpStream> {
    let mut stream = connect(address).unwrap();
    write!(stream, "GET /protected/service-only HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n").unwrap();
    BufReader::new(stream)
}

#[test]
fn unknown_keys_that_wait_for_the_store_keep_nobody_else_from_it() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let ann = service.sign_up("ann@example.com");
    let unknown: Vec<String> = (0..200).map(unknown_key).collect();
    let answers = with_keys_locked(&service, &unknown, |waiting| {
        assert_eq!(service.token_status(&service.log_in(&ann.email).access), 200);
        assert_eq!(service.get("/auth/me").bearer(&ann.access).send().status, 200);
        let count = waiting();
        assert!((1..=10).contains(&count), "{count} queries wait, of at most half of the connections");
    });
    assert_eq!(answers, [401; 200]);
}

/// PostgreSQL adds a connection's figures up when it ends: stops the service, and waits for that.
fn figure_of_all(service: &mut Service, figure: &str) -> i64 {
    service.stop();
    let database = service.database().unwrap();
    let mut observer = database.observer();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'";
    let mut open = || observer.query_one(open, &[&database.name()]).unwrap().get::<_, i64>(0);
    until("the service's connections are closed", || open() == 0);
    database.client().query_one(figure, &[]).unwrap().get(0)
}

/// Stores keys of the owner's at once, without the server.
fn insert_keys(service: &Service, owner: &Account, keys: &[String]) {
    let rows: Vec<String> = keys
        .iter()
        .map(|key| {
            let hash: String =
                KeyHash::of(key.as_bytes()).unwrap().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            format!("('{}', '{}', '\\x{hash}', 'sk_…', 'key', TRUE, now())", KeyId::new(), owner.id)
        })
        .collect();
    let statement = format!(
        "INSERT INTO api_keys (id, user_id, hash, hint, name, is_active, created_at) VALUES {}",
        rows.join(", ")
    );
    service.database().unwrap().client().batch_execute(&statement).unwrap();
}

#[test]
fn all_who_ask_for_the_same_key_at_once_are_answered_by_one_query() {
    if !available() {
        return;
    }
    let mut service = start(Backend::Postgres);
    let name = service.database().unwrap().name().to_string();
    // So that each query for a key shows as one scan of the index; from the next connections on.
    let enough = format!("ALTER DATABASE {name} SET enable_seqscan = off");
    service.database().unwrap().client().batch_execute(&enough).unwrap();
    service.restart();
    let ann = service.sign_up("ann@example.com");
    let key = service.create_key(&ann.access, json!({ "name": "key" }))["key"].as_str().unwrap().to_string();
    let answers = with_keys_locked(&service, &vec![key; 50], |_| {});
    assert_eq!(answers, [200; 50]);
    let index = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'api_keys_hash_key'";
    assert_eq!(figure_of_all(&mut service, index), 1);
}

#[test]
fn keys_that_are_asked_for_at_once_are_fetched_together() {
    if !available() {
        return;
    }
    let mut service = start(Backend::Postgres);
    let ann = service.sign_up("ann@example.com");
    let keys: Vec<String> = (0..300).map(unknown_key).collect();
    insert_keys(&service, &ann, &keys);
    let answers = with_keys_locked(&service, &keys, |_| {});
    assert_eq!(answers, [200; 300]);
    // The sign-up, the migrations and what each connection sets are among them.
    let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let commits = figure_of_all(&mut service, commits);
    eprintln!("{commits} transactions for 300 keys, all told");
    assert!(commits < 200, "{commits} transactions");
}

#[test]
fn a_key_is_good_on_every_instance_once_it_is_made_and_nobody_is_told_of_it() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let second = Instance::beside(&service);
    let ann = service.sign_up("ann@example.com");
    let mut told = Told::listen(&service);
    let Credential::Key { key, .. } = Credential::key(&service, &ann) else { unreachable!() };
    assert_eq!((service.key_status(&key), key_status(&second.client(), &key)), (200, 200));
    assert_eq!(told.before(&service), [""; 0]);
}

/// What instances tell each other.
struct Told(postgres::Client);

impl Told {
    fn listen(service: &Service) -> Told {
        let mut client = service.database().unwrap().client();
        client.batch_execute("LISTEN keyward_changes").unwrap();
        Told(client)
    }

    /// All of it until now: what is told comes in the order of its commits.
    fn before(&mut self, service: &Service) -> Vec<String> {
        service.database().unwrap().client().batch_execute("NOTIFY keyward_changes, 'now'").unwrap();
        let mut told = Vec::new();
        loop {
            let heard = self.0.notifications().timeout_iter(PATIENCE).next().unwrap();
            match heard.expect("it is heard").payload() {
                "now" => return told,
                other => told.push(other.to_string()),
            }
        }
    }
}

#[test]
fn what_is_refused_or_changes_nothing_makes_nobody_forget_what_is_remembered() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
    let key = service.create_key(&ann.access, json!({ "name": "ci" }));
    let revoked = service.create_key(&ann.access, json!({ "name": "revoked" }));
    let path = |key: &Value| format!("/keys/{}", key["id"].as_str().unwrap());
    assert_eq!(service.delete(&path(&revoked)).bearer(&ann.access).send().status, 200);
    let mut told = Told::listen(&service);
    let database = service.database().unwrap();
    let is_remembered = || {
        // Within the five seconds that anything is remembered for.
        loop {
            let started = Instant::now();
            database.client().execute("UPDATE api_keys SET is_active = TRUE WHERE name = 'ci'", &[]).unwrap();
            until("the key is good", || service.key_status(key["key"].as_str().unwrap()) == 200);
            // Nobody is told of this.
            database.client().execute("UPDATE api_keys SET is_active = FALSE WHERE name = 'ci'", &[]).unwrap();
            let sent = |request: Request<'_>, access| request.bearer(access).send().status;
            assert_eq!(sent(service.delete(&path(&key)), &bob.access), 404);
            assert_eq!(sent(service.patch(&path(&key)).json(json!({ "name": "bob's" })), &bob.access), 404);
            assert_eq!(sent(service.post(&format!("{}/rotate", path(&key))).json(json!({})), &bob.access), 404);
            assert_eq!(sent(service.delete(&path(&revoked)), &ann.access), 200);
            assert_eq!(sent(service.patch(&path(&revoked)).json(json!({ "name": "again" })), &ann.access), 409);
            assert_eq!(sent(service.post(&format!("{}/rotate", path(&revoked))).json(json!({})), &ann.access), 409);
            let session = service.get("/auth/sessions").bearer(&ann.access).send().json()[0]["id"].clone();
            let session = format!("/auth/sessions/{}", session.as_str().unwrap());
            assert_eq!(sent(service.delete(&session), &bob.access), 404);
            assert_eq!(sent(service.delete("/auth/sessions"), &bob.access), 200);
            let wrong = json!({ "password": "wrong" });
            assert_eq!(sent(service.delete("/auth/me").json(wrong), &bob.access), 401);
            let status = service.key_status(key["key"].as_str().unwrap());
            if started.elapsed() < Duration::from_secs(4) {
                return status == 200;
            }
        }
    };
    assert!(is_remembered());
    service.operator(&["user", "activate", &ann.email]);
    assert_eq!(told.before(&service), [""; 0]);
    assert_eq!(service.patch(&path(&key)).bearer(&ann.access).json(json!({ "name": "cd" })).send().status, 200);
    assert_eq!(service.key_status(key["key"].as_str().unwrap()), 401);
    assert_eq!(told.before(&service), [key["id"].as_str().unwrap()]);
}

// Another process on the same SQLite file.

#[test]
fn what_the_command_line_ends_has_ended_when_it_returns() {
    let service = start(Backend::Sqlite);
    let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
    let (key, bobs_key) = (Credential::key(&service, &ann), Credential::key(&service, &bob));
    let Credential::Key { id, .. } = &key else { panic!("not a key") };
    let client = service.client();
    let steps: [(&[&str], &Credential, u16); 4] = [
        (&["key", "revoke", id], &key, 401),
        (&["user", "deactivate", &bob.email], &bobs_key, 401),
        (&["user", "activate", &bob.email], &bobs_key, 200),
        (&["user", "delete", &bob.email], &bobs_key, 401),
    ];
    for (arguments, credential, expected) in steps {
        assert_eq!(credential.status(&client), if expected == 200 { 401 } else { 200 });
        service.operator(arguments);
        soon(&format!("{arguments:?} is seen"), || credential.status(&client) == expected);
    }
    assert_eq!(service.token_status(&ann.access), 200);
    // By then the command waits itself; only a machine that stands still makes the server late.
    let at_once = (0..5).filter(|_| {
        let key = Credential::key(&service, &ann);
        let Credential::Key { id, .. } = &key else { panic!("not a key") };
        assert_eq!(key.status(&client), 200);
        service.operator(&["key", "revoke", id]);
        let is_over = key.status(&client) == 401;
        soon("it is revoked", || key.status(&client) == 401);
        is_over
    });
    assert!(at_once.count() >= 3);
}

#[test]
fn what_another_process_writes_into_the_file_is_seen_soon() {
    let service = start(Backend::Sqlite);
    let ann = service.sign_up("ann@example.com");
    let key = Credential::key(&service, &ann);
    let session = Credential::Token(ann.access.clone());
    let client = service.client();
    let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
    file.busy_timeout(PATIENCE).unwrap();
    for (statement, credential, expected) in [
        ("UPDATE api_keys SET is_active = 0", &key, 401),
        ("UPDATE api_keys SET is_active = 1", &key, 200),
        ("UPDATE sessions SET ended_at = created_at", &session, 401),
        ("UPDATE sessions SET ended_at = NULL", &session, 200),
        ("UPDATE users SET is_active = 0", &key, 401),
    ] {
        assert_eq!(credential.status(&client), if expected == 200 { 401 } else { 200 });
        file.execute(statement, []).unwrap();
        soon(&format!("{statement} is seen"), || credential.status(&client) == expected);
    }
}

#[test]
fn what_another_process_has_written_is_seen_while_it_keeps_on_writing() {
    let service = start(Backend::Sqlite);
    let ann = service.sign_up("ann@example.com");
    let key = Credential::key(&service, &ann);
    let client = service.client();
    assert_eq!(key.status(&client), 200);
    let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
    file.execute_batch("BEGIN IMMEDIATE").unwrap();
    let address = service.address();
    thread::scope(|scope| {
        // The server has something to write as well, and waits for its turn.
        scope.spawn(|| {
            let body = json!({ "name": "waits" });
            let status = unobserved(address).post("/keys/create").bearer(&ann.access).json(body).send().status;
            assert!(matches!(status, 201 | 503), "{status}");
        });
        thread::sleep(Duration::from_millis(200));
        file.execute_batch("UPDATE api_keys SET is_active = 0; COMMIT; BEGIN IMMEDIATE").unwrap();
        soon("it is seen while the file is locked", || key.status(&client) == 401);
        file.execute_batch("ROLLBACK").unwrap();
    });
}

// Both stores.

/// Verifiers whose first questions race with the end of the credential; whoever asks after its answer is refused.
fn race(service: &Service, credential: &Credential, owner: &Account) {
    const VERIFIERS: usize = 3;
    let address = service.address();
    let start = Barrier::new(VERIFIERS + 1);
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..VERIFIERS {
            scope.spawn(|| {
                let client = unobserved(address);
                start.wait();
                let mut refusals = 0;
                for question in 0.. {
                    if refusals == 3 {
                        return;
                    }
                    // The first race; later ones leave the machine to whoever ends it.
                    if question >= 10 {
                        thread::sleep(Duration::from_millis(1));
                    }
                    let asked_after = has_ended.load(Ordering::SeqCst);
                    let Some(status) = credential.verdict(&client) else { continue };
                    assert!(status == 401 || (status == 200 && !asked_after), "{status} after the end: {asked_after}");
                    refusals += usize::from(asked_after);
                }
            });
        }
        let client = unobserved(address);
        // Also when it cannot be ended: the verifiers go on until then.
        let _over = Finally(|| has_ended.store(true, Ordering::SeqCst));
        start.wait();
        credential.end(&client, owner);
    });
}

on_both_stores! {
    fn a_credential_asked_for_while_it_ends_is_refused_after_the_answer(service) {
        service.set("RATE_LIMIT_FAILED_KEYS", "off");
        service.restart();
        let ann = service.sign_up("ann@example.com");
        for round in 0..100 {
            race(service, &Credential::key(service, &ann), &ann);
            if round % 25 == 0 {
                race(service, &Credential::Token(service.log_in(&ann.email).access), &ann);
            }
        }
    }

    fn expiry_is_judged_at_every_use_of_what_is_remembered(service) {
        let ann = service.sign_up("ann@example.com");
        let in_a_minute = service.clock.now().plus(Duration::from_secs(60)).to_string();
        let made = service.create_key(&ann.access, json!({ "name": "key", "expiresAt": in_a_minute }));
        let key = made["key"].as_str().unwrap();
        assert_eq!((service.key_status(key), service.token_status(&ann.access)), (200, 200));
        service.advance(59);
        assert_eq!(service.key_status(key), 200);
        service.advance(1);
        assert_eq!((service.key_status(key), service.token_status(&ann.access)), (401, 200));
        // The access token's hour, then the session's week.
        service.advance(60 * 60);
        assert_eq!(service.token_status(&ann.access), 401);
    }

    fn a_request_whose_body_comes_after_the_end_of_who_asks_is_refused(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let key = format!("x-api-key: {}", made["key"].as_str().unwrap());
        let token = format!("authorization: Bearer {}", ann.access);
        // The user's session first, then the owner of the key.
        assert_eq!(status_of_late_body(service, "/keys/create", &token, &json!({ "name": "late" }), || {
            Credential::Token(ann.access.clone()).end(&service.client(), &ann);
        }), 401);
        let body = json!({ "expiresIn": "1m" });
        assert_eq!(status_of_late_body(service, "/auth/token", &key, &body, || ()), 200);
        assert_eq!(status_of_late_body(service, "/auth/token", &key, &body, || {
            service.operator(&["user", "deactivate", &ann.email]);
        }), 401);
    }
}

/// Sends the body of a request when the server has asked for it, which it does when it knows who asks, and something else
/// has been done.
fn status_of_late_body(
    service: &Service,
    target: &str,
    credential: &str,
    body: &serde_json::Value,
    meanwhile: impl FnOnce(),
) -> u16 {
    let body = body.to_string();
    let mut stream = connect(service.address()).unwrap();
    write!(
        stream,
        "POST {target} HTTP/1.1\r\nhost: a\r\n{credential}\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 100 "), "{line}");
    reader.read_line(&mut line).unwrap();
    meanwhile();
    stream.write_all(body.as_bytes()).unwrap();
    read_answer(&mut reader, false).unwrap().status
}

// A process that is killed.

/// What was acknowledged before a kill.
#[derive(Default)]
struct Acknowledged {
    /// From now on no answer may come.
    over: AtomicBool,
    /// None has come.
    gone: AtomicBool,
    live: Mutex<Vec<Credential>>,
    ended: Mutex<Vec<Credential>>,
    count: AtomicUsize,
}

impl Acknowledged {
    fn note(&self, list: &Mutex<Vec<Credential>>, credential: Credential) {
        list.lock().unwrap().push(credential);
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// `None`: it may have been done or not, because the store was away or the server is gone, as it may be by then.
    fn answer(&self, request: Request<'_>, expected: u16) -> Option<Answer> {
        let asked = Instant::now();
        match request.try_send() {
            Ok(answer) if answer.status == 503 => {
                was_away(asked);
                None
            }
            Ok(answer) => {
                assert_eq!(answer.status, expected, "{answer:?}");
                Some(answer)
            }
            Err(error) => {
                assert!(self.over.load(Ordering::SeqCst), "no answer before the kill: {error}");
                self.gone.store(true, Ordering::SeqCst);
                None
            }
        }
    }

    /// Makes credentials, every second of which it ends, until the server is gone.
    fn load(&self, make: impl Fn() -> Option<Credential>, end: impl Fn(&Credential) -> Option<()>) {
        while !self.gone.load(Ordering::SeqCst) {
            let Some(kept) = make() else { continue };
            self.note(&self.live, kept);
            let Some(victim) = make() else { continue };
            if end(&victim).is_some() {
                self.note(&self.ended, victim);
            }
        }
    }
}

/// Kills the server twenty times while it is told to make and end things, each time at another moment.
fn kill_again_and_again(home: &Home) {
    const KILLS: usize = 20;
    let email = "ann@example.com";
    let mut config = home.config();
    allow_masses(&mut config);
    let password = PasswordRules::new(8).judge(PASSWORD).ok().unwrap();
    let (app, _) = run::open_app(&config, Clock::default()).unwrap();
    assert!(app.users.create(Email::parse(email).unwrap(), None, password, &By::operator()).unwrap().is_some());
    drop(app);

    let started = Instant::now();
    let mut total = 0;
    let mut before = Acknowledged::default();
    for number in 0..=KILLS {
        let server = home.start(&[("RUST_LOG", "info,access=off")]);
        let address = server.address();
        let client = unobserved(address);
        for (list, expected) in [(&before.live, 200), (&before.ended, 401)] {
            for credential in &*list.lock().unwrap() {
                let verdict = (0..20).find_map(|_| credential.verdict(&client));
                assert_eq!(verdict, Some(expected), "after kill {number}: {credential:?}");
            }
        }
        total += before.count.load(Ordering::SeqCst);
        if number == KILLS {
            break;
        }
        let acknowledged = Acknowledged::default();
        let log_in = |client: &Client| {
            let body = json!({ "email": email, "password": PASSWORD });
            let answer = acknowledged.answer(client.post("/auth/login").json(body), 200)?;
            Some(answer.json()["accessToken"].as_str().unwrap().to_string())
        };
        let access = (0..20).find_map(|_| log_in(&client)).unwrap();
        let create_key = |client: &Client| {
            let request = client.post("/keys/create").bearer(&access).json(json!({ "name": "key" }));
            let made = acknowledged.answer(request, 201)?.json();
            let text = |name: &str| made[name].as_str().unwrap().to_string();
            Some(Credential::Key { id: text("id"), key: text("key") })
        };
        let end = |client: &Client, credential: &Credential| {
            let request = match credential {
                Credential::Key { id, .. } => client.delete(&format!("/keys/{id}")).bearer(&access),
                Credential::Token(token) => client.post("/auth/logout").bearer(token),
            };
            acknowledged.answer(request, 200).map(drop)
        };
        thread::scope(|scope| {
            // Also when something fails.
            let _over = Finally(|| acknowledged.gone.store(true, Ordering::SeqCst));
            for _ in 0..2 {
                scope.spawn(|| {
                    let client = unobserved(address);
                    acknowledged.load(|| create_key(&client), |key| end(&client, key));
                });
            }
            scope.spawn(|| {
                let client = unobserved(address);
                acknowledged.load(|| log_in(&client).map(Credential::Token), |session| end(&client, session));
            });
            // At another moment each time.
            until("enough is acknowledged", || acknowledged.count.load(Ordering::SeqCst) > 20 + number);
            acknowledged.over.store(true, Ordering::SeqCst);
            server.kill();
        });
        before = acknowledged;
    }
    eprintln!("{KILLS} kills, {total} acknowledged changes, in {:?}", started.elapsed());
}

in_both_homes! {
    fn what_was_acknowledged_survives_twenty_kills(home) {
        let mut home = home;
        home.set(MANY_KEYS.0, MANY_KEYS.1);
        home.set(MANY_SESSIONS.0, MANY_SESSIONS.1);
        kill_again_and_again(&home);
    }
}

// Refreshing, at several instances.

fn refresh(client: &Client, token: &str) -> Answer {
    client.post("/auth/refresh").json(json!({ "refreshToken": token })).send()
}

/// The access token and the refresh token of an answer.
#[track_caller]
fn pair(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let token = |name: &str| body[name].as_str().unwrap().to_string();
    (token("accessToken"), token("refreshToken"))
}

#[test]
fn clocks_that_are_apart_end_no_honest_session() {
    if !available() {
        return;
    }
    let service = start(Backend::Postgres);
    let ann = service.sign_up("ann@example.com");
    let ahead = Clock::default();
    ahead.advance(Duration::from_secs(15));
    let instances = [Instance::start(service.config(), &Clock::default()), Instance::start(service.config(), &ahead)];
    let [one, other] = [instances[0].client(), instances[1].client()];
    let mut token = ann.refresh;
    for (here, there) in [(&one, &other), (&other, &one), (&one, &one), (&other, &other)] {
        let (_, moved) = pair(&refresh(here, &token));
        // The other tab, a moment later, at the other instance.
        let (access, again) = pair(&refresh(there, &token));
        assert_eq!((&claims(&again)["gen"], &claims(&access)["gen"]), (&claims(&moved)["gen"], &claims(&moved)["gen"]));
        token = again;
    }
    // Nor was anybody taken for one whose answer was lost.
    let (access, _) = pair(&refresh(&one, &token));
    let events = one.get("/auth/events").bearer(&access).send().json();
    let kinds: Vec<&str> = events.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["user.signed_up"]);
}

on_both_stores! {
    fn what_a_retry_or_a_theft_ends_is_refused_at_once_here_and_on_another_instance(service) {
        let ann = service.sign_up("ann@example.com");
        let second = Instance::beside(service);
        let (here, there) = (service.client(), second.client());
        let status = |client: &Client, access: &str| client.get("/protected/user-only").bearer(access).send().status;
        let is_good = |access: &str| assert_eq!((status(&here, access), status(&there, access)), (200, 200));
        // On the other one sooner than it would forget by itself.
        let is_ended = |access: &str| {
            assert_eq!(status(&here, access), 401);
            soon("it is refused there", || status(&there, access) == 401);
        };
        let (lost_access, lost) = pair(&refresh(&here, &ann.refresh));
        is_good(&lost_access);
        service.advance(11);
        let (access, token) = pair(&refresh(&here, &ann.refresh));
        is_ended(&lost_access);
        is_good(&access);
        is_good(&ann.access);
        service.advance(11);
        let (latest, _) = pair(&refresh(&here, &token));
        for access in [&access, &latest, &ann.access] {
            is_good(access);
        }
        assert_eq!(refresh(&here, &lost).status, 401);
        // The one that was just used as well.
        for access in [&latest, &access, &ann.access] {
            is_ended(access);
        }
    }
}
