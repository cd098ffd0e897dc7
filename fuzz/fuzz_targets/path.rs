//! `METHOD path`: the route table against a reader that compares segments.
#![no_main]

use std::sync::LazyLock;

use http::Method;
use keyward::http::router::{Destination, ROUTES, Router};
use libfuzzer_sys::fuzz_target;

static ROUTER: LazyLock<Router> = LazyLock::new(|| Router::new(ROUTES).expect("a sound table"));

fuzz_target!(|text: &str| {
    let Some((method, path)) = text.split_once(' ') else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let (found, allowed) = match ROUTER.find(&method, path) {
        Destination::Route(route, parameter) => (Some((route.method.as_str(), route.path, parameter)), None),
        Destination::OtherMethods(allow) => (None, Some(allow)),
        Destination::Nowhere => (None, None),
    };
    let (template, parameter) = model(path).unzip();
    let wanted = if method == Method::HEAD { Method::GET } else { method };
    let here: Vec<&str> =
        ROUTES.iter().filter(|route| Some(route.path) == template).map(|route| route.method.as_str()).collect();
    match template.zip(parameter) {
        Some((template, parameter)) if here.contains(&wanted.as_str()) => {
            assert_eq!(found, Some((wanted.as_str(), template, parameter)), "{text:?}");
        }
        Some(_) => {
            let allowed: Vec<&str> = allowed.expect("a path with other methods").split(", ").collect();
            assert!(!allowed.contains(&wanted.as_str()), "{text:?}");
            assert!(here.iter().all(|method| allowed.contains(method)), "{text:?}");
        }
        None => assert_eq!((found, allowed), (None, None), "{text:?}"),
    }
});

/// The template that a path fits, and what its `:name` stands for. One without a parameter is preferred.
fn model(path: &str) -> Option<(&'static str, &str)> {
    let path = if path.len() > 1 && path.ends_with('/') { &path[..path.len() - 1] } else { path };
    let given: Vec<&str> = path.split('/').collect();
    let fits = |template: &'static str| {
        let segments: Vec<&str> = template.split('/').collect();
        let mut parameter = "";
        let all_fit = segments.iter().zip(&given).all(|(segment, given)| match segment.starts_with(':') {
            true => {
                parameter = given;
                !given.is_empty()
            }
            false => segment == given,
        });
        (all_fit && segments.len() == given.len()).then_some((template, parameter))
    };
    let mut fitting = ROUTES.iter().filter_map(|route| fits(route.path));
    let first = fitting.next()?;
    if first.1.is_empty() { Some(first) } else { fitting.find(|(_, parameter)| parameter.is_empty()).or(Some(first)) }
}
