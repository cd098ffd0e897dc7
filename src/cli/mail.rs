//! `keyward mail test ADDRESS`: whether mail can be sent with these settings.

use std::io::{self, Write};

use pico_args::Arguments;

use crate::accounts::email::Email;
use crate::base::clock::Clock;
use crate::cli::arguments::{finish, required};
use crate::cli::failure::Failure;
use crate::cli::operator::settings;
use crate::mail::mailer::{Mailer, Sent};

pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    match arguments.subcommand()?.as_deref() {
        Some("test") => test(arguments),
        Some(other) => Err(Failure::Usage(format!("there is no command \"mail {other}\""))),
        None => Err(Failure::Usage("mail needs a command: test".to_string())),
    }
}

/// Sends a mail to the address. Needs no database, so that it can be tried before anything else.
fn test(mut arguments: Arguments) -> Result<(), Failure> {
    let address = required(&mut arguments, "the address is missing")?;
    finish(arguments)?;
    let address = Email::parse(&address).map_err(|rule| Failure::Usage(format!("{address:?} {rule}")))?;
    let mailer = Mailer::open(&settings()?.mail).map_err(Failure::Failed)?;
    let missing = || Failure::Failed("there is no mail: SMTP_URL is not set".to_string());
    let mailer = mailer.ok_or_else(missing)?;
    match mailer.send_test(address.as_str(), Clock::default().now())? {
        Sent::Taken(answer) => {
            let (status, text) = (answer.status.unwrap_or_default(), answer.text.unwrap_or_default());
            Ok(writeln!(io::stdout(), "{} took a mail to {}: {status} {text}", mailer.place(), address.as_str())?)
        }
        Sent::Refused(fault) => {
            Err(Failure::Failed(format!("{} did not take a mail to {}: {fault}", mailer.place(), address.as_str())))
        }
        Sent::NoAddress => Err(Failure::Failed(format!("no mail can go to {}", address.as_str()))),
    }
}
