//! What can go wrong, as far as a caller acts on it. No status codes (see `http::response`), no driver's types.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Why a request was not granted.
///
/// The texts are for the client. What only the log may know is in `Unavailable` and `Internal`.
#[derive(Debug)]
pub enum Error {
    /// The body breaks its rules: one sentence for each broken rule.
    BrokenRules(Vec<String>),
    /// The request cannot be read at all; says what and where.
    Malformed(String),
    /// The body is larger than the route takes, which is this many bytes.
    TooLarge(usize),
    /// The body is compressed.
    UnsupportedCoding,
    /// The body is written in other characters than ours.
    UnsupportedCharset,
    /// The body did not arrive in time.
    TooSlow,
    /// No credential, or none that is good.
    Unauthenticated {
        message: &'static str,
        challenge: Challenge,
    },
    /// The credential is good, but this is not allowed.
    Forbidden(&'static str),
    /// The credential is good, but not for what needs these scopes (RFC 6750 §3.1).
    InsufficientScope {
        /// Separated by spaces.
        scopes: String,
        by: Presenter,
    },
    NotFound(Cow<'static, str>),
    Conflict(Cow<'static, str>),
    /// Too much of something; it may be tried again after this time.
    TooMany {
        message: &'static str,
        wait: Duration,
    },
    /// The store is away, or the server is at its limit of work. The cause is for the log.
    Unavailable(String),
    /// A fault of ours. The cause is for the log.
    Internal(String),
}

/// What a key was presented by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presenter {
    Key,
    /// A token that was derived from it.
    Token,
}

/// What a 401 asks for (RFC 9110 §11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// A JWT is taken; with `Sent::Yes`, one was sent and is no good (RFC 6750 §3.1, `invalid_token`).
    pub token: Option<Sent>,
    /// An API key is taken.
    pub key: bool,
    /// An API key is taken as a password (RFC 7617).
    pub basic: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Yes,
    No,
}

impl Error {
    /// What is wrong with the credentials is nobody's business.
    pub fn invalid_credentials() -> Error {
        let challenge = Challenge { token: Some(Sent::No), key: false, basic: false };
        Error::Unauthenticated { message: "Invalid credentials", challenge }
    }

    /// No credential, or a token that is no good.
    pub fn unauthorized(challenge: Challenge) -> Error {
        Error::Unauthenticated { message: "Unauthorized", challenge }
    }
}

/// Why the store did not do what it was asked. The texts are for the log and hold no values of rows.
#[derive(Clone, Debug)]
pub enum StoreError {
    /// A unique constraint forbids it.
    Conflict(String),
    /// The database is away, full, read-only or too busy; trying again later may help.
    Unavailable(String),
    /// The database was taken away from under us, and comes back with a new start at best.
    Lost(String),
    /// A fault of ours, or a database that is not as we left it.
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
