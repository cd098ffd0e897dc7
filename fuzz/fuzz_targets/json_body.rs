//! JSON bodies, the content type on the first line: every reader of a field against what serde_json makes of the body.
#![no_main]

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use keyward::accounts::email::Email;
use keyward::base::error::Error;
use keyward::http::form::Form;
use keyward_fuzz::request;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let (content_type, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let mut headers = HeaderMap::new();
    if !content_type.is_empty() {
        let Ok(value) = HeaderValue::from_bytes(content_type) else { return };
        headers.insert(CONTENT_TYPE, value);
    }
    let is_ascii = content_type.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'));
    let essence = String::from_utf8_lossy(content_type).split(';').next().map(|essence| essence.trim().to_lowercase());
    let is_json = is_ascii && essence.as_deref() == Some("application/json");
    // A byte order mark before it is passed over (RFC 8259 §8.1).
    let json = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    let fields = match serde_json::from_slice(json) {
        Ok(Value::Object(fields)) if is_json => Some(fields),
        _ if body.is_empty() => Some(Map::new()),
        _ => None,
    };
    let names = fields.iter().flatten().map(|(name, _)| name.as_str());
    let known: Vec<&str> = names.filter(|name| name.len() != 7).collect();
    match (Form::read(&mut request(headers, None, body), &known), &fields) {
        (Ok(form), Some(fields)) => {
            assert_eq!(pairs(fields), colons(json), "a name is there twice");
            read_all(form, fields);
        }
        (Ok(_), None) => panic!("this was read: {}", body.escape_ascii()),
        (Err(Error::Malformed(why)), Some(fields)) => {
            // A reader that takes the last of two sees fewer pairs than there are.
            assert!(why.contains("is there twice") && pairs(fields) < colons(json), "{why}: {}", body.escape_ascii());
        }
        (Err(Error::Malformed(_)), None) => {}
        (Err(error), _) => panic!("{error:?}"),
    }
});

/// Names with their values, also within.
fn pairs(fields: &Map<String, Value>) -> usize {
    fn within(value: &Value) -> usize {
        match value {
            Value::Object(fields) => pairs(fields),
            Value::Array(items) => items.iter().map(within).sum(),
            _ => 0,
        }
    }
    fields.values().map(|value| 1 + within(value)).sum()
}

/// Of good JSON; those in texts are not counted.
fn colons(json: &[u8]) -> usize {
    let (mut in_text, mut escaped, mut count) = (false, false, 0);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b':' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

/// Reads each field in one of the ways in which fields are read.
fn read_all(mut form: Form, fields: &Map<String, Value>) {
    let mut breaks = fields.keys().any(|name| name.len() == 7);
    for (name, value) in fields.iter().filter(|(name, _)| name.len() != 7) {
        breaks |= !read(&mut form, name, value);
    }
    assert_eq!(form.finish(Some(())).is_err(), breaks, "{fields:?}");
}

/// Whether the field is as it is asked for.
fn read(form: &mut Form, name: &str, value: &Value) -> bool {
    let keep = |text: &str| Ok(text.to_string());
    let text = value.as_str().filter(|text| !text.contains('\0'));
    if name == "email" {
        return form.text_or_empty("email", Email::parse).is_some();
    }
    match name.bytes().map(usize::from).sum::<usize>() % 9 {
        0 => {
            assert_eq!(form.required(name, keep).as_deref(), text);
            text.is_some()
        }
        1 => {
            assert_eq!(form.optional(name, keep).as_deref(), text);
            text.is_some() || value.is_null()
        }
        2 => {
            assert_eq!(form.given(name, keep).as_deref(), text);
            text.is_some()
        }
        3 => {
            let read = form.nullable(name, keep);
            assert_eq!(read.as_ref().is_some_and(Option::is_none), value.is_null());
            assert_eq!(read.flatten().as_deref(), text);
            text.is_some() || value.is_null()
        }
        4 => {
            assert_eq!(form.boolean(name), value.as_bool());
            value.is_boolean()
        }
        5 => {
            let number = form.number(name, 2..=1000);
            let expected = (2..=1000).find(|expected| value.as_f64() == Some(f64::from(*expected)));
            assert_eq!(number, expected);
            expected.is_some()
        }
        6 => {
            let texts = form.texts(name, |texts| Ok::<_, &str>(texts.iter().map(|text| text.to_string()).collect::<Vec<_>>()));
            let expected = match value {
                Value::Null => Some(Vec::new()),
                Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_string)).collect(),
                _ => None,
            };
            assert_eq!(texts, expected);
            expected.is_some()
        }
        7 => {
            let known: Vec<&str> = value.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            let mut all_good = true;
            let read = form.object(name, &known, |form| {
                value.as_object().into_iter().flatten().for_each(|(name, value)| all_good &= read(form, name, value));
                Some(())
            });
            assert_eq!(read, value.is_null().then_some(None).or(value.is_object().then_some(Some(()))));
            (value.is_null() || value.is_object()) && all_good
        }
        _ => {
            let read = form.objects(name, 0..=2, &["a"], |form| form.required("a", keep));
            let expected: Option<Vec<String>> = value.as_array().filter(|items| items.len() <= 2).and_then(|items| {
                items.iter().map(|item| item.as_object()?.get("a")?.as_str().map(str::to_string)).collect()
            });
            let others = value.as_array().into_iter().flatten().filter_map(Value::as_object).any(|item| item.len() > 1);
            let nul = expected.iter().flatten().any(|text| text.contains('\0'));
            assert_eq!(read, expected.clone().filter(|_| !nul));
            expected.is_some() && !others && !nul
        }
    }
}
