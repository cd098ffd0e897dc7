//! Whole requests as the OpenAPI document describes them, and beside it, to the real server over a socket: each is
//! answered, with a documented status, never with a fault of ours, in the shape of the contract, without a secret.
#![no_main]

use std::cell::RefCell;

use keyward_fuzz::account::{ORIGIN, assert_no_secret};
use keyward_fuzz::operations::{Call, call};
use keyward_fuzz::service::{Service, assert_error_shape};
use keyward_harness::http_client::Answer;
use libfuzzer_sys::arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

thread_local! {
    static SERVICE: RefCell<Service> = RefCell::new(Service::start());
}

/// Requests of one input.
const MOST: usize = 6;

fuzz_target!(|data: &[u8]| {
    SERVICE.with_borrow_mut(|service| {
        let mut u = Unstructured::new(data);
        let mut changed = false;
        for _ in 0..MOST {
            if u.is_empty() {
                break;
            }
            let Ok(call) = call(&mut u, &service.account) else { break };
            let answer = service.send(&call.bytes);
            check(&call, &answer);
            changed |= answer.status < 300 && call.method != "GET" && call.method != "HEAD";
            // Failed logins are remembered, and after some of them good ones wait.
            changed |= answer.status == 429;
        }
        if changed {
            service.renew_account();
        }
    });
});

fn check(call: &Call, answer: &Answer) {
    let shown = || format!("{}\n→ {answer:?}", call.bytes.escape_ascii());
    assert!((200..500).contains(&answer.status), "{}", shown());
    if answer.status == 431 {
        return;
    }
    let id = answer.header("x-request-id").unwrap_or_else(|| panic!("without an id: {}", shown()));
    let is_sane =
        |id: &&str| (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    assert!(is_sane(&id), "{}", shown());
    if let Some(sent) = call.id.as_deref().filter(is_sane) {
        assert_eq!(id, sent, "{}", shown());
    }
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{}", shown());
    if call.as_documented {
        assert!(call.operation.documents(answer.status), "not documented: {}", shown());
    }
    let is_error = answer.status >= 400;
    if is_error && call.method != "HEAD" {
        assert_error_shape(answer.status, &answer.body);
    }
    assert!(answer.status != 401 || answer.header("www-authenticate").is_some(), "{}", shown());
    assert!(answer.status != 405 || answer.header("allow").is_some(), "{}", shown());
    assert!(answer.status != 429 || answer.header("retry-after").is_some(), "{}", shown());
    // Answers that are only for who asks are kept by nobody else.
    assert!(!is_error || answer.header("cache-control") == Some("no-store"), "{}", shown());
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!(allowed, call.origin.as_deref().filter(|origin| *origin == ORIGIN), "{}", shown());
    assert_eq!(answer.header("access-control-allow-credentials"), None, "{}", shown());
    if call.operation.path.starts_with("/authz/") && answer.status == 200 && call.as_documented {
        assert!(answer.body.is_empty(), "{}", shown());
        for name in [
            "type",
            "user-id",
            "email",
            "email-verified",
            "key-id",
            "key-name",
            "key-expires-at",
            "external-id",
            "scopes",
        ] {
            assert!(answer.header(&format!("x-auth-{name}")).is_some(), "{}", shown());
        }
    }
    if let Ok(body) = serde_json::from_slice(&answer.body) {
        assert_times(&body);
    }
    assert_no_secret(&String::from_utf8_lossy(&answer.body), "an answer");
    for (name, value) in &answer.headers {
        assert_no_secret(&String::from_utf8_lossy(value.as_bytes()), name.as_str());
    }
}

/// Every time that is told is written in the one form that is promised.
fn assert_times(value: &Value) {
    let is_time = |name: &str| name.ends_with("At") || matches!(name, "from" | "to" | "start" | "timestamp");
    match value {
        Value::Object(fields) if !fields.contains_key("openapi") => {
            for (name, value) in fields {
                if let Some(text) = value.as_str().filter(|_| is_time(name)) {
                    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
                    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{name}: {text}");
                }
                assert_times(value);
            }
        }
        Value::Array(items) => items.iter().for_each(assert_times),
        _ => {}
    }
}
