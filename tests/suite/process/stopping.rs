//! How the program ends, told to or killed.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use keyward_harness::http_client::{self, Client, PATIENCE};
use keyward_harness::openapi;
use keyward_harness::program::in_both_homes;
use keyward_harness::service::{account, within};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{begin_post, create_key, credentials};

in_both_homes! {
    fn sigterm_and_sigint_answer_what_is_under_way_write_what_is_noted_and_exit_with_0(home) {
        for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
            let mut server = home.start(&[]);
            let client = server.client();
            let ann = client.sign_up(&format!("ann-{name}@example.com"));
            let (id, key) = create_key(&client, &ann.access);
            let bearer = format!("authorization: Bearer {}\r\n", ann.access);
            let under_way = [
                begin_post(server.address(), "/auth/login", "", &credentials(&ann.email)),
                begin_post(server.address(), "/auth/signup", "", &credentials(&format!("bob-{name}@example.com"))),
                begin_post(server.address(), "/keys/create", &bearer, &json!({ "name": "late" })),
            ];
            assert_eq!(client.key_status(&key), 200);

            server.signal(signal);
            server.wait_for_line(&format!("{name}: stopping"));
            let address = server.address();
            within(PATIENCE, "nobody is let in any more", || TcpStream::connect(address).is_err());
            let answers = under_way.map(|(mut stream, body)| {
                stream.write_all(body.as_bytes()).unwrap();
                http_client::read_answer(&mut BufReader::new(stream), false).unwrap()
            });
            assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 201, 201], "{answers:?}");
            assert!(answers.iter().all(|answer| answer.header("connection") == Some("close")), "{answers:?}");
            let late_key = answers[2].json()["key"].as_str().unwrap().to_string();
            assert_eq!(server.finish().code, Some(0));

            let keys: Value = serde_json::from_str(&home.run(&["key", "list", "--json"]).succeeded()).unwrap();
            let used = keys.as_array().unwrap().iter().find(|key| key["id"] == id.as_str()).unwrap();
            assert!(used["lastUsedAt"].is_string(), "{used}");
            let server = home.start(&[]);
            assert_eq!(server.client().key_status(&late_key), 200);
        }
    }

    fn what_was_acknowledged_survives_kill_9(home) {
        let mut known: Vec<Fact> = Vec::new();
        let is_last: [fn(&Fact) -> bool; 4] = [
            |fact| matches!(fact, Fact::SignedUp { .. }),
            |fact| matches!(fact, Fact::KeyWorks { .. }),
            |fact| matches!(fact, Fact::KeyRevoked { .. }),
            |fact| matches!(fact, Fact::LoggedOut { .. }),
        ];
        for (round, is_last) in is_last.into_iter().enumerate() {
            let server = home.start(&[]);
            for fact in &known {
                fact.check(&server.client());
            }
            let address = server.address();
            let (told, facts) = channel();
            thread::scope(|scope| {
                for writer in ["ann", "bob"] {
                    let (name, told) = (format!("{writer}-{round}"), told.clone());
                    scope.spawn(move || write_until_it_is_gone(address, &name, &told));
                }
                drop(told);
                loop {
                    let fact = facts.recv_timeout(PATIENCE).unwrap();
                    let kill_now = is_last(&fact);
                    known.push(fact);
                    if kill_now {
                        break;
                    }
                }
                server.kill();
                known.extend(facts);
            });
        }
        let server = home.start(&[]);
        for fact in &known {
            fact.check(&server.client());
        }
    }
}

/// Something that the server has acknowledged.
#[derive(Debug)]
enum Fact {
    SignedUp { email: String },
    SessionLives { access: String },
    KeyWorks { key: String },
    KeyRevoked { key: String },
    LoggedOut { access: String },
}

impl Fact {
    #[track_caller]
    fn check(&self, client: &Client) {
        let (found, expected) = match self {
            Fact::SignedUp { email } => (client.post("/auth/login").json(credentials(email)).send().status, 200),
            Fact::SessionLives { access } => (client.token_status(access), 200),
            Fact::KeyWorks { key } => (client.key_status(key), 200),
            Fact::KeyRevoked { key } => (client.key_status(key), 401),
            Fact::LoggedOut { access } => (client.token_status(access), 401),
        };
        assert_eq!(found, expected, "{self:?}");
    }
}

/// Makes changes of every kind, and tells of each as soon as its answer is there, until none comes any more.
fn write_until_it_is_gone(address: SocketAddr, name: &str, told: &Sender<Fact>) {
    let client = Client::new(address, openapi::check);
    let answered = |request: http_client::Request<'_>| request.try_send().ok().map(|answer| answer.json());
    let write = |count: u32| -> Option<()> {
        let email = format!("{name}-{count}@example.com");
        let user = account(&answered(client.post("/auth/signup").json(credentials(&email)))?);
        told.send(Fact::SignedUp { email: email.clone() }).ok()?;
        let new_key = || {
            let made = answered(client.post("/keys/create").bearer(&user.access).json(json!({ "name": "ci" })))?;
            Some(["id", "key"].map(|name| made[name].as_str().unwrap().to_string()))
        };
        for _ in 0..2 {
            let [_, key] = new_key()?;
            told.send(Fact::KeyWorks { key }).ok()?;
            let [id, key] = new_key()?;
            answered(client.delete(&format!("/keys/{id}")).bearer(&user.access))?;
            told.send(Fact::KeyRevoked { key }).ok()?;
        }
        let other = account(&answered(client.post("/auth/login").json(credentials(&email)))?);
        told.send(Fact::SessionLives { access: other.access }).ok()?;
        answered(client.post("/auth/logout").bearer(&user.access))?;
        told.send(Fact::LoggedOut { access: user.access }).ok()
    };
    let _ = (0..).try_for_each(write);
}
