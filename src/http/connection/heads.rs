//! What hyper does not show of a connection with HTTP/1.1: it refuses some heads by itself, with a status and nothing else,
//! cuts the fragment off a target, and takes whoever closes their side for gone.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use std::time::Duration;

use bytes::{Buf, Bytes};
use chrono::Utc;
use http::{StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use crate::http::connection::socket::Socket;
use crate::http::connection::state::{ConnectionState, Phase};
use crate::http::response::Response;

/// A stream whose other end may close its side and go on listening.
pub trait HalfOpen {
    /// Whether nothing more will come; false while there is something to be read first.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>>;

    /// Whether it was reset since then: to read says nothing but that there is no more.
    fn was_reset(&self) -> bool;
}

impl HalfOpen for TcpStream {
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut byte = [0];
        self.poll_peek(cx, &mut ReadBuf::new(&mut byte)).map_ok(|count| count == 0)
    }

    fn was_reset(&self) -> bool {
        !matches!(self.take_error(), Ok(None))
    }
}

/// Whoever closes TLS has gone: before TLS 1.3 there was no other way (RFC 8446 §6.1), and nobody uses the new one. hyper
/// sees to it.
impl HalfOpen for Box<TlsStream<TcpStream>> {
    fn poll_end(&self, _: &mut Context<'_>) -> Poll<io::Result<bool>> {
        Poll::Pending
    }

    fn was_reset(&self) -> bool {
        false
    }
}

/// What is known of the head that was read last.
#[derive(Default)]
pub struct Seen {
    fragment: AtomicBool,
    refused: AtomicBool,
    served: AtomicBool,
    knows_interim: AtomicBool,
}

/// Means nothing to whoever has not asked for it (RFC 9110 §15.2.1).
const ARE_YOU_THERE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How often it is looked for the answer of a client's system to that.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Seen {
    /// A request is served.
    pub fn note(&self, version: Version) {
        self.served.store(true, Ordering::Relaxed);
        // As every client of HTTP/1.1 must (RFC 9110 §15.2).
        self.knows_interim.store(version == Version::HTTP_11, Ordering::Relaxed);
    }

    /// Whether any request has been served.
    pub fn served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Whether the target of the request had a fragment. Asked once for each.
    pub fn took_fragment(&self) -> bool {
        // One task has the connection; it may move between threads.
        self.fragment.load(Ordering::Relaxed) && self.fragment.swap(false, Ordering::Relaxed)
    }

    /// Whether a head was refused, with an answer of ours.
    pub fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

/// A stream to hyper that reads request lines along, and puts answers of ours in the place of hyper's own.
///
/// A client that has closed its side while it waits has gone, or waits on: only its system knows. So it is sent something
/// that means nothing. The system of one who has gone resets the connection then, which ends it, and the work with it.
pub struct Heads<'a, S, F> {
    inner: Socket<'a, S>,
    state: &'a ConnectionState,
    seen: &'a Seen,
    /// The answer to a head that gets this status.
    refuse: F,
    line: Line,
    /// What is left of such an answer.
    answer: Option<Bytes>,
    /// The client has closed its side, and was asked; until it is looked again.
    asked: Option<Pin<Box<Sleep>>>,
}

