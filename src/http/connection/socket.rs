//! The socket of a connection: it reports to the connection's state what passes through it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::connection::state::{ConnectionState, LINGER_BYTES, Phase};

/// Bytes of an answer that are copied together.
const TOGETHER: usize = 2048;

/// The stream to the client; it reports to the connection's state what passes through it.
pub struct Socket<'a, S> {
    inner: S,
    state: &'a ConnectionState,
    /// The server stops: nobody lingers.
    stopping: &'a AtomicBool,
    discarded: usize,
    input: Input,
}

/// What has been read of requests, as far as it is needed to know whether there is more than what was answered. Beyond the
/// end of a request, hyper keeps it to itself.
struct Input {
    /// The last bytes.
    last: [u8; 4],
    /// Bytes behind the head of the request that is the last one; `None`: its end was not there yet.
    behind_head: Option<u64>,
}

/// Ends a head, and a body in chunks.
const END: [u8; 4] = *b"\r\n\r\n";

impl Input {
    fn take(&mut self, bytes: &[u8]) {
        let is_end = bytes.ends_with(&END);
        self.behind_head = match self.behind_head {
            Some(count) => Some(count + bytes.len() as u64),
            // Mostly there is a head and nothing else.
            None if is_end => Some(0),
            None => {
                let start = self.last.len() - 1;
                let seam: Vec<u8> = self.last[1..].iter().chain(&bytes[..bytes.len().min(start)]).copied().collect();
                let across = seam.windows(END.len()).position(|window| window == END).map(|place| place + 1);
                let within =
                    || bytes.windows(END.len()).position(|window| window == END).map(|place| place + END.len());
                across.or_else(within).map(|end| (bytes.len() - end) as u64)
            }
        };
        if let Some(last) = bytes.last_chunk() {
            self.last = *last;
        } else {
            self.last.rotate_left(bytes.len());
            let start = self.last.len() - bytes.len();
            self.last[start..].copy_from_slice(bytes);
        }
    }

    /// The request has been answered. Whether nothing came after it: of several that came together, whose bodies have a
    /// length, it cannot be told.
    fn is_used_up(&mut self, body_length: Option<u64>) -> bool {
        let behind_head = self.behind_head.take();
        self.last == END || behind_head.is_some_and(|behind| Some(behind) == body_length)
    }
}

impl<'a, S> Socket<'a, S> {
    pub fn new(stream: S, state: &'a ConnectionState, stopping: &'a AtomicBool) -> Socket<'a, S> {
        Socket { inner: stream, state, stopping, discarded: 0, input: Input { last: [0; 4], behind_head: None } }
    }

    pub fn stream(&self) -> &S {
        &self.inner
    }

    pub fn into_stream(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if outcome.is_ready() {
            self.input.take(&buffer.filled()[before..]);
            if self.state.is_idle() {
                self.state.enter(Phase::Head);
            }
        }
        outcome
    }
}

impl<S> Socket<'_, S> {
    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(taken)) = outcome
            && self.state.phase() == Phase::Answering
        {
            self.state.took(*taken);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.wrote(&outcome);
        outcome
    }

    /// hyper hands on head and body as they are. It would copy them together otherwise, and the copies of large answers
    /// would wait for clients who do not read.
    fn is_write_vectored(&self) -> bool {
        true
    }

    /// An answer is mostly small: cheaper to copy head and body together than to hand both to the system.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut together = [0; TOGETHER];
        let mut length = 0;
        for part in parts {
            let Some(place) = together.get_mut(length..length + part.len()) else {
                let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, parts);
                self.wrote(&outcome);
                return outcome;
            };
            place.copy_from_slice(part);
            length += part.len();
        }
        self.poll_write(cx, &together[..length])
    }

    /// hyper flushes when it has written all it had: in the answering phase, the whole answer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        if outcome.is_ready() && self.state.phase() == Phase::Answering {
            let body_length = self.state.body_length();
            // What else was read begins the next head.
            let nothing_else = self.input.is_used_up(body_length);
            self.state.enter(if nothing_else { Phase::Idle } else { Phase::Head });
        }
        outcome
    }

    /// Closes our side, then reads on until the client closes his. To close both at once while he is still sending
    /// would reset the connection, and he might never see the answer that says why (RFC 9112 §9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state.phase() != Phase::Lingering {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            self.state.enter(Phase::Lingering);
        }
        let mut discard = [0; 4096];
        while self.discarded < LINGER_BYTES && !self.stopping.load(Ordering::SeqCst) && !self.state.is_dismissed() {
            let mut buffer = ReadBuf::new(&mut discard);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
            match buffer.filled().len() {
                0 => break,
                read => self.discarded += read,
            }
        }
        Poll::Ready(Ok(()))
    }
}
