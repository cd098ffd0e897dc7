//! The one route table, and the way of a request from it to its handler.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use http::{Method, StatusCode};

use crate::accounts::limits::Limited;
use crate::app::App;
use crate::base::error::Error;
use crate::guard::judge::Guard::{self, Flexible, Public};
use crate::guard::judge::{GatewayDemand, Requirements};
use crate::http::lanes::Lane;
use crate::http::request::Request;
use crate::http::response::Response;
use crate::keys::scopes::Scopes;

pub type Handler = fn(&App, &mut Request) -> Result<Response, Error>;
pub type Narrow = fn(&Request) -> Result<GatewayDemand, Error>;

/// One line of the API. One segment may start with `:`; it takes any one segment. A last one may be `*`: it takes
/// whatever there is, also nothing.
pub struct Route {
    /// `None`: any.
    pub method: Option<Method>,
    pub path: &'static str,
    pub guard: Guard,
    pub lane: Lane,
    pub handler: Handler,
    /// What is counted of it by address, before anything else is done.
    pub limit: Option<Limited>,
    /// Counted as a change of the user's, once it is known who asks.
    pub writes: bool,
    pub requirements: Requirements<'static>,
    /// Lets a request say which credentials count, and for what.
    pub narrow: Option<Narrow>,
    /// The status of whatever is too much.
    pub too_many: StatusCode,
    /// The largest body that is read.
    pub body_bytes: usize,
    /// The answer may take megabytes.
    pub large: bool,
    /// A body is read although the method has none by itself.
    body: bool,
}

/// Enough for any one thing that is described in JSON.
const BODY_BYTES: usize = 16 * 1024;

pub const fn route(method: Method, path: &'static str, guard: Guard, lane: Lane, handler: Handler) -> Route {
    line(Some(method), path, guard, lane, handler)
}

const fn line(method: Option<Method>, path: &'static str, guard: Guard, lane: Lane, handler: Handler) -> Route {
    Route {
        method,
        path,
        guard,
        lane,
        handler,
        limit: None,
        writes: false,
        requirements: Requirements::plain(),
        narrow: None,
        too_many: StatusCode::TOO_MANY_REQUESTS,
        body_bytes: BODY_BYTES,
        large: false,
        body: false,
    }
}

/// A gateway asks whether it may pass a request on.
pub const fn gateway(path: &'static str, narrow: Narrow, admit: Handler) -> Route {
    let mut route = line(None, path, Flexible, Lane::Inline, admit);
    route.narrow = Some(narrow);
    route
}

/// Open to everyone, but only so often from one address.
pub const fn limited(path: &'static str, limit: Limited, lane: Lane, handler: Handler) -> Route {
    let mut route = route(Method::POST, path, Public, lane, handler);
    route.limit = Some(limit);
    route
}

impl Route {
    /// Makes or changes something.
    pub const fn writing(mut self) -> Route {
        self.writes = true;
        self
    }

    /// A key needs these scopes; a user may do whatever his keys may.
    pub const fn with_scopes(mut self, scopes: &'static Scopes) -> Route {
        self.requirements.scopes = scopes;
        self
    }

    /// Too many is as good as forbidden.
    pub const fn with_no_429(mut self) -> Route {
        self.too_many = StatusCode::FORBIDDEN;
        self
    }

    /// A key may be sent in the ways of OAuth too.
    pub const fn with_oauth_credentials(mut self) -> Route {
        self.requirements.oauth = true;
        self
    }

    /// The key itself is needed; a token that was derived from it is not enough.
    pub const fn without_derived(mut self) -> Route {
        self.requirements.derived = false;
        self
    }

    /// For many things at once.
    pub const fn with_large_answer(mut self) -> Route {
        self.large = true;
        self
    }

    pub const fn with_body_bytes(mut self, most: usize) -> Route {
        self.body_bytes = most;
        self
    }

    /// Keys that are over their limit are admitted.
    pub const fn without_limit(mut self) -> Route {
        self.requirements.limited = false;
        self
    }

    /// Paused keys are admitted.
    pub const fn even_paused(mut self) -> Route {
        self.requirements.even_paused = true;
        self
    }
}

/// DELETE with a body.
pub const fn delete_with_body(path: &'static str, guard: Guard, lane: Lane, handler: Handler) -> Route {
    let mut route = route(Method::DELETE, path, guard, lane, handler);
    route.body = true;
    route
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

    fn takes(&self, method: &Method) -> bool {
        self.method.as_ref().is_none_or(|known| known == method)
    }

    fn shares_a_method_with(&self, other: &Route) -> bool {
        other.method.as_ref().is_none_or(|method| self.takes(method)) || self.method.is_none()
    }

    /// Runs the handler. A panic in it is a fault of ours, and of this one request.
    pub fn call(&self, app: &App, request: &mut Request) -> Result<Response, Error> {
        catch_unwind(AssertUnwindSafe(|| (self.handler)(app, request)))
            .unwrap_or_else(|_| Err(Error::Internal(format!("the handler of {} {} panicked", self.verb(), self.path))))
    }
}

