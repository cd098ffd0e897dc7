//! Every statement and every row's mapping, once, over the vocabulary of [`crate::store::driver`]; one file a noun,
//! under the names of the noun's own contract.
//!
//! Statements use `$1…$n` and only what both databases understand.

mod addresses;
mod codes;
mod deliveries;
mod events;
mod failures;
mod instance;
mod key_expiry;
mod key_pages;
mod key_rows;
mod keys;
mod listening;
mod one_time_tokens;
mod operators;
mod outbox;
mod sealed;
mod second_factors;
mod sessions;
mod statistics;
mod usage;
mod user_changes;
mod user_rows;
mod users;
mod webhook_deliveries;
mod webhook_rows;
mod webhooks;

use std::sync::Arc;

use uuid::Uuid;

use crate::base::clock::Clock;
use crate::base::error::StoreError;
use crate::memory::changes::{Change, Changes};
use crate::store::driver::{Column, Driver, Transaction, Value};

/// The store, over any driver.
pub struct SqlStore<D> {
    driver: D,
    changes: Arc<Changes>,
    clock: Clock,
}

impl<D: Driver> SqlStore<D> {
    pub fn new(driver: D, changes: Arc<Changes>, clock: Clock) -> SqlStore<D> {
        SqlStore { driver, changes, clock }
    }

    /// Deletes the rows whose ids `find` gives. False: there were none.
    fn delete(&self, find: &'static str, parameter: Value, delete: &'static str) -> Result<bool, StoreError> {
        self.driver.transaction(|transaction| delete_found(transaction, find, &[parameter], delete))
    }

    /// A transaction that may change the verdict on `subject`. If it does, what this instance remembers is dropped and
    /// the other instances are notified. If `changed` says that it does not, nothing is dropped, so that refused
    /// requests cannot make instances read from the store again and again.
    fn change<T>(
        &self,
        subject: Uuid,
        changed: impl Fn(&T) -> bool,
        work: impl FnOnce(&mut dyn Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut is_changed = false;
        let outcome = self.driver.transaction(|transaction| {
            let value = work(transaction)?;
            if changed(&value) {
                is_changed = true;
                // Noted before the commit as well: its outcome is unknown for as long as the database does not answer.
                self.changes.note(Change::Of(subject));
                transaction.notify(subject)?;
            }
            Ok(value)
        });
        if is_changed {
            self.changes.note(Change::Of(subject));
        }
        outcome
    }
}

/// Deletes the rows whose ids `find` gives. False: there were none. In two statements, because PostgreSQL may search
/// the whole table for a single one.
fn delete_found(
    transaction: &mut dyn Transaction,
    find: &'static str,
    parameters: &[Value],
    delete: &'static str,
) -> Result<bool, StoreError> {
    let found = transaction.query(find, parameters)?;
    let any = !found.is_empty();
    let ids = found.into_iter().map(|mut row| row.uuid(0).map(|id| vec![Value::Uuid(id)]));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    transaction.execute_with_rows(delete, &[Column::Uuid], &mut ids.into_iter())?;
    Ok(any)
}

/// For [`SqlStore::change`], where the outcome itself says whether something changed.
fn is_so(changed: &bool) -> bool {
    *changed
}
