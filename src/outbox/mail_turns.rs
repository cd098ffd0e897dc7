//! When an account gets its next mail of a kind.

use std::time::Duration;

use crate::base::clock::Timestamp;

/// The newest mail of the kind to the account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastMail {
    pub created_at: Timestamp,
    /// `None`: it is still to be sent.
    pub ended_at: Option<Timestamp>,
}

/// What becomes of a wish for a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queued {
    /// It is sent at this time, or at once.
    At(Timestamp),
    /// It goes out with the one that waits.
    Together,
    /// The mail before it says the same.
    Covered,
}

/// `is_gathered`: what is wished for within `pause` after a mail is told after it; otherwise it is nothing new.
pub(crate) fn turn(is_gathered: bool, pause: Duration, last: Option<LastMail>, now: Timestamp) -> Queued {
    match last {
        None => Queued::At(Timestamp::EPOCH),
        Some(LastMail { ended_at: None, .. }) if is_gathered => Queued::Together,
        Some(LastMail { ended_at: None, .. }) => Queued::Covered,
        Some(LastMail { ended_at: Some(ended), .. }) if is_gathered => {
            let next = ended.plus(pause);
            Queued::At(if next > now { next } else { Timestamp::EPOCH })
        }
        Some(last) if last.created_at.plus(pause) > now => Queued::Covered,
        Some(_) => Queued::At(Timestamp::EPOCH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gathered_waits_and_what_was_asked_for_again_is_nothing_new() {
        let minute = |minutes: u32| Timestamp::EPOCH.plus(Duration::from_secs(60) * minutes);
        let pause = Duration::from_secs(5 * 60);
        let sent = |created, ended| Some(LastMail { created_at: minute(created), ended_at: Some(minute(ended)) });
        let waiting = Some(LastMail { created_at: minute(10), ended_at: None });
        let at_once = Queued::At(Timestamp::EPOCH);
        for (case, last, gathered, asked_for) in [
            ("the first", None, at_once, at_once),
            ("one waits", waiting, Queued::Together, Queued::Covered),
            ("just sent", sent(10, 11), Queued::At(minute(16)), Queued::Covered),
            ("asked for long ago and just sent", sent(1, 11), Queued::At(minute(16)), at_once),
            ("sent long ago", sent(7, 7), at_once, at_once),
        ] {
            assert_eq!(turn(true, pause, last, minute(12)), gathered, "{case}");
            assert_eq!(turn(false, pause, last, minute(12)), asked_for, "{case}");
        }
    }
}
