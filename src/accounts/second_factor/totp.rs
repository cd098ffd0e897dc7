//! Time-based one-time passwords (RFC 6238): by HMAC-SHA-1, of 6 digits, a new one every 30 seconds, as every app makes
//! them.

use std::fmt::Write;

use aws_lc_rs::{constant_time, hmac};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::base::clock::Timestamp;
use crate::base::data_key::Place;
use crate::base::error::Error;
use crate::base::id::UserId;
use crate::base::random;
use crate::base::sealing::Sealed;

/// RFC 4226 §4 recommends 160 bits.
const SECRET: usize = 20;
const PERIOD: i64 = 30;
const DIGITS: usize = 6;

/// How many steps a code may be early or late (RFC 6238 §5.2): clocks differ, and typing takes time.
const SKEW: i64 = 1;

/// Where the secret of a user's factor is stored.
pub(crate) fn place(user: UserId) -> Place {
    Sealed::SecondFactors.place(user.0)
}

/// What the app and Keyward share. It has no `Debug`, so that no log can show it.
pub struct TotpSecret(Vec<u8>);

impl TotpSecret {
    pub(crate) fn generate() -> Result<TotpSecret, Error> {
        Ok(TotpSecret(random::bytes::<SECRET>()?.to_vec()))
    }

    pub(crate) fn from_stored(bytes: Vec<u8>) -> TotpSecret {
        TotpSecret(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As people type it into their app.
    pub(crate) fn base32(&self) -> String {
        base32(&self.0)
    }

    /// What apps read from a QR code. They show the issuer and the account beside the code.
    pub(crate) fn url(&self, issuer: &str, account: &str) -> String {
        let [issuer, account] = [issuer, account].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
        format!(
            "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={PERIOD}",
            self.base32()
        )
    }

    /// The step of this code: the current one or one beside it, later than `last`. `None`: it is no good code.
    pub(crate) fn step_of(&self, code: &str, last: i64, now: Timestamp) -> Option<i64> {
        let current = now.seconds().div_euclid(PERIOD);
        let mut found = None;
        // All are computed, so that the time does not tell which one it is.
        for step in current - SKEW..=current + SKEW {
            let expected = self.code(step);
            let is_equal = constant_time::verify_slices_are_equal(expected.as_bytes(), code.as_bytes()).is_ok();
            if is_equal && step > last && found.is_none() {
                found = Some(step);
            }
        }
        found
    }

    fn code(&self, step: i64) -> String {
        format!("{:0DIGITS$}", self.number(step) % 10_u32.pow(DIGITS as u32))
    }

    /// 31 bits, of whose decimal digits the last ones are the code (RFC 4226 §5.3).
    fn number(&self, step: i64) -> u32 {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let hash = tag.as_ref();
        let offset = usize::from(hash.last().copied().unwrap_or_default() & 0xf);
        let bytes = hash.get(offset..).and_then(<[u8]>::first_chunk::<4>);
        bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff)
    }
}

/// Without padding (RFC 4648 §6).
pub(crate) fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::new();
    for chunk in bytes.chunks(5) {
        let mut bits = [0; 8];
        bits[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(bits);
        for digit in 0..(chunk.len() * 8).div_ceil(5) {
            let _ = text.write_char(char::from(ALPHABET[(bits >> (35 - 5 * digit)) as usize & 31]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret of the RFC's test vectors.
    fn secret() -> TotpSecret {
        TotpSecret(b"12345678901234567890".to_vec())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000).unwrap()
    }

    /// RFC 6238, appendix B, for SHA-1; of its 8 digits, the last 6.
    #[test]
    fn codes_are_those_of_rfc_6238() {
        for (seconds, digits) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            let step = seconds / PERIOD;
            assert_eq!(format!("{:08}", secret().number(step) % 100_000_000), digits);
            assert_eq!(secret().code(step), digits[2..]);
            assert_eq!(secret().step_of(&digits[2..], 0, at(seconds)), Some(step));
        }
    }

    /// RFC 4226, appendix D.
    #[test]
    fn codes_are_those_of_rfc_4226() {
        let codes =
            ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
        for (counter, code) in codes.into_iter().enumerate() {
            assert_eq!(secret().code(counter as i64), code);
        }
    }

    #[test]
    fn a_code_is_good_a_step_before_and_after_and_not_for_a_step_that_is_over() {
        let code = secret().code(100);
        for (now, last, expected) in [
            (3000 - 31, 0, None),
            (3000 - 30, 0, Some(100)),
            (3000, 0, Some(100)),
            (3000 + 59, 0, Some(100)),
            (3000 + 60, 0, None),
            (3000, 99, Some(100)),
            (3000, 100, None),
            (3000, 101, None),
        ] {
            assert_eq!(secret().step_of(&code, last, at(now)), expected, "{now} {last}");
        }
        for wrong in ["", "1", "0000000", "６６６６６６"] {
            assert_eq!(secret().step_of(wrong, 0, at(3000)), None, "{wrong}");
        }
    }

    /// RFC 4648 §10.
    #[test]
    fn base32_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_url_names_issuer_and_account_and_all_that_apps_need() {
        assert_eq!(
            secret().url("auth.example.com", "ann+a@example.com"),
            "otpauth://totp/auth%2Eexample%2Ecom:ann%2Ba%40example%2Ecom?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=auth%2Eexample%2Ecom&algorithm=SHA1&digits=6&period=30"
        );
        assert!(secret().url("A b", "ü").starts_with("otpauth://totp/A%20b:%C3%BC?"));
        assert_eq!(TotpSecret::generate().unwrap().base32().len(), 32);
    }
}
