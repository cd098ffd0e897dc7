//! The program as a process: how it starts, what it refuses to start with, what it logs, and how it ends.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use keyward_harness::http_client::{self, Answer, Client, PATIENCE};
use keyward_harness::openapi;
use keyward_harness::postgres_cluster;
use keyward_harness::program::{Process, Server, finish, in_both_homes};
use keyward_harness::relay::Relay;
use keyward_harness::service::{Account, PASSWORD, account, within};
use rustix::process::Signal;
use serde_json::{Value, json};

#[track_caller]
fn sign_up(client: &Client, email: &str) -> Account {
    let answer = client.post("/auth/signup").json(credentials(email)).send();
    assert_eq!(answer.status, 201, "{answer:?}");
    account(&answer.json())
}

fn credentials(email: &str) -> Value {
    json!({ "email": email, "password": PASSWORD })
}

/// A new key: its id and the key.
#[track_caller]
fn create_key(client: &Client, access: &str) -> (String, String) {
    let answer = client.post("/keys/create").bearer(access).json(json!({ "name": "ci" })).send();
    assert_eq!(answer.status, 201, "{answer:?}");
    let text = |name: &str| answer.json()[name].as_str().unwrap().to_string();
    (text("id"), text("key"))
}

fn token_status(client: &Client, access: &str) -> u16 {
    client.get("/protected/user-only").bearer(access).send().status
}

fn key_status(client: &Client, key: &str) -> u16 {
    client.get("/protected/service-only").api_key(key).send().status
}

mod starting {
    use super::*;
    use keyward_harness::program::Home;
    use keyward_harness::service::Backend;

