//! E-mail addresses.

use std::fmt;

use unicode_normalization::UnicodeNormalization;

/// An e-mail address in lower case and in Unicode's normalization form C, so that an address is the same text however
/// it was typed (RFC 8265 §3.3, without its mapping of widths).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// Accepts letters of any script; refuses quoted local parts, comments and address literals.
    /// The error is the broken rule; it follows the field's name.
    pub fn parse(text: &str) -> Result<Email, &'static str> {
        const NO_EMAIL: &str = "must be an email";
        let email: String = text.to_lowercase().nfc().collect();
        if email.chars().count() > 254 {
            return Err("must be shorter than or equal to 254 characters");
        }
        let (local, domain) = email.rsplit_once('@').ok_or(NO_EMAIL)?;
        let local_is_good = local.chars().count() <= 64
            && local.split('.').all(|atom| {
                !atom.is_empty() && atom.chars().all(|c| c.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~-".contains(c))
            });
        let labels: Vec<&str> = domain.split('.').collect();
        let labels_are_good = labels.iter().all(|label| {
            (1..=63).contains(&label.chars().count())
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
        let top = labels.last().copied().unwrap_or_default();
        let top_is_good = top.chars().count() >= 2 && !top.chars().all(|c| c.is_ascii_digit());
        if local_is_good && labels_are_good && labels.len() >= 2 && top_is_good {
            Ok(Email(email))
        } else {
            Err(NO_EMAIL)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_lower_case() {
        assert_eq!(Email::parse("Ann.O'Hara+keys@Example.CO.uk").unwrap().as_str(), "ann.o'hara+keys@example.co.uk");
        assert_eq!(Email::parse("JÖRG@BÜCHER.example").unwrap().as_str(), "jörg@bücher.example");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "a",
            "a@",
            "@b.co",
            "a@b",
            "a b@c.de",
            "a@b..de",
            ".a@b.de",
            "a.@b.de",
            "a..b@c.de",
            "a@-b.de",
            "a@b-.de",
            "a@b.c",
            "a@1.2.3.44",
            "a@b@c.de",
            "a@b.de\n",
            "a\0@b.de",
            "\u{200b}a@b.de",
            "a@b.de ",
            "\"a b\"@c.de",
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
        assert!(Email::parse(&format!("{}@b.de", "a".repeat(65))).is_err());
        let long = format!("a@{}.de", vec!["b".repeat(60); 5].join("."));
        assert_eq!(Email::parse(&long).unwrap_err(), "must be shorter than or equal to 254 characters");
    }
}
