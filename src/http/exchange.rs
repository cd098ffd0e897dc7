//! A request's way to its answer: ambiguous ones are refused, the guard finds out who asks, and the handler runs in its
//! lane.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, COOKIE, HOST};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method, StatusCode};
use hyper::body::Body;
use log::{error, warn};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::accounts::limits::Limited;
use crate::app::App;
use crate::base::deadline;
use crate::base::error::Error;
use crate::base::network::client_network;
use crate::base::pool::Owner;
use crate::guard::credentials::Credentials;
use crate::guard::judge::Decision;
use crate::guard::principal::Principal;
use crate::guard::requirements::{GatewayDemand, Guard, Requirements};
use crate::http::access_log::{self, Access};
use crate::http::ambiguity::ambiguity;
use crate::http::client_memory::{Claim, ClientMemory};
use crate::http::form;
use crate::http::front::{Front, Purpose};
use crate::http::lanes::Lane;
use crate::http::request::{self, Request};
use crate::http::request_body::{RequestBody, read_body, receive};
use crate::http::response::{self, Response};
use crate::http::route::Route;
use crate::http::router::Destination;
use crate::memory::limiter::Quota;
use crate::memory::lookup::{Cacheable, Lookup};

/// The most fields of a head, as in hyper for HTTP/1.1. Cookies are not counted: over HTTP/2, browsers send each in a
/// field of its own (RFC 9113 §8.2.3), and we read none.
const FIELDS: usize = 100;

/// Answers a request, whatever happens on the way, and writes its line in the access log. What it does not need of the
/// body is left in `body`.
pub(crate) async fn answer(
    front: &Front,
    memory: &Arc<ClientMemory>,
    purpose: Purpose,
    peer: IpAddr,
    mut head: Parts,
    body: &mut impl RequestBody,
) -> Response {
    let started = Instant::now();
    let id = request::request_id(&head.headers).cloned().unwrap_or_else(access_log::new_request_id);
    let id_text = id.to_str().unwrap_or_default();
    let path = head.uri.path();
    let client = front.proxies.client(peer, &head.headers);
    let origin = front.cors.origin(&head.headers);

    // The part of the request that has not been read.
    let mut unread = (!body.is_end_stream()).then_some(body);
    let mut line = Line {
        method: &head.method,
        path,
        started,
        request_id: id_text,
        client,
        requester: Requester { principal: Principal::Anonymous, quota: None },
        status: None,
    };
    let mut response = if let Some(turned_away) = turn_away(front, purpose, &head) {
        turned_away
    } else {
        match front.router.find(&head.method, path) {
            Destination::Nowhere => response::no_such_route(&head.method, path),
            Destination::Tunnel => response::no_tunnel(),
            Destination::Options(allow) => {
                let mut response = response::options(allow);
                let address_header = &front.proxies.header;
                front.cors.preflight(origin.as_ref(), &head.headers, address_header, allow, &mut response);
                response
            }
            Destination::OtherMethods(allow) => response::method_not_allowed(&head.method, path, allow),
            Destination::Route(route, values) => {
                let parameters = values.named(route);
                let query = head.uri.query().map(str::to_string);
                let headers = std::mem::take(&mut head.headers);
                let request = Request {
                    id: id.clone(),
                    headers,
                    parameters,
                    query,
                    body: Ok(Bytes::new()),
                    principal: Principal::Anonymous,
                    client,
                };
                let outcome = run(front, memory, route, request, &mut unread, &mut line.requester).await;
                outcome.unwrap_or_else(|error| {
                    match &error {
                        Error::Internal(cause) => error!("{id_text}: {cause}"),
                        Error::Unavailable(cause) => warn!("{id_text}: {cause}"),
                        _ => {}
                    }
                    response::error(&error, route.too_many, id_text)
                })
            }
        }
    };
    if unread.is_some() {
        // hyper closes a connection after a body that was not read. A client must be told, or it would send its next
        // request to a closed connection (RFC 9112 §9.6).
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(quota) = &line.requester.quota {
        response::tell_quota(&mut response, quota);
    }
    line.status = Some(response.status());
    drop(line);
    response::finish(&mut response, id);
    front.cors.finish(origin, &mut response);
    if purpose == (Purpose::Api { tls: true }) {
        response::insist_on_tls(&mut response);
    }
    if head.method == Method::HEAD {
        response::drop_body(&mut response);
    }
    response
}

/// A request's line in the access log. It is written on drop, so clients who leave before their answer have a line too.
struct Line<'a> {
    method: &'a Method,
    path: &'a str,
    started: Instant,
    request_id: &'a str,
    client: IpAddr,
    requester: Requester,
    status: Option<StatusCode>,
}

/// The status that nginx logs for clients who have left.
const CLIENT_GONE: u16 = 499;

impl Drop for Line<'_> {
    fn drop(&mut self) {
        access_log::access(&Access {
            method: self.method.as_str(),
            path: self.path,
            status: self.status.map_or(CLIENT_GONE, |status| status.as_u16()),
            started: self.started,
            request_id: self.request_id,
            client: self.client,
            principal: &self.requester.principal,
        });
    }
}

