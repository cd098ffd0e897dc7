//! Sign-up, passwords, sessions, and how often an address or a user may do something.

use std::time::Duration;

use super::read::{LIFETIMES, LIFETIMES_OR_OFF, RATES_OR_OFF, lifetime, lifetime_or_off, rate_or_off, whole_number};
use crate::accounts::links::{PublicUrl, TokenUrl};
use crate::config::setting::{ALWAYS, Setting};
use crate::keys::grants::{Grants, is_reserved};

const LONGEST_GRACE: Duration = Duration::from_secs(60);

pub(super) static SETTINGS: &[Setting] = &[
    Setting {
        name: "SIGNUP",
        default: Some("open"),
        accepts: "open or closed",
        meaning: "Whether anyone may sign up; when closed, `keyward user create` makes users",
        secret: false,
        counts: ALWAYS,
        read: |config, value| {
            config.accounts.signup_open = match value {
                "open" => true,
                "closed" => false,
                _ => return Err("is neither".to_string()),
            };
            Ok(())
        },
    },
    Setting {
        name: "USER_SCOPES",
        default: None,
        accepts: "scopes separated by spaces, such as reports:read orders:*; none that begins with keyward: or keys:",
        meaning: "What new users may do and may hand to their keys; `keyward user grant` gives one user more",
        secret: false,
        counts: ALWAYS,
        read: |config, value| {
            let tokens: Vec<&str> = value.split(' ').filter(|token| !token.is_empty()).collect();
            if tokens.iter().any(|token| is_reserved(token)) {
                return Err("has a scope that only `keyward user grant` gives".to_string());
            }
            Grants::parse(&tokens).map(|scopes| config.accounts.user_scopes = scopes).map_err(str::to_string)
        },
    },
    Setting {
        name: "EMAIL_VERIFICATION",
        default: Some("off"),
        accepts: "off or required",
        meaning: "Whether new users reach only /auth until they have verified their e-mail address",
        secret: false,
        counts: ALWAYS,
        read: |config, value| {
            config.accounts.verified_email_required = match value {
                "off" => false,
                "required" => true,
                _ => return Err("is neither".to_string()),
            };
            Ok(())
        },
    },
    Setting {
        name: "PASSWORD_MIN_LENGTH",
        default: Some("8"),
        accepts: "8 to 64",
        meaning: "Fewest characters of a new password",
        secret: false,
        counts: ALWAYS,
        read: |config, value| whole_number(value, 8..=64).map(|length| config.accounts.password_min_length = length),
    },
    Setting {
        name: "BCRYPT_COST",
        default: Some("10"),
        accepts: "10 to 15; each step doubles the work",
        meaning: "Work factor of new password hashes; a hash with a lower one is replaced at the next login",
        secret: false,
        counts: ALWAYS,
        read: |config, value| whole_number(value, 10..=15).map(|cost| config.accounts.bcrypt_cost = cost),
    },
    Setting {
        name: "PUBLIC_URL",
        default: None,
        accepts: "an http or https URL without a query, such as https://auth.example.com",
        meaning: "Where browsers reach this server; links lead to its pages /account/reset and /account/verify",
        secret: false,
        counts: |config| match &config.accounts.pages {
            pages if pages.reset.is_some() && pages.verify.is_some() => Err("RESET_URL and VERIFY_URL name both pages"),
            _ => Ok(()),
        },
        read: |config, value| {
            config.accounts.pages.public = Some(PublicUrl::parse(value)?);
            Ok(())
        },
    },
    Setting {
        name: "RESET_URL",
        default: None,
        accepts: "an http or https URL with {token} after its host, such as https://app.example.com/reset#{token}",
        meaning: "Your own page on which a one-time token sets a password, in place of /account/reset",
        secret: false,
        counts: ALWAYS,
        read: |config, value| {
            config.accounts.pages.reset = Some(TokenUrl::parse(value)?);
            Ok(())
        },
    },
    Setting {
        name: "RESET_EXPIRES_IN",
        default: Some("1h"),
        accepts: LIFETIMES,
        meaning: "How long a one-time token that sets a password is good",
        secret: false,
        counts: ALWAYS,
        read: |config, value| lifetime(value).map(|span| config.accounts.reset_lifetime = span),
    },
    Setting {
        name: "VERIFY_URL",
        default: None,
        accepts: "an http or https URL with {token} after its host, such as https://app.example.com/verify#{token}",
        meaning: "Your own page on which a one-time token verifies an e-mail address, in place of /account/verify",
        secret: false,
        counts: ALWAYS,
        read: |config, value| {
            config.accounts.pages.verify = Some(TokenUrl::parse(value)?);
            Ok(())
        },
    },
    Setting {
        name: "VERIFY_EXPIRES_IN",
        default: Some("24h"),
        accepts: LIFETIMES,
        meaning: "How long a one-time token that verifies an e-mail address is good, and an invitation that is mailed",
        secret: false,
        counts: ALWAYS,
        read: |config, value| lifetime(value).map(|span| config.accounts.verify_lifetime = span),
    },
    Setting {
        name: "SESSION_MAX_AGE",
        default: Some("off"),
        accepts: LIFETIMES_OR_OFF,
        meaning: "How long after its login a session ends, however often it is refreshed",
        secret: false,
        counts: ALWAYS,
        read: |config, value| lifetime_or_off(value).map(|span| config.accounts.session_max_age = span),
    },
    Setting {
        name: "SESSION_IDLE",
        default: Some("off"),
        accepts: LIFETIMES_OR_OFF,
        meaning: "How long after its login or last refresh a session ends; access tokens live at most half as long",
        secret: false,
        counts: ALWAYS,
        read: |config, value| lifetime_or_off(value).map(|span| config.accounts.session_idle = span),
    },
    Setting {
        name: "REFRESH_REUSE_GRACE",
        default: Some("10s"),
        accepts: "a whole number with a unit (s, m), such as 10s; at most 1m",
        meaning: "How long a used refresh token still gets the current pair of tokens; for other tabs and lost answers",
        secret: false,
        counts: ALWAYS,
        read: |config, value| match lifetime(value)? {
            span if span > LONGEST_GRACE => Err("is out of range".to_string()),
            span => {
                config.accounts.rotation.grace = span;
                Ok(())
            }
        },
    },
    Setting {
        name: "REFRESH_RETRY",
        default: Some("1h"),
        accepts: LIFETIMES_OR_OFF,
        meaning: "How long a used refresh token still gets a new pair, if the pair that it gave was never used",
        secret: false,
        counts: ALWAYS,
        read: |config, value| lifetime_or_off(value).map(|span| config.accounts.rotation.retry = span),
    },
    Setting {
        name: "MAX_SESSIONS_PER_USER",
        default: Some("100"),
        accepts: "1 to 1000",
        meaning: "Most sessions of one user; a login beyond that ends others, first those that were never refreshed",
        secret: false,
        counts: ALWAYS,
        read: |config, value| whole_number(value, 1..=1000).map(|sessions| config.accounts.max_sessions = sessions),
    },
    Setting {
        name: "RATE_LIMIT_SIGNUP",
        default: Some("300/1h"),
        accepts: RATES_OR_OFF,
        meaning: "Sign-ups from one address",
        secret: false,
        counts: ALWAYS,
        read: |config, value| rate_or_off(value).map(|rate| config.accounts.address_rates.sign_up = rate),
    },
    Setting {
        name: "RATE_LIMIT_LOGIN",
        default: Some("300/1m"),
        accepts: RATES_OR_OFF,
        meaning: "Logins from one address, successful or not",
        secret: false,
        counts: ALWAYS,
        read: |config, value| rate_or_off(value).map(|rate| config.accounts.address_rates.log_in = rate),
    },
    Setting {
        name: "RATE_LIMIT_REFRESH",
        default: Some("600/1m"),
        accepts: RATES_OR_OFF,
        meaning: "Refreshes from one address",
        secret: false,
        counts: ALWAYS,
        read: |config, value| rate_or_off(value).map(|rate| config.accounts.address_rates.refresh = rate),
    },
    Setting {
        name: "RATE_LIMIT_MAIL",
        default: Some("60/1h"),
        accepts: RATES_OR_OFF,
        meaning: "Requests from one address that have a mail sent",
        secret: false,
        counts: ALWAYS,
        read: |config, value| rate_or_off(value).map(|rate| config.accounts.address_rates.mail = rate),
    },
    Setting {
        name: "RATE_LIMIT_FAILED_KEYS",
        default: Some("600/1m"),
        accepts: RATES_OR_OFF,
        meaning: "Uses of invalid API keys from one address; valid keys are not counted",
        secret: false,
        counts: ALWAYS,
        read: |config, value| rate_or_off(value).map(|rate| config.accounts.address_rates.failed_keys = rate),
    },
    Setting {
        name: "RATE_LIMIT_WRITES",
        default: Some("120/1m"),
        accepts: RATES_OR_OFF,
        meaning: "Changes by one user, and as many logins, from all addresses together; ending something is never refused",
        secret: false,
        counts: ALWAYS,
        read: |config, value| rate_or_off(value).map(|rate| config.accounts.write_rates.own = rate),
    },
    Setting {
        name: "RATE_LIMIT_ADMIN",
        default: Some("1200/1m"),
        accepts: RATES_OR_OFF,
        meaning: "Changes by one operator under /admin; ending something is never refused",
        secret: false,
        counts: ALWAYS,
        read: |config, value| rate_or_off(value).map(|rate| config.accounts.write_rates.operators = rate),
    },
];