    #[test]
    fn without_a_setting_an_empty_folder_gets_a_database_and_secrets_that_only_their_owner_can_read() {
        let home = Home::fresh(Backend::Sqlite);
        let server = home.start(&[]);
        assert_eq!(server.client().get("/health").send().status, 200);
        let said = server.log().join("\n");
        assert!(said.contains("JWT secrets were generated; they are kept in keyward.db.secrets"), "{said}");
        assert!(said.contains("migration 0001_users_sessions_keys was applied"), "{said}");
        assert_eq!(home.files(), ["keyward.db", "keyward.db-shm", "keyward.db-wal", "keyward.db.secrets"]);
        for name in home.files() {
            let mode = home.path(&name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn after_a_stop_the_database_file_alone_is_the_whole_database() {
        let home = Home::fresh(Backend::Sqlite);
        let server = home.start(&[]);
        sign_up(&server.client(), "ann@example.com");
        assert_eq!(server.stop().code, Some(0));
        let copy = Home::fresh(Backend::Sqlite);
        std::fs::copy(home.path("keyward.db"), copy.path("keyward.db")).unwrap();
        let shown = copy.run(&["user", "show", "ann@example.com"]).succeeded();
        assert!(shown.contains("ann@example.com"), "{shown}");
    }

    #[test]
    fn a_second_start_makes_nothing_new_and_honours_what_was_issued_before() {
        let home = Home::fresh(Backend::Sqlite);
        let server = home.start(&[]);
        let ann = sign_up(&server.client(), "ann@example.com");
        let (_, key) = create_key(&server.client(), &ann.access);
        server.stop();
        let secrets = std::fs::read(home.path("keyward.db.secrets")).unwrap();

        let server = home.start(&[]);
        let client = server.client();
        assert_eq!((token_status(&client, &ann.access), key_status(&client, &key)), (200, 200));
        let refreshed = client.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send();
        assert_eq!(refreshed.status, 200, "{refreshed:?}");
        let said = server.stop().stderr;
        assert!(!said.contains("generated") && !said.contains("migration"), "{said}");
        assert_eq!(std::fs::read(home.path("keyward.db.secrets")).unwrap(), secrets);
    }

    #[test]
    fn servers_that_start_at_once_on_an_empty_folder_agree_on_the_secrets() {
        let home = Home::fresh(Backend::Sqlite);
        let servers: Vec<Server<'_>> = thread::scope(|scope| {
            let starts: Vec<_> = (0..3).map(|_| scope.spawn(|| home.start(&[]))).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        let ann = sign_up(&servers[0].client(), "ann@example.com");
        for server in &servers {
            assert_eq!(token_status(&server.client(), &ann.access), 200);
        }
        assert_eq!(home.files(), ["keyward.db", "keyward.db-shm", "keyward.db-wal", "keyward.db.secrets"]);
    }

    #[test]
    fn a_server_that_is_told_to_stop_as_soon_as_it_says_that_it_listens_stops_in_good_order() {
        let home = Home::fresh(Backend::Sqlite);
        for _ in 0..12 {
            assert_eq!(home.start(&[]).stop().code, Some(0));
        }
    }

    #[test]
    fn a_secrets_file_that_was_damaged_stops_the_start_and_stays_as_it_is() {
        let home = Home::fresh(Backend::Sqlite);
        std::fs::write(home.path("keyward.db.secrets"), "JWT_SECRET=cut-off-he").unwrap();
        let failed = home.run(&[]);
        let line = failed.failed(1);
        assert!(line.contains("keyward.db.secrets") && line.contains("JWT_SECRET"), "{line}");
        assert!(!line.contains("cut-off"), "{line}");
        assert_eq!(std::fs::read_to_string(home.path("keyward.db.secrets")).unwrap(), "JWT_SECRET=cut-off-he");
    }
}

/// Sends the head of a request and waits until the server asks for its body: from then on it is under way.
fn begin_post(address: SocketAddr, path: &str, headers: &str, body: &Value) -> (TcpStream, String) {
    let body = body.to_string();
    let mut stream = http_client::connect(address).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         expect: 100-continue\r\n{headers}\r\n",
        body.len()
    )
    .unwrap();
    let mut interim = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(interim, *b"HTTP/1.1 100 Continue\r\n\r\n");
    (stream, body)
}

in_both_homes! {
    fn sigterm_and_sigint_answer_what_is_under_way_write_what_is_noted_and_exit_with_0(home) {
        for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
            let mut server = home.start(&[]);
            let client = server.client();
            let ann = sign_up(&client, &format!("ann-{name}@example.com"));
            let (id, key) = create_key(&client, &ann.access);
            let bearer = format!("authorization: Bearer {}\r\n", ann.access);
            let under_way = [
                begin_post(server.address(), "/auth/login", "", &credentials(&ann.email)),
                begin_post(server.address(), "/auth/signup", "", &credentials(&format!("bob-{name}@example.com"))),
                begin_post(server.address(), "/keys/create", &bearer, &json!({ "name": "late" })),
            ];
            assert_eq!(key_status(&client, &key), 200);

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
            assert_eq!(key_status(&server.client(), &late_key), 200);
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
            Fact::SessionLives { access } => (token_status(client, access), 200),
            Fact::KeyWorks { key } => (key_status(client, key), 200),
            Fact::KeyRevoked { key } => (key_status(client, key), 401),
            Fact::LoggedOut { access } => (token_status(client, access), 401),
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

mod log {
    use super::*;
    use keyward_harness::program::Home;
    use keyward_harness::service::Backend;

    /// What the access log has to say about a request.
    #[derive(Debug, PartialEq, Eq)]
    struct Line {
        method: String,
        path: String,
        status: String,
        request_id: String,
        client: String,
        principal: String,
    }

    /// Sends some requests, good and bad ones, and says what is to be found about them.
    fn some_requests(client: &Client) -> Vec<Line> {
        let ann = sign_up(client, "ann@example.com");
        let (id, key) = create_key(client, &ann.access);
        let (user, service) = (format!("user:{}", ann.id), format!("key:{id}"));
        let mut lines = Vec::new();
        let mut note = |method: &str, path: &str, principal: &str, answer: Answer| {
            let request_id = answer.header("x-request-id").unwrap().to_string();
            let status = answer.status.to_string();
            let (method, path, principal) = (method.to_string(), path.to_string(), principal.to_string());
            // The first one says that it is somebody else's.
            let client = if lines.is_empty() { "198.51.100.7" } else { "127.0.0.1" }.to_string();
            lines.push(Line { method, path, status, request_id, client, principal });
        };
        note(
            "GET",
            "/health",
            "-",
            client
                .get("/health?probe=1")
                .header("x-request-id", "probe-1")
                .header("x-forwarded-for", "198.51.100.7")
                .send(),
        );
        note("HEAD", "/health", "-", client.head("/health").send());
        let path = "/protected/user-only";
        note("GET", path, &user, client.get(path).bearer(&ann.access).send());
        note("GET", path, "-", client.get(path).send());
        note("GET", "/protected/flexible", &service, client.get("/protected/flexible").api_key(&key).send());
        note("POST", "/auth/login", "-", client.post("/auth/login").json(json!({})).send());
        note(
            "POST",
            "/auth/login",
            "-",
            client.post("/auth/login").body("application/json", vec![b' '; 20_000]).send(),
        );
        note("GET", "/auth/login", "-", client.get("/auth/login").send());
        note("GET", "/no%20where\\n", "-", client.get("/no%20where\\n").send());
        note("DELETE", "/keys/x", &user, client.delete("/keys/x").bearer(&ann.access).send());
        lines
    }

    /// Checks that there is one line for each request, whatever else is logged.
    fn compare(expected: &[Line], found: Vec<HashMap<String, String>>) {
        for line in expected {
            let of_this_request: Vec<_> =
                found.iter().filter(|fields| fields["request_id"] == line.request_id).collect();
            let [fields] = of_this_request[..] else { panic!("{line:?} has the lines {of_this_request:?}") };
            let text = |name: &str| fields[name].clone();
            let logged = Line {
                method: text("method"),
                path: text("path").replace("\\\\", "\\"),
                status: text("status"),
                request_id: text("request_id"),
                client: text("client"),
                principal: text("principal"),
            };
            assert_eq!(logged, *line);
            assert!(text("duration_ms").parse::<f64>().unwrap() >= 0.0);
        }
        // The two of signing up and making a key, which come first.
        assert_eq!(found.len(), expected.len() + 2, "{found:?}");
    }

    #[test]
    fn a_client_who_goes_before_his_answer_is_there_has_a_line_too() {
        let home = Home::fresh(Backend::Sqlite);
        let mut server = home.start(&[]);
        // Nobody can sign up meanwhile.
        let file = rusqlite::Connection::open(home.path("keyward.db")).unwrap();
        file.execute_batch("BEGIN IMMEDIATE").unwrap();
        let id = "X-Request-Id: gone-1\r\n";
        let (mut stream, body) = begin_post(server.address(), "/auth/signup", id, &credentials("ann@example.com"));
        stream.write_all(body.as_bytes()).unwrap();
        drop(stream);
        let line = server.wait_for_line("request_id=gone-1");
        assert!(line.contains("method=POST path=/auth/signup status=499 "), "{line}");
        file.execute_batch("ROLLBACK").unwrap();
        assert_eq!(server.stop().stderr.matches("request_id=gone-1").count(), 1);
    }

    #[test]
    fn heads_that_cannot_be_taken_have_a_line_too() {
        let home = Home::fresh(Backend::Sqlite);
        let server = home.start(&[]);
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-A: b\r\n".repeat(100));
        let (good, bad) = ("GET /health HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nno field\r\n\r\n");
        let asked =
            [(bad.to_string(), 400), (many, 431), (good.replace("1.1", "2.0"), 505), (format!("{good}{bad}"), 400)];
        let told: Vec<(String, u16)> = asked
            .iter()
            .map(|(head, status)| {
                let answers = keyward_harness::wire::answers(server.address(), head);
                (answers.last().unwrap().header("x-request-id").unwrap().to_string(), *status)
            })
            .collect();
        let said = server.stop().stderr;
        for (id, status) in &told {
            let lines: Vec<_> = said.lines().filter(|line| line.contains(&format!("request_id={id} "))).collect();
            let [line] = lines.as_slice() else { panic!("{id}: {lines:?}") };
            assert!(line.contains(&format!("method=- path=- status={status} ")), "{line}");
            assert!(line.ends_with("client=127.0.0.1 principal=-"), "{line}");
        }
        assert_eq!(said.matches("path=- ").count(), told.len(), "{said}");
    }

    #[test]
    fn the_last_line_of_a_stop_is_the_last() {
        let home = Home::fresh(Backend::Sqlite);
        for format in ["text", "json"] {
            let server = home.start(&[("LOG_FORMAT", format)]);
            let address = server.address();
            let stderr = thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(move || {
                        let client = Client::new(address, |_, _, _| {});
                        while client.get("/nowhere").try_send().is_ok() {}
                    });
                }
                server.stop().stderr
            });
            let lines: Vec<&str> = stderr.lines().collect();
            let of =
                |part: &str| lines.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("{stderr}"));
            assert!(of("SIGTERM: stopping") < of("stopped"), "{stderr}");
            assert_eq!(of("stopped"), lines.len() - 1, "{stderr}");
        }
    }

