//! A route: which requests it takes, which credential they need, and where its handler runs. Routes are declared in groups
//! that share a prefix and a guard.

use std::panic::{AssertUnwindSafe, catch_unwind};

use http::{Method, StatusCode};

use crate::accounts::limits::{Limited, Write};
use crate::app::App;
use crate::base::error::Error;
use crate::guard::requirements::{GatewayDemand, Guard, Requirements};
use crate::http::lanes::Lane;
use crate::http::request::Request;
use crate::http::response::Response;
use crate::keys::scopes::Scopes;

pub(crate) type Handler = fn(&App, &mut Request) -> Result<Response, Error>;
pub(crate) type ReadDemand = fn(&Request) -> Result<GatewayDemand, Error>;

/// One line of the API. A segment of the path that begins with `:` is a parameter and takes any one segment. The last one
/// may be `*`, which takes the rest of the path, also an empty one.
#[derive(Clone)]
pub struct Route {
    /// `None`: any method.
    pub method: Option<Method>,
    pub path: &'static str,
    pub guard: Guard,
    pub lane: Lane,
    pub handler: Handler,
    /// The limit by address that each request counts against, before anything else is done.
    pub limit: Option<Limited>,
    /// What each request counts as against the user's limits of changes.
    pub writes: Option<Write>,
    /// What is required of a key beside being good.
    pub requirements: Requirements<'static>,
    /// For gateways: reads from the request which credentials are accepted and which scopes they need.
    pub demand: Option<ReadDemand>,
    /// The status when a limit is exceeded.
    pub too_many: StatusCode,
    /// The largest body that is accepted.
    pub body_bytes: usize,
    /// Whether the answer may be megabytes long.
    pub large: bool,
    /// Whether a body is read although the method usually has none.
    body: bool,
}

/// The usual largest body: enough for any one thing that is described in JSON.
const BODY_BYTES: usize = 16 * 1024;

/// Routes that share the beginning of their path, the credential that they accept, and what else is set here. An
/// [`Endpoint`] has no guard of its own, so none can be left without one.
pub(crate) struct Group {
    prefix: &'static str,
    guard: Guard,
    scopes: Option<&'static Scopes>,
    /// What a request that creates or changes something counts as.
    write: Write,
    even_unverified: bool,
}

pub(crate) fn group(prefix: &'static str, guard: Guard) -> Group {
    Group { prefix, guard, scopes: None, write: Write::Change, even_unverified: false }
}

impl Group {
    /// A key needs these scopes; a user may do what their keys may do.
    pub(crate) fn with_scopes(self, scopes: &'static Scopes) -> Group {
        Group { scopes: Some(scopes), ..self }
    }

    /// What is changed here belongs to others.
    pub(crate) fn for_operators(self) -> Group {
        Group { write: Write::Administer, ..self }
    }

    /// Users are admitted who have to verify their e-mail first.
    pub(crate) fn even_unverified(self) -> Group {
        Group { even_unverified: true, ..self }
    }

    pub(crate) fn routes<const N: usize>(self, endpoints: [Endpoint; N]) -> Vec<Route> {
        let Group { prefix, guard, scopes, write, even_unverified } = self;
        let route = |Endpoint(mut route): Endpoint| {
            // Made once, for the life of the process.
            route.path = format!("{prefix}{}", route.path).leak();
            route.guard = guard;
            route.writes = route.writes.map(|_| write);
            route.requirements.even_unverified = even_unverified;
            route.requirements.scopes = scopes.unwrap_or(route.requirements.scopes);
            route
        };
        endpoints.into_iter().map(route).collect()
    }
}

/// A route that is not in a group yet. Its path is what follows the group's prefix.
pub(crate) struct Endpoint(Route);

pub(crate) fn get(path: &'static str, lane: Lane, handler: Handler) -> Endpoint {
    endpoint(Some(Method::GET), path, lane, handler)
}

pub(crate) fn post(path: &'static str, lane: Lane, handler: Handler) -> Endpoint {
    endpoint(Some(Method::POST), path, lane, handler)
}

pub(crate) fn patch(path: &'static str, lane: Lane, handler: Handler) -> Endpoint {
    endpoint(Some(Method::PATCH), path, lane, handler)
}

pub(crate) fn delete(path: &'static str, lane: Lane, handler: Handler) -> Endpoint {
    endpoint(Some(Method::DELETE), path, lane, handler)
}

/// For gateways, which pass on the method of their client. `demand` reads what the gateway asks for.
pub(crate) fn any(path: &'static str, demand: ReadDemand, handler: Handler) -> Endpoint {
    let Endpoint(route) = endpoint(None, path, Lane::Inline, handler);
    Endpoint(Route { demand: Some(demand), ..route })
}

