//! A program of somebody else's that Keyward sends webhooks to.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::tls_client::Pair;

pub const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// What a request is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These bytes.
    Bytes(String),
    /// Nothing, until the client hangs up.
    Hang,
    /// The connection is closed.
    HangUp,
}

impl Reply {
    /// A status other than 204, without a body.
    pub fn status(status: u16) -> Reply {
        Reply::Bytes(format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n"))
    }

    pub fn no_content() -> Reply {
        Reply::Bytes(NO_CONTENT.to_string())
    }
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

/// It notes every request, and answers as the test says. It ends when it is dropped.
pub struct Receiver {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    script: Mutex<Arc<Script>>,
    received: Mutex<Vec<Received>>,
    came: Condvar,
    /// How many requests came with each `webhook-id`.
    counts: Mutex<HashMap<String, usize>>,
    connections: AtomicUsize,
    is_ended: AtomicBool,
    tls: Option<Arc<ServerConfig>>,
}

#[derive(Clone, Debug)]
pub struct Received {
    /// Their names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// How many requests with the same `webhook-id` came before.
    pub before: usize,
}

impl Receiver {
    /// Speaks HTTP at 127.0.0.1, and answers 204.
    pub fn start() -> Receiver {
        Receiver::open("127.0.0.1:0", None)
    }

    /// The same at another address of this machine, such as 127.0.0.2:0.
    pub fn at(address: &str) -> Receiver {
        Receiver::open(address, None)
    }

    /// The same by HTTPS.
    pub fn with_tls(pair: &Pair) -> Receiver {
        let chain = CertificateDer::pem_file_iter(&pair.certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(&fs::read(&pair.key).unwrap()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Receiver::open("127.0.0.1:0", Some(Arc::new(config)))
    }

    fn open(address: &str, tls: Option<Arc<ServerConfig>>) -> Receiver {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(|_| Reply::no_content())),
            received: Mutex::default(),
            came: Condvar::new(),
            counts: Mutex::default(),
            connections: AtomicUsize::new(0),
            is_ended: AtomicBool::new(false),
            tls,
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if accepting.is_ended.load(Ordering::SeqCst) {
                    return;
                }
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let shared = accepting.clone();
                thread::spawn(move || shared.converse(stream));
            }
        });
        Receiver { shared, address }
    }

    /// Answers with these bytes from now on.
    pub fn answer(&self, answer: &str) {
        let answer = answer.to_string();
        self.answer_by(move |_| Reply::Bytes(answer.clone()));
    }

    /// Answers so from now on.
    pub fn answer_by(&self, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    /// Waits until what has come is as the test wants it.
    ///
    /// # Panics
    /// When it does not become so for a long time.
    #[track_caller]
    pub fn until(&self, what: &str, mut is_so: impl FnMut(&[Received]) -> bool) -> Vec<Received> {
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut received = self.shared.received.lock().unwrap();
        while !is_so(&received) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it never came that {what}; {} requests came", received.len());
            received = self.shared.came.wait_timeout(received, left).unwrap().0;
        }
        received.clone()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, with this as host.
    pub fn url_at(&self, host: &str) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{host}:{}/hook", self.address.port())
    }

    pub fn url(&self) -> String {
        self.url_at(&self.address.ip().to_string())
    }

    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// How many were made to it, whatever was sent on them.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.is_ended.store(true, Ordering::SeqCst);
        // So that it accepts once more, and sees it.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn converse(&self, stream: TcpStream) {
        match &self.tls {
            Some(config) => {
                let session = ServerConnection::new(config.clone()).unwrap();
                self.answer_all(StreamOwned::new(session, stream));
            }
            None => self.answer_all(stream),
        }
    }

    fn counted(&self, request: Received) -> Received {
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry(request.id().to_string()).or_default();
        *count += 1;
        Received { before: *count - 1, ..request }
    }

    fn answer_all(&self, stream: impl Read + Write) {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream) {
            let request = self.counted(request);
            let script = self.script.lock().unwrap().clone();
            let reply = script(&request);
            self.received.lock().unwrap().push(request);
            self.came.notify_all();
            let answer = match reply {
                Reply::Bytes(answer) => answer,
                Reply::HangUp => return,
                Reply::Hang => {
                    let _ = stream.read(&mut [0]);
                    return;
                }
            };
            let stream = stream.get_mut();
            if stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()).is_err() {
                return;
            }
        }
    }
}

/// `None`: the connection has ended.
fn read_request(stream: &mut impl BufRead) -> Option<Received> {
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|length| *length > 0).map(|_| line.trim_end().to_string())
    };
    line()?;
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_string()));
    }
    let mut received = Received { headers, body: String::new(), before: 0 };
    let length: u64 = received.header("content-length").parse().ok()?;
    stream.take(length).read_to_string(&mut received.body).ok()?;
    // Otherwise its sender has died meanwhile.
    (received.body.len() as u64 == length).then_some(received)
}

impl Received {
    /// Empty, if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(one, _)| one == name).map_or("", |(_, value)| value)
    }

    /// The same at each try.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The type of the event.
    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_string()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Whether one of its signatures is by this secret, which begins with `whsec_`.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let [id, timestamp] = ["webhook-id", "webhook-timestamp"].map(|name| self.header(name));
        let signed = format!("{id}.{timestamp}.{}", self.body);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(tag));
        self.header("webhook-signature").split(' ').any(|signature| signature == expected)
    }
}
