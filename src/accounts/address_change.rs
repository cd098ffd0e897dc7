//! What is kept of a user's wishes for another e-mail: the latest one, who is to be told of it, and how often they had one.

use std::time::Duration;

use crate::base::clock::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How often a user may ask in a day. Each time, a mail goes to an address that may be a stranger's.
const MOST_IN_A_DAY: usize = 5;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressChange {
    /// The e-mail that the user wants.
    pub wanted: Option<String>,
    /// The e-mail that is still to be told of it, and since when.
    pub former: Option<(String, Timestamp)>,
    /// When the user asked, the oldest first.
    pub asked_at: Vec<Timestamp>,
}

impl AddressChange {
    /// The user, whose e-mail is `current`, wants another one. An error: they have to wait.
    ///
    /// Who has stolen an account may change its e-mail again before the first change was told. So the first one is told: the
    /// e-mails between are theirs.
    pub(crate) fn ask(&mut self, current: &str, wanted: &str, now: Timestamp) -> Result<(), Duration> {
        // A time that is far ahead was written by a clock that was wrong.
        let is_recent = |at: &Timestamp| at.millis().abs_diff(now.millis()) < DAY.as_millis() as u64;
        self.asked_at.retain(is_recent);
        if let Some(oldest) = self.asked_at.first().filter(|_| self.asked_at.len() >= MOST_IN_A_DAY) {
            let left = oldest.plus(DAY).millis().saturating_sub(now.millis());
            return Err(Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(DAY));
        }
        self.asked_at.push(now);
        self.former.take_if(|(_, since)| !is_recent(since));
        self.former.get_or_insert_with(|| (current.to_string(), now));
        self.wanted = Some(wanted.to_string());
        Ok(())
    }
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
        let ask = |change: &mut AddressChange, seconds| change.ask("a@example.com", "b@example.com", at(seconds));
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
        change.ask("first@example.com", "second@example.com", at(0)).unwrap();
        change.ask("second@example.com", "third@example.com", at(60)).unwrap();
        assert_eq!(
            (former(&change).as_str(), change.wanted.as_deref()),
            ("first@example.com", Some("third@example.com"))
        );
        // It was told.
        change.former = None;
        change.ask("third@example.com", "fourth@example.com", at(120)).unwrap();
        assert_eq!(former(&change), "third@example.com");
        // It could not be told in a day.
        change.ask("fourth@example.com", "fifth@example.com", at(120 + 24 * HOUR)).unwrap();
        assert_eq!(former(&change), "fourth@example.com");
    }
}
