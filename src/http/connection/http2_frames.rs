//! The stream under HTTP/2: finds where frames begin and end in what a client sends, and limits how slowly it may take
//! what is sent to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::http::connection::state::{ConnectionState, Phase, SendDeadline};
use crate::http::limits::Limits;

/// Finds the limits of frames in what a client sends (RFC 9113 §3.4, §4.1).
struct Frames {
    /// How many bytes are missing of the preface or of a frame's payload.
    rest: usize,
    head: [u8; 9],
    /// How much of the frame's head has been read.
    head_read: usize,
    /// The header block continues in another frame.
    goes_on: bool,
}

impl Frames {
    /// Where the bytes end. `fresh`: the frame or header block in which they end has begun among them.
    fn take(&mut self, mut bytes: &[u8]) -> Reached {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const CONTINUATION: u8 = 9;
        const END_HEADERS: u8 = 4;
        let mut fresh = self.is_between();
        while !bytes.is_empty() {
            if self.rest == 0 {
                let more = bytes.len().min(self.head.len() - self.head_read);
                self.head[self.head_read..self.head_read + more].copy_from_slice(&bytes[..more]);
                self.head_read += more;
                bytes = &bytes[more..];
                if self.head_read < self.head.len() {
                    break;
                }
                let [high, middle, low, kind, flags, ..] = self.head;
                self.rest = u32::from_be_bytes([0, high, middle, low]) as usize;
                if matches!(kind, HEADERS | CONTINUATION) {
                    self.goes_on = flags & END_HEADERS == 0;
                }
                // Each DATA frame gets the time of a new one: bodies have a limit of their own.
                fresh |= kind == DATA;
            }
            let more = bytes.len().min(self.rest);
            self.rest -= more;
            bytes = &bytes[more..];
            if self.rest == 0 {
                self.head_read = 0;
                fresh |= !self.goes_on;
            }
        }
        let is_data = self.head_read == self.head.len() && self.head[3] == DATA;
        if self.is_between() { Reached::End } else { Reached::Within { fresh, is_data } }
    }

    fn is_between(&self) -> bool {
        self.rest == 0 && self.head_read == 0 && !self.goes_on
    }
}

enum Reached {
    End,
    Within { fresh: bool, is_data: bool },
}

/// A stream that fails when the client takes too little of what is written. It reports to the connection's state when
/// frames begin.
pub(crate) struct PacedStream<'a, S> {
    inner: S,
    state: &'a ConnectionState,
    limits: &'a Limits,
    frames: Frames,
    /// Set while something waits for the client.
    waiting: Option<(SendDeadline, Pin<Box<Sleep>>)>,
}

impl<'a, S> PacedStream<'a, S> {
    pub(crate) fn new(inner: S, state: &'a ConnectionState, limits: &'a Limits) -> PacedStream<'a, S> {
        const PREFACE: usize = 24;
        let frames = Frames { rest: PREFACE, head: [0; 9], head_read: 0, goes_on: false };
        PacedStream { inner, state, limits, frames, waiting: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            return outcome;
        }
        let (patience, sleep) = self.waiting.get_or_insert_with(|| {
            let patience = SendDeadline::new(self.limits.unread_answer);
            (patience, Box::pin(tokio::time::sleep_until(patience.end().into())))
        });
        if sleep.deadline() != patience.end().into() {
            sleep.as_mut().reset(patience.end().into());
        }
        sleep.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, Phase::Answering.overdue())))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedStream<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buffer);
        match self.frames.take(&buffer.filled()[before..]) {
            Reached::End => self.state.expect_frame(None),
            Reached::Within { fresh: true, is_data } => {
                self.state.expect_frame(Some(if is_data { self.limits.body } else { self.limits.head }));
            }
            Reached::Within { fresh: false, .. } => {}
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedStream<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let (Poll::Ready(Ok(taken)), Some((patience, _))) = (&outcome, &mut self.waiting) {
            patience.took(*taken);
        }
        self.judge(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        if outcome.is_ready() {
            self.waiting = None;
        }
        self.judge(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
