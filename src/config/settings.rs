//! The table of settings: the name, default, meaning and reader of each. `--help`, `.env.example` and the README's table
//! are made from it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use crate::accounts::limits::AddressRates;
use crate::accounts::rotation::RotationRules;
use crate::base::duration;
use crate::base::logging::LogFormat;
use crate::base::network::Network;
use crate::base::secret::Secret;
use crate::http::client_address::Proxies;
use crate::http::cors::Cors;
use crate::keys::key::KeyRules;
use crate::memory::limiter::Rate;
use crate::store::postgres::TlsMode;
use crate::tokens::claims::Parties;
use crate::tokens::jws::Algorithm;

/// One setting. The table below is the only place that knows it.
pub struct Setting {
    pub name: &'static str,
    pub default: Option<&'static str>,
    /// What is accepted, for the error and the documents.
    pub accepts: &'static str,
    pub meaning: &'static str,
    /// The value is never repeated in an error.
    pub(super) secret: bool,
    /// Reads a value; the error says what is wrong with it ("is not a port").
    pub(super) read: fn(&mut Draft, &str) -> Result<(), String>,
}

pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "HOST",
        default: Some("127.0.0.1,::1"),
        accepts: "IP addresses, separated by commas; 0.0.0.0 is every IPv4 address, :: every address, or beside IPv4 addresses every IPv6 one",
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
        name: "DATABASE_URL_DIRECT",
        default: None,
        accepts: "as DATABASE_URL",
        meaning: "The same database without the pooler (PgBouncer) that DATABASE_URL leads to: for migrations and notifications",
        secret: true,
        read: |draft, value| keep(&mut draft.database_url_direct, value),
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
        name: "REFRESH_REUSE_GRACE",
        default: Some("10s"),
        accepts: "a whole number with a unit (s, m), such as 10s; at most 1m",
        meaning: "How long after its use a refresh token still gets the current pair: other tabs, a lost answer",
        secret: false,
        read: |draft, value| match lifetime(value)? {
            span if span > LONGEST_GRACE => Err("is out of range".to_string()),
            span => {
                draft.rotation.grace = span;
                Ok(())
            }
        },
    },
    Setting {
        name: "REFRESH_RETRY",
        default: Some("1h"),
        accepts: LIFETIMES_OR_OFF,
        meaning: "How long after its use a refresh token goes on in place of the pair that it gave, if that was never used",
        secret: false,
        read: |draft, value| lifetime_or_off(value).map(|span| draft.rotation.retry = span),
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
        name: "RATE_LIMIT_WRITES",
        default: Some("120/1m"),
        accepts: RATES_OR_OFF,
        meaning: "Changes that one user makes, and as many logins, from wherever; to end something is never refused",
        secret: false,
        read: |draft, value| rate_or_off(value).map(|rate| draft.write_rate = rate),
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
        meaning: "Connections served at once; at that many, a new one takes the place of the longest idle one, or waits",
        secret: false,
        read: |draft, value| {
            whole_number(value, 1..=1_000_000).map(|connections| draft.max_connections = connections as usize)
        },
    },
    Setting {
        name: "MAX_CONNECTIONS_PER_ADDRESS",
        default: None,
        accepts: "1 to 1000000; without it, a quarter of MAX_CONNECTIONS",
        meaning: "Connections that one address (with IPv6, one /64) may have at once; TRUSTED_PROXIES may have any number",
        secret: false,
        read: |draft, value| {
            let number = whole_number(value, 1..=1_000_000)?;
            draft.max_connections_per_address = Some(number as usize);
            Ok(())
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
        name: "MAX_SESSIONS_PER_USER",
        default: Some("100"),
        accepts: "1 to 1000",
        meaning: "Sessions that one user may have; a login beyond them ends those first that were never refreshed",
        secret: false,
        read: |draft, value| {
            whole_number(value, 1..=1000).map(|sessions| draft.max_sessions_per_user = sessions as u32)
        },
    },
    Setting {
        name: "MAX_KEYS_PER_USER",
        default: Some("100"),
        accepts: "1 to 1000000",
        meaning: "Keys that one user may have, not counting those that are revoked or have expired",
        secret: false,
        read: |draft, value| whole_number(value, 1..=1_000_000).map(|keys| draft.key_rules.most = keys as u32),
    },
    Setting {
        name: "KEY_RETENTION",
        default: Some("90d"),
        accepts: LIFETIMES,
        meaning: "How long keys are kept that were revoked or have expired; of a user, 10 times MAX_KEYS_PER_USER at most",
        secret: false,
        read: |draft, value| lifetime(value).map(|span| draft.key_rules.retention = span),
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
const LONGEST_GRACE: Duration = Duration::from_secs(60);

/// What has been read so far.
pub(super) struct Draft {
    pub(super) hosts: Vec<IpAddr>,
    pub(super) port: u16,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) redirect_port: Option<u16>,
    pub(super) sqlite_path: PathBuf,
    pub(super) database_url: Option<String>,
    pub(super) database_url_direct: Option<String>,
    pub(super) db_host: Option<String>,
    pub(super) db_port: u16,
    pub(super) db_username: Option<String>,
    pub(super) db_password: Option<String>,
    pub(super) db_name: Option<String>,
    pub(super) db_sslmode: TlsMode,
    pub(super) db_sslrootcert: Option<PathBuf>,
    pub(super) jwt_secret: Option<Secret>,
    pub(super) jwt_refresh_secret: Option<Secret>,
    pub(super) jwt_secret_previous: Option<Secret>,
    pub(super) jwt_refresh_secret_previous: Option<Secret>,
    pub(super) jwt_alg: Algorithm,
    pub(super) jwt_private_key_file: Option<PathBuf>,
    pub(super) jwt_previous_key_files: Vec<PathBuf>,
    pub(super) jwt_parties: Parties,
    pub(super) jwt_expires_in: Duration,
    pub(super) jwt_refresh_expires_in: Duration,
    pub(super) session_max_age: Option<Duration>,
    pub(super) session_idle: Option<Duration>,
    pub(super) rotation: RotationRules,
    pub(super) password_min_length: usize,
    pub(super) bcrypt_cost: u32,
    pub(super) signup_open: bool,
    pub(super) address_rates: AddressRates,
    pub(super) write_rate: Option<Rate>,
    pub(super) proxies: Proxies,
    pub(super) cors: Cors,
    pub(super) max_connections: usize,
    pub(super) max_connections_per_address: Option<usize>,
    pub(super) cache_entries: usize,
    pub(super) max_sessions_per_user: u32,
    pub(super) key_rules: KeyRules,
    pub(super) usage_retention: Duration,
    pub(super) audit_retention: Duration,
    pub(super) log_filter: Option<String>,
    pub(super) log_format: LogFormat,
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
