//! What the connections to one server find out and share: that there is a pooler between, that the server is silent,
//! which schema they are in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

pub(crate) struct Findings {
    /// Prepared statements did not hold on a connection that looked like a direct one.
    pooled: AtomicBool,
    silence: Mutex<Silence>,
    /// Where the first of them found the tables' place.
    schema: OnceLock<String>,
}

struct Silence {
    /// When a connection was last given up because it was silent. One that has not answered since is asked for a sign
    /// of life before its next use.
    noticed: Instant,
    /// When a connection last gave no sign of life. One that has not answered since is given up.
    confirmed: Instant,
}

/// Whether a connection that lay in the pool can be used.
pub(crate) enum Trust {
    Yes,
    No,
    /// It has to give a sign of life first.
    IfItAnswers,
}

impl Findings {
    pub(crate) fn new() -> Findings {
        let now = Instant::now();
        Findings {
            pooled: AtomicBool::new(false),
            silence: Mutex::new(Silence { noticed: now, confirmed: now }),
            schema: OnceLock::new(),
        }
    }

    /// The schema of the first connection, which is this one's if there was none before.
    pub(crate) fn settle(&self, schema: &str) -> &str {
        self.schema.get_or_init(|| schema.to_string())
    }

    /// Empty before the first connection.
    pub(crate) fn schema(&self) -> &str {
        self.schema.get().map_or("", String::as_str)
    }

    pub(crate) fn has_pooler(&self) -> bool {
        self.pooled.load(Ordering::Relaxed)
    }

    pub(crate) fn notice_pooler(&self) {
        self.pooled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn notice_silence(&self) {
        self.silence().noticed = Instant::now();
    }

    /// A connection that was asked for a sign of life then gave none.
    pub(crate) fn confirm_silence(&self, asked: Instant) {
        self.silence().confirmed = asked;
    }

    /// What to think of a connection whose last answer came then.
    pub(crate) fn trust(&self, answered: Instant) -> Trust {
        let silence = self.silence();
        if answered > silence.noticed {
            Trust::Yes
        } else if answered <= silence.confirmed {
            Trust::No
        } else {
            Trust::IfItAnswers
        }
    }

    fn silence(&self) -> MutexGuard<'_, Silence> {
        // Nothing panics while it is held.
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
