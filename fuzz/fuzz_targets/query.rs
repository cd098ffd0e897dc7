//! Query strings: against a decoder that goes byte by byte.
#![no_main]

use http::HeaderMap;
use keyward::error::Error;
use keyward::http::request::Form;
use keyward_fuzz::request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
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

/// The fields in their order; `None` where one is there twice or no UTF-8.
fn model(text: &str) -> Option<Vec<(String, String)>> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let mut parts = pair.splitn(2, '=');
        let name = decoded(parts.next().unwrap_or_default())?;
        let value = decoded(parts.next().unwrap_or_default())?;
        if fields.iter().any(|(known, _)| *known == name) {
            return None;
        }
        fields.push((name, value));
    }
    Some(fields)
}

/// As HTML forms are written (WHATWG URL Standard §5.1), in strict UTF-8.
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
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8(decoded).ok()
}
