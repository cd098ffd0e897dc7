//! The settings of this room.

use std::time::Duration;

#[derive(Clone, Copy, Debug, Default)]
pub struct OutboxSettings {
    /// How many deliveries are made at the same time.
    pub at_once: usize,
    /// How long deliveries are kept.
    pub retention: Duration,
}

/// To whom an event is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// To the endpoints of operators.
    pub operators: bool,
    /// To the endpoints of users.
    pub users: bool,
    /// To people, by mail.
    pub mail: bool,
}
