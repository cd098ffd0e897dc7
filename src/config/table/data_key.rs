//! The key of what is stored and must be read again.

use crate::base::data_key::RawKey;
use crate::config::setting::{ALWAYS, Setting};

const KEYS: &str = "32 bytes, in hexadecimal or base64, such as the output of `openssl rand -hex 32`";

pub(super) static SETTINGS: &[Setting] = &[
    Setting {
        name: "DATA_KEY",
        default: None,
        accepts: KEYS,
        meaning: "Encrypts the secrets of second factors and webhooks in the database; generated with SQLite; with PostgreSQL neither can be made without it",
        secret: true,
        counts: ALWAYS,
        read: |config, value| read(&mut config.data_key.key, value),
    },
    Setting {
        name: "DATA_KEY_PREVIOUS",
        default: None,
        accepts: KEYS,
        meaning: "The previous or the next DATA_KEY; what it encrypted can be read, and it encrypts nothing",
        secret: true,
        counts: ALWAYS,
        read: |config, value| read(&mut config.data_key.previous, value),
    },
];

fn read(field: &mut Option<RawKey>, value: &str) -> Result<(), String> {
    *field = Some(RawKey::parse(value)?);
    Ok(())
}
