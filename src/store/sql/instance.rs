//! What a running instance needs beside the nouns' statements: the latest time in the database, and the thread that listens
//! for changes made elsewhere.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use log::{info, warn};

use super::SqlStore;
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
        let store = Arc::downgrade(&self);
        let spawned = std::thread::Builder::new().name("watch".to_string()).spawn(move || watch(&store, &lost));
        if let Err(error) = spawned {
            warn!("changes made elsewhere take effect late, no thread can be started: {error}");
        }
    }
}

/// How long a link that is down is left alone.
const LINK_PAUSE: Duration = Duration::from_millis(250);

fn watch<D: Driver>(store: &Weak<SqlStore<D>>, lost: &Sender<String>) {
    let mut link = None;
    let mut down = false;
    loop {
        std::thread::sleep(if down { LINK_PAUSE } else { D::PAUSE });
        let Some(store) = store.upgrade() else { return };
        // A panic has been logged by its hook; it must not cost the thread.
        let heard = catch_unwind(AssertUnwindSafe(|| store.driver.listen(&mut link, &store.changes)));
        match heard.unwrap_or_else(|_| Err(StoreError::Internal("listening panicked".to_string()))) {
            Ok(()) if down => {
                info!("changes made elsewhere are heard of again");
                down = false;
            }
            Ok(()) => {}
            Err(StoreError::Lost(line)) => {
                let _ = lost.send(line);
                return;
            }
            Err(error) => {
                link = None;
                if !down {
                    warn!("changes made elsewhere take up to 5 s to be seen: {error}");
                    down = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use super::*;
    use crate::base::clock::Clock;
    use crate::memory::changes::Changes;
    use crate::store::driver::{Migration, Row, Transaction, Value};

    /// Panics when it is to hear something, and hears it the next time.
    struct Startled {
        times: AtomicU32,
        heard: mpsc::Sender<()>,
    }

    impl Driver for Startled {
        type Link = ();
        const PAUSE: Duration = Duration::ZERO;
        const MIGRATIONS: &'static [Migration] = &[];
        const FIND_TABLE: &'static str = "";
        const LOCK_SCHEMA: Option<&'static str> = None;

        fn query(&self, _: &'static str, _: &[Value]) -> Result<Vec<Row>, StoreError> {
            unreachable!()
        }

        fn execute(&self, _: &'static str, _: &[Value]) -> Result<u64, StoreError> {
            unreachable!()
        }

        fn transaction<T>(
            &self,
            _: impl FnOnce(&mut dyn Transaction) -> Result<T, StoreError>,
        ) -> Result<T, StoreError> {
            unreachable!()
        }

        fn listen(&self, _: &mut Option<()>, _: &Changes) -> Result<(), StoreError> {
            assert!(self.times.fetch_add(1, Ordering::SeqCst) > 0, "on purpose");
            let _ = self.heard.send(());
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        }
    }

    #[test]
    fn a_panic_while_it_listens_costs_no_more_than_what_was_said_then() {
        let (heard, has_heard) = mpsc::channel();
        let startled = Startled { times: AtomicU32::new(0), heard };
        let store = Arc::new(SqlStore::new(startled, Arc::new(Changes::default()), Clock::default()));
        store.clone().listen(mpsc::channel().0);
        has_heard.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