    #[test]
    fn every_request_has_one_line_of_text() {
        let home = Home::fresh(Backend::Sqlite);
        let server = home.start(&[]);
        let expected = some_requests(&server.client());
        let access = server
            .stop()
            .stderr
            .lines()
            .filter_map(|line| {
                let (_, fields) = line.split_once(" INFO  access ")?;
                let pairs = fields.split(' ').map(|field| field.split_once('=').unwrap());
                Some(pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect())
            })
            .collect();
        compare(&expected, access);
    }

    #[test]
    fn with_log_format_json_every_line_is_an_object_and_every_request_has_one() {
        let home = Home::fresh(Backend::Sqlite);
        let server = home.start(&[("LOG_FORMAT", "json")]);
        let expected = some_requests(&server.client());
        let mut access = Vec::new();
        for line in server.stop().stderr.lines() {
            let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(["time", "level", "target"].iter().all(|name| object[name].is_string()), "{line}");
            if object["target"] == "access" {
                assert!(object["status"].is_u64() && object["duration_ms"].is_number(), "{line}");
                let fields = object.as_object().unwrap().iter();
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
                access.push(fields.map(|(name, value)| (name.clone(), text(value))).collect());
            }
        }
        compare(&expected, access);
    }

    #[test]
    fn with_access_off_no_request_is_logged_but_all_else_is() {
        let home = Home::fresh(Backend::Sqlite);
        let server = home.start(&[("RUST_LOG", "info,access=off")]);
        some_requests(&server.client());
        let said = server.stop().stderr;
        assert!(said.contains("SIGTERM: stopping") && !said.contains("access"), "{said}");
    }

