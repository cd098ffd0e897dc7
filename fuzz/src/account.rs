//! The services of a server on a fresh SQLite file, and somebody who has an account there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use keyward::accounts::email::Email;
use keyward::accounts::granting::ScopeChange;
use keyward::app::App;
use keyward::audit::event::{By, Origin};
use keyward::base::clock::Clock;
use keyward::base::id::SessionId;
use keyward::config::Config;
use keyward::guard::principal::{AuthenticatedService, AuthenticatedUser, Principal};
use keyward::http::limits::Limits;
use keyward::keys::grants::Grants;
use keyward::keys::key::KeyHash;
use keyward::keys::scopes::Scopes;
use keyward::keys::service::KeySpec;
use keyward::tokens::claims::Claims;
use keyward_harness::service::new_folder;

/// What its keys may, and the derived token too.
pub const SCOPE: &str = "keys:verify";

/// Whose pages may read answers.
pub const ORIGIN: &str = "https://app.example.com";

/// So long that it is not taken for a request's id, and is cut where a path is logged.
pub const PASSWORD: &str = "a-password-that-nobody-guesses-0123456789-0123456789-0123456789-012345";

/// Waits for nothing, counts nothing by address, and hashes fast.
pub fn config() -> Config {
    let folder = new_folder();
    let database = folder.join("keyward.db");
    let mut settings = HashMap::from([
        ("KEYWARD_DB", database.to_str().expect("a path in UTF-8")),
        ("HOST", "127.0.0.1"),
        ("PORT", "0"),
        ("MAX_KEYS_PER_USER", "20"),
        ("CORS_ORIGINS", ORIGIN),
        ("WEBHOOKS", "users"),
    ]);
    for limit in
        ["RATE_LIMIT_SIGNUP", "RATE_LIMIT_LOGIN", "RATE_LIMIT_REFRESH", "RATE_LIMIT_FAILED_KEYS", "RATE_LIMIT_WRITES"]
    {
        settings.insert(limit, "off");
    }
    let settings = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let mut config = Config::from_values(&settings).expect("good settings");
    config.accounts.bcrypt_cost = 4;
    // A machine that is busy with fuzzing is slow, which is no finding.
    let long = Duration::from_secs(60);
    config.http.limits = Limits { head: long, body: long, idle: long, handler: long, ..Limits::default() };
    config
}

/// Opens them, with a log that nobody reads but [`watch_log`].
pub fn open(config: &Config) -> App {
    watch_log();
    keyward::run::open_app(config, Clock::default()).expect("an open store").0
}

/// A user with a session and a key.
pub struct Account {
    pub email: String,
    pub password: String,
    pub access: String,
    pub refresh: String,
    /// Derived from the key.
    pub derived: String,
    pub key: String,
    pub key_id: String,
    pub user: AuthenticatedUser,
}

impl Account {
    pub fn new(app: &App) -> Account {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let email = format!("ann{}@example.com", COUNT.fetch_add(1, Ordering::Relaxed));
        let origin = Origin { ip: [127, 0, 0, 1].into(), user_agent: None, request_id: "fuzz".to_string() };
        let address = Email::parse(&email).expect("an address");
        let password = app.password_rules.judge(PASSWORD).expect("a password");
        let logged_in = app.sessions.sign_up(address, None, password, origin).expect("a new user");
        let owner = logged_in.user.id;
        let scopes = Scopes::parse(&[SCOPE]).expect("a scope");
        let grants = Grants::parse(&[SCOPE]).expect("a scope");
        let change = ScopeChange::Grant(grants.clone());
        app.users.change_scopes(owner, &change, &By::operator()).expect("a user with the scope");
        let settings = KeySpec { name: "fuzz".to_string(), scopes: scopes.clone(), ..KeySpec::default() };
        let (key, secret) = app.keys.create(owner, settings, &By::operator()).expect("a new key").expect("an active owner");
        let ends = app.clock.now().plus(Duration::from_secs(3600));
        let account = Account {
            user: AuthenticatedUser {
                id: owner,
                email: email.as_str().into(),
                email_verified: false,
                scopes: Arc::new(grants),
                session: session(app, &logged_in.tokens.access_token),
            },
            email,
            password: PASSWORD.to_string(),
            access: logged_in.tokens.access_token,
            refresh: logged_in.tokens.refresh_token,
            derived: app.tokens.service(owner, key.id, &scopes, ends).expect("a derived token"),
            key: secret.expose().to_string(),
            key_id: key.id.to_string(),
        };
        let kept = [&account.password, &account.access, &account.refresh, &account.derived, &account.key];
        *SECRETS.lock().unwrap_or_else(PoisonError::into_inner) = kept.into_iter().cloned().collect();
        // What a server does once a second.
        app.usage.flush().and_then(|()| app.events.flush()).expect("a store that writes");
        account
    }

