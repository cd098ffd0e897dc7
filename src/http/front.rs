//! What all connections share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::watch;

use crate::app::App;
use crate::http::client_address::Proxies;
use crate::http::cors::Cors;
use crate::http::lanes::Lanes;
use crate::http::limits::Limits;
use crate::http::router::Router;

/// What a connection serves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Api {
        tls: bool,
    },
    /// Redirects to HTTPS on this port.
    Redirect {
        to: u16,
    },
    /// Nothing: the client speaks plain HTTP on the HTTPS port.
    WrongScheme,
}

/// What every connection shares.
pub(crate) struct Front {
    pub app: Arc<App>,
    pub router: Router,
    pub lanes: Lanes,
    pub cors: Cors,
    pub proxies: Proxies,
    pub limits: Limits,
    /// Set when the server stops. Waiting connections are woken as well.
    pub stopping: AtomicBool,
}

/// The outcome of `work`, unless the time runs out or the server stops first.
pub(crate) async fn in_time<F: Future>(
    limit: Duration,
    stop: &mut watch::Receiver<bool>,
    work: F,
) -> Option<F::Output> {
    tokio::select! {
        done = tokio::time::timeout(limit, work) => done.ok(),
        _ = stop.wait_for(|stop| *stop) => None,
    }
}
