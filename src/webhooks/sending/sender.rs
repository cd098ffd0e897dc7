//! One try of one delivery: a POST, within 10 seconds for everything.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};
use rustls::crypto::aws_lc_rs;
use ureq::config::Config;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::{Connector, RustlsConnector, TcpConnector};
use ureq::{Agent, Body};

use crate::base::roots::Roots;
use crate::base::sharded::lock;
use crate::outbox::delivery::{Answer, Outcome};
use crate::webhooks::addresses::Reach;
use crate::webhooks::secret::WebhookSecret;
use crate::webhooks::sending::failures::explain;
use crate::webhooks::sending::judging::Judging;
use crate::webhooks::sending::names::Names;
use crate::webhooks::sending::signing::signatures;
use crate::webhooks::url::WebhookUrl;

/// For the answer's body, once its status is known: that tells what became of the delivery.
const BODY_WITHIN: Duration = Duration::from_secs(1);
/// Of the answer's head.
const HEAD: usize = 16 * 1024;
/// How much of the answer's body is read, which leaves the connection usable. If there is more, it is closed.
const READ: u64 = 64 * 1024;
/// How much of it is kept.
const KEPT: usize = 1024;
const BUFFER: usize = 32 * 1024;
/// Shorter than the time after which usual servers close (Node: 5 seconds).
const IDLE: Duration = Duration::from_secs(3);
const IDLE_CONNECTIONS: usize = 32;
/// After this time connections are made anew, so that a name's change is followed, and renewed authorities are trusted.
const CLIENT_AGE: Duration = Duration::from_secs(60);

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Sends to the endpoints that may be within one reach.
pub(super) struct Sender {
    names: Arc<Names>,
    reach: Reach,
    roots: Arc<Roots>,
    within: Duration,
    client: Mutex<Option<(Instant, Agent)>>,
}

/// What is sent.
pub(super) struct Message<'a> {
    /// The same at each try.
    pub id: &'a str,
    /// The time of this try, in seconds since the epoch.
    pub seconds: i64,
    pub body: &'a str,
}

impl Sender {
    /// `within`: how long one try may take.
    pub(super) fn new(names: Names, reach: Reach, roots: Arc<Roots>, within: Duration) -> Sender {
        Sender { names: Arc::new(names), reach, roots, within, client: Mutex::default() }
    }