/// Answers a head that could not be read, and writes its line in the access log.
pub(crate) fn refuse(front: &Front, purpose: Purpose, peer: IpAddr, status: StatusCode) -> Response {
    let id = access_log::new_request_id();
    let mut response = response::refused(status, front.limits.head_bytes, FIELDS);
    access_log::access(&Access {
        method: "-",
        path: "-",
        status: status.as_u16(),
        started: Instant::now(),
        request_id: id.to_str().unwrap_or_default(),
        client: peer.to_canonical(),
        principal: &Principal::Anonymous,
    });
    response::finish(&mut response, id);
    if purpose == (Purpose::Api { tls: true }) {
        response::insist_on_tls(&mut response);
    }
    response
}

/// The answer to a request that is refused before a route is looked up.
fn turn_away(front: &Front, purpose: Purpose, head: &Parts) -> Option<Response> {
    let cookies = || head.headers.get_all(COOKIE).iter().count();
    if head.headers.len() > FIELDS && head.headers.len() - cookies() > FIELDS {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Some(response::refused(status, front.limits.head_bytes, FIELDS));
    }
    if let Some(why) = ambiguity(purpose, head) {
        return Some(response::ambiguous(why));
    }
    match purpose {
        Purpose::Api { .. } => None,
        Purpose::Redirect { to } => Some(match address_on(to, head) {
            Some(address) => response::moved(address),
            None => response::ambiguous("Host header is missing or empty"),
        }),
        Purpose::WrongScheme => Some(response::ambiguous("This port speaks HTTPS")),
    }
}

/// The URL of the request's target on the same host's HTTPS port.
fn address_on(port: u16, head: &Parts) -> Option<HeaderValue> {
    // RFC 9112 §3.2.2: a host in the target wins over the header.
    let host = match head.uri.authority() {
        Some(authority) => authority.clone(),
        None => Authority::try_from(head.headers.get(HOST)?.as_bytes()).ok()?,
    };
    if host.host().is_empty() {
        return None;
    }
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let path = head.uri.path_and_query().map(PathAndQuery::as_str).filter(|path| path.starts_with('/'));
    HeaderValue::try_from(format!("https://{}{port}{}", host.host(), path.unwrap_or("/"))).ok()
}

/// What is known of the requester so far.
struct Requester {
    principal: Principal,
    /// What is left of the limit of the presented key.
    quota: Option<Quota>,
}

/// Finds out who asks, reads the body, and runs the handler in the route's lane.
async fn run(
    front: &Front,
    memory: &Arc<ClientMemory>,
    route: &'static Route,
    mut request: Request,
    unread: &mut Option<&mut impl RequestBody>,
    requester: &mut Requester,
) -> Result<Response, Error> {
    if let Some(limit) = route.limit {
        front.app.address_limits.spend(limit, request.client)?;
    }
    let narrowed = route.demand.map(|read| read(&request)).transpose()?;
    let (guard, requirements) = match &narrowed {
        Some(GatewayDemand { guard, scopes }) => (*guard, Requirements { scopes, ..route.requirements }),
        None => (route.guard, route.requirements),
    };
    // A gateway's request is judged without its body. Reading it keeps the connection usable.
    if let (None, Some(body)) = (&route.method, unread.as_mut())
        && Box::pin(receive(body, route.body_bytes, front.limits.body, |_| Ok(()))).await.is_ok()
    {
        *unread = None;
    }
    let mut claim = None;
    // OAuth's clients may send their key in the form.
    if requirements.oauth {
        claim = Box::pin(take_body(front, memory, route, &mut request, unread)).await;
    }
    let judged = (route.takes_body() && !requirements.oauth).then(|| front.app.changes.now());
    let mut credentials = guard.read(&front.app, requirements, &request.headers, request.client);
    if requirements.oauth
        && let Some(secret) = form::client_secret(&request)
    {
        credentials.add_client_secret(&secret);
    }
    request.principal = identify(front, guard, requirements, &request, credentials, &mut requester.quota).await?;
    if let (Some(write), Some(user)) = (route.writes, request.principal.account()) {
        front.app.writes.spend(write, user)?;
    }
    if let Some(judged) = judged.filter(|_| unread.is_some()) {
        claim = Box::pin(take_body(front, memory, route, &mut request, unread)).await;
        // While the body arrived, the credential may have been revoked.
        if request.principal.ids().is_some_and(|ids| !front.app.changes.still_holds(judged, ids)) {
            let Request { headers, client, principal, .. } = &request;
            let credentials = guard.read_again(&front.app, requirements, headers, *client, principal);
            let again = identify(front, guard, requirements, &request, credentials, &mut requester.quota);
            request.principal = Box::pin(again).await?;
        }
    }
    if route.lane == Lane::Inline {
        let response = route.call(&front.app, &mut request);
        requester.principal = request.principal;
        return response;
    }
    requester.principal = request.principal.clone();
    Box::pin(in_lane(front, memory, route, request, claim)).await
}