fn endpoint(method: Option<Method>, path: &'static str, lane: Lane, handler: Handler) -> Endpoint {
    Endpoint(Route {
        method,
        path,
        // The group's takes its place.
        guard: Guard::Public,
        lane,
        handler,
        limit: None,
        writes: None,
        requirements: Requirements::plain(),
        demand: None,
        too_many: StatusCode::TOO_MANY_REQUESTS,
        body_bytes: BODY_BYTES,
        large: false,
        body: false,
    })
}

impl Endpoint {
    /// Each request counts against this limit by address.
    pub(crate) fn limited(mut self, limit: Limited) -> Endpoint {
        self.0.limit = Some(limit);
        self
    }

    /// It creates or changes something: each request counts against the user's limit of changes.
    pub(crate) fn writing(mut self) -> Endpoint {
        self.0.writes = Some(Write::Change);
        self
    }

    /// An exceeded limit is a 403, for gateways that turn a 429 into an error of their own.
    pub(crate) fn with_no_429(mut self) -> Endpoint {
        self.0.too_many = StatusCode::FORBIDDEN;
        self
    }

    /// A key may also be sent as the password of `Basic`.
    pub(crate) fn with_oauth_credentials(mut self) -> Endpoint {
        self.0.requirements.oauth = true;
        self
    }

    /// Only the key itself is accepted, not a token that was derived from it.
    pub(crate) fn without_derived(mut self) -> Endpoint {
        self.0.requirements.derived = false;
        self
    }

    /// The answer may be megabytes long.
    pub(crate) fn with_large_answer(mut self) -> Endpoint {
        self.0.large = true;
        self
    }

    pub(crate) fn with_body_bytes(mut self, most: usize) -> Endpoint {
        self.0.body_bytes = most;
        self
    }

    /// A body is read although the method usually has none.
    pub(crate) fn with_body(mut self) -> Endpoint {
        self.0.body = true;
        self
    }

    /// A key that has used up its limit is accepted too.
    pub(crate) fn without_limit(mut self) -> Endpoint {
        self.0.requirements.limited = false;
        self
    }

    /// A paused key is accepted too.
    pub(crate) fn even_paused(mut self) -> Endpoint {
        self.0.requirements.even_paused = true;
        self
    }

    /// A key is accepted from every address, whatever it allows.
    pub(crate) fn accepted_from_anywhere(mut self) -> Endpoint {
        self.0.requirements.from_anywhere = true;
        self
    }
}

impl Route {
    /// Whether a body is read for this route.
    pub fn takes_body(&self) -> bool {
        let has_one = |method| matches!(method, &Method::POST | &Method::PATCH | &Method::PUT);
        self.body || self.method.as_ref().is_some_and(has_one)
    }

    /// Its method, or `ANY`.
    pub fn verb(&self) -> &str {
        self.method.as_ref().map_or("ANY", Method::as_str)
    }

    pub(crate) fn takes(&self, method: &Method) -> bool {
        self.method.as_ref().is_none_or(|own| own == method)
    }

    pub(crate) fn shares_a_method_with(&self, other: &Route) -> bool {
        other.method.as_ref().is_none_or(|method| self.takes(method)) || self.method.is_none()
    }

    /// Runs the handler. If it panics, this one request is answered with a 500.
    pub fn call(&self, app: &App, request: &mut Request) -> Result<Response, Error> {
        catch_unwind(AssertUnwindSafe(|| (self.handler)(app, request)))
            .unwrap_or_else(|_| Err(Error::Internal(format!("the handler of {} {} panicked", self.verb(), self.path))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::scopes::KEYS_VERIFY;

    fn nothing(_: &App, _: &mut Request) -> Result<Response, Error> {
        Err(Error::Internal("never called".to_string()))
    }

    #[test]
    fn every_route_of_a_group_has_its_prefix_its_guard_and_its_scopes() {
        let routes = group("/admin", Guard::ApiKey)
            .with_scopes(&KEYS_VERIFY)
            .routes([get("/users", Lane::Store, nothing), patch("/users/:id", Lane::Store, nothing).writing()]);
        let paths: Vec<&str> = routes.iter().map(|route| route.path).collect();
        assert_eq!(paths, ["/admin/users", "/admin/users/:id"]);
        assert!(routes.iter().all(|route| route.guard == Guard::ApiKey));
        assert!(routes.iter().all(|route| route.requirements.scopes == &KEYS_VERIFY));
    }
}
