//! A small blocking HTTP/1.1 client that shows an answer exactly as it was sent.
//!
//! It follows no redirect, replays no request and hides no oddity, so that a test sees what the server does.
//! A server that stays silent fails the test after [`PATIENCE`].

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use rustix::net::{AddressFamily, SocketType};

/// How long to wait for a server that neither sends nor takes bytes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps one connection alive between requests. Requests made at the same time have a connection each.
pub struct Client {
    address: SocketAddr,
    idle: Mutex<Option<BufReader<TcpStream>>>,
    observer: fn(method: &str, target: &str, answer: &Answer),
}

impl Client {
    /// Connects with the first request. `observer` sees every answer, and panics when it finds fault with it.
    pub fn new(address: SocketAddr, observer: fn(&str, &str, &Answer)) -> Client {
        Client { address, idle: Mutex::new(None), observer }
    }

    /// A client whose answers nobody checks.
    pub fn unobserved(address: SocketAddr) -> Client {
        Client::new(address, |_, _, _| {})
    }

    pub fn get(&self, target: &str) -> Request<'_> {
        self.method("GET", target)
    }

    pub fn head(&self, target: &str) -> Request<'_> {
        self.method("HEAD", target)
    }

    pub fn post(&self, target: &str) -> Request<'_> {
        self.method("POST", target)
    }

    pub fn delete(&self, target: &str) -> Request<'_> {
        self.method("DELETE", target)
    }

    pub fn method(&self, method: &str, target: &str) -> Request<'_> {
        Request {
            client: self,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// The kept connection when the server has not closed it, else a new one.
    fn connection(&self) -> io::Result<BufReader<TcpStream>> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        match idle {
            Some(connection) if is_open(&connection)? => Ok(connection),
            _ => Ok(BufReader::new(connect(self.address)?)),
        }
    }
}

/// Looked up before a request is sent: a request that failed half-way must not be sent twice.
fn is_open(connection: &BufReader<TcpStream>) -> io::Result<bool> {
    let stream = connection.get_ref();
    stream.set_nonblocking(true)?;
    let waiting = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    let silent = matches!(&waiting, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
    if waiting.is_ok_and(|count| count > 0) || !connection.buffer().is_empty() {
        return Err(invalid("bytes after the end of the last answer"));
    }
    Ok(silent)
}

/// A request that has not been sent yet.
#[must_use = "a request does nothing until it is sent"]
pub struct Request<'a> {
    client: &'a Client,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request<'_> {
    /// Sent as it is, beside any of the same name. `host` and `content-length` take the place of the client's own.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn api_key(self, key: &str) -> Self {
        self.header("x-api-key", key)
    }

    pub fn json(self, body: serde_json::Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    /// # Panics
    /// When there is no answer, or one that breaks the protocol.
    #[track_caller]
    pub fn send(self) -> Answer {
        let line = format!("{} {}", self.method, self.target);
        let observer = self.client.observer;
        let (method, target) = (self.method.clone(), self.target.clone());
        let answer = self.try_send().unwrap_or_else(|error| panic!("{line}: {error}"));
        observer(&method, &target, &answer);
        answer
    }

    /// For servers that are expected to be away.
    pub fn try_send(self) -> io::Result<Answer> {
        let mut connection = self.client.connection()?;
        let sent = connection.get_mut().write_all(&self.to_bytes());
        // A server may refuse a request and close before it has read all of it: its answer says more
        // than the broken pipe.
        let answer = read_answer(&mut connection, self.method == "HEAD").map_err(explain)?;
        let closes =
            answer.headers.get_all("connection").iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        if sent.is_ok() && !closes {
            *self.client.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        Ok(answer)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let has = |name: &str| self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !has("host") {
            head += &format!("host: {}\r\n", self.client.address);
        }
        let expects_body = matches!(self.method.as_str(), "POST" | "PUT" | "PATCH");
        let framed = has("content-length") || has("transfer-encoding");
        if !framed && (expects_body || !self.body.is_empty()) {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        [head.as_bytes(), &self.body].concat()
    }
}

/// What the server sent: the final answer, after any interim ones, with its framing removed from the body.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// # Panics
    /// When the body is not JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("the body is not JSON ({error}): {self:?}"))
    }

    /// The first value of this name. `None` also when it is not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// # Panics
    /// When the body is not UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap_or_else(|error| panic!("the body is not UTF-8 ({error}): {self:?}"))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value:?}")?;
        }
        write!(f, "\n{}", String::from_utf8_lossy(&self.body))
    }
}

