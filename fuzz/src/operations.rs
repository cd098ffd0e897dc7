//! Requests drawn from `static/openapi.json`: mostly what the document asks for, now and then anything else.

use std::sync::LazyLock;

use keyward_harness::openapi::{DOCUMENT, resolved};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use serde_json::{Map, Value, json};

use crate::account::Account;

/// Everything that the document describes.
pub static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
    let mut operations = Vec::new();
    for (path, item) in DOCUMENT["paths"].as_object().into_iter().flatten() {
        let shared = item["parameters"].as_array().into_iter().flatten();
        for (method, described) in item.as_object().into_iter().flatten().filter(|(key, _)| *key != "parameters") {
            let own = described["parameters"].as_array().into_iter().flatten();
            operations.push(Operation {
                method: method.to_uppercase(),
                path,
                parameters: shared.clone().chain(own).map(resolved).collect(),
                content: resolved(&described["requestBody"])["content"].as_object().and_then(|all| all.iter().next()),
                responses: &described["responses"],
            });
        }
    }
    operations
});

pub struct Operation {
    pub method: String,
    pub path: &'static str,
    parameters: Vec<&'static Value>,
    /// The media type of the body, and what is said of it.
    content: Option<(&'static String, &'static Value)>,
    responses: &'static Value,
}

/// A request, and what is to be known of it to judge the answer.
pub struct Call {
    pub operation: &'static Operation,
    pub method: String,
    pub id: Option<String>,
    /// The only `Origin`, if there is one.
    pub origin: Option<String>,
    /// Whether the path and the method are those of the operation.
    pub as_documented: bool,
    pub bytes: Vec<u8>,
}

impl Operation {
    /// Whether the document knows of this answer.
    pub fn documents(&self, status: u16) -> bool {
        self.responses.get(status.to_string()).is_some()
    }
}

/// Headers that a client or a proxy may send; what is in them is drawn.
const HEADERS: [&str; 24] = [
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "cache-control",
    "content-encoding",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "origin",
    "range",
    "te",
    "upgrade",
    "user-agent",
    "x-auth-user-id",
    "x-forwarded-for",
    "x-forwarded-method",
    "x-forwarded-uri",
    "x-http-method-override",
    "x-request-id",
];

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get"];

/// What has broken readers of numbers, times, texts and lists before.
const TEXTS: [&str; 44] = [
    "",
    "0",
    "-1",
    "1",
    "50",
    "200",
    "4294967296",
    "1e3",
    "null",
    "true",
    "0s",
    "1s",
    "15m",
    "1h",
    "7d",
    "30d",
    "hour",
    "day",
    "2030-01-31T12:00:00Z",
    "2999-12-31T23:59:60.999+23:59",
    "9999-12-31T23:59:59.999Z",
    "9999-12-31T23:59:60Z",
    "0000-01-01T00:00:00Z",
    "1970-01-01T00:00:00-00:01",
    "keys:verify",
    "user",
    "service",
    "access_token",
    "*",
    "gzip",
    "gzip;q=0, *;q=1",
    "application/json",
    "application/x-www-form-urlencoded",
    "bob@example.com",
    "İ@ÖSTERREICH.EXAMPLE",
    "\u{0}",
    "\u{202e}\u{200b}\u{1f600}",
    "docs.js",
    "127.0.0.1, ::1",
    "00000000-0000-0000-0000-000000000000",
    "https://app.example.com",
    "https://app.example.com.evil.example",
    "user,service",
    "\"a\", W/\"b\"",
];

