//! Holds answers against `static/openapi.json`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::Value;

use crate::http_client::Answer;

/// The document as it is written: JSON values do not keep the order of names.
pub const TEXT: &str = include_str!("../../../static/openapi.json");

pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(TEXT).unwrap());

/// Follows a `$ref`, if this is one.
pub fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// A parameter of this name stands for one segment or more.
pub const REST: &str = "{path}";

/// The documented path that a request's target belongs to; one without a parameter is preferred.
pub fn documented_path(target: &str) -> Option<&'static String> {
    let path = target.split('?').next().unwrap_or_default();
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let fits = |template: &str| {
        let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        (template.len() == path.len() || (template.last() == Some(&REST) && template.len() < path.len()))
            && template
                .iter()
                .zip(&path)
                .all(|(known, given)| known == given || *known == REST || (known.starts_with('{') && !given.is_empty()))
    };
    paths.keys().filter(|template| fits(template)).min_by_key(|template| template.contains('{'))
}

/// Fails when an answer of a documented operation is not what the document promises. Answers that belong to no
/// operation (OPTIONS, 405, unknown routes) pass.
pub fn check(method: &str, target: &str, answer: &Answer) {
    let Some(path) = documented_path(target) else { return };
    if method == "OPTIONS" && DOCUMENT["paths"][path]["options"].is_null() {
        return;
    }
    let verb = if method == "HEAD" { "get".to_string() } else { method.to_lowercase() };
    // What takes TRACE takes methods that the document cannot name.
    let mut operations = [&verb, "trace"].into_iter().map(|verb| &DOCUMENT["paths"][path][verb]);
    let operation = operations.find(|operation| !operation.is_null()).unwrap_or(&Value::Null);
    if operation.is_null() {
        assert_eq!(answer.status, 405, "{method} {path} is not documented");
        return;
    }
    let context = format!("{method} {target} → {answer:?}");
    let response = &operation["responses"][answer.status.to_string()];
    assert!(!response.is_null(), "this status is not documented: {context}");
    let response = resolved(response);
    for name in
        response["headers"].as_object().into_iter().flatten().filter(|(_, header)| resolved(header)["required"] == true)
    {
        assert!(answer.header(name.0).is_some(), "header {} is missing: {context}", name.0);
    }
    if response["content"].is_null() {
        assert!(answer.body.is_empty() && answer.header("content-type").is_none(), "there is a body: {context}");
        return;
    }
    let content_type = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
    let media = &response["content"][content_type];
    assert!(!media.is_null(), "this content type is not documented: {context}");
    if content_type != "application/json" || method == "HEAD" {
        return;
    }
    let validator = validator(format!("{verb} {path} {}", answer.status), &media["schema"]);
    if let Err(error) = validator.validate(&answer.json()) {
        panic!("the body is not what is documented: {error}: {context}");
    }
}

fn validator(name: String, schema: &Value) -> Arc<Validator> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let build = || {
        let mut schema = schema.clone();
        schema["components"] = DOCUMENT["components"].clone();
        Arc::new(jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap())
    };
    known.entry(name).or_insert_with(build).clone()
}
