//! Reading a new password from the operator.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::accounts::passwords::{NewPassword, PasswordRules};
use crate::cli::failure::Failure;

/// At a terminal, asks for the password and hides what is typed; otherwise reads the first line of standard input. A
/// password is never an argument, because every user of the machine can see the arguments of a process.
pub(crate) fn read_password(rules: &PasswordRules) -> Result<NewPassword, Failure> {
    let stdin = io::stdin();
    let mut line = String::new();
    if stdin.is_terminal() {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let original = tcgetattr(&stdin).map_err(io::Error::from)?;
        let mut without_echo = original.clone();
        without_echo.local_modes -= LocalModes::ECHO;
        write!(io::stderr(), "Password: ")?;
        tcsetattr(&stdin, OptionalActions::Flush, &without_echo).map_err(io::Error::from)?;
        let read = stdin.lock().read_line(&mut line);
        tcsetattr(&stdin, OptionalActions::Flush, &original).map_err(io::Error::from)?;
        writeln!(io::stderr())?;
        read?;
    } else {
        stdin.lock().read_line(&mut line)?;
    }
    let password = line.trim_end_matches(['\n', '\r']);
    rules.judge(password).map_err(|rule| Failure::Failed(format!("the password {rule}")))
}
