//! Endpoints: making, changing and deleting them, their secrets, and where a delivery goes.

use std::sync::Arc;

use serde_json::json;

use crate::audit::event::By;
use crate::base::clock::Clock;
use crate::base::data_key::{DataKey, Place};
use crate::base::error::Error;
use crate::base::id::{DeliveryId, UserId, WebhookId};
use crate::base::page::Page;
use crate::webhooks::origin::Origin;
use crate::webhooks::rules;
use crate::webhooks::secret::WebhookSecret;
use crate::webhooks::sent::SentDelivery;
use crate::webhooks::settings::{Mode, WebhookSettings};
use crate::webhooks::store::WebhookStore;
use crate::webhooks::types::Types;
use crate::webhooks::url::WebhookUrl;
use crate::webhooks::webhook::{Holder, OVERLAP, SealedSecrets, TEST, Webhook, WebhookChange, WebhookRefusal};

/// What a new endpoint is made from.
pub struct WebhookSpec {
    pub url: WebhookUrl,
    pub types: Option<Types>,
    pub description: Option<String>,
}

/// Where a delivery goes, and what signs it.
pub struct Target {
    pub url: WebhookUrl,
    /// The one that signs now, then the one that it has replaced, while that signs too.
    pub secrets: Vec<WebhookSecret>,
    pub is_operators: bool,
    /// Not while it is switched off, its owner is inactive, or its maker is no operator any more: deliveries wait.
    pub may_go: bool,
}

pub struct Webhooks {
    store: Arc<dyn WebhookStore>,
    data_key: Arc<DataKey>,
    settings: WebhookSettings,
    clock: Clock,
}

impl Webhooks {
    pub(crate) fn new(
        store: Arc<dyn WebhookStore>,
        data_key: Arc<DataKey>,
        settings: WebhookSettings,
        clock: Clock,
    ) -> Webhooks {
        Webhooks { store, data_key, settings, clock }
    }

    /// Whether this installation has such endpoints at all, and can keep their secrets.
    pub fn check(&self, holder: Holder) -> Result<(), Error> {
        let mode = self.settings.mode;
        match (mode, holder) {
            (Mode::Off, _) => Err(Error::Forbidden("Webhooks are switched off here (WEBHOOKS=off)")),
            (Mode::Operators, Holder::User(_)) => {
                Err(Error::Forbidden("Webhooks are for operators alone here, at /admin/webhooks (WEBHOOKS=operators)"))
            }
            (Mode::Operators | Mode::Users, _) => self.data_key.check(),
        }
    }

