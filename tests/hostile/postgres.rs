//! PostgreSQL killed, restarted, hung and failed over while clients go on asking: they are told to come back, and all is
//! well soon after it is there again.

use std::time::Instant;

use keyward_harness::postgres_cluster::available;
use keyward_harness::program::Home;
use keyward_harness::relay::Relay;
use keyward_harness::service::{Backend, PASSWORD, Service};
use serde_json::json;

use crate::load::Load;
use crate::postgres_pair::{Node, Pair};
use crate::target::{NO_LIMITS, Witness, has_no_faults, unavailable};

/// Requests that have to be granted before something happens, and those that have to be told to come back before it ends.
const GRANTED: usize = 50;
pub const REFUSED: usize = 5;

/// For a server whose store is at this URL.
pub fn home_at(url: &str) -> Home {
    let mut home = Home::fresh(Backend::Sqlite);
    home.set("DATABASE_URL", url);
    home.set("JWT_SECRET", "the-secret-of-access-tokens-of-a-test");
    home.set("JWT_REFRESH_SECRET", "the-secret-of-refresh-tokens-of-a-test");
    home.set("MAX_KEYS_PER_USER", "100000");
    home.set("RUST_LOG", "info,access=off");
    home
}

/// Runs the story under load on such a server.
pub fn under_load(url: &str, story: impl FnOnce(&Load<'_>)) {
    let home = home_at(url);
    let server = home.start(&NO_LIMITS);
    let witness = Witness::of(&server);
    Load::around(&witness, |load| {
        load.wait_for_good(GRANTED);
        story(load);
    });
    witness.testify();
    let said = server.stop();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    has_no_faults(&said.stderr);
}

/// The story of one server that goes away and comes back.
fn alone(take_away: impl FnOnce(&mut Node), give_back: impl FnOnce(&mut Node)) {
    if !available() {
        return;
    }
    let mut pair = Pair::single();
    let url = pair.primary.url(pair.primary.port);
    under_load(&url, |load| {
        take_away(&mut pair.primary);
        load.wait_for_refused(REFUSED);
        give_back(&mut pair.primary);
        load.is_good_soon_after(Instant::now());
    });
}

#[test]
fn when_postgresql_is_killed_clients_are_told_to_come_back_and_are_served_soon_after_its_start() {
    alone(Node::kill, Node::start);
}

#[test]
fn when_postgresql_is_restarted_clients_are_told_to_come_back_and_are_served_soon_after_its_start() {
    alone(Node::stop, Node::start);
}

#[test]
fn when_postgresql_hangs_clients_are_told_to_come_back_and_are_served_soon_after_it_goes_on() {
    alone(|node| node.hang(), |node| node.resume());
}

#[test]
fn when_postgresql_hangs_and_is_killed_clients_are_served_soon_after_its_start() {
    alone(
        |node| node.hang(),
        |node| {
            node.kill();
            node.start();
        },
    );
}

#[test]
fn when_a_read_only_standby_takes_over_clients_are_told_to_come_back_until_it_is_promoted() {
    if !available() {
        return;
    }
    let mut pair = Pair::replicated();
    let standby = pair.standby.take().unwrap();
    let relay = Relay::to(pair.primary.address());
    under_load(&pair.primary.url(relay.addr().port()), |load| {
        pair.primary.kill();
        relay.redirect(standby.address());
        load.wait_for_refused(REFUSED);
        standby.promote();
        load.is_good_soon_after(Instant::now());
    });
}

/// The one of several servers that takes writes is looked for.
#[test]
fn when_a_url_names_both_servers_clients_are_served_soon_after_the_standby_is_promoted() {
    if !available() {
        return;
    }
    let mut pair = Pair::replicated();
    let standby = pair.standby.take().unwrap();
    let both = format!("127.0.0.1:{},127.0.0.1:{}", pair.primary.port, standby.port);
    let url = pair.primary.url(pair.primary.port).replace(&pair.primary.address().to_string(), &both);
    under_load(&url, |load| {
        pair.primary.kill();
        load.wait_for_refused(REFUSED);
        standby.promote();
        load.is_good_soon_after(Instant::now());
    });
}

/// What PostgreSQL says when its disk is full, its memory or its connections are used up, its files cannot be read, or
/// it is about to stop: none of it is a fault of the request's, and nothing of what was begun is there.
#[test]
fn when_postgresql_cannot_do_what_it_is_asked_clients_are_told_to_come_back() {
    if !available() {
        return;
    }
    let service = Service::start(Backend::Postgres);
    let mut database = service.database().unwrap().client();
    let ann = service.sign_up("ann@example.com");
    for code in [
        "53100", "53200", "53300", "57P01", "57014", "58030", "25006", "40001", "40P01", "55P03", "08006", "26000",
        "42P05",
    ] {
        // At the last statement of each change.
        let refuse = format!("BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{code}'; END");
        let function = format!("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {refuse} $$");
        let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON events EXECUTE FUNCTION refuse()";
        database.batch_execute(&format!("{function}; {trigger}")).unwrap();
        let email = format!("bob-{code}@example.com").to_lowercase();
        let form = json!({ "email": email, "password": PASSWORD });
        let answers = [
            service.post("/auth/signup").json(form.clone()).send(),
            service.post("/keys/create").bearer(&ann.access).json(json!({ "name": "ci" })).send(),
        ];
        for answer in answers {
            assert_eq!((answer.status, answer.json()), (503, unavailable()), "{code}: {answer:?}");
        }
        database.batch_execute("DROP FUNCTION refuse CASCADE").unwrap();
        assert_eq!(service.post("/auth/login").json(form).send().status, 401, "{code}");
        assert_eq!(service.get("/keys").bearer(&ann.access).send().json(), json!([]), "{code}");
        service.sign_up(&email);
    }
}
