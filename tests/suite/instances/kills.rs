//! What a process that is killed has acknowledged.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use keyward::accounts::creating::UserDraft;
use keyward::accounts::email::Email;
use keyward::accounts::passwords::PasswordRules;
use keyward::audit::event::By;
use keyward::base::clock::Clock;
use keyward::run;
use keyward_harness::http_client::{Answer, Client, Request};
use keyward_harness::program::{Home, in_both_homes};
use keyward_harness::service::PASSWORD;
use serde_json::json;

use super::{Credential, Finally, MANY_KEYS, MANY_SESSIONS, allow_masses, until, was_away};

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
    let password = PasswordRules::new(8).judge(PASSWORD).ok();
    let draft = UserDraft { password, ..UserDraft::invited(Email::parse(email).unwrap()) };
    let (app, _) = run::open_app(&config, Clock::default()).unwrap();
    assert!(app.users.create(draft, &By::operator()).is_ok());
    drop(app);

    let started = Instant::now();
    let mut total = 0;
    let mut before = Acknowledged::default();
    for number in 0..=KILLS {
        let server = home.start(&[("RUST_LOG", "info,access=off")]);
        let address = server.address();
        let client = Client::unobserved(address);
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
                    let client = Client::unobserved(address);
                    acknowledged.load(|| create_key(&client), |key| end(&client, key));
                });
            }
            scope.spawn(|| {
                let client = Client::unobserved(address);
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
