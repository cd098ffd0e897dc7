//! The services, as one struct: what handlers and guards work with.

use std::sync::Arc;

use crate::accounts::limits::{AddressLimits, WriteLimits};
use crate::accounts::passwords::{PasswordRules, Passwords};
use crate::accounts::session::{Lifespan, LiveSession, SessionRules};
use crate::accounts::sessions::Sessions;
use crate::accounts::throttling::LoginThrottle;
use crate::accounts::users::Users;
use crate::audit::events::Events;
use crate::base::clock::Clock;
use crate::base::id::{KeyId, SessionId};
use crate::base::pool::cores;
use crate::config::Config;
use crate::keys::key::{KeyHash, KnownKey};
use crate::keys::service::Keys;
use crate::keys::usage::UsageCounter;
use crate::memory::changes::Changes;
use crate::memory::lookup::Lookup;
use crate::store::Store;
use crate::tokens::claims::Tokens;
use crate::tokens::key_files::JwtKeys;

/// What handlers and guards work with.
pub struct App {
    pub clock: Clock,
    pub address_limits: AddressLimits,
    pub writes: Arc<WriteLimits>,
    pub tokens: Arc<Tokens>,
    pub password_rules: PasswordRules,
    pub users: Users,
    pub sessions: Sessions,
    pub keys: Keys,
    pub usage: Arc<UsageCounter>,
    pub events: Arc<Events>,
    pub changes: Arc<Changes>,
    pub known_keys: Lookup<KeyHash, KnownKey>,
    /// Those that tokens were derived from.
    pub service_keys: Lookup<KeyId, KnownKey>,
    pub live_sessions: Lookup<SessionId, LiveSession>,
}

/// Queries at once for what is not remembered, of keys and of sessions each. Few, so that what is asked for together is
/// fetched together; less than half of the store's connections, so that unknown keys in masses leave room for the rest.
fn fetchers() -> usize {
    (cores() / 2).clamp(1, 2)
}

impl App {
    /// Wires the services over a store that notes in `changes` what it changes.
    pub fn over(
        store: Arc<dyn Store>,
        jwt_keys: JwtKeys,
        passwords: Arc<Passwords>,
        config: &Config,
        clock: Clock,
        changes: Arc<Changes>,
    ) -> App {
        let tokens = Arc::new(Tokens::new(
            jwt_keys.access,
            jwt_keys.refresh,
            config.jwt_expires_in,
            config.jwt_refresh_expires_in,
            config.jwt_parties.clone(),
            config.cache_entries,
            clock.clone(),
        ));
        let lifespan = Lifespan {
            unrenewed: config.session_idle.map_or(tokens.lifetime(), |idle| idle.min(tokens.lifetime())),
            max_age: config.session_max_age,
        };
        let usage = Arc::new(UsageCounter::new(store.clone(), config.usage_retention));
        let events = Arc::new(Events::new(store.clone(), config.audit_retention, clock.clone()));
        let writes = Arc::new(WriteLimits::new(config.write_rate, clock.clone()));
        let throttle = Arc::new(LoginThrottle::new(store.clone(), passwords.clone(), events.clone(), clock.clone()));
        let (keys, service_keys, sessions) = (store.clone(), store.clone(), store.clone());
        let entries = config.cache_entries;
        App {
            known_keys: Lookup::new(
                "keys",
                entries,
                fetchers(),
                changes.clone(),
                Box::new(move |hashes| keys.keys_by_hash(hashes)),
            ),
            service_keys: Lookup::new(
                "service-keys",
                entries,
                1,
                changes.clone(),
                Box::new(move |ids| service_keys.keys_by_id(ids)),
            ),
            live_sessions: Lookup::new(
                "sessions",
                entries,
                fetchers(),
                changes.clone(),
                Box::new(move |ids| sessions.live_sessions(ids)),
            ),
            changes,
            address_limits: AddressLimits::new(config.address_rates, clock.clone()),
            writes: writes.clone(),
            password_rules: passwords.rules,
            users: Users::new(store.clone(), passwords.clone(), throttle.clone(), clock.clone()),
            sessions: Sessions::new(
                store.clone(),
                passwords,
                throttle,
                tokens.clone(),
                writes,
                SessionRules {
                    lifespan,
                    rotation: config.rotation,
                    most: config.max_sessions_per_user,
                    signup_open: config.signup_open,
                },
                clock.clone(),
            ),
            keys: Keys::new(store.clone(), usage.clone(), config.key_rules, clock.clone()),
            tokens,
            usage,
            events,
            clock,
        }
    }
}
