//! Which keys a list shows that is read in pages.

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, UserId};
use crate::keys::key::ApiKey;

/// What the keys of a list have in common. What is `None` is not asked for.
#[derive(Clone, Debug, Default)]
pub struct KeyFilter {
    /// `None`: all users.
    pub owner: Option<UserId>,
    /// How their names begin.
    pub name: Option<String>,
    pub external_id: Option<String>,
    pub status: Option<KeyStatus>,
}

/// What has become of a key. Each key has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStatus {
    Usable,
    /// It would be usable, but for that.
    Paused,
    Expired,
    /// Whether it has expired or not.
    Revoked,
}

impl KeyStatus {
    /// The error is the rule that is broken; it follows the field's name.
    pub(crate) fn parse(text: &str) -> Result<KeyStatus, &'static str> {
        match text {
            "usable" => Ok(KeyStatus::Usable),
            "paused" => Ok(KeyStatus::Paused),
            "expired" => Ok(KeyStatus::Expired),
            "revoked" => Ok(KeyStatus::Revoked),
            _ => Err("must be one of the following values: usable, expired, revoked, paused"),
        }
    }
}

/// A key that may belong into a list, as far as that depends on it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub id: KeyId,
    pub name: String,
    pub external_id: Option<String>,
    pub is_active: bool,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// The owner's account was deleted, and this key will be.
    pub owner_is_deleted: bool,
}

impl Candidate {
    pub(crate) fn status(&self, now: Timestamp) -> KeyStatus {
        if self.revoked_at.is_some() {
            KeyStatus::Revoked
        } else if self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            KeyStatus::Expired
        } else if self.is_active {
            KeyStatus::Usable
        } else {
            KeyStatus::Paused
        }
    }
}

impl KeyFilter {
    /// Whether the list shows a key of the owner's, or of any user's if the filter names none.
    pub(crate) fn takes(&self, key: &Candidate, now: Timestamp) -> bool {
        let is_asked_for = |asked: &Option<String>, holds: &dyn Fn(&str) -> bool| asked.as_deref().is_none_or(holds);
        !key.owner_is_deleted
            && is_asked_for(&self.name, &|prefix| key.name.starts_with(prefix))
            && is_asked_for(&self.external_id, &|asked| key.external_id.as_deref() == Some(asked))
            && self.status.is_none_or(|status| key.status(now) == status)
    }
}

/// A part of a list, each key with how often it was allowed in the last 24 hours.
#[derive(Debug)]
pub struct KeyPage {
    pub keys: Vec<(ApiKey, u64)>,
    /// The key after which the list goes on, if it may. It is not in the list if the search for more ended at it: a page
    /// looks at a bounded number of keys.
    pub next: Option<KeyId>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: u64 = 1000;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(seconds))
    }

    fn key() -> Candidate {
        Candidate {
            id: KeyId::new(),
            name: "ci: deploy".to_string(),
            external_id: Some("42".to_string()),
            is_active: true,
            created_at: at(0),
            expires_at: None,
            revoked_at: None,
            owner_is_deleted: false,
        }
    }

    #[test]
    fn a_key_has_one_status() {
        use KeyStatus::{Expired, Paused, Revoked, Usable};
        for (is_active, expires_at, revoked_at, expected) in [
            (true, None, None, Usable),
            (true, Some(NOW + 1), None, Usable),
            (false, None, None, Paused),
            (true, Some(NOW), None, Expired),
            (false, Some(NOW), None, Expired),
            (false, None, Some(NOW), Revoked),
            (false, Some(10), Some(NOW), Revoked),
            (false, Some(NOW), Some(10), Revoked),
        ] {
            let key = Candidate { is_active, expires_at: expires_at.map(at), revoked_at: revoked_at.map(at), ..key() };
            assert_eq!(key.status(at(NOW)), expected, "{key:?}");
            let taken = [Usable, Paused, Expired, Revoked]
                .map(|status| KeyFilter { status: Some(status), ..KeyFilter::default() }.takes(&key, at(NOW)));
            assert_eq!(taken, [Usable, Paused, Expired, Revoked].map(|status| status == expected));
        }
    }

    #[test]
    fn a_list_takes_what_passes_all_of_its_filters() {
        let text = |text: &str| (text != "-").then(|| text.to_string());
        for (name, external_id, expected) in [
            ("-", "-", true),
            ("ci: deploy", "42", true),
            ("ci", "42", true),
            ("", "-", true),
            ("Ci", "-", false),
            ("deploy", "-", false),
            ("ci: deploy!", "-", false),
            ("-", "4", false),
            ("ci", "421", false),
        ] {
            let filter = KeyFilter { name: text(name), external_id: text(external_id), ..KeyFilter::default() };
            assert_eq!(filter.takes(&key(), at(NOW)), expected, "{filter:?}");
        }
        let without = Candidate { external_id: None, ..key() };
        assert!(!KeyFilter { external_id: text("42"), ..KeyFilter::default() }.takes(&without, at(NOW)));
        assert!(!KeyFilter::default().takes(&Candidate { owner_is_deleted: true, ..key() }, at(NOW)));
    }
}
