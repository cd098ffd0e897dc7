//! HTTP/1.1 on a connection, read and written by hyper, one request after the other.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use log::debug;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::http::ambiguity::Fragment;
use crate::http::client_memory::{self, A_BODY, A_FIELD};
use crate::http::connection::heads::{HalfOpen, Heads, Seen};
use crate::http::connection::socket::Socket;
use crate::http::connection::state::{Alarm, Phase};
use crate::http::connection::table::ConnectionEntry;
use crate::http::exchange;
use crate::http::front::{Front, Purpose};

/// Serves until either side ends the connection, a time runs out, or the server stops. If the client turns out to speak
/// HTTP/2, gives back the stream and the bytes that were read.
pub(crate) async fn serve<S: HalfOpen + AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: SocketAddr,
    front: &Front,
    entry: &ConnectionEntry,
    purpose: Purpose,
    mut stop: watch::Receiver<bool>,
) -> Option<(S, Bytes)> {
    let state = &entry.state;
    state.enter(Phase::Head);
    let seen = &Seen::default();
    let refuse = |status| exchange::refuse(front, purpose, peer.ip(), status);
    let socket = Heads::new(Socket::new(stream, state, &front.stopping), state, seen, refuse);
    let socket = TokioIo::new(socket);
    let service = service_fn(async |request: hyper::Request<Incoming>| {
        state.enter(Phase::Busy);
        let (mut head, mut body) = request.into_parts();
        seen.note(head.version);
        if seen.took_fragment() {
            head.extensions.insert(Fragment);
        }
        state.expect_body(if body.is_end_stream() { None } else { body.size_hint().exact() });
        let size = size(&head, &body);
        let mut answer = pin!(exchange::answer(front, &entry.memory, purpose, peer.ip(), head, &mut body));
        // Only requests that have to wait are claimed.
        let mut claim = None;
        let response = std::future::poll_fn(|cx| {
            let response = answer.as_mut().poll(cx);
            if response.is_pending() && claim.is_none() {
                claim = Some(entry.memory.claim(size));
            }
            response
        })
        .await;
        drop(claim);
        let response = if client_memory::is_large(&response) { entry.memory.claim_answer(response) } else { response };
        state.enter(Phase::Answering);
        Ok::<_, std::convert::Infallible>(response.map(Whole))
    });
    let mut connection = http1::Builder::new()
        .max_buf_size(front.limits.head_bytes)
        .max_header_size(front.limits.head_bytes)
        .half_close(purpose != (Purpose::Api { tls: true }))
        .serve_connection(socket, service);
    let mut stopping = pin!(async move {
        // An error means that the server is gone, which is a stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    let mut alarm = Alarm::new(state);
    let mut listening = false;
    let mut told = false;

    let speaks_http_2 = std::future::poll_fn(|cx| {
        // Polled once, so that it wakes this task when the server stops. Polling takes a lock that all connections
        // share.
        if (!listening || front.stopping.load(Ordering::SeqCst)) && !told && stopping.as_mut().poll(cx).is_ready() {
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if !listening {
            listening = true;
            state.belongs_to(cx.waker());
        }
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            if let Err(error) = ended {
                if error.is_parse_version_h2() {
                    return Poll::Ready(!seen.served());
                }
                debug!("{peer}: {error}");
                // If the client has not taken an earlier answer yet, hyper's own answer is left as it is.
                if error.is_parse() && !seen.refused() {
                    refuse(head_status(&error));
                }
            }
            return Poll::Ready(false);
        }
        ready!(alarm.poll(cx, state));
        debug!("{peer}: cut, {}", state.overdue());
        if state.is_cut() {
            return Poll::Ready(false);
        }
        if purpose == (Purpose::Api { tls: true }) && state.phase() == Phase::Idle && !told {
            // TLS is closed with a message of its own (RFC 8446 §6.1).
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(false)
    })
    .await;
    speaks_http_2.then(|| {
        let parts = connection.into_parts();
        (parts.io.into_inner().into_stream(), parts.read_buf)
    })
}

/// The status of hyper's own answer.
fn head_status(error: &hyper::Error) -> StatusCode {
    if error.is_parse_too_large() { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE } else { StatusCode::BAD_REQUEST }
}

/// The memory that a request takes until it is known who sends it, in bytes.
fn size(head: &Parts, body: &Incoming) -> usize {
    let fields = head.headers.iter();
    let head: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + A_FIELD).sum();
    let most = A_BODY as u64;
    let body = if body.is_end_stream() { 0 } else { body.size_hint().upper().unwrap_or(most).min(most) };
    head + body as usize
}

/// A body that is complete in memory.
struct Whole(Bytes);

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
