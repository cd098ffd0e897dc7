//! JSON objects that operators and users attach to accounts and keys, for their own use.

use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The most bytes of one, written without spaces.
const MOST_BYTES: usize = 4096;

/// A JSON object of bounded size. It is stored, remembered and answered as it is, and nothing here looks into it.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Metadata(Box<RawValue>);

impl Metadata {
    /// The error is the rule that is broken; it follows the field's name.
    pub fn new(object: Map<String, Value>) -> Result<Metadata, &'static str> {
        const RULE: &str = "must be at most 4096 bytes of JSON";
        let text = Value::Object(object).to_string();
        if text.len() > MOST_BYTES {
            return Err(RULE);
        }
        RawValue::from_string(text).map(Metadata).map_err(|_| RULE)
    }

    /// As [`Metadata::as_str`] gave it. `None`: it is no JSON.
    pub fn from_stored(text: String) -> Option<Metadata> {
        RawValue::from_string(text).ok().map(Metadata)
    }

    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

/// Tells the size alone: what is in it is the customers' business, not the log's.
impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(metadata, {} bytes)", self.as_str().len())
    }
}
