//! The fields of a body or a query, with messages a person can act on.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::base::error::Error;
use crate::base::form_encoding::url_encoded;
use crate::http::request::Request;

/// How many broken rules an answer lists. A body can break more rules than it is long, and the answer must not be
/// larger than the body.
const TOLD: usize = 10;

/// The part of a field's name that is shown in messages.
fn shown(name: &str) -> &str {
    const ENOUGH: usize = 100;
    name.char_indices().nth(ENOUGH).map_or(name, |(end, _)| &name[..end])
}

/// The fields of a body or a query. Reading them collects the broken rules; [`Form::finish`] reports them all.
pub struct Form {
    fields: Map<String, Value>,
    /// The JSON in which the fields were sent. Empty: they are no JSON, or part of a larger one.
    json: Bytes,
    broken: Vec<String>,
    /// Why there is nothing to read, if the body is empty. Told only if a field is missing.
    unreadable: Option<Error>,
}

impl Form {
    /// `known`: the fields that the route accepts; any other field is a broken rule. An empty body has no fields, whatever
    /// its type.
    pub fn read(request: &mut Request, known: &[&str]) -> Result<Form, Error> {
        let body = std::mem::replace(&mut request.body, Ok(Bytes::new()))?;
        match json_fields(&request.headers, &body) {
            Ok((json, fields)) => Ok(Form { json, ..Form::of(fields, known) }),
            // Some clients declare a type for a body that they do not send.
            Err(error) if body.is_empty() => {
                let unreadable = request.headers.contains_key(CONTENT_TYPE).then_some(error);
                Ok(Form { unreadable, ..Form::of(Map::new(), known) })
            }
            Err(error) => Err(error),
        }
    }

    /// The fields of the query. All are text.
    pub fn read_query(request: &Request, known: &[&str]) -> Result<Form, Error> {
        let mut fields = Map::new();
        for pair in url_encoded(request.query.as_deref().unwrap_or_default()) {
            let (name, value) = pair.ok_or_else(|| not_decodable("Query"))?;
            if fields.contains_key(&*name) {
                return Err(Error::Malformed(format!("Query has {} twice", shown(&name))));
            }
            fields.insert(name.into_owned(), Value::String(value.into_owned()));
        }
        Ok(Form::of(fields, known))
    }

    /// The fields of a body of the type `application/x-www-form-urlencoded`, by OAuth's rules: a field without a value
    /// counts as missing, unknown fields are ignored, and no field may be repeated (RFC 6749 §3.2).
    pub fn read_url_encoded(request: &mut Request, known: &[&str]) -> Result<Form, Error> {
        let body = std::mem::replace(&mut request.body, Ok(Bytes::new()))?;
        let mut fields = Map::new();
        for pair in url_encoded(form_text(&request.headers, &body)?) {
            let (name, value) = pair.ok_or_else(|| not_decodable("Request body"))?;
            if value.is_empty() || !known.contains(&&*name) {
                continue;
            }
            if fields.contains_key(&*name) {
                return Err(Error::Malformed(format!("Request body has {name} twice")));
            }
            fields.insert(name.into_owned(), Value::String(value.into_owned()));
        }
        Ok(Form::of(fields, known))
    }

    fn of(fields: Map<String, Value>, known: &[&str]) -> Form {
        let broken = fields
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
            .map(|name| format!("property {} should not exist", shown(name)))
            .collect();
        Form { fields, json: Bytes::new(), broken, unreadable: None }
    }

    /// A required text. `rule` reads it; its error follows the field's name in the message. A field that is missing or
    /// not a text breaks the rules that an empty text breaks, and one more.
    pub fn required<T>(&mut self, name: &str, rule: impl FnOnce(&str) -> Result<T, &'static str>) -> Option<T> {
        if let Some(Value::String(text)) = self.fields.remove(name) {
            return self.judge(name, &text, rule);
        }
        self.judge(name, "", rule);
        self.broken.push(format!("{name} must be a string"));
        None
    }

    /// An optional text; null counts as missing.
    pub fn optional<T>(&mut self, name: &str, rule: impl FnOnce(&str) -> Result<T, &'static str>) -> Option<T> {
        match self.fields.remove(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => self.judge(name, &text, rule),
            Some(_) => {
                self.broken.push(format!("{name} must be a string"));
                None
            }
        }
    }

    /// An optional text that must not be null.
    pub fn given<T>(&mut self, name: &str, rule: impl FnOnce(&str) -> Result<T, &'static str>) -> Option<T> {
        if self.fields.contains_key(name) { self.required(name, rule) } else { None }
    }

    /// An optional text; `Some(None)` is null.
    pub fn nullable<T>(&mut self, name: &str, rule: impl FnOnce(&str) -> Result<T, &'static str>) -> Option<Option<T>> {
        match self.fields.get(name) {
            Some(Value::Null) => Some(None),
            _ => self.optional(name, rule).map(Some),
        }
    }

    /// An optional truth value that must not be null.
    pub fn boolean(&mut self, name: &str) -> Option<bool> {
        match self.fields.remove(name)? {
            Value::Bool(truth) => Some(truth),
            _ => {
                self.broken.push(format!("{name} must be a boolean value"));
                None
            }
        }
    }

