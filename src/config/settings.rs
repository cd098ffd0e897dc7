//! All settings, room by room.

use std::fmt;

use crate::accounts::settings::AccountSettings;
use crate::audit::settings::AuditSettings;
use crate::base::data_key::DataKeySettings;
use crate::base::logging::LogSettings;
use crate::http::settings::HttpSettings;
use crate::keys::settings::KeySettings;
use crate::mail::settings::MailSettings;
use crate::memory::settings::MemorySettings;
use crate::outbox::settings::OutboxSettings;
use crate::store::settings::StoreSettings;
use crate::tokens::settings::TokenSettings;
use crate::webhooks::settings::WebhookSettings;

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub http: HttpSettings,
    pub store: StoreSettings,
    pub data_key: DataKeySettings,
    pub tokens: TokenSettings,
    pub accounts: AccountSettings,
    pub keys: KeySettings,
    pub audit: AuditSettings,
    pub outbox: OutboxSettings,
    pub webhooks: WebhookSettings,
    pub mail: MailSettings,
    pub memory: MemorySettings,
    pub log: LogSettings,
    /// What the operator has set in vain, or should not have left out: one line each, without a secret.
    pub warnings: Vec<String>,
}

impl Config {
    /// Zeros, which the table's defaults replace.
    pub(super) fn unread() -> Config {
        Config {
            http: HttpSettings::default(),
            store: StoreSettings::default(),
            data_key: DataKeySettings::default(),
            tokens: TokenSettings::default(),
            accounts: AccountSettings::default(),
            keys: KeySettings::default(),
            audit: AuditSettings::default(),
            outbox: OutboxSettings::default(),
            webhooks: WebhookSettings::default(),
            mail: MailSettings::default(),
            memory: MemorySettings::default(),
            log: LogSettings::default(),
            warnings: Vec::new(),
        }
    }
}

/// One line that names the setting, what is wrong with its value, and what is accepted. Never shows a secret.
#[derive(Debug)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
