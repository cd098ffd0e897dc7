//! A connection byte by byte, for tests that say exactly what is on it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::http_client::{Answer, PATIENCE, connect, connect_from, raw, read_answer};

/// One connection, on which a test says exactly what it wants.
pub struct Wire(pub BufReader<TcpStream>);

impl Wire {
    #[track_caller]
    pub fn open(address: SocketAddr) -> Wire {
        Wire(BufReader::new(connect(address).unwrap()))
    }

    /// The same from another address of this machine.
    #[track_caller]
    pub fn open_from(local: Ipv4Addr, address: SocketAddr) -> Wire {
        Wire(BufReader::new(connect_from(local, address).unwrap()))
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Wire {
        self.try_send(bytes).unwrap();
        self
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())
    }

    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        read_answer(&mut self.0, false).unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// The interim answer that asks for the body (RFC 9110 §10.1.1).
    #[track_caller]
    pub fn hears_100_continue(&mut self) {
        let expected = b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut heard = [0; 25];
        self.0.read_exact(&mut heard).unwrap();
        assert_eq!(str::from_utf8(&heard), str::from_utf8(expected));
    }

    /// What arrives until the server closes.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("not closed: {error}"),
            _ => rest,
        }
    }

    /// Whether nothing arrives for so long, not even the end of the stream.
    pub fn is_silent_for(&mut self, span: Duration) -> bool {
        self.0.get_ref().set_read_timeout(Some(span)).unwrap();
        let silent = self.0.fill_buf().is_err_and(|error| is_timeout(&error));
        self.0.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    /// Sends a byte at this pace until the server closes, and gives what it said by then.
    #[track_caller]
    pub fn trickle(&mut self, pace: Duration, patience: Duration) -> Vec<u8> {
        let mut heard = Vec::new();
        let started = Instant::now();
        while self.is_silent_for(pace) {
            assert!(started.elapsed() < patience, "a client that trickles is never cut");
            // It fails when the server has closed by now: the next look at the connection tells.
            let _ = self.try_send("x");
        }
        let _ = self.0.read_to_end(&mut heard);
        heard
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: keyward\r\n\r\n")
}

/// A request to a route that reads its body and needs nothing else: with `{}` for a body it is answered with
/// [`EMPTY_REFRESH`].
pub fn refresh(framing: &str, body: &str) -> String {
    let head = "POST /auth/refresh HTTP/1.1\r\nHost: keyward\r\nContent-Type: application/json";
    format!("{head}\r\n{framing}\r\n\r\n{body}")
}

pub const EMPTY_REFRESH: &[&str] = &["refreshToken must be a string"];
pub const CHUNKED: &str = "Transfer-Encoding: chunked";

/// One chunk and the end.
pub fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// Every answer on a connection that carries these bytes, up to its end.
#[track_caller]
pub fn answers(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<Answer> {
    parsed(&raw(address, bytes.as_ref()))
}

#[track_caller]
pub fn statuses(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<u16> {
    answers(address, bytes).iter().map(|answer| answer.status).collect()
}

#[track_caller]
pub fn parsed(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        answers.push(read_answer(&mut bytes, false).unwrap());
    }
    answers
}

/// A request that only a server that misreads the one before it will see. It answers, and closes.
pub fn smuggled() -> String {
    "GET /health HTTP/1.1\r\nHost: keyward\r\nConnection: close\r\n\r\n".to_string()
}
