//! What is delivered, and by which ways.

use std::sync::Arc;

use crate::app::App;
use crate::config::Config;
use crate::outbox::deliverer::{Channels, Deliverer};
use crate::outbox::delivery::Channel;
use crate::outbox::settings::Reach;
use crate::store::Store;
use crate::webhooks::sending::WebhookChannel;
use crate::webhooks::settings::Mode;

/// To whom this installation delivers events.
pub(crate) fn reach(config: &Config) -> Reach {
    let mode = config.webhooks.mode;
    Reach { operators: mode.serves(true), users: mode.serves(false), mail: false }
}

/// Starts to deliver. The error is one line for the operator.
pub(crate) fn start(app: &App, store: &Arc<dyn Store>, config: &Config) -> Result<Deliverer, String> {
    let webhooks = (config.webhooks.mode != Mode::Off).then(|| {
        let (webhooks, roots) = (app.webhooks.clone(), Arc::default());
        Arc::new(WebhookChannel::new(webhooks, &config.webhooks, &roots, app.clock.clone())) as Arc<dyn Channel>
    });
    Deliverer::start(store.clone(), Channels { webhooks, mail: None }, config.outbox.at_once, app.clock.clone())
}
