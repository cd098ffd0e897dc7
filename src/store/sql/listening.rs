//! The thread that listens for changes made by other instances and processes, as long as the store lives.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use log::{info, warn};

use super::SqlStore;
use crate::base::error::StoreError;
use crate::store::driver::Driver;

pub(crate) fn start<D: Driver>(store: &Arc<SqlStore<D>>, lost: Sender<String>) {
    let store = Arc::downgrade(store);
    let spawned = std::thread::Builder::new().name("listen".to_string()).spawn(move || listen(&store, &lost));
    if let Err(error) = spawned {
        warn!("changes made elsewhere take up to 5 s to be seen, no thread can be started: {error}");
    }
}

/// How long to wait before a link that is down is tried again.
const LINK_PAUSE: Duration = Duration::from_millis(250);

fn listen<D: Driver>(store: &Weak<SqlStore<D>>, lost: &Sender<String>) {
    let mut link = None;
    let mut down = false;
    loop {
        std::thread::sleep(if down { LINK_PAUSE } else { D::PAUSE });
        let Some(store) = store.upgrade() else { return };
        // A panic is logged by its hook, and must not end the thread.
        let outcome = catch_unwind(AssertUnwindSafe(|| store.driver.listen(&mut link, &store.changes)));
        match outcome.unwrap_or_else(|_| Err(StoreError::Internal("listening panicked".to_string()))) {
            Ok(()) if down => {
                info!("changes made elsewhere are seen at once again");
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
    use crate::outbox::outlet::Outlet;
    use crate::store::driver::{Migration, Row, Transaction, Value};

    /// Panics when it is first to listen, and listens from then on.
    struct Startled {
        times: AtomicU32,
        heard: mpsc::Sender<()>,
    }

    impl Driver for Startled {
        type Link = ();
        const PAUSE: Duration = Duration::ZERO;
        const MIGRATIONS: &'static [Migration] = &[];
        const FIND_RELATIONS: &'static str = "";
        const ELSEWHERE: &'static str = "";
        const LOCK_SCHEMA: Option<&'static str> = None;

        fn outlet(&self) -> &Arc<Outlet> {
            unreachable!()
        }

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
    fn after_a_panic_it_listens_again() {
        let (heard, has_heard) = mpsc::channel();
        let startled = Startled { times: AtomicU32::new(0), heard };
        let store = Arc::new(SqlStore::new(startled, Arc::new(Changes::default()), Clock::default()));
        start(&store, mpsc::channel().0);
        has_heard.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