/// Reads the body. The claim is for memory beyond what the request's own claim covers.
async fn take_body(
    front: &Front,
    memory: &Arc<ClientMemory>,
    route: &Route,
    request: &mut Request,
    unread: &mut Option<&mut impl RequestBody>,
) -> Option<Claim> {
    let body = unread.as_mut()?;
    let mut claim = None;
    let read = read_body(memory, body, route.body_bytes, front.limits.body).await;
    request.body = read.map(|(body, more)| {
        claim = more;
        body
    });
    if request.body.is_ok() {
        *unread = None;
    }
    claim
}

// The state of whatever waits is boxed, so that requests answered from memory do not move it around.

/// Runs the handler on a thread of its lane.
async fn in_lane(
    front: &Front,
    memory: &Arc<ClientMemory>,
    route: &'static Route,
    mut request: Request,
    claim: Option<Claim>,
) -> Result<Response, Error> {
    let pool = if route.lane == Lane::Password { &front.lanes.password } else { &front.lanes.store };
    let owner = request.principal.account().map_or(Owner::Client(client_network(request.client)), Owner::User);
    let until = Instant::now() + front.limits.handler;
    // A client who does not read their answers gets no further large ones.
    let _turn = match route.lane {
        Lane::Store => Some(timeout_at(until.into(), memory.turn()).await.map_err(|_| {
            Error::Unavailable("the client does not take the answers that are there already".to_string())
        })?),
        _ => None,
    };
    let (sender, receiver) = oneshot::channel();
    let (app, memory) = (front.app.clone(), memory.clone());
    let job = move || {
        // The body stays in memory as long as the job does, even if nobody waits for the answer.
        let _claim = claim;
        // Nobody may be waiting any more: the time ran out, or the client left.
        if !sender.is_closed() {
            let mut call = || deadline::keep(until, || route.call(&app, &mut request));
            let _ = sender.send(if route.large { memory.make_large(until, call) } else { call() });
        }
    };
    pool.submit(Some(owner), Box::new(job))
        .map_err(|_| Error::Unavailable(format!("the {:?} lane is full for {owner:?}", route.lane)))?;
    in_time(until, receiver, route.lane).await?
}

/// Finds out who asks: from memory if possible, else from the store.
async fn identify(
    front: &Front,
    guard: Guard,
    requirements: Requirements<'_>,
    request: &Request,
    mut credentials: Credentials,
    quota: &mut Option<Quota>,
) -> Result<Principal, Error> {
    let App { known_keys, address_limits, .. } = &*front.app;
    let (mut unasked, mut was_looked_up) = (None, false);
    loop {
        let verdict = guard.judge(&front.app, requirements, &mut credentials);
        *quota = credentials.quota.or(*quota);
        match verdict {
            Decision::Admit(principal) => {
                if credentials.key_failed() {
                    let _ = address_limits.spend_on_key(was_looked_up, request.client);
                }
                return Ok(principal);
            }
            Decision::Refuse(error) => {
                if let Some(limited) = unasked {
                    return Err(limited);
                }
                if credentials.key_failed() {
                    address_limits.spend_on_key(was_looked_up, request.client)?;
                }
                return Err(error);
            }
            Decision::AskForKey(hash) => {
                // An address that has had too many unknown keys looked up gets no further look-ups, so that it cannot
                // keep the store busy. Keys that are remembered are still answered, so others behind the same address
                // are not locked out. Repeating one bad key causes no look-up and so locks nobody out.
                unasked = address_limits.check(Limited::FailedLookup, request.client).err();
                unasked = unasked.filter(|_| !known_keys.has_known(&hash));
                was_looked_up = unasked.is_none();
                credentials.found_key(if unasked.is_some() {
                    None
                } else {
                    Box::pin(ask(front, known_keys, hash)).await?
                });
            }
            Decision::AskForService(id) => {
                credentials.found_service(Box::pin(ask(front, &front.app.service_keys, id)).await?);
            }
            Decision::AskForSession(id) => {
                credentials.found_session(Box::pin(ask(front, &front.app.live_sessions, id)).await?);
            }
        }
    }
}

async fn ask<K, V>(front: &Front, lookup: &Lookup<K, V>, key: K) -> Result<Option<Arc<V>>, Error>
where
    K: Copy + Eq + Hash + Send + Sync + 'static,
    V: Cacheable,
{
    let (sender, receiver) = oneshot::channel();
    lookup.ask(
        key,
        Box::new(move |found| {
            let _ = sender.send(found);
        }),
    );
    in_time(Instant::now() + front.limits.handler, receiver, Lane::Store).await?
}

/// The answer from another thread, if it comes before the deadline.
async fn in_time<T>(until: Instant, receiver: oneshot::Receiver<T>, lane: Lane) -> Result<T, Error> {
    match timeout_at(until.into(), receiver).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Error::Internal(format!("the {lane:?} lane dropped a request"))),
        Err(_) => Err(Error::Unavailable(format!("no answer in time from the {lane:?} lane"))),
    }
}
