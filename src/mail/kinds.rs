//! The kinds of mail, and how far apart two of a kind are.

use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A kind of mail to an account. A queued mail holds its kind and the account alone; what it says is made when it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MailKind {
    /// A link that confirms the account's address.
    Verification,
    /// A link that sets a new password.
    Reset,
    /// A link that sets the first password of somebody who was invited.
    Invitation,
    /// A link that confirms a new address. Goes to the new address.
    AddressChange,
    /// Somebody wants another address for the account. Goes to the one that it has, and does not wait for an hour with other
    /// notices: by then the account may have the new address.
    AddressChangeNotice,
    /// The account has another address. Goes to the former one.
    AddressChanged,
    /// What has happened to the account, all together: see [`crate::mail::notices`].
    Notices,
    /// That no code is taken for a while: with the other notices it could be told when that is over.
    CodesRest,
    /// That somebody else has used a session: the user has to act at once.
    SessionReused,
}

impl MailKind {
    pub const ALL: [MailKind; 9] = [
        MailKind::Verification,
        MailKind::Reset,
        MailKind::Invitation,
        MailKind::AddressChange,
        MailKind::AddressChangeNotice,
        MailKind::AddressChanged,
        MailKind::Notices,
        MailKind::CodesRest,
        MailKind::SessionReused,
    ];

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            MailKind::Verification => "verification",
            MailKind::Reset => "reset",
            MailKind::Invitation => "invitation",
            MailKind::AddressChange => "address-change",
            MailKind::AddressChangeNotice => "address-change-notice",
            MailKind::AddressChanged => "address-changed",
            MailKind::Notices => "notices",
            MailKind::CodesRest => "codes-rest",
            MailKind::SessionReused => "session-reused",
        }
    }

    pub fn parse(text: &str) -> Option<MailKind> {
        MailKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// How long after one mail of this kind the account gets the next at the earliest.
    pub fn pause(self) -> Duration {
        if self.lists_notices() { HOUR } else { 5 * MINUTE }
    }

    /// It has the text of notices, and a list of those of this kind: see [`crate::mail::notices::Notice::mail`].
    pub fn lists_notices(self) -> bool {
        matches!(self, MailKind::Notices | MailKind::CodesRest | MailKind::SessionReused)
    }

    /// What is to be told during the pause is told after it; of a change of address, it may go to another one each time. Of
    /// every other kind, what is asked for during the pause is nothing new: the mail before it says the same.
    pub fn is_gathered(self) -> bool {
        !matches!(self, MailKind::Verification | MailKind::Reset | MailKind::Invitation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_as_it_is_stored() {
        for kind in MailKind::ALL {
            assert_eq!(MailKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(MailKind::parse("note"), None);
    }

    #[test]
    fn notices_are_an_hour_apart_and_what_was_asked_for_five_minutes() {
        use MailKind::{AddressChange, AddressChangeNotice, AddressChanged, CodesRest, Notices, SessionReused};
        let gathered = MailKind::ALL.into_iter().filter(|kind| kind.is_gathered());
        let expected = [AddressChange, AddressChangeNotice, AddressChanged, Notices, CodesRest, SessionReused];
        assert_eq!(gathered.collect::<Vec<_>>(), expected);
        assert_eq!([MailKind::Notices.pause(), MailKind::Reset.pause()], [HOUR, 5 * MINUTE]);
    }
}
