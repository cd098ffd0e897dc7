//! What somebody has to show for a login, or for a change that a stolen session must not be able to make.

use std::time::Duration;

use crate::accounts::passwords::PasswordHash;
use crate::accounts::second_factor::codes::Code;
use crate::base::data_key::DataKey;
use crate::base::error::{Challenge, Error, Sent};

/// What a request brings.
#[derive(Clone, Copy)]
pub struct Proof<'a> {
    pub password: &'a str,
    /// Of the second factor, if the user has one.
    pub code: Option<&'a Code>,
}

/// What the store checks in the transaction of the change.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// The hash that the password belongs to.
    pub password: &'a PasswordHash,
    pub code: Option<&'a Code>,
    /// Opens the secret of the second factor.
    pub key: &'a DataKey,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed<T> {
    Done(T),
    /// The user is gone or inactive, or their password is another one by now.
    UserChanged,
    Refused(CodeFault),
}

/// Why what was shown for the second factor is not enough. Wrong codes have been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeFault {
    Missing,
    Wrong,
    /// The one after which codes rest, which is recorded.
    LastWrong,
    /// They still rest for so long.
    Resting(Duration),
    /// It cannot be judged before the operator sets something, as the text says.
    NotConfigured(&'static str),
}

impl CodeFault {
    pub(crate) fn error(self) -> Error {
        let refused = |message| {
            let challenge = Challenge { token: Some(Sent::No), key: false, basic: false };
            Error::Unauthenticated { message, challenge }
        };
        match self {
            CodeFault::Missing => refused("One-time code required"),
            CodeFault::Wrong | CodeFault::LastWrong => refused("Invalid one-time code"),
            CodeFault::Resting(wait) => Error::TooMany { message: "Too many wrong codes, try again later", wait },
            CodeFault::NotConfigured(what) => Error::NotConfigured(what),
        }
    }
}
