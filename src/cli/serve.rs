//! `keyward serve`, or `keyward` alone: the server, until a signal ends it.

use log::warn;
use pico_args::Arguments;

use crate::base::clock::Clock;
use crate::base::logging;
use crate::cli::arguments::finish;
use crate::cli::failure::Failure;
use crate::cli::operator::settings;
use crate::run::Keyward;
use crate::run::signals::{End, Signals};

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    finish(arguments)?;
    let config = settings()?;
    logging::start(&config.log);
    for line in &config.warnings {
        warn!("{line}");
    }
    let outcome = Signals::register().and_then(|signals| {
        let mut keyward = Keyward::start(&config, Clock::default())?;
        let lost = keyward.lost();
        let end = signals.wait(|| keyward.reload(), lost);
        keyward.stop();
        logging::finish();
        Ok(end)
    });
    log::logger().flush();
    match outcome.map_err(Failure::Failed)? {
        End::Asked => Ok(()),
        End::Lost => Err(Failure::Logged),
    }
}
