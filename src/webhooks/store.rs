//! What webhooks need of a database.
//!
//! Every method is one transaction: done as a whole when it returns `Ok`, not at all or unknown when it returns an
//! error. A method with a parameter `by` records an [`crate::audit::event::Event`] of what it changes in the same
//! transaction; if it changes nothing, it records none. Any method returns `Unavailable` if the database cannot be reached;
//! only other outcomes are documented at the methods. An endpoint that is not `holder`'s is `Gone` or `None`.

use crate::audit::event::By;
use crate::base::clock::Timestamp;
use crate::base::error::{Error, StoreError};
use crate::base::id::{DeliveryId, WebhookId};
use crate::webhooks::sent::SentDelivery;
use crate::webhooks::webhook::{Holder, SealedSecrets, StoredTarget, Webhook, WebhookChange, WebhookRefusal};

pub trait WebhookStore: Send + Sync {
    /// Stores an endpoint of an active user's, unless there are as many as [`Holder::most`] already; calls for one holder
    /// wait for each other.
    fn create_webhook(
        &self,
        webhook: &Webhook,
        secret: &[u8],
        by: &By,
    ) -> Result<Result<(), WebhookRefusal>, StoreError>;

    /// All endpoints of the holder's, oldest first.
    fn webhooks_of(&self, holder: Holder) -> Result<Vec<Webhook>, StoreError>;

    fn webhook(&self, holder: Holder, id: WebhookId) -> Result<Option<Webhook>, StoreError>;

    /// Changes an endpoint as [`crate::webhooks::rules::change`] decides, and returns it as it is then.
    fn change_webhook(
        &self,
        holder: Holder,
        id: WebhookId,
        change: &WebhookChange,
        by: &By,
        now: Timestamp,
    ) -> Result<Result<Webhook, WebhookRefusal>, StoreError>;

    /// Deletes an endpoint. From then on, nobody finds it or anything that was sent to it.
    fn delete_webhook(
        &self,
        holder: Holder,
        id: WebhookId,
        by: &By,
        now: Timestamp,
    ) -> Result<Result<(), WebhookRefusal>, StoreError>;

    /// Replaces the secret that signs now by what `replace` makes of it, encrypted. An error of `replace`'s is `Internal`.
    fn replace_webhook_secret(
        &self,
        holder: Holder,
        id: WebhookId,
        replace: &dyn Fn(&[u8]) -> Result<SealedSecrets, Error>,
        by: &By,
        now: Timestamp,
    ) -> Result<Result<Webhook, WebhookRefusal>, StoreError>;

    /// Queues a test with this body.
    fn queue_test(
        &self,
        holder: Holder,
        id: WebhookId,
        delivery: DeliveryId,
        body: String,
        now: Timestamp,
    ) -> Result<Result<(), WebhookRefusal>, StoreError>;

    /// Up to `limit` deliveries to an endpoint, from the one after `after`, newest first. `None`: there is no delivery
    /// `after` to it.
    fn deliveries_to(
        &self,
        holder: Holder,
        id: WebhookId,
        after: Option<DeliveryId>,
        limit: i64,
    ) -> Result<Result<Option<Vec<SentDelivery>>, WebhookRefusal>, StoreError>;

    /// Makes a delivery due now, whatever became of it.
    fn resend(
        &self,
        holder: Holder,
        id: WebhookId,
        delivery: DeliveryId,
    ) -> Result<Result<(), WebhookRefusal>, StoreError>;

    /// Where deliveries to this endpoint go. `None`: it is deleted.
    fn webhook_target(&self, id: WebhookId) -> Result<Option<StoredTarget>, StoreError>;

    /// Deletes a part of what is left of deleted endpoints. False: there was nothing.
    fn prune_webhooks(&self) -> Result<bool, StoreError>;
}
