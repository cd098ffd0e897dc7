//! Scopes: what a key may be used for (RFC 6749 §3.3).

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};

/// A set of scope tokens, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(
    /// The tokens, separated by single spaces, as OAuth writes them.
    Cow<'static, str>,
);

pub(crate) static NO_SCOPES: Scopes = Scopes(Cow::Borrowed(""));
/// What it takes to do what operators do.
pub(crate) static KEYWARD_ADMIN: Scopes = Scopes(Cow::Borrowed("keyward:admin"));
/// What it takes to have other credentials judged.
pub(crate) static KEYS_VERIFY: Scopes = Scopes(Cow::Borrowed("keys:verify"));

/// The most scopes of a key.
pub const MOST: usize = 50;
/// The most characters of a scope.
const LONGEST: usize = 100;

impl Scopes {
    /// The error is the rule that is broken; it follows the field's name.
    pub fn parse(tokens: &[&str]) -> Result<Scopes, &'static str> {
        let mut scopes = String::new();
        for token in tokens {
            if !is_scope(token) {
                return Err("must hold scopes of 1 to 100 visible ASCII characters without \" and \\");
            }
            // Only grants are patterns. A key that seems to have one would mislead services that read its scopes.
            if token.ends_with('*') {
                return Err("must hold exact scopes, none that ends in *");
            }
            if tokens_of(&scopes).any(|known| known == *token) {
                continue;
            }
            if tokens_of(&scopes).count() == MOST {
                return Err("must contain no more than 50 elements");
            }
            if !scopes.is_empty() {
                scopes.push(' ');
            }
            scopes.push_str(token);
        }
        Ok(Scopes(scopes.into()))
    }

    /// As [`Scopes::as_str`] gave it.
    pub fn from_stored(text: String) -> Scopes {
        Scopes(text.into())
    }

    /// The tokens, separated by spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        tokens_of(&self.0)
    }

    pub fn contains(&self, token: &str) -> bool {
        self.iter().any(|known| known == token)
    }

    /// Those for which `keep` is true.
    pub(crate) fn filtered(&self, keep: impl Fn(&str) -> bool) -> Scopes {
        if self.iter().all(&keep) {
            return self.clone();
        }
        Scopes(self.iter().filter(|token| keep(token)).collect::<Vec<_>>().join(" ").into())
    }

    /// Whether all of these are among them.
    pub fn cover(&self, needed: &Scopes) -> bool {
        needed.iter().all(|token| self.contains(token))
    }
}

pub(crate) fn tokens_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|token| !token.is_empty())
}

/// Whether it is one scope token, of a bounded length.
pub(crate) fn is_scope(token: &str) -> bool {
    (1..=LONGEST).contains(&token.len()) && token.bytes().all(is_scope_character)
}

/// `scope-token` of RFC 6749 §3.3: visible ASCII without `"` and `\`.
fn is_scope_character(b: u8) -> bool {
    b.is_ascii_graphic() && b != b'"' && b != b'\\'
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_holds_what_was_given_once_and_covers_no_more(
            given in prop::collection::vec("[!#-\\[\\]-~]{0,3}[!#-)+-\\[\\]-~]", 0..20),
            other in "[!#-\\[\\]-~]{0,3}[!#-)+-\\[\\]-~]",
        ) {
            let scopes = Scopes::parse(&given.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
            let set: BTreeSet<&str> = given.iter().map(String::as_str).collect();
            prop_assert_eq!(scopes.iter().count(), set.len());
            prop_assert_eq!(scopes.iter().collect::<BTreeSet<_>>(), set.clone());
            prop_assert!(scopes.cover(&scopes));
            let other = Scopes::parse(&[other.as_str()]).unwrap();
            prop_assert_eq!(scopes.cover(&other), set.contains(other.as_str()));
            prop_assert_eq!(Scopes::from_stored(scopes.as_str().to_string()), scopes);
        }

        #[test]
        fn only_the_characters_of_a_scope_token_are_taken(token in "\\PC{0,6}") {
            let good = !token.is_empty() && !token.ends_with('*') && token.chars().all(|c| c.is_ascii_graphic() && !"\"\\".contains(c));
            prop_assert_eq!(Scopes::parse(&[token.as_str()]).is_ok(), good);
        }
    }
}
