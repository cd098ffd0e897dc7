//! Finds the route of a request by its method and path.

use std::collections::{HashMap, HashSet};

use http::Method;

use crate::http::request::{PARAMETERS, Parameters, parameter_names};
use crate::http::route::Route;

/// Where a request goes.
pub enum Destination<'a> {
    /// The route, and the values of its path's parameters.
    Route(&'static Route, Values<'a>),
    /// OPTIONS of a path that does not take it itself, or of the server: the value of `Allow`.
    Options(&'static str),
    /// The path exists, with these methods: the value of `Allow`.
    OtherMethods(&'static str),
    /// CONNECT, whose target is no path.
    Tunnel,
    Nowhere,
}

/// The segments of a path that its parameters stand for, in their order. Those that are left over are empty.
pub struct Values<'a>([&'a str; PARAMETERS]);

impl Values<'_> {
    /// With the names that the route has for them.
    pub fn named(self, route: &'static Route) -> Parameters {
        Parameters::new(route.path, self.0.map(str::to_string))
    }
}

/// All routes of one path.
struct Resource {
    routes: Vec<&'static Route>,
    allow: &'static str,
}

/// What a segment of a route's path takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Fixed(&'static str),
    /// Any one segment that is not empty.
    Parameter,
    /// All that follows, also nothing.
    Rest,
}

/// A path with parameters.
struct Pattern(Vec<Segment>);

impl Pattern {
    fn of(path: &'static str) -> Pattern {
        let segment = |text: &'static str| match text {
            "*" => Segment::Rest,
            parameter if parameter.starts_with(':') => Segment::Parameter,
            fixed => Segment::Fixed(fixed),
        };
        Pattern(path.split('/').map(segment).collect())
    }

    /// The values of the parameters, if the path fits. `whole` still has the trailing slash that `path` may have lost.
    fn values<'a>(&self, path: &'a str, whole: &'a str) -> Option<Values<'a>> {
        let mut values = [""; PARAMETERS];
        let mut free = values.iter_mut();
        let mut rest = Some(path);
        let mut position = 0_usize;
        for segment in &self.0 {
            if *segment == Segment::Rest {
                // With the slash before it, or nothing.
                *free.next()? = &whole[position.saturating_sub(1).min(whole.len())..];
                return Some(Values(values));
            }
            let (text, after) = match rest?.split_once('/') {
                Some((text, after)) => (text, Some(after)),
                None => (rest?, None),
            };
            match segment {
                Segment::Fixed(fixed) if *fixed == text => {}
                Segment::Parameter if !text.is_empty() => *free.next()? = text,
                _ => return None,
            }
            position += text.len() + 1;
            rest = after;
        }
        rest.is_none().then_some(Values(values))
    }

    /// Whether some path fits both.
    fn overlaps(&self, other: &Pattern) -> bool {
        let (mut ours, mut theirs) = (self.0.iter(), other.0.iter());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) | (Some(Segment::Rest), _) | (_, Some(Segment::Rest)) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(Segment::Fixed(one)), Some(Segment::Fixed(other))) if one != other => return false,
                (Some(_), Some(_)) => {}
            }
        }
    }

    fn has_rest(&self) -> bool {
        self.0.last() == Some(&Segment::Rest)
    }
}

