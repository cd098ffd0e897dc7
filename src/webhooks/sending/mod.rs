//! Sending what is due to endpoints. Where they may be is decided in [`crate::webhooks::addresses`].

mod failures;
mod judging;
mod names;
mod sender;
mod signing;

use std::sync::Arc;

use log::error;

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::id::WebhookId;
use crate::base::roots::Roots;
use crate::outbox::delivery::{Channel, Delivery, Outcome};
use crate::webhooks::sending::judging::WITHIN;
use crate::webhooks::sending::names::Names;
use crate::webhooks::sending::sender::{Message, Sender};
use crate::webhooks::service::Webhooks;
use crate::webhooks::settings::WebhookSettings;

/// The way to endpoints. Operators' and users' share neither connections nor threads: a kept connection is only used by
/// those who might have made it, and names that hang hold up their own kind alone.
pub struct WebhookChannel {
    webhooks: Arc<Webhooks>,
    to_operators: Sender,
    to_users: Sender,
    clock: Clock,
}

impl WebhookChannel {
    pub fn new(
        webhooks: Arc<Webhooks>,
        settings: &WebhookSettings,
        roots: &Arc<Roots>,
        clock: Clock,
    ) -> WebhookChannel {
        let sender = |operators| Sender::new(Names::of_the_system(), settings.reach(operators), roots.clone(), WITHIN);
        WebhookChannel { webhooks, to_operators: sender(true), to_users: sender(false), clock }
    }
}

impl Channel for WebhookChannel {
    fn deliver(&self, delivery: &Delivery) -> Outcome {
        let target = match self.webhooks.target(WebhookId(delivery.receiver)) {
            Ok(Some(target)) if target.may_go => target,
            Ok(Some(_)) => return Outcome::Paused,
            Ok(None) => return Outcome::Dropped,
            // It is no fault of the endpoint's.
            Err(Error::Unavailable(_)) => return Outcome::Paused,
            Err(error) => {
                error!("deliveries to webhook {} wait: {error:?}", delivery.receiver);
                return Outcome::Paused;
            }
        };
        let Some(body) = &delivery.body else { return Outcome::Dropped };
        let id = delivery.event.map_or(delivery.id.0, |event| event.0).to_string();
        let message = Message { id: &id, seconds: self.clock.now().seconds(), body };
        let sender = if target.is_operators { &self.to_operators } else { &self.to_users };
        sender.send(&target.url, &target.secrets, &message)
    }
}