    /// An optional list of texts; `Some(None)` is null.
    pub fn nullable_texts<T, R: fmt::Display>(
        &mut self,
        name: &str,
        rule: impl FnOnce(&[&str]) -> Result<T, R>,
    ) -> Option<Option<T>> {
        match self.fields.get(name) {
            Some(Value::Null) => Some(None),
            _ => self.texts(name, rule).map(Some),
        }
    }

    /// A required list of texts.
    pub fn required_texts<T, R: fmt::Display>(
        &mut self,
        name: &str,
        rule: impl FnOnce(&[&str]) -> Result<T, R>,
    ) -> Option<T> {
        // What is missing is no list.
        self.fields.entry(name).or_insert(Value::Bool(false));
        self.texts(name, rule)
    }

    /// An optional list of texts; null counts as an empty one.
    pub fn texts<T, R: fmt::Display>(&mut self, name: &str, rule: impl FnOnce(&[&str]) -> Result<T, R>) -> Option<T> {
        let items = match self.fields.remove(name)? {
            Value::Null => Vec::new(),
            Value::Array(items) => items,
            _ => {
                self.broken.push(format!("{name} must be an array"));
                return None;
            }
        };
        let Some(texts) = items.iter().map(Value::as_str).collect::<Option<Vec<_>>>() else {
            self.broken.push(format!("each value in {name} must be a string"));
            return None;
        };
        rule(&texts).map_err(|rule| self.broken.push(format!("{name} {rule}"))).ok()
    }

    /// A required whole number. `1.0` is one, as in JSON Schema.
    pub fn number(&mut self, name: &str, accepted: RangeInclusive<u32>) -> Option<u32> {
        let (least, most) = accepted.into_inner();
        let accepted = f64::from(least)..=f64::from(most);
        let number = self.fields.remove(name).and_then(|value| value.as_f64());
        let number = number.filter(|number| number.fract() == 0.0 && accepted.contains(number));
        if number.is_none() {
            self.broken.push(format!("{name} must be a whole number from {least} to {most}"));
        }
        // It is whole and in range, so the cast is exact.
        number.map(|number| number as u32)
    }

    /// An optional whole number; `Some(None)` is null.
    pub fn nullable_number(&mut self, name: &str, accepted: RangeInclusive<u32>) -> Option<Option<u32>> {
        match self.fields.get(name)? {
            Value::Null => Some(None),
            _ => self.number(name, accepted).map(Some),
        }
    }

    /// An optional object of any JSON, in a field of the body itself; `Some(None)` is null. `rule` gets it as it was
    /// sent, because a parsed number would lose digits.
    pub fn any_object<T>(
        &mut self,
        name: &str,
        rule: impl FnOnce(&RawValue) -> Result<T, &'static str>,
    ) -> Option<Option<T>> {
        let is_object = match self.fields.remove(name)? {
            Value::Null => return Some(None),
            value => value.is_object(),
        };
        let sent: BTreeMap<String, &RawValue> = serde_json::from_slice(&self.json).unwrap_or_default();
        let read = match sent.get(name).filter(|_| is_object) {
            Some(object) => rule(object),
            None => Err("must be an object"),
        };
        read.map(Some).map_err(|rule| self.broken.push(format!("{name} {rule}"))).ok()
    }

    /// An optional object with these known fields; `Some(None)` is null.
    pub fn object<T>(
        &mut self,
        name: &str,
        known: &[&str],
        read: impl FnOnce(&mut Form) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.fields.remove(name)? {
            Value::Null => Some(None),
            value => self.inner(name, value, known, read).map(Some),
        }
    }

    /// A required list of objects with these known fields, within the accepted number.
    pub fn objects<T>(
        &mut self,
        name: &str,
        accepted: RangeInclusive<usize>,
        known: &[&str],
        mut read: impl FnMut(&mut Form) -> Option<T>,
    ) -> Option<Vec<T>> {
        let (least, most) = accepted.into_inner();
        match self.fields.remove(name) {
            Some(Value::Array(items)) if (least..=most).contains(&items.len()) => {
                let read = |(index, item)| self.inner(&format!("{name}.{index}"), item, known, &mut read);
                // All are read, so that all broken rules are reported.
                items.into_iter().enumerate().map(read).collect::<Vec<_>>().into_iter().collect()
            }
            _ => {
                self.broken.push(format!("{name} must be an array of {least} to {most} objects"));
                None
            }
        }
    }

    fn inner<T>(
        &mut self,
        name: &str,
        value: Value,
        known: &[&str],
        read: impl FnOnce(&mut Form) -> Option<T>,
    ) -> Option<T> {
        let Value::Object(fields) = value else {
            self.broken.push(format!("{name} must be an object"));
            return None;
        };
        let mut form = Form::of(fields, known);
        let value = read(&mut form);
        self.broken.extend(form.broken.iter().map(|rule| format!("{name}.{rule}")));
        value
    }

