//! Clients that never stop asking, whatever happens to the store: each answer is the right one, or a 503.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use keyward_harness::http_client::{Answer, Client, PATIENCE, Request};
use keyward_harness::service::PASSWORD;
use serde_json::json;

use crate::target::{Witness, text, unavailable};

/// How soon everything has to be well when the store is back.
pub const SOON: Duration = Duration::from_secs(2);
/// How long an answer may take when the store is away, on a machine that is busy as well.
const IN_TIME: Duration = Duration::from_secs(9);

/// What was acknowledged, and when there was none.
pub struct Load<'a> {
    witness: &'a Witness,
    ended: AtomicBool,
    /// Keys that were made, and whether they were revoked. What was answered with 503 is unknown, and not here.
    keys: Mutex<Vec<(String, bool)>>,
    /// Those who signed up.
    users: Mutex<Vec<String>>,
    good: AtomicUsize,
    /// When requests were sent that were told to come back.
    refused: Mutex<Vec<Instant>>,
}

impl<'a> Load<'a> {
    /// Runs the story under load. Afterwards nothing that was acknowledged is missing.
    pub fn around(witness: &'a Witness, story: impl FnOnce(&Load<'a>)) {
        let load = Load {
            witness,
            ended: AtomicBool::new(false),
            keys: Mutex::default(),
            users: Mutex::default(),
            good: AtomicUsize::new(0),
            refused: Mutex::default(),
        };
        thread::scope(|scope| {
            let _end = End(&load.ended);
            for _ in 0..2 {
                scope.spawn(|| load.make_and_revoke_keys());
                scope.spawn(|| load.ask());
            }
            scope.spawn(|| load.sign_up_and_log_in());
            story(&load);
        });
        load.nothing_is_lost();
    }

    /// Returns when so many more requests were granted.
    #[track_caller]
    pub fn wait_for_good(&self, more: usize) {
        let most = self.good.load(Ordering::SeqCst) + more;
        self.wait(|| self.good.load(Ordering::SeqCst) >= most);
    }

    /// Returns when so many more requests were told to come back.
    #[track_caller]
    pub fn wait_for_refused(&self, more: usize) {
        let most = self.refused.lock().unwrap().len() + more;
        self.wait(|| self.refused.lock().unwrap().len() >= most);
    }

    #[track_caller]
    fn wait(&self, is_so: impl Fn() -> bool) {
        let started = Instant::now();
        while !is_so() {
            assert!(!self.ended.load(Ordering::SeqCst), "the load has ended");
            assert!(started.elapsed() < PATIENCE, "the load does not come so far");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Holds that soon after the store came back everyone is served, and goes on so.
    #[track_caller]
    pub fn is_good_soon_after(&self, back: Instant) {
        while back.elapsed() < SOON {
            assert!(!self.ended.load(Ordering::SeqCst), "the load has ended");
            thread::sleep(Duration::from_millis(5));
        }
        self.witness.is_served();
        self.wait_for_good(50);
        let last = self.refused.lock().unwrap().iter().max().copied();
        let late = last.map(|asked| asked.saturating_duration_since(back)).unwrap_or_default();
        let refused = self.refused.lock().unwrap().len();
        println!(
            "{} requests granted, {refused} told to come back, the last of them sent {late:?} after the store was back",
            self.good.load(Ordering::SeqCst)
        );
        assert!(late < SOON, "told to come back {late:?} after the store was back");
    }

    /// The answer, if it is this one; `None`: the store is away.
    #[track_caller]
    fn granted(&self, request: Request<'_>, expected: u16) -> Option<Answer> {
        let asked = Instant::now();
        let answer = request.send();
        let waited = asked.elapsed();
        assert!(waited < IN_TIME, "an answer took {waited:?}");
        if answer.status == 503 {
            assert_eq!((answer.json(), answer.header("retry-after")), (unavailable(), Some("1")), "{answer:?}");
            self.refused.lock().unwrap().push(asked);
            return None;
        }
        assert_eq!(answer.status, expected, "{answer:?}");
        self.good.fetch_add(1, Ordering::SeqCst);
        Some(answer)
    }

    fn until_the_end(&self, mut ask: impl FnMut(&Client, usize)) {
        // A client that fails lets the others and the story know.
        struct Failed<'a>(&'a AtomicBool);
        impl Drop for Failed<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let _failed = Failed(&self.ended);
        let client = Client::unobserved(self.witness.address);
        for number in 0.. {
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            ask(&client, number);
        }
    }

    fn make_and_revoke_keys(&self) {
        let access = &self.witness.account.access;
        self.until_the_end(|client, number| {
            let create = client.post("/keys/create").bearer(access).json(json!({ "name": "ci" }));
            let Some(made) = self.granted(create, 201) else { return };
            let key = text(&made, "key");
            let revoke = || client.delete(&format!("/keys/{}", text(&made, "id"))).bearer(access);
            let revoked = number % 2 == 1;
            if !revoked || self.granted(revoke(), 200).is_some() {
                self.keys.lock().unwrap().push((key, revoked));
            }
        });
    }

    fn ask(&self) {
        let Witness { account, key, .. } = self.witness;
        self.until_the_end(|client, _| {
            for request in [
                client.get("/protected/service-only").api_key(key),
                client.get("/protected/user-only").bearer(&account.access),
                client.get("/auth/me").bearer(&account.access),
                client.get("/keys").bearer(&account.access),
                client.post("/keys/verify").bearer(&account.access).json(json!({ "key": key })),
            ] {
                self.granted(request, 200);
            }
            // Nothing that was made is unknown, and nothing that was revoked is good, from memory or from the store.
            let Some((key, revoked)) = self.keys.lock().unwrap().last().cloned() else { return };
            let request = client.get("/protected/service-only").api_key(&key);
            self.granted(request, if revoked { 401 } else { 200 });
        });
    }

    fn sign_up_and_log_in(&self) {
        self.until_the_end(|client, number| {
            let form = json!({ "email": format!("user{number}@example.com"), "password": PASSWORD });
            if self.granted(client.post("/auth/signup").json(form.clone()), 201).is_some() {
                let login = client.post("/auth/login").json(form.clone());
                if let Some(account) = self.granted(login, 200) {
                    let refresh = json!({ "refreshToken": text(&account, "refreshToken") });
                    self.granted(client.post("/auth/refresh").json(refresh), 200);
                }
                self.users.lock().unwrap().push(format!("user{number}@example.com"));
            }
        });
    }

    fn nothing_is_lost(&self) {
        let client = Client::unobserved(self.witness.address);
        let keys = self.keys.lock().unwrap();
        for (key, revoked) in keys.iter() {
            let status = client.get("/protected/service-only").api_key(key).send().status;
            assert_eq!(status, if *revoked { 401 } else { 200 }, "of {} keys", keys.len());
        }
        for email in self.users.lock().unwrap().iter().rev().take(20) {
            let login = client.post("/auth/login").json(json!({ "email": email, "password": PASSWORD }));
            assert_eq!(login.send().status, 200, "{email}");
        }
    }
}

/// Ends the load also when the story fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
