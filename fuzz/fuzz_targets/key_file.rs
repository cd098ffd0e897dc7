//! PEM files with keys for tokens: what is taken signs, what is not is refused in one line that names the file.
#![no_main]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use keyward::config::Config;
use keyward::tokens::algorithm::Algorithm;
use keyward::tokens::key_files::{self, JwtKeys};
use keyward::tokens::settings::TokenSettings;
use libfuzzer_sys::fuzz_target;

static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("keyward-fuzz-{}.pem", std::process::id())));
static SETTINGS: LazyLock<[TokenSettings; 2]> =
    LazyLock::new(|| [settings("JWT_PRIVATE_KEY_FILE"), settings("JWT_PREVIOUS_KEY_FILES")]);

/// With the file in this setting.
fn settings(setting: &str) -> TokenSettings {
    let secret = "a secret of thirty-two bytes or so";
    let file = FILE.to_str().expect("a path in UTF-8");
    let given = [("JWT_SECRET", secret), ("JWT_REFRESH_SECRET", secret), (setting, file)];
    let given: HashMap<String, String> =
        given.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Config::from_values(&given).expect("good settings").tokens
}

/// The keys, if the file has one for any of the algorithms.
fn signing(settings: &TokenSettings) -> Result<JwtKeys, String> {
    let by = |algorithm| key_files::resolve(&TokenSettings { algorithm, ..settings.clone() }, None);
    by(Algorithm::EdDsa).or_else(|_| by(Algorithm::Es256)).or_else(|_| by(Algorithm::Rs256))
}

fuzz_target!(|data: &[u8]| {
    std::fs::write(&*FILE, data).expect("a file in the temporary folder");
    let [private, public] = &*SETTINGS;
    let (private, public) = (signing(private), key_files::resolve(public, None));
    if let Ok(keys) = &private {
        let token = keys.access.sign("at+jwt", &serde_json::json!({ "a": 1 })).expect("a key that signs");
        assert_eq!(keys.access.verify(&token).map(|signed| signed.payload), Some(b"{\"a\":1}".to_vec()));
        // What signs would do to verify.
        let verifying = public.as_ref().expect("a key that verifies");
        assert_eq!(keys.access.jwks(), verifying.access.jwks());
        assert!(verifying.access.verify(&token).is_some());
    }
    if let Ok(keys) = &public {
        assert_eq!(keys.access.jwks().keys.len(), 1);
        let published = serde_json::to_string(&keys.access.jwks()).expect("JSON");
        assert!(!published.contains("\"d\""), "{published}");
    }
    for error in [private.err(), public.err()].into_iter().flatten() {
        let is_one_line = !error.contains(['\n', '\r']);
        assert!(is_one_line && error.contains(FILE.to_str().unwrap_or_default()), "{error:?}");
    }
});