/// The next request that the input makes.
pub fn call(u: &mut Unstructured<'_>, account: &Account) -> Result<Call> {
    let operation = u.choose(&OPERATIONS)?;
    let mut as_documented = true;
    let method = if u.ratio(1, 12)? {
        as_documented = false;
        u.choose(&METHODS)?.to_string()
    } else {
        operation.method.clone()
    };
    let mut target = String::new();
    for segment in operation.path.split('/').skip(1) {
        target.push('/');
        match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => {
                let value = encoded(&parameter(u, operation, "path", name, account)?);
                as_documented &= !value.is_empty();
                target.push_str(&value);
            }
            None => target.push_str(segment),
        }
    }
    if u.ratio(1, 12)? {
        target.push_str(u.choose(&["/", "//", "/.", "/%2e%2e", "%00", "/x"])?);
        as_documented = false;
    }
    let mut separator = '?';
    for known in operation.parameters.iter().filter(|known| known["in"] == "query") {
        for _ in 0..u.choose(&[1, 1, 1, 0, 0, 2])?.to_owned() {
            let name = known["name"].as_str().unwrap_or_default();
            target
                .push_str(&format!("{separator}{name}={}", encoded(&parameter(u, operation, "query", name, account)?)));
            separator = '&';
        }
    }
    if u.ratio(1, 12)? {
        target.push_str(&format!("{separator}{}={}", encoded(&text(u)?), encoded(&text(u)?)));
    }
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: keyward.example\r\n");
    head.push_str(&credentials(u, account)?);
    let (mut id, mut origins) = (None, Vec::new());
    for _ in 0..u.int_in_range(0..=3)? {
        let name = *u.choose(&HEADERS)?;
        let value: String = text(u)?.chars().filter(|c| !c.is_control()).collect();
        if name == "x-request-id" && id.is_none() {
            id = Some(value.trim_matches([' ', '\t']).to_string());
        }
        if name == "origin" {
            origins.push(value.trim_matches([' ', '\t']).to_string());
        }
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut body = Vec::new();
    if let Some((media_type, content)) = operation.content {
        if !u.ratio(1, 16)? {
            head.push_str(&format!("Content-Type: {media_type}\r\n"));
        }
        body = match media_type.as_str() {
            "application/x-www-form-urlencoded" => form(u, &content["schema"], account)?.into_bytes(),
            _ if u.ratio(1, 16)? => u.bytes(u.len().min(64))?.to_vec(),
            _ => value(u, "", &content["schema"], account, 0)?.to_string().into_bytes(),
        };
    } else if u.ratio(1, 12)? {
        body = text(u)?.into_bytes();
    }
    if u.ratio(1, 8)? {
        head.push_str("Transfer-Encoding: chunked\r\n\r\n");
        let mut chunked = Vec::new();
        for chunk in body.chunks(u.int_in_range(1..=64)?) {
            chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            chunked.extend_from_slice(chunk);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        body = chunked;
    } else {
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    }
    let bytes = [head.as_bytes(), &body].concat();
    let origin = origins.pop().filter(|_| origins.is_empty());
    Ok(Call { operation, method, id, origin, as_documented, bytes })
}

/// A text of the input's own, or one that is known to be awkward.
fn text(u: &mut Unstructured<'_>) -> Result<String> {
    if u.ratio(1, 2)? {
        return Ok(u.choose(&TEXTS)?.to_string());
    }
    let text: &str = u.arbitrary()?;
    Ok(text.chars().take(u.int_in_range(0..=300)?).collect())
}

fn credentials(u: &mut Unstructured<'_>, account: &Account) -> Result<String> {
    let Account { access, refresh, derived, key, .. } = account;
    Ok(match u.int_in_range(0..=15)? {
        0 => String::new(),
        1 => format!("Authorization: Bearer {refresh}\r\n"),
        12 => format!("Authorization: Bearer {key}\r\n"),
        13 => String::from_utf8_lossy(&account.fill(b"Authorization: Basic <basic>\r\n")).into_owned(),
        2 => format!("Authorization: Basic {access}\r\n"),
        3 => format!("Authorization: Bearer {access}A\r\nx-api-key: {key}0\r\n"),
        4 => format!("Authorization: Bearer {key}\r\nx-api-key: {access}\r\n"),
        5 | 6 => format!("Authorization: bearer {derived}\r\n"),
        7 | 8 => format!("Authorization: Bearer {access}\r\nx-api-key: {key}\r\n"),
        9 | 10 => format!("x-api-key: {key}\r\n"),
        _ => format!("Authorization: Bearer {access}\r\n"),
    })
}

/// Everything but letters and digits as `%XX`, or in part as it is.
fn encoded(text: &str) -> String {
    let byte = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b':' | b'*' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn parameter(
    u: &mut Unstructured<'_>,
    operation: &Operation,
    place: &str,
    name: &str,
    account: &Account,
) -> Result<String> {
    let known = operation.parameters.iter().find(|known| known["in"] == place && known["name"] == name);
    let Some(known) = known else { return text(u) };
    let id = if operation.path.contains("session") { account.user.session.to_string() } else { account.key_id.clone() };
    if name == "id" && !u.ratio(1, 4)? {
        return Ok(id);
    }
    Ok(match value(u, name, &known["schema"], account, 0)? {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

/// A value as the schema asks for it, mostly.
fn value(u: &mut Unstructured<'_>, name: &str, schema: &'static Value, account: &Account, depth: u8) -> Result<Value> {
    let schema = resolved(schema);
    if depth > 4 || u.is_empty() {
        return Ok(Value::Null);
    }
    if u.ratio(1, 12)? {
        return anything(u, depth);
    }
    if let Some(choices) = schema["enum"].as_array().or(schema["oneOf"].as_array()).or(schema["anyOf"].as_array()) {
        let chosen = u.choose(choices)?;
        return if chosen.is_object() { value(u, name, chosen, account, depth + 1) } else { Ok(chosen.clone()) };
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => u.choose(kinds)?,
        kind => kind,
    };
    Ok(match kind.as_str().unwrap_or("string") {
        "object" => {
            let mut fields = Map::new();
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                if !u.ratio(1, 4)? || name.to_lowercase().contains("password") {
                    fields.insert(name.clone(), value(u, name, schema, account, depth + 1)?);
                }
            }
            if u.ratio(1, 16)? {
                fields.insert(text(u)?, anything(u, depth)?);
            }
            Value::Object(fields)
        }
        "array" => {
            let mut items = Vec::new();
            for _ in 0..u.int_in_range(0..=3)? {
                items.push(value(u, name, &schema["items"], account, depth + 1)?);
            }
            Value::Array(items)
        }
        "integer" | "number" => json!(*u.choose(&[0, 1, 2, 60, 200, 1000, 1_000_000, 1_000_001, -1, i64::MAX])?),
        "boolean" => json!(u.arbitrary::<bool>()?),
        "null" => Value::Null,
        _ => match name {
            "email" if u.ratio(1, 2)? => json!(account.email.to_uppercase()),
            "password" | "currentPassword" => json!(account.password),
            "newPassword" => json!(format!("another {}", &account.password[..40])),
            "refreshToken" => json!(account.refresh),
            "key" => json!(account.key),
            "token" => json!(*u.choose(&[&account.access, &account.derived, &account.key, &account.refresh])?),
            "scopes" if u.ratio(1, 2)? => json!(crate::account::SCOPE),
            _ => json!(text(u)?),
        },
    })
}

fn anything(u: &mut Unstructured<'_>, depth: u8) -> Result<Value> {
    Ok(match u.int_in_range(0..=if depth > 3 { 5 } else { 7 })? {
        0 => Value::Null,
        1 => json!(u.arbitrary::<bool>()?),
        2 => json!(u.arbitrary::<i64>()?),
        3 => json!(u.arbitrary::<f64>()?),
        4 | 5 => json!(text(u)?),
        6 => Value::Array((0..u.int_in_range(0..=3)?).map(|_| anything(u, depth + 1)).collect::<Result<_>>()?),
        _ => Value::Object(
            (0..u.int_in_range(0..=3)?).map(|_| Ok((text(u)?, anything(u, depth + 1)?))).collect::<Result<_>>()?,
        ),
    })
}

/// The fields of an object as HTML forms are written.
fn form(u: &mut Unstructured<'_>, schema: &'static Value, account: &Account) -> Result<String> {
    let fields = value(u, "", schema, account, 0)?;
    let pair = |(name, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        format!("{}={}", encoded(name), encoded(&text))
    };
    Ok(fields.as_object().into_iter().flatten().map(pair).collect::<Vec<_>>().join("&"))
}
