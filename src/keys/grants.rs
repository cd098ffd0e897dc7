//! Grants: what a user may do and may hand to their keys. Only an operator gives and takes them.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::keys::scopes::{Scopes, is_scope, tokens_of};

/// The most bytes of all grants of a user, with the spaces between them.
const MOST_BYTES: usize = 2048;

/// Scopes that begin so are powers in Keyward itself. A pattern never stands for one.
const RESERVED: [&str; 2] = ["keyward:", "keys:"];

/// A user's grants, in the order in which they were given. One that ends in `*` is a pattern: it stands for every scope
/// that begins with what is before the `*`, but for no reserved one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(
    /// Separated by single spaces.
    Cow<'static, str>,
);

impl Grants {
    /// The error is the rule that is broken; it follows the field's name.
    pub fn parse(tokens: &[&str]) -> Result<Grants, &'static str> {
        let mut grants = Grants::default();
        for token in tokens {
            if !is_scope(token) {
                return Err("must hold scopes of 1 to 100 visible ASCII characters without \" and \\");
            }
            if token.strip_suffix('*').is_some_and(is_reserved) {
                return Err("must not hold a pattern of reserved scopes, those that begin with keyward: or keys:");
            }
            grants.push(token);
        }
        if grants.0.len() > MOST_BYTES { Err(TOO_MANY) } else { Ok(grants) }
    }

    /// As [`Grants::as_str`] gave it.
    pub fn from_stored(text: String) -> Grants {
        Grants(text.into())
    }

    /// Separated by spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        tokens_of(&self.0)
    }

    /// Whether the scope, or a pattern that stands for it, was granted.
    pub fn covers(&self, scope: &str) -> bool {
        self.iter().any(|grant| grant == scope || is_pattern_of(grant, scope))
    }

    /// Whether all of these scopes are covered.
    pub fn cover(&self, needed: &Scopes) -> bool {
        needed.iter().all(|scope| self.covers(scope))
    }

    /// Those of the scopes that are covered.
    pub(crate) fn of(&self, scopes: &Scopes) -> Scopes {
        scopes.filtered(|scope| !scope.ends_with('*') && self.covers(scope))
    }

    /// Those of the scopes that are not covered.
    pub(crate) fn lacking(&self, scopes: &Scopes) -> Scopes {
        scopes.filtered(|scope| !self.covers(scope))
    }

    /// These and the others; the error is the rule that all of them together break.
    pub(crate) fn with(&self, others: &Grants) -> Result<Grants, &'static str> {
        let mut all = self.clone();
        others.iter().for_each(|grant| all.push(grant));
        if all.0.len() > MOST_BYTES { Err(TOO_MANY) } else { Ok(all) }
    }

    /// These without the others. A grant that is covered by a pattern among the others stays: what is taken away is what
    /// is named.
    pub(crate) fn without(&self, others: &Grants) -> Grants {
        let mut kept = Grants::default();
        self.iter().filter(|grant| !others.has(grant)).for_each(|grant| kept.push(grant));
        kept
    }

    /// Whether exactly this was granted.
    fn has(&self, grant: &str) -> bool {
        self.iter().any(|known| known == grant)
    }

    fn push(&mut self, grant: &str) {
        if self.has(grant) {
            return;
        }
        let all = self.0.to_mut();
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str(grant);
    }
}

const TOO_MANY: &str = "must not be more than 2048 bytes, together with the scopes that the user has";

/// Whether it begins as a scope that is a power in Keyward itself.
pub(crate) fn is_reserved(scope: &str) -> bool {
    RESERVED.iter().any(|prefix| scope.starts_with(prefix))
}

fn is_pattern_of(grant: &str, scope: &str) -> bool {
    grant.strip_suffix('*').is_some_and(|prefix| scope.starts_with(prefix) && !is_reserved(scope))
}

impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Grants {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(tokens: &[&str]) -> Grants {
        Grants::parse(tokens).unwrap()
    }

    #[test]
    fn a_pattern_stands_for_what_begins_so_and_for_no_reserved_scope() {
        for (granted, scope, covered) in [
            ("orders:read", "orders:read", true),
            ("orders:read", "orders:write", false),
            ("orders:*", "orders:read", true),
            ("orders:*", "orders:", true),
            ("orders:*", "orders", false),
            ("orders:*", "Orders:read", false),
            ("*", "anything", true),
            ("*", "keys:verify", false),
            ("*", "keyward:admin", false),
            ("k*", "keyward:admin", false),
            ("k*", "kitchen", true),
            ("keys:verify", "keys:verify", true),
            ("keyward:admin", "keyward:admin", true),
            ("keyward:admin", "keyward:admins", false),
            ("or*ers", "orders", false),
        ] {
            assert_eq!(grants(&[granted]).covers(scope), covered, "{granted} for {scope}");
        }
    }

    #[test]
    fn patterns_of_reserved_scopes_are_refused_and_so_is_what_is_no_scope() {
        for bad in ["keyward:*", "keyward:a*", "keys:*", "", "a b", "a\"b", "ä", &"a".repeat(101)] {
            assert!(Grants::parse(&[bad]).is_err(), "{bad}");
        }
        assert!(Grants::parse(&["*", "keys*", "keyward*", &"a".repeat(100)]).is_ok());
    }

    #[test]
    fn all_grants_together_have_a_bound() {
        let many: Vec<String> = (0..20).map(|number| format!("{number:0>99}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let all = grants(&many);
        assert_eq!(all.as_str().len(), 1999);
        assert!(all.with(&grants(&[&"a".repeat(48)])).is_ok());
        assert_eq!(all.with(&grants(&[&"a".repeat(49)])), Err(TOO_MANY));
        assert_eq!(all.with(&all), Ok(all.clone()));
    }

    #[test]
    fn what_is_withdrawn_is_what_is_named() {
        let all = grants(&["a", "b:*", "b:c"]);
        assert_eq!(all.without(&grants(&["b:*", "d"])), grants(&["a", "b:c"]));
        assert_eq!(all.without(&all).as_str(), "");
    }

    #[test]
    fn a_key_has_those_of_its_scopes_that_are_covered() {
        let held = Scopes::from_stored("orders:read orders:* keyward:admin keys:verify other".to_string());
        let granted = grants(&["orders:*", "keys:verify"]);
        assert_eq!(granted.of(&held).as_str(), "orders:read keys:verify");
        assert_eq!(granted.lacking(&held).as_str(), "keyward:admin other");
        assert_eq!(grants(&[]).of(&held).as_str(), "");
    }
}
