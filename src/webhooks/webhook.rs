//! Endpoints: whose they are, what they are told of, and in what state they are.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::base::clock::Timestamp;
use crate::base::id::{UserId, WebhookId};
use crate::webhooks::types::Types;
use crate::webhooks::url::WebhookUrl;

/// How many endpoints a user may have.
pub const MOST_OF_A_USER: usize = 10;
/// How many the operators of an installation may have. A list of them is one page.
pub const MOST_OF_OPERATORS: usize = 100;

/// For how long a secret that was replaced signs beside the new one.
pub const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

/// The type of a delivery that shows whether an endpoint can be reached.
pub const TEST: &str = "webhook.test";

/// Whose endpoints: a user's own, or the operators', which are the installation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    User(UserId),
    Operators,
}

impl Holder {
    pub(crate) fn most(self) -> usize {
        match self {
            Holder::User(_) => MOST_OF_A_USER,
            Holder::Operators => MOST_OF_OPERATORS,
        }
    }
}

/// An endpoint, without its secrets.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub id: WebhookId,
    /// The user whose it is; of an operators' endpoint, the operator who made it.
    pub owner: UserId,
    pub is_operators: bool,
    pub url: WebhookUrl,
    /// `None`: all that are not gathered.
    pub types: Option<Types>,
    pub description: Option<String>,
    pub is_active: bool,
    /// When and why Keyward has switched it off itself.
    pub disabled: Option<(Timestamp, DisabledReason)>,
    /// Until when the secret before the current one signs too.
    pub previous_secret_until: Option<Timestamp>,
    pub created_at: Timestamp,
}

impl Webhook {
    pub(crate) fn holder(&self) -> Holder {
        if self.is_operators { Holder::Operators } else { Holder::User(self.owner) }
    }
}

/// Why Keyward has switched an endpoint off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisabledReason {
    /// It answered 410.
    Gone,
    /// Every try failed for five days.
    Failing,
    /// Too many deliveries are waiting for it.
    Full,
}

impl DisabledReason {
    const ALL: [DisabledReason; 3] = [DisabledReason::Gone, DisabledReason::Failing, DisabledReason::Full];

    pub fn as_str(self) -> &'static str {
        match self {
            DisabledReason::Gone => "gone",
            DisabledReason::Failing => "failing",
            DisabledReason::Full => "full",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<DisabledReason> {
        DisabledReason::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

impl Serialize for DisabledReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What an endpoint is for, in its owner's words.
pub fn parse_description(text: &str) -> Result<String, &'static str> {
    match text.chars().count() {
        0 => Err("should not be empty"),
        1..=255 => Ok(text.to_string()),
        _ => Err("must be shorter than or equal to 255 characters"),
    }
}

/// A change of an endpoint. What is `None` stays as it is.
#[derive(Debug, Default)]
pub struct WebhookChange {
    pub url: Option<WebhookUrl>,
    pub types: Option<Option<Types>>,
    pub description: Option<Option<String>>,
    pub is_active: Option<bool>,
}

impl WebhookChange {
    /// The names of the settings that it changes.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let named = [
            ("url", self.url.is_some()),
            ("types", self.types.is_some()),
            ("description", self.description.is_some()),
            ("isActive", self.is_active.is_some()),
        ];
        named.into_iter().filter(|(_, is_named)| *is_named).map(|(name, _)| name).collect()
    }
}

/// Secrets as they are stored: encrypted.
#[derive(Clone)]
pub struct SealedSecrets {
    pub current: Vec<u8>,
    /// The one before, and until when it signs too.
    pub previous: Option<(Vec<u8>, Timestamp)>,
}

/// An endpoint to which something may be due, as it is stored.
pub struct StoredTarget {
    pub webhook: Webhook,
    pub secrets: SealedSecrets,
    /// The owner is active; of an operators' endpoint, its maker is still an operator.
    pub owner_may: bool,
}

/// Why an endpoint was not made, changed or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookRefusal {
    /// There is no such endpoint, or the user who asks is gone, inactive or logged out.
    Gone,
    TooMany(usize),
    NoSuchDelivery,
    SwitchedOff,
}
