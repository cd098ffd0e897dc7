//! HTTP/2 on a connection: h2 reads and writes its frames, each stream is a task that ends with the connection, and what
//! a client may have under way at once is bounded, in number, in time and in memory.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use chrono::Utc;
use h2::server::{Builder, SendResponse};
use h2::{FlowControl, Reason, RecvStream};
use http::HeaderValue;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::request::Parts;
use hyper::body::{Body, Frame, SizeHint};
use log::debug;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Sleep;

use super::connection::in_time;
use super::exchange::{self, Purpose};
use super::held::{A_BODY, A_FIELD, Claim, Held};
use super::places::Seat;
use super::response::Response;
use super::server::Front;
use super::watch::{Alarm, LINGER, LINGER_BYTES, Patience, Phase, Socket, Watch};
use crate::base::sharded::lock;
use crate::http::limits::Limits;

/// Streams at once on a connection; RFC 9113 §6.5.2 advises against fewer.
const STREAMS: u32 = 100;
/// What a client may send before we have read it: on a stream, and on all of them.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// What is handed over of an answer before the client's socket has taken it.
const SEND_BUFFER: usize = 64 * 1024;
/// How many more requests a client may take back than he waits for. Each has cost us its work (CVE-2023-44487).
const TAKEN_BACK: u32 = 100;

