//! What the program logs, and to whom.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use keyward_harness::http_client::{self, Answer, Client, PATIENCE};
use keyward_harness::openapi;
use keyward_harness::program::Home;
use keyward_harness::program::{Process, in_both_homes};
use keyward_harness::service::Backend;
use keyward_harness::service::account;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{begin_post, create_key, credentials};

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
    let ann = client.sign_up("ann@example.com");
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
    note("POST", "/auth/login", "-", client.post("/auth/login").body("application/json", vec![b' '; 20_000]).send());
    note("GET", "/auth/login", "-", client.get("/auth/login").send());
    note("GET", "/no%20where\\n", "-", client.get("/no%20where\\n").send());
    note("DELETE", "/keys/x", &user, client.delete("/keys/x").bearer(&ann.access).send());
    lines
}

/// Checks that there is one line for each request, whatever else is logged.
fn compare(expected: &[Line], found: Vec<HashMap<String, String>>) {
    for line in expected {
        let of_this_request: Vec<_> = found.iter().filter(|fields| fields["request_id"] == line.request_id).collect();
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
fn a_client_who_goes_before_their_answer_is_there_has_a_line_too() {
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
    let asked = [(bad.to_string(), 400), (many, 431), (good.replace("1.1", "2.0"), 505), (format!("{good}{bad}"), 400)];
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
                    let client = Client::unobserved(address);
                    while client.get("/nowhere").try_send().is_ok() {}
                });
            }
            server.stop().stderr
        });
        let lines: Vec<&str> = stderr.lines().collect();
        let of = |part: &str| lines.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("{stderr}"));
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
    assert_eq!(client.token_status(&ann.access), 200);
    assert_eq!(client.token_status(&format!("{}x", ann.access)), 401);
    assert_eq!(client.key_status(&key), 200);
    assert_eq!(client.key_status(&key.to_uppercase()), 401);
    assert_eq!(sent(client.delete(&format!("/keys/{revoked_id}")).bearer(&ann.access)).status, 200);
    assert_eq!(client.key_status(&revoked), 401);

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
    assert_eq!(client.key_status(&key), 200, "the key {id} is none of the session's");

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
    server.client().sign_up("ann@example.com");
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
    server.client().sign_up("ann@example.com");
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
