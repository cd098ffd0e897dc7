//! What the operator's commands work with: the settings, and the same services as the server's.

use std::time::Duration;

use crate::accounts::user::{User, UserRef};
use crate::app::App;
use crate::base::logging;
use crate::cli::failure::Failure;
use crate::config::Config;
use crate::run;

/// A running server has applied another process's change after this time: with SQLite it looks every 100 ms, with
/// PostgreSQL it is notified at once. Through a pooler that passes no notifications on, it takes up to 5 s.
const APPLIED_WITHIN: Duration = Duration::from_millis(250);

pub(crate) fn settings() -> Result<Config, Failure> {
    Config::load().map_err(|error| Failure::Failed(error.to_string()))
}

pub(crate) fn open_app() -> Result<App, Failure> {
    let config = settings()?;
    logging::start_plain();
    run::open_operator_app(&config).map_err(Failure::Failed)
}

pub(crate) fn find_user(app: &App, user: &UserRef) -> Result<User, Failure> {
    app.users.find(user)?.ok_or_else(Failure::no_such_user)
}

/// Waits until a running server has applied the change, so that a revoked key, for example, is refused when the command
/// returns.
pub(crate) fn wait_until_applied() {
    std::thread::sleep(APPLIED_WITHIN);
}
