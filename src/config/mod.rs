//! What the operator has decided. Every setting is a line of [`SETTINGS`].
//!
//! Settings are read once, at the start; nothing reads the environment afterwards.

mod settings;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use self::settings::Draft;
use crate::accounts::limits::AddressRates;
use crate::accounts::rotation::RotationRules;
use crate::base::logging::LogFormat;
use crate::base::secret::Secret;
use crate::http::client_address::Proxies;
use crate::http::cors::Cors;
use crate::http::limits::Limits;
use crate::http::tls::TlsFiles;
use crate::keys::key::KeyRules;
use crate::memory::limiter::Rate;
use crate::store::postgres::{PostgresTarget, TlsMode};
use crate::tokens::claims::Parties;
use crate::tokens::jws::Algorithm;

pub use self::settings::{SETTINGS, Setting, env_example, help, markdown_rows};

/// What the server was told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on.
    pub hosts: Vec<IpAddr>,
    /// Whether `HOST` was set. If not, a machine without IPv6 is served on IPv4 alone.
    pub hosts_given: bool,
    pub port: u16,
    /// `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Where plain HTTP is sent to HTTPS from.
    pub redirect_port: Option<u16>,
    pub database: Database,
    /// `None`: to be generated (SQLite) or refused (PostgreSQL).
    pub jwt_secret: Option<Secret>,
    pub jwt_refresh_secret: Option<Secret>,
    /// Accepted beside the current ones, never signed with.
    pub jwt_secret_previous: Option<Secret>,
    pub jwt_refresh_secret_previous: Option<Secret>,
    pub jwt_alg: Algorithm,
    pub jwt_private_key_file: Option<PathBuf>,
    pub jwt_previous_key_files: Vec<PathBuf>,
    pub jwt_parties: Parties,
    pub jwt_expires_in: Duration,
    pub jwt_refresh_expires_in: Duration,
    /// From the login; `None`: refreshing goes on for ever.
    pub session_max_age: Option<Duration>,
    /// From the login or the last refresh. Access tokens live for half of it at most.
    pub session_idle: Option<Duration>,
    pub rotation: RotationRules,
    /// In characters.
    pub password_min_length: usize,
    pub bcrypt_cost: u32,
    pub signup_open: bool,
    pub address_rates: AddressRates,
    /// How much a user may write; `None`: as much as they like.
    pub write_rate: Option<Rate>,
    pub proxies: Proxies,
    pub cors: Cors,
    pub max_connections: usize,
    /// `None`: a quarter of them.
    pub max_connections_per_address: Option<usize>,
    pub cache_entries: usize,
    pub max_sessions_per_user: u32,
    pub key_rules: KeyRules,
    pub usage_retention: Duration,
    pub audit_retention: Duration,
    pub log_filter: String,
    pub log_format: LogFormat,
    /// Not a setting of the operator's: tests shorten these.
    pub limits: Limits,
}

/// Where the data is.
#[derive(Clone, Debug)]
pub enum Database {
    Sqlite(PathBuf),
    Postgres(Box<PostgresTarget>),
}

