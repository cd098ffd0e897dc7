//! What a running instance needs of the store beside the nouns' statements.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::{SqlStore, listening};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::store::Store;
use crate::store::driver::{Driver, first};

impl<D: Driver> Store for SqlStore<D> {
    fn latest(&self) -> Result<Option<Timestamp>, StoreError> {
        let rows = self.driver.query("SELECT at FROM events ORDER BY at DESC, id DESC LIMIT 1", &[])?;
        let event = first(rows).map(|mut row| row.timestamp(0)).transpose()?;
        Ok(event.max(self.latest_use()?))
    }

    fn listen(self: Arc<Self>, lost: Sender<String>) {
        listening::start(&self, lost);
    }
}