/// Where a request goes.
pub enum Destination<'a> {
    /// The route, and what its `:name` or `*` stands for here.
    Route(&'static Route, &'a str),
    /// OPTIONS of a path that does not take it itself, or of the server: the value of `Allow`.
    Options(&'static str),
    /// The path exists, with these methods: the value of `Allow`.
    OtherMethods(&'static str),
    /// CONNECT, whose target is no path.
    Tunnel,
    Nowhere,
}

/// What a path of the table stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pattern {
    Fixed,
    /// What comes after the `:name`.
    Parameter(&'static str),
    Rest,
}

/// All routes of one path.
struct Resource {
    routes: Vec<&'static Route>,
    allow: &'static str,
}

/// Finds routes by method and path.
pub struct Router {
    fixed: HashMap<&'static str, Resource>,
    /// What comes before the `:name`, what comes after it, and what is there.
    with_parameter: Vec<(&'static str, &'static str, Resource)>,
    /// What comes before the `/*`, and what is there.
    with_rest: Vec<(&'static str, Resource)>,
    /// The methods of all.
    allow: &'static str,
}

/// The value of `Allow` for these routes.
fn allow<'a>(routes: impl IntoIterator<Item = &'a Route>) -> &'static str {
    let mut methods: Vec<&str> = Vec::new();
    for route in routes {
        methods.extend(route.method.as_ref().map(Method::as_str));
        if route.method == Some(Method::GET) {
            methods.push("HEAD");
        }
    }
    methods.push("OPTIONS");
    let mut seen = HashSet::new();
    methods.retain(|method| seen.insert(*method));
    // A handful of texts, made once for the life of the process.
    methods.join(", ").leak()
}

/// The rest of a path that begins with these segments: empty, or a slash and what follows.
fn rest<'a>(path: &'a str, before: &str) -> Option<&'a str> {
    path.strip_prefix(before).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether some path fits both this line and one that ends in `/*` after `before`.
fn overlaps(line: &str, before: &str) -> bool {
    let mut segments = line.split('/');
    before.split('/').all(|expected| {
        segments.next().is_some_and(|segment| segment == expected || segment == "*" || segment.starts_with(':'))
    })
}

impl Router {
    /// Refuses a table in which two lines claim the same requests.
    pub fn new(routes: &'static [Route]) -> Result<Router, String> {
        let mut by_path: Vec<(&'static str, Pattern, Vec<&'static Route>)> = Vec::new();
        for route in routes {
            let (before, pattern) = if let Some(before) = route.path.strip_suffix("/*") {
                let other = routes.iter().find(|other| other.path != route.path && overlaps(other.path, before));
                if let Some(other) = other {
                    return Err(format!("{} and {} claim the same paths", route.path, other.path));
                }
                (before, Pattern::Rest)
            } else if let Some((before, rest)) = route.path.split_once(':') {
                (before, Pattern::Parameter(&rest[rest.find('/').unwrap_or(rest.len())..]))
            } else {
                (route.path, Pattern::Fixed)
            };
            if matches!(pattern, Pattern::Parameter(after) if after.contains(':')) {
                return Err(format!("{} has more than one parameter", route.path));
            }
            match by_path.iter_mut().find(|known| (known.0, known.1) == (before, pattern)) {
                Some((_, _, same)) if same.iter().any(|other| other.shares_a_method_with(route)) => {
                    return Err(format!("{} {} is in the table twice", route.verb(), route.path));
                }
                Some((_, _, same)) => same.push(route),
                None => by_path.push((before, pattern, vec![route])),
            }
        }
        let mut router =
            Router { fixed: HashMap::new(), with_parameter: Vec::new(), with_rest: Vec::new(), allow: allow(routes) };
        for (before, pattern, routes) in by_path {
            let resource = Resource { allow: allow(routes.iter().copied()), routes };
            match pattern {
                Pattern::Parameter(after) => router.with_parameter.push((before, after, resource)),
                Pattern::Rest => router.with_rest.push((before, resource)),
                Pattern::Fixed => {
                    router.fixed.insert(before, resource);
                }
            }
        }
        Ok(router)
    }

