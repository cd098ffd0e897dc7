//! The documents that are made from the table.

use super::table::settings;

/// The settings for `--help`: name and default, then meaning and what is accepted.
pub fn help() -> String {
    let mut text = String::new();
    for setting in settings() {
        let default = setting.default.map(|value| format!(" [{value}]")).unwrap_or_default();
        let file = setting.file_variable().map(|name| format!(" or {name}")).unwrap_or_default();
        text.push_str(&format!(
            "  {}{file}{default}\n      {}.\n      Accepted: {}.\n",
            setting.name, setting.meaning, setting.accepts
        ));
    }
    text
}

/// The content of `.env.example`.
pub fn env_example() -> String {
    let mut text = String::from(
        "# Settings of Keyward: copy this file to .env and uncomment what you change. The environment wins over .env.\n\
         # Put a value with spaces, # or $ in single quotes. NAME_FILE names a file with the value of NAME.\n",
    );
    for setting in settings() {
        text.push_str(&format!(
            "\n# {}.\n# Accepted: {}.\n#{}={}\n",
            setting.meaning,
            setting.accepts,
            setting.name,
            setting.default.unwrap_or_default()
        ));
        if let Some(name) = setting.file_variable() {
            text.push_str(&format!("#{name}=\n"));
        }
    }
    text
}

/// The rows of the table of settings in the documentation.
pub fn markdown_rows() -> String {
    let mut text = String::new();
    for setting in settings() {
        let default = setting.default.map_or("none".to_string(), |value| format!("`{value}`"));
        let file = setting.file_variable().map(|name| format!("; or `{name}`, a file with it")).unwrap_or_default();
        text.push_str(&format!(
            "| `{}` | {default} | {} | {}{file} |\n",
            setting.name, setting.meaning, setting.accepts
        ));
    }
    text
}
