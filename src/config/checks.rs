//! Checks across settings.

use super::settings::{Config, ConfigError};
use super::table::settings;

/// `is_set`: whether the operator has set a setting.
pub(crate) fn check(config: &Config, is_set: impl Fn(&str) -> bool) -> Result<(), ConfigError> {
    check_database(config, &is_set)
        .and_then(|()| check_tls(config))
        .and_then(|()| check_cors(config, is_set))
        .and_then(|()| check_mail(config))
        .map_err(ConfigError)
}

fn check_database(config: &Config, is_set: impl Fn(&str) -> bool) -> Result<(), String> {
    // With a setting of PostgreSQL's the operator does not want SQLite: its new, empty file would look like lost data.
    if config.store.url.is_none() && config.store.host.is_none() {
        if config.store.direct_url.is_some() {
            return Err(
                "DATABASE_URL_DIRECT: is set, but DATABASE_URL is not; accepted: both (a pooler, and PostgreSQL \
                        behind it), DATABASE_URL alone, or neither (SQLite)"
                    .to_string(),
            );
        }
        if let Some(name) = settings().map(|setting| setting.name).find(|name| name.starts_with("DB_") && is_set(name))
        {
            return Err(format!(
                "{name}: is set, but DB_HOST is not; accepted: {name} together with DB_HOST (PostgreSQL), or neither \
                 (SQLite)"
            ));
        }
    }
    config.store.database().map(drop)
}

fn check_tls(config: &Config) -> Result<(), String> {
    let http = &config.http;
    let half = |set: &str, other: &str| {
        Err(format!("{set}: is set, but {other} is not; accepted: both (HTTPS), or neither (plain HTTP)"))
    };
    match (&http.tls_cert, &http.tls_key) {
        (Some(_), None) => half("TLS_CERT", "TLS_KEY"),
        (None, Some(_)) => half("TLS_KEY", "TLS_CERT"),
        (None, None) if http.redirect_port.is_some() => {
            Err("HTTP_REDIRECT_PORT: is set, but TLS_CERT and TLS_KEY are not; accepted: all three, or none of them"
                .to_string())
        }
        (Some(_), Some(_)) if http.redirect_port.is_some_and(|port| port != 0 && port == http.port) => {
            Err(format!("HTTP_REDIRECT_PORT: {} is PORT, which speaks HTTPS; accepted: another port", http.port))
        }
        _ => Ok(()),
    }
}

fn check_cors(config: &Config, is_set: impl Fn(&str) -> bool) -> Result<(), String> {
    let address_header = &config.http.proxies.header;
    if is_set("CORS_HEADERS") && !is_set("CORS_ORIGINS") {
        return Err("CORS_HEADERS: is set, but CORS_ORIGINS is not; accepted: both, or CORS_ORIGINS alone".to_string());
    }
    if config.http.cors.headers.lists(address_header) {
        return Err(format!(
            "CORS_HEADERS: has {address_header}, which is TRUSTED_PROXY_HEADER; accepted: headers that proxies do not \
             report addresses in"
        ));
    }
    Ok(())
}

/// What works, and hardly as it is meant: one line for the operator.
pub(crate) fn warning(config: &Config) -> Option<String> {
    let is_stuck = config.accounts.verified_email_required && !config.mail.is_on();
    is_stuck.then(|| {
        "EMAIL_VERIFICATION: is required, but SMTP_URL is not set: nobody is sent a link that verifies their address, so an \
         operator has to verify each, as with keyward user verify-email"
            .to_string()
    })
}

fn check_mail(config: &Config) -> Result<(), String> {
    let (mail, pages) = (&config.mail, &config.accounts.pages);
    if !mail.is_on() {
        return Ok(());
    }
    if mail.from.is_none() {
        return Err("SMTP_URL: is set, but MAIL_FROM is not; accepted: both, or neither (no mail)".to_string());
    }
    if pages.public.is_none() && (pages.reset.is_none() || pages.verify.is_none()) {
        return Err(
            "SMTP_URL: is set, but PUBLIC_URL is not, so that no link in a mail would lead anywhere; accepted: \
                    both, or SMTP_URL with both RESET_URL and VERIFY_URL"
                .to_string(),
        );
    }
    Ok(())
}
