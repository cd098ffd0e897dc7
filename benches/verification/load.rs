//! The load generator: one thread, many kept-alive connections, each with one request on its way at a time. It reads
//! and checks every answer, and does nothing else that costs time: a slow generator would flatter every ratio.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};

/// How long to wait for an answer before the run fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// When a connection sends its next request.
#[derive(Clone, Copy)]
pub enum Pace {
    /// As soon as it has its answer.
    AtOnce,
    /// So long after it has had its answer.
    After(Duration),
    /// Once in each such span, or as soon as it has an answer that came later. The wait for an answer counts from when it
    /// should have been asked: a stall must not hide what it held up.
    Every(Duration),
}

/// The requests of a run, one after the other.
pub struct Requests<'a> {
    /// The request; the bytes from `slot` on are those of the next key.
    bytes: Vec<u8>,
    slot: usize,
    keys: Option<&'a Keys>,
    next: usize,
}

/// Texts of one length, to be put into requests in turn.
pub struct Keys {
    pub bytes: Vec<u8>,
    pub length: usize,
}

impl Keys {
    pub fn count(&self) -> usize {
        self.bytes.len() / self.length
    }

    pub fn get(&self, index: usize) -> &[u8] {
        let start = index % self.count() * self.length;
        &self.bytes[start..start + self.length]
    }
}

impl Requests<'static> {
    /// The same request again and again.
    pub fn same(request: &str) -> Requests<'static> {
        Requests { bytes: request.into(), slot: 0, keys: None, next: 0 }
    }
}

impl<'a> Requests<'a> {
    /// A request for each of the keys in turn, starting with this one; `KEY` in the request stands for it.
    pub fn each(request: &str, keys: &'a Keys, first: usize) -> Requests<'a> {
        let slot = request.find("KEY").expect("the request has a place for a key");
        let bytes = request.replace("KEY", &"-".repeat(keys.length)).into();
        Requests { bytes, slot, keys: Some(keys), next: first }
    }

    fn next(&mut self) -> &[u8] {
        if let Some(keys) = self.keys {
            self.bytes[self.slot..self.slot + keys.length].copy_from_slice(keys.get(self.next));
            self.next += 1;
        }
        &self.bytes
    }

    /// The key that comes next.
    pub fn position(&self) -> usize {
        self.next
    }
}

/// What a run has seen.
#[derive(Default)]
pub struct Seen {
    pub elapsed: Duration,
    /// Of every answer, in ascending order.
    pub latencies: Vec<Duration>,
    pub statuses: BTreeMap<u16, usize>,
    /// Answers of 503 without `Retry-After`.
    pub without_retry_after: usize,
    /// What the generator itself used.
    pub cpu: Duration,
}

impl Seen {
    pub fn count(&self) -> usize {
        self.latencies.len()
    }

    pub fn per_second(&self) -> f64 {
        self.count() as f64 / self.elapsed.as_secs_f64()
    }

    pub fn percentile(&self, percent: f64) -> Duration {
        let index = (self.count() as f64 * percent / 100.0).ceil() as usize;
        self.latencies.get(index.saturating_sub(1)).copied().unwrap_or_default()
    }
}

pub fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

struct Connection {
    stream: TcpStream,
    asked: Instant,
    /// The beginning of an answer that has not come as a whole yet.
    partial: Vec<u8>,
}

/// Connections to one server.
pub struct Clients {
    poll: Poll,
    connections: Vec<Connection>,
}

impl Clients {
    pub fn connect(address: SocketAddr, count: usize) -> io::Result<Clients> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(count);
        for number in 0..count {
            let stream = std::net::TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            connections.push(Connection { stream, asked: Instant::now(), partial: Vec::new() });
        }
        Ok(Clients { poll, connections })
    }

    /// Sends requests for so long, as fast as answers come; every answer must have one of these statuses.
    pub fn run(&mut self, requests: &mut Requests<'_>, span: Duration, statuses: &[u16]) -> io::Result<Seen> {
        self.run_paced(requests, span, statuses, Pace::AtOnce)
    }

