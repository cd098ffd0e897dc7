//! Settings, `NAME=value` a line: they are taken, or refused in one line that names one of them. Secrets stay secret.
#![no_main]

use std::collections::HashMap;

use keyward::config::{Config, SETTINGS};
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
            assert!(config.jwt_expires_in.as_secs() > 0 && config.jwt_refresh_expires_in.as_secs() > 0);
            assert!((10..=15).contains(&config.bcrypt_cost) && config.max_connections > 0 && config.cache_entries > 0);
            assert!(!config.hosts.is_empty());
            let secrets = [config.jwt_secret, config.jwt_refresh_secret, config.jwt_secret_previous];
            assert!(secrets.iter().flatten().all(|secret| secret.expose().len() >= 32));
        }
        (Err(error), Err(again)) => {
            let error = error.to_string();
            assert_eq!(error, again.to_string());
            assert!(!error.contains(['\n', '\r']), "{error:?}");
            let name = error.split(": ").next().unwrap_or_default();
            assert!(SETTINGS.iter().any(|setting| setting.name == name), "{error:?}");
            assert!(!(is_secret || url_is_secret) || !error.contains(SECRET), "{error:?}");
        }
        _ => panic!("read twice, it is not the same: {given:?}"),
    }
});