/// Finds routes by method and path.
pub struct Router {
    /// Paths without parameters: one look-up.
    fixed: HashMap<&'static str, Resource>,
    /// Paths with parameters. If several fit, the first wins, whatever their methods: it has a fixed segment where the
    /// others have a parameter.
    patterns: Vec<(Pattern, Resource)>,
    /// The methods of all routes.
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

impl Router {
    /// Refuses a table in which two routes claim the same requests, or a path has more than [`PARAMETERS`].
    pub fn new(routes: &'static [Route]) -> Result<Router, String> {
        let mut by_pattern: Vec<(Pattern, Vec<&'static Route>)> = Vec::new();
        for route in routes {
            if parameter_names(route.path).count() > PARAMETERS {
                return Err(format!("{} has more than {PARAMETERS} parameters", route.path));
            }
            let pattern = Pattern::of(route.path);
            match by_pattern.iter_mut().find(|(known, _)| known.0 == pattern.0) {
                Some((_, same)) if same.iter().any(|other| other.shares_a_method_with(route)) => {
                    return Err(format!("{} {} is in the table twice", route.verb(), route.path));
                }
                Some((_, same)) => same.push(route),
                None => by_pattern.push((pattern, vec![route])),
            }
        }
        for (index, (pattern, routes)) in by_pattern.iter().enumerate().filter(|(_, (pattern, _))| pattern.has_rest()) {
            let other = by_pattern.iter().enumerate().find(|(at, (other, _))| *at != index && pattern.overlaps(other));
            if let Some((_, (_, others))) = other {
                return Err(format!("{} and {} claim the same paths", routes[0].path, others[0].path));
            }
        }
        // Fixed segments sort before parameters.
        by_pattern.sort_by(|(one, _), (other, _)| one.0.cmp(&other.0));
        let mut router = Router { fixed: HashMap::new(), patterns: Vec::new(), allow: allow(routes) };
        for (pattern, routes) in by_pattern {
            let (path, allow) = (routes[0].path, allow(routes.iter().copied()));
            let resource = Resource { routes, allow };
            if pattern.0.iter().all(|segment| matches!(segment, Segment::Fixed(_))) {
                router.fixed.insert(path, resource);
            } else {
                router.patterns.push((pattern, resource));
            }
        }
        Ok(router)
    }

    /// A trailing slash is ignored, except in what a `*` stands for; HEAD goes where GET goes. OPTIONS is answered for every
    /// path (RFC 9110 §9.3.7), unless a route takes it itself.
    pub fn find<'a>(&self, method: &Method, path: &'a str) -> Destination<'a> {
        let whole = path;
        let path = match path.strip_suffix('/') {
            Some("") | None => path,
            Some(shorter) => shorter,
        };
        let fixed = self.fixed.get(path).map(|resource| (resource, Values([""; PARAMETERS])));
        let with_parameters =
            || self.patterns.iter().find_map(|(pattern, resource)| Some((resource, pattern.values(path, whole)?)));
        let Some((resource, values)) = fixed.or_else(with_parameters) else {
            return match *method {
                Method::OPTIONS if path == "*" => Destination::Options(self.allow),
                Method::CONNECT => Destination::Tunnel,
                _ => Destination::Nowhere,
            };
        };
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        match resource.routes.iter().find(|route| route.takes(wanted)) {
            Some(route) => Destination::Route(route, values),
            None if method == Method::OPTIONS => Destination::Options(resource.allow),
            None => Destination::OtherMethods(resource.allow),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::App;
    use crate::base::error::Error;
    use crate::guard::requirements::{GatewayDemand, Guard};
    use crate::http::lanes::Lane;
    use crate::http::request::Request;
    use crate::http::response::Response;
    use crate::http::route::{Endpoint, any, delete, get, group, post};

    fn nothing(_: &App, _: &mut Request) -> Result<Response, Error> {
        Err(Error::Internal("never called".to_string()))
    }

    fn no_demand(_: &Request) -> Result<GatewayDemand, Error> {
        Err(Error::Internal("never called".to_string()))
    }

    fn all(path: &'static str) -> Endpoint {
        any(path, no_demand, nothing)
    }

    fn getting(path: &'static str) -> Endpoint {
        get(path, Lane::Inline, nothing)
    }

    fn posting(path: &'static str) -> Endpoint {
        post(path, Lane::Inline, nothing)
    }

    fn router<const N: usize>(endpoints: [Endpoint; N]) -> Result<Router, String> {
        Router::new(group("", Guard::Public).routes(endpoints).leak())
    }

    /// The path of the route, and its parameters in the order of these names.
    fn find<const N: usize>(
        router: &Router,
        method: &Method,
        path: &str,
        names: [&str; N],
    ) -> Option<(&'static str, [String; N])> {
        match router.find(method, path) {
            Destination::Route(route, values) => {
                let values = values.named(route);
                Some((route.path, names.map(|name| values.get(name).to_string())))
            }
            _ => None,
        }
    }

    #[test]
    fn a_path_may_have_several_parameters_and_fixed_segments_win_over_them() {
        let router = router([
            getting("/a/:id/b/:name"),
            getting("/a/:id/b/:name/c"),
            getting("/a/own/b/:name"),
            getting("/a/:id/b/first"),
            delete("/a/:one/b/:other", Lane::Inline, nothing),
        ])
        .unwrap();
        let found = |method: &Method, path: &str, names| {
            find(&router, method, path, names).map(|(path, [one, other])| (path, one, other))
        };
        let text = |path: &'static str, one: &str, other: &str| Some((path, one.to_string(), other.to_string()));
        for (path, expected) in [
            ("/a/1/b/2", text("/a/:id/b/:name", "1", "2")),
            ("/a/1/b/2/", text("/a/:id/b/:name", "1", "2")),
            ("/a/1/b/2/c", text("/a/:id/b/:name/c", "1", "2")),
            ("/a/own/b/2", text("/a/own/b/:name", "", "2")),
            ("/a/1/b/first", text("/a/:id/b/first", "1", "")),
            // The first segment in which they differ decides.
            ("/a/own/b/first", text("/a/own/b/:name", "", "first")),
            ("/a//b/2", None),
            ("/a/1/b/", None),
            ("/a/1/b/2/3", None),
        ] {
            assert_eq!(found(&Method::GET, path, ["id", "name"]), expected, "{path}");
        }
        // Another route of the same path has names of its own.
        assert_eq!(found(&Method::DELETE, "/a/1/b/2", ["one", "other"]), text("/a/:one/b/:other", "1", "2"));
    }

    #[test]
    fn a_rest_is_whatever_follows_as_it_was_sent_or_nothing() {
        let router = router([all("/a/*"), getting("/b/*"), getting("/c/:id/*")]).unwrap();
        let rest = |method: &Method, path: &str| find(&router, method, path, ["*"]).map(|(_, [rest])| rest);
        for expected in ["", "/", "//", "/b/../../c", "/%2e%2e/%00", "/b/", "/a/*"] {
            for method in [Method::GET, Method::OPTIONS, Method::from_bytes(b"PURGE").unwrap()] {
                assert_eq!(rest(&method, &format!("/a{expected}")).as_deref(), Some(expected), "{expected}");
            }
            let found = find(&router, &Method::GET, &format!("/c/7{expected}"), ["id", "*"]);
            assert_eq!(found, Some(("/c/:id/*", ["7".to_string(), expected.to_string()])));
        }
        for path in ["/ab", "/A", "/a*", "/a%2fb", "//a/", "/./a/b", "/c", "/c//a"] {
            assert_eq!(rest(&Method::GET, path), None, "{path}");
        }
        assert!(matches!(router.find(&Method::POST, "/b/c"), Destination::OtherMethods("GET, HEAD, OPTIONS")));
        assert_eq!(rest(&Method::HEAD, "/b/c").as_deref(), Some("/c"));
    }

    #[test]
    fn options_is_answered_for_every_path_but_where_a_route_takes_it() {
        let router = router([getting("/a"), posting("/b"), all("/c")]).unwrap();
        assert!(matches!(router.find(&Method::OPTIONS, "/a/"), Destination::Options("GET, HEAD, OPTIONS")));
        assert!(matches!(router.find(&Method::OPTIONS, "/c"), Destination::Route(..)));
        assert!(matches!(router.find(&Method::PUT, "/b"), Destination::OtherMethods("POST, OPTIONS")));
        assert!(matches!(router.find(&Method::OPTIONS, "*"), Destination::Options("GET, HEAD, POST, OPTIONS")));
        assert!(matches!(router.find(&Method::GET, "*"), Destination::Nowhere));
        assert!(matches!(router.find(&Method::CONNECT, ""), Destination::Tunnel));
    }

    #[test]
    fn a_table_that_contradicts_itself_is_refused() {
        assert!(router([getting("/a/:id"), getting("/a/:name")]).is_err());
        assert!(router([all("/a"), getting("/a")]).is_err());
        assert!(router([getting("/:a/:b/:c")]).is_err());
        for below_a_rest in [
            [getting("/a/*"), getting("/a/b")],
            [getting("/a/*"), posting("/a")],
            [getting("/:name"), getting("/a/*")],
            [getting("/a/b/*"), getting("/a/*")],
            [getting("/a/*"), getting("/a/*")],
            [getting("/:name/c/d"), getting("/a/*")],
        ] {
            assert!(router(below_a_rest).is_err());
        }
        assert!(router([getting("/a/*"), posting("/a/*"), getting("/ab"), getting("/")]).is_ok());
        assert!(router([getting("/a/:id"), getting("/a/:id/b"), getting("/:id/b")]).is_ok());
    }
}
