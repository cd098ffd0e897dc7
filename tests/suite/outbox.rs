//! The outbox: what happens is queued in the transaction of its change, and delivered once it is committed.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyward::accounts::creating::UserDraft;
use keyward::accounts::email::Email;
use keyward::accounts::granting::ScopeChange;
use keyward::accounts::user::User;
use keyward::app::App;
use keyward::audit::event::{By, Event, Filter, Kind};
use keyward::base::clock::Clock;
use keyward::base::id::{EventId, UserId};
use keyward::config::Config;
use keyward::keys::grants::Grants;
use keyward::keys::service::KeySpec;
use keyward::outbox::deliverer::{Channels, Deliverer};
use keyward::outbox::delivery::{Answer, Channel, Delivery, Outcome};
use keyward::outbox::store::{Then, Tried, Turn, Wanted};
use keyward::run;
use keyward::store::Store;
use keyward::store::driver::{Column, Driver, Row, Transaction, Value as Sql};
use keyward::store::postgres::{Patience, Postgres};
use keyward::store::settings::Database;
use keyward::store::sqlite::Sqlite;
use keyward::webhooks::service::WebhookSpec;
use keyward::webhooks::types::Types;
use keyward::webhooks::webhook::{Holder, Webhook, WebhookChange};
use keyward_harness::http_client::PATIENCE;
use keyward_harness::program::{Home, in_both_homes};
use keyward_harness::receiver::Receiver;
use keyward_harness::service::within;
use serde_json::Value;

type Script = Box<dyn Fn(&Delivery) -> Outcome + Send + Sync>;

/// A channel that does what the test says, and notes what it was given.
struct Scripted {
    script: Mutex<Arc<Script>>,
    given: Mutex<Vec<Delivery>>,
}

impl Channel for Scripted {
    fn deliver(&self, delivery: &Delivery) -> Outcome {
        let script = self.script.lock().unwrap().clone();
        self.given.lock().unwrap().push(delivery.clone());
        script(delivery)
    }
}

fn delivered(_: &Delivery) -> Outcome {
    Outcome::Delivered(Answer { status: Some(204), text: None })
}

fn failed(timed_out: bool) -> Outcome {
    Outcome::Failed { answer: Answer { status: Some(500), text: None }, reason: "not now".to_string(), timed_out }
}

/// An instance with a channel of the test's own.
struct World {
    app: App,
    store: Arc<dyn Store>,
    config: Config,
    channel: Arc<Scripted>,
    deliverer: RefCell<Option<Deliverer>>,
}

impl World {
    fn open(home: &mut Home) -> World {
        home.set("WEBHOOKS", "users");
        home.set("DATA_KEY", &"1".repeat(64));
        World::of(home.config(), Clock::stopped())
    }

    fn of(config: Config, clock: Clock) -> World {
        let (app, store) = run::open_app(&config, clock).unwrap();
        let script: Script = Box::new(delivered);
        let channel = Arc::new(Scripted { script: Mutex::new(Arc::new(script)), given: Mutex::default() });
        World { app, store, config, channel, deliverer: RefCell::default() }
    }

    fn start(&self) {
        let channels = Channels { webhooks: Some(self.channel.clone()), mail: None };
        let at_once = self.config.outbox.at_once;
        let deliverer = Deliverer::start(self.store.clone(), channels, at_once, self.app.clock.clone()).unwrap();
        self.deliverer.replace(Some(deliverer));
    }

    fn stop(&self) {
        self.deliverer.take().unwrap().stop();
    }

    fn answer(&self, script: impl Fn(&Delivery) -> Outcome + Send + Sync + 'static) {
        *self.channel.script.lock().unwrap() = Arc::new(Box::new(script));
    }

    fn given(&self) -> Vec<Delivery> {
        self.channel.given.lock().unwrap().clone()
    }