/// One line that names the variable, what is wrong with its value, and what is accepted. Never shows a secret.
#[derive(Debug)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Config {
    /// Reads the environment, then `.env` in the working directory for what the environment leaves out.
    pub fn load() -> Result<Config, ConfigError> {
        let mut given = HashMap::new();
        read_dotenv(&mut given)?;
        for setting in SETTINGS {
            match std::env::var(setting.name) {
                Ok(value) => {
                    given.insert(setting.name.to_string(), value);
                }
                Err(std::env::VarError::NotPresent) => {}
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(ConfigError(format!("{}: the value is not UTF-8", setting.name)));
                }
            }
        }
        Config::from_values(&given)
    }

    /// Reads settings by name. An empty value counts as unset, as in a compose file that passes variables through.
    pub fn from_values(given: &HashMap<String, String>) -> Result<Config, ConfigError> {
        let given = |name: &str| given.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let mut draft = Draft {
            hosts: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            port: 0,
            tls_cert: None,
            tls_key: None,
            redirect_port: None,
            sqlite_path: PathBuf::new(),
            database_url: None,
            database_url_direct: None,
            db_host: None,
            db_port: 0,
            db_username: None,
            db_password: None,
            db_name: None,
            db_sslmode: TlsMode::Prefer,
            db_sslrootcert: None,
            jwt_secret: None,
            jwt_refresh_secret: None,
            jwt_secret_previous: None,
            jwt_refresh_secret_previous: None,
            jwt_alg: Algorithm::Hs256,
            jwt_private_key_file: None,
            jwt_previous_key_files: Vec::new(),
            jwt_parties: Parties::default(),
            jwt_expires_in: Duration::ZERO,
            jwt_refresh_expires_in: Duration::ZERO,
            session_max_age: None,
            session_idle: None,
            rotation: RotationRules { grace: Duration::ZERO, retry: None },
            password_min_length: 0,
            bcrypt_cost: 0,
            signup_open: false,
            address_rates: AddressRates::default(),
            write_rate: None,
            proxies: Proxies { trusted: Vec::new(), header: HeaderName::from_static("x-forwarded-for") },
            cors: Cors::default(),
            max_connections: 0,
            max_connections_per_address: None,
            cache_entries: 0,
            max_sessions_per_user: 0,
            key_rules: KeyRules { most: 0, retention: Duration::ZERO },
            usage_retention: Duration::ZERO,
            audit_retention: Duration::ZERO,
            log_filter: None,
            log_format: LogFormat::Text,
        };
        for setting in SETTINGS {
            let Some(value) = given(setting.name).or(setting.default) else { continue };
            (setting.read)(&mut draft, value).map_err(|fault| {
                let shown = if setting.secret { "the value".to_string() } else { format!("{value:?}") };
                ConfigError(format!("{}: {shown} {fault}; accepted: {}", setting.name, setting.accepts))
            })?;
        }
        let database = database(&draft, given)?;
        let tls = tls(&draft)?;
        Ok(Config {
            hosts: draft.hosts,
            hosts_given: given("HOST").is_some(),
            port: draft.port,
            tls,
            redirect_port: draft.redirect_port,
            database,
            jwt_secret: draft.jwt_secret,
            jwt_refresh_secret: draft.jwt_refresh_secret,
            jwt_secret_previous: draft.jwt_secret_previous,
            jwt_refresh_secret_previous: draft.jwt_refresh_secret_previous,
            jwt_alg: draft.jwt_alg,
            jwt_private_key_file: draft.jwt_private_key_file,
            jwt_previous_key_files: draft.jwt_previous_key_files,
            jwt_parties: draft.jwt_parties,
            // A client that refreshes when its access token has run out must find its session alive.
            jwt_expires_in: draft
                .session_idle
                .map_or(draft.jwt_expires_in, |idle| draft.jwt_expires_in.min(idle / 2).max(Duration::from_secs(1))),
            jwt_refresh_expires_in: draft.jwt_refresh_expires_in,
            session_max_age: draft.session_max_age,
            session_idle: draft.session_idle,
            rotation: draft.rotation,
            password_min_length: draft.password_min_length,
            bcrypt_cost: draft.bcrypt_cost,
            signup_open: draft.signup_open,
            address_rates: draft.address_rates,
            write_rate: draft.write_rate,
            proxies: draft.proxies,
            cors: draft.cors,
            max_connections: draft.max_connections,
            max_connections_per_address: draft.max_connections_per_address,
            cache_entries: draft.cache_entries,
            max_sessions_per_user: draft.max_sessions_per_user,
            key_rules: draft.key_rules,
            usage_retention: draft.usage_retention,
            audit_retention: draft.audit_retention,
            log_filter: draft.log_filter.unwrap_or_default(),
            log_format: draft.log_format,
            limits: Limits::default(),
        })
    }
}

