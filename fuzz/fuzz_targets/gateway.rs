//! What a gateway's operator asks for in a query, and what a client can add to it: the first line is what follows the
//! route's path, the second the query, the third the name of a header that the client sends.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use keyward::api::authz::{demand, demand_before_path};
use keyward::base::error::Error;
use keyward::guard::requirements::{GatewayDemand, Guard};
use keyward::http::request::Parameters;
use keyward::keys::scopes::Scopes;
use keyward_fuzz::request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (parameter, rest) = text.split_once('\n').unwrap_or(("", text));
    let (query, name) = rest.split_once('\n').unwrap_or((rest, ""));
    let mut asked = request(HeaderMap::new(), Some(query), b"");
    if let Ok(sent) = name.parse::<HeaderName>() {
        asked.headers.insert(sent, HeaderValue::from_static(""));
        if passes_for_ours(name) {
            assert_eq!(seen(demand(&asked)), None, "{text:?}");
            assert_eq!(seen(demand_before_path(&asked)), None, "{text:?}");
            return;
        }
    }
    assert_eq!(seen(demand(&asked)), model(query), "{text:?}");

    asked.parameters = Parameters::new("/authz/ext-authz/*", [parameter.to_string(), String::new()]);
    let ours = before_path(parameter, query);
    assert_eq!(seen(demand_before_path(&asked)), ours.and_then(model), "{text:?}");

    // Whatever the client's path and query are, they change nothing.
    let Some(ours) = ours else { return };
    for theirs in
        ["", "*", "/x", "/x?allow=user", "/x&allow=user,service", "/&path=&scope=", "/../..", "/%26allow=user#"]
    {
        let query = format!("{ours}&path={theirs}");
        let asked = request(HeaderMap::new(), Some(&query), b"");
        assert_eq!(seen(demand_before_path(&asked)), model(ours), "{query:?}");
    }
    // What begins with anything else has been written by the operator, in the wrong place.
    for misplaced in ["&allow=user,service", "allow=user", "&path=&scope=", "%26allow=user", "#"] {
        let query = format!("{ours}&path={misplaced}");
        let asked = request(HeaderMap::new(), Some(&query), b"");
        assert_eq!(seen(demand_before_path(&asked)), None, "{query:?}");
    }
});

type Seen = Option<(Guard, Vec<String>)>;

fn seen(demand: Result<GatewayDemand, Error>) -> Seen {
    match demand {
        Ok(GatewayDemand { guard, scopes }) => Some((guard, scopes.iter().map(str::to_string).collect())),
        Err(Error::Forbidden(_)) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Whether PHP or CGI would read it as a name of ours, and a gateway would not.
fn passes_for_ours(name: &str) -> bool {
    let variable = |name: &str| name.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let ours = [
        "x-auth-type",
        "x-auth-user-id",
        "x-auth-email",
        "x-auth-email-verified",
        "x-auth-key-id",
        "x-auth-key-name",
        "x-auth-key-expires-at",
        "x-auth-external-id",
        "x-auth-scopes",
    ];
    ours.iter().any(|ours| variable(ours) == variable(name) && !ours.eq_ignore_ascii_case(name))
}

/// What the operator has written; `None`: it is where it would be passed over.
fn before_path<'a>(parameter: &str, query: &'a str) -> Option<&'a str> {
    let (ours, theirs) = match query.strip_prefix("path=") {
        Some(theirs) => ("", Some(theirs)),
        None => query.split_once("&path=").map_or((query, None), |(ours, theirs)| (ours, Some(theirs))),
    };
    let is_a_path = |theirs: &str| theirs.is_empty() || theirs == "*" || theirs.starts_with('/');
    let narrows = ours.starts_with("allow=") || ours.starts_with("scope=");
    match parameter {
        "" => theirs.is_none_or(is_a_path).then_some(ours),
        "/" if narrows && (theirs.is_some() || ours.contains('/')) => None,
        _ => Some(""),
    }
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
