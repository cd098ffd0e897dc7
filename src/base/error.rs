//! What can go wrong, as far as a caller acts on it. No status codes (see `http::response`) and no driver's types.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::base::id::KeyId;

/// Why a request was not granted.
///
/// The texts are for the client. What only the log may know is in `Unavailable` and `Internal`.
#[derive(Debug)]
pub enum Error {
    /// The body breaks rules: one sentence for each broken rule.
    BrokenRules(Vec<String>),
    /// The request cannot be read; the text says what is wrong and where.
    Malformed(String),
    /// The body is larger than the route takes, which is this many bytes.
    TooLarge(usize),
    /// The body is compressed.
    UnsupportedCoding,
    /// The body is not in UTF-8.
    UnsupportedCharset,
    /// The body did not arrive in time.
    TooSlow,
    /// No credential, or no valid one.
    Unauthenticated {
        message: &'static str,
        challenge: Challenge,
    },
    /// The credential is valid, but this is not allowed.
    Forbidden(&'static str),
    /// The credential is valid, but lacks one of these scopes (RFC 6750 §3.1).
    InsufficientScope {
        /// Separated by spaces.
        scopes: String,
        by: Presenter,
    },
    NotFound(Cow<'static, str>),
    Conflict(Cow<'static, str>),
    /// A conflict about a key that was rotated.
    KeyReplaced {
        message: &'static str,
        /// The key that replaces it.
        by: KeyId,
    },
    /// A rate limit was reached; the client may try again after `wait`.
    TooMany {
        message: &'static str,
        wait: Duration,
    },
    /// The operator has not set what this needs; the text says what to do.
    NotConfigured(&'static str),
    /// The store is unreachable, or the server has too much to do. The cause is for the log.
    Unavailable(String),
    /// A fault of ours. The cause is for the log.
    Internal(String),
}

/// Who lacks a scope, or how a key was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presenter {
    Key,
    /// A key as the token of `Bearer`.
    BearerKey,
    /// A token that was derived from a key.
    Token,
    User,
}

impl Presenter {
    pub(crate) fn sent_key(self) -> bool {
        matches!(self, Presenter::Key | Presenter::BearerKey)
    }
}

/// What a 401 asks for (RFC 9110 §11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The route accepts a JWT. `Sent::Yes`: one was sent and is invalid (RFC 6750 §3.1, `invalid_token`).
    pub token: Option<Sent>,
    /// The route accepts an API key.
    pub key: bool,
    /// The route accepts an API key as the password of `Basic` (RFC 7617).
    pub basic: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Yes,
    No,
}

impl Error {
    /// The same error for an unknown e-mail, a wrong password and an inactive user, so that it reveals none of them.
    pub(crate) fn invalid_credentials() -> Error {
        let challenge = Challenge { token: Some(Sent::No), key: false, basic: false };
        Error::Unauthenticated { message: "Invalid credentials", challenge }
    }

    /// No credential, or an invalid token.
    pub(crate) fn unauthorized(challenge: Challenge) -> Error {
        Error::Unauthenticated { message: "Unauthorized", challenge }
    }
}

/// Why the store did not do what it was asked. The texts are for the log and hold no values of rows.
#[derive(Clone, Debug)]
pub enum StoreError {
    /// A unique constraint forbids it.
    Conflict(String),
    /// The database is unreachable, full, read-only or too busy; trying again later may help.
    Unavailable(String),
    /// The database file was replaced or removed while in use; only a restart can help.
    Lost(String),
    /// A fault of ours, or a database that another program has changed.
    Internal(String),
}

impl std::error::Error for StoreError {}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Conflict(cause)
            | StoreError::Unavailable(cause)
            | StoreError::Lost(cause)
            | StoreError::Internal(cause) => f.write_str(cause),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        match error {
            StoreError::Unavailable(cause) | StoreError::Lost(cause) => Error::Unavailable(cause),
            StoreError::Conflict(cause) | StoreError::Internal(cause) => Error::Internal(cause),
        }
    }
}
