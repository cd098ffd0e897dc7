//! The database behind the nouns' contracts: [`sql`] has every statement once, over the vocabulary of [`driver`];
//! [`sqlite`] and [`postgres`] own what differs between the two databases; [`migrate`] brings a database up to date.

pub mod driver;
pub mod migrate;
pub mod postgres;
pub mod settings;
mod spellings;
pub mod sql;
pub mod sqlite;
mod strangers;

use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::accounts::store::{AddressStore, FailureStore, RecoveryStore, SecondFactorStore, SessionStore, UserStore};
use crate::audit::store::EventStore;
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::sealing::SealedStore;
use crate::keys::store::{KeyStore, UsageStore};
use crate::outbox::store::OutboxStore;
use crate::statistics::store::StatisticsStore;
use crate::webhooks::store::WebhookStore;

/// The whole store: what each noun needs of it, and what a running server needs beside.
pub trait Store:
    UserStore
    + RecoveryStore
    + SecondFactorStore
    + SealedStore
    + AddressStore
    + SessionStore
    + FailureStore
    + KeyStore
    + UsageStore
    + EventStore
    + StatisticsStore
    + OutboxStore
    + WebhookStore
{
    /// The time of the latest stored event or use of a key. `None`: nothing is stored.
    fn latest(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Listens for changes made by other instances and processes and notes them, on a thread of its own, as long as the
    /// store lives. Without it, such a change takes effect when what is remembered has grown too old. If the database
    /// file is lost, sends one line for the operator to `lost` and stops.
    fn listen(self: Arc<Self>, lost: Sender<String>);
}
