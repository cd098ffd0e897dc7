//! The settings of this room.

use std::time::Duration;

#[derive(Clone, Copy, Debug, Default)]
pub struct AuditSettings {
    /// How long events are kept.
    pub retention: Duration,
}