    /// The types of what was given, once there are so many.
    fn kinds(&self, count: usize) -> Vec<String> {
        self.until("so much is delivered", || self.given().len() >= count);
        self.given().into_iter().map(|delivery| delivery.kind).collect()
    }

    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "it never came that {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn user(&self, name: &str) -> User {
        let email = Email::parse(&format!("{name}@example.com")).unwrap();
        let Ok(user) = self.app.users.create(UserDraft::invited(email), &By::operator()) else { unreachable!() };
        user
    }

    fn operator(&self, name: &str) -> User {
        let user = self.user(name);
        let grant = ScopeChange::Grant(Grants::parse(&["keyward:admin"]).unwrap());
        self.app.users.change_scopes(user.id, &grant, &By::operator()).unwrap();
        user
    }

    fn endpoint(&self, holder: Holder, owner: UserId, types: Option<&[&str]>) -> Webhook {
        let url = self.app.webhooks.parse_url(holder, "https://hooks.example.com/in").unwrap();
        let types = types.map(|types| Types::parse(types).unwrap());
        let spec = WebhookSpec { url, types, description: None };
        self.app.webhooks.create(holder, owner, spec, &By::operator()).unwrap().unwrap().0
    }

    fn key(&self, owner: UserId) -> String {
        let spec = KeySpec { name: "key".to_string(), ..KeySpec::default() };
        self.app.keys.create(owner, spec, &By::operator()).unwrap().unwrap().0.id.to_string()
    }

    /// The places of what is stored for a receiver.
    fn places(&self, receiver: uuid::Uuid) -> Vec<i64> {
        let places = Mutex::new(Vec::new());
        raw(&self.config, &|transaction| {
            let find = "SELECT place FROM deliveries WHERE receiver = $1 ORDER BY place";
            let found = transaction.query(find, &[Sql::Uuid(receiver)]).unwrap();
            let place = |row: &Row| if let Sql::Int(place) = row.0[0] { place } else { unreachable!() };
            places.lock().unwrap().extend(found.iter().map(place));
        });
        places.into_inner().unwrap()
    }

    fn is_active(&self, holder: Holder, id: &Webhook) -> bool {
        self.app.webhooks.of(holder).unwrap().iter().any(|webhook| webhook.id == id.id && webhook.is_active)
    }
}

/// The event in a body, and its subject.
fn subject(delivery: &Delivery) -> String {
    let body: Value = serde_json::from_str(delivery.body.as_ref().unwrap()).unwrap();
    assert_eq!(body["type"], delivery.kind);
    assert_eq!(body["data"]["id"], delivery.event.unwrap().to_string());
    assert_eq!(body["timestamp"], body["data"]["at"]);
    body["data"]["subject"]["id"].as_str().unwrap().to_string()
}

