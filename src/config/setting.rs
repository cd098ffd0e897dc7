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
    /// Errors do not repeat the value.
    pub(super) secret: bool,
    /// Reads a value. The error says what is wrong with it ("is not a port").
    pub(super) read: fn(&mut Config, &str) -> Result<(), String>,
}
