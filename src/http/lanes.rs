//! The lanes in which handlers run, so that one kind of work cannot hold up another.

use crate::base::pool::Pool;

/// Where a route's handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// On the I/O thread: everything the handler needs is in memory. It must not block.
    Inline,
    /// On the store's threads.
    Store,
    /// On the password threads, including its calls to the store: these handlers wait for a core to hash on.
    Password,
}

/// The threads of the store lane. SQLite has few readers and one writer; PostgreSQL answers this many at once.
pub(crate) const STORE_THREADS: usize = 16;
const STORE_QUEUE: usize = 1024;

/// How many requests run in the password lane: one hashing on each core, and as many that talk to the store. One user
/// alone may have half of them, which keeps all cores busy.
pub(crate) fn password_threads(cores: usize) -> usize {
    2 * (cores + 1)
}

/// As many logins as can be hashed in about three seconds at the default cost. In a longer queue, requests would only
/// reach their deadline.
fn password_queue(cores: usize) -> usize {
    cores * 64
}

pub(crate) struct Lanes {
    pub store: Pool,
    pub password: Pool,
}

impl Lanes {
    pub(crate) fn new(cores: usize) -> Lanes {
        Lanes {
            store: Pool::new("store", STORE_THREADS, STORE_QUEUE),
            password: Pool::new("password", password_threads(cores), password_queue(cores)),
        }
    }
}