in_both_homes! {
    fn what_happens_reaches_ones_own_endpoint_and_those_of_operators_in_its_order(home) {
        let mut home = home;
        let world = World::open(&mut home);
        let (ann, bob, boss) = (world.user("ann"), world.user("bob"), world.operator("boss"));
        let own = world.endpoint(Holder::User(ann.id), ann.id, None).id.0;
        let all = world.endpoint(Holder::Operators, boss.id, None).id.0;
        let some = world.endpoint(Holder::Operators, boss.id, Some(&["key.revoked", "user.deleted"])).id.0;
        world.start();
        // Endpoints that were made are themselves told of by those that were there before.
        let before = world.kinds(1).len();
        let keys: Vec<String> = [ann.id, bob.id].into_iter().map(|user| world.key(user)).collect();
        world.app.keys.revoke(ann.id, &keys[0], &By::operator()).unwrap();
        world.app.users.delete(ann.id, &By::operator()).unwrap();
        let told = |receiver: uuid::Uuid| -> Vec<(String, String)> {
            let given = world.given();
            let of = given.iter().filter(|delivery| delivery.receiver == receiver && delivery.kind != "webhook.created");
            of.map(|delivery| (delivery.kind.clone(), subject(delivery))).collect()
        };
        let event = |kind: &str, subject: &str| (kind.to_string(), subject.to_string());
        let (ann, own_id) = (ann.id.to_string(), own.to_string());
        let of_ann = [event("key.created", &keys[0]), event("key.revoked", &keys[0])];
        let of_all = [
            event("key.created", &keys[0]),
            event("key.created", &keys[1]),
            event("key.revoked", &keys[0]),
            event("webhook.deleted", &own_id),
            event("user.deleted", &ann),
        ];
        world.until("all is delivered", || told(all).len() == 5 && told(some).len() == 2);
        assert!(before >= 1);
        assert_eq!(told(all), of_all);
        assert_eq!(told(some), [of_all[2].clone(), of_all[4].clone()]);
        // Not that it is deleted, and what came before may have gone with it.
        assert!(told(own).len() <= 2 && told(own).iter().zip(&of_ann).all(|(told, expected)| told == expected));
        world.stop();
    }

    fn what_fails_is_tried_again_after_ever_longer_pauses_and_ten_times_at_most(home) {
        let mut home = home;
        let world = World::open(&mut home);
        let ann = world.user("ann");
        let holder = Holder::User(ann.id);
        world.endpoint(holder, ann.id, None);
        world.answer(|_| failed(false));
        world.start();
        world.key(ann.id);
        world.kinds(1);
        let pauses = [5, 300, 1800, 7200, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600];
        for (number, pause) in pauses.into_iter().enumerate() {
            world.until("the try is recorded", || {
                world.store.due_endpoints(uuid::Uuid::now_v7(), &[]).unwrap().next_in.is_some()
            });
            world.app.clock.advance(Duration::from_secs(pause - 1));
            assert_eq!(world.given().len(), number + 1, "a try too early");
            world.app.clock.advance(Duration::from_secs(pause / 10 + 2));
            world.kinds(number + 2);
        }
        world.stop();
        let ids: Vec<_> = world.given().iter().map(|delivery| (delivery.id, delivery.event)).collect();
        assert!(ids.iter().all(|id| *id == ids[0]));
        let tries: Vec<u32> = world.given().iter().map(|delivery| delivery.tries).collect();
        assert_eq!(tries, (0..9).collect::<Vec<_>>());
    }

    fn an_endpoint_is_switched_off_that_wants_no_more_or_has_failed_for_five_days(home) {
        let mut home = home;
        let world = World::open(&mut home);
        let ann = world.user("ann");
        let holder = Holder::User(ann.id);
        let webhook = world.endpoint(holder, ann.id, None);
        world.answer(|_| Outcome::Gone(Answer { status: Some(410), text: None }));
        world.start();
        world.key(ann.id);
        world.until("it is off", || !world.is_active(holder, &webhook));
        let reasons = || -> Vec<String> {
            let filter = Filter { user: Some(ann.id), kind: Some(Kind::WebhookDisabled), since: None };
            let events = world.app.events.list(&filter, None, 10).unwrap();
            events.iter().map(|event| event.details["reason"].as_str().unwrap().to_string()).collect()
        };
        assert_eq!(reasons(), ["gone"]);
        // Nothing more is queued.
        world.key(ann.id);
        let on = WebhookChange { is_active: Some(true), ..WebhookChange::default() };
        world.answer(|_| failed(false));
        world.app.webhooks.change(holder, &webhook.id.to_string(), &on, &By::operator()).unwrap();
        world.key(ann.id);
        world.until("a try has failed", || world.given().len() > 2);
        world.until("the try is recorded", || {
            world.store.due_endpoints(uuid::Uuid::now_v7(), &[]).unwrap().next_in.is_some()
        });
        assert!(world.is_active(holder, &webhook));
        world.app.clock.advance(Duration::from_secs(5 * 24 * 3600 + 60));
        world.until("it is off again", || !world.is_active(holder, &webhook));
        assert_eq!(reasons(), ["gone", "failing"]);
        world.stop();
    }
}
in_both_homes! {
    fn failures_of_a_minute_are_told_once_and_only_where_they_are_named(home) {
        let mut home = home;
        let world = World::open(&mut home);
        let ann = world.user("ann");
        let holder = Holder::User(ann.id);
        let named = world.endpoint(holder, ann.id, Some(&["login.failed"])).id.0;
        let all = world.endpoint(holder, ann.id, None).id.0;
        world.start();
        for _ in 0..3 {
            world.app.events.note_failure(Kind::LoginFailed, Some(ann.id), &By::operator());
            world.app.events.flush().unwrap();
        }
        world.key(ann.id);
        world.until("the other one is told of the key", || world.given().iter().any(|given| given.receiver == all));
        assert!(world.given().iter().all(|given| given.receiver == all), "the minute is not over");
        world.app.clock.advance(Duration::from_secs(66));
        world.until("it is told", || world.given().iter().any(|given| given.receiver == named));
        // Counted late: it is not told again.
        world.app.events.flush().unwrap();
        world.key(ann.id);
        world.until("the next is told", || world.given().iter().filter(|given| given.kind == "key.created").count() == 2);
        world.stop();
        let given = world.given();
        let failures: Vec<_> = given.iter().filter(|given| given.kind == "login.failed").collect();
        assert_eq!(failures.len(), 1);
        let body: Value = serde_json::from_str(failures[0].body.as_ref().unwrap()).unwrap();
        assert_eq!(body["data"]["count"], 3);
    }

    fn an_endpoint_for_which_too_much_waits_is_switched_off_and_others_are_not_held_up(home) {
        let mut home = home;
        let world = World::open(&mut home);
        let (ann, bob) = (world.user("ann"), world.user("bob"));
        let hanging = world.endpoint(Holder::User(ann.id), ann.id, None);
        let answering = world.endpoint(Holder::User(bob.id), bob.id, None);
        let piled = hanging.id.0;
        fill(&world.config, piled, 10_002);
        fill(&world.config, answering.id.0, 3_000);
        world.answer(move |delivery| if delivery.receiver == piled { failed(true) } else { delivered(delivery) });
        let started = Instant::now();
        world.start();
        let to = |receiver: uuid::Uuid| world.given().iter().filter(|given| given.receiver == receiver).count();
        world.until("the other one has all", || to(answering.id.0) == 3_000);
        eprintln!("3,000 deliveries to one endpoint in {:?}", started.elapsed());
        world.until("it is off", || !world.is_active(Holder::User(ann.id), &hanging));
        assert!(world.is_active(Holder::User(bob.id), &answering));
        world.stop();
        assert_eq!(to(piled), 1);
        let ids: std::collections::HashSet<_> = world.given().iter().map(|given| given.id).collect();
        assert_eq!(ids.len(), world.given().len(), "something was sent twice");
    }

    fn endpoints_that_are_slow_share_half_of_the_slots(home) {
        let mut home = home;
        let world = World::open(&mut home);
        let (ann, bob) = (world.user("ann"), world.user("bob"));
        let create = || world.endpoint(Holder::User(ann.id), ann.id, Some(&["key.created"]));
        let slow: Vec<Webhook> = (0..8).map(|_| create()).collect();
        let quick = world.endpoint(Holder::User(bob.id), bob.id, Some(&["key.created"])).id.0;
        let (hanging, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, over) = (hanging.clone(), is_over.clone());
        world.answer(move |delivery| {
            if delivery.receiver == quick {
                return delivered(delivery);
            }
            counted.fetch_add(1, Ordering::SeqCst);
            while delivery.tries > 0 && !over.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            failed(true)
        });
        let told = |number| {
            world.key(bob.id);
            world.until("the quick one is told", || {
                world.given().iter().filter(|given| given.receiver == quick).count() == number
            });
        };
        world.start();
        // New endpoints of users count as slow until they have answered.
        told(1);
        world.key(ann.id);
        world.until("each has timed out", || hanging.load(Ordering::SeqCst) == 8);
        // Each of them gives its turn back when it has recorded the try.
        let is_free = |webhook: &Webhook| {
            let turn = Turn { endpoint: webhook.id.0, holder: uuid::Uuid::now_v7(), reader: None, is_slow: true };
            let is_free = world.store.take_turn(&turn).unwrap();
            if is_free {
                world.store.record_tries(&turn, &[], Then::End).unwrap();
            }
            is_free
        };
        world.until("that is recorded", || slow.iter().all(is_free));
        world.app.clock.advance(Duration::from_secs(10));
        world.until("half of the slots hang", || hanging.load(Ordering::SeqCst) == 12);
        (2..=4).for_each(told);
        assert_eq!(hanging.load(Ordering::SeqCst), 12);
        is_over.store(true, Ordering::SeqCst);
        world.stop();
    }

    fn what_a_dead_instance_had_goes_to_another_and_a_late_one_records_nothing(home) {
        let mut home = home;
        let world = World::open(&mut home);
        let ann = world.user("ann");
        world.endpoint(Holder::User(ann.id), ann.id, None);
        world.key(ann.id);
        // An instance that takes the turn, and is not seen again for a while.
        let wanted = Wanted { after: uuid::Uuid::nil(), most: 8, is_slow: true };
        let found = world.store.due_endpoints(uuid::Uuid::now_v7(), &[wanted]).unwrap();
        let turn = &found.endpoints[0][0];
        assert!(world.store.take_turn(turn).unwrap());
        assert!(!world.store.take_turn(&Turn { holder: uuid::Uuid::now_v7(), ..turn.clone() }).unwrap());
        let due = world.store.due_for(turn).unwrap();
        world.start();
        world.app.clock.advance(Duration::from_secs(19));
        world.key(ann.id);
        assert!(world.given().is_empty(), "two instances deliver to one endpoint");
        world.app.clock.advance(Duration::from_secs(2));
        assert_eq!(world.kinds(2), ["key.created"; 2]);
        world.stop();
        let late = Tried { due: due[0].clone(), outcome: failed(false), is_slow: false };
        assert!(!world.store.record_tries(turn, &[late], Then::End).unwrap());
        // It was stopped, and keeps no turn.
        assert!(world.store.take_turn(turn).unwrap());
    }

    fn mails_of_a_dead_instance_go_to_another_after_a_minute_and_those_that_a_stop_gives_up_at_once(home) {
        let mut home = home;
        for (name, value) in [("SMTP_URL", "smtp://mail"), ("MAIL_FROM", "a@example.com"), ("PUBLIC_URL", "http://a")] {
            home.set(name, value);
        }
        let world = World::open(&mut home);
        let clock = &world.app.clock;
        world.key(world.user("ann").id);
        let take = || world.store.take_mail(10).unwrap();
        let dead = take();
        assert!(!dead.is_empty());
        clock.advance(Duration::from_secs(59));
        assert!(take().is_empty());
        clock.advance(Duration::from_secs(2));
        let taken = take();
        assert_eq!(taken.len(), dead.len());
        // It was not dead, but late: it gives back nothing that is another's.
        world.store.return_mail(&dead).unwrap();
        assert!(take().is_empty());
        world.store.return_mail(&taken).unwrap();

        let is_over = Arc::new(AtomicBool::new(false));
        let waiting = is_over.clone();
        world.answer(move |_| {
            while !waiting.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(2));
            }
            failed(true)
        });
        let channels = Channels { webhooks: None, mail: Some(world.channel.clone()) };
        let deliverer = Deliverer::start(world.store.clone(), channels, 8, clock.clone()).unwrap();
        world.until("a mail is tried", || !world.given().is_empty());
        deliverer.stop();
        assert_eq!(take().len(), dead.len());
        is_over.store(true, Ordering::SeqCst);
    }

    fn a_turn_that_was_taken_while_a_clock_was_far_ahead_holds_nobody_up(home) {
        let mut home = home;
        let world = World::open(&mut home);
        let ann = world.user("ann");
        let endpoint = world.endpoint(Holder::User(ann.id), ann.id, None).id.0;
        world.key(ann.id);
        raw(&world.config, &|transaction| {
            let lease = "INSERT INTO delivery_leases (receiver, holder, until) VALUES ($1, $1, '2100-01-01T00:00:00.000Z')";
            transaction.execute(lease, &[Sql::Uuid(endpoint)]).unwrap();
        });
        world.start();
        assert_eq!(world.kinds(1), ["key.created"]);
        world.stop();
    }

    fn what_was_queued_while_a_clock_was_far_ahead_keeps_nothing_old(home) {
        let mut home = home;
        let world = World::open(&mut home);
        let endpoint = uuid::Uuid::from_u128(1);
        fill(&world.config, endpoint, 1_001);
        raw(&world.config, &|transaction| {
            let redate = "UPDATE deliveries SET created_at = '2100-01-01T00:00:00.000Z' WHERE receiver = $1";
            transaction.execute(redate, &[Sql::Uuid(endpoint)]).unwrap();
        });
        fill(&world.config, endpoint, 3);
        while world.app.outbox.prune().unwrap() {}
        assert_eq!(world.places(endpoint).len(), 1_001);
    }

    fn of_what_has_ended_the_newest_are_kept_of_each_endpoint(home) {
        let mut home = home;
        let world = World::open(&mut home);
        let [before, much, little, after] = [1, 2, 3, 4].map(uuid::Uuid::from_u128);
        fill(&world.config, before, 2);
        fill(&world.config, much, 3);
        let oldest = world.places(much);
        fill(&world.config, much, 11_200);
        fill(&world.config, little, 10);
        raw(&world.config, &|transaction| {
            let end = "UPDATE deliveries SET next_at = NULL, ended_at = created_at, outcome = 'delivered'";
            transaction.execute(end, &[]).unwrap();
            // Sent again.
            let again = "UPDATE deliveries SET next_at = created_at, ended_at = NULL, outcome = NULL WHERE place = $1";
            transaction.execute(again, &[Sql::Int(oldest[1])]).unwrap();
        });
        fill(&world.config, much, 5);
        fill(&world.config, after, 1);
        while world.app.outbox.trim().unwrap() {}
        assert_eq!([before, little, after].map(|endpoint| world.places(endpoint).len()), [2, 10, 1]);
        let left = world.places(much);
        assert_eq!(left.len(), 10_000 + 1 + 5);
        assert_eq!(left[0], oldest[1], "what waits is not deleted");
        assert!(left[1] > oldest[2] + 1_199, "the newest are deleted");
    }

    fn notices_to_the_same_people_are_counted_and_queued_in_the_same_order(home) {
        let mut home = home;
        home.set("SMTP_URL", "smtp://127.0.0.1:9");
        home.set("MAIL_FROM", "auth@example.com");
        home.set("PUBLIC_URL", "https://auth.example.com");
        let world = World::open(&mut home);
        let people = [world.user("ann").id, world.user("bob").id];
        for person in people {
            world.key(person);
        }
        let filter = Filter { user: None, kind: Some(Kind::KeyCreated), since: None };
        let made = world.app.events.newest(&filter, None, 10).unwrap().unwrap().items;
        let record = |order: [usize; 3]| {
            let events = order.map(|index| Event { id: EventId::new(), ..made[index].clone() });
            world.store.record_failures(&events).unwrap();
        };
        match home.database() {
            None => [[0, 1, 1], [1, 0, 0]].into_iter().for_each(record),
            Some(database) => {
                // Each of the two would get the row of another first.
                let held = people.map(|person| {
                    let mut client = database.client();
                    let hold = format!("BEGIN; UPDATE deliveries SET count = count WHERE receiver = '{person}'");
                    client.batch_execute(&hold).unwrap();
                    client
                });
                let mut observer = database.client();
                let mut waiting = || {
                    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                                   AND application_name = 'keyward' AND wait_event_type = 'Lock'";
                    observer.query_one(waiting, &[]).unwrap().get::<_, i64>(0)
                };
                std::thread::scope(|scope| {
                    let recording = [[0, 1, 1], [1, 0, 0]].map(|order| scope.spawn(move || record(order)));
                    within(PATIENCE, "both wait", || waiting() == 2);
                    held.into_iter().for_each(|mut client| client.batch_execute("COMMIT").unwrap());
                    recording.into_iter().for_each(|recording| recording.join().unwrap());
                });
            }
        }
        let counts = Mutex::new(Vec::new());
        raw(&world.config, &|transaction| {
            let counted = "SELECT kind FROM deliveries WHERE channel = 'mail' AND count = 4";
            counts.lock().unwrap().push(transaction.query(counted, &[]).unwrap().len());
        });
        assert_eq!(counts.into_inner().unwrap(), [2]);
    }

    fn of_a_deleted_account_no_delivery_is_left(home) {
        let mut home = home;
        let world = World::open(&mut home);
        let ann = world.user("ann");
        let own = world.endpoint(Holder::User(ann.id), ann.id, None).id.0;
        world.start();
        world.key(ann.id);
        world.kinds(1);
        world.stop();
        world.key(ann.id);
        assert_eq!(world.places(own).len(), 2);
        world.app.users.delete(ann.id, &By::operator()).unwrap();
        while world.store.delete_rows_of_deleted_users().unwrap() {}
        assert_eq!(world.places(own).len(), 0);
    }
}

