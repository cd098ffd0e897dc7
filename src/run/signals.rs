//! The signals that end the process or make it read its files again.

use std::sync::mpsc::Receiver;

use log::{error, info, warn};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// SIGTERM and SIGINT end the process, SIGHUP makes it read its files again. From [`Signals::register`] on, none is
/// missed and none kills the process.
pub(crate) struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn register() -> Result<Signals, String> {
        let failed = |error| format!("signals cannot be received: {error}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let [terminate, interrupt, hangup] = {
            let _context = runtime.enter();
            let registered = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
            let [terminate, interrupt, hangup] = registered;
            [terminate.map_err(failed)?, interrupt.map_err(failed)?, hangup.map_err(failed)?]
        };
        Ok(Signals { runtime, terminate, interrupt, hangup })
    }

    /// Returns at a signal that ends the process, or when a line arrives in `lost`: the server cannot go on. Calls
    /// `reload` at each SIGHUP.
    pub(crate) fn wait(mut self, reload: impl Fn(), lost: Option<Receiver<String>>) -> End {
        let (forward, mut forwarded) = mpsc::unbounded_channel();
        // The thread ends with the store's thread, which holds the other end of `lost`.
        let waiting = move || lost.and_then(|lost| lost.recv().ok()).map(|line| forward.send(line));
        if let Err(error) = std::thread::Builder::new().name("lost".to_string()).spawn(waiting) {
            warn!("a lost database would not end the process, no thread can be started: {error}");
        }
        self.runtime.block_on(async {
            loop {
                let name = tokio::select! {
                    _ = self.terminate.recv() => "SIGTERM",
                    _ = self.interrupt.recv() => "SIGINT",
                    _ = self.hangup.recv() => {
                        info!("SIGHUP: reading files again");
                        reload();
                        continue;
                    }
                    Some(line) = forwarded.recv() => {
                        error!("{line}");
                        return End::Lost;
                    }
                };
                info!("{name}: stopping");
                return End::Asked;
            }
        })
    }
}

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By a signal.
    Asked,
    /// The database is lost; the log says how.
    Lost,
}
