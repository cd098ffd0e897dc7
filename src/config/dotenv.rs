//! `.env` in the working directory.

use std::collections::HashMap;

use super::settings::ConfigError;

/// The settings in the file; none if there is no file.
pub(crate) fn read() -> Result<HashMap<String, String>, ConfigError> {
    let mut given = HashMap::new();
    let lines = match dotenvy::from_path_iter(".env") {
        Ok(lines) => lines,
        Err(error) if error.not_found() => return Ok(given),
        Err(dotenvy::Error::Io(error)) => return Err(ConfigError(format!(".env: cannot be read: {error}"))),
        Err(_) => return Err(ConfigError(".env: cannot be read".to_string())),
    };
    for pair in lines {
        match pair {
            Ok((name, value)) => {
                given.insert(name, value);
            }
            Err(dotenvy::Error::Io(error)) => return Err(ConfigError(format!(".env: cannot be read: {error}"))),
            // The library's own message repeats the line, which may hold a secret.
            Err(_) => {
                let last = given.len();
                return Err(ConfigError(format!(
                    ".env: a line after the first {last} settings is not NAME=value; accepted: one a line, \
                     values with spaces, # or $ in single quotes"
                )));
            }
        }
    }
    Ok(given)
}
