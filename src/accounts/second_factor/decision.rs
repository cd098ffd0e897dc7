//! What a code for the second factor does. Plain data in, a decision out; the store asks inside its transaction and writes
//! what is decided.

use std::time::Duration;

use crate::accounts::second_factor::totp::TotpSecret;
use crate::base::clock::Timestamp;

/// After this many wrong codes in a row, codes rest. Of a million codes three are good at a time.
const WRONG: i64 = 10;
/// For so long no code is taken.
const REST: Duration = Duration::from_secs(60 * 60);

/// A factor as it is stored, without its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFactor {
    /// The step of the latest code that was good.
    pub last_step: i64,
    /// Wrong codes in a row.
    pub wrong: i64,
    pub rests_until: Option<Timestamp>,
}

impl StoredFactor {
    pub(crate) const NEW: StoredFactor = StoredFactor { last_step: 0, wrong: 0, rests_until: None };

    /// How long codes still rest. What seems far longer than a rest was written by a clock that was wrong.
    pub(crate) fn rest(&self, now: Timestamp) -> Option<Duration> {
        let left = self.rests_until?.millis().saturating_sub(now.millis());
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        (!left.is_zero() && left <= 2 * REST).then(|| left.min(REST))
    }

    /// After a code of the app, if it is good.
    pub(crate) fn after_code(&self, secret: &TotpSecret, code: &str, now: Timestamp) -> Option<StoredFactor> {
        let last_step = secret.step_of(code, self.last_step, now)?;
        Some(StoredFactor { last_step, ..StoredFactor::NEW })
    }

    /// After a recovery code. Codes no longer rest: it was its owner who typed them.
    pub(crate) fn after_recovery(&self) -> StoredFactor {
        StoredFactor { last_step: self.last_step, ..StoredFactor::NEW }
    }

    /// After a wrong code, which is not counted while codes rest.
    pub(crate) fn after_wrong(&self, now: Timestamp) -> StoredFactor {
        let wrong = self.wrong + 1;
        if wrong < WRONG {
            return StoredFactor { wrong, ..*self };
        }
        StoredFactor { wrong: 0, rests_until: Some(now.plus(REST)), ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::parse("2026-01-01T00:00:00Z").unwrap().plus(Duration::from_secs(seconds))
    }

    #[test]
    fn after_ten_wrong_codes_in_a_row_codes_rest_for_an_hour_and_ten_more_are_free() {
        let mut factor = StoredFactor { last_step: 7, ..StoredFactor::NEW };
        for wrong in 1..10 {
            factor = factor.after_wrong(at(0));
            assert_eq!((factor.wrong, factor.rest(at(0))), (wrong, None));
        }
        assert_eq!(factor.after_recovery(), StoredFactor { last_step: 7, ..StoredFactor::NEW });
        let resting = factor.after_wrong(at(0));
        let rest = |seconds| resting.rest(at(seconds)).map(|left| left.as_secs());
        assert_eq!([rest(0), rest(3599), rest(3600)], [Some(3600), Some(1), None]);
        assert_eq!(resting.after_recovery().rest(at(0)), None);
        assert_eq!((0..9).fold(resting, |factor, _| factor.after_wrong(at(3600))).rest(at(3600)), None);
        assert!((0..10).fold(resting, |factor, _| factor.after_wrong(at(3600))).rest(at(3600)).is_some());
    }

    #[test]
    fn a_clock_that_was_wrong_makes_nobody_wait_for_longer_than_a_rest() {
        let resting = StoredFactor { rests_until: Some(at(86_400)), ..StoredFactor::NEW };
        let rest = |seconds| resting.rest(at(seconds)).map(|left| left.as_secs());
        assert_eq!([rest(86_400 - 60), rest(86_400 - 7000), rest(0)], [Some(60), Some(3600), None]);
    }

    #[test]
    fn a_good_code_is_good_once_and_clears_the_wrong_ones() {
        let secret = TotpSecret::from_stored(b"12345678901234567890".to_vec());
        let now = Timestamp::from_millis(59_000).unwrap();
        let factor = StoredFactor { wrong: 9, ..StoredFactor::NEW };
        let after = factor.after_code(&secret, "287082", now).unwrap();
        assert_eq!(after, StoredFactor { last_step: 1, ..StoredFactor::NEW });
        assert_eq!(after.after_code(&secret, "287082", now), None);
        assert_eq!(factor.after_code(&secret, "287083", now), None);
    }
}
