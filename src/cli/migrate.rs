//! `keyward migrate`: brings the database up to date, or reports what is missing.

use std::io::{self, Write};

use pico_args::Arguments;

use crate::base::logging;
use crate::cli::arguments::finish;
use crate::cli::failure::Failure;
use crate::cli::operator::settings;
use crate::run::database;

pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let check = arguments.contains("--check");
    finish(arguments)?;
    let database = settings()?.store.database().map_err(Failure::Failed)?;
    logging::start_plain();
    let (pending, word) =
        if check { (database::pending(&database)?, "missing") } else { (database::migrate(&database)?, "applied") };
    for migration in &pending.migrations {
        writeln!(io::stdout(), "{word}: {migration}")?;
    }
    if pending.migrations.is_empty() {
        writeln!(io::stdout(), "the database is up to date")?;
    } else if check {
        return Err(Failure::Failed(
            "the database is not up to date; keyward migrate applies what is missing".to_string(),
        ));
    }
    Ok(())
}
