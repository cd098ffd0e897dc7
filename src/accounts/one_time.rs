//! One-time tokens: what somebody gets who has to set a password and cannot log in.

use std::fmt;

use aws_lc_rs::digest;

use crate::base::error::Error;
use crate::base::random;

/// The hexadecimal digits of a token, which are its 256 random bits.
const HEX_DIGITS: usize = 64;

/// How many tokens of a kind a user may have. Each of them is good: of two messages, the first may arrive last.
pub(crate) const MOST: i64 = 3;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    ResetPassword,
}

impl TokenKind {
    /// As it is stored.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            TokenKind::ResetPassword => "reset-password",
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

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(token hash)")
    }
}

/// The address of a page that takes a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUrl {
    before: String,
    after: String,
}

impl TokenUrl {
    /// `{token}` stands for the token.
    pub(crate) fn parse(text: &str) -> Result<TokenUrl, &'static str> {
        let host =
            ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme)).ok_or("is no http URL")?;
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("has characters that a URL does not have");
        }
        let (before, after) = text.split_once("{token}").ok_or("has no {token}")?;
        if after.contains("{token}") {
            return Err("has several {token}");
        }
        // A token in the name of a host would go to name servers.
        if !before[text.len() - host.len()..].contains('/') {
            return Err("has no path before {token}");
        }
        Ok(TokenUrl { before: before.to_string(), after: after.to_string() })
    }

    pub(crate) fn with(&self, token: &OneTimeToken) -> String {
        format!("{}{}{}", self.before, token.expose(), self.after)
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

    #[test]
    fn the_token_takes_its_place_in_the_address_of_a_page() {
        let token = OneTimeToken::generate().unwrap();
        for (text, expected) in [
            ("https://a.example/reset#{token}", format!("https://a.example/reset#{}", token.expose())),
            ("http://localhost:5173/?t={token}&x=1", format!("http://localhost:5173/?t={}&x=1", token.expose())),
        ] {
            assert_eq!(TokenUrl::parse(text).unwrap().with(&token), expected);
        }
        for (text, fault) in [
            ("a.example/{token}", "is no http URL"),
            ("javascript:alert('{token}')", "is no http URL"),
            ("https://a.example/reset", "has no {token}"),
            ("https://a.example/{token}/{token}", "has several {token}"),
            ("https://{token}.example/", "has no path before {token}"),
            ("https://a.example/reset token={token}", "has characters that a URL does not have"),
        ] {
            assert_eq!(TokenUrl::parse(text), Err(fault), "{text}");
        }
    }
}