impl<'a, S, F: Fn(StatusCode) -> Response> Heads<'a, S, F> {
    pub fn new(inner: Socket<'a, S>, state: &'a ConnectionState, seen: &'a Seen, refuse: F) -> Heads<'a, S, F> {
        Heads { inner, state, seen, refuse, line: Line::default(), answer: None, asked: None }
    }

    pub fn into_stream(self) -> S {
        self.inner.into_stream()
    }

    fn awaits_head(&self) -> bool {
        matches!(self.state.phase(), Phase::Head | Phase::Idle)
    }

    /// Whether these are hyper's own words: without a request, there is nothing else to be written.
    fn is_refusal(&mut self, bytes: &[u8]) -> bool {
        if self.answer.is_some() {
            return true;
        }
        if !self.awaits_head() {
            return false;
        }
        let status = bytes.get(b"HTTP/1.1 ".len()..).and_then(|rest| StatusCode::from_bytes(rest.get(..3)?).ok());
        let Some(status) = status else { return false };
        let is_version = self.line == Line::Read { unspoken: true };
        let status = if is_version { StatusCode::HTTP_VERSION_NOT_SUPPORTED } else { status };
        self.answer = Some(written(&(self.refuse)(status)));
        self.seen.refused.store(true, Ordering::Relaxed);
        true
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, F> Heads<'_, S, F> {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(answer) = self.answer.as_mut().filter(|answer| answer.has_remaining()) {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, answer))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => answer.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: HalfOpen + AsyncRead + AsyncWrite + Unpin, F> Heads<'_, S, F> {
    /// Fails when the client has gone. Called when everything of hyper's has been written, and an answer is awaited.
    fn look_after(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(asked) = &mut self.asked else {
            let has_ended = match self.inner.stream().poll_end(cx) {
                Poll::Ready(has_ended) => has_ended?,
                Poll::Pending => false,
            };
            if has_ended && self.seen.knows_interim.load(Ordering::Relaxed) {
                if let Poll::Ready(written) = Pin::new(&mut self.inner).poll_write(cx, ARE_YOU_THERE)
                    && written? < ARE_YOU_THERE.len()
                {
                    // It took nothing of what came before either.
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.asked = Some(Box::pin(tokio::time::sleep(LOOK_EVERY)));
                return self.look_after(cx);
            }
            return Ok(());
        };
        while asked.as_mut().poll(cx).is_ready() {
            if self.inner.stream().was_reset() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            asked.as_mut().reset(tokio::time::Instant::now() + LOOK_EVERY);
        }
        Ok(())
    }
}

/// The whole of an answer after which the connection ends.
fn written(response: &Response) -> Bytes {
    let date = Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
    let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(format!("content-length: {}\r\ndate: {date}\r\n\r\n", response.body().len()).as_bytes());
    bytes.extend_from_slice(response.body());
    bytes.into()
}

impl<S: AsyncRead + Unpin, F: Fn(StatusCode) -> Response + Unpin> AsyncRead for Heads<'_, S, F> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (phase, before) = (self.state.phase(), buffer.filled().len());
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if outcome.is_ready() && matches!(phase, Phase::Head | Phase::Idle) {
            if phase == Phase::Idle {
                self.line = Line::default();
            }
            if self.line.read_on(&buffer.filled()[before..]) {
                self.seen.fragment.store(true, Ordering::Relaxed);
            }
        }
        outcome
    }
}

impl<S: HalfOpen + AsyncRead + AsyncWrite + Unpin, F: Fn(StatusCode) -> Response + Unpin> AsyncWrite
    for Heads<'_, S, F>
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_refusal(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if parts.first().is_some_and(|part| self.is_refusal(part)) {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        if self.state.phase() == Phase::Busy {
            self.look_after(cx)?;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// How far a request line (RFC 9112 §3) has been read.
///
/// It is looked for where a read begins while a head is awaited. Of requests that were sent together it is the first, and
/// what is none is passed over: the middle of a head that came with the request before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Method {
        empty: bool,
    },
    Target {
        fragment: bool,
    },
    Version {
        fragment: bool,
        text: [u8; 8],
        length: usize,
    },
    /// To its end; it names a version that is not spoken.
    Read {
        unspoken: bool,
    },
}

impl Default for Line {
    fn default() -> Line {
        Line::Method { empty: true }
    }
}

impl Line {
    const PASSED_OVER: Line = Line::Read { unspoken: false };

    /// Whether it is complete now, and its target has a fragment.
    fn read_on(&mut self, bytes: &[u8]) -> bool {
        // Nearly every one comes whole, and is as it should be.
        if *self == Line::default()
            && let Some(end) = bytes.iter().position(|byte| *byte == b'\n')
            && bytes[..end].ends_with(b" HTTP/1.1\r")
            && !bytes[..end].contains(&b'#')
        {
            *self = Line::PASSED_OVER;
            return false;
        }
        for &byte in bytes {
            *self = match (*self, byte) {
                (Line::Read { .. }, _) => return false,
                (Line::Method { empty: true }, b'\r' | b'\n') => *self,
                (Line::Method { .. }, b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_') => Line::Method { empty: false },
                (Line::Method { empty: false }, b' ') => Line::Target { fragment: false },
                (Line::Target { fragment }, b' ') => Line::Version { fragment, text: [0; 8], length: 0 },
                (Line::Target { fragment }, byte) if byte > b' ' => Line::Target { fragment: fragment || byte == b'#' },
                (Line::Version { .. }, b'\r') => *self,
                (Line::Version { fragment, text, length: 8 }, b'\n') => {
                    let spoken = matches!(&text, b"HTTP/1.0" | b"HTTP/1.1");
                    let is_one = matches!(text, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']);
                    *self = Line::Read { unspoken: is_one && !spoken };
                    return spoken && fragment;
                }
                (Line::Version { fragment, mut text, length: length @ 0..8 }, byte) if byte > b' ' => {
                    text[length] = byte;
                    Line::Version { fragment, text, length: length + 1 }
                }
                _ => Line::PASSED_OVER,
            };
        }
        false
    }
}
