//! The socket of a connection: it reports to the connection's state what passes through it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::connection::state::{ConnectionState, LINGER_BYTES, Phase};

/// Up to so many bytes of an answer, head and body are copied together.
const TOGETHER: usize = 2048;

/// The stream to the client. It reports to the connection's state what passes through it.
pub(crate) struct Socket<'a, S> {
    inner: S,
    state: &'a ConnectionState,
    /// Set when the server stops: then closing does not wait for clients.
    stopping: &'a AtomicBool,
    discarded: usize,
    input: Input,
}

/// What has been read, as far as needed to tell whether bytes of a further request have arrived: hyper buffers those
/// and does not say so.
struct Input {
    /// The last bytes that were read.
    last: [u8; 4],
    /// How many bytes were read after the head of the current request. `None`: its end has not been seen.
    behind_head: Option<u64>,
}

/// The end of a head, and of a chunked body.
const END: [u8; 4] = *b"\r\n\r\n";

impl Input {
    fn take(&mut self, bytes: &[u8]) {
        let is_end = bytes.ends_with(&END);
        self.behind_head = match self.behind_head {
            Some(count) => Some(count + bytes.len() as u64),
            // Usually a read is exactly one head.
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

    /// Called when the request is answered: whether nothing has been read after it. It cannot be told if several
    /// requests with bodies of known length have arrived together.
    fn is_used_up(&mut self, body_length: Option<u64>) -> bool {
        let behind_head = self.behind_head.take();
        self.last == END || behind_head.is_some_and(|behind| Some(behind) == body_length)
    }
}

impl<'a, S> Socket<'a, S> {
    pub(crate) fn new(stream: S, state: &'a ConnectionState, stopping: &'a AtomicBool) -> Socket<'a, S> {
        Socket { inner: stream, state, stopping, discarded: 0, input: Input { last: [0; 4], behind_head: None } }
    }

    pub(crate) fn stream(&self) -> &S {
        &self.inner
    }

    pub(crate) fn into_stream(self) -> S {
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

    /// Makes hyper pass on head and body separately. Otherwise it would copy them together, and copies of large answers
    /// would wait in memory for slow clients.
    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Most answers are small: copying head and body together costs less than passing both to the system.
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

    /// hyper flushes once it has written all it has: in the phase of answering, that is the whole answer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        if outcome.is_ready() && self.state.phase() == Phase::Answering {
            let body_length = self.state.body_length();
            // Further bytes are the beginning of the next head.
            let nothing_else = self.input.is_used_up(body_length);
            self.state.enter(if nothing_else { Phase::Idle } else { Phase::Head });
        }
        outcome
    }

    /// Closes our side, then reads on until the client closes theirs. Closing both sides while the client still sends
    /// would reset the connection, and they might never see the answer that says why (RFC 9112 §9.6).
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
