//! The table of settings: name, default, meaning and reader of each, in a file for each room that owns some.
//!
//! A new setting is a field of its room's settings and an entry here.

mod accounts;
mod audit;
mod http;
mod keys;
mod log;
mod memory;
mod read;
mod store;
mod tokens;

use super::settings::Config;

/// One setting.
pub struct Setting {
    pub name: &'static str,
    /// Read as if the operator had written it.
    pub default: Option<&'static str>,
    /// What is accepted, for the error and the documents.
    pub accepts: &'static str,
    pub meaning: &'static str,
    /// Errors do not repeat the value.
    pub(super) secret: bool,
    /// Reads a value. The error says what is wrong with it ("is not a port").
    pub(super) read: fn(&mut Config, &str) -> Result<(), String>,
}

/// All settings, in the order of the documents.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    ROOMS.into_iter().flatten()
}

static ROOMS: [&[Setting]; 8] = [
    http::SETTINGS,
    store::SETTINGS,
    tokens::SETTINGS,
    accounts::SETTINGS,
    keys::SETTINGS,
    audit::SETTINGS,
    memory::SETTINGS,
    log::SETTINGS,
];
