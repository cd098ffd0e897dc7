//! One connection: hyper reads and writes HTTP/1.1 on it, this file keeps to the times that a client may take, refuses
//! what is ambiguous, and brings each request to its lane.

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Version};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use log::{debug, error, warn};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

use super::lanes::Lane;
use super::request::{self, Request};
use super::response::{self, Response};
use super::router::{Destination, Route};
use super::server::Front;
use super::watch::Socket;
use super::watch::{COARSENESS, Phase, Watch, coarse_now};
use crate::app::App;
use crate::cache::{Lookup, Subject};
use crate::error::Error;
use crate::guard::{Credentials, Verdict};
use crate::limit::{Limited, Quota};
use crate::logging::{self, Access};
use crate::principal::Principal;

/// Serves a connection until either side ends it, a time runs out, or the server stops.
pub async fn serve(stream: TcpStream, peer: SocketAddr, front: Arc<Front>, mut stop: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!("{peer}: {error}");
    }
    // Borrowed by the parts of the connection: counting references that all connections share is work for each request.
    let (front, watched) = (&*front, &Watch::new(&front.limits));
    let socket = Socket::new(stream, watched, &front.stopping);
    let service = service_fn(async |request: hyper::Request<Incoming>| {
        watched.enter(Phase::Busy);
        let response = answer(front, watched, peer.ip(), request).await;
        watched.enter(Phase::Answering);
        Ok::<_, std::convert::Infallible>(response.map(Whole))
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(front.limits.head_bytes)
            .max_header_size(front.limits.head_bytes)
            .serve_connection(socket, service)
    );
    let mut stopping = pin!(async move {
        // An error is a server that is gone, which is a stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    let mut alarm = pin!(tokio::time::sleep_until(watched.deadline().into()));
    let mut listening = false;
    let mut told = false;
    // When the alarm rings, by the coarse clock; `None`: it does not know yet whom to wake.
    let mut rings: Option<Duration> = None;

    std::future::poll_fn(|cx| {
        // Polled once, it wakes this task when the server stops; to poll it takes a lock that all connections share.
        if (!listening || front.stopping.load(Ordering::SeqCst)) && !told && stopping.as_mut().poll(cx).is_ready() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        listening = true;
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            if let Err(error) = ended {
                debug!("{peer}: {error}");
            }
            return Poll::Ready(());
        }
        // The alarm is moved only when it must ring earlier; when it rings early, it is set anew. So a request on
        // a busy connection costs no timer.
        let due = watched.due();
        if rings.is_some_and(|rings| rings <= due && coarse_now() + COARSENESS < rings) {
            return Poll::Pending;
        }
        alarm.as_mut().reset(watched.deadline().into());
        rings = Some(due);
        while alarm.as_mut().poll(cx).is_ready() {
            let deadline = watched.deadline();
            if deadline <= Instant::now() {
                debug!("{peer}: cut, {}", watched.phase().overdue());
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline.into());
            rings = Some(watched.due());
        }
        Poll::Pending
    })
    .await;
}

/// A body that is there as a whole.
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

/// From a request to its answer, whatever happens on the way, with its line in the access log.
async fn answer(front: &Front, watch: &Watch, peer: IpAddr, request: hyper::Request<Incoming>) -> Response {
    let started = Instant::now();
    let (mut head, body) = request.into_parts();
    let id = request::request_id(&head.headers).cloned().unwrap_or_else(logging::new_request_id);
    let id_text = id.to_str().unwrap_or_default();
    let path = head.uri.path();
    let client = front.app.proxies.client(peer, &head.headers);

    // What nobody has read yet of the request.
    let mut unread = (!body.is_end_stream()).then_some(body);
    let mut caller = Caller { principal: Principal::Anonymous, quota: None };
    let mut response = if let Some(why) = ambiguity(head.version, &head.headers) {
        response::ambiguous(why)
    } else {
        match front.router.find(&head.method, path) {
            Destination::Nowhere => response::no_such_route(&head.method, path),
            Destination::OtherMethods(allow) => response::method_not_allowed(&head.method, path, allow),
            Destination::Route(route, parameter) => {
                let parameter = parameter.to_string();
                let query = head.uri.query().map(str::to_string);
                let headers = std::mem::take(&mut head.headers);
                let request = Request {
                    id: id.clone(),
                    headers,
                    parameter,
                    query,
                    body: Ok(Bytes::new()),
                    principal: Principal::Anonymous,
                    client,
                };
                let outcome = run(front, watch, route, request, &mut unread, &mut caller).await;
                outcome.unwrap_or_else(|error| {
                    match &error {
                        Error::Internal(cause) => error!("{id_text}: {cause}"),
                        Error::Unavailable(cause) => warn!("{id_text}: {cause}"),
                        _ => {}
                    }
                    response::error(&error, id_text)
                })
            }
        }
    };
    if unread.is_some() {
        // hyper closes a connection with a body that nobody read. Unannounced, a client that keeps connections would
        // send its next request into the void (RFC 9112 §9.6).
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    logging::access(&Access {
        method: head.method.as_str(),
        path: head.uri.path(),
        status: response.status().as_u16(),
        started,
        request_id: id_text,
        client,
        principal: &caller.principal,
    });
    if let Some(quota) = &caller.quota {
        response::tell_quota(&mut response, quota);
    }
    response::finish(&mut response, id);
    response
}

/// Who asks, as far as is known yet.
struct Caller {
    principal: Principal,
    /// What is left of the limit of the key that was sent.
    quota: Option<Quota>,
}

/// Finds out who asks, reads the body, and runs the handler in the route's lane.
async fn run(
    front: &Front,
    watch: &Watch,
    route: &'static Route,
    mut request: Request,
    unread: &mut Option<Incoming>,
    caller: &mut Caller,
) -> Result<Response, Error> {
    if let Some(limit) = route.limit {
        front.app.address_limits.spend(limit, request.client)?;
    }
    let judged = route.takes_body().then(|| front.app.changes.now());
    let credentials = route.guard.read(&front.app, route.terms, &request.headers);
    request.principal = identify(front, watch, route, &request, credentials, &mut caller.quota).await?;
    if let (Some(judged), Some(body)) = (judged, unread.as_mut()) {
        request.body = read_body(body, route.body_bytes, front.limits.body).await;
        if request.body.is_ok() {
            *unread = None;
        }
        // A body may take its time, and the credential end meanwhile.
        if request.principal.ids().is_some_and(|ids| !front.app.changes.still_holds(judged, ids)) {
            let credentials = route.guard.read_again(&front.app, route.terms, &request.headers, &request.principal);
            request.principal = identify(front, watch, route, &request, credentials, &mut caller.quota).await?;
        }
    }
    let pool = match route.lane {
        Lane::Inline => {
            let response = route.call(&front.app, &mut request);
            caller.principal = request.principal;
            return response;
        }
        Lane::Store => &front.lanes.store,
        Lane::Password => &front.lanes.password,
    };
    caller.principal = request.principal.clone();
    let (sender, receiver) = oneshot::channel();
    let app = front.app.clone();
    let job = move || {
        // Whoever waited may be gone: the time ran out, or the client left.
        if !sender.is_closed() {
            let _ = sender.send(route.call(&app, &mut request));
        }
    };
    pool.submit(Box::new(job)).map_err(|_| Error::Unavailable(format!("the {:?} lane is full", route.lane)))?;
    in_time(watch, receiver, route.lane).await?
}

/// Who asks, from memory when it can, from the store when it must.
async fn identify(
    front: &Front,
    watch: &Watch,
    route: &Route,
    request: &Request,
    mut credentials: Credentials,
    quota: &mut Option<Quota>,
) -> Result<Principal, Error> {
    let App { known_keys, address_limits, .. } = &*front.app;
    let mut unasked = None;
    loop {
        let verdict = route.guard.judge(&front.app, route.terms, &mut credentials);
        *quota = credentials.quota.or(*quota);
        match verdict {
            Verdict::Admitted(principal) => {
                if credentials.key_failed() {
                    let _ = address_limits.spend(Limited::FailedKey, request.client);
                }
                return Ok(principal);
            }
            Verdict::Refused(error) => {
                if let Some(limited) = unasked {
                    return Err(limited);
                }
                if credentials.key_failed() {
                    address_limits.spend(Limited::FailedKey, request.client)?;
                }
                return Err(error);
            }
            Verdict::AskForKey(hash) => {
                // Of an address with too many bad keys, only keys that were good here before are looked up: it is not to
                // keep the store busy, and those who share it are not to suffer.
                unasked = address_limits.check(Limited::FailedKey, request.client).err();
                unasked = unasked.filter(|_| !known_keys.has_known(&hash));
                credentials.found_key(if unasked.is_some() { None } else { ask(watch, known_keys, hash).await? });
            }
            Verdict::AskForService(id) => {
                credentials.found_service(ask(watch, &front.app.service_keys, id).await?);
            }
            Verdict::AskForSession(id) => {
                credentials.found_session(ask(watch, &front.app.live_sessions, id).await?);
            }
        }
    }
}

async fn ask<K, V>(watch: &Watch, lookup: &Lookup<K, V>, key: K) -> Result<Option<Arc<V>>, Error>
where
    K: Copy + Eq + Hash + Send + Sync + 'static,
    V: Subject,
{
    let (sender, receiver) = oneshot::channel();
    lookup.ask(
        key,
        Box::new(move |found| {
            let _ = sender.send(found);
        }),
    );
    in_time(watch, receiver, Lane::Store).await?
}

/// The answer from another thread, if it comes within the limit. The connection's alarm wakes us when it does not.
async fn in_time<T>(watch: &Watch, mut receiver: oneshot::Receiver<T>, lane: Lane) -> Result<T, Error> {
    watch.enter(Phase::Waiting);
    let answer = std::future::poll_fn(|cx| match Pin::new(&mut receiver).poll(cx) {
        Poll::Ready(Ok(answer)) => Poll::Ready(Ok(answer)),
        Poll::Ready(Err(_)) => Poll::Ready(Err(Error::Internal(format!("the {lane:?} lane dropped a request")))),
        Poll::Pending if watch.deadline() <= Instant::now() => {
            Poll::Ready(Err(Error::Unavailable(format!("no answer in time from the {lane:?} lane"))))
        }
        Poll::Pending => Poll::Pending,
    });
    let answer = answer.await;
    watch.enter(Phase::Busy);
    answer
}

/// At most `most` bytes, within `limit`.
async fn read_body(body: &mut Incoming, most: usize, limit: Duration) -> Result<Bytes, Error> {
    if body.size_hint().lower() > most as u64 {
        return Err(Error::TooLarge(most));
    }
    let read = async {
        let mut whole = BytesMut::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| Error::Malformed(format!("Request body cannot be read: {error}")))?;
            // Trailers mean nothing here.
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > most {
                return Err(Error::TooLarge(most));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(limit, read).await.unwrap_or(Err(Error::TooSlow))
}

/// What two parties on the way could read differently (RFC 9112 §3.2, §6.3, §11.2), and hyper lets through.
fn ambiguity(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version >= Version::HTTP_11 => return Some("Host header is missing"),
        (Some(_), Some(_)) => return Some("Host header is repeated"),
        (Some(host), None) if !is_host(host) => return Some("Host header is invalid"),
        _ => {}
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Some("Transfer-Encoding must be chunked");
    }
    if headers.get_all(CONTENT_LENGTH).iter().any(|length| {
        let digits = length.as_bytes();
        digits.len() > 1 && digits[0] == b'0'
    }) {
        return Some("Content-Length is invalid");
    }
    None
}

fn is_host(host: &HeaderValue) -> bool {
    // RFC 9112 §3.2: empty where the target has no authority. Names and IPv4 addresses without a port, or with one, are
    // seen at a glance.
    let (name, port) = host.as_bytes().split_at(host.as_bytes().iter().position(|b| *b == b':').unwrap_or(host.len()));
    let is_plain = name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        && port.iter().skip(1).all(u8::is_ascii_digit);
    host.is_empty()
        || (is_plain && !name.is_empty())
        || http::uri::Authority::try_from(host.as_bytes()).is_ok_and(|authority| {
            // No user in it, and a port that is one: the URI parser takes anything.
            let port = authority.as_str().strip_prefix(authority.host());
            port.is_some_and(|port| port.strip_prefix(':').unwrap_or(port).bytes().all(|b| b.is_ascii_digit()))
        })
}