in_both_homes! {
    fn what_a_command_changes_is_told_by_the_server(home) {
        let mut home = home;
        let receiver = Receiver::start();
        let world = World::open(&mut home);
        let (ann, boss) = (world.user("ann"), world.operator("boss"));
        let url = world.app.webhooks.parse_url(Holder::Operators, &receiver.url()).unwrap();
        let spec = WebhookSpec { url, types: None, description: None };
        world.app.webhooks.create(Holder::Operators, boss.id, spec, &By::operator()).unwrap().unwrap();
        drop(world);
        let server = home.start(&[]);
        home.run(&["user", "grant", "ann@example.com", "orders:read"]).succeeded();
        let told = receiver.until("it is told", |received| !received.is_empty());
        server.stop();
        assert_eq!(told[0].kind(), "user.scopes_changed");
        assert_eq!(told[0].json()["data"]["subject"]["id"], ann.id.to_string());
    }
}

/// In a transaction of the test's own.
fn raw(config: &Config, work: &dyn Fn(&mut dyn Transaction)) {
    let done = |transaction: &mut dyn Transaction| {
        work(transaction);
        Ok(())
    };
    match config.store.database().unwrap() {
        Database::Sqlite(file) => Sqlite::open(&file).unwrap().transaction(done).unwrap(),
        Database::Postgres(target) => {
            Postgres::connect(&target, Patience::OfAClient).unwrap().transaction(done).unwrap();
        }
    }
}

/// So much waits for an endpoint.
fn fill(config: &Config, endpoint: uuid::Uuid, count: usize) {
    raw(config, &|transaction| {
        let mut rows = (0..count).map(|_| vec![Sql::Uuid(uuid::Uuid::now_v7()), Sql::Uuid(endpoint)]);
        let insert = "WITH given (id, receiver) AS (ROWS) \
            INSERT INTO deliveries (id, channel, receiver, kind, body, count, created_at, next_at, tries) \
            SELECT id, 'webhook', receiver, 'key.created', '{}', 1, '2026-01-01T00:00:00.000Z', \
            '1970-01-01T00:00:00.000Z', 0 FROM given";
        transaction.execute_with_rows(insert, &[Column::Uuid, Column::Uuid], &mut rows).unwrap();
    });
}
