//! Reading arguments. Each command reads all of its arguments before it does anything.

use pico_args::Arguments;

use crate::accounts::user::UserRef;
use crate::cli::failure::Failure;

/// The next argument that is not an option; `missing` is the failure if there is none.
pub(crate) fn required(arguments: &mut Arguments, missing: &str) -> Result<String, Failure> {
    let text: String = arguments.free_from_str().map_err(|_| Failure::Usage(missing.to_string()))?;
    // An e-mail may begin with a hyphen.
    if text.starts_with('-') && !text.contains('@') { Err(unknown(&text)) } else { Ok(text) }
}

pub(crate) fn user_ref(text: &str) -> Result<UserRef, Failure> {
    UserRef::parse(text).ok_or_else(|| Failure::Usage(format!("{text:?} is neither an e-mail nor an id")))
}

/// Refuses arguments that the command has not read.
pub(crate) fn finish(arguments: Arguments) -> Result<(), Failure> {
    match arguments.finish().first() {
        None => Ok(()),
        Some(argument) => Err(unknown(&argument.to_string_lossy())),
    }
}

fn unknown(argument: &str) -> Failure {
    Failure::Usage(format!("unknown argument {argument:?}"))
}
