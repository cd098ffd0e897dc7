//! What people type for the second factor: a code of their app, or a recovery code.

use std::fmt;

use aws_lc_rs::digest;

use crate::accounts::second_factor::totp::base32;
use crate::base::error::Error;
use crate::base::random;

/// How many a user gets.
pub(crate) const RECOVERY_CODES: usize = 10;

/// 120 bits: so many that nobody can guess one, so a fast hash protects it.
const BYTES: usize = 15;
/// In base32.
const LENGTH: usize = 24;
/// Shown between hyphens.
const GROUP: usize = 6;

/// A code that somebody has typed. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum Code {
    /// Digits.
    OneTime(String),
    Recovery(CodeHash),
    /// It has the form of neither.
    Other,
}

impl Code {
    /// Spaces and hyphens between the characters do not count: apps show some.
    pub fn parse(text: &str) -> Code {
        // Longer ones have the form of no code.
        const ENOUGH: usize = 4 * LENGTH;
        let text: String = text.chars().take(ENOUGH).filter(|c| !matches!(c, ' ' | '-')).collect();
        if text.len() == LENGTH && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            Code::Recovery(CodeHash::of(&text.to_ascii_uppercase()))
        } else if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            Code::OneTime(text)
        } else {
            Code::Other
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(code)")
    }
}

/// A new recovery code. It is shown once. It has no `Debug`, so that no log can show it.
pub struct RecoveryCode(String);

impl RecoveryCode {
    pub(crate) fn generate() -> Result<RecoveryCode, Error> {
        Ok(RecoveryCode(base32(&random::bytes::<BYTES>()?)))
    }

    /// As it is shown: in groups.
    pub(crate) fn grouped(&self) -> String {
        (0..self.0.len()).step_by(GROUP).map(|at| &self.0[at..at + GROUP]).collect::<Vec<_>>().join("-")
    }

    pub(crate) fn hash(&self) -> CodeHash {
        CodeHash::of(&self.0)
    }
}

/// SHA-256 of a recovery code, the only form in which it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeHash(Vec<u8>);

impl CodeHash {
    fn of(code: &str) -> CodeHash {
        CodeHash(digest::digest(&digest::SHA256, code.as_bytes()).as_ref().to_vec())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_apps_and_we_show_it() {
        for text in ["123456", "123 456", " 123-456 "] {
            assert_eq!(Code::parse(text), Code::OneTime("123456".to_string()), "{text}");
        }
        let code = RecoveryCode::generate().unwrap();
        let shown = code.grouped();
        assert_eq!((shown.len(), shown.matches('-').count()), (27, 3));
        for text in [shown.clone(), shown.to_lowercase(), shown.replace('-', ""), shown.replace('-', " ")] {
            assert!(Code::parse(&text) == Code::Recovery(code.hash()), "{text}");
        }
        for text in ["", "-", "12345x", "１２３４５６", &"A".repeat(23), &"ä".repeat(12), &"A".repeat(1000)] {
            assert!(Code::parse(text) == Code::Other, "{text}");
        }
        assert_eq!(format!("{:?}", Code::parse("123456")), "(code)");
    }
}
