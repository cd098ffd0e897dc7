//! `X-Request-Id`, one value a line: what is taken over can stand in a log and in a header as it is.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use keyward::http::access_log::new_request_id;
use keyward::http::request::request_id;
use libfuzzer_sys::fuzz_target;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    for value in data.split(|b| *b == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(X_REQUEST_ID, value);
    }
    let first = headers.get(&X_REQUEST_ID);
    let taken = request_id(&headers);
    let is_sane = first.and_then(|value| value.to_str().ok()).is_some_and(|text| {
        !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    });
    assert_eq!(taken, first.filter(|_| is_sane));
    // What we make ourselves, we would take over.
    headers.insert(X_REQUEST_ID, new_request_id());
    assert!(request_id(&headers).is_some());
});
