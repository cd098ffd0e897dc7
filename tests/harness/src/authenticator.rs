//! Plays the app of a user's phone that shows one-time codes (RFC 6238).

use aws_lc_rs::hmac;
use keyward::base::clock::Clock;

/// What such an app knows.
#[derive(Clone)]
pub struct Authenticator {
    secret: Vec<u8>,
    clock: Clock,
}

impl Authenticator {
    /// Shows the codes of a service whose time this is.
    pub fn new(base32: &str, clock: &Clock) -> Authenticator {
        let digit = |letter: u8| match letter {
            b'A'..=b'Z' => letter - b'A',
            b'2'..=b'7' => letter - b'2' + 26,
            _ => panic!("{base32} is no base32"),
        };
        let bits: Vec<u8> =
            base32.bytes().flat_map(|letter| (0..5).rev().map(move |bit| digit(letter) >> bit & 1)).collect();
        let bytes = bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | bit));
        Authenticator { secret: bytes.collect(), clock: clock.clone() }
    }

    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    pub fn code(&self) -> String {
        self.code_after(0)
    }

    /// The code of so many steps of 30 seconds later.
    pub fn code_after(&self, steps: i64) -> String {
        let step = self.clock.now().seconds() / 30 + steps;
        let hash = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.secret), &step.to_be_bytes());
        let hash = hash.as_ref();
        let at = usize::from(hash[19] & 15);
        let number = u32::from_be_bytes(hash[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        format!("{:06}", number % 1_000_000)
    }

    /// One that is not good now, nor a step before or after.
    pub fn wrong_code(&self) -> String {
        let good: Vec<String> = (-1..=1).map(|steps| self.code_after(steps)).collect();
        (0..).map(|number| format!("{number:06}")).find(|code| !good.contains(code)).unwrap()
    }
}
