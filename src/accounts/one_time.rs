//! One-time tokens: who has one may set a password without knowing the old one, or shows that an e-mail is theirs.

use std::fmt;

use aws_lc_rs::digest;

use crate::base::error::{Challenge, Error, Sent};
use crate::base::random;

/// The hexadecimal digits of a token, which are its 256 random bits.
const HEX_DIGITS: usize = 64;

/// How many tokens of a kind a user may have. Each of them is good: of two messages, the first may arrive last.
pub(crate) const MOST: i64 = 3;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    ResetPassword,
    /// It verifies the e-mail that the account has.
    VerifyEmail,
    /// It makes another e-mail the account's, and verifies it.
    ChangeEmail,
}

impl TokenKind {
    /// As it is stored.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            TokenKind::ResetPassword => "reset-password",
            TokenKind::VerifyEmail => "verify-email",
            TokenKind::ChangeEmail => "change-email",
        }
    }
}

/// A new token in clear. It is shown once. It has no `Debug`, so that no log can show it.
pub struct OneTimeToken(String);

impl OneTimeToken {
    pub(crate) fn generate() -> Result<OneTimeToken, Error> {
        let bytes: [u8; HEX_DIGITS / 2] = random::bytes()?;
        Ok(OneTimeToken(hex::encode(bytes)))
    }

    pub(crate) fn hash(&self) -> TokenHash {
        TokenHash::new(&self.0)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// SHA-256 of a token, the only form in which it is stored. Lookups compare hashes, so the time that they take reveals
/// nothing about a token.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash(Vec<u8>);

impl TokenHash {
    /// `None`: it does not have the form of a token.
    pub(crate) fn of(token: &str) -> Option<TokenHash> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (token.len() == HEX_DIGITS && token.bytes().all(is_digit)).then(|| TokenHash::new(token))
    }

    fn new(token: &str) -> TokenHash {
        TokenHash(digest::digest(&digest::SHA256, token.as_bytes()).as_ref().to_vec())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The error for a token that is not good, or no longer.
pub(crate) fn not_good() -> Error {
    let challenge = Challenge { token: Some(Sent::No), key: false, basic: false };
    Error::Unauthenticated { message: "Invalid or expired token", challenge }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(token hash)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_256_bits_and_only_its_form_is_looked_up() {
        let token = OneTimeToken::generate().unwrap();
        assert_eq!(hex::decode(token.expose()).unwrap().len(), 32);
        assert!(TokenHash::of(token.expose()) == Some(token.hash()));
        assert_eq!(token.hash().as_bytes().len(), 32);
        assert!(OneTimeToken::generate().unwrap().hash() != token.hash());
        let upper = "A".repeat(64);
        let long = "a".repeat(65);
        for other in ["", "a", &upper, &long, &"ä".repeat(32)] {
            assert!(TokenHash::of(other).is_none(), "{other}");
        }
        assert_eq!(format!("{:?}", token.hash()), "(token hash)");
    }
}
