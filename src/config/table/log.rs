//! The log.

use crate::base::logging::LogFormat;
use crate::config::setting::{ALWAYS, Setting};

pub(super) static SETTINGS: &[Setting] = &[
    Setting {
        name: "RUST_LOG",
        default: Some("info"),
        accepts: "error, warn, info, debug, trace or off, also by target, such as info,access=off",
        meaning: "What is logged; the target access has one line per request",
        secret: false,
        counts: ALWAYS,
        read: |config, value| {
            // The library takes a misspelt level for a target, and then logs nothing else.
            let is_level = |text: &str| text.parse::<log::LevelFilter>().is_ok();
            let directives = value.split(',').map(|directive| directive.rsplit('=').next().unwrap_or(directive));
            if !directives.map(str::trim).all(is_level) {
                return Err("has a level that is none of them".to_string());
            }
            config.log.filter = value.to_string();
            Ok(())
        },
    },
    Setting {
        name: "LOG_FORMAT",
        default: Some("text"),
        accepts: "text or json",
        meaning: "How log lines are written to standard error",
        secret: false,
        counts: ALWAYS,
        read: |config, value| {
            config.log.format = LogFormat::parse(value).ok_or("is neither")?;
            Ok(())
        },
    },
];