    pub fn as_user(&self) -> Principal {
        Principal::User(self.user.clone())
    }

    pub fn as_service(&self, app: &App) -> Principal {
        let hash = KeyHash::of(self.key.as_bytes()).expect("a key");
        let key = app.known_keys.fetch(hash).expect("a store that answers").expect("a known key");
        Principal::Service(AuthenticatedService { key, derived: None })
    }

    /// Puts the account's own in the place of `<key>` and its like.
    pub fn fill(&self, text: &[u8]) -> Vec<u8> {
        let session = self.user.session.to_string();
        let basic = BASE64.encode(format!("anyone:{}", self.key));
        let known = [
            ("<key>", self.key.as_str()),
            ("<id>", &self.key_id),
            ("<access>", &self.access),
            ("<refresh>", &self.refresh),
            ("<derived>", &self.derived),
            ("<session>", &session),
            ("<email>", &self.email),
            ("<basic>", &basic),
            ("<password>", &self.password),
        ];
        let mut filled = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.first() {
            match known.iter().find(|(name, _)| rest.starts_with(name.as_bytes())) {
                Some((name, value)) => {
                    filled.extend_from_slice(value.as_bytes());
                    rest = &rest[name.len()..];
                }
                None => {
                    filled.push(*first);
                    rest = &rest[1..];
                }
            }
        }
        filled
    }
}

fn session(app: &App, access: &str) -> SessionId {
    match app.tokens.judge(access) {
        Some(Claims::User(claims)) => claims.sid,
        _ => panic!("a fresh access token is good"),
    }
}

/// What the log and the answers must not hold.
static SECRETS: LazyLock<Mutex<Vec<String>>> = LazyLock::new(Mutex::default);

/// Fails when one of the secrets is in it.
pub fn assert_no_secret(text: &str, of_what: &str) {
    for secret in SECRETS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        assert!(!text.contains(secret.as_str()), "a secret is in {of_what}: {text}");
    }
    assert!(!text.contains("$2b$"), "a hash is in {of_what}: {text}");
}

/// Whether anything but reading was granted, as the log has it.
static CHANGED: AtomicBool = AtomicBool::new(false);

/// Whether there was such a thing since this was asked last.
pub fn take_changed() -> bool {
    CHANGED.swap(false, Ordering::Relaxed)
}

/// Looks at everything that is logged.
fn watch_log() {
    struct Watcher;
    struct Fields(String);

    impl<'kvs> log::kv::VisitSource<'kvs> for Fields {
        fn visit_pair(&mut self, key: log::kv::Key<'kvs>, value: log::kv::Value<'kvs>) -> Result<(), log::kv::Error> {
            self.0.push_str(&format!(" {key}={value}"));
            Ok(())
        }
    }

    impl log::Log for Watcher {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.target() == "access" || metadata.target().starts_with("keyward")
        }

        fn log(&self, record: &log::Record<'_>) {
            if !self.enabled(record.metadata()) {
                return;
            }
            let mut line = Fields(record.args().to_string());
            record.key_values().visit(&mut line).expect("fields that can be written");
            assert_no_secret(&line.0, "the log");
            assert!(record.level() > log::Level::Error, "a fault: {}", line.0);
            if record.target() == "access" {
                assert!(!line.0.contains(['\n', '\r']), "two lines: {:?}", line.0);
                // CONNECT is not implemented, and there are versions of HTTP that are not spoken.
                let refused = [" status=501 ", " status=505 "].iter().any(|status| line.0.contains(status));
                assert!(!line.0.contains(" status=5") || refused, "a fault: {}", line.0);
                if line.0.contains(" status=2") && !line.0.contains(" method=GET ") {
                    CHANGED.store(true, Ordering::Relaxed);
                }
            }
        }

        fn flush(&self) {}
    }

    if log::set_logger(&Watcher).is_ok() {
        log::set_max_level(log::LevelFilter::Trace);
    }
}
