//! Endpoints that are told what happens.

use crate::config::setting::{ALWAYS, Setting};
use crate::webhooks::settings::Mode;

pub(super) static SETTINGS: &[Setting] = &[Setting {
    name: "WEBHOOKS",
    default: Some("operators"),
    accepts: "off, operators or users",
    meaning: "Who may have events sent to endpoints of theirs: nobody, operators, or operators and users",
    secret: false,
    counts: ALWAYS,
    read: |config, value| {
        config.webhooks.mode = Mode::parse(value).ok_or("is not one of them")?;
        Ok(())
    },
}];
