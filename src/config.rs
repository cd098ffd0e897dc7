//! Every setting once: its name, default, meaning and reader. `--help`, `.env.example` and the README's table are
//! made from [`SETTINGS`].
//!
//! Settings are read once, at the start; nothing reads the environment afterwards.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use crate::address::{Network, Proxies};
use crate::duration;
use crate::http::cors::Cors;
use crate::jws::Algorithm;
use crate::limit::{AddressRates, Rate};
use crate::logging::LogFormat;
use crate::store::postgres::{PostgresTarget, TlsMode};
use crate::token::Parties;

/// A text that is never shown: not by `Debug`, not in an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

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
    /// In characters.
    pub password_min_length: usize,
    pub bcrypt_cost: u32,
    pub signup_open: bool,
    pub address_rates: AddressRates,
    pub proxies: Proxies,
    pub cors: Cors,
    pub max_connections: usize,
    pub cache_entries: usize,
    /// Of one user, usable at once.
    pub max_keys_per_user: u32,
    pub usage_retention: Duration,
    pub audit_retention: Duration,
    pub log_filter: String,
    pub log_format: LogFormat,
    /// Not a setting of the operator's: tests shorten these.
    pub limits: Limits,
}

/// How much and how long a client may take. Tests shorten the times.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// Request line and headers, in bytes.
    pub head_bytes: usize,
    /// From the first byte of a head (for the first one: from accept) to its last.
    pub head: Duration,
    /// From the head to the last byte of the body.
    pub body: Duration,
    /// A kept connection without a request.
    pub idle: Duration,
    /// An answer of which the client takes nothing.
    pub unread_answer: Duration,
    /// From queueing to the handler's answer.
    pub handler: Duration,
    /// What is under way when the server stops.
    pub stopping: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            handshake: Duration::from_secs(5),
            head_bytes: 16 * 1024,
            head: Duration::from_secs(5),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            unread_answer: Duration::from_secs(30),
            // With room for the answer to be there within 5 s.
            handler: Duration::from_millis(4900),
            stopping: Duration::from_secs(10),
        }
    }
}

/// Where the certificate is, and its key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// How often it is looked whether they have changed. Not a setting of the operator's: tests shorten it.
    pub look_every: Duration,
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

/// One setting. The table below is the only place that knows it.
pub struct Setting {
    pub name: &'static str,
    pub default: Option<&'static str>,
    /// What is accepted, for the error and the documents.
    pub accepts: &'static str,
    pub meaning: &'static str,
    /// The value is never repeated in an error.
    secret: bool,
    /// Reads a value; the error says what is wrong with it ("is not a port").
    read: fn(&mut Draft, &str) -> Result<(), String>,
}

pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "HOST",
        default: Some("127.0.0.1,::1"),
        accepts: "IP addresses, separated by commas; 0.0.0.0 is every IPv4 address, :: every address",
        meaning: "Addresses to listen on",
        secret: false,
        read: |draft, value| {
            draft.hosts = value
                .split(',')
                .map(|host| host.trim().parse().map_err(|_| "is not a list of IP addresses".to_string()))
                .collect::<Result<_, _>>()?;
            Ok(())
        },
    },
    Setting {
        name: "PORT",
        default: Some("3000"),
        accepts: "0 to 65535; 0 takes a free port",
        meaning: "Port to listen on",
        secret: false,
        read: |draft, value| whole_number(value, 0..=65535).map(|port| draft.port = port as u16),
    },
    Setting {
        name: "TLS_CERT",
        default: None,
        accepts: "the path of a PEM file, together with TLS_KEY",
        meaning: "Certificate of the server and its chain: PORT speaks HTTPS (HTTP/1.1 and HTTP/2)",
        secret: false,
        read: |draft, value| {
            draft.tls_cert = Some(PathBuf::from(value));
            Ok(())
        },
    },
    Setting {
        name: "TLS_KEY",
        default: None,
        accepts: "the path of a PEM file (PKCS#8, SEC1 or PKCS#1, without a passphrase), together with TLS_CERT",
        meaning: "The certificate's private key; renewed files are taken up within seconds, and on SIGHUP",
        secret: false,
        read: |draft, value| {
            draft.tls_key = Some(PathBuf::from(value));
            Ok(())
        },
    },
    Setting {
        name: "HTTP_REDIRECT_PORT",
        default: None,
        accepts: "0 to 65535, other than PORT, with TLS_CERT and TLS_KEY; 0 takes a free port",
        meaning: "Port that sends plain HTTP to HTTPS on PORT",
        secret: false,
        read: |draft, value| whole_number(value, 0..=65535).map(|port| draft.redirect_port = Some(port as u16)),
    },
    Setting {
        name: "KEYWARD_DB",
        default: Some("keyward.db"),
        accepts: "a path",
        meaning: "SQLite file, used when neither DATABASE_URL nor DB_HOST is set",
        secret: false,
        read: |draft, value| {
            if value.starts_with(':') || value.starts_with("file:") {
                return Err("is not the path of a file".to_string());
            }
            draft.sqlite_path = PathBuf::from(value);
            Ok(())
        },
    },
    Setting {
        name: "DATABASE_URL",
        default: None,
        accepts: "postgres://user:password@host:port/name, also with ?sslmode= and &sslrootcert=",
        meaning: "PostgreSQL, in one line; wins over DB_*",
        secret: true,
        read: |draft, value| keep(&mut draft.database_url, value),
    },
    Setting {
        name: "DB_HOST",
        default: None,
        accepts: "a host name, an IP address or the directory of a Unix socket",
        meaning: "PostgreSQL's host; when unset, SQLite is used",
        secret: false,
        read: |draft, value| keep(&mut draft.db_host, value),
    },
    Setting {
        name: "DB_PORT",
        default: Some("5432"),
        accepts: "1 to 65535",
        meaning: "PostgreSQL's port",
        secret: false,
        read: |draft, value| whole_number(value, 1..=65535).map(|port| draft.db_port = port as u16),
    },
    Setting {
        name: "DB_USERNAME",
        default: None,
        accepts: "a role's name",
        meaning: "PostgreSQL's user",
        secret: false,
        read: |draft, value| keep(&mut draft.db_username, value),
    },
    Setting {
        name: "DB_PASSWORD",
        default: None,
        accepts: "a text",
        meaning: "The user's password",
        secret: true,
        read: |draft, value| keep(&mut draft.db_password, value),
    },
    Setting {
        name: "DB_NAME",
        default: None,
        accepts: "a database's name",
        meaning: "PostgreSQL's database",
        secret: false,
        read: |draft, value| keep(&mut draft.db_name, value),
    },
    Setting {
        name: "DB_SSLMODE",
        default: Some("prefer"),
        accepts: TlsMode::NAMES,
        meaning: "TLS to PostgreSQL, as libpq has it: only verify-full knows whom it talks to",
        secret: false,
        read: |draft, value| {
            draft.db_sslmode = TlsMode::parse(value).ok_or("is not one of them")?;
            Ok(())
        },
    },
    Setting {
        name: "DB_SSLROOTCERT",
        default: None,
        accepts: "the path of a PEM file",
        meaning: "Certificate authorities that verify-full trusts (with require: that the chain must lead to)",
        secret: false,
        read: |draft, value| {
            draft.db_sslrootcert = Some(PathBuf::from(value));
            Ok(())
        },
    },
    Setting {
        name: "JWT_SECRET",
        default: None,
        accepts: "32 bytes or more",
        meaning: "Signs access tokens (HS256); generated with SQLite, required with PostgreSQL",
        secret: true,
        read: |draft, value| signing_secret(&mut draft.jwt_secret, value),
    },
    Setting {
        name: "JWT_EXPIRES_IN",
        default: Some("1h"),
        accepts: LIFETIMES,
        meaning: "Lifetime of an access token",
        secret: false,
        read: |draft, value| lifetime(value).map(|span| draft.jwt_expires_in = span),
    },
    Setting {
        name: "JWT_REFRESH_SECRET",
        default: None,
        accepts: "32 bytes or more",
        meaning: "Signs refresh tokens; generated with SQLite, required with PostgreSQL",
        secret: true,
        read: |draft, value| signing_secret(&mut draft.jwt_refresh_secret, value),
    },
    Setting {
        name: "JWT_REFRESH_EXPIRES_IN",
        default: Some("7d"),
        accepts: LIFETIMES,
        meaning: "Lifetime of a refresh token; each refresh starts it anew",
        secret: false,
        read: |draft, value| lifetime(value).map(|span| draft.jwt_refresh_expires_in = span),
    },
    Setting {
        name: "JWT_SECRET_PREVIOUS",
        default: None,
        accepts: "32 bytes or more",
        meaning: "The JWT_SECRET before this one: access tokens that it signed stay good",
        secret: true,
        read: |draft, value| signing_secret(&mut draft.jwt_secret_previous, value),
    },
    Setting {
        name: "JWT_REFRESH_SECRET_PREVIOUS",
        default: None,
        accepts: "32 bytes or more",
        meaning: "The JWT_REFRESH_SECRET before this one: refresh tokens that it signed stay good",
        secret: true,
        read: |draft, value| signing_secret(&mut draft.jwt_refresh_secret_previous, value),
    },
    Setting {
        name: "JWT_ALG",
        default: Some("HS256"),
        accepts: "HS256 or EdDSA",
        meaning: "How access tokens are signed: with JWT_SECRET, or with an Ed25519 key that other services verify by",
        secret: false,
        read: |draft, value| {
            draft.jwt_alg = Algorithm::parse(value).ok_or("is neither")?;
            Ok(())
        },
    },
    Setting {
        name: "JWT_PRIVATE_KEY_FILE",
        default: None,
        accepts: "the path of a PEM file, made by `openssl genpkey -algorithm ed25519`",
        meaning: "Signs access tokens (EdDSA); generated with SQLite, required with PostgreSQL",
        secret: false,
        read: |draft, value| {
            draft.jwt_private_key_file = Some(PathBuf::from(value));
            Ok(())
        },
    },
    Setting {
        name: "JWT_PREVIOUS_KEY_FILES",
        default: None,
        accepts: "paths of PEM files, separated by commas; public keys will do",
        meaning: "Ed25519 keys that are published and accepted, but sign nothing",
        secret: false,
        read: |draft, value| {
            draft.jwt_previous_key_files = value
                .split(',')
                .map(|path| if path.trim().is_empty() { Err("has an empty path") } else { Ok(path.trim().into()) })
                .collect::<Result<_, _>>()?;
            Ok(())
        },
    },
    Setting {
        name: "JWT_ISSUER",
        default: None,
        accepts: "a text, such as https://auth.example.com",
        meaning: "Put into tokens as `iss`, and asked of them: setting or changing it logs everyone out",
        secret: false,
        read: |draft, value| keep(&mut draft.jwt_parties.issuer, value),
    },
    Setting {
        name: "JWT_AUDIENCE",
        default: None,
        accepts: "a text, such as https://api.example.com",
        meaning: "Put into tokens as `aud`, and asked of them: setting or changing it logs everyone out",
        secret: false,
        read: |draft, value| keep(&mut draft.jwt_parties.audience, value),
    },
    Setting {
        name: "SESSION_MAX_AGE",
        default: Some("off"),
        accepts: LIFETIMES_OR_OFF,
        meaning: "How long after its login a session ends, however often it is refreshed",
        secret: false,
        read: |draft, value| lifetime_or_off(value).map(|span| draft.session_max_age = span),
    },
    Setting {
        name: "SESSION_IDLE",
        default: Some("off"),
        accepts: LIFETIMES_OR_OFF,
        meaning: "How long after its login or last refresh a session ends; access tokens live for half of it at most",
        secret: false,
        read: |draft, value| lifetime_or_off(value).map(|span| draft.session_idle = span),
    },
    Setting {
        name: "PASSWORD_MIN_LENGTH",
        default: Some("8"),
        accepts: "8 to 64",
        meaning: "The fewest characters of a new password",
        secret: false,
        read: |draft, value| whole_number(value, 8..=64).map(|length| draft.password_min_length = length as usize),
    },
    Setting {
        name: "BCRYPT_COST",
        default: Some("10"),
        accepts: "10 to 15; each step doubles the work",
        meaning: "Work factor of new password hashes; those of a lower one are replaced at the next login",
        secret: false,
        read: |draft, value| whole_number(value, 10..=15).map(|cost| draft.bcrypt_cost = cost as u32),
    },
    Setting {
        name: "SIGNUP",
        default: Some("open"),
        accepts: "open or closed",
        meaning: "Whether anyone may sign up; when closed, `keyward user create` makes users",
        secret: false,
        read: |draft, value| {
            draft.signup_open = match value {
                "open" => true,
                "closed" => false,
                _ => return Err("is neither".to_string()),
            };
            Ok(())
        },
    },
    Setting {
        name: "RATE_LIMIT_SIGNUP",
        default: Some("300/1h"),
        accepts: RATES_OR_OFF,
        meaning: "Sign-ups from an address",
        secret: false,
        read: |draft, value| rate_or_off(value).map(|rate| draft.address_rates.sign_up = rate),
    },
    Setting {
        name: "RATE_LIMIT_LOGIN",
        default: Some("300/1m"),
        accepts: RATES_OR_OFF,
        meaning: "Logins from an address, good or bad",
        secret: false,
        read: |draft, value| rate_or_off(value).map(|rate| draft.address_rates.log_in = rate),
    },
    Setting {
        name: "RATE_LIMIT_REFRESH",
        default: Some("600/1m"),
        accepts: RATES_OR_OFF,
        meaning: "Refreshes from an address",
        secret: false,
        read: |draft, value| rate_or_off(value).map(|rate| draft.address_rates.refresh = rate),
    },
    Setting {
        name: "RATE_LIMIT_FAILED_KEYS",
        default: Some("600/1m"),
        accepts: RATES_OR_OFF,
        meaning: "Presentations of API keys that are no good, from an address; good ones are not counted",
        secret: false,
        read: |draft, value| rate_or_off(value).map(|rate| draft.address_rates.failed_keys = rate),
    },
    Setting {
        name: "TRUSTED_PROXIES",
        default: Some("127.0.0.0/8,::1/128"),
        accepts: "networks such as 10.0.0.0/8 and addresses, separated by commas, or none",
        meaning: "Proxies that are believed about the address of a client",
        secret: false,
        read: |draft, value| {
            let networks = value.split(',').filter(|_| value != "none");
            draft.proxies.trusted = networks
                .map(|network| Network::parse(network.trim()).ok_or("is not a list of networks".to_string()))
                .collect::<Result<_, _>>()?;
            Ok(())
        },
    },
    Setting {
        name: "TRUSTED_PROXY_HEADER",
        default: Some("X-Forwarded-For"),
        accepts: "the name of a header that holds addresses, such as X-Forwarded-For or X-Real-IP",
        meaning: "The one header in which those proxies say it; read from its end",
        secret: false,
        read: |draft, value| {
            draft.proxies.header = HeaderName::try_from(value).map_err(|_| "is not the name of a header")?;
            // RFC 7239: it would be taken for a list of what is no address.
            if draft.proxies.header == http::header::FORWARDED {
                return Err("has a syntax of its own, which is not read".to_string());
            }
            Ok(())
        },
    },
    Setting {
        name: "CORS_ORIGINS",
        default: None,
        accepts: "origins, separated by commas, such as https://app.example.com or http://localhost:5173",
        meaning: "Origins whose web pages may call Keyward from a browser and read its answers",
        secret: false,
        read: |draft, value| Cors::parse(value).map(|cors| draft.cors = cors),
    },
    Setting {
        name: "MAX_CONNECTIONS",
        default: Some("10000"),
        accepts: "1 to 1000000",
        meaning: "Connections served at once; further ones wait to be accepted",
        secret: false,
        read: |draft, value| {
            whole_number(value, 1..=1_000_000).map(|connections| draft.max_connections = connections as usize)
        },
    },
    Setting {
        name: "CACHE_ENTRIES",
        default: Some("100000"),
        accepts: "1 to 10000000",
        meaning: "Keys, and as many sessions and as many verified access tokens, that are remembered",
        secret: false,
        read: |draft, value| whole_number(value, 1..=10_000_000).map(|entries| draft.cache_entries = entries as usize),
    },
    Setting {
        name: "MAX_KEYS_PER_USER",
        default: Some("100"),
        accepts: "1 to 1000000",
        meaning: "Keys that one user may have, not counting those that are revoked or have expired",
        secret: false,
        read: |draft, value| whole_number(value, 1..=1_000_000).map(|keys| draft.max_keys_per_user = keys as u32),
    },
    Setting {
        name: "USAGE_RETENTION",
        default: Some("90d"),
        accepts: LIFETIMES,
        meaning: "How long the hourly counts of keys are kept",
        secret: false,
        read: |draft, value| lifetime(value).map(|span| draft.usage_retention = span),
    },
    Setting {
        name: "AUDIT_RETENTION",
        default: Some("365d"),
        accepts: LIFETIMES,
        meaning: "How long events are kept",
        secret: false,
        read: |draft, value| lifetime(value).map(|span| draft.audit_retention = span),
    },
    Setting {
        name: "RUST_LOG",
        default: Some("info"),
        accepts: "error, warn, info, debug, trace or off, also by target, such as info,access=off",
        meaning: "What is logged; the target access is one line a request",
        secret: false,
        read: |draft, value| {
            // The library would take a misspelt level for a target, and log nothing else.
            let is_level = |text: &str| text.parse::<log::LevelFilter>().is_ok();
            let directives = value.split(',').map(|directive| directive.rsplit('=').next().unwrap_or(directive));
            if !directives.map(str::trim).all(is_level) {
                return Err("has a level that is none of them".to_string());
            }
            keep(&mut draft.log_filter, value)
        },
    },
    Setting {
        name: "LOG_FORMAT",
        default: Some("text"),
        accepts: "text or json",
        meaning: "How it is logged, to standard error",
        secret: false,
        read: |draft, value| {
            draft.log_format = LogFormat::parse(value).ok_or("is neither")?;
            Ok(())
        },
    },
];