fn tls(draft: &Draft) -> Result<Option<TlsFiles>, ConfigError> {
    let half = |set: &str, other: &str| {
        Err(ConfigError(format!("{set}: is set, but {other} is not; accepted: both (HTTPS), or neither (plain HTTP)")))
    };
    match (&draft.tls_cert, &draft.tls_key) {
        (Some(_), None) => half("TLS_CERT", "TLS_KEY"),
        (None, Some(_)) => half("TLS_KEY", "TLS_CERT"),
        (None, None) if draft.redirect_port.is_some() => Err(ConfigError(
            "HTTP_REDIRECT_PORT: is set, but TLS_CERT and TLS_KEY are not; accepted: all three, or none of them"
                .to_string(),
        )),
        (None, None) => Ok(None),
        (Some(_), Some(_)) if draft.redirect_port.is_some_and(|port| port != 0 && port == draft.port) => {
            Err(ConfigError(format!(
                "HTTP_REDIRECT_PORT: {} is PORT, which speaks HTTPS; accepted: another port",
                draft.port
            )))
        }
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (certificate.clone(), key.clone());
            Ok(Some(TlsFiles { certificate, key, look_every: Duration::from_secs(3) }))
        }
    }
}

fn database<'a>(draft: &Draft, given: impl Fn(&str) -> Option<&'a str>) -> Result<Database, ConfigError> {
    let from_url = |name: &str, url: &str| {
        PostgresTarget::from_url(url, draft.db_sslmode, draft.db_sslrootcert.clone())
            .map_err(|fault| ConfigError(format!("{name}: the value {fault}")))
    };
    let target = match (&draft.database_url, &draft.db_host) {
        (Some(url), _) => from_url("DATABASE_URL", url)?,
        (None, Some(host)) => PostgresTarget::from_parts(
            host,
            draft.db_port,
            draft.db_username.as_deref(),
            draft.db_password.as_deref(),
            draft.db_name.as_deref(),
            draft.db_sslmode,
            draft.db_sslrootcert.clone(),
        )
        .map_err(|fault| ConfigError(format!("DB_HOST: the connection {fault}")))?,
        (None, None) => {
            // Somebody meant PostgreSQL: a fresh, empty SQLite file would look like lost data.
            if draft.database_url_direct.is_some() {
                return Err(ConfigError(
                    "DATABASE_URL_DIRECT: is set, but DATABASE_URL is not; accepted: both (a pooler, and PostgreSQL \
                     behind it), DATABASE_URL alone, or neither (SQLite)"
                        .to_string(),
                ));
            }
            if let Some(setting) = SETTINGS.iter().find(|s| s.name.starts_with("DB_") && given(s.name).is_some()) {
                let name = setting.name;
                return Err(ConfigError(format!(
                    "{name}: is set, but DB_HOST is not; accepted: {name} together with DB_HOST (PostgreSQL), or neither \
                     (SQLite)"
                )));
            }
            return Ok(Database::Sqlite(draft.sqlite_path.clone()));
        }
    };
    let target = match &draft.database_url_direct {
        Some(url) => target.with_direct(from_url("DATABASE_URL_DIRECT", url)?),
        None => target,
    };
    Ok(Database::Postgres(Box::new(target)))
}

