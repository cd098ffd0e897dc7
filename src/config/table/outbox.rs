//! What is delivered to endpoints and by mail.

use super::read::{LIFETIMES, lifetime, whole_number};
use crate::config::setting::{ALWAYS, Setting};

pub(super) static SETTINGS: &[Setting] = &[
    Setting {
        name: "DELIVERIES_AT_ONCE",
        default: Some("8"),
        accepts: "a whole number from 2 to 100",
        meaning: "How many webhooks and mails each instance sends at the same time",
        secret: false,
        counts: ALWAYS,
        read: |config, value| whole_number(value, 2..=100).map(|number| config.outbox.at_once = number),
    },
    Setting {
        name: "DELIVERY_RETENTION",
        default: Some("30d"),
        accepts: LIFETIMES,
        meaning: "How long webhooks and mails are kept, whether they were delivered or not",
        secret: false,
        counts: ALWAYS,
        read: |config, value| lifetime(value).map(|span| config.outbox.retention = span),
    },
];
