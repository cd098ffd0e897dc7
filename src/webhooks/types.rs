//! Which types of events an endpoint is told of.

use serde::{Serialize, Serializer};

use crate::audit::event::Kind;

/// A set of types, in the order in which they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Types(Vec<Kind>);

impl Types {
    /// The error is the rule that is broken; it follows the field's name.
    pub fn parse(names: &[&str]) -> Result<Types, String> {
        /// How much of an unknown name is shown.
        const SHOWN: usize = 100;
        if names.is_empty() {
            return Err("should not be empty; null stands for all".to_string());
        }
        let mut types = Vec::new();
        for name in names {
            let Some(kind) = Kind::parse(name) else {
                let shown: String = name.chars().take(SHOWN).collect();
                return Err(format!("must hold types of events, such as key.created; {shown} is none"));
            };
            // So it stays shorter than the list of all, however long the given one is.
            if !types.contains(&kind) {
                types.push(kind);
            }
        }
        Ok(Types(types))
    }

    /// As [`Types::stored`] gave it. `None`: it names none that this version knows.
    pub fn from_stored(text: &str) -> Option<Types> {
        let types: Vec<Kind> = text.split(' ').filter_map(Kind::parse).collect();
        (!types.is_empty()).then_some(Types(types))
    }

    /// Separated by spaces.
    pub fn stored(&self) -> String {
        self.0.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" ")
    }
}

impl Serialize for Types {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_of_the_audit_trail_each_once() {
        let types = Types::parse(&["key.created", "user.deleted", "key.created"]).unwrap();
        assert_eq!(types.stored(), "key.created user.deleted");
        assert_eq!(Types::from_stored("key.created user.deleted"), Some(types));
        let all: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(Types::parse(&all).unwrap().stored(), all.join(" "));
        assert_eq!(Types::parse(&[]), Err("should not be empty; null stands for all".to_string()));
        for unknown in ["webhook.test", "key", "Key.created", " key.created", "*", ""] {
            let rule = format!("must hold types of events, such as key.created; {unknown} is none");
            assert_eq!(Types::parse(&["key.revoked", unknown]), Err(rule));
        }
        assert_eq!(Types::parse(&[&"x".repeat(10_000)]).unwrap_err().len(), 48 + 100 + 8);
    }
}
