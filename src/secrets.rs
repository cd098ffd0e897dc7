//! The JWT secrets of a server that was given none: made once and kept beside the SQLite file.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use log::info;
use rand::TryRng;
use rand::rngs::SysRng;
use uuid::Uuid;

use crate::config::{Config, Database, Secret};

/// The secrets that sign tokens.
pub struct JwtSecrets {
    pub access: Secret,
    pub refresh: Secret,
}

/// The configured secrets; with SQLite, kept or new ones for those that are not set. With PostgreSQL a missing one is
/// an error: instances must share them. The error is one line for the operator.
pub fn resolve(config: &Config) -> Result<JwtSecrets, String> {
    if let (Some(access), Some(refresh)) = (&config.jwt_secret, &config.jwt_refresh_secret) {
        return Ok(JwtSecrets { access: access.clone(), refresh: refresh.clone() });
    }
    let Database::Sqlite(database) = &config.database else {
        let name = if config.jwt_secret.is_none() { "JWT_SECRET" } else { "JWT_REFRESH_SECRET" };
        return Err(format!(
            "{name}: is not set, and with PostgreSQL all instances must share it; accepted: 32 bytes or more, such as \
             the output of `openssl rand -hex 32`"
        ));
    };
    let path = kept_at(database);
    let failed = |error: std::io::Error| format!("the JWT secrets cannot be kept in {}: {error}", path.display());
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create(&path).map_err(failed)?;
            fs::read_to_string(&path).map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    let kept = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .filter(|secret| secret.len() >= 32)
            .map(|secret| Secret::new(secret.to_string()))
            .ok_or_else(|| {
                format!("{} has no good {name}; restore it, or delete it to log everyone out", path.display())
            })
    };
    Ok(JwtSecrets {
        access: config.jwt_secret.clone().map_or_else(|| kept("JWT_SECRET"), Ok)?,
        refresh: config.jwt_refresh_secret.clone().map_or_else(|| kept("JWT_REFRESH_SECRET"), Ok)?,
    })
}

fn kept_at(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".secrets");
    path.into()
}

/// Appears whole or not at all; when two servers start at once, the first one's file stays.
fn create(path: &Path) -> std::io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", Uuid::now_v7()));
    let draft = PathBuf::from(draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    for name in ["JWT_SECRET", "JWT_REFRESH_SECRET"] {
        let mut bytes = [0; 32];
        SysRng.try_fill_bytes(&mut bytes).map_err(std::io::Error::other)?;
        writeln!(file, "{name}={}", hex::encode(bytes))?;
    }
    file.sync_all()?;
    let placed = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match placed {
        Ok(()) => info!("JWT secrets were generated; they are kept in {}", path.display()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory)?.sync_all()
}
