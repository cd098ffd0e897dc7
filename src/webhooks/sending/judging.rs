//! Tells the HTTP client to which addresses it may connect: it resolves each URL by this alone, once for each delivery, and
//! connects to nothing else.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Uri;
use ureq::config::Config;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::webhooks::addresses::Reach;
use crate::webhooks::origin::{Host, Origin};
use crate::webhooks::sending::names::{Names, Unresolved};

/// How long a delivery may take: resolving, connecting, TLS, sending and the answer together.
pub(super) const WITHIN: Duration = Duration::from_secs(10);
/// More addresses of a name are not tried; the client has no room for them.
const TRIED: usize = 16;

pub(super) struct Judging {
    pub names: Arc<Names>,
    pub reach: Reach,
}

/// Why nothing was connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The URL is none that an endpoint may have.
    Url,
    /// The name does not exist, or one of its addresses is not allowed. They are not told apart, because nobody is to
    /// learn from Keyward which names the operator's own network has.
    Address,
    NotInTime,
    Busy,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Error for Refusal {}

impl Judging {
    /// The addresses that are tried, in this order. One that is not allowed refuses all: nobody who owns such a name means
    /// well.
    pub(super) fn judge(&self, url: &Uri, until: Instant) -> Result<Vec<SocketAddr>, Refusal> {
        let origin = Origin::of(url).map_err(|_| Refusal::Url)?;
        let addresses: Vec<IpAddr> = match &origin.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.names.resolve(name, until).map_err(|unresolved| match unresolved {
                Unresolved::Unknown => Refusal::Address,
                Unresolved::TimedOut => Refusal::NotInTime,
                Unresolved::Busy => Refusal::Busy,
            })?,
        };
        if !addresses.iter().all(|address| origin.allows(*address, &self.reach)) {
            return Err(Refusal::Address);
        }
        Ok(addresses.into_iter().take(TRIED).map(|address| SocketAddr::new(address, origin.port)).collect())
    }
}

impl Resolver for Judging {
    fn resolve(&self, url: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let until = Instant::now() + (*timeout.after).min(WITHIN);
        let judged = self.judge(url, until).map_err(|refusal| ureq::Error::Other(refusal.into()))?;
        let mut addresses = self.empty();
        judged.into_iter().for_each(|address| addresses.push(address));
        Ok(addresses)
    }
}

impl fmt::Debug for Judging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judging")
    }
}
