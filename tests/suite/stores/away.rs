//! A PostgreSQL that refuses connections or hangs.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use keyward::base::secret::Secret;
use keyward::config::Config;
use keyward::run::Keyward;
use keyward_harness::http_client::{Answer, Client, Request};
use keyward_harness::openapi;
use keyward_harness::postgres_cluster::{self};
use keyward_harness::relay::Relay;
use keyward_harness::service::{Backend, PASSWORD, Service, error};
use serde_json::json;

use super::{Key, key, new_key};

/// A second server on the data of `service`, whose link to PostgreSQL can be taken away. It has not seen any of
/// the credentials that `service` hands out.
struct Remote {
    relay: Relay,
    keyward: Option<Keyward>,
    address: SocketAddr,
}

impl Remote {
    fn of(service: &Service) -> Remote {
        let database = service.database().unwrap();
        let relay = Relay::to(SocketAddr::from((Ipv4Addr::LOCALHOST, database.port())));
        let url = database.url_at(relay.addr().port());
        let mut config: Config = service.config().clone();
        config.store.url = Some(Secret::new(url));
        let keyward = Keyward::start(&config, service.clock.clone()).unwrap();
        let address = keyward.addresses()[0];
        Remote { relay, keyward: Some(keyward), address }
    }

    fn client(&self) -> Client {
        Client::new(self.address, openapi::check)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.relay.restore();
        self.relay.thaw();
        self.keyward.take().unwrap().stop();
    }
}

/// A request that needs the store, and its answer when the store is there; after a request whose outcome nobody
/// knows, another one may be as right.
struct Needy {
    name: &'static str,
    request: Box<dyn Fn(&Client) -> Answer + Sync>,
    expected: u16,
    if_done_before: u16,
}

fn needy_requests(service: &Service) -> Vec<Needy> {
    let ann = service.sign_up("ann@example.com");
    let [to_end, to_refresh] = [(); 2].map(|()| service.log_in("ann@example.com"));
    let [works, to_revoke] = [(); 2].map(|()| new_key(service, &ann));
    let form = |email: &str| json!({ "email": email, "password": PASSWORD });
    let mut requests = Vec::new();
    let mut add = |name, expected, if_done_before, request: Box<dyn Fn(&Client) -> Answer + Sync>| {
        requests.push(Needy { name, request, expected, if_done_before });
    };
    let (new, known) = (form("bob@example.com"), form("ann@example.com"));
    let refresh = json!({ "refreshToken": to_refresh.refresh });
    let token = |send: fn(&Client, &str) -> Answer| {
        let access = ann.access.clone();
        Box::new(move |client: &Client| send(client, &access))
    };
    add("sign up", 201, 409, Box::new(move |client| client.post("/auth/signup").json(new.clone()).send()));
    add("log in", 200, 200, Box::new(move |client| client.post("/auth/login").json(known.clone()).send()));
    add("refresh", 200, 200, Box::new(move |client| client.post("/auth/refresh").json(refresh.clone()).send()));
    add("log out", 200, 401, Box::new(move |client| client.post("/auth/logout").bearer(&to_end.access).send()));
    add("who am I", 200, 200, token(|client, access| client.get("/auth/me").bearer(access).send()));
    add("list keys", 200, 200, token(|client, access| client.get("/keys").bearer(access).send()));
    add("user only", 200, 200, token(|client, access| client.get("/protected/user-only").bearer(access).send()));
    add("flexible", 200, 200, token(|client, access| client.get("/protected/flexible").bearer(access).send()));
    add(
        "create a key",
        201,
        201,
        token(|client, access| client.post("/keys/create").bearer(access).json(json!({ "name": "ci" })).send()),
    );
    let (access, path) = (ann.access.clone(), format!("/keys/{}", to_revoke.id));
    add("revoke a key", 200, 200, Box::new(move |client| client.delete(&path).bearer(&access).send()));
    let service_only = move |client: &Client| client.get("/protected/service-only").api_key(&works.key).send();
    add("service only", 200, 200, Box::new(service_only));
    for (name, path) in [
        ("forward auth", "/authz/forward-auth"),
        ("auth request", "/authz/auth-request"),
        ("ext authz", "/authz/ext-authz/orders"),
    ] {
        let access = ann.access.clone();
        add(name, 200, 200, Box::new(move |client| client.get(path).bearer(&access).send()));
    }
    let gateway = service.create_key(&ann.access, json!({ "name": "gateway", "scopes": ["keys:verify"] }));
    let (gateway, form) = (key(&gateway).key, format!("token={}", ann.access));
    let introspect = move |client: &Client| {
        client.post("/oauth/introspect").api_key(&gateway).body("application/x-www-form-urlencoded", &*form).send()
    };
    add("introspect", 200, 200, Box::new(introspect));
    requests
}

