//! The settings of this room: which database, and where it is.

use std::path::{Path, PathBuf};

use crate::base::secret::Secret;
use crate::store::postgres::{PostgresTarget, TlsMode};

/// As the operator gives them. [`StoreSettings::database`] says which database they mean.
#[derive(Clone, Debug, Default)]
pub struct StoreSettings {
    pub sqlite_file: PathBuf,
    /// PostgreSQL as one URL. It wins over the parts below.
    pub url: Option<Secret>,
    /// The same database, past the pooler that `url` names.
    pub direct_url: Option<Secret>,
    pub host: Option<String>,
    pub port: u16,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub name: Option<String>,
    pub tls_mode: TlsMode,
    pub root_cert: Option<PathBuf>,
}

/// The database to use.
#[derive(Clone, Debug)]
pub enum Database {
    Sqlite(PathBuf),
    Postgres(Box<PostgresTarget>),
}

impl StoreSettings {
    /// PostgreSQL if the settings name a URL or a host, else SQLite. The error is one line for the operator that names
    /// the setting and shows no secret.
    pub fn database(&self) -> Result<Database, String> {
        let from_url = |name: &str, url: &Secret| {
            PostgresTarget::from_url(url.expose(), self.tls_mode, self.root_cert.clone())
                .map_err(|fault| format!("{name}: the value {fault}"))
        };
        let target = match (&self.url, &self.host) {
            (Some(url), _) => from_url("DATABASE_URL", url)?,
            (None, Some(host)) => PostgresTarget::from_parts(
                host,
                self.port,
                self.user.as_deref(),
                self.password.as_ref().map(Secret::expose),
                self.name.as_deref(),
                self.tls_mode,
                self.root_cert.clone(),
            )
            .map_err(|fault| format!("DB_HOST: the connection {fault}"))?,
            (None, None) => return Ok(Database::Sqlite(self.sqlite_file.clone())),
        };
        let target = match &self.direct_url {
            Some(url) => target
                .with_direct(from_url("DATABASE_URL_DIRECT", url)?)
                .map_err(|fault| format!("DATABASE_URL_DIRECT: the value {fault}"))?,
            None => target,
        };
        Ok(Database::Postgres(Box::new(target)))
    }

    /// Whether there are URLs, and each has this parameter.
    pub(crate) fn urls_have(&self, parameter: &str) -> bool {
        let has = |url: &Secret| {
            let query = url.expose().split_once('?').map_or("", |(_, query)| query);
            query.split('&').any(|pair| pair.split_once('=').is_some_and(|(name, _)| name == parameter))
        };
        self.url.is_some() && [&self.url, &self.direct_url].into_iter().flatten().all(has)
    }
}

impl Database {
    /// `None`: PostgreSQL.
    pub(crate) fn sqlite_file(&self) -> Option<&Path> {
        match self {
            Database::Sqlite(file) => Some(file),
            Database::Postgres(_) => None,
        }
    }
}