/// Serves it until either side ends it, a time runs out, or the server stops.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: SocketAddr,
    front: Arc<Front>,
    seat: &Arc<Seat>,
    purpose: Purpose,
    mut stop: watch::Receiver<bool>,
) {
    let watched = &seat.watch;
    let limits = &front.limits;
    watched.enter(Phase::Head);
    let socket = Patient::new(Socket::new(stream, watched, &front.stopping), watched, limits);
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
        None => return debug!("{peer}: cut, {}", watched.overdue()),
    };
    let mut stopping = pin!(async move {
        // An error is a server that is gone, which is a stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    let mut streams = JoinSet::new();
    let mut uploads: Vec<Delivery> = Vec::new();
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
        // Somebody else needs the place: what is under way is the last.
        if watched.is_dismissed() && watched.phase() == Phase::Busy && !told {
            told = true;
            connection.graceful_shutdown();
        }
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    watched.enter(Phase::Busy);
                    match seat.held.try_claim(size(&request)) {
                        Some(claim) => {
                            let request = open(request, &mut uploads, seat, cx);
                            let front = front.clone();
                            streams.spawn(converse(front, seat.clone(), claim, purpose, peer, request, respond));
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
        uploads.retain_mut(|upload| upload.deliver(cx).is_pending());
        if watched.phase() == Phase::Busy && !connection.has_streams() {
            watched.enter(if told { Phase::Leaving } else { Phase::Quiet });
        }
        let leaving = matches!(watched.phase(), Phase::Leaving | Phase::Lingering);
        let (why, reason) = if taken_back > TAKEN_BACK && !leaving {
            ("the client takes back what it asks for", Reason::ENHANCE_YOUR_CALM)
        } else if alarm.poll(cx, watched).is_ready() {
            (watched.overdue(), Reason::NO_ERROR)
        } else {
            return Poll::Pending;
        };
        debug!("{peer}: cut, {why}");
        if leaving || watched.is_cut() {
            return Poll::Ready(());
        }
        watched.enter(Phase::Leaving);
        connection.abrupt_shutdown(reason);
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What a request takes, in bytes of memory.
fn size(request: &http::Request<RecvStream>) -> usize {
    let fields = request.headers().iter();
    let head: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + A_FIELD).sum();
    let has_body = !request.body().is_end_stream();
    head + if has_body { announced(request).unwrap_or(A_BODY).min(A_BODY) } else { 0 }
}

/// The length that the request says its body has.
fn announced(request: &http::Request<RecvStream>) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
}

/// Takes a request apart, and has the connection deliver its body if there is one.
fn open(
    request: http::Request<RecvStream>,
    uploads: &mut Vec<Delivery>,
    seat: &Arc<Seat>,
    cx: &mut Context<'_>,
) -> (Parts, Upload) {
    let length = announced(&request).unwrap_or(0) as u64;
    let (head, mut stream) = request.into_parts();
    let flow = stream.flow_control().clone();
    let inbox = Arc::new(Mutex::new(Inbox::default()));
    if stream.is_end_stream() {
        lock(&inbox).end = Some(Ok(()));
    } else {
        let mut delivery = Delivery { stream, inbox: inbox.clone(), held: seat.held.clone() };
        if delivery.deliver(cx).is_pending() {
            uploads.push(delivery);
        }
    }
    (head, Upload { inbox, flow, length })
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
    front: Arc<Front>,
    seat: Arc<Seat>,
    claim: Claim,
    purpose: Purpose,
    peer: SocketAddr,
    (head, mut body): (Parts, Upload),
    mut respond: SendResponse<Bytes>,
) -> End {
    let response = tokio::select! {
        // First: a body that ends with it is no bad request.
        biased;
        _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => return End::TakenBack,
        response = exchange::answer(&front, &seat.held, purpose, peer.ip(), head, &mut body) => response,
    };
    drop(claim);
    body.is_unwanted();
    let response = seat.held.claim_answer(response);
    if let Err(error) = send(response, &mut respond, Patience::new(front.limits.unread_answer)).await {
        debug!("{peer}: {error}");
    }
    let _ = tokio::time::timeout(LINGER, body.ends()).await;
    End::Over
}

/// Sends an answer at the pace at which the client takes it, as long as that is not too slow.
async fn send(response: Response, respond: &mut SendResponse<Bytes>, mut patience: Patience) -> Result<(), h2::Error> {
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
            match tokio::time::timeout_at(patience.end().into(), more).await {
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
        patience.took(part.len());
        stream.send_data(part, body.is_empty())?;
    }
    Ok(())
}

/// The body of a request, between the connection, which delivers it, and the stream's task, which reads it.
#[derive(Default)]
struct Inbox {
    parts: VecDeque<Bytes>,
    end: Option<Result<(), h2::Error>>,
    /// What is held of it beyond what the request's own claim is for.
    claim: Option<Claim>,
    /// Nobody reads it any more. It is thrown away for a while: to break off at once would be allowed (RFC 9113 §8.1), but
    /// there are clients who then take their answer for lost.
    unwanted: bool,
    discarded: usize,
    reader: Option<Waker>,
}

/// The end of a body at which it arrives. It is the connection's, which takes what has come before it looks for more: what
/// h2 keeps of a stream until somebody asks for it, trailers above all, is in no window and may be large.
struct Delivery {
    stream: RecvStream,
    inbox: Arc<Mutex<Inbox>>,
    held: Arc<Held>,
}

impl Delivery {
    /// Hands over what is there. Ready when the body has ended, or its reader has.
    fn deliver(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if Arc::strong_count(&self.inbox) == 1 {
            return Poll::Ready(());
        }
        loop {
            let data = match self.stream.poll_data(cx) {
                Poll::Ready(data) => data,
                Poll::Pending => return Poll::Pending,
            };
            let end = match data {
                Some(Ok(data)) => {
                    self.put(data);
                    continue;
                }
                Some(Err(error)) => Err(error),
                // Trailers mean nothing here.
                None => ready!(self.stream.poll_trailers(cx)).map(drop),
            };
            let mut inbox = lock(&self.inbox);
            inbox.end = Some(end);
            inbox.wake();
            return Poll::Ready(());
        }
    }

    fn put(&mut self, data: Bytes) {
        let mut inbox = lock(&self.inbox);
        if inbox.unwanted {
            inbox.discarded += data.len();
            if inbox.discarded <= LINGER_BYTES {
                let _ = self.stream.flow_control().release_capacity(data.len());
            }
        } else {
            inbox.parts.push_back(data);
            let more = inbox.parts.iter().map(Bytes::len).sum::<usize>().saturating_sub(A_BODY);
            if more > 0 {
                inbox.claim.get_or_insert_with(|| self.held.claim(0)).resize(more);
            }
        }
        inbox.wake();
    }
}

impl Inbox {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The end of a body at which it is read.
struct Upload {
    inbox: Arc<Mutex<Inbox>>,
    flow: FlowControl,
    /// As it was announced, or 0. h2 refuses what is longer or shorter.
    length: u64,
}

impl Upload {
    /// Has what is there, and what is still to come, thrown away.
    fn is_unwanted(&mut self) {
        let mut inbox = lock(&self.inbox);
        inbox.unwanted = true;
        inbox.claim = None;
        for part in std::mem::take(&mut inbox.parts) {
            let _ = self.flow.release_capacity(part.len());
        }
    }

    /// Returns when all has been thrown away, or as much as is worth it.
    async fn ends(&self) {
        std::future::poll_fn(|cx| {
            let mut inbox = lock(&self.inbox);
            if inbox.end.is_some() || inbox.discarded > LINGER_BYTES {
                return Poll::Ready(());
            }
            inbox.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let mut inbox = lock(&self.inbox);
        let Some(data) = inbox.parts.pop_front() else {
            if let Some(end) = &mut inbox.end {
                return Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err));
            }
            inbox.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        drop(inbox);
        // Room for as much again.
        let _ = self.flow.release_capacity(data.len());
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        let inbox = lock(&self.inbox);
        inbox.parts.is_empty() && matches!(inbox.end, Some(Ok(())))
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.length);
        hint
    }
}

/// Where the frames begin and end in what a client sends (RFC 9113 §3.4, §4.1).
struct Frames {
    /// What is still to come of the preface, or of a frame's payload.
    rest: usize,
    head: [u8; 9],
    /// How much of it is there.
    head_read: usize,
    /// Fields go on in another frame.
    goes_on: bool,
}

impl Frames {
    /// Where the bytes that were read end. `fresh`: what they end in has begun among them.
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
                // Whoever sends a body has the time for a body.
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

/// A stream that fails when the client takes too little of what is written, and tells the watch of frames that begin.
struct Patient<'a, S> {
    inner: S,
    watch: &'a Watch,
    limits: &'a Limits,
    frames: Frames,
    /// While something waits for the client.
    waiting: Option<(Patience, Pin<Box<Sleep>>)>,
}

impl<'a, S> Patient<'a, S> {
    fn new(inner: S, watch: &'a Watch, limits: &'a Limits) -> Patient<'a, S> {
        const PREFACE: usize = 24;
        let frames = Frames { rest: PREFACE, head: [0; 9], head_read: 0, goes_on: false };
        Patient { inner, watch, limits, frames, waiting: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            return outcome;
        }
        let (patience, sleep) = self.waiting.get_or_insert_with(|| {
            let patience = Patience::new(self.limits.unread_answer);
            (patience, Box::pin(tokio::time::sleep_until(patience.end().into())))
        });
        if sleep.deadline() != patience.end().into() {
            sleep.as_mut().reset(patience.end().into());
        }
        sleep.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, Phase::Answering.overdue())))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buffer);
        match self.frames.take(&buffer.filled()[before..]) {
            Reached::End => self.watch.expect_frame(None),
            Reached::Within { fresh: true, is_data } => {
                self.watch.expect_frame(Some(if is_data { self.limits.body } else { self.limits.head }));
            }
            Reached::Within { fresh: false, .. } => {}
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<'_, S> {
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
