//! Of what its user is told by mail: what changes who can get into an account, what looks like somebody else, and what will
//! stop working. Users see the rest in their audit trail.

use crate::audit::event::{Actor, Event, Kind, NEW_ADDRESS, RESTS_UNTIL};
use crate::mail::kinds::MailKind;

/// The kinds of events of which some or all are told.
pub(crate) const TOLD: [Kind; 18] = [
    Kind::PasswordChanged,
    Kind::UserPasswordSet,
    Kind::PasswordReset,
    Kind::EmailChangeRequested,
    Kind::EmailChanged,
    Kind::UserChanged,
    Kind::TotpEnabled,
    Kind::TotpDisabled,
    Kind::RecoveryCodeUsed,
    Kind::TotpFailed,
    Kind::SessionOpened,
    Kind::SessionReuseDetected,
    Kind::KeyCreated,
    Kind::KeyRotated,
    Kind::KeyExpiring,
    Kind::WebhookCreated,
    Kind::WebhookChanged,
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
    WebhookCreated,
    WebhookMoved,
    WebhookDisabled,
}

impl Notice {
    pub const ALL: [Notice; 17] = [
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
        Notice::WebhookCreated,
        Notice::WebhookMoved,
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
            Notice::WebhookCreated => "webhook-created",
            Notice::WebhookMoved => "webhook-moved",
            Notice::WebhookDisabled => "webhook-disabled",
        }
    }

    /// What the user of the event's account is told of it. `None`: nothing.
    pub fn of(event: &Event) -> Option<Notice> {
        let has = |detail: &str| event.details.contains_key(detail);
        let names = |detail: &str, name: &str| {
            event
                .details
                .get(detail)
                .and_then(|names| names.as_array())
                .is_some_and(|names| names.iter().any(|n| n == name))
        };
        // Operators' endpoints are not the account's, although its user has made them.
        let by_operator = matches!(event.actor, Actor::Operator | Actor::UserAsOperator { .. });
        Some(match event.kind {
            Kind::PasswordChanged => Notice::PasswordChanged,
            Kind::UserPasswordSet => Notice::PasswordSet,
            Kind::PasswordReset => Notice::PasswordReset,
            Kind::EmailChangeRequested => Notice::AddressChangeRequested,
            Kind::EmailChanged => Notice::AddressChanged,
            Kind::UserChanged if names("fields", "email") => Notice::AddressChanged,
            Kind::TotpEnabled => Notice::FactorEnabled,
            Kind::TotpDisabled => Notice::FactorDisabled,
            Kind::RecoveryCodeUsed => Notice::RecoveryCodeUsed,
            Kind::TotpFailed if has(RESTS_UNTIL) => Notice::CodesRest,
            Kind::SessionOpened if has(NEW_ADDRESS) => Notice::NewAddress,
            Kind::SessionReuseDetected => Notice::SessionReused,
            Kind::KeyCreated => Notice::KeyCreated,
            Kind::KeyRotated => Notice::KeyRotated,
            Kind::KeyExpiring => Notice::KeyExpiring,
            Kind::WebhookCreated if !by_operator => Notice::WebhookCreated,
            Kind::WebhookChanged if !by_operator && names("settings", "url") => Notice::WebhookMoved,
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
            Notice::AddressChanged => MailKind::AddressChanged,
            Notice::CodesRest => MailKind::CodesRest,
            Notice::SessionReused => MailKind::SessionReused,
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
        let event = |kind: Kind| {
            let event = Event { actor: Actor::Anonymous, ..event(kind) };
            let event = event.with(NEW_ADDRESS, true).with(RESTS_UNTIL, "2026-01-01T00:00:00Z");
            event.with("fields", vec!["email"]).with("settings", vec!["url"])
        };
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
    fn of_webhooks_their_users_are_told_where_they_lead_and_of_operators_ones_nothing() {
        let changed = |setting: &'static str| event(Kind::WebhookChanged).with("settings", vec![setting]);
        let notices = Some(MailKind::Notices);
        for (event, told) in [
            (event(Kind::WebhookCreated), notices),
            (changed("url"), notices),
            (changed("description"), None),
            (event(Kind::WebhookDeleted), None),
        ] {
            assert_eq!(notice_of(&event), None, "{event:?}");
            let by_user = Event { actor: Actor::Anonymous, ..event };
            assert_eq!(notice_of(&by_user), told, "{by_user:?}");
        }
    }

    #[test]
    fn what_cannot_wait_waits_for_no_other_notice_and_strangers_get_none() {
        assert_eq!(notice_of(&event(Kind::SessionReuseDetected)), Some(MailKind::SessionReused));
        assert_eq!(notice_of(&event(Kind::TotpFailed).with(RESTS_UNTIL, "2026-01-01")), Some(MailKind::CodesRest));
        assert_eq!(notice_of(&event(Kind::EmailChangeRequested)), Some(MailKind::AddressChangeNotice));
        assert_eq!(notice_of(&event(Kind::EmailChanged)), Some(MailKind::AddressChanged));
        let changed = |field: &'static str| notice_of(&event(Kind::UserChanged).with("fields", vec![field]));
        assert_eq!((changed("email"), changed("name")), (Some(MailKind::AddressChanged), None));
        assert_eq!(notice_of(&event(Kind::PasswordChanged)), Some(MailKind::Notices));
        assert_eq!(notice_of(&Event { user: None, ..event(Kind::PasswordChanged) }), None);
    }
}
