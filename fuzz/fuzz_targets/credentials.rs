//! The headers with credentials: the first line says what the route takes, the others are headers. Those who are
//! admitted sent exactly what admits.
#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use keyward::app::App;
use keyward::guard::principal::Principal;
use keyward::guard::requirements::{Guard, Requirements};
use keyward::keys::key::KeyHash;
use keyward::keys::scopes::Scopes;
use keyward_fuzz::account::{Account, SCOPE, config, open};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

static APP: LazyLock<(App, Account)> = LazyLock::new(|| {
    let app = open(&config());
    let account = Account::new(&app);
    (app, account)
});

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

fuzz_target!(|data: &[u8]| {
    let (app, account) = &*APP;
    let mut lines = data.split(|b| *b == b'\n');
    let route = lines.next().unwrap_or_default();
    let says = |word: &str| route.split(|b| *b == b' ').any(|said| said == word.as_bytes());
    let guards = [("jwt", Guard::Jwt), ("key", Guard::ApiKey), ("flexible", Guard::Flexible)];
    let guard = guards.iter().find(|(word, _)| says(word)).map_or(Guard::Public, |(_, guard)| *guard);
    let wanted: Vec<&str> = [SCOPE, "other"].into_iter().filter(|scope| says(scope)).collect();
    let scopes = Scopes::parse(&wanted).expect("scopes");
    let (derived, limited, oauth) = (says("derived"), says("limited"), says("oauth"));
    let requirements = Requirements { scopes: &scopes, derived, limited, even_paused: false, from_anywhere: false, oauth };
    let client = IpAddr::from([127, 0, 0, 1]);
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let Ok(name) = HeaderName::from_bytes(&line[..colon]) else { continue };
        let Ok(value) = HeaderValue::from_bytes(&account.fill(&line[colon + 1..])) else { continue };
        headers.append(name, value);
    }
    let expected = model(account, guard, requirements, &headers);
    let whom = |admitted: Option<Principal>| admitted.map(|principal| principal.ids());
    let settle = |credentials| guard.settle(app, requirements, credentials).expect("a store that answers");
    let admitted = settle(guard.read(app, requirements, &headers, client));
    assert_eq!(whom(admitted.clone()), expected, "{}", data.escape_ascii());
    if let Some(principal) = admitted {
        let again = settle(guard.read_again(app, requirements, &headers, client, &principal));
        assert_eq!(whom(again), expected, "{}", data.escape_ascii());
    }
});

/// The ids of whom these headers admit.
fn model(
    account: &Account,
    guard: Guard,
    requirements: Requirements<'_>,
    headers: &HeaderMap,
) -> Option<Option<[Uuid; 2]>> {
    let only = |name: &HeaderName| {
        let values: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
        if let [value] = values[..] { Some(value.as_bytes()) } else { None }
    };
    let of_scheme = |scheme: &str| {
        let (sent, credential) = only(&AUTHORIZATION)?.split_at_checked(scheme.len())?;
        sent.eq_ignore_ascii_case(scheme.as_bytes()).then_some(credential.trim_ascii())
    };
    let key = account.key.as_bytes();
    let (bearer, basic) = (of_scheme("bearer "), of_scheme("basic "));
    // What is sent in two ways is sent in none (RFC 6749 §2.3).
    let takes_authorization = bearer.is_some() || basic.is_some() || headers.get_all(AUTHORIZATION).iter().count() > 1;
    let is_twice = requirements.oauth && headers.contains_key(X_API_KEY) && takes_authorization;
    let by_basic = requirements.oauth && basic.is_some_and(|pair| is_basic(pair, &account.key));
    let by_header = only(&X_API_KEY) == Some(key);
    // Of two keys neither counts, unless they are the same.
    let by_key = match (headers.contains_key(X_API_KEY), bearer.is_some_and(|token| KeyHash::of(token).is_some())) {
        _ if is_twice => false,
        (true, true) => by_header && bearer == Some(key),
        (true, false) => by_header,
        (false, _) => by_basic || bearer == Some(key),
    };
    let by_derived = requirements.derived && bearer == Some(account.derived.as_bytes()) && !is_twice;
    let by_user = bearer == Some(account.access.as_bytes());
    let takes_key = guard == Guard::ApiKey || guard == Guard::Flexible;
    let takes_user = guard == Guard::Jwt || guard == Guard::Flexible;
    let service = || APP.1.as_service(&APP.0).ids();
    match guard {
        Guard::Public => Some(None),
        _ if takes_key && !requirements.scopes.contains("other") && (by_key || by_derived) => Some(service()),
        _ if takes_user && by_user && !is_twice => Some(account.as_user().ids()),
        _ => None,
    }
}

/// RFC 7617 §2, with RFC 6749 §2.3.1: a user of any name, a colon, and the key, which may be percent-encoded.
fn is_basic(pair: &[u8], key: &str) -> bool {
    let pair = BASE64_STANDARD.decode(pair).ok().and_then(|pair| String::from_utf8(pair).ok());
    let Some(password) = pair.as_deref().and_then(|pair| pair.split_once(':')).map(|(_, password)| password) else {
        return false;
    };
    let mut decoded = Vec::new();
    let mut rest = password.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        if *first != b'%' {
            decoded.push(if *first == b'+' { b' ' } else { *first });
            continue;
        }
        let code = others.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) else { return false };
        decoded.push(byte);
        rest = &others[2..];
    }
    decoded == key.as_bytes()
}
