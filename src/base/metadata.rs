//! JSON objects that operators and users attach to accounts and keys, for their own use.

use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

/// The most bytes of one, without the spaces between its parts.
const MOST_BYTES: usize = 4096;

/// How many objects and lists may be within each other. Readers in some languages give up at 64.
const DEEPEST: usize = 32;

/// A JSON object of bounded size. It is stored, remembered and answered as it was sent, but for the spaces between its
/// parts: numbers keep all their digits, and names their order. Nothing here looks into it.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Metadata(Box<RawValue>);

impl Metadata {
    /// `object`: a JSON object without repeated names. The error is the rule that is broken; it follows the field's name.
    pub fn new(object: &RawValue) -> Result<Metadata, &'static str> {
        const RULE: &str = "must be at most 4096 bytes of JSON";
        let (text, depth) = compact(object.get());
        if text.len() > MOST_BYTES {
            return Err(RULE);
        }
        if depth > DEEPEST {
            return Err("must not be nested more than 32 levels deep");
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

/// The JSON without the spaces between its parts, and how deeply it is nested.
fn compact(json: &str) -> (String, usize) {
    let (mut text, mut depth, mut deepest) = (String::with_capacity(json.len()), 0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for character in json.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else {
            match character {
                ' ' | '\t' | '\r' | '\n' => continue,
                '"' => in_string = true,
                '{' | '[' => depth += 1,
                '}' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        text.push(character);
    }
    (text, deepest)
}

/// Tells the size alone: what is in it is the customers' business, not the log's.
impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(metadata, {} bytes)", self.as_str().len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn parsed(text: &str) -> Result<Metadata, &'static str> {
        Metadata::new(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn all_but_the_spaces_between_its_parts_is_kept() {
        for (sent, kept) in [
            ("{}", "{}"),
            (" { \"a\" : [ 1 , 2 ] ,\r\n\t\"b\":null }", "{\"a\":[1,2],\"b\":null}"),
            ("{\"b\": 1.0, \"a\": 1e2}", "{\"b\":1.0,\"a\":1e2}"),
            ("{\"n\": 123456789012345678901234567890.10}", "{\"n\":123456789012345678901234567890.10}"),
            ("{\"a \\\" b\": \" \\\\\", \"c\": \"\\u0041 {[\"}", "{\"a \\\" b\":\" \\\\\",\"c\":\"\\u0041 {[\"}"),
        ] {
            assert_eq!(parsed(sent).unwrap().as_str(), kept, "{sent}");
        }
    }

    #[test]
    fn it_has_a_bound_in_bytes_and_in_depth() {
        let of = |bytes: usize| format!("{{ \"a\" : \"{}\" }}", "x".repeat(bytes - 8));
        assert_eq!(parsed(&of(4096)).unwrap().as_str().len(), 4096);
        assert!(parsed(&of(4097)).is_err());
        let nested = |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(parsed(&nested(32)).is_ok());
        assert!(parsed(&nested(33)).is_err());
    }

    proptest! {
        #[test]
        fn it_means_what_was_sent(name in any::<String>(), text in any::<String>(), number in any::<f64>()) {
            let sent = json!({ name.as_str(): [text, { "n": number }] });
            let spaced = serde_json::to_string_pretty(&sent).unwrap();
            if let Ok(kept) = parsed(&spaced) {
                prop_assert_eq!(kept.as_str(), sent.to_string());
                prop_assert_eq!(serde_json::from_str::<Value>(kept.as_str()).unwrap(), serde_json::from_str::<Value>(&spaced).unwrap());
            }
        }
    }
}
