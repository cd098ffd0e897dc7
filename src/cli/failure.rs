//! Why a command failed, and how the operator learns of it.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::base::error::{Error, StoreError};
use crate::base::logging::printable;

pub(crate) enum Failure {
    /// The arguments are wrong; one line that says how.
    Usage(String),
    /// One line for the operator.
    Failed(String),
    /// The log already says why.
    Logged,
    /// The reader of our output has closed it, as `head` does. This is no error.
    OutputClosed,
}

impl Failure {
    pub(crate) fn no_such_user() -> Failure {
        Failure::Failed("there is no such user".to_string())
    }

    pub(crate) fn report(self) -> ExitCode {
        // Standard error may be closed as well; the exit code still tells.
        match self {
            Failure::Usage(line) => {
                let _ = writeln!(io::stderr(), "keyward: {}; see keyward --help", printable(&line));
                ExitCode::from(2)
            }
            Failure::Failed(line) => {
                let _ = writeln!(io::stderr(), "keyward: {}", printable(&line));
                ExitCode::from(1)
            }
            Failure::Logged => ExitCode::from(1),
            Failure::OutputClosed => ExitCode::SUCCESS,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Failed(match error {
            Error::Unavailable(cause) | Error::Internal(cause) => cause,
            Error::NotFound(what) => what.into_owned(),
            Error::Forbidden(what) => what.to_string(),
            Error::Conflict(what) => what.into_owned(),
            Error::KeyReplaced { message, .. } => message.to_string(),
            Error::BrokenRules(rules) => rules.join(", "),
            other => format!("{other:?}"),
        })
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Failed(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Failed(error.to_string()),
        }
    }
}

impl From<pico_args::Error> for Failure {
    fn from(error: pico_args::Error) -> Failure {
        Failure::Usage(error.to_string())
    }
}