    #[test]
    fn with_rust_log_off_it_is_silent_from_start_to_end() {
        let home = Home::fresh(Backend::Sqlite);
        // Without a line that tells the port it has to be chosen here, and somebody else may be faster.
        for _ in 0..20 {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, some_port()));
            let mut command = home.command(&[]);
            command.env("RUST_LOG", "off").env("PORT", address.port().to_string()).stdin(Stdio::null());
            let mut process = Process(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
            let deadline = Instant::now() + PATIENCE;
            let mut has_ended = || process.0.try_wait().unwrap().is_some();
            while !has_ended() && TcpStream::connect(address).is_err() {
                assert!(Instant::now() < deadline, "the server does not listen");
                thread::sleep(Duration::from_millis(5));
            }
            if has_ended() {
                continue;
            }
            some_requests(&Client::new(address, openapi::check));
            process.signal(Signal::TERM);
            let (mut stdout, mut stderr) = (String::new(), String::new());
            process.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
            process.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            assert_eq!((stdout.as_str(), stderr.as_str()), ("", ""));
            assert_eq!(process.0.wait().unwrap().code(), Some(0));
            return;
        }
        panic!("no free port");
    }

    /// Any, below those that systems hand out by themselves.
    fn some_port() -> u16 {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        10_000 + taken % 10_000
    }

    in_both_homes! {
        fn no_password_token_key_or_query_is_in_the_log_wherever_a_client_puts_it(home) {
            for (filter, format) in [("info", "text"), ("trace", "json")] {
                let server = home.start(&[("RUST_LOG", filter), ("LOG_FORMAT", format)]);
                let mut secrets = secrets_everywhere(&server.client(), &format!("{format}@example.com"));
                let settings = ["JWT_SECRET", "JWT_REFRESH_SECRET"].map(|name| home.setting(name).map(str::to_string));
                secrets.extend(settings.into_iter().flatten());
                secrets.extend(home.database().map(|database| database.password().to_string()));
                let kept = std::fs::read_to_string(home.path("keyward.db.secrets")).unwrap_or_default();
                secrets.extend(kept.lines().map(|line| line.split_once('=').unwrap().1.to_string()));
                let said = server.stop().stderr.to_lowercase();
                for secret in &secrets {
                    let at = said.find(&secret.to_lowercase());
                    let line = at.and_then(|at| said[..at + secret.len()].lines().last());
                    assert_eq!(line, None, "{secret} is in the log at level {filter}");
                }
                assert!(!said.contains("$2b$"), "a password's hash is in the log at level {filter}");
            }
        }
    }

    /// Sends passwords, tokens, keys and queries to where they belong and to where they do not, and returns them.
    fn secrets_everywhere(client: &Client, email: &str) -> Vec<String> {
        let (good, bad, query) = ("correct-horse-1!", "wrong-battery-2!", "query-marker-3");
        let form = |password: &str| json!({ "email": email, "password": password });
        let sent = |request: http_client::Request<'_>| request.send();
        let ann = account(&sent(client.post("/auth/signup").json(form(good))).json());
        let (id, key) = create_key(client, &ann.access);
        let (revoked_id, revoked) = create_key(client, &ann.access);
        let mut secrets = [good, bad, query, &ann.access, &ann.refresh, &key, &revoked].map(str::to_string).to_vec();

        // Where they belong; some are refused.
        assert_eq!(sent(client.post("/auth/signup").json(form(good))).status, 409);
        assert_eq!(sent(client.post("/auth/login").json(form(bad))).status, 401);
        assert_eq!(sent(client.post("/auth/login").json(form(good))).status, 200);
        assert_eq!(token_status(client, &ann.access), 200);
        assert_eq!(token_status(client, &format!("{}x", ann.access)), 401);
        assert_eq!(key_status(client, &key), 200);
        assert_eq!(key_status(client, &key.to_uppercase()), 401);
        assert_eq!(sent(client.delete(&format!("/keys/{revoked_id}")).bearer(&ann.access)).status, 200);
        assert_eq!(key_status(client, &revoked), 401);

        // Where they do not.
        for secret in [&ann.access, &ann.refresh, &key] {
            for target in [
                format!("/{secret}"),
                format!("/keys/{secret}"),
                format!("/keys/{secret}/"),
                format!("/keys/%73{}", &secret[1..]),
                format!("/protected/service-only/{secret}"),
                format!("/protected/user-only;token={secret}"),
                format!("/api/docs/{secret}"),
                format!("/health?token={secret}&{query}"),
                format!("/nowhere?{secret}"),
                format!("/protected/flexible?{query}={secret}"),
                format!("http://localhost/protected/user-only?access_token={secret}"),
            ] {
                sent(client.get(&target).bearer(secret).api_key(secret));
                sent(client.delete(&target).bearer(&ann.access));
            }
            let everywhere = client
                .get("/protected/flexible")
                .header("authorization", secret)
                .header("x-api-key", &format!("Bearer {secret}"))
                .header("x-request-id", secret)
                .header("cookie", &format!("session={secret}"))
                .header("user-agent", secret)
                .header("referer", &format!("http://localhost/?{query}={secret}"))
                .header("x-forwarded-for", secret);
            sent(everywhere);
            sent(client.post("/auth/refresh").json(json!({ "refreshToken": secret })));
            sent(client.post("/auth/login").json(json!({ "email": secret, "password": secret })));
            sent(client.post("/keys/create").bearer(&ann.access).json(json!({ secret: secret })));
        }
        for body in [
            json!({ good: good, "email": good, "password": [good] }).to_string(),
            format!("{{\"password\": \"{good}\", \"password\": \"{good}\"}}"),
            format!("{{\"password\": {good}}}"),
            format!("\"{good}\""),
        ] {
            for path in ["/auth/login", "/auth/signup", "/auth/refresh"] {
                assert_eq!(sent(client.post(path).body("application/json", body.as_str())).status, 400);
                sent(client.post(path).body("text/plain", body.as_str()));
            }
        }
        sent(client.get("/protected/user-only").header("authorization", &format!("Basic {good}")));
        sent(client.post("/auth/login").body("application/json", good.repeat(2000)));

        // A refresh token that comes back when it is long used is an event, and the log tells of it.
        let mut token = ann.refresh.clone();
        for _ in 0..9 {
            let answer = sent(client.post("/auth/refresh").json(json!({ "refreshToken": token })));
            assert_eq!(answer.status, 200, "{answer:?}");
            token = answer.json()["refreshToken"].as_str().unwrap().to_string();
            secrets.extend([token.clone(), answer.json()["accessToken"].as_str().unwrap().to_string()]);
        }
        assert_eq!(sent(client.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh }))).status, 401);
        assert_eq!(key_status(client, &key), 200, "the key {id} is none of the session's");

        // Of a token, its signature alone is secret enough.
        let signatures = secrets.iter().filter(|secret| secret.starts_with("eyJ"));
        let signatures: Vec<String> = signatures.map(|token| token.rsplit('.').next().unwrap().to_string()).collect();
        secrets.extend(signatures);
        secrets
    }

    #[test]
    fn a_log_that_nobody_reads_stops_neither_the_service_nor_its_end() {
        let home = Home::fresh(Backend::Sqlite);
        let (gate, closed) = channel();
        let server = home.start_reading_while(&[], closed);
        // Several times what fits into a pipe.
        assert_eq!(health_checks(server.address(), 4_000), 4_000);
        sign_up(&server.client(), "ann@example.com");
        server.signal(Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(server.address()).is_ok() {
            assert!(Instant::now() < deadline, "the server does not end");
            thread::sleep(Duration::from_millis(5));
        }
        drop(gate);
        assert_eq!(server.finish().code, Some(0));
    }

    #[test]
    fn when_a_slow_reader_reads_again_the_log_says_how_many_lines_are_missing() {
        // More than the queue and the pipe take together.
        const REQUESTS: usize = 24_000;
        let home = Home::fresh(Backend::Sqlite);
        let (gate, closed) = channel();
        let mut server = home.start_reading_while(&[], closed);
        assert_eq!(health_checks(server.address(), REQUESTS), REQUESTS);
        drop(gate);
        server.wait_for_line("log lines were dropped");
        let said = server.stop().stderr;
        let notes = said.lines().filter_map(|line| line.split_once(" log lines were dropped"));
        let dropped: usize = notes.map(|(count, _)| count.parse::<usize>().unwrap()).sum();
        assert!(dropped > 0);
        assert_eq!(said.matches("path=/health").count() + dropped, REQUESTS);
    }

    #[test]
    fn a_log_whose_reader_is_gone_does_not_stop_the_service() {
        let home = Home::fresh(Backend::Sqlite);
        let (gate, closing) = channel();
        let server = home.start_reading_while(&[], closing);
        gate.send(()).unwrap();
        sign_up(&server.client(), "ann@example.com");
        assert_eq!(health_checks(server.address(), 100), 100);
        assert_eq!(server.stop().code, Some(0));
    }

    /// Asks for `/health` so many times on one connection, many at once, and counts the good answers.
    fn health_checks(address: SocketAddr, count: usize) -> usize {
        let mut stream = http_client::connect(address).unwrap();
        let mut answers = stream.try_clone().unwrap();
        let writer = thread::spawn(move || {
            let request = format!("GET /health HTTP/1.1\r\nhost: {address}\r\n\r\n");
            stream.write_all(request.repeat(count - 1).as_bytes()).unwrap();
            stream.write_all(request.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
        });
        let mut received = String::new();
        answers.read_to_string(&mut received).unwrap();
        writer.join().unwrap();
        received.matches("HTTP/1.1 200 OK\r\n").count()
    }
}

mod settings {
    use super::*;
    use keyward_harness::program::Home;
    use keyward_harness::service::Backend;

    /// Starts the program with these settings and expects it to stop at once; returns the one line it says.
    #[track_caller]
    fn refusal(home: &Home, settings: &[(&str, &str)]) -> String {
        let finished = finish(home.command(&[]).envs(settings.iter().copied()), "");
        assert_eq!(finished.stdout, "");
        finished.failed(1).to_string()
    }

    #[test]
    fn a_bad_value_stops_the_start_with_one_line_that_names_the_variable() {
        let home = Home::fresh(Backend::Sqlite);
        for (name, value) in [
            ("HOST", "localhost"),
            ("PORT", "70000"),
            ("PORT", "http"),
            ("KEYWARD_DB", ":memory:"),
            ("DATABASE_URL", "mysql://u:hunter2@localhost/db"),
            ("DATABASE_URL", "postgres://u:hunter2@localhost:x/db"),
            ("DB_SSLMODE", "allow"),
            ("JWT_SECRET", "hunter2"),
            ("JWT_REFRESH_SECRET", "hunter2"),
            ("JWT_REFRESH_SECRET_PREVIOUS", "hunter2"),
            ("JWT_ALG", "none"),
            ("JWT_EXPIRES_IN", "3600"),
            ("JWT_REFRESH_EXPIRES_IN", "7 days"),
            ("BCRYPT_COST", "4"),
            ("SIGNUP", "maybe"),
            ("MAX_CONNECTIONS", "0"),
            ("LOG_FORMAT", "xml"),
        ] {
            for from_file in [false, true] {
                let line = if from_file {
                    let mut home = Home::fresh(Backend::Sqlite);
                    home.unset(name);
                    std::fs::write(home.path(".env"), format!("{name}='{value}'\n")).unwrap();
                    refusal(&home, &[])
                } else {
                    refusal(&home, &[(name, value)])
                };
                assert!(line.starts_with(&format!("{name}: ")), "{name}={value}: {line}");
                assert!(!line.contains("hunter2"), "{name}={value}: {line}");
            }
        }
        assert_eq!(home.files(), [""; 0], "a start that is refused leaves nothing behind");
    }

    #[test]
    fn a_line_of_env_that_cannot_be_read_is_not_repeated() {
        for content in [
            "PORT=0\nJWT_SECRET=hunter2 and more hunter2\n",
            "hunter2\n",
            "JWT_SECRET='hunter2\n",
            "JWT SECRET=hunter2\n",
            "=hunter2\n",
            "JWT_SECRET=\"hunter2\\q\"\n",
        ] {
            let home = Home::fresh(Backend::Sqlite);
            std::fs::write(home.path(".env"), content).unwrap();
            let line = refusal(&home, &[]);
            assert!(line.starts_with(".env: "), "{line}");
            assert!(!line.contains("hunter2"), "{line}");
        }
        let home = Home::fresh(Backend::Sqlite);
        std::fs::write(home.path(".env"), b"JWT_SECRET=\xffhunter2\n").unwrap();
        let line = refusal(&home, &[]);
        assert!(line.starts_with(".env: ") && !line.contains("hunter2"), "{line}");
    }

    #[test]
    fn a_value_that_is_not_utf_8_stops_the_start() {
        use std::os::unix::ffi::OsStrExt;
        let home = Home::fresh(Backend::Sqlite);
        let value = std::ffi::OsStr::from_bytes(b"hunter2\xff");
        let finished = finish(home.command(&[]).env("JWT_SECRET", value), "");
        let line = finished.failed(1);
        assert!(line.starts_with("JWT_SECRET: ") && !line.contains("hunter2"), "{line}");
    }

    #[test]
    fn the_environment_wins_over_env_and_env_over_the_defaults() {
        let mut home = Home::fresh(Backend::Sqlite);
        home.set("SIGNUP", "open");
        std::fs::write(home.path(".env"), "PORT=http\nSIGNUP=closed\nKEYWARD_DB=users.db\n").unwrap();
        let server = home.start(&[]);
        sign_up(&server.client(), "ann@example.com");
        assert!(home.path("users.db").exists() && !home.path("keyward.db").exists());
    }

    #[test]
    fn env_is_read_from_the_working_directory_and_from_no_other() {
        let home = Home::fresh(Backend::Sqlite);
        std::fs::write(home.path(".env"), "PORT=http\n").unwrap();
        let below = home.path("below");
        std::fs::create_dir(&below).unwrap();
        let finished = finish(home.command(&["migrate"]).env_remove("PORT").current_dir(&below), "");
        finished.succeeded();
        assert!(below.join("keyward.db").exists());
    }

    #[test]
    fn settings_of_a_database_without_its_host_never_fall_back_to_a_file() {
        let home = Home::fresh(Backend::Sqlite);
        for (name, value) in [("DB_NAME", "keyward"), ("DB_PASSWORD", "hunter2")] {
            let line = refusal(&home, &[(name, value)]);
            assert!(line.starts_with(&format!("{name}: ")) && line.contains("DB_HOST"), "{line}");
            assert!(!line.contains("hunter2"), "{line}");
        }
        assert_eq!(home.files(), [""; 0]);
    }

    #[test]
    fn a_port_that_is_taken_is_one_line() {
        let home = Home::fresh(Backend::Sqlite);
        let first = home.start(&[]);
        let line = refusal(&home, &[("PORT", &first.address().port().to_string())]);
        assert!(line.contains(&first.address().to_string()) && line.contains("HOST and PORT"), "{line}");
        let line = refusal(&home, &[("HOST", "203.0.113.1")]);
        assert!(line.contains("203.0.113.1"), "{line}");
        assert_eq!(first.client().get("/health").send().status, 200);
    }

    #[test]
    fn database_url_wins_over_the_single_settings() {
        if !postgres_cluster::available() {
            return;
        }
        let home = Home::fresh(Backend::Postgres);
        let server = home.start(&[("DB_HOST", "127.0.0.1"), ("DB_PORT", "1"), ("DB_NAME", "no_such_database")]);
        sign_up(&server.client(), "ann@example.com");
        let users = home.database().unwrap().client().query_one("SELECT email FROM users", &[]).unwrap();
        assert_eq!(users.get::<_, String>(0), "ann@example.com");
    }

    #[test]
    fn the_single_settings_lead_to_the_same_database() {
        if !postgres_cluster::available() {
            return;
        }
        let mut home = Home::fresh(Backend::Postgres);
        home.unset("DATABASE_URL");
        let database = home.database().unwrap();
        let settings = [
            ("DB_HOST", database.host()),
            ("DB_PORT", &database.port().to_string()),
            ("DB_USERNAME", database.user()),
            ("DB_PASSWORD", database.password()),
            ("DB_NAME", database.name()),
        ];
        sign_up(&home.start(&settings).client(), "ann@example.com");
        let users = database.client().query_one("SELECT email FROM users", &[]).unwrap();
        assert_eq!(users.get::<_, String>(0), "ann@example.com");
    }

    #[test]
    fn postgresql_without_secrets_stops_the_start() {
        if !postgres_cluster::available() {
            return;
        }
        for name in ["JWT_SECRET", "JWT_REFRESH_SECRET"] {
            let mut home = Home::fresh(Backend::Postgres);
            home.unset(name);
            let line = refusal(&home, &[]);
            assert!(line.starts_with(&format!("{name}: ")), "{line}");
            let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
            let tables: i64 = home.database().unwrap().client().query_one(tables, &[]).unwrap().get(0);
            assert_eq!((tables, home.files()), (0, Vec::new()), "nothing was made");
        }
    }

    #[test]
    fn a_postgresql_that_is_away_or_refuses_is_one_line_without_the_password() {
        if !postgres_cluster::available() {
            return;
        }
        let home = Home::fresh(Backend::Postgres);
        let database = home.database().unwrap();
        let (host, port) = (database.host(), database.port());
        for (url, expected) in [
            (format!("postgres://{}:hunter2@{host}:1/{}", database.user(), database.name()), "PostgreSQL"),
            (format!("postgres://{}:hunter2@{host}:{port}/{}", database.user(), database.name()), "password"),
            (database.url().replace(database.name(), "no_such_database"), "no_such_database"),
            (format!("postgres://u:hunter2@no-such-host.invalid/{}", database.name()), "PostgreSQL"),
        ] {
            let line = refusal(&home, &[("DATABASE_URL", &url)]);
            assert!(line.contains(expected), "{line}");
            assert!(!line.contains("hunter2") && !line.contains(database.password()), "{line}");
        }
    }

    #[test]
    fn a_postgresql_that_stays_silent_does_not_hold_up_the_start_for_ever() {
        if !postgres_cluster::available() {
            return;
        }
        let home = Home::fresh(Backend::Postgres);
        let database = home.database().unwrap();
        let relay = Relay::to(SocketAddr::from((Ipv4Addr::LOCALHOST, database.port())));
        relay.freeze();
        let url = database.url_at(relay.addr().port());
        let started = Instant::now();
        let line = refusal(&home, &[("DATABASE_URL", &url)]);
        assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
        assert!(!line.contains(database.password()), "{line}");
    }

    #[test]
    fn of_several_hosts_one_that_is_switched_off_keeps_nobody_from_the_others() {
        if !postgres_cluster::available() {
            return;
        }
        let home = Home::fresh(Backend::Postgres);
        let database = home.database().unwrap();
        // Whose queue is full, nobody gets an answer from.
        let off = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        rustix::net::listen(&off, 0).unwrap();
        let _queued = TcpStream::connect(off.local_addr().unwrap()).unwrap();
        let there = format!("{}:{}", database.host(), database.port());
        let url = database.url().replace(&there, &format!("{},{there}", off.local_addr().unwrap()));
        // One second is left for the host that is there. A busy machine may need more once.
        let is_reached = || home.command(&["migrate"]).env("DATABASE_URL", &url).output().unwrap().status.success();
        assert!((0..3).any(|_| is_reached()));
    }
}
