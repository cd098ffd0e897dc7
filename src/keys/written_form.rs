//! How a key is written: `sk_` and 64 hexadecimal digits, or with another prefix the same and a checksum.
//!
//! The checksum lets scanners find leaked keys without false alarms, and tells a mistyped key without a look-up. It is
//! no secret and proves nothing: anyone can compute it.

/// The prefix of keys without a checksum, which is the default.
const PLAIN: &str = "sk";

const LONGEST_PREFIX: usize = 24;

/// The hexadecimal digits of a key, which are its 256 random bits.
pub(crate) const HEX_DIGITS: usize = 64;

/// 62⁶ is more than 2³².
const CHECKSUM_DIGITS: usize = 6;

/// What new keys begin with, before a `_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPrefix(String);

impl Default for KeyPrefix {
    fn default() -> KeyPrefix {
        KeyPrefix(PLAIN.to_string())
    }
}

impl KeyPrefix {
    pub(crate) fn parse(text: &str) -> Result<KeyPrefix, &'static str> {
        match text.len() {
            1..=LONGEST_PREFIX if is_prefix(text.as_bytes()) => Ok(KeyPrefix(text.to_string())),
            1..=LONGEST_PREFIX => Err("has another character"),
            _ => Err("has another length"),
        }
    }

    /// A key with these digits.
    pub(crate) fn write(&self, digits: &str) -> String {
        let mut key = format!("{}_{digits}", self.0);
        if self.0 != PLAIN {
            let checksum = checksum(key.as_bytes());
            key.extend(checksum.map(char::from));
        }
        key
    }
}

fn is_prefix(text: &[u8]) -> bool {
    (1..=LONGEST_PREFIX).contains(&text.len())
        && text.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_')
}

fn are_digits(text: &[u8]) -> bool {
    text.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
}

/// Whether this can be a key: `sk_` and its digits, or any prefix and digits with the right checksum. So keys survive a
/// change of the prefix.
pub(crate) fn is_key(text: &[u8]) -> bool {
    if let Some([b'_', digits @ ..]) = text.strip_prefix(PLAIN.as_bytes())
        && digits.len() == HEX_DIGITS
    {
        return are_digits(digits);
    }
    let Some((before, checked)) = text.split_last_chunk::<CHECKSUM_DIGITS>() else { return false };
    let Some(([prefix @ .., b'_'], digits)) = before.split_last_chunk::<HEX_DIGITS>() else { return false };
    is_prefix(prefix) && are_digits(digits) && *checked == checksum(before)
}

/// Where the digits of a key begin. No digit and no checksum has a `_`.
pub(crate) fn start_of_digits(key: &str) -> usize {
    key.rfind('_').map_or(0, |separator| separator + 1)
}

/// CRC-32 in six base62 digits, as in GitHub's tokens.
fn checksum(text: &[u8]) -> [u8; CHECKSUM_DIGITS] {
    const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = crc32fast::hash(text);
    let mut digits = [0; CHECKSUM_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checksum_of(text: &str) -> String {
        String::from_utf8(checksum(text.as_bytes()).to_vec()).unwrap()
    }

    #[test]
    fn the_checksum_is_that_of_githubs_tokens() {
        // CRC-32's check value is CBF43926.
        assert_eq!(checksum_of("123456789"), "3jZRME");
        // The example in GitHub's documents. Theirs covers the random part alone.
        assert_eq!(checksum_of("zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ"), "0mLq17");
        assert_eq!(checksum_of(""), "000000");
    }

    #[test]
    fn only_the_default_prefix_has_no_checksum() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(KeyPrefix::default().write(&digits), format!("sk_{digits}"));
        for prefix in ["acme", "sk_", "s", "_", "sk_live", &"a".repeat(24)] {
            let key = KeyPrefix::parse(prefix).unwrap().write(&digits);
            let before = format!("{prefix}_{digits}");
            assert_eq!(key, format!("{before}{}", checksum_of(&before)));
            assert!(is_key(key.as_bytes()), "{key}");
            assert!(!is_key(before.as_bytes()), "{before}");
            assert_eq!(key[start_of_digits(&key)..][..64], digits);
        }
    }

    #[test]
    fn a_prefix_has_up_to_24_lower_case_letters_digits_and_underscores() {
        for good in ["s", "sk", "acme_live", "7", &"a".repeat(24)] {
            assert!(KeyPrefix::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "SK", "sk-", "sk.", "ä", "s k", &"a".repeat(25)] {
            assert!(KeyPrefix::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_key_with_one_wrong_byte_is_no_key(
            prefix in "[a-z0-9_]{1,24}", digits in "[0-9a-f]{64}", at: prop::sample::Index, byte: u8,
        ) {
            let key = KeyPrefix::parse(&prefix).unwrap().write(&digits).into_bytes();
            let mut wrong = key.clone();
            wrong[at.index(key.len())] = byte;
            let stays_one = prefix == PLAIN && wrong.starts_with(b"sk_") && are_digits(&wrong[3..]);
            prop_assert_eq!(is_key(&wrong), wrong == key || stays_one);
        }

        #[test]
        fn two_digits_in_each_others_place_make_it_no_key(
            prefix in "[a-z0-9]{3,24}", digits in "[0-9a-f]{64}", one in 0..64_usize, other in 0..64_usize,
        ) {
            let key = KeyPrefix::parse(&prefix).unwrap().write(&digits);
            let mut swapped = key.clone().into_bytes();
            swapped.swap(prefix.len() + 1 + one, prefix.len() + 1 + other);
            prop_assert_eq!(is_key(&swapped), swapped == key.as_bytes());
        }

        #[test]
        fn bytes_without_a_checksum_are_no_key(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(bytes.len() == 67 || !is_key(&bytes));
        }
    }
}
