//! The headers with credentials: the first line says what the route takes, the others are headers. Whoever is admitted
//! sent exactly what admits.
#![no_main]

use std::sync::LazyLock;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use keyward::app::App;
use keyward::error::Error;
use keyward::guard::{Guard, Terms, Verdict};
use keyward::principal::Principal;
use keyward_fuzz::account::{Account, SCOPE, config, open};
use libfuzzer_sys::fuzz_target;

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
    let scope = if says("other") { Some("other") } else { says("scope").then_some(SCOPE) };
    let terms = Terms { scope, derived: says("derived"), limited: says("limited") };
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let Ok(name) = HeaderName::from_bytes(&line[..colon]) else { continue };
        let Ok(value) = HeaderValue::from_bytes(&account.fill(&line[colon + 1..])) else { continue };
        headers.append(name, value);
    }
    let expected = model(account, guard, terms, &headers);
    match judge(app, guard, terms, &headers) {
        Ok(principal) => {
            assert_eq!(Some(&principal), expected.as_ref(), "{}", data.escape_ascii());
            let mut again = guard.read_again(app, terms, &headers, &principal);
            assert!(matches!(answer(app, guard, terms, &mut again), Ok(same) if same == principal));
        }
        Err(Error::Unauthenticated { .. } | Error::InsufficientScope { .. }) => {
            assert_eq!(expected, None, "{}", data.escape_ascii());
        }
        Err(error) => panic!("{error:?}"),
    }
});

fn judge(app: &App, guard: Guard, terms: Terms, headers: &HeaderMap) -> Result<Principal, Error> {
    answer(app, guard, terms, &mut guard.read(app, terms, headers))
}

/// As a connection does it, but waiting.
fn answer(
    app: &App,
    guard: Guard,
    terms: Terms,
    credentials: &mut keyward::guard::Credentials,
) -> Result<Principal, Error> {
    loop {
        match guard.judge(app, terms, credentials) {
            Verdict::Admitted(principal) => return Ok(principal),
            Verdict::Refused(error) => return Err(error),
            Verdict::AskForKey(hash) => credentials.found_key(app.known_keys.get(&[hash])?.pop().flatten()),
            Verdict::AskForService(id) => credentials.found_service(app.service_keys.get(&[id])?.pop().flatten()),
            Verdict::AskForSession(id) => credentials.found_session(app.live_sessions.get(&[id])?.pop().flatten()),
        }
    }
}

/// Whom these headers admit.
fn model(account: &Account, guard: Guard, terms: Terms, headers: &HeaderMap) -> Option<Principal> {
    let only = |name: &HeaderName| {
        let values: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
        if let [value] = values[..] { Some(value.as_bytes()) } else { None }
    };
    let token = only(&AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
    });
    let takes_key = guard == Guard::ApiKey || guard == Guard::Flexible;
    let takes_user = guard == Guard::Jwt || guard == Guard::Flexible;
    let has_scope = terms.scope.is_none_or(|scope| scope == SCOPE);
    let by_key = only(&X_API_KEY) == Some(account.key.as_bytes());
    let by_derived = terms.derived && token == Some(account.derived.as_bytes());
    let by_user = token == Some(account.access.as_bytes());
    match guard {
        Guard::Public => Some(Principal::Anonymous),
        _ if takes_key && has_scope && (by_key || by_derived) => Some(account.as_service()),
        _ if takes_user && by_user => Some(account.as_user()),
        _ => None,
    }
}
