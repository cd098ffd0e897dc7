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
///
/// What is not gathered may go to nobody: such a mail is over at once, and one to somebody may wait for the mail server. So
/// nothing shows whether it waits; while it does, the store adds no second one.
pub(crate) fn turn(is_gathered: bool, pause: Duration, last: Option<LastMail>, now: Timestamp) -> Queued {
    let at_once = Queued::At(Timestamp::EPOCH);
    let Some(last) = last else { return at_once };
    // A time that is further ahead was written by a clock that was wrong.
    let is_within_pause = |at: Timestamp| at.plus(pause) > now && at <= now.plus(pause);
    if !is_gathered {
        return if is_within_pause(last.created_at) { Queued::Covered } else { at_once };
    }
    match last.ended_at {
        None => Queued::Together,
        Some(ended) if is_within_pause(ended) => Queued::At(ended.plus(pause)),
        Some(_) => at_once,
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
            ("one waits for long", Some(LastMail { created_at: minute(7), ended_at: None }), Queued::Together, at_once),
            ("a clock was a year ahead", sent(500_000, 500_000), at_once, at_once),
            ("just sent", sent(10, 11), Queued::At(minute(16)), Queued::Covered),
            ("asked for long ago and just sent", sent(1, 11), Queued::At(minute(16)), at_once),
            ("sent long ago", sent(7, 7), at_once, at_once),
        ] {
            assert_eq!(turn(true, pause, last, minute(12)), gathered, "{case}");
            assert_eq!(turn(false, pause, last, minute(12)), asked_for, "{case}");
        }
    }
}
