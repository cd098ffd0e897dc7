//! What is delivered, and by which ways.

use std::sync::Arc;

use crate::app::App;
use crate::config::Config;
use crate::mail::channel::{MailChannel, Sources};
use crate::mail::mailer::Mailer;
use crate::outbox::deliverer::{Channels, Deliverer};
use crate::outbox::delivery::Channel;
use crate::outbox::settings::Reach;
use crate::store::Store;
use crate::webhooks::sending::WebhookChannel;
use crate::webhooks::settings::Mode;

/// To whom this installation delivers events.
pub(crate) fn reach(config: &Config) -> Reach {
    let mode = config.webhooks.mode;
    Reach { operators: mode.serves(true), users: mode.serves(false), mail: config.mail.is_on() }
}

/// Starts to deliver. The error is one line for the operator.
pub(crate) fn start(
    app: &App,
    store: &Arc<dyn Store>,
    mailer: Option<Mailer>,
    config: &Config,
) -> Result<Deliverer, String> {
    let webhooks = (config.webhooks.mode != Mode::Off).then(|| {
        let (webhooks, roots) = (app.webhooks.clone(), Arc::default());
        Arc::new(WebhookChannel::new(webhooks, &config.webhooks, &roots, app.clock.clone())) as Arc<dyn Channel>
    });
    let mail = mailer.map(|mailer| {
        let links = app.mailed_links.clone();
        let sources = Sources { users: store.clone(), events: store.clone(), keys: store.clone(), links };
        Arc::new(MailChannel::new(mailer, sources, app.clock.clone())) as Arc<dyn Channel>
    });
    Deliverer::start(store.clone(), Channels { webhooks, mail }, config.outbox.at_once, app.clock.clone())
}