    /// One trailing slash is as good as none, except in what a `*` stands for; HEAD goes where GET goes. OPTIONS is
    /// answered for every path (RFC 9110 §9.3.7), unless a route takes it itself.
    pub fn find<'a>(&self, method: &Method, path: &'a str) -> Destination<'a> {
        let whole = path;
        let path = match path.strip_suffix('/') {
            Some("") | None => path,
            Some(shorter) => shorter,
        };
        let with_parameter = || {
            self.with_parameter.iter().find_map(|(before, after, resource)| {
                let parameter = path.strip_prefix(before)?.strip_suffix(after)?;
                (!parameter.is_empty() && !parameter.contains('/')).then_some((resource, parameter))
            })
        };
        let fixed = self.fixed.get(path).map(|resource| (resource, ""));
        let with_rest = || self.with_rest.iter().find_map(|(before, resource)| Some((resource, rest(whole, before)?)));
        let Some((resource, parameter)) = fixed.or_else(with_parameter).or_else(with_rest) else {
            return match *method {
                Method::OPTIONS if path == "*" => Destination::Options(self.allow),
                Method::CONNECT => Destination::Tunnel,
                _ => Destination::Nowhere,
            };
        };
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        match resource.routes.iter().find(|route| route.takes(wanted)) {
            Some(route) => Destination::Route(route, parameter),
            None if method == Method::OPTIONS => Destination::Options(resource.allow),
            None => Destination::OtherMethods(resource.allow),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &App, _: &mut Request) -> Result<Response, Error> {
        Err(Error::Internal("never called".to_string()))
    }

    #[test]
    fn a_rest_is_whatever_follows_as_it_was_sent_or_nothing() {
        static TABLE: &[Route] = &[
            line(None, "/a/*", Public, Lane::Inline, nothing),
            route(Method::GET, "/b/*", Public, Lane::Inline, nothing),
        ];
        let router = Router::new(TABLE).unwrap();
        let find = |method: &Method, path: &'static str| match router.find(method, path) {
            Destination::Route(_, rest) => Some(rest),
            _ => None,
        };
        for rest in ["", "/", "//", "/b/../../c", "/%2e%2e/%00", "/b/", "/a/*"] {
            for method in [Method::GET, Method::OPTIONS, Method::from_bytes(b"PURGE").unwrap()] {
                assert_eq!(find(&method, format!("/a{rest}").leak()), Some(rest), "{rest}");
            }
        }
        for path in ["/ab", "/A", "/a*", "/a%2fb", "//a/", "/./a/b"] {
            assert_eq!(find(&Method::GET, path), None, "{path}");
        }
        assert!(matches!(router.find(&Method::POST, "/b/c"), Destination::OtherMethods("GET, HEAD, OPTIONS")));
        assert_eq!(find(&Method::HEAD, "/b/c"), Some("/c"));
    }

    #[test]
    fn options_is_answered_for_every_path_but_where_a_route_takes_it() {
        static TABLE: &[Route] = &[
            route(Method::GET, "/a", Public, Lane::Inline, nothing),
            route(Method::POST, "/b", Public, Lane::Inline, nothing),
            route(Method::OPTIONS, "/b", Public, Lane::Inline, nothing),
        ];
        let router = Router::new(TABLE).unwrap();
        assert!(matches!(router.find(&Method::OPTIONS, "/a/"), Destination::Options("GET, HEAD, OPTIONS")));
        assert!(matches!(router.find(&Method::OPTIONS, "/b"), Destination::Route(..)));
        assert!(matches!(router.find(&Method::PUT, "/b"), Destination::OtherMethods("POST, OPTIONS")));
        assert!(matches!(router.find(&Method::OPTIONS, "*"), Destination::Options("GET, HEAD, POST, OPTIONS")));
        assert!(matches!(router.find(&Method::GET, "*"), Destination::Nowhere));
        assert!(matches!(router.find(&Method::CONNECT, ""), Destination::Tunnel));
    }

    #[test]
    fn a_table_that_contradicts_itself_is_refused() {
        static TWICE: &[Route] = &[
            route(Method::GET, "/a/:id", Public, Lane::Inline, nothing),
            route(Method::GET, "/a/:name", Public, Lane::Inline, nothing),
        ];
        assert!(Router::new(TWICE).is_err());
        static ANY_AND_ONE: &[Route] =
            &[line(None, "/a", Public, Lane::Inline, nothing), route(Method::GET, "/a", Public, Lane::Inline, nothing)];
        assert!(Router::new(ANY_AND_ONE).is_err());
        static BELOW_A_REST: &[&[Route]] = &[
            &[
                route(Method::GET, "/a/*", Public, Lane::Inline, nothing),
                route(Method::GET, "/a/b", Public, Lane::Inline, nothing),
            ],
            &[
                route(Method::GET, "/a/*", Public, Lane::Inline, nothing),
                route(Method::POST, "/a", Public, Lane::Inline, nothing),
            ],
            &[
                route(Method::GET, "/:name", Public, Lane::Inline, nothing),
                route(Method::GET, "/a/*", Public, Lane::Inline, nothing),
            ],
            &[
                route(Method::GET, "/a/b/*", Public, Lane::Inline, nothing),
                route(Method::GET, "/a/*", Public, Lane::Inline, nothing),
            ],
            &[
                route(Method::GET, "/a/*", Public, Lane::Inline, nothing),
                route(Method::GET, "/a/*", Public, Lane::Inline, nothing),
            ],
        ];
        assert!(BELOW_A_REST.iter().all(|table| Router::new(table).is_err()));
        static BESIDE_A_REST: &[Route] = &[
            route(Method::GET, "/a/*", Public, Lane::Inline, nothing),
            route(Method::POST, "/a/*", Public, Lane::Inline, nothing),
            route(Method::GET, "/ab", Public, Lane::Inline, nothing),
            route(Method::GET, "/", Public, Lane::Inline, nothing),
        ];
        assert!(Router::new(BESIDE_A_REST).is_ok());
        static TWO_PARAMETERS: &[Route] = &[route(Method::GET, "/a/:id/:name", Public, Lane::Inline, nothing)];
        assert!(Router::new(TWO_PARAMETERS).is_err());
    }
}
