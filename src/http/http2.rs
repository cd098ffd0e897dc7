//! HTTP/2 on a connection: h2 reads and writes its frames, each stream is a task that ends with the connection, and what
//! a client may have under way at once is bounded, in number, in time and in memory.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::HeaderValue;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use hyper::body::{Body, Frame, SizeHint};
use log::debug;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Sleep;

use super::connection::in_time;
use super::exchange::{self, Purpose};
use super::response::Response;
use super::server::Front;
use super::watch::{Alarm, LINGER, LINGER_BYTES, Phase, Socket, Watch};

/// Streams at once on a connection; RFC 9113 §6.5.2 advises against fewer.
const STREAMS: u32 = 100;
/// What a client may send before we have read it: on a stream, and on all of them.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// What is handed over of an answer before the client's socket has taken it.
const SEND_BUFFER: usize = 64 * 1024;
/// What the requests under way may hold, in bytes of memory: on a connection, on all of them, and on a connection when all
/// of them hold that much, so that nobody is kept out by others. What does not fit is refused, and may be sent again.
const HELD: usize = 2 * 1024 * 1024;
const HELD_BY_ALL: usize = 64 * 1024 * 1024;
const HELD_AT_LEAST: usize = 64 * 1024;
/// What a field of a head takes beside its text, and the most that is kept of a body before it is known who sends it.
const A_FIELD: usize = 128;
const A_BODY: usize = 16 * 1024;
/// How many more requests a client may take back than he waits for. Each has cost us its work (CVE-2023-44487).
const TAKEN_BACK: u32 = 100;

