//! The service behind a gateway: it lets everyone in and remembers everything that arrives.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tiny_http::{Header, Response, Server};

/// The headers in which Keyward says whose request it is.
pub const NAMES: [&str; 9] = [
    "X-Auth-Type",
    "X-Auth-User-Id",
    "X-Auth-Email",
    "X-Auth-Email-Verified",
    "X-Auth-Key-Id",
    "X-Auth-Key-Name",
    "X-Auth-Key-Expires-At",
    "X-Auth-External-Id",
    "X-Auth-Scopes",
];

/// A request that has arrived.
#[derive(Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whatever a service could take for one of [`NAMES`], as PHP, CGI, WSGI and FastCGI know them: with `_` for every
    /// character that is no letter or digit. A header without a value counts as none.
    pub fn told(&self) -> BTreeMap<String, String> {
        let mut told = BTreeMap::new();
        for (name, value) in self.headers.iter().filter(|(name, value)| is_keywards(name) && !value.is_empty()) {
            let known = told.insert(as_variable(name), value.clone());
            assert_eq!(known, None, "{name} is there twice: {self:?}");
        }
        told
    }
}

fn is_keywards(name: &str) -> bool {
    NAMES.iter().any(|known| as_variable(known) == as_variable(name))
}

fn as_variable(name: &str) -> String {
    name.to_lowercase().replace(|character: char| !character.is_ascii_alphanumeric(), "_")
}

pub struct Upstream {
    server: Arc<Server>,
    seen: Arc<Mutex<Vec<Seen>>>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    pub fn start() -> Upstream {
        let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
        let seen = Arc::default();
        let thread = thread::spawn({
            let (server, seen) = (Arc::clone(&server), Arc::clone(&seen));
            move || server.incoming_requests().for_each(|request| answer(request, &seen))
        });
        Upstream { server, seen, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.server_addr().to_ip().unwrap()
    }

    /// What has arrived since this was asked before.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The only request that has arrived since this was asked before.
    #[track_caller]
    pub fn take_one(&self) -> Seen {
        let mut seen = self.take_seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `hello from the service`, or an echo of four bytes for a client that asks for a WebSocket.
fn answer(mut request: tiny_http::Request, seen: &Mutex<Vec<Seen>>) {
    let is_websocket = request.headers().iter().any(|header| header.field.equiv("upgrade"));
    let mut body = Vec::new();
    if !is_websocket {
        let _ = request.as_reader().read_to_end(&mut body);
    }
    let headers = request.headers().iter();
    let headers = headers.map(|header| (header.field.to_string().to_lowercase(), header.value.to_string())).collect();
    let (method, target) = (request.method().to_string(), request.url().to_string());
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { method, target, headers, body });
    if !is_websocket {
        // Who has been cut off reads no answer.
        let _ = request.respond(Response::from_string(HELLO));
        return;
    }
    let accept = Header::from_bytes("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").unwrap();
    let mut stream = request.upgrade("websocket", Response::empty(101).with_header(accept));
    let mut bytes = [0; 4];
    if stream.read_exact(&mut bytes).is_ok() {
        let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
    }
}

pub const HELLO: &str = "hello from the service";
