//! Until when somebody waits for what this thread does. Whoever works for a request says so; the store asks.

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Does something for which nobody waits any longer than until then.
pub fn keep<T>(until: Instant, work: impl FnOnce() -> T) -> T {
    /// Also after a panic: the thread lives on.
    struct Before(Option<Instant>);
    impl Drop for Before {
        fn drop(&mut self) {
            UNTIL.set(self.0);
        }
    }
    let _before = Before(UNTIL.replace(Some(until)));
    work()
}

/// `None`: nobody has said.
pub fn current() -> Option<Instant> {
    UNTIL.get()
}