/// Serves it until either side ends it, a time runs out, or the server stops.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: SocketAddr,
    front: Arc<Front>,
    watched: &Watch,
    mut stop: watch::Receiver<bool>,
) {
    let limits = &front.limits;
    watched.enter(Phase::Head);
    let socket = Patient::new(Socket::new(stream, watched, &front.stopping), limits.unread_answer);
    // h2 bounds the rest by itself: CONTINUATION frames, resets before a stream is accepted, empty frames, and answers to
    // PING and SETTINGS, of which one is kept at a time.
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
        None => return debug!("{peer}: cut, {}", watched.phase().overdue()),
    };
    let mut stopping = pin!(async move {
        // An error is a server that is gone, which is a stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    let held = Arc::new(AtomicUsize::new(0));
    let mut streams = JoinSet::new();
    let mut taken_back = 0u32;
    let mut alarm = Alarm::new(watched);
    let mut listening = false;
    let mut told = false;

    std::future::poll_fn(|cx| {
        // Polled once, it wakes this task when the server stops; to poll it takes a lock that all connections share.
        if (!listening || front.stopping.load(Ordering::SeqCst)) && !told && stopping.as_mut().poll(cx).is_ready() {
            told = true;
            connection.graceful_shutdown();
            watched.enter(Phase::Busy);
        }
        if !listening {
            listening = true;
            watched.belongs_to(cx.waker());
        }
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    watched.enter(Phase::Busy);
                    match Holding::of(&request, &held, &front) {
                        Some(holding) => drop(streams.spawn(converse(holding, peer, request, respond))),
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
        if watched.phase() == Phase::Busy && !connection.has_streams() {
            watched.enter(if told { Phase::Leaving } else { Phase::Quiet });
        }
        let leaving = matches!(watched.phase(), Phase::Leaving | Phase::Lingering);
        let (why, reason) = if taken_back > TAKEN_BACK && !leaving {
            ("the client takes back what it asks for", Reason::ENHANCE_YOUR_CALM)
        } else if alarm.poll(cx, watched).is_ready() {
            (watched.phase().overdue(), Reason::NO_ERROR)
        } else {
            return Poll::Pending;
        };
        debug!("{peer}: cut, {why}");
        if leaving {
            return Poll::Ready(());
        }
        watched.enter(Phase::Leaving);
        connection.abrupt_shutdown(reason);
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What a request holds, given back when this is dropped.
struct Holding {
    bytes: usize,
    connection: Arc<AtomicUsize>,
    front: Arc<Front>,
}

impl Holding {
    /// `None`: there is no room for it.
    fn of(request: &http::Request<RecvStream>, connection: &Arc<AtomicUsize>, front: &Arc<Front>) -> Option<Holding> {
        let fields = request.headers().iter();
        let head: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + A_FIELD).sum();
        let has_body = !request.body().is_end_stream();
        let body = if has_body { announced(request).unwrap_or(A_BODY).min(A_BODY) } else { 0 };
        let bytes = head + body;
        let held = connection.load(Ordering::Relaxed);
        let is_short = front.held_by_streams.load(Ordering::Relaxed) + bytes > HELD_BY_ALL;
        if held > 0 && held + bytes > if is_short { HELD_AT_LEAST } else { HELD } {
            return None;
        }
        connection.fetch_add(bytes, Ordering::Relaxed);
        front.held_by_streams.fetch_add(bytes, Ordering::Relaxed);
        Some(Holding { bytes, connection: connection.clone(), front: front.clone() })
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.connection.fetch_sub(self.bytes, Ordering::Relaxed);
        self.front.held_by_streams.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The length that the request says its body has.
fn announced(request: &http::Request<RecvStream>) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
}

/// How a stream ended.
enum End {
    /// Its answer was sent, or could not be.
    Over,
    /// The client wanted no answer any more.
    TakenBack,
}

/// One request and its answer.
async fn converse(
    holding: Holding,
    peer: SocketAddr,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> End {
    let front = &*holding.front;
    let length = announced(&request).unwrap_or(0) as u64;
    let (head, stream) = request.into_parts();
    let mut body = Upload { stream, length };
    let response = tokio::select! {
        // First: a body that ends with it is no bad request.
        biased;
        _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => return End::TakenBack,
        response = exchange::answer(front, Purpose::Api { tls: true }, peer.ip(), head, &mut body) => response,
    };
    if let Err(error) = send(response, &mut respond, front.limits.unread_answer).await {
        debug!("{peer}: {error}");
    }
    body.discard().await;
    End::Over
}

/// Sends an answer at the pace at which the client takes it. One of which he takes nothing for so long is cut.
async fn send(response: Response, respond: &mut SendResponse<Bytes>, patience: Duration) -> Result<(), h2::Error> {
    let (mut head, mut body) = response.into_parts();
    // RFC 9113 §8.2.2: it means nothing here.
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
            match tokio::time::timeout(patience, more).await {
                Ok(Some(capacity)) => drop(capacity?),
                // The client has taken back the request.
                Ok(None) => return Ok(()),
                Err(_) => {
                    stream.send_reset(Reason::CANCEL);
                    return Ok(());
                }
            }
        }
        let part = body.split_to(stream.capacity().min(body.len()));
        stream.send_data(part, body.is_empty())?;
    }
    Ok(())
}

/// The body of a request.
struct Upload {
    stream: RecvStream,
    /// As it was announced, or 0. h2 refuses what is longer or shorter.
    length: u64,
}

impl Upload {
    /// Reads on for a while. To break off at once would be allowed (RFC 9113 §8.1), but there are clients who then take
    /// their answer for lost.
    async fn discard(&mut self) {
        let mut discarded = 0;
        let read = std::future::poll_fn(|cx| {
            while discarded < LINGER_BYTES {
                match ready!(Pin::new(&mut *self).poll_frame(cx)) {
                    Some(Ok(frame)) => discarded += frame.data_ref().map_or(0, Bytes::len),
                    Some(Err(_)) | None => break,
                }
            }
            Poll::Ready(())
        });
        let _ = tokio::time::timeout(LINGER, read).await;
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let data = ready!(self.stream.poll_data(cx));
        Poll::Ready(data.map(|data| {
            let data = data?;
            // Room for as much again.
            self.stream.flow_control().release_capacity(data.len())?;
            Ok(Frame::data(data))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.length);
        hint
    }
}

/// A stream that fails when the client takes nothing of what is written for so long.
struct Patient<S> {
    inner: S,
    limit: Duration,
    /// Set while the client takes nothing.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(inner: S, limit: Duration) -> Patient<S> {
        Patient { inner, limit, waiting: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.limit)));
        waiting.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, Phase::Answering.overdue())))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.judge(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
