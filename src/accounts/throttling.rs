//! Login throttling: after several wrong passwords, the client has to wait before it may try the next one.
//!
//! Failures are counted in the store, so they count at all instances and after a restart, and under keyed hashes, so
//! nothing that was typed is stored. E-mails without a user are counted like all others, so that a wait does not reveal
//! whether there is a user. A new password starts new counts: wrong guesses at the old one say nothing about it, and
//! its user need not wait.

use std::sync::Arc;
use std::time::Duration;

use log::warn;
use uuid::Uuid;

use crate::accounts::failures::{FailureIds, Failures, MOST};
use crate::accounts::passwords::{PasswordHash, Passwords, Typed};
use crate::accounts::session_address::is_known_address;
use crate::accounts::store::{FailureStore, SessionStore};
use crate::audit::event::{By, Kind};
use crate::audit::events::Events;
use crate::base::clock::Clock;
use crate::base::data_key::DataKey;
use crate::base::error::Error;
use crate::base::id::UserId;
use crate::base::network::client_network;

/// How many of a user's latest login addresses are searched.
const ADDRESSES: i64 = 200;

/// Someone tries a password.
pub(crate) struct PasswordAttempt<'a> {
    /// The user's as it is stored, or the normal form of one that nobody has: however it is typed, it is counted once.
    pub email: &'a str,
    /// The user with this e-mail, active or not. Inactive users count too: otherwise deactivating a user would end a
    /// wait, and so reveal that there is one.
    pub user: Option<UserId>,
    pub hash: Option<&'a PasswordHash>,
    /// No password is right for an inactive user.
    pub is_active: bool,
    pub by: &'a By,
    /// What a failure is recorded as in the audit trail.
    pub failure: Kind,
}

/// The password was right.
pub(crate) struct Right {
    pub typed: Typed,
    /// Whether failures from this address are counted, which [`LoginThrottle::clear`] clears.
    has_failures: bool,
}

pub(crate) struct LoginThrottle {
    store: Arc<dyn FailureStore>,
    sessions: Arc<dyn SessionStore>,
    passwords: Arc<Passwords>,
    events: Arc<Events>,
    data_key: Arc<DataKey>,
    clock: Clock,
}

impl LoginThrottle {
    pub(crate) fn new(
        store: Arc<dyn FailureStore>,
        sessions: Arc<dyn SessionStore>,
        passwords: Arc<Passwords>,
        events: Arc<Events>,
        data_key: Arc<DataKey>,
        clock: Clock,
    ) -> LoginThrottle {
        LoginThrottle { store, sessions, passwords, events, data_key, clock }
    }

    /// An error: the password is wrong, which counts as a failure, or the client has to wait. A wrong password takes the
    /// same time whether there is such a user or not. A right one clears no failures: it may not be all that is asked
    /// for.
    pub(crate) fn verify(&self, attempt: &PasswordAttempt<'_>, password: &str) -> Result<Right, Error> {
        // Attempts during a wait are recorded too, so that an attack that goes on shows in the audit trail.
        self.attempt(attempt, password).inspect_err(|error| {
            if matches!(error, Error::TooMany { .. } | Error::Unauthenticated { .. }) {
                self.events.note_failure(attempt.failure, attempt.user, attempt.by);
            }
        })
    }

    fn attempt(&self, attempt: &PasswordAttempt<'_>, password: &str) -> Result<Right, Error> {
        let ids = self.ids(attempt);
        self.check(attempt, &self.store.failures(&ids)?)?;
        let right = self.passwords.verify(password.to_string(), attempt.hash.filter(|_| attempt.is_active))?;
        // Others may be verified at the same time, by other instances too. Once one of them has started a wait, the
        // rest are refused even if they are right, so parallel attempts gain nothing.
        match right {
            Some(typed) => {
                let failures = self.store.failures(&ids)?;
                self.check(attempt, &failures)?;
                Ok(Right { typed, has_failures: failures.at_address.count > 0 })
            }
            None => {
                let failures = self.store.add_failure(&ids)?;
                self.check(attempt, &failures)?;
                if let Some(wait) = failures.add().wait_at_address() {
                    let (ip, wait) = (attempt.by.ip(), wait.as_secs());
                    warn!("too many failed logins to one account from {ip}: it waits {wait} s");
                }
                Err(Error::invalid_credentials())
            }
        }
    }

    /// Clears the failures from this address: all that was asked for is right, and done. If they cannot be cleared, they
    /// stay.
    pub(crate) fn clear(&self, attempt: &PasswordAttempt<'_>, right: &Right) {
        if right.has_failures
            && let Err(error) = self.store.clear_failures(&self.ids(attempt))
        {
            warn!("failed logins before a good one cannot be cleared: {error}");
        }
    }

    /// An error: the client has to wait; asking does not make the wait longer.
    fn check(&self, attempt: &PasswordAttempt<'_>, failures: &Failures) -> Result<(), Error> {
        if let Some(wait) = failures.wait_at_address() {
            return Err(too_many(wait));
        }
        match failures.wait_elsewhere() {
            Some(wait) if !self.is_known_address(attempt)? => Err(too_many(wait)),
            _ => Ok(()),
        }
    }

    fn ids(&self, attempt: &PasswordAttempt<'_>) -> FailureIds {
        // None of the parts has a line break.
        let account = format!("{}\n{}", attempt.email, attempt.hash.map_or("", PasswordHash::as_str));
        let at_address = format!("{account}\n{}", client_network(attempt.by.ip()));
        let id = |purpose, text: &str| {
            let hash = self.data_key.keyed_hash(purpose, text);
            let half = std::array::from_fn(|index| hash[index]);
            uuid::Builder::from_custom_bytes(half).into_uuid()
        };
        FailureIds {
            at_address: id("failures at an account from an address", &at_address),
            account: id("failures at an account", &account),
        }
    }

    /// Whether the user has opened one of their latest sessions from this network, even if it has ended. An e-mail
    /// without a user is looked up too, so that it takes as long.
    fn is_known_address(&self, attempt: &PasswordAttempt<'_>) -> Result<bool, Error> {
        let addresses = self.sessions.addresses_of(attempt.user.unwrap_or(UserId(Uuid::nil())), ADDRESSES)?;
        Ok(is_known_address(&addresses, &attempt.by.ip().to_string()))
    }

    /// Deletes a part of the counts that are over or too many. False: there were none.
    pub(crate) fn prune(&self) -> Result<bool, Error> {
        Ok(self.store.prune_failures(MOST, self.clock.now())?)
    }
}

fn too_many(wait: Duration) -> Error {
    Error::TooMany { message: "Too many failed attempts, try again later", wait }
}
