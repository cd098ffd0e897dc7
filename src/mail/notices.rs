//! Of what its user is told by mail: what changes who can get into an account, what looks like somebody else, and what will
//! stop working. Users see the rest in their audit trail.

use crate::audit::event::{Event, Kind, NEW_ADDRESS, RESTS_UNTIL};
use crate::mail::kinds::MailKind;

/// The kinds of events of which some or all are told.
pub(crate) const TOLD: [Kind; 15] = [
    Kind::PasswordChanged,
    Kind::UserPasswordSet,
    Kind::PasswordReset,
    Kind::EmailChangeRequested,
    Kind::EmailChanged,
    Kind::TotpEnabled,
    Kind::TotpDisabled,
    Kind::RecoveryCodeUsed,
    Kind::TotpFailed,
    Kind::SessionOpened,
    Kind::SessionReuseDetected,
    Kind::KeyCreated,
    Kind::KeyRotated,
    Kind::KeyExpiring,
    Kind::WebhookDisabled,
];

/// What a user is told of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    PasswordChanged,
    PasswordSet,
    PasswordReset,
    AddressChangeRequested,
    AddressChanged,
    FactorEnabled,
    FactorDisabled,
    RecoveryCodeUsed,
    CodesRest,
    NewAddress,
    SessionReused,
    KeyCreated,
    KeyRotated,
    KeyExpiring,
    WebhookDisabled,
}

impl Notice {
    pub const ALL: [Notice; 15] = [
        Notice::PasswordChanged,
        Notice::PasswordSet,
        Notice::PasswordReset,
        Notice::AddressChangeRequested,
        Notice::AddressChanged,
        Notice::FactorEnabled,
        Notice::FactorDisabled,
        Notice::RecoveryCodeUsed,
        Notice::CodesRest,
        Notice::NewAddress,
        Notice::SessionReused,
        Notice::KeyCreated,
        Notice::KeyRotated,
        Notice::KeyExpiring,
        Notice::WebhookDisabled,
    ];

    /// The name of its sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Notice::PasswordChanged => "password-changed",
            Notice::PasswordSet => "password-set",
            Notice::PasswordReset => "password-reset",
            Notice::AddressChangeRequested => "address-change-requested",
            Notice::AddressChanged => "address-changed",
            Notice::FactorEnabled => "factor-enabled",
            Notice::FactorDisabled => "factor-disabled",
            Notice::RecoveryCodeUsed => "recovery-code-used",
            Notice::CodesRest => "codes-rest",
            Notice::NewAddress => "new-address",
            Notice::SessionReused => "session-reused",
            Notice::KeyCreated => "key-created",
            Notice::KeyRotated => "key-rotated",
            Notice::KeyExpiring => "key-expiring",
            Notice::WebhookDisabled => "webhook-disabled",
        }
    }

    /// What the user of the event's account is told of it. `None`: nothing.
    pub fn of(event: &Event) -> Option<Notice> {
        let has = |detail: &str| event.details.contains_key(detail);
        Some(match event.kind {
            Kind::PasswordChanged => Notice::PasswordChanged,
            Kind::UserPasswordSet => Notice::PasswordSet,
            Kind::PasswordReset => Notice::PasswordReset,
            Kind::EmailChangeRequested => Notice::AddressChangeRequested,
            Kind::EmailChanged => Notice::AddressChanged,
            Kind::TotpEnabled => Notice::FactorEnabled,
            Kind::TotpDisabled => Notice::FactorDisabled,
            Kind::RecoveryCodeUsed => Notice::RecoveryCodeUsed,
            Kind::TotpFailed if has(RESTS_UNTIL) => Notice::CodesRest,
            Kind::SessionOpened if has(NEW_ADDRESS) => Notice::NewAddress,
            Kind::SessionReuseDetected => Notice::SessionReused,
            Kind::KeyCreated => Notice::KeyCreated,
            Kind::KeyRotated => Notice::KeyRotated,
            Kind::KeyExpiring => Notice::KeyExpiring,
            Kind::WebhookDisabled => Notice::WebhookDisabled,
            // An account that was deactivated or deleted gets no mail any more. What an operator does with scopes and names,
            // ended sessions, revoked keys and single wrong passwords need nobody to do anything.
            Kind::UserSignedUp
            | Kind::UserCreated
            | Kind::UserActivated
            | Kind::UserDeactivated
            | Kind::UserDeleted
            | Kind::UserScopesChanged
            | Kind::UserChanged
            | Kind::UserInvited
            | Kind::PasswordResetRequested
            | Kind::EmailVerified
            | Kind::TotpFailed
            | Kind::PasswordFailed
            | Kind::LoginFailed
            | Kind::SessionOpened
            | Kind::SessionEnded
            | Kind::SessionRetried
            | Kind::KeyChanged
            | Kind::KeyRevoked
            | Kind::KeyExpired
            | Kind::WebhookCreated
            | Kind::WebhookChanged
            | Kind::WebhookDeleted => return None,
        })
    }

    /// The mail that tells it.
    pub fn mail(self) -> MailKind {
        match self {
            Notice::AddressChangeRequested => MailKind::AddressChangeNotice,
            _ => MailKind::Notices,
        }
    }
}

/// The kind of mail that tells the user of the event's account about it. `None`: none does.
pub fn notice_of(event: &Event) -> Option<MailKind> {
    event.user?;
    Notice::of(event).map(Notice::mail)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::audit::event::By;
    use crate::base::clock::Timestamp;
    use crate::base::id::UserId;

    fn event(kind: Kind) -> Event {
        Event::new(kind, UserId::new(), &By::operator(), Timestamp::EPOCH)
    }

    #[test]
    fn every_notice_is_told_of_some_event() {
        let event = |kind: Kind| event(kind).with(NEW_ADDRESS, true).with(RESTS_UNTIL, "2026-01-01T00:00:00Z");
        let told: Vec<(Kind, Notice)> =
            Kind::ALL.iter().filter_map(|kind| Some((*kind, Notice::of(&event(*kind))?))).collect();
        let notices: HashSet<Notice> = told.iter().map(|(_, notice)| *notice).collect();
        assert_eq!(notices, Notice::ALL.into_iter().collect());
        let kinds: HashSet<Kind> = told.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, TOLD.into_iter().collect());
    }

    #[test]
    fn what_users_do_every_day_is_told_in_no_mail() {
        for kind in [Kind::SessionOpened, Kind::TotpFailed, Kind::LoginFailed, Kind::SessionEnded, Kind::KeyRevoked] {
            assert_eq!(notice_of(&event(kind)), None, "{kind:?}");
        }
    }

    #[test]
    fn a_change_of_address_waits_for_no_other_notice_and_strangers_get_none() {
        assert_eq!(notice_of(&event(Kind::EmailChangeRequested)), Some(MailKind::AddressChangeNotice));
        assert_eq!(notice_of(&event(Kind::PasswordChanged)), Some(MailKind::Notices));
        assert_eq!(notice_of(&Event { user: None, ..event(Kind::PasswordChanged) }), None);
    }
}