    pub fn run_paced(
        &mut self,
        requests: &mut Requests<'_>,
        span: Duration,
        statuses: &[u16],
        pace: Pace,
    ) -> io::Result<Seen> {
        let mut seen = Seen::default();
        let cpu = thread_cpu();
        let started = Instant::now();
        let mut expected = Expected::default();
        // Who is to ask when.
        let mut resting = BinaryHeap::new();
        let mut under_way = 0;
        let count = self.connections.len() as u32;
        for (number, connection) in self.connections.iter_mut().enumerate() {
            match pace {
                Pace::AtOnce => {
                    connection.ask(requests, started)?;
                    under_way += 1;
                }
                Pace::After(pause) | Pace::Every(pause) => {
                    resting.push(Reverse((started + pause * number as u32 / count, number)));
                }
            }
        }
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let now = Instant::now();
            while let Some(Reverse((at, number))) = resting.peek().copied() {
                if now.duration_since(started) >= span {
                    resting.clear();
                } else if at <= now {
                    resting.pop();
                    self.connections[number].ask(requests, at)?;
                    under_way += 1;
                } else {
                    break;
                }
            }
            if under_way == 0 && resting.is_empty() {
                break;
            }
            let patience = resting.peek().map_or(PATIENCE, |Reverse((at, _))| at.saturating_duration_since(now));
            self.poll.poll(&mut events, Some(patience))?;
            if events.is_empty() && resting.is_empty() && under_way > 0 {
                return Err(io::Error::other(format!("{under_way} requests had no answer within {PATIENCE:?}")));
            }
            for event in &events {
                let connection = &mut self.connections[event.token().0];
                let Some(answer) = connection.answer(&mut buffer, &mut expected)? else { continue };
                let now = Instant::now();
                seen.latencies.push(now - connection.asked);
                *seen.statuses.entry(answer.status).or_default() += 1;
                seen.without_retry_after += usize::from(answer.status == 503 && !answer.has_retry_after);
                if !statuses.contains(&answer.status) {
                    return Err(io::Error::other(format!("an answer has status {}", answer.status)));
                }
                under_way -= 1;
                if now.duration_since(started) < span {
                    let next = match pace {
                        Pace::AtOnce => {
                            connection.ask(requests, now)?;
                            under_way += 1;
                            continue;
                        }
                        Pace::After(pause) => now + pause,
                        Pace::Every(span) => connection.asked + span,
                    };
                    resting.push(Reverse((next, event.token().0)));
                }
            }
        }
        seen.elapsed = started.elapsed();
        seen.cpu = thread_cpu() - cpu;
        seen.latencies.sort_unstable();
        Ok(seen)
    }
}

struct Answer {
    status: u16,
    has_retry_after: bool,
}

/// The shape of the last answer. One of the same shape need not be searched for its end.
#[derive(Default)]
struct Expected {
    head: usize,
    whole: usize,
}

const END: &[u8] = b"\r\n\r\n";
const GOOD: &[u8] = b"HTTP/1.1 200 ";

impl Connection {
    /// `due`: when it was to be asked, now or before.
    fn ask(&mut self, requests: &mut Requests<'_>, due: Instant) -> io::Result<()> {
        let request = requests.next();
        self.asked = due;
        // A connection whose last answer has come has room for a small request.
        if self.stream.write(request)? != request.len() {
            return Err(io::Error::other("a request could not be written as a whole"));
        }
        Ok(())
    }

    /// `None`: it has not come as a whole yet. Events tell of new bytes only, so one read that leaves none is enough.
    fn answer(&mut self, buffer: &mut [u8], expected: &mut Expected) -> io::Result<Option<Answer>> {
        let count = match self.stream.read(buffer) {
            Ok(0) => return Err(io::Error::other("the server closed a connection")),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let read = &buffer[..count];
        if self.partial.is_empty()
            && count == expected.whole
            && read.starts_with(GOOD)
            && read[..expected.head].ends_with(END)
        {
            return Ok(Some(Answer { status: 200, has_retry_after: false }));
        }
        self.partial.extend_from_slice(read);
        let Some(head) = self.partial.windows(END.len()).position(|window| window == END) else { return Ok(None) };
        let head = head + END.len();
        let text = std::str::from_utf8(&self.partial[..head]).map_err(io::Error::other)?;
        let status = text.get(9..12).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status in {text:?}")))?;
        let header = |wanted: &str| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.trim())
        };
        let length: usize = header("content-length")
            .and_then(|length| length.parse().ok())
            .ok_or_else(|| io::Error::other(format!("no length in {text:?}")))?;
        let has_retry_after = header("retry-after").is_some();
        let whole = head + length;
        if self.partial.len() < whole {
            return Ok(None);
        }
        if self.partial.len() > whole {
            return Err(io::Error::other("more bytes than one answer has"));
        }
        if status == 200 {
            *expected = Expected { head, whole };
        }
        self.partial.clear();
        Ok(Some(Answer { status, has_retry_after }))
    }
}
