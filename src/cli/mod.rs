//! The command line: one file a command. `serve` runs the server; the others are for the operator, who may use them
//! while a server runs. Exit codes: 0 done, 1 failed, 2 wrong usage.

mod arguments;
mod events;
mod failure;
mod healthcheck;
mod key;
mod mail;
mod migrate;
mod operator;
mod output;
mod password;
mod serve;
mod user;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use pico_args::Arguments;

use crate::cli::failure::Failure;
use crate::config;

const USAGE: &str = "\
Keyward: users, sessions and API keys for your services.

Usage: keyward [COMMAND] [OPTIONS]

Commands:
  serve                     Start the server (the same as keyward without a command)
  migrate [--check]         Bring the database up to date; with --check, only report what is missing
  user list [--same-email]  List all users, or those whose e-mail is another's too, in another spelling
  user show USER            Show one user; USER is an e-mail or an id
  user create EMAIL [--name NAME]
                            Create a user; the password is asked for, or read from standard input
  user invite EMAIL [--name NAME]
                            Create a user without a password, and print a link, or a token, that sets one
  user reset-link USER      Print a link, or a token, that sets a user's new password, to be handed over
  user verify-email USER|--all
                            Say that the e-mail of a user, or of every user, is known to be theirs
  user grant USER|--all SCOPE...
                            Let a user, or all users, do more: use these scopes and hand them to their keys.
                            orders:* stands for all that begin so
  user withdraw USER|--all SCOPE...
                            Take scopes away from a user and their keys, at once
  user activate USER        Let a user log in again and turn their keys back on
  user deactivate USER      End a user's sessions and turn their keys off, at once
  user set-password USER    Set a user's password and end their sessions
  user reset-totp USER      Remove the second factor of a user who has lost it
  user delete USER          Delete a user with their sessions and keys
  key list [--user USER]    List all keys, or one user's; the keys themselves are never shown
  key revoke ID             Revoke a key
  events [--user USER] [--type TYPE] [--since TIME]
                            List what happened to users, sessions and keys, oldest first; TIME is RFC 3339
  mail test ADDRESS         Send a mail to the address, and say what the mail server answers
  healthcheck               Exit with 0 if the server with these settings answers, otherwise with 1

Options:
  --json                    Print JSON (user, key and events commands)
  -h, --help                Print this text
  -V, --version             Print the version

Settings, from the environment or from .env in the working directory [default]. NAME_FILE names a file that holds the
secret NAME:
";

/// Runs the command that the arguments name. They do not include the program's own name.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    match dispatch(Arguments::from_vec(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(mut arguments: Arguments) -> Result<(), Failure> {
    if arguments.contains(["-h", "--help"]) {
        return Ok(write!(io::stdout(), "{USAGE}{}", config::help())?);
    }
    if arguments.contains(["-V", "--version"]) {
        return Ok(writeln!(io::stdout(), "keyward {}", env!("CARGO_PKG_VERSION"))?);
    }
    match arguments.subcommand()?.as_deref() {
        None | Some("serve") => serve::run(arguments),
        Some("migrate") => migrate::run(arguments),
        Some("user") => user::run(arguments),
        Some("key") => key::run(arguments),
        Some("events") => events::run(arguments),
        Some("mail") => mail::run(arguments),
        Some("healthcheck") => healthcheck::run(arguments),
        Some(other) => Err(Failure::Usage(format!("there is no command {other:?}"))),
    }
}