    pub(super) fn send(&self, url: &WebhookUrl, secrets: &[WebhookSecret], message: &Message<'_>) -> Outcome {
        let request = self
            .client()
            .post(url.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(ID, message.id)
            .header(TIMESTAMP, message.seconds.to_string())
            .header(SIGNATURE, signatures(secrets, message.id, message.seconds, message.body));
        match request.send(message.body) {
            Ok(answer) => judge(answer.status(), beginning(answer.into_body())),
            Err(error) => {
                let (reason, timed_out) = explain(&error);
                Outcome::Failed { answer: Answer::default(), reason: reason.to_string(), timed_out }
            }
        }
    }

    /// The client, and with it the connections that it keeps. All of them were judged by the same reach.
    fn client(&self) -> Agent {
        let mut client = lock(&self.client);
        match &*client {
            Some((made, agent)) if made.elapsed() < CLIENT_AGE => agent.clone(),
            _ => {
                let agent = self.new_client();
                *client = Some((Instant::now(), agent.clone()));
                agent
            }
        }
    }

    fn new_client(&self) -> Agent {
        let roots = self.roots.current();
        let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .build();
        let config = Config::builder()
            .tls_config(tls)
            // Otherwise one from the environment, which would resolve names itself.
            .proxy(None)
            // An answer that redirects is an answer.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("Keyward/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_global(Some(self.within))
            .timeout_recv_body(Some(BODY_WITHIN))
            .max_response_header_size(HEAD)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(2)
            .max_idle_age(IDLE)
            .build();
        let connector = ().chain(TcpConnector::default()).chain(RustlsConnector::default());
        Agent::with_parts(config, connector, Judging { names: self.names.clone(), reach: self.reach.clone() })
    }
}

fn judge(status: StatusCode, text: Option<String>) -> Outcome {
    let answer = Answer { status: Some(status.as_u16()), text };
    let failed = |answer, reason: &str| Outcome::Failed { answer, reason: reason.to_string(), timed_out: false };
    match status {
        status if status.is_success() => Outcome::Delivered(answer),
        StatusCode::GONE => Outcome::Gone(answer),
        status if status.is_redirection() => failed(answer, "it redirects elsewhere, which is not followed"),
        _ => failed(answer, "its status is no success"),
    }
}

/// The first part of the body, as text. Whatever goes wrong, the status is there already.
fn beginning(body: Body) -> Option<String> {
    let mut reader = body.into_reader().take(READ);
    let mut kept = Vec::new();
    let _ = (&mut reader).take(KEPT as u64).read_to_end(&mut kept);
    let _ = io::copy(&mut reader, &mut io::sink());
    let text = String::from_utf8_lossy(&kept);
    // Databases and terminals take no control characters. Cut characters are no loss, and must not grow it.
    let mut text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    while text.len() > KEPT {
        text.pop();
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{IpAddr, TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::base::network::Network;

    /// What a receiver got, and from there on.
    struct Receiver {
        port: u16,
        requests: mpsc::Receiver<String>,
    }

    impl Receiver {
        /// Answers each request on a connection with the next of these answers, and then closes it.
        fn start(address: &str, answers: &[&str]) -> Receiver {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let (sender, requests) = mpsc::channel();
            let answers: Vec<String> = answers.iter().map(ToString::to_string).collect();
            thread::spawn(move || {
                while let Ok((mut stream, _)) = listener.accept() {
                    for answer in &answers {
                        let Some(request) = read_request(&mut stream) else { break };
                        if sender.send(request).is_err() {
                            return;
                        }
                        let _ = stream.write_all(answer.as_bytes());
                    }
                }
            });
            Receiver { port, requests }
        }

        fn url(&self, host: &str) -> WebhookUrl {
            WebhookUrl::parse(&format!("http://{host}:{}/hook?a=b", self.port)).unwrap()
        }
    }

    /// `None`: the connection was closed.
    fn read_request(stream: &mut TcpStream) -> Option<String> {
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        while !read.ends_with(b"}") {
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => read.extend_from_slice(&buffer[..count]),
                _ => return None,
            }
        }
        String::from_utf8(read).ok()
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    fn sender(names: Names, reach: Reach) -> Sender {
        Sender::new(names, reach, Arc::default(), Duration::from_secs(60))
    }

    fn send(sender: &Sender, url: &WebhookUrl) -> Outcome {
        let secrets = [WebhookSecret::from_bytes(vec![1; 32]), WebhookSecret::from_bytes(vec![2; 32])];
        sender.send(url, &secrets, &Message { id: "an-id", seconds: 1_700_000_000, body: r#"{"type":"test"}"# })
    }

    fn operators() -> Sender {
        sender(Names::of_the_system(), Reach::Operator)
    }

    /// To a user's endpoint, where the operator has named 127.0.0.2 alone. Names lead to each of these in turn.
    fn users(answers: &[&[&str]]) -> (Sender, Arc<Mutex<usize>>) {
        let answers: Vec<Vec<IpAddr>> =
            answers.iter().map(|answer| answer.iter().map(|address| address.parse().unwrap()).collect()).collect();
        let asked = Arc::new(Mutex::new(0));
        let count = asked.clone();
        let names = Names::by(Arc::new(move |_| {
            *lock(&count) += 1;
            Ok(answers[(*lock(&count) - 1).min(answers.len() - 1)].clone())
        }));
        (sender(names, Reach::User { networks: vec![Network::parse("127.0.0.2/32").unwrap()] }), asked)
    }

    fn reason(outcome: &Outcome) -> &str {
        let Outcome::Failed { reason, .. } = outcome else { panic!("{outcome:?}") };
        reason
    }

    const NOT_ALLOWED: &str = "the name does not exist, or has an address that is not allowed";

    #[test]
    fn a_delivery_is_a_signed_post_and_connections_are_kept() {
        let receiver = Receiver::start("127.0.0.1:0", &[OK, OK]);
        let sender = operators();
        for _ in 0..2 {
            let outcome = send(&sender, &receiver.url("127.0.0.1"));
            assert_eq!(outcome, Outcome::Delivered(Answer { status: Some(200), text: Some("ok".to_string()) }));
        }
        let request = receiver.requests.recv().unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, r#"{"type":"test"}"#);
        let mut lines = head.lines();
        assert_eq!(lines.next(), Some("POST /hook?a=b HTTP/1.1"));
        let mut names: Vec<&str> = lines.map(|line| line.split_once(": ").unwrap().0).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "accept-encoding",
                "content-length",
                "content-type",
                "host",
                "user-agent",
                "webhook-id",
                "webhook-signature",
                "webhook-timestamp"
            ]
        );
        assert!(head.contains(concat!("user-agent: Keyward/", env!("CARGO_PKG_VERSION"))), "{head}");
        assert!(
            head.contains("webhook-id: an-id\r\nwebhook-timestamp: 1700000000\r\nwebhook-signature: v1,"),
            "{head}"
        );
        assert_eq!(head.matches("v1,").count(), 2, "{head}");
        // The second came on the same connection, because only there the second answer is given.
        assert_eq!(receiver.requests.recv().unwrap(), request);
    }

    #[test]
    fn the_status_says_what_became_of_it_and_little_is_kept_of_the_answer() {
        let large = format!("HTTP/1.1 500 No\r\nContent-Length: 10000000\r\n\r\n{}", "é".repeat(500_000));
        for (answer, status, text) in [
            ("HTTP/1.1 204 No Content\r\n\r\n".to_string(), 204, None),
            (
                "HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\na\0\u{1b}b\tc\r\nd".to_string(),
                202,
                Some("ab\tc\nd".to_string()),
            ),
            ("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n".to_string(), 410, None),
            (
                "HTTP/1.1 404 No\r\nConnection: close\r\n\r\nno such hook".to_string(),
                404,
                Some("no such hook".to_string()),
            ),
            // It is cut off, or says that it is compressed: neither changes what the status says.
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab".to_string(), 200, Some("ab".to_string())),
            (
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab".to_string(),
                200,
                Some("ab".to_string()),
            ),
            (large, 500, Some("é".repeat(512))),
        ] {
            let receiver = Receiver::start("127.0.0.1:0", &[&answer]);
            let outcome = send(&operators(), &receiver.url("127.0.0.1"));
            let expected = Answer { status: Some(status), text };
            match status {
                200..=299 => assert_eq!(outcome, Outcome::Delivered(expected)),
                410 => assert_eq!(outcome, Outcome::Gone(expected)),
                _ => {
                    let Outcome::Failed { answer, timed_out: false, .. } = &outcome else { panic!("{outcome:?}") };
                    assert_eq!(*answer, expected);
                }
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_a_failure_that_is_told() {
        let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(HEAD));
        for (answer, expected) in [
            ("", "the connection was closed before there was an answer"),
            ("HTTP/1.1 20", "the connection was closed before there was an answer"),
            ("SSH-2.0-OpenSSH\r\n", "the answer was not HTTP/1.1"),
            (&head, "the answer's head was too large"),
        ] {
            let receiver = Receiver::start("127.0.0.1:0", &[answer]);
            assert_eq!(reason(&send(&operators(), &receiver.url("127.0.0.1"))), expected);
        }
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = WebhookUrl::parse(&format!("http://{unused}/")).unwrap();
        assert_eq!(reason(&send(&operators(), &url)), "the connection was refused");
    }

    #[test]
    fn one_that_does_not_answer_in_time_has_timed_out() {
        // The system accepts the connection and the request for it.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = Sender::new(Names::of_the_system(), Reach::Operator, Arc::default(), Duration::from_millis(200));
        for scheme in ["http", "https"] {
            let url = WebhookUrl::parse(&format!("{scheme}://{}/", silent.local_addr().unwrap())).unwrap();
            let outcome = send(&sender, &url);
            assert!(matches!(outcome, Outcome::Failed { timed_out: true, .. }), "{outcome:?}");
        }
        let (_release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let names = Names::by(Arc::new(move |_| lock(&released).recv().map(|()| Vec::new()).map_err(io::Error::other)));
        let sender = Sender::new(names, Reach::Operator, Arc::default(), Duration::from_millis(50));
        let outcome = send(&sender, &WebhookUrl::parse("http://a.example/").unwrap());
        assert!(matches!(outcome, Outcome::Failed { timed_out: true, .. }), "{outcome:?}");
    }

    #[test]
    fn a_redirect_is_not_followed() {
        let inner = TcpListener::bind("127.0.0.1:0").unwrap();
        inner.set_nonblocking(true).unwrap();
        for status in [301, 302, 303, 307, 308] {
            let location = format!(
                "HTTP/1.1 {status} Moved\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n",
                inner.local_addr().unwrap()
            );
            let receiver = Receiver::start("127.0.0.2:0", &[&location]);
            let (users, _) = users(&[&["127.0.0.2"]]);
            for (sender, host) in [(&operators(), "127.0.0.2"), (&users, "a.example")] {
                let outcome = send(sender, &receiver.url(host));
                assert_eq!(reason(&outcome), "it redirects elsewhere, which is not followed");
                let Outcome::Failed { answer, .. } = outcome else { panic!() };
                assert_eq!(answer.status, Some(status));
            }
        }
        assert_eq!(inner.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    /// A receiver at 127.0.0.2, and one at 127.0.0.1 with the same port, which nobody may reach.
    fn outer_and_inner() -> (Receiver, TcpListener) {
        let inner = TcpListener::bind("127.0.0.1:0").unwrap();
        inner.set_nonblocking(true).unwrap();
        let outer = Receiver::start(&format!("127.0.0.2:{}", inner.local_addr().unwrap().port()), &[OK, OK]);
        (outer, inner)
    }

    #[test]
    fn a_name_that_changes_is_judged_each_time_and_what_was_judged_is_connected_to() {
        let (outer, inner) = outer_and_inner();
        let (users, asked) = users(&[&["127.0.0.2"], &["127.0.0.1"], &["127.0.0.2"]]);
        let url = outer.url("rebinding.example");
        assert!(matches!(send(&users, &url), Outcome::Delivered(_)));
        // Also not on the connection that was kept.
        assert_eq!(reason(&send(&users, &url)), NOT_ALLOWED);
        assert!(matches!(send(&users, &url), Outcome::Delivered(_)));
        assert_eq!(*lock(&asked), 3, "each delivery has resolved the name once");
        assert_eq!(outer.requests.try_iter().count(), 2);
        assert_eq!(inner.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn one_address_that_is_not_allowed_refuses_the_name() {
        for addresses in [
            ["127.0.0.2", "127.0.0.1"],
            ["127.0.0.1", "127.0.0.2"],
            ["127.0.0.2", "::ffff:127.0.0.1"],
            ["127.0.0.2", "169.254.169.254"],
            ["127.0.0.2", "::1"],
            // Globally reachable, but not by http at this port.
            ["127.0.0.2", "8.8.8.8"],
        ] {
            let (outer, inner) = outer_and_inner();
            let (users, _) = users(&[&addresses]);
            assert_eq!(reason(&send(&users, &outer.url("two.example"))), NOT_ALLOWED, "{addresses:?}");
            assert_eq!(outer.requests.try_iter().count(), 0);
            assert_eq!(inner.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn the_addresses_of_a_name_are_tried_in_turn() {
        let (outer, _inner) = outer_and_inner();
        let networks = vec![Network::parse("127.0.0.0/8").unwrap()];
        let addresses = ["127.0.0.3", "127.0.0.2"].map(|address| address.parse().unwrap());
        let names = Names::by(Arc::new(move |_| Ok(addresses.to_vec())));
        let outcome = send(&sender(names, Reach::User { networks }), &outer.url("two.example"));
        assert!(matches!(outcome, Outcome::Delivered(_)), "{outcome:?}");
    }

    #[test]
    fn addresses_and_odd_hosts_in_a_stored_url_are_judged_when_it_is_sent_to() {
        let (users, _) = users(&[&["127.0.0.1"]]);
        for host in ["127.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "169.254.169.254", "localhost", "[::ffff:127.0.0.1]"] {
            let outcome = send(&users, &WebhookUrl::from_stored(format!("https://{host}/")));
            assert_eq!(reason(&outcome), NOT_ALLOWED, "{host}");
        }
        for host in ["2130706433", "0x7f.1", "127.1", "0177.0.0.1"] {
            let outcome = send(&users, &WebhookUrl::from_stored(format!("https://{host}/")));
            assert_eq!(reason(&outcome), "the URL is not allowed", "{host}");
        }
    }
}
