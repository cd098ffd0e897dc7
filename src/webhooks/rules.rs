//! What becomes of an endpoint when it is changed, and what may be sent to it. Plain data in, a decision out; the store asks
//! inside its transaction and writes what is decided.

use crate::audit::event::{By, Event, Kind, Subject};
use crate::base::clock::Timestamp;
use crate::webhooks::settings::Mode;
use crate::webhooks::webhook::{StoredTarget, Webhook, WebhookChange};

/// The endpoint after the change. Switching it on clears why it was switched off.
pub(crate) fn change(old: &Webhook, change: &WebhookChange) -> Webhook {
    let mut new = old.clone();
    if let Some(url) = &change.url {
        new.url.clone_from(url);
    }
    if let Some(types) = &change.types {
        new.types.clone_from(types);
    }
    if let Some(description) = &change.description {
        new.description.clone_from(description);
    }
    new.is_active = change.is_active.unwrap_or(old.is_active);
    if new.is_active {
        new.disabled = None;
    }
    new
}

/// Whether the tries that failed before the change say nothing about the endpoint after it.
pub(crate) fn starts_afresh(old: &Webhook, new: &Webhook) -> bool {
    old.url != new.url || (new.is_active && !old.is_active)
}

/// Whether an endpoint counts as slow before its first try. A user's does: otherwise, a user who makes and changes endpoints all
/// the time has every slot.
pub(crate) fn counts_as_slow(webhook: &Webhook) -> bool {
    !webhook.is_operators
}

/// What is recorded of a change: the names of the changed settings, never an address, which may hold a secret. `None`: it
/// names no setting.
pub(crate) fn change_event(webhook: &Webhook, settings: Vec<&'static str>, by: &By, at: Timestamp) -> Option<Event> {
    (!settings.is_empty()).then(|| event(Kind::WebhookChanged, webhook, by, at).with("settings", settings))
}

/// An event on an endpoint. It is on the account of its owner; of an operators' endpoint, of its maker.
pub(crate) fn event(kind: Kind, webhook: &Webhook, by: &By, at: Timestamp) -> Event {
    Event::new(kind, webhook.owner, by, at).on(Subject::Webhook(webhook.id))
}

/// Whether deliveries go there now. If not, they wait.
pub fn may_go(mode: Mode, target: &StoredTarget) -> bool {
    mode.serves(target.webhook.is_operators) && target.webhook.is_active && target.owner_may
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::id::{UserId, WebhookId};
    use crate::webhooks::types::Types;
    use crate::webhooks::url::WebhookUrl;
    use crate::webhooks::webhook::{DisabledReason, SealedSecrets};

    fn webhook() -> Webhook {
        Webhook {
            id: WebhookId::new(),
            owner: UserId::new(),
            is_operators: false,
            url: WebhookUrl::parse("https://a.example/secret").unwrap(),
            types: Types::parse(&["key.created"]).ok(),
            description: Some("billing".to_string()),
            is_active: true,
            disabled: None,
            previous_secret_until: None,
            created_at: Timestamp::EPOCH,
        }
    }

    fn disabled() -> Webhook {
        Webhook { is_active: false, disabled: Some((Timestamp::EPOCH, DisabledReason::Failing)), ..webhook() }
    }

    fn switched(is_active: bool) -> WebhookChange {
        WebhookChange { is_active: Some(is_active), ..WebhookChange::default() }
    }

    #[test]
    fn switching_an_endpoint_on_clears_why_it_was_off() {
        for (case, old, by, expected) in [
            ("on", disabled(), switched(true), (true, false, true)),
            ("off again", disabled(), switched(false), (false, true, false)),
            ("nothing", disabled(), WebhookChange::default(), (false, true, false)),
            ("off by its owner", webhook(), switched(false), (false, false, false)),
            ("on already", webhook(), switched(true), (true, false, false)),
        ] {
            let new = change(&old, &by);
            assert_eq!((new.is_active, new.disabled.is_some(), starts_afresh(&old, &new)), expected, "{case}");
        }
        let url = WebhookUrl::parse("https://b.example").unwrap();
        let moved = WebhookChange { url: Some(url.clone()), types: Some(None), ..WebhookChange::default() };
        let new = change(&disabled(), &moved);
        assert!(new.url == url && new.types.is_none() && !new.is_active && new.disabled.is_some());
        assert_eq!(new.description.as_deref(), Some("billing"));
        assert!(starts_afresh(&disabled(), &new));
    }

    #[test]
    fn an_event_of_a_change_names_settings_and_no_address() {
        let webhook = webhook();
        let by = By::operator();
        let change = WebhookChange {
            url: Some(webhook.url.clone()),
            description: Some(None),
            is_active: Some(true),
            types: Some(None),
        };
        let event = change_event(&webhook, change.names(), &by, Timestamp::EPOCH).unwrap();
        assert_eq!(event.user, Some(webhook.owner));
        assert_eq!(event.subject, Some(Subject::Webhook(webhook.id)));
        assert_eq!(
            serde_json::to_value(event.details).unwrap(),
            json!({ "settings": ["url", "types", "description", "isActive"] })
        );
        assert!(change_event(&webhook, WebhookChange::default().names(), &by, Timestamp::EPOCH).is_none());
    }

    #[test]
    fn deliveries_go_where_the_installation_and_the_owner_let_them() {
        for (mode, is_operators, is_active, owner_may, expected) in [
            (Mode::Users, false, true, true, true),
            (Mode::Users, true, true, true, true),
            (Mode::Operators, true, true, true, true),
            (Mode::Operators, false, true, true, false),
            (Mode::Off, true, true, true, false),
            (Mode::Users, false, false, true, false),
            (Mode::Users, false, true, false, false),
        ] {
            let webhook = Webhook { is_operators, is_active, ..webhook() };
            let secrets = SealedSecrets { current: Vec::new(), previous: None };
            let target = StoredTarget { webhook, secrets, owner_may };
            assert_eq!(may_go(mode, &target), expected, "{mode:?} {is_operators} {is_active} {owner_may}");
        }
    }
}
