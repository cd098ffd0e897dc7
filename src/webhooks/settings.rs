//! The settings of this room.

use crate::base::network::Network;
use crate::webhooks::addresses::Reach;

/// Who may have webhooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    Off,
    #[default]
    Operators,
    /// Operators and users.
    Users,
}

impl Mode {
    pub(crate) fn parse(text: &str) -> Option<Mode> {
        match text {
            "off" => Some(Mode::Off),
            "operators" => Some(Mode::Operators),
            "users" => Some(Mode::Users),
            _ => None,
        }
    }

    /// Whether operators' endpoints are served, or those of users.
    pub fn serves(self, operators: bool) -> bool {
        match self {
            Mode::Off => false,
            Mode::Operators => operators,
            Mode::Users => true,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct WebhookSettings {
    pub mode: Mode,
    /// Where users' endpoints may be beside globally reachable addresses.
    pub networks: Vec<Network>,
}

impl WebhookSettings {
    /// Where an operators' endpoint may be, or a user's.
    pub(crate) fn reach(&self, operators: bool) -> Reach {
        if operators { Reach::Operator } else { Reach::User { networks: self.networks.clone() } }
    }
}
