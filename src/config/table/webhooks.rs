//! Endpoints that are told what happens.

use super::read::list;
use crate::base::network::Network;
use crate::config::setting::{ALWAYS, Setting};
use crate::webhooks::settings::Mode;

pub(super) static SETTINGS: &[Setting] = &[
    Setting {
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
    },
    Setting {
        name: "WEBHOOK_NETWORKS",
        default: None,
        accepts: "networks such as 10.0.0.0/8 and addresses, separated by commas",
        meaning: "Networks of yours in which users' endpoints may be too, with http and any port; never link-local addresses",
        secret: false,
        counts: |config| if config.webhooks.mode == Mode::Users { Ok(()) } else { Err("WEBHOOKS is not users") },
        read: |config, value| {
            let network = |text: &str| Network::parse(text).ok_or("is not a list of networks");
            config.webhooks.networks = list(value, network)?;
            Ok(())
        },
    },
];
