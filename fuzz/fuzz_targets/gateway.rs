//! What a gateway's operator asks for in a query, and what a client can add to it: the first line is what follows the
//! route's path, the second the query.
#![no_main]

use http::HeaderMap;
use keyward::api::authz::{narrow, narrow_before_path};
use keyward::error::Error;
use keyward::guard::{Guard, Narrowed};
use keyward::scope::Scopes;
use keyward_fuzz::request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (parameter, query) = text.split_once('\n').unwrap_or(("", text));
    let mut asked = request(HeaderMap::new(), Some(query), b"");
    assert_eq!(seen(narrow(&asked)), model(query), "{text:?}");

    asked.parameter = parameter.to_string();
    let ours = if parameter.is_empty() { before_path(query) } else { "" };
    assert_eq!(seen(narrow_before_path(&asked)), model(ours), "{text:?}");

    // Whatever the client's path and query are, they change nothing.
    for theirs in ["", "/x", "/x?allow=user", "&allow=user,service", "&path=&scope=", "%26allow=user", "/../..", "#"] {
        let query = format!("{ours}&path={theirs}");
        let asked = request(HeaderMap::new(), Some(&query), b"");
        assert_eq!(seen(narrow_before_path(&asked)), model(ours), "{query:?}");
    }
});

type Seen = Option<(Guard, Vec<String>)>;

fn seen(narrowed: Result<Narrowed, Error>) -> Seen {
    match narrowed {
        Ok(Narrowed { guard, scopes }) => Some((guard, scopes.iter().map(str::to_string).collect())),
        Err(Error::Forbidden(_)) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// What the operator has written.
fn before_path(query: &str) -> &str {
    if query.starts_with("path=") { "" } else { query.split("&path=").next().unwrap_or_default() }
}

/// `None`: it denies everything.
fn model(query: &str) -> Seen {
    let mut guard = None;
    let mut scopes = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value)?;
        match decoded(name)?.as_str() {
            "allow" if guard.is_none() => {
                guard = Some(match value.as_str() {
                    "user" => Guard::Jwt,
                    "service" => Guard::ApiKey,
                    "user,service" | "service,user" => Guard::Flexible,
                    _ => return None,
                });
            }
            "scope" if scopes.is_none() => {
                let tokens: Vec<&str> = value.split(' ').collect();
                scopes = Some(Scopes::parse(&tokens).ok()?.iter().map(str::to_string).collect());
            }
            _ => return None,
        }
    }
    Some((guard.unwrap_or(Guard::Flexible), scopes.unwrap_or_default()))
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(match byte {
            b'%' => (digit()? * 16 + digit()?) as u8,
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
