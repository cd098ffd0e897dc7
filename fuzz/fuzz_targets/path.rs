//! `METHOD path`: the route table against a reader that compares segments.
#![no_main]

use std::sync::LazyLock;

use http::Method;
use keyward::api::routes::ROUTES;
use keyward::http::route::Route;
use keyward::http::router::{Destination, Router};
use libfuzzer_sys::fuzz_target;

static ROUTER: LazyLock<Router> = LazyLock::new(|| Router::new(&ROUTES).expect("a sound table"));

fuzz_target!(|text: &str| {
    let Some((method, path)) = text.split_once(' ') else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let wanted = if method == Method::HEAD { Method::GET } else { method.clone() };
    let takes = |route: &&Route| route.method.as_ref().is_none_or(|known| *known == wanted);
    let found = ROUTER.find(&method, path);
    let Some((template, parameter)) = model(path) else {
        let is_server = path == "*" || path == "*/";
        assert!(match found {
            Destination::Options(_) => method == Method::OPTIONS && is_server,
            Destination::Tunnel => method == Method::CONNECT,
            Destination::Nowhere => method != Method::CONNECT && !(method == Method::OPTIONS && is_server),
            _ => false,
        });
        return;
    };
    let here: Vec<&Route> = ROUTES.iter().filter(|route| route.path == template).collect();
    let expected = here.iter().find(|route| takes(route));
    match (found, expected) {
        (Destination::Route(route, given), Some(expected)) => {
            let names =
                template.split('/').filter_map(|part| if part == "*" { Some(part) } else { part.strip_prefix(':') });
            let name = names.last().unwrap_or_default();
            let given = given.named(route);
            assert_eq!((route.verb(), route.path, given.get(name)), (expected.verb(), template, parameter), "{text:?}");
        }
        (Destination::Options(allow), None) if method == Method::OPTIONS => assert_allowed(allow, &here, &method),
        (Destination::OtherMethods(allow), None) if method != Method::OPTIONS => {
            assert_allowed(allow, &here, &method);
            assert!(allow.split(", ").all(|allowed| allowed != method), "{text:?}");
        }
        _ => panic!("{text:?}"),
    }
});

/// The methods of this path, and no others.
fn assert_allowed(allow: &str, here: &[&Route], asked: &Method) {
    let allowed: Vec<&str> = allow.split(", ").collect();
    assert!(here.iter().all(|route| allowed.contains(&route.verb())), "{asked}: {allow}");
    for method in allowed {
        let by_itself = here.iter().any(|route| route.verb() == method);
        assert!(by_itself || method == "HEAD" || method == "OPTIONS", "{asked}: {allow}");
    }
}

/// The line of the table that a path fits, and what its `:name` or `*` stands for. One without either is preferred, then
/// one with a `:name`.
fn model(path: &str) -> Option<(&'static str, &str)> {
    let shorter = if path.len() > 1 && path.ends_with('/') { &path[..path.len() - 1] } else { path };
    let given: Vec<&str> = shorter.split('/').collect();
    let fits = |template: &'static str| {
        let segments: Vec<&str> = template.split('/').collect();
        let mut parameter = None;
        let all_fit = segments.iter().zip(&given).all(|(segment, given)| {
            if segment.starts_with(':') {
                parameter = Some(*given);
                return !given.is_empty();
            }
            segment == given
        });
        (all_fit && segments.len() == given.len() && !template.ends_with('*')).then_some((template, parameter))
    };
    let rest = |template: &'static str| {
        let before = template.strip_suffix("/*")?;
        let begins = path.strip_prefix(before)?;
        (begins.is_empty() || begins.starts_with('/')).then_some((template, begins))
    };
    let templates = || ROUTES.iter().map(|route| route.path);
    let whole = templates().filter_map(fits).find(|(_, parameter)| parameter.is_none());
    let with_parameter = || templates().filter_map(fits).next();
    let fixed = whole.or_else(with_parameter).map(|(template, parameter)| (template, parameter.unwrap_or_default()));
    fixed.or_else(|| templates().find_map(rest))
}
