//! The deadline of the work that this thread is doing. The lane that runs a handler sets it; the store reads it.

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs `work` with this deadline.
pub(crate) fn keep<T>(until: Instant, work: impl FnOnce() -> T) -> T {
    /// Restores the earlier deadline, after a panic too: the thread lives on.
    struct Before(Option<Instant>);
    impl Drop for Before {
        fn drop(&mut self) {
            UNTIL.set(self.0);
        }
    }
    let _before = Before(UNTIL.replace(Some(until)));
    work()
}

/// `None`: no deadline was set.
pub(crate) fn current() -> Option<Instant> {
    UNTIL.get()
}
