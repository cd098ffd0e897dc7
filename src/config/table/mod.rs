//! The table of settings: name, default, meaning and reader of each, in a file for each room that owns some.
//!
//! A new setting is a field of its room's settings and an entry here.

mod accounts;
mod audit;
mod data_key;
mod http;
mod keys;
mod log;
mod mail;
mod memory;
mod outbox;
mod read;
mod store;
mod tokens;
mod webhooks;

use super::setting::Setting;

/// All settings, in the order of the documents.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    ROOMS.iter().copied().flatten()
}

static ROOMS: &[&[Setting]] = &[
    http::SETTINGS,
    store::SETTINGS,
    data_key::SETTINGS,
    tokens::SETTINGS,
    accounts::SETTINGS,
    keys::SETTINGS,
    audit::SETTINGS,
    outbox::SETTINGS,
    webhooks::SETTINGS,
    mail::SETTINGS,
    memory::SETTINGS,
    log::SETTINGS,
];