/// Makes keys, and revokes every other one, until nobody listens any more. Tells what was acknowledged: a key and
/// whether it is good; `None` stands for a request that was told to come back.
fn write(client: &Client, access: &str, told: &Sender<Option<(Key, bool)>>) {
    let sent = |request: Request<'_>| {
        let answer = request.send();
        assert!([200, 201, 503].contains(&answer.status), "{answer:?}");
        (answer.status != 503).then_some(answer)
    };
    let create = || sent(client.post("/keys/create").bearer(access).json(json!({ "name": "ci" })));
    let revoke = |key: &Key| sent(client.delete(&format!("/keys/{}", key.id)).bearer(access));
    for count in 0.. {
        let made = create().map(|answer| key(&answer.json()));
        let done = match made {
            Some(made) if count % 2 == 0 => Some((made, true)),
            Some(made) => revoke(&made).map(|_| (made, false)),
            None => None,
        };
        if told.send(done).is_err() {
            return;
        }
    }
}

/// While the store is away, every request is told so in time; when it is back, each succeeds; and whatever was
/// acknowledged, before, between or after, is there.
fn story(take_away: fn(&Relay), give_back: fn(&Relay)) {
    if !postgres_cluster::available() {
        return;
    }
    // The writers make as many as they can.
    let service = Service::start_with(Backend::Postgres, &[("MAX_KEYS_PER_USER", "100000")], |_| {});
    let requests = needy_requests(&service);
    let writer = service.log_in("ann@example.com");
    let remote = Remote::of(&service);
    let (told, outcomes) = channel();
    let mut acknowledged: Vec<(Key, bool)> = Vec::new();
    thread::scope(|scope| {
        // In here, so that the writers end also when something fails.
        let outcomes = outcomes;
        for _ in 0..2 {
            let (client, told, access) = (remote.client(), told.clone(), &writer.access);
            scope.spawn(move || write(&client, access, &told));
        }
        acknowledged.extend(outcomes.iter().flatten().take(20));
        take_away(&remote.relay);
        each_is_told_to_come_back(&remote, &requests);
        give_back(&remote.relay);
        each_succeeds_soon(&remote, &requests);
        acknowledged.extend(outcomes.iter().flatten().take(20));
    });
    for (key, is_good) in acknowledged {
        assert_eq!(service.key_status(&key.key), if is_good { 200 } else { 401 });
    }
}

fn each_is_told_to_come_back(remote: &Remote, requests: &[Needy]) {
    thread::scope(|scope| {
        for needy in requests {
            let client = remote.client();
            scope.spawn(move || {
                let asked = Instant::now();
                let answer = (needy.request)(&client);
                let waited = asked.elapsed();
                assert_eq!(answer.status, 503, "{}: {answer:?}", needy.name);
                assert_eq!(answer.header("retry-after"), Some("1"));
                let message = "Service temporarily unavailable, try again shortly";
                assert_eq!(answer.json(), error(503, message));
                assert!(waited < Duration::from_secs(8), "{}: {waited:?}", needy.name);
            });
        }
        let client = remote.client();
        assert_eq!(client.get("/health").send().status, 200);
        // What is refused without asking the store is refused as ever.
        assert_eq!(client.get("/protected/user-only").send().status, 401);
        assert_eq!(client.get("/protected/service-only").api_key("nonsense").send().status, 401);
    });
}

fn each_succeeds_soon(remote: &Remote, requests: &[Needy]) {
    let back = Instant::now();
    thread::scope(|scope| {
        for needy in requests {
            let client = remote.client();
            scope.spawn(move || {
                let answer = loop {
                    let answer = (needy.request)(&client);
                    if answer.status != 503 {
                        break answer;
                    }
                    assert!(back.elapsed() < Duration::from_secs(10), "{}: {:?}", needy.name, back.elapsed());
                };
                let right = [needy.expected, needy.if_done_before].contains(&answer.status);
                assert!(right, "{}: {answer:?}", needy.name);
            });
        }
    });
}

#[test]
fn when_postgresql_refuses_connections_requests_are_told_to_come_back_and_succeed_when_it_is_there_again() {
    story(Relay::cut, Relay::restore);
}

#[test]
fn when_postgresql_hangs_requests_are_told_to_come_back_and_succeed_when_it_moves_again() {
    story(Relay::freeze, Relay::thaw);
}