    /// A required text. Anything else counts as an empty text, and breaks no further rule.
    pub fn text_or_empty<T>(&mut self, name: &str, rule: impl FnOnce(&str) -> Result<T, &'static str>) -> Option<T> {
        let text = match self.fields.remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        self.judge(name, &text, rule)
    }

    fn judge<T>(&mut self, name: &str, text: &str, rule: impl FnOnce(&str) -> Result<T, &'static str>) -> Option<T> {
        // PostgreSQL cannot store NUL in text.
        let outcome = if text.contains('\0') { Err("must not contain NUL characters") } else { rule(text) };
        outcome.map_err(|rule| self.broken.push(format!("{name} {rule}"))).ok()
    }

    /// Checks a rule about several fields.
    pub(crate) fn require(&mut self, holds: bool, rule: &str) {
        if !holds {
            self.broken.push(rule.to_string());
        }
    }

    /// The values, or the broken rules: of many, the first.
    pub fn finish<T>(mut self, values: Option<T>) -> Result<T, Error> {
        match (values, self.unreadable) {
            (Some(values), _) if self.broken.is_empty() => Ok(values),
            (_, Some(error)) => Err(error),
            _ => {
                let more = self.broken.len().saturating_sub(TOLD);
                if more > 0 {
                    self.broken.truncate(TOLD);
                    self.broken.push(format!("and {more} more"));
                }
                Err(Error::BrokenRules(self.broken))
            }
        }
    }
}

/// The `client_secret` of a body of the type `application/x-www-form-urlencoded`. `None`: there is none, or the body cannot
/// be read, which is told to those who are admitted.
pub(crate) fn client_secret(request: &Request) -> Option<String> {
    let text = form_text(&request.headers, request.body.as_ref().ok()?).ok()?;
    let mut found = None;
    for pair in url_encoded(text) {
        let (name, value) = pair?;
        if name == "client_secret" && !value.is_empty() {
            // Of two, it is not clear which one counts: the empty text is no key.
            found = Some(if found.is_none() { value.into_owned() } else { String::new() });
        }
    }
    found
}

/// The text of a body of the type `application/x-www-form-urlencoded`.
fn form_text<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<&'a str, Error> {
    is_readable(headers, URL_ENCODED)?;
    std::str::from_utf8(body).map_err(|_| not_decodable("Request body"))
}

const JSON: &str = "application/json";
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const URL_ENCODED: &str = "application/x-www-form-urlencoded";

fn not_decodable(what: &str) -> Error {
    Error::Malformed(format!("{what} is not percent-encoded UTF-8"))
}

/// The JSON of a body, and its fields.
fn json_fields(headers: &HeaderMap, body: &Bytes) -> Result<(Bytes, Map<String, Value>), Error> {
    is_readable(headers, JSON)?;
    // RFC 8259 §8.1: a byte order mark may be ignored.
    let json = body.slice(if body.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 }..);
    match serde_json::from_slice(&json) {
        Ok(Unambiguous(Value::Object(fields))) => Ok((json, fields)),
        Ok(_) => Err(Error::Malformed("Request body must be a JSON object".to_string())),
        Err(error) => Err(Error::Malformed(format!("Request body is not valid JSON: {error}"))),
    }
}

/// Checks that the body has this type, is not compressed, and is in UTF-8 (RFC 9110 §8.3, §8.4).
fn is_readable(headers: &HeaderMap, media_type: &str) -> Result<(), Error> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let value = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
    let mut parts = value.unwrap_or_default().split(';').map(str::trim);
    if !parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case(media_type)) {
        return Err(Error::Malformed(format!("Content-Type must be {media_type}")));
    }
    let codings = headers.get_all(CONTENT_ENCODING).iter().flat_map(|list| list.as_bytes().split(|b| *b == b','));
    if codings.map(<[u8]>::trim_ascii).any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(Error::UnsupportedCoding);
    }
    let mut charsets = parts.filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    let is_ours = |charset: &str| ["utf-8", "us-ascii"].iter().any(|ours| charset.eq_ignore_ascii_case(ours));
    if charsets.all(is_ours) { Ok(()) } else { Err(Error::UnsupportedCharset) }
}

/// A JSON value whose objects have no repeated names. A repeated name is refused, because two readers could take either
/// value.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unambiguous, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Unambiguous;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Unambiguous, E> {
        Ok(Unambiguous(Value::Null))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Unambiguous, E> {
        Ok(Unambiguous(Value::Bool(truth)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Unambiguous, E> {
        Ok(Unambiguous(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Unambiguous, E> {
        Ok(Unambiguous(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Unambiguous, E> {
        Ok(Unambiguous(number.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Unambiguous, E> {
        Ok(Unambiguous(text.into()))
    }

    fn visit_string<E>(self, text: String) -> Result<Unambiguous, E> {
        Ok(Unambiguous(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unambiguous, A::Error> {
        let mut values = Vec::new();
        while let Some(Unambiguous(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Unambiguous(Value::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unambiguous, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if fields.contains_key(&name) {
                return Err(de::Error::custom(format!("property {} is there twice", shown(&name))));
            }
            let Unambiguous(value) = map.next_value()?;
            fields.insert(name, value);
        }
        Ok(Unambiguous(Value::Object(fields)))
    }
}