    /// The error is the rule that is broken; it follows the field's name.
    pub fn parse_url(&self, holder: Holder, text: &str) -> Result<WebhookUrl, &'static str> {
        let url = WebhookUrl::parse(text)?;
        Origin::parse(text)?.judge(&self.settings.reach(holder == Holder::Operators))?;
        Ok(url)
    }

    /// Makes an endpoint. The secret is returned here alone. `maker`: who makes it. `None`: they are gone or inactive.
    pub fn create(
        &self,
        holder: Holder,
        maker: UserId,
        spec: WebhookSpec,
        by: &By,
    ) -> Result<Option<(Webhook, WebhookSecret)>, Error> {
        let WebhookSpec { url, types, description } = spec;
        let webhook = Webhook {
            id: WebhookId::new(),
            owner: maker,
            is_operators: holder == Holder::Operators,
            url,
            types,
            description,
            is_active: true,
            disabled: None,
            previous_secret_until: None,
            created_at: self.clock.now(),
        };
        let secret = WebhookSecret::generate()?;
        let sealed = self.data_key.seal(&place(SECRET, webhook.id), secret.as_bytes())?;
        match self.store.create_webhook(&webhook, &sealed, by)? {
            Ok(()) => Ok(Some((webhook, secret))),
            Err(WebhookRefusal::Gone) => Ok(None),
            Err(refusal) => Err(refused(refusal)),
        }
    }

    /// All endpoints of the holder's, oldest first.
    pub fn of(&self, holder: Holder) -> Result<Vec<Webhook>, Error> {
        Ok(self.store.webhooks_of(holder)?)
    }

    pub fn get(&self, holder: Holder, id: &str) -> Result<Webhook, Error> {
        self.store.webhook(holder, parse_id(id)?)?.ok_or_else(not_found)
    }

    pub fn change(&self, holder: Holder, id: &str, change: &WebhookChange, by: &By) -> Result<Webhook, Error> {
        self.store.change_webhook(holder, parse_id(id)?, change, by, self.clock.now())?.map_err(refused)
    }

    pub fn delete(&self, holder: Holder, id: &str, by: &By) -> Result<(), Error> {
        self.store.delete_webhook(holder, parse_id(id)?, by, self.clock.now())?.map_err(refused)
    }

    /// Gives an endpoint a new secret, which is returned here alone. The old one signs beside it for [`OVERLAP`].
    pub fn rotate_secret(&self, holder: Holder, id: &str, by: &By) -> Result<(Webhook, WebhookSecret), Error> {
        let id = parse_id(id)?;
        let secret = WebhookSecret::generate()?;
        let now = self.clock.now();
        let sealed = self.data_key.seal(&place(SECRET, id), secret.as_bytes())?;
        let replace = |old: &[u8]| {
            // Where it is stored from now on, it would not open as it is.
            let old = self.data_key.open(&place(SECRET, id), old)?;
            let previous = self.data_key.seal(&place(PREVIOUS_SECRET, id), &old)?;
            Ok(SealedSecrets { current: sealed.clone(), previous: Some((previous, now.plus(OVERLAP))) })
        };
        let webhook = self.store.replace_webhook_secret(holder, id, &replace, by, now)?.map_err(refused)?;
        Ok((webhook, secret))
    }

    /// Queues a test, and returns its id.
    pub fn test(&self, holder: Holder, id: &str) -> Result<DeliveryId, Error> {
        let (id, delivery, now) = (parse_id(id)?, DeliveryId::new(), self.clock.now());
        let body = json!({ "type": TEST, "timestamp": now, "data": { "webhookId": id } });
        self.store.queue_test(holder, id, delivery, body.to_string(), now)?.map_err(refused)?;
        Ok(delivery)
    }

    /// A page of up to `limit` deliveries to an endpoint, newest first, from the one after `after`. `None`: there is no
    /// delivery `after` to it.
    pub fn deliveries(
        &self,
        holder: Holder,
        id: &str,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Option<Page<SentDelivery>>, Error> {
        let found = self.store.deliveries_to(holder, parse_id(id)?, after, Page::<SentDelivery>::read(limit))?;
        Ok(found.map_err(refused)?.map(|found| Page::cut(found, limit)))
    }

    /// Makes a delivery due now, whatever became of it, and returns its id.
    pub fn resend(&self, holder: Holder, id: &str, delivery: &str) -> Result<DeliveryId, Error> {
        let id = parse_id(id)?;
        let delivery = DeliveryId::parse(delivery).ok_or_else(|| refused(WebhookRefusal::NoSuchDelivery))?;
        self.store.resend(holder, id, delivery)?.map_err(refused)?;
        Ok(delivery)
    }

    /// Where deliveries to this endpoint go. `None`: it is deleted.
    pub fn target(&self, id: WebhookId) -> Result<Option<Target>, Error> {
        let Some(stored) = self.store.webhook_target(id)? else { return Ok(None) };
        let may_go = rules::may_go(self.settings.mode, &stored);
        let SealedSecrets { current, previous } = stored.secrets;
        let mut secrets = vec![self.data_key.open(&place(SECRET, id), &current)?];
        if let Some((secret, until)) = previous
            && until > self.clock.now()
        {
            secrets.push(self.data_key.open(&place(PREVIOUS_SECRET, id), &secret)?);
        }
        let secrets = secrets.into_iter().map(WebhookSecret::from_bytes).collect();
        Ok(Some(Target { url: stored.webhook.url, secrets, is_operators: stored.webhook.is_operators, may_go }))
    }

    /// Deletes a part of what is left of deleted endpoints. False: there was nothing.
    pub fn prune(&self) -> Result<bool, Error> {
        Ok(self.store.prune_webhooks()?)
    }
}

const SECRET: &str = "secret";
const PREVIOUS_SECRET: &str = "previous_secret";

fn place(column: &'static str, id: WebhookId) -> Place {
    Place { table: "webhooks", column, row: id.0 }
}

fn parse_id(id: &str) -> Result<WebhookId, Error> {
    WebhookId::parse(id).ok_or_else(not_found)
}

fn not_found() -> Error {
    Error::NotFound("Webhook not found".into())
}

fn refused(refusal: WebhookRefusal) -> Error {
    match refusal {
        WebhookRefusal::Gone => not_found(),
        WebhookRefusal::NoSuchDelivery => Error::NotFound("Delivery not found".into()),
        WebhookRefusal::SwitchedOff => Error::Conflict("Webhook is switched off; set isActive to true first".into()),
        WebhookRefusal::TooMany(most) => {
            Error::Conflict(format!("Too many webhooks, at most {most}; delete one that is not needed").into())
        }
    }
}
