//! What links in mails are for, and where they go.

use crate::accounts::one_time::TokenKind;
use crate::accounts::user::{User, UserKind};

/// What a mailed link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To set a password in place of a forgotten one.
    Reset,
    /// To set the first password of an account that an operator has made.
    Invitation,
    /// To verify the e-mail of the account.
    Verification,
    /// To verify the e-mail that the user wants from now on. It goes to that one.
    AddressChange,
}

impl Purpose {
    pub const ALL: [Purpose; 4] = [Purpose::Reset, Purpose::Invitation, Purpose::Verification, Purpose::AddressChange];

    /// The kind of the mail, as it is queued.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Reset => "reset",
            Purpose::Invitation => "invitation",
            Purpose::Verification => "verification",
            Purpose::AddressChange => "address-change",
        }
    }

    pub(crate) fn token_kind(self) -> TokenKind {
        match self {
            Purpose::Reset | Purpose::Invitation => TokenKind::ResetPassword,
            Purpose::Verification => TokenKind::VerifyEmail,
            Purpose::AddressChange => TokenKind::ChangeEmail,
        }
    }
}

/// Where a mail with a link goes. `None`: it has no sense. `wanted`: the e-mail that the user wants from now on.
pub(crate) fn recipient(purpose: Purpose, user: &User, wanted: Option<String>) -> Option<String> {
    let has_sense = match purpose {
        Purpose::Reset => true,
        Purpose::Invitation => !user.has_password,
        Purpose::Verification => !user.email_verified,
        Purpose::AddressChange => wanted.is_some(),
    };
    let is_reached = user.is_active && user.kind == UserKind::User;
    let address = if purpose == Purpose::AddressChange { wanted } else { Some(user.email.clone()) };
    address.filter(|_| has_sense && is_reached)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::email::Email;
    use crate::accounts::user::new_user;
    use crate::base::clock::Timestamp;
    use crate::keys::grants::Grants;

    #[test]
    fn a_mail_goes_to_the_stored_address_while_it_has_a_sense() {
        use Purpose::{AddressChange, Invitation, Reset, Verification};
        let ann = new_user(Email::parse("ann@example.com").unwrap(), None, Grants::default(), Timestamp::EPOCH);
        let goes = |user: &User, wanted: Option<&str>| {
            let reached = |purpose: &Purpose| recipient(*purpose, user, wanted.map(str::to_string)).is_some();
            Purpose::ALL.into_iter().filter(reached).collect::<Vec<_>>()
        };
        let verified = User { email_verified: true, ..ann.clone() };
        let invited = User { has_password: false, ..ann.clone() };
        let inactive = User { is_active: false, ..ann.clone() };
        let service = User { kind: UserKind::Service, ..invited.clone() };
        for (user, wanted, expected) in [
            (&ann, None, &[Reset, Verification][..]),
            (&ann, Some("ann@example.org"), &[Reset, Verification, AddressChange]),
            (&verified, None, &[Reset]),
            (&invited, None, &[Reset, Invitation, Verification]),
            (&inactive, Some("ann@example.org"), &[]),
            (&service, Some("ann@example.org"), &[]),
        ] {
            assert_eq!(goes(user, wanted), expected, "{user:?}");
        }
        let new = Some("ann@example.org".to_string());
        assert_eq!(recipient(AddressChange, &ann, new.clone()), new);
        assert_eq!(recipient(Reset, &ann, new), Some(ann.email.clone()));
    }
}
