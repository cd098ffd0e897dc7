//! Settings, `NAME=value` a line: they are taken, or refused in one line that names one of them. Secrets stay secret.
#![no_main]

use std::collections::HashMap;

use keyward::config::{Config, settings};
use libfuzzer_sys::fuzz_target;

/// What stands for a secret in seeds.
const SECRET: &str = "hunter2";
const SECRETS: [&str; 5] =
    ["DB_PASSWORD", "JWT_SECRET", "JWT_REFRESH_SECRET", "JWT_SECRET_PREVIOUS", "JWT_REFRESH_SECRET_PREVIOUS"];
const URLS: [&str; 2] = ["DATABASE_URL", "DATABASE_URL_DIRECT"];

fuzz_target!(|text: &str| {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let given: HashMap<String, String> = lines.map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let told_beside =
        |names: &[&str]| given.iter().any(|(name, value)| !names.contains(&name.as_str()) && value.contains(SECRET));
    let url_is_secret = !told_beside(&URLS);
    let is_secret = !told_beside(&SECRETS);
    match (Config::from_values(&given), Config::from_values(&given)) {
        (Ok(config), Ok(again)) => {
            let shown = format!("{config:?}");
            assert!(!is_secret || !shown.contains(SECRET), "{shown}");
            assert_eq!(shown, format!("{again:?}"));
            assert!(config.tokens.access_lifetime.as_secs() > 0 && config.tokens.refresh_lifetime.as_secs() > 0);
            assert!(
                (10..=15).contains(&config.accounts.bcrypt_cost)
                    && config.http.max_connections > 0
                    && config.memory.cache_entries > 0
            );
            assert!(!config.http.hosts.is_empty());
            let secrets = [config.tokens.secret, config.tokens.refresh_secret, config.tokens.previous_secret];
            assert!(secrets.iter().flatten().all(|secret| secret.expose().len() >= 32));
        }
        (Err(error), Err(again)) => {
            let error = error.to_string();
            assert_eq!(error, again.to_string());
            assert!(!error.contains(['\n', '\r']), "{error:?}");
            let name = error.split(": ").next().unwrap_or_default();
            assert!(settings().any(|setting| setting.name == name), "{error:?}");
            assert!(!(is_secret || url_is_secret) || !error.contains(SECRET), "{error:?}");
        }
        _ => panic!("read twice, it is not the same: {given:?}"),
    }
});
