//! Query strings: against a decoder that goes byte by byte.
#![no_main]

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use keyward::base::error::Error;
use keyward::http::form::Form;
use keyward_fuzz::request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    url_encoded_body(text);
    let fields = model(text);
    let known: Vec<&str> =
        fields.iter().flatten().map(|(name, _)| name.as_str()).filter(|name| !name.starts_with('!')).collect();
    let form = Form::read_query(&request(HeaderMap::new(), Some(text), b""), &known);
    let (Some(fields), Ok(mut form)) = (&fields, form) else {
        let form = Form::read_query(&request(HeaderMap::new(), Some(text), b""), &known);
        assert!(fields.is_none() && matches!(form, Err(Error::Malformed(_))), "{text:?}");
        return;
    };
    let mut breaks = known.len() < fields.len();
    for (name, value) in fields.iter().filter(|(name, _)| known.contains(&name.as_str())) {
        let read = form.optional(name, |text| Ok(text.to_string()));
        breaks |= value.contains('\0');
        assert_eq!(read.as_ref(), Some(value).filter(|value| !value.contains('\0')), "{name:?} of {text:?}");
    }
    assert_eq!(form.finish(Some(())).is_err(), breaks, "{text:?}");
});

/// As a body: fields that nobody knows and those without a value are passed over, two of one name are refused.
fn url_encoded_body(text: &str) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let known = ["token", "a"];
    let form = Form::read_url_encoded(&mut request(headers, None, text.as_bytes()), &known);
    let pairs: Option<Vec<(String, String)>> =
        text.split('&').filter(|pair| !pair.is_empty()).map(decoded_pair).collect();
    let pairs = pairs.map(|pairs| {
        let counts = |(name, value): &(String, String)| known.contains(&name.as_str()) && !value.is_empty();
        pairs.into_iter().filter(counts).collect::<Vec<_>>()
    });
    let Some(pairs) =
        pairs.filter(|pairs| known.iter().all(|name| pairs.iter().filter(|pair| pair.0 == *name).count() < 2))
    else {
        assert!(matches!(form, Err(Error::Malformed(_))), "{text:?}");
        return;
    };
    let mut form = form.expect("a form");
    for name in known {
        let value = pairs.iter().find(|pair| pair.0 == name).map(|pair| &pair.1);
        let read = form.optional(name, |text| Ok(text.to_string()));
        assert_eq!(read.as_ref(), value.filter(|value| !value.contains('\0')), "{text:?}");
    }
}

/// The fields in their order; `None` where one is there twice or cannot be decoded.
fn model(text: &str) -> Option<Vec<(String, String)>> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = decoded_pair(pair)?;
        if fields.iter().any(|(known, _)| *known == name) {
            return None;
        }
        fields.push((name, value));
    }
    Some(fields)
}

fn decoded_pair(pair: &str) -> Option<(String, String)> {
    let mut parts = pair.splitn(2, '=');
    Some((decoded(parts.next().unwrap_or_default())?, decoded(parts.next().unwrap_or_default())?))
}

/// As HTML forms are written (WHATWG URL Standard §5.1), but strictly: every `%` begins a code, and it is UTF-8.
fn decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()));
        match (bytes[at], escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 2;
            }
            (b'%', None) => return None,
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8(decoded).ok()
}
