//! HTTP/2 on a connection: h2 reads and writes the frames, and each stream is a task that ends with the connection.
//! What a client may have under way is bounded in number, time and memory.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use chrono::Utc;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::HeaderValue;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::request::Parts;
use log::debug;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::base::sharded::lock;
use crate::http::client_memory::{A_BODY, A_FIELD, Claim};
use crate::http::connection::http2_body::{Delivery, Inbox, StreamBody};
use crate::http::connection::http2_frames::PacedStream;
use crate::http::connection::socket::Socket;
use crate::http::connection::state::{Alarm, LINGER, Phase, SendDeadline};
use crate::http::connection::table::ConnectionEntry;
use crate::http::exchange;
use crate::http::front::{Front, Purpose, in_time};
use crate::http::response::Response;

/// The most streams at once on a connection; RFC 9113 §6.5.2 advises against fewer.
const STREAMS: u32 = 100;
/// How many bytes a client may send before we have read them: on one stream, and on all.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// How much of an answer h2 buffers before the socket has taken it.
const SEND_BUFFER: usize = 64 * 1024;
/// How many more requests a client may cancel than it waits for. Each cancelled one has cost us its work
/// (CVE-2023-44487).
const TAKEN_BACK: u32 = 100;

/// Serves until either side ends the connection, a time runs out, or the server stops.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: SocketAddr,
    front: Arc<Front>,
    entry: &Arc<ConnectionEntry>,
    purpose: Purpose,
    mut stop: watch::Receiver<bool>,
) {
    let state = &entry.state;
    let limits = &front.limits;
    state.enter(Phase::Head);
    let socket = PacedStream::new(Socket::new(stream, state, &front.stopping), state, limits);
    // h2 itself bounds CONTINUATION frames, resets of streams that are not accepted yet, empty frames, and its answers
    // to PING and SETTINGS, of which it keeps one at a time.
    let preface = Builder::new()
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake(socket);
    let mut connection = match in_time(limits.head, &mut stop, preface).await {
        Some(Ok(connection)) => connection,
        Some(Err(error)) => return debug!("{peer}: {error}"),
        None => return debug!("{peer}: cut, {}", state.overdue()),
    };
    let mut stopping = pin!(async move {
        // An error means that the server is gone, which is a stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    let mut streams = JoinSet::new();
    let mut deliveries: Vec<Delivery> = Vec::new();
    let mut taken_back = 0u32;
    let mut alarm = Alarm::new(state);
    let mut listening = false;
    let mut told = false;

    std::future::poll_fn(|cx| {
        // Polled once, so that it wakes this task when the server stops. Polling takes a lock that all connections
        // share.
        if (!listening || front.stopping.load(Ordering::SeqCst)) && !told && stopping.as_mut().poll(cx).is_ready() {
            told = true;
            connection.graceful_shutdown();
            state.enter(Phase::Busy);
        }
        if !listening {
            listening = true;
            state.belongs_to(cx.waker());
        }
        // Another client needs the slot: the requests under way are the last.
        if state.is_dismissed() && state.phase() == Phase::Busy && !told {
            told = true;
            connection.graceful_shutdown();
        }
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    state.enter(Phase::Busy);
                    match entry.memory.try_claim(size(&request)) {
                        Some(claim) => {
                            let request = open(request, &mut deliveries, entry, cx);
                            let front = front.clone();
                            streams.spawn(converse(front, entry.clone(), claim, purpose, peer, request, respond));
                        }
                        None => respond.send_reset(Reason::REFUSED_STREAM),
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    debug!("{peer}: {error}");
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        while let Poll::Ready(Some(end)) = streams.poll_join_next(cx) {
            taken_back = match end {
                Ok(End::TakenBack) => taken_back + 1,
                _ => taken_back.saturating_sub(1),
            };
        }
        deliveries.retain_mut(|delivery| delivery.deliver(cx).is_pending());
        if state.phase() == Phase::Busy && !connection.has_streams() {
            state.enter(if told { Phase::Leaving } else { Phase::Quiet });
        }
        let leaving = matches!(state.phase(), Phase::Leaving | Phase::Lingering);
        let (why, reason) = if taken_back > TAKEN_BACK && !leaving {
            ("the client takes back what it asks for", Reason::ENHANCE_YOUR_CALM)
        } else if alarm.poll(cx, state).is_ready() {
            (state.overdue(), Reason::NO_ERROR)
        } else {
            return Poll::Pending;
        };
        debug!("{peer}: cut, {why}");
        if leaving || state.is_cut() {
            return Poll::Ready(());
        }
        state.enter(Phase::Leaving);
        connection.abrupt_shutdown(reason);
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The memory that a request takes, in bytes.
fn size(request: &http::Request<RecvStream>) -> usize {
    let fields = request.headers().iter();
    let head: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + A_FIELD).sum();
    let has_body = !request.body().is_end_stream();
    head + if has_body { announced(request).unwrap_or(A_BODY).min(A_BODY) } else { 0 }
}

/// The length of the body that the request announces.
fn announced(request: &http::Request<RecvStream>) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
}

/// Splits a request into head and body, and registers the body for delivery if there is one.
fn open(
    request: http::Request<RecvStream>,
    deliveries: &mut Vec<Delivery>,
    entry: &Arc<ConnectionEntry>,
    cx: &mut Context<'_>,
) -> (Parts, StreamBody) {
    let length = announced(&request).unwrap_or(0) as u64;
    let (head, mut stream) = request.into_parts();
    let flow = stream.flow_control().clone();
    let inbox = Arc::new(Mutex::new(Inbox::default()));
    if stream.is_end_stream() {
        lock(&inbox).end = Some(Ok(()));
    } else {
        let mut delivery = Delivery { stream, inbox: inbox.clone(), memory: entry.memory.clone() };
        if delivery.deliver(cx).is_pending() {
            deliveries.push(delivery);
        }
    }
    (head, StreamBody { inbox, flow, length })
}

/// How a stream ended.
enum End {
    /// Its answer was sent, or could not be sent.
    Over,
    /// The client has cancelled the request.
    TakenBack,
}

/// One request and its answer.
async fn converse(
    front: Arc<Front>,
    entry: Arc<ConnectionEntry>,
    claim: Claim,
    purpose: Purpose,
    peer: SocketAddr,
    (head, mut body): (Parts, StreamBody),
    mut respond: SendResponse<Bytes>,
) -> End {
    let response = tokio::select! {
        // Checked first: a body that ends by the cancellation is no bad request.
        biased;
        _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => return End::TakenBack,
        response = exchange::answer(&front, &entry.memory, purpose, peer.ip(), head, &mut body) => response,
    };
    drop(claim);
    body.is_unwanted();
    let response = entry.memory.claim_answer(response);
    if let Err(error) = send(response, &mut respond, SendDeadline::new(front.limits.unread_answer)).await {
        debug!("{peer}: {error}");
    }
    let _ = tokio::time::timeout(LINGER, body.ends()).await;
    End::Over
}

/// Sends an answer as fast as the client takes it, unless that is too slow.
async fn send(
    response: Response,
    respond: &mut SendResponse<Bytes>,
    mut patience: SendDeadline,
) -> Result<(), h2::Error> {
    let (mut head, mut body) = response.into_parts();
    // RFC 9113 §8.2.2: it has no meaning in HTTP/2.
    head.headers.remove(CONNECTION);
    let now = Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    head.headers.extend(HeaderValue::try_from(now).ok().map(|now| (DATE, now)));
    if !body.is_empty() {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let mut stream = respond.send_response(http::Response::from_parts(head, ()), body.is_empty())?;
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        while stream.capacity() == 0 {
            let more = std::future::poll_fn(|cx| stream.poll_capacity(cx));
            match tokio::time::timeout_at(patience.end().into(), more).await {
                Ok(Some(capacity)) => drop(capacity?),
                // The client has cancelled the request.
                Ok(None) => return Ok(()),
                Err(_) => {
                    stream.send_reset(Reason::CANCEL);
                    return Ok(());
                }
            }
        }
        let part = body.split_to(stream.capacity().min(body.len()));
        patience.took(part.len());
        stream.send_data(part, body.is_empty())?;
    }
    Ok(())
}
