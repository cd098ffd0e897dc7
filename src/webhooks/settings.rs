//! The settings of this room.

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
}
