//! What ends on one instance, and how soon it has ended on another, whatever the link between them does.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use keyward::accounts::granting::ScopeChange;
use keyward::audit::event::By;
use keyward::base::id::UserId;
use keyward::keys::grants::Grants;
use keyward_harness::http_client::{Client, PATIENCE};
use keyward_harness::postgres_cluster::available;
use keyward_harness::relay::Relay;
use keyward_harness::service::{Account, Backend, SOON, Service};
use serde_json::json;

use super::{
    Credential, Finally, Instance, LISTENING, MAX_AGE, allow_masses, database_address, honoured_for, operator,
    percentile, set_active, start, until, until_both_listen,
};

/// A credential that is watched from its first acceptance to its refusal.
struct Victim {
    credential: Credential,
    /// The instance that ends it; `None`: another process does.
    ended_by: Option<usize>,
    /// When the client that ended it had the answer.
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
    let client = Client::unobserved(address);
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
fn a_scope_that_another_process_withdraws_is_soon_refused_at_the_gateway() {
    const ROUNDS: usize = 200;
    if !available() {
        return;
    }
    let service = Service::start_with(Backend::Postgres, &[], |config| {
        allow_masses(config);
        // Without a pattern that covers everything.
        config.accounts.user_scopes = Grants::default();
    });
    let second = Instance::beside(&service);
    until_both_listen(&service);
    let users = operator(service.config());
    let ann = service.sign_up("ann@example.com");
    let id = UserId::parse(&ann.id).unwrap();
    let change = |scopes: ScopeChange| users.change_scopes(id, &scopes, &By::operator()).unwrap().unwrap();
    let orders = Grants::parse(&["orders:read"]).unwrap();
    change(ScopeChange::Grant(orders.clone()));
    let key = service.create_key(&ann.access, json!({ "name": "key", "scopes": ["orders:read"] }));
    let key = key["key"].as_str().unwrap().to_string();
    let there = second.client();
    let at_the_gateway = || there.get("/authz/forward-auth?scope=orders:read").api_key(&key).send().status;
    let mut delays: Vec<Duration> = Vec::new();
    for _ in 0..ROUNDS {
        until("the scope counts at the other instance", || at_the_gateway() == 200);
        change(ScopeChange::Withdraw(orders.clone()));
        let withdrawn = Instant::now();
        let mut last = withdrawn;
        until("the key is refused", || {
            let asked = Instant::now();
            match at_the_gateway() {
                200 => last = asked,
                status => assert_eq!(status, 403),
            }
            last != asked
        });
        delays.push(last - withdrawn);
        change(ScopeChange::Grant(orders.clone()));
    }
    delays.sort_unstable();
    let (median, p99) = (percentile(&delays, 50), percentile(&delays, 99));
    eprintln!("honoured elsewhere after its scope was withdrawn: median {median:?}, p99 {p99:?}, {ROUNDS} times");
    assert!(p99 < SOON, "honoured for {p99:?}");
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
