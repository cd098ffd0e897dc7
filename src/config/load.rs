//! Reading the settings: each by its entry in the table, then the checks across them.

use std::collections::HashMap;

use super::settings::{Config, ConfigError};
use super::table::settings;
use super::{checks, kubernetes, sources};

impl Config {
    /// Reads the environment, files and credentials that hold secrets, and `.env` in the working directory for what the
    /// others leave out.
    pub(crate) fn load() -> Result<Config, ConfigError> {
        let given = sources::read()?;
        Config::read(|name| given.get(name).map(|given| (given.value.as_str(), given.place.as_str())))
    }

    /// Reads settings by name. An empty value counts as unset, as in a compose file that passes variables through.
    pub fn from_values(given: &HashMap<String, String>) -> Result<Config, ConfigError> {
        Config::read(|name| given.get_key_value(name).map(|(name, value)| (value.as_str(), name.as_str())))
    }

    /// `given`: the value of a setting, and what the operator calls the place that it comes from.
    fn read<'a>(given: impl Fn(&str) -> Option<(&'a str, &'a str)>) -> Result<Config, ConfigError> {
        let mut config = Config::unread();
        let given = |name: &str| given(name).filter(|(value, _)| !value.is_empty());
        let injected = kubernetes::injected(|name| given(name).map(|(value, _)| value));
        let given = |name: &str| given(name).filter(|_| injected != Some(name));
        for setting in settings() {
            let Some((value, place)) = given(setting.name).or(setting.default.map(|value| (value, setting.name)))
            else {
                continue;
            };
            (setting.read)(&mut config, value).map_err(|fault| {
                let shown = if setting.secret { "the value".to_string() } else { format!("{value:?}") };
                ConfigError(format!("{place}: {shown} {fault}; accepted: {}", setting.accepts))
            })?;
        }
        config.http.hosts_given = given("HOST").is_some();
        checks::check(&config, |name| given(name).is_some())?;
        config.warnings.extend(injected.map(kubernetes::warning));
        config.warnings.extend(checks::warning(&config));
        for setting in settings() {
            if let (Some((_, place)), Err(why)) = (given(setting.name), (setting.counts)(&config)) {
                config.warnings.push(format!("{place}: is set, but has no effect: {why}"));
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::memory::limiter::Rate;
    use crate::store::settings::Database;

    fn read(values: &[(&str, &str)]) -> Result<Config, String> {
        let given = values.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Config::from_values(&given).map_err(|error| error.to_string())
    }

    #[test]
    fn without_settings_it_is_the_documented_defaults_on_sqlite() {
        let config = read(&[]).unwrap();
        assert_eq!((config.http.port, config.accounts.bcrypt_cost, config.http.max_connections), (3000, 10, 10_000));
        assert_eq!(config.tokens.access_lifetime, Duration::from_secs(3600));
        assert_eq!(config.tokens.refresh_lifetime, Duration::from_secs(7 * 86400));
        assert!(matches!(config.store.database(), Ok(Database::Sqlite(path)) if path.as_os_str() == "keyward.db"));
    }

    #[test]
    fn both_urls_lead_to_the_same_schema() {
        let url = |options: &str| format!("postgres://u:hunter2@localhost/db?options={options}");
        let fault =
            |url: &str, direct: &str| read(&[("DATABASE_URL", url), ("DATABASE_URL_DIRECT", direct)]).unwrap_err();
        let (here, there, nowhere) = (url("-csearch_path%3Da"), url("-c%20search_path=b"), url("-cgeqo%3Doff"));
        for (one, other) in [(&here, &here), (&here, &nowhere), (&nowhere, &there)] {
            read(&[("DATABASE_URL", one), ("DATABASE_URL_DIRECT", other)]).unwrap();
        }
        assert_eq!(fault(&here, &there), "DATABASE_URL_DIRECT: the value has another search_path than DATABASE_URL");
        let fault = fault(&url("-csearch_path%3D%22hunter2"), &here);
        assert_eq!(fault, "DATABASE_URL: the value has a search_path that does not name a schema");
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
            (
                "CORS_HEADERS",
                "traceparent",
                "CORS_HEADERS: is set, but CORS_ORIGINS is not; accepted: both, or CORS_ORIGINS alone",
            ),
            (
                "CORS_HEADERS",
                "*",
                "CORS_HEADERS: \"*\" has *, which is not the name of a header; accepted: any, none, or names of headers, \
                 separated by commas or spaces, together with CORS_ORIGINS",
            ),
            (
                "KEY_PREFIX",
                "sk-live",
                "KEY_PREFIX: \"sk-live\" has another character; accepted: 1 to 24 lower-case letters, digits \
                 and underscores",
            ),
            ("SIGNUP", "yes", "SIGNUP: \"yes\" is neither; accepted: open or closed"),
            ("JWT_SECRET", "hunter2", "JWT_SECRET: the value has 7 bytes; accepted: 32 bytes or more"),
            (
                "JWT_SECRET_PREVIOUS",
                "hunter2",
                "JWT_SECRET_PREVIOUS: the value has 7 bytes; accepted: 32 bytes or more",
            ),
            ("JWT_ALG", "none", "JWT_ALG: \"none\" is none of them; accepted: HS256, EdDSA, ES256 or RS256"),
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
        let login = |value| read(&[("RATE_LIMIT_LOGIN", value)]).map(|config| config.accounts.address_rates.log_in);
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
        assert!(read(&[]).unwrap().http.tls_files().is_none());
        assert!(read(&[cert, key, port]).unwrap().http.tls_files().is_some());
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
        assert!(matches!(read(&[url, direct]).unwrap().store.database(), Ok(Database::Postgres(_))));
        assert!(matches!(read(&[("DB_HOST", "h"), direct]).unwrap().store.database(), Ok(Database::Postgres(_))));
        let error = read(&[direct]).unwrap_err();
        assert!(error.starts_with("DATABASE_URL_DIRECT: is set, but DATABASE_URL is not"), "{error}");
        let error = read(&[url, ("DATABASE_URL_DIRECT", "mysql://u:hunter2@h/db")]).unwrap_err();
        assert!(error.starts_with("DATABASE_URL_DIRECT: ") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_empty_value_is_an_unset_one() {
        assert!(matches!(read(&[("DB_HOST", ""), ("PORT", "")]).unwrap().store.database(), Ok(Database::Sqlite(_))));
    }

    #[test]
    fn the_debug_form_holds_no_secret() {
        let secret = "0123456789abcdef0123456789abcdef";
        let data_key = hex::encode(secret);
        let config = read(&[
            ("JWT_SECRET", secret),
            ("JWT_REFRESH_SECRET", secret),
            ("JWT_SECRET_PREVIOUS", secret),
            ("JWT_REFRESH_SECRET_PREVIOUS", secret),
            ("DATA_KEY", &data_key),
            ("DATA_KEY_PREVIOUS", &data_key),
            ("DATABASE_URL", "postgres://u:hunter2@localhost/db"),
            ("DATABASE_URL_DIRECT", "postgres://u:hunter2@localhost/db"),
        ])
        .unwrap();
        let shown = format!("{config:?}");
        assert!(!shown.contains(secret) && !shown.contains(&data_key) && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_setting_that_has_no_effect_beside_the_others_is_told_in_one_line() {
        let (url, host) = (("DATABASE_URL", "postgres://u@h/db"), ("DB_HOST", "h"));
        let (strict, socket) = (("DATABASE_URL", "postgres://u@h/db?sslmode=require"), ("DB_HOST", "/run/postgresql"));
        let cert = ("DB_SSLROOTCERT", "ca.pem");
        for (values, told) in [
            (&[url, host][..], &["DB_HOST"][..]),
            (&[url, ("DB_PORT", "1"), ("DB_USERNAME", "u"), ("DB_NAME", "db")], &["DB_PORT", "DB_USERNAME", "DB_NAME"]),
            (&[url, ("DB_PASSWORD", "hunter2")], &["DB_PASSWORD"]),
            (&[url, ("KEYWARD_DB", "users.db")], &["KEYWARD_DB"]),
            (&[host, ("KEYWARD_DB", "keyward.db")], &["KEYWARD_DB"]),
            (&[("KEYWARD_DB", "users.db")], &[]),
            (&[host, ("DB_PORT", "1"), ("DB_USERNAME", "u"), ("DB_PASSWORD", "hunter2"), ("DB_NAME", "db")], &[]),
            (&[url, ("DB_SSLMODE", "require")], &[]),
            (&[strict, ("DB_SSLMODE", "disable")], &["DB_SSLMODE"]),
            (&[strict, ("DATABASE_URL_DIRECT", "postgres://u@h/db"), ("DB_SSLMODE", "disable")], &[]),
            (&[socket, ("DB_SSLMODE", "require")], &["DB_SSLMODE"]),
            (&[url, cert], &["DB_SSLROOTCERT"]),
            (&[host, cert, ("DB_SSLMODE", "disable")], &["DB_SSLROOTCERT"]),
            (&[host, cert, ("DB_SSLMODE", "require")], &[]),
            (&[socket, cert, ("DB_SSLMODE", "verify-full")], &["DB_SSLMODE", "DB_SSLROOTCERT"]),
            (&[strict, cert], &[]),
            (&[("DATABASE_URL", "postgres://u@h/db?sslmode=require&sslrootcert=a.pem"), cert], &["DB_SSLROOTCERT"]),
            (&[("TRUSTED_PROXIES", "none"), ("TRUSTED_PROXY_HEADER", "X-Real-IP")], &["TRUSTED_PROXY_HEADER"]),
            // What signs no token still verifies those that it signed.
            (&[("JWT_ALG", "EdDSA"), ("JWT_SECRET", "a secret of thirty-two bytes or so")], &[]),
            (&[("JWT_PRIVATE_KEY_FILE", "jwt.pem")], &[]),
            (&[("DB_PORT", "")], &[]),
        ] {
            let warnings = read(values).unwrap().warnings;
            let names: Vec<&str> =
                warnings.iter().map(|line| line.split(": is set, but has no effect: ").next().unwrap()).collect();
            assert_eq!(names, told, "{values:?}");
            assert!(!format!("{warnings:?}").contains("hunter2"));
        }
    }

    #[test]
    fn that_nobody_can_verify_an_address_without_mail_is_told() {
        let required = ("EMAIL_VERIFICATION", "required");
        let warnings = read(&[required]).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains("but SMTP_URL is not set"), "{warnings:?}");
        let mail =
            [("SMTP_URL", "smtp://mail"), ("MAIL_FROM", "a@example.com"), ("PUBLIC_URL", "https://a.example.com")];
        let all: Vec<_> = mail.into_iter().chain([required]).collect();
        assert_eq!(read(&all).unwrap().warnings, [""; 0]);
        assert_eq!(read(&[]).unwrap().warnings, [""; 0]);
    }

    #[test]
    fn a_port_that_kubernetes_sets_is_passed_over_unless_it_is_needed() {
        let (url, host) = (("DATABASE_URL", "postgres://u@h/db"), ("DB_HOST", "h"));
        for port in ["tcp://10.0.0.1:5432", "tcp://[fd00::1]:5432", "udp://10.0.0.1:53"] {
            let port = ("DB_PORT", port);
            for values in [&[port][..], &[port, url], &[port, ("DB_HOST", "")]] {
                let warnings = read(values).unwrap().warnings;
                assert!(warnings.len() == 1 && warnings[0].starts_with("DB_PORT: is passed over: "), "{warnings:?}");
            }
            assert_eq!(read(&[port, url, host]).unwrap().warnings.len(), 2);
            let error = read(&[port, host]).unwrap_err();
            assert!(error.starts_with(&format!("DB_PORT: {:?} is not a whole number", port.1)), "{error}");
            let error = read(&[port, ("DB_NAME", "db")]).unwrap_err();
            assert!(error.starts_with("DB_NAME: is set, but DB_HOST is not"), "{error}");
        }
        for values in [&[("DB_PORT", "http://10.0.0.1")][..], &[("DB_PORT", "http"), url], &[("DB_PORT", "5432")]] {
            assert!(read(values).is_err(), "{values:?}");
        }
    }
}
