//! What the table says of a setting.

use super::settings::Config;

/// One setting.
pub struct Setting {
    pub name: &'static str,
    /// Read as if the operator had written it.
    pub default: Option<&'static str>,
    /// What is accepted, for the error and the documents.
    pub accepts: &'static str,
    pub meaning: &'static str,
    /// Errors do not repeat the value, and it is also read from a file or a credential.
    pub(super) secret: bool,
    /// Whether it has an effect beside the other settings. The operator is warned if they set one that has none.
    pub(super) counts: Counts,
    /// Reads a value. The error says what is wrong with it ("is not a port").
    pub(super) read: fn(&mut Config, &str) -> Result<(), String>,
}

/// The error says why the setting has no effect.
pub(super) type Counts = fn(&Config) -> Result<(), &'static str>;

pub(super) const ALWAYS: Counts = |_| Ok(());

impl Setting {
    /// The variable that names a file with the value. Only secrets have one.
    pub fn file_variable(&self) -> Option<String> {
        self.secret.then(|| format!("{}_FILE", self.name))
    }

    /// The name of the value among systemd's credentials. Only secrets have one.
    pub(super) fn credential(&self) -> Option<String> {
        self.secret.then(|| self.name.to_ascii_lowercase())
    }
}
