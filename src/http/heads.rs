//! Heads as they come over the wire, where hyper says too little of them: it refuses some by itself, with a status and
//! nothing else, and cuts the fragment off a target.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use chrono::Utc;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::response::Response;
use super::watch::{Phase, Watch};

/// What is known of the head that was read last.
#[derive(Default)]
pub struct Seen {
    fragment: AtomicBool,
    refused: AtomicBool,
}

impl Seen {
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
pub struct Heads<'a, S, F> {
    inner: S,
    watch: &'a Watch,
    seen: &'a Seen,
    /// The answer to a head that gets this status.
    refuse: F,
    line: Line,
    /// What is left of such an answer.
    answer: Option<Bytes>,
}

impl<'a, S, F: Fn(StatusCode) -> Response> Heads<'a, S, F> {
    pub fn new(inner: S, watch: &'a Watch, seen: &'a Seen, refuse: F) -> Heads<'a, S, F> {
        Heads { inner, watch, seen, refuse, line: Line::default(), answer: None }
    }

    fn awaits_head(&self) -> bool {
        matches!(self.watch.phase(), Phase::Head | Phase::Idle)
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

impl<S: AsyncWrite + Unpin, F> Heads<'_, S, F> {
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
        let (phase, before) = (self.watch.phase(), buffer.filled().len());
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

impl<S: AsyncRead + AsyncWrite + Unpin, F: Fn(StatusCode) -> Response + Unpin> AsyncWrite for Heads<'_, S, F> {
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