/// A connection that does not wait longer than [`PATIENCE`] for anything.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The same from another address of this machine: Linux gives it the whole of 127.0.0.0/8.
pub fn connect_from(local: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(local, 0))?;
    rustix::net::connect(&socket, &address)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends these bytes on a new connection and returns everything that comes back until the server closes.
///
/// # Panics
/// When the server has not closed after [`PATIENCE`].
#[track_caller]
pub fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
    // A server may close before it has read everything; what it said before counts.
    let _ = stream.write_all(bytes);
    let deadline = Instant::now() + PATIENCE;
    let mut received = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let read =
            stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).and_then(|()| stream.read(&mut buffer));
        match read {
            Ok(0) => return received,
            Ok(count) if !left.is_zero() => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => panic!(
                "the server has not closed the connection after {PATIENCE:?}; it sent: {}",
                String::from_utf8_lossy(&received)
            ),
        }
    }
}

/// Reads one answer (RFC 9112 §6.3 for where its body ends), past any interim ones.
pub fn read_answer(reader: &mut impl BufRead, head_request: bool) -> io::Result<Answer> {
    let (status, headers) = loop {
        let (status, headers) = read_head(reader)?;
        if status == 101 || !(100..200).contains(&status) {
            break (status, headers);
        }
    };
    let mut body = Vec::new();
    if head_request || matches!(status, 101 | 204 | 304) {
        return Ok(Answer { status, headers, body });
    }
    match (headers.get("transfer-encoding"), headers.get("content-length")) {
        (Some(_), Some(_)) => return Err(invalid("both transfer-encoding and content-length")),
        (Some(coding), None) if coding == "chunked" => read_chunks(reader, &mut body)?,
        (Some(coding), None) => return Err(invalid(format!("transfer-encoding {coding:?}"))),
        (None, Some(_)) => {
            body.resize(content_length(&headers)?, 0);
            reader.read_exact(&mut body)?;
        }
        (None, None) => {
            reader.read_to_end(&mut body)?;
        }
    }
    Ok(Answer { status, headers, body })
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, HeaderMap)> {
    let line = read_line(reader)?;
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| line.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.split(' ').next())
        .filter(|code| code.len() == 3)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| invalid(format!("status line {line:?}")))?;
    let mut headers = HeaderMap::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok((status, headers));
        }
        let header = line.split_once(':').and_then(|(name, value)| {
            let value = HeaderValue::from_str(value.trim_matches([' ', '\t'])).ok()?;
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
        });
        let (name, value) = header.ok_or_else(|| invalid(format!("header line {line:?}")))?;
        headers.append(name, value);
    }
}

fn content_length(headers: &HeaderMap) -> io::Result<usize> {
    let mut values = headers.get_all("content-length").iter();
    values
        .next()
        .filter(|_| values.next().is_none())
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .ok_or_else(|| invalid("content-length"))
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(reader)?;
        let size = line.split(';').next().unwrap_or_default().trim_end();
        let size = usize::from_str_radix(size, 16).map_err(|_| invalid(format!("chunk size {line:?}")))?;
        if size == 0 {
            break;
        }
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..])?;
        if !read_line(reader)?.is_empty() {
            return Err(invalid("a chunk longer than its size"));
        }
    }
    while !read_line(reader)?.is_empty() {}
    Ok(())
}

/// A line without its CR LF.
fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        let part = String::from_utf8_lossy(&line);
        let message = format!("the server closed the connection within an answer, after {part:?}");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    let line = line.strip_suffix(b"\r\n").ok_or_else(|| invalid("a line without CR"))?;
    String::from_utf8(line.to_vec()).map_err(|_| invalid("a head that is not UTF-8"))
}

fn invalid(what: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not valid HTTP/1.1: {what}"))
}

/// The system's words for an expired timeout ("Resource temporarily unavailable") would mislead.
fn explain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}"))
        }
        _ => error,
    }
}
