//! The audit trail.

use super::read::{LIFETIMES, lifetime};
use crate::config::setting::{ALWAYS, Setting};

pub(super) static SETTINGS: &[Setting] = &[Setting {
    name: "AUDIT_RETENTION",
    default: Some("365d"),
    accepts: LIFETIMES,
    meaning: "How long events are kept",
    secret: false,
    counts: ALWAYS,
    read: |config, value| lifetime(value).map(|span| config.audit.retention = span),
}];
