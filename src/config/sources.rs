//! Where values come from: the environment, or `.env` in the working directory. A secret may also be in a file that
//! `NAME_FILE` names, as Docker and Kubernetes mount it, or be a credential of systemd's under its lower-case name.

use std::collections::HashMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::dotenv;
use super::setting::Setting;
use super::settings::ConfigError;
use super::table::settings;
use crate::base::files;

/// In bytes. A wrong path may name a file of any size.
const LARGEST_FILE: u64 = 64 * 1024;

/// A value, and the name by which the operator knows the place that it comes from.
pub(super) struct Given {
    pub(super) value: String,
    pub(super) place: String,
}

/// The values of all settings that are given anywhere, by the settings' names.
pub(super) fn read() -> Result<HashMap<&'static str, Given>, ConfigError> {
    let dotenv = dotenv::read()?;
    // systemd sets it for a service that has credentials.
    let credentials = env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let mut given = HashMap::new();
    for setting in settings() {
        let found = find(setting, |name| env::var_os(name), credentials.as_deref(), &dotenv).map_err(ConfigError)?;
        given.extend(found.map(|found| (setting.name, found)));
    }
    Ok(given)
}

/// `.env` counts only if no other place has the setting, and an empty variable hides the one of `.env`.
fn find(
    setting: &Setting,
    environment: impl Fn(&str) -> Option<OsString>,
    credentials: Option<&Path>,
    dotenv: &HashMap<String, String>,
) -> Result<Option<Given>, String> {
    let mut places = variables(setting, &environment);
    if let (Some(folder), Some(name)) = (credentials, setting.credential()) {
        let file = folder.join(&name);
        // One that cannot be looked at is a place, too: reading it says why.
        if file.try_exists().unwrap_or(true) {
            places.push(Place { name: format!("credential {name}"), holds: Holds::Path(file.into()) });
        }
    }
    if places.is_empty() {
        let hidden = |name: &str| environment(name).is_some();
        places = variables(setting, |name| dotenv.get(name).filter(|_| !hidden(name)).map(OsString::from));
    }
    if places.len() > 1 {
        let names: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
        return Err(format!(
            "{}: is set more than once, by {}; accepted: one of them",
            setting.name,
            names.join(" and ")
        ));
    }
    places.pop().map(|place| place.read(setting)).transpose()
}

/// Where a value is.
struct Place {
    name: String,
    holds: Holds,
}

enum Holds {
    Value(OsString),
    Path(OsString),
}

/// The variables that give the setting. An empty one gives nothing.
fn variables(setting: &Setting, value: impl Fn(&str) -> Option<OsString>) -> Vec<Place> {
    let variable = |name: String, holds: fn(OsString) -> Holds| {
        let value = value(&name).filter(|value| !value.is_empty())?;
        Some(Place { name, holds: holds(value) })
    };
    let direct = variable(setting.name.to_string(), Holds::Value);
    let file = setting.file_variable().and_then(|name| variable(name, Holds::Path));
    [direct, file].into_iter().flatten().collect()
}

impl Place {
    /// The error shows none of the value.
    fn read(self, setting: &Setting) -> Result<Given, String> {
        let value = match self.holds {
            Holds::Value(value) => value.into_string().map_err(|_| format!("{}: the value is not UTF-8", self.name))?,
            Holds::Path(path) => read_file(&path).map_err(|fault| {
                format!("{}: {} {fault}; accepted: a file with {}", self.name, Path::new(&path).display(), setting.name)
            })?,
        };
        Ok(Given { value, place: self.name })
    }
}

/// The content without the end of its last line. The error says what is wrong with the file.
fn read_file(path: &OsStr) -> Result<String, String> {
    let path = Path::new(path);
    let unreadable = |error: io::Error| format!("cannot be read: {error}{}", files::unreadable(path));
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(format!("has more than {LARGEST_FILE} bytes"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err("is empty".to_string()) } else { Ok(text) }
}