const LIFETIMES: &str = "a whole number with a unit (s, m, h, d), such as 30s, 15m, 1h or 7d; at most 3650d";
const LIFETIMES_OR_OFF: &str =
    "off, or a whole number with a unit (s, m, h, d), such as 30s, 15m, 1h or 7d; at most 3650d";
const RATES_OR_OFF: &str =
    "off, or a number from 1 to 1000000 and a window of at most 3650d, such as 60/1m or 1000/24h";
const SHORTEST_SECRET: usize = 32;

/// What has been read so far.
struct Draft {
    hosts: Vec<IpAddr>,
    port: u16,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    redirect_port: Option<u16>,
    sqlite_path: PathBuf,
    database_url: Option<String>,
    db_host: Option<String>,
    db_port: u16,
    db_username: Option<String>,
    db_password: Option<String>,
    db_name: Option<String>,
    db_sslmode: TlsMode,
    db_sslrootcert: Option<PathBuf>,
    jwt_secret: Option<Secret>,
    jwt_refresh_secret: Option<Secret>,
    jwt_secret_previous: Option<Secret>,
    jwt_refresh_secret_previous: Option<Secret>,
    jwt_alg: Algorithm,
    jwt_private_key_file: Option<PathBuf>,
    jwt_previous_key_files: Vec<PathBuf>,
    jwt_parties: Parties,
    jwt_expires_in: Duration,
    jwt_refresh_expires_in: Duration,
    session_max_age: Option<Duration>,
    session_idle: Option<Duration>,
    password_min_length: usize,
    bcrypt_cost: u32,
    signup_open: bool,
    address_rates: AddressRates,
    proxies: Proxies,
    cors: Cors,
    max_connections: usize,
    cache_entries: usize,
    max_keys_per_user: u32,
    usage_retention: Duration,
    audit_retention: Duration,
    log_filter: Option<String>,
    log_format: LogFormat,
}

