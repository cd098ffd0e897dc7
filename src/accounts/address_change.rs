//! What is kept of changes of a user's e-mail: the latest one that they want, how often they wanted one, and who is to be
//! told that it was changed.

use std::time::Duration;

use crate::base::clock::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How often a user may ask in a day. Each time, a mail goes to an address that may be a stranger's.
const MOST_IN_A_DAY: usize = 5;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressChange {
    /// The e-mail that the user wants.
    pub wanted: Option<String>,
    /// The e-mail that the account had, is still to be told that it has another one, and since when.
    pub former: Option<(String, Timestamp)>,
    /// When the user asked, the oldest first.
    pub asked_at: Vec<Timestamp>,
}

impl AddressChange {
    /// The user wants another e-mail. An error: they have to wait.
    pub(crate) fn ask(&mut self, wanted: &str, now: Timestamp) -> Result<(), Duration> {
        self.asked_at.retain(|at| is_recent(*at, now));
        if let Some(oldest) = self.asked_at.first().filter(|_| self.asked_at.len() >= MOST_IN_A_DAY) {
            let left = oldest.plus(DAY).millis().saturating_sub(now.millis());
            return Err(Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(DAY));
        }
        self.asked_at.push(now);
        self.wanted = Some(wanted.to_string());
        Ok(())
    }

    /// The account has another e-mail than `old` from now on.
    ///
    /// Who has stolen an account may change its e-mail again before the first change was told. So the first one is told: the
    /// e-mails between are theirs.
    pub(crate) fn note_left(&mut self, old: &str, now: Timestamp) {
        self.former.take_if(|(_, since)| !is_recent(*since, now));
        self.former.get_or_insert_with(|| (old.to_string(), now));
    }
}

/// A time that is far ahead was written by a clock that was wrong.
fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    at.millis().abs_diff(now.millis()) < DAY.as_millis() as u64
}

/// What is still to be told of changes of an account's e-mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressNews {
    /// Whether another e-mail is wanted, which the account does not have yet.
    pub is_wanted: bool,
    /// The e-mail that is to be told that the account has another one.
    pub former: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u32 = 3600;

    fn at(seconds: u32) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(1) * seconds)
    }

    #[test]
    fn a_user_may_ask_five_times_a_day() {
        let mut change = AddressChange::default();
        let ask = |change: &mut AddressChange, seconds| change.ask("b@example.com", at(seconds));
        for hour in 0..5 {
            assert_eq!(ask(&mut change, hour * HOUR), Ok(()));
        }
        let before = change.clone();
        assert_eq!(ask(&mut change, 5 * HOUR), Err(Duration::from_secs(19) * HOUR));
        assert_eq!(change, before, "nothing has changed");
        assert_eq!(ask(&mut change, 24 * HOUR), Ok(()));
        assert_eq!(ask(&mut change, 24 * HOUR), Err(Duration::from_secs(1) * HOUR));
        // A clock that was a year ahead.
        let mut change = AddressChange { asked_at: vec![at(365 * 24 * HOUR); 5], ..AddressChange::default() };
        assert_eq!(ask(&mut change, 0), Ok(()));
        assert_eq!(change.asked_at, [at(0)]);
    }

    #[test]
    fn the_e_mail_that_was_first_is_told_however_soon_it_is_changed_again() {
        let mut change = AddressChange::default();
        let former = |change: &AddressChange| change.former.clone().map(|(email, _)| email).unwrap();
        change.note_left("first@example.com", at(0));
        change.note_left("second@example.com", at(60));
        assert_eq!(former(&change), "first@example.com");
        // It was told.
        change.former = None;
        change.note_left("third@example.com", at(120));
        assert_eq!(former(&change), "third@example.com");
        // It could not be told in a day.
        change.note_left("fourth@example.com", at(120 + 24 * HOUR));
        assert_eq!(former(&change), "fourth@example.com");
    }
}
