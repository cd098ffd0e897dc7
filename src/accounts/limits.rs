//! Rate limits: how often an address may try what needs no login, and how much a user may write.

use std::hash::Hash;
use std::net::IpAddr;

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::id::UserId;
use crate::base::network::client_network;
use crate::memory::limiter::{Limiter, Quota, Rate};

/// What is limited by the address of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    SignUp,
    LogIn,
    Refresh,
    /// A one-time token is tried. Counted separately, at the rate of logins.
    OneTimeToken,
    /// A mail is asked for.
    Mail,
    FailedKey,
    /// A failed key that was not in memory and had to be looked up in the store.
    FailedLookup,
}

/// The limits of an address; `None`: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressRates {
    pub sign_up: Option<Rate>,
    pub log_in: Option<Rate>,
    pub refresh: Option<Rate>,
    pub mail: Option<Rate>,
    pub failed_keys: Option<Rate>,
}

/// How many counts are kept: one for each address and [`Limited`].
const ADDRESSES: usize = 128 * 1024;

pub struct AddressLimits {
    rates: AddressRates,
    limiter: Limiter,
    clock: Clock,
}

impl AddressLimits {
    pub(crate) fn new(rates: AddressRates, clock: Clock) -> AddressLimits {
        AddressLimits { rates, limiter: Limiter::new(ADDRESSES), clock }
    }

    /// Counts one request. An error: the limit is reached.
    pub(crate) fn spend(&self, what: Limited, client: IpAddr) -> Result<(), Error> {
        let Some(rate) = self.rate(what) else { return Ok(()) };
        let spent = self.limiter.spend(&(what, client_network(client)), rate, self.clock.elapsed());
        spent.map(drop).map_err(|quota| what.too_many(quota))
    }

    /// Counts a key that was refused. An error: the limit is reached.
    pub(crate) fn spend_on_key(&self, was_looked_up: bool, client: IpAddr) -> Result<(), Error> {
        if was_looked_up {
            // Callers check this limit before they look the key up.
            let _ = self.spend(Limited::FailedLookup, client);
        }
        self.spend(Limited::FailedKey, client)
    }

    /// Whether one more request would be allowed; counts nothing.
    pub(crate) fn check(&self, what: Limited, client: IpAddr) -> Result<(), Error> {
        let Some(rate) = self.rate(what) else { return Ok(()) };
        let quota = self.limiter.look(&(what, client_network(client)), rate, self.clock.elapsed());
        if quota.remaining > 0 { Ok(()) } else { Err(what.too_many(quota)) }
    }

    fn rate(&self, what: Limited) -> Option<Rate> {
        match what {
            Limited::SignUp => self.rates.sign_up,
            Limited::LogIn | Limited::OneTimeToken => self.rates.log_in,
            Limited::Refresh => self.rates.refresh,
            Limited::Mail => self.rates.mail,
            Limited::FailedKey | Limited::FailedLookup => self.rates.failed_keys,
        }
    }
}

impl Limited {
    fn too_many(self, quota: Quota) -> Error {
        let message = match self {
            Limited::FailedKey | Limited::FailedLookup => {
                "Too many invalid API keys from this address, try again later"
            }
            _ => "Too many requests from this address, try again later",
        };
        Error::TooMany { message, wait: quota.retry_after() }
    }
}

/// What is limited for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Counted separately, so that someone who has stolen a session cannot use up the limit and keep the user from
    /// logging in to end it.
    LogIn,
    /// Everything else that creates or changes something. Ending or deleting something is not limited.
    Change,
    /// What an operator creates or changes of others.
    Administer,
}

/// How many counts are kept: one for each user and [`Write`].
const USERS: usize = 128 * 1024;

/// How much each user may write, from all addresses together.
pub struct WriteLimits {
    rates: WriteRates,
    limiter: Limiter,
    clock: Clock,
}

/// `None`: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteRates {
    /// Of changes by a user, and of their logins.
    pub own: Option<Rate>,
    /// Of an operator's changes of others.
    pub operators: Option<Rate>,
}

impl WriteLimits {
    pub(crate) fn new(rates: WriteRates, clock: Clock) -> WriteLimits {
        WriteLimits { rates, limiter: Limiter::new(USERS), clock }
    }

    /// Counts one write. An error: the limit is reached.
    pub(crate) fn spend(&self, what: Write, user: UserId) -> Result<(), Error> {
        let (rate, message) = match what {
            Write::LogIn => (self.rates.own, "Too many logins to this account, try again later"),
            Write::Change => (self.rates.own, "Too many changes to this account, try again later"),
            Write::Administer => (self.rates.operators, "Too many changes by this operator, try again later"),
        };
        let Some(rate) = rate else { return Ok(()) };
        let spent = self.limiter.spend(&(what, user), rate, self.clock.elapsed());
        spent.map(drop).map_err(|quota| Error::TooMany { message, wait: quota.retry_after() })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn rate(limit: u32, millis: u64) -> Rate {
        Rate { limit, window: Duration::from_millis(millis) }
    }

    #[test]
    fn a_million_addresses_take_no_more_memory_and_free_none_that_has_spent_more() {
        let limits = AddressLimits::new(AddressRates::default(), Clock::default());
        let now = Duration::from_secs(1);
        let spend = |client: IpAddr| limits.limiter.spend(&(Limited::LogIn, client), rate(60, 60_000), now).is_ok();
        let guesser = IpAddr::from([198, 51, 100, 7]);
        assert_eq!((0..100).filter(|_| spend(guesser)).count(), 60);
        for number in 0..1_000_000 {
            // Nobody is refused for what others do.
            assert!(spend(IpAddr::V4(Ipv4Addr::from_bits(number))));
        }
        assert!(!spend(guesser));
        assert_eq!(limits.limiter.places(), ADDRESSES);
    }

    #[test]
    fn what_is_off_is_not_counted() {
        let limits = AddressLimits::new(AddressRates::default(), Clock::default());
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!((0..1000).all(|_| limits.spend(Limited::Refresh, client).is_ok()));
        assert_eq!(limits.limiter.places(), 0);
    }
}