fn read_dotenv(given: &mut HashMap<String, String>) -> Result<(), ConfigError> {
    let lines = match dotenvy::from_path_iter(".env") {
        Ok(lines) => lines,
        Err(error) if error.not_found() => return Ok(()),
        Err(dotenvy::Error::Io(error)) => return Err(ConfigError(format!(".env: cannot be read: {error}"))),
        Err(_) => return Err(ConfigError(".env: cannot be read".to_string())),
    };
    for pair in lines {
        match pair {
            Ok((name, value)) => {
                given.insert(name, value);
            }
            // The library's own message repeats the line, which may hold a secret.
            Err(dotenvy::Error::Io(error)) => return Err(ConfigError(format!(".env: cannot be read: {error}"))),
            Err(_) => {
                let last = given.len();
                return Err(ConfigError(format!(
                    ".env: a line after the first {last} settings is not NAME=value; accepted: one a line, \
                     values with spaces, # or $ in single quotes"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::limiter::Rate;

    fn read(values: &[(&str, &str)]) -> Result<Config, String> {
        let given = values.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Config::from_values(&given).map_err(|error| error.to_string())
    }

    #[test]
    fn without_settings_it_is_the_documented_defaults_on_sqlite() {
        let config = read(&[]).unwrap();
        assert_eq!((config.port, config.bcrypt_cost, config.max_connections), (3000, 10, 10_000));
        assert_eq!(config.jwt_expires_in, Duration::from_secs(3600));
        assert_eq!(config.jwt_refresh_expires_in, Duration::from_secs(7 * 86400));
        assert!(matches!(config.database, Database::Sqlite(path) if path.as_os_str() == "keyward.db"));
    }

    #[test]
    fn a_bad_value_is_one_line_with_name_fault_and_what_is_accepted() {
        for (name, value, expected) in [
            ("PORT", "70000", "PORT: \"70000\" is out of range; accepted: 0 to 65535; 0 takes a free port"),
            ("BCRYPT_COST", "9", "BCRYPT_COST: \"9\" is out of range; accepted: 10 to 15; each step doubles the work"),
            (
                "RUST_LOG",
                "info,access=of",
                "RUST_LOG: \"info,access=of\" has a level that is none of them; accepted: error, warn, info, debug, \
                 trace or off, also by target, such as info,access=off",
            ),
            ("PASSWORD_MIN_LENGTH", "7", "PASSWORD_MIN_LENGTH: \"7\" is out of range; accepted: 8 to 64"),
            (
                "SESSION_IDLE",
                "30",
                "SESSION_IDLE: \"30\" has no unit; accepted: off, or a whole number with a unit (s, m, h, d), such as 30s, \
                 15m, 1h or 7d; at most 3650d",
            ),
            (
                "RATE_LIMIT_LOGIN",
                "60",
                "RATE_LIMIT_LOGIN: \"60\" is not a number and a window; accepted: off, or a number from 1 to 1000000 and a \
                 window of at most 3650d, such as 60/1m or 1000/24h",
            ),
            (
                "TRUSTED_PROXIES",
                "10.0.0.0/8 localhost",
                "TRUSTED_PROXIES: \"10.0.0.0/8 localhost\" is not a list of networks; accepted: networks such as 10.0.0.0/8 \
                 and addresses, separated by commas, or none",
            ),
            (
                "TRUSTED_PROXY_HEADER",
                "Forwarded",
                "TRUSTED_PROXY_HEADER: \"Forwarded\" has a syntax of its own, which is not read; accepted: the name of a \
                 header that holds addresses, such as X-Forwarded-For or X-Real-IP",
            ),
            (
                "CORS_ORIGINS",
                "https://a.example,https://b.example/",
                "CORS_ORIGINS: \"https://a.example,https://b.example/\" has https://b.example/ with a slash at its end, \
                 write https://b.example; accepted: origins, separated by commas, such as https://app.example.com or \
                 http://localhost:5173",
            ),
            ("SIGNUP", "yes", "SIGNUP: \"yes\" is neither; accepted: open or closed"),
            ("JWT_SECRET", "hunter2", "JWT_SECRET: the value has 7 bytes; accepted: 32 bytes or more"),
            (
                "JWT_SECRET_PREVIOUS",
                "hunter2",
                "JWT_SECRET_PREVIOUS: the value has 7 bytes; accepted: 32 bytes or more",
            ),
            ("JWT_ALG", "none", "JWT_ALG: \"none\" is neither; accepted: HS256 or EdDSA"),
            (
                "JWT_PREVIOUS_KEY_FILES",
                "a.pem,,b.pem",
                "JWT_PREVIOUS_KEY_FILES: \"a.pem,,b.pem\" has an empty path; accepted: paths of PEM files, separated by \
                 commas; public keys will do",
            ),
        ] {
            assert_eq!(read(&[(name, value)]).unwrap_err(), expected);
        }
        for value in ["3600", "1w", "-1h", "+1h", "1.5h", "h", "0s", "99999d", "１h", "1 h", "18446744073709551615d"] {
            let error = read(&[("JWT_EXPIRES_IN", value)]).unwrap_err();
            assert!(error.starts_with("JWT_EXPIRES_IN: ") && error.contains("such as 30s, 15m, 1h or 7d"), "{error}");
        }
    }

    #[test]
    fn limits_are_a_number_and_a_window_or_off() {
        let login = |value| read(&[("RATE_LIMIT_LOGIN", value)]).map(|config| config.address_rates.log_in);
        assert_eq!(login("60/1m"), Ok(Some(Rate { limit: 60, window: Duration::from_secs(60) })));
        assert_eq!(login("off"), Ok(None));
        for value in ["60/", "/1m", "0/1m", "1000001/1m", "60/1", "60/0s", "-1/1m", "60/1m/1m", "60 / 1m", "on"] {
            assert!(login(value).is_err(), "{value}");
        }
    }

    #[test]
    fn database_settings_without_a_host_never_fall_back_to_sqlite() {
        for name in ["DB_PORT", "DB_USERNAME", "DB_PASSWORD", "DB_NAME", "DB_SSLMODE", "DB_SSLROOTCERT"] {
            let value = match name {
                "DB_PORT" => "5432",
                "DB_SSLMODE" => "require",
                _ => "x",
            };
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name}: is set, but DB_HOST is not")), "{error}");
        }
    }

    #[test]
    fn tls_has_a_certificate_and_a_key_or_neither() {
        let (cert, key, port) = (("TLS_CERT", "c.pem"), ("TLS_KEY", "k.pem"), ("HTTP_REDIRECT_PORT", "80"));
        assert!(read(&[]).unwrap().tls.is_none() && read(&[cert, key, port]).unwrap().tls.is_some());
        for (values, expected) in [
            (&[cert][..], "TLS_CERT: is set, but TLS_KEY is not; accepted: both (HTTPS), or neither (plain HTTP)"),
            (&[key, port], "TLS_KEY: is set, but TLS_CERT is not; accepted: both (HTTPS), or neither (plain HTTP)"),
            (
                &[port],
                "HTTP_REDIRECT_PORT: is set, but TLS_CERT and TLS_KEY are not; accepted: all three, or none of them",
            ),
            (
                &[cert, key, port, ("PORT", "80")],
                "HTTP_REDIRECT_PORT: 80 is PORT, which speaks HTTPS; accepted: another port",
            ),
        ] {
            assert_eq!(read(values).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_broken_database_url_is_named_without_its_content() {
        let error = read(&[("DATABASE_URL", "postgres://u:hunter2@h:x/db")]).unwrap_err();
        assert!(error.starts_with("DATABASE_URL: ") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_direct_way_is_to_what_a_pooler_leads_to() {
        let [url, direct] = ["DATABASE_URL", "DATABASE_URL_DIRECT"].map(|name| (name, "postgres://u@h/db"));
        assert!(matches!(read(&[url, direct]).unwrap().database, Database::Postgres(_)));
        assert!(matches!(read(&[("DB_HOST", "h"), direct]).unwrap().database, Database::Postgres(_)));
        let error = read(&[direct]).unwrap_err();
        assert!(error.starts_with("DATABASE_URL_DIRECT: is set, but DATABASE_URL is not"), "{error}");
        let error = read(&[url, ("DATABASE_URL_DIRECT", "mysql://u:hunter2@h/db")]).unwrap_err();
        assert!(error.starts_with("DATABASE_URL_DIRECT: ") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_empty_value_is_an_unset_one() {
        assert!(matches!(read(&[("DB_HOST", ""), ("PORT", "")]).unwrap().database, Database::Sqlite(_)));
    }

    #[test]
    fn the_debug_form_holds_no_secret() {
        let secret = "0123456789abcdef0123456789abcdef";
        let config = read(&[
            ("JWT_SECRET", secret),
            ("JWT_REFRESH_SECRET", secret),
            ("JWT_SECRET_PREVIOUS", secret),
            ("JWT_REFRESH_SECRET_PREVIOUS", secret),
            ("DATABASE_URL", "postgres://u:hunter2@localhost/db"),
            ("DATABASE_URL_DIRECT", "postgres://u:hunter2@localhost/db"),
        ])
        .unwrap();
        let shown = format!("{config:?}");
        assert!(!shown.contains(secret) && !shown.contains("hunter2"), "{shown}");
    }
}
