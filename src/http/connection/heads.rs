//! What hyper does not show of an HTTP/1.1 connection: it refuses some heads itself with a bare status, removes the
//! fragment of a target, and treats a client that closes its side as gone.

use std::io::{self, BufRead, IoSlice};
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

/// A stream whose other end may close its side and still listen.
pub(crate) trait HalfOpen {
    /// Whether the other end has closed its side. False while there is something left to read.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>>;

    /// Whether the connection has been reset since then. Reading does not tell: it only says that there is no more.
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

/// A client that closes TLS has left: before TLS 1.3 there was no half-closing (RFC 8446 §6.1), and clients do not use
/// it. hyper handles that.
impl HalfOpen for Box<TlsStream<TcpStream>> {
    fn poll_end(&self, _: &mut Context<'_>) -> Poll<io::Result<bool>> {
        Poll::Pending
    }

    fn was_reset(&self) -> bool {
        false
    }
}

/// What is known of the last head.
#[derive(Default)]
pub(crate) struct Seen {
    fragment: AtomicBool,
    refused: AtomicBool,
    served: AtomicBool,
    knows_interim: AtomicBool,
}

/// An interim answer, which clients that have not asked for it ignore (RFC 9110 §15.2.1).
const ARE_YOU_THERE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How often we check whether the client's system has answered it with a reset.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Seen {
    /// Notes that a request is served.
    pub(crate) fn note(&self, version: Version) {
        self.served.store(true, Ordering::Relaxed);
        // Every HTTP/1.1 client must accept it (RFC 9110 §15.2).
        self.knows_interim.store(version == Version::HTTP_11, Ordering::Relaxed);
    }

    /// Whether any request has been served.
    pub(crate) fn served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Whether the target of the request had a fragment. Asked once for each request.
    pub(crate) fn took_fragment(&self) -> bool {
        // Only one task uses it; the task may move between threads.
        self.fragment.load(Ordering::Relaxed) && self.fragment.swap(false, Ordering::Relaxed)
    }

    /// Whether we have answered a head that hyper refused.
    pub(crate) fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The stream under hyper: it reads request lines along, and replaces hyper's own answers by ours.
///
/// A client that closes its side while it waits has either left or still listens; only its system knows. So it is sent
/// an interim answer that means nothing. If the client has left, its system resets the connection, which ends the
/// request's work.
pub(crate) struct Heads<'a, S, F> {
    inner: Socket<'a, S>,
    state: &'a ConnectionState,
    seen: &'a Seen,
    /// Makes the answer to a head that is refused with this status.
    refuse: F,
    line: Line,
    /// The unsent rest of such an answer.
    answer: Option<Bytes>,
    /// After the client has closed its side and was sent the interim answer: when to check again.
    asked: Option<Pin<Box<Sleep>>>,
}

impl<'a, S, F: Fn(StatusCode) -> Response> Heads<'a, S, F> {
    pub(crate) fn new(inner: Socket<'a, S>, state: &'a ConnectionState, seen: &'a Seen, refuse: F) -> Heads<'a, S, F> {
        Heads { inner, state, seen, refuse, line: Line::default(), answer: None, asked: None }
    }

    pub(crate) fn into_stream(self) -> S {
        self.inner.into_stream()
    }

    fn awaits_head(&self) -> bool {
        matches!(self.state.phase(), Phase::Head | Phase::Idle)
    }

    /// Whether these bytes are hyper's own answer: no request has been served, so there is nothing else to write.
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
    /// Fails if the client has left. Called when everything is written and an answer is awaited.
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
                    // It has not taken what came before either.
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

/// The bytes of an answer that ends the connection.
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

/// How much of a request line (RFC 9112 §3) has been read.
///
/// A line is expected where a read begins while a head is awaited. If several requests arrive together, only the first
/// line is read; bytes that are no request line (the middle of a pipelined head) are skipped.
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
    /// The line is complete and names a version that we do not speak.
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

    /// Whether the line is now complete and its target has a fragment.
    fn read_on(&mut self, bytes: &[u8]) -> bool {
        // Almost every line arrives whole and is valid.
        if *self == Line::default()
            && let Ok(length) = { bytes }.skip_until(b'\n')
            && bytes[..length].ends_with(b" HTTP/1.1\r\n")
            && !bytes[..length].contains(&b'#')
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
