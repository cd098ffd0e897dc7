//! Opening the configured database: for the server, for commands, and to see which migrations are pending.

use std::sync::Arc;

use crate::base::clock::Clock;
use crate::base::error::StoreError;
use crate::memory::changes::Changes;
use crate::outbox::outlet::Outlet;
use crate::outbox::settings::Reach;
use crate::store::Store;
use crate::store::driver::Driver;
use crate::store::migrate::{self, Pending};
use crate::store::postgres::{Patience, Postgres};
use crate::store::settings::Database;
use crate::store::sql::SqlStore;
use crate::store::sqlite::Sqlite;

/// Opens the database, makes it if it is a SQLite file that does not exist, and applies pending migrations; says which.
/// Changes that are made through the store are noted in `changes`, and events are delivered as far as `reach`.
pub(crate) fn open(
    database: &Database,
    clock: &Clock,
    changes: Arc<Changes>,
    reach: Reach,
    patience: Patience,
) -> Result<(Arc<dyn Store>, Pending), StoreError> {
    let outlet = Arc::new(Outlet::new(reach));
    match database {
        Database::Sqlite(path) => {
            let driver = Sqlite::open(path)?.with_outlet(outlet);
            let applied = migrate::migrate(&driver, clock.now())?;
            Ok((Arc::new(SqlStore::new(driver, changes, clock.clone())), applied))
        }
        Database::Postgres(target) => {
            // A migration may take long, or wait for another instance's.
            let migrating = Postgres::connect(target.direct(), Patience::Endless)?;
            let driver = Postgres::connect(target, patience)?.with_outlet(outlet);
            driver.check_schema(&migrating)?;
            let applied = migrate::migrate(&migrating, clock.now())?;
            Ok((Arc::new(SqlStore::new(driver, changes, clock.clone())), applied))
        }
    }
}

/// Refuses a SQLite file that another program uses, so that nothing is kept beside it. [`open`] does so for both databases.
pub(crate) fn refuse_strangers(database: &Database) -> Result<(), StoreError> {
    database.sqlite_file().map_or(Ok(()), Sqlite::refuse_strangers)
}

/// Opens the database for a command of an operator. It must exist and be up to date; statements have no time limit.
pub(crate) fn open_existing(
    database: &Database,
    clock: &Clock,
    changes: Arc<Changes>,
    reach: Reach,
) -> Result<Arc<dyn Store>, StoreError> {
    fn ready<D: Driver>(driver: D, clock: &Clock, changes: Arc<Changes>) -> Result<Arc<dyn Store>, StoreError> {
        let pending = migrate::check(&driver)?.migrations;
        match pending.len() {
            0 => Ok(Arc::new(SqlStore::new(driver, changes, clock.clone()))),
            count => Err(StoreError::Unavailable(format!(
                "the database lacks {count} of this version's migrations, from {} on; run `keyward migrate`",
                pending[0]
            ))),
        }
    }
    let outlet = Arc::new(Outlet::new(reach));
    match database {
        Database::Sqlite(path) => ready(Sqlite::open_existing(path)?.with_outlet(outlet), clock, changes),
        Database::Postgres(target) => {
            ready(Postgres::connect(target, Patience::Endless)?.with_outlet(outlet), clock, changes)
        }
    }
}

/// Brings the database up to date, for the command: says which migrations it has applied.
pub(crate) fn migrate(database: &Database) -> Result<Pending, StoreError> {
    let (_, applied) = open(database, &Clock::default(), Arc::default(), Reach::default(), Patience::Endless)?;
    Ok(applied)
}

/// The migrations that [`open`] would apply. Changes nothing; a SQLite file that does not exist is not made.
pub(crate) fn pending(database: &Database) -> Result<Pending, StoreError> {
    match database {
        Database::Sqlite(path) if !path.exists() => Ok(Pending::all::<Sqlite>()),
        Database::Sqlite(path) => migrate::check(&Sqlite::inspect(path)?),
        Database::Postgres(target) => migrate::check(&Postgres::connect(target.direct(), Patience::Endless)?),
    }
}