fn keep(field: &mut Option<String>, value: &str) -> Result<(), String> {
    *field = Some(value.to_string());
    Ok(())
}

fn whole_number(value: &str, accepted: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let number = value.parse().map_err(|_| "is not a whole number".to_string())?;
    if accepted.contains(&number) { Ok(number) } else { Err("is out of range".to_string()) }
}

fn signing_secret(field: &mut Option<Secret>, value: &str) -> Result<(), String> {
    if value.len() < SHORTEST_SECRET {
        return Err(format!("has {} bytes", value.len()));
    }
    *field = Some(Secret::new(value.to_string()));
    Ok(())
}

/// A span that is longer than none.
fn lifetime(value: &str) -> Result<Duration, String> {
    match duration::parse(value)? {
        Duration::ZERO => Err("is out of range".to_string()),
        span => Ok(span),
    }
}

fn lifetime_or_off(value: &str) -> Result<Option<Duration>, String> {
    if value == "off" { Ok(None) } else { lifetime(value).map(Some) }
}

/// Reads `60/1m`.
fn rate_or_off(value: &str) -> Result<Option<Rate>, String> {
    if value == "off" {
        return Ok(None);
    }
    let (limit, window) = value.split_once('/').ok_or("is not a number and a window")?;
    let limit = whole_number(limit, 1..=1_000_000)? as u32;
    Ok(Some(Rate { limit, window: lifetime(window)? }))
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
            password_min_length: 0,
            bcrypt_cost: 0,
            signup_open: false,
            address_rates: AddressRates::default(),
            proxies: Proxies { trusted: Vec::new(), header: HeaderName::from_static("x-forwarded-for") },
            cors: Cors::default(),
            max_connections: 0,
            cache_entries: 0,
            max_keys_per_user: 0,
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
            password_min_length: draft.password_min_length,
            bcrypt_cost: draft.bcrypt_cost,
            signup_open: draft.signup_open,
            address_rates: draft.address_rates,
            proxies: draft.proxies,
            cors: draft.cors,
            max_connections: draft.max_connections,
            cache_entries: draft.cache_entries,
            max_keys_per_user: draft.max_keys_per_user,
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
    if let Some(url) = &draft.database_url {
        return PostgresTarget::from_url(url, draft.db_sslmode, draft.db_sslrootcert.clone())
            .map(|target| Database::Postgres(Box::new(target)))
            .map_err(|fault| ConfigError(format!("DATABASE_URL: the value {fault}")));
    }
    if let Some(host) = &draft.db_host {
        return PostgresTarget::from_parts(
            host,
            draft.db_port,
            draft.db_username.as_deref(),
            draft.db_password.as_deref(),
            draft.db_name.as_deref(),
            draft.db_sslmode,
            draft.db_sslrootcert.clone(),
        )
        .map(|target| Database::Postgres(Box::new(target)))
        .map_err(|fault| ConfigError(format!("DB_HOST: the connection {fault}")));
    }
    // Somebody meant PostgreSQL: a fresh, empty SQLite file would look like lost data.
    if let Some(setting) = SETTINGS.iter().find(|s| s.name.starts_with("DB_") && given(s.name).is_some()) {
        let name = setting.name;
        return Err(ConfigError(format!(
            "{name}: is set, but DB_HOST is not; accepted: {name} together with DB_HOST (PostgreSQL), or neither (SQLite)"
        )));
    }
    Ok(Database::Sqlite(draft.sqlite_path.clone()))
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

/// The settings for `--help`: name and meaning, then default and what is accepted.
pub fn help() -> String {
    let mut text = String::new();
    for setting in SETTINGS {
        let default = setting.default.map(|value| format!(" [{value}]")).unwrap_or_default();
        text.push_str(&format!(
            "  {}{default}\n      {}.\n      Accepted: {}.\n",
            setting.name, setting.meaning, setting.accepts
        ));
    }
    text
}

/// The content of `.env.example`.
pub fn env_example() -> String {
    let mut text = String::from(
        "# Settings of Keyward: copy to .env, uncomment what you change. The environment wins over this file.\n\
         # Put a value with spaces, # or $ in single quotes.\n",
    );
    for setting in SETTINGS {
        text.push_str(&format!(
            "\n# {}.\n# Accepted: {}.\n#{}={}\n",
            setting.meaning,
            setting.accepts,
            setting.name,
            setting.default.unwrap_or_default()
        ));
    }
    text
}

/// The rows of the README's table of settings.
pub fn markdown_rows() -> String {
    let mut text = String::new();
    for setting in SETTINGS {
        let default = setting.default.map_or("none".to_string(), |value| format!("`{value}`"));
        text.push_str(&format!("| `{}` | {default} | {} | {} |\n", setting.name, setting.meaning, setting.accepts));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ])
        .unwrap();
        let shown = format!("{config:?}");
        assert!(!shown.contains(secret) && !shown.contains("hunter2"), "{shown}");
    }
}
