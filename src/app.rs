//! The services, as one struct: what handlers, guards, jobs and commands work with.

use std::sync::Arc;

use crate::accounts::addresses::Addresses;
use crate::accounts::limits::{AddressLimits, WriteLimits};
use crate::accounts::links::Pages;
use crate::accounts::mailed_links::MailedLinks;
use crate::accounts::passwords::{PasswordRules, Passwords};
use crate::accounts::recovery::Recovery;
use crate::accounts::second_factor::service::SecondFactors;
use crate::accounts::session::LiveSession;
use crate::accounts::sessions::Sessions;
use crate::accounts::settings::AccountSettings;
use crate::accounts::store::{AddressStore, FailureStore, RecoveryStore, SecondFactorStore, SessionStore, UserStore};
use crate::accounts::throttling::LoginThrottle;
use crate::accounts::users::Users;
use crate::audit::events::Events;
use crate::audit::settings::AuditSettings;
use crate::audit::store::EventStore;
use crate::base::clock::Clock;
use crate::base::data_key::DataKey;
use crate::base::id::{KeyId, SessionId};
use crate::base::pool::cores;
use crate::base::sealing::{SealedStore, Sealing};
use crate::keys::key::{KeyHash, KnownKey};
use crate::keys::service::Keys;
use crate::keys::settings::KeySettings;
use crate::keys::store::{KeyStore, UsageStore};
use crate::keys::usage_counter::UsageCounter;
use crate::memory::changes::Changes;
use crate::memory::lookup::Lookup;
use crate::memory::settings::MemorySettings;
use crate::outbox::service::Outbox;
use crate::outbox::settings::OutboxSettings;
use crate::outbox::store::OutboxStore;
use crate::statistics::service::Statistics;
use crate::statistics::store::StatisticsStore;
use crate::tokens::key_files::JwtKeys;
use crate::tokens::service::Tokens;
use crate::tokens::settings::TokenSettings;
use crate::webhooks::service::Webhooks;
use crate::webhooks::settings::WebhookSettings;
use crate::webhooks::store::WebhookStore;

/// The store, as each noun needs it.
#[derive(Clone)]
pub struct Stores {
    pub users: Arc<dyn UserStore>,
    pub recovery: Arc<dyn RecoveryStore>,
    pub second_factors: Arc<dyn SecondFactorStore>,
    pub sealed: Arc<dyn SealedStore>,
    pub addresses: Arc<dyn AddressStore>,
    pub sessions: Arc<dyn SessionStore>,
    pub failures: Arc<dyn FailureStore>,
    pub keys: Arc<dyn KeyStore>,
    pub usage: Arc<dyn UsageStore>,
    pub events: Arc<dyn EventStore>,
    pub statistics: Arc<dyn StatisticsStore>,
    pub outbox: Arc<dyn OutboxStore>,
    pub webhooks: Arc<dyn WebhookStore>,
}

/// The secret keys of a process.
pub struct SecretKeys {
    pub jwt: JwtKeys,
    pub data: DataKey,
}

pub struct App {
    pub clock: Clock,
    pub data_key: Arc<DataKey>,
    pub sealing: Sealing,
    pub address_limits: AddressLimits,
    pub writes: Arc<WriteLimits>,
    pub tokens: Arc<Tokens>,
    pub password_rules: PasswordRules,
    pub users: Arc<Users>,
    pub recovery: Recovery,
    pub addresses: Addresses,
    /// Where links with a token lead.
    pub pages: Pages,
    pub mailed_links: Arc<MailedLinks>,
    pub second_factors: SecondFactors,
    pub sessions: Sessions,
    pub keys: Keys,
    pub usage: Arc<UsageCounter>,
    pub events: Arc<Events>,
    pub statistics: Arc<Statistics>,
    pub outbox: Outbox,
    pub webhooks: Arc<Webhooks>,
    pub changes: Arc<Changes>,
    pub known_keys: Lookup<KeyHash, KnownKey>,
    /// The keys behind service tokens.
    pub service_keys: Lookup<KeyId, KnownKey>,
    pub live_sessions: Lookup<SessionId, LiveSession>,
}

/// The settings of the services, room by room.
#[derive(Clone, Copy)]
pub struct ServiceSettings<'a> {
    pub accounts: &'a AccountSettings,
    pub tokens: &'a TokenSettings,
    pub keys: &'a KeySettings,
    pub audit: &'a AuditSettings,
    pub outbox: &'a OutboxSettings,
    pub webhooks: &'a WebhookSettings,
    pub memory: &'a MemorySettings,
    /// Whether mail is sent.
    pub sends_mail: bool,
}

/// How many queries of each kind a lookup may run at once. Few, so that keys that are asked for together are fetched
/// together; less than half of the store's connections, so that masses of unknown keys leave room for other work.
fn fetchers() -> usize {
    (cores() / 2).clamp(1, 2)
}

impl App {
    /// Wires the services over stores that note their changes in `changes`. `hashing_callers`: how many callers may wait for
    /// a password to be hashed.
    ///
    /// The only threads that this starts are those that hash passwords. They sleep until they are needed and hold no part
    /// of the store.
    pub fn new(
        stores: Stores,
        secret_keys: SecretKeys,
        settings: ServiceSettings<'_>,
        hashing_callers: usize,
        clock: Clock,
        changes: Arc<Changes>,
    ) -> App {
        let ServiceSettings { accounts, tokens, keys, audit, outbox, webhooks, memory, sends_mail } = settings;
        let entries = memory.cache_entries;
        let tokens = Arc::new(Tokens::new(
            secret_keys.jwt.access,
            secret_keys.jwt.refresh,
            accounts.access_lifetime(tokens.access_lifetime),
            tokens.refresh_lifetime,
            tokens.parties.clone(),
            entries,
            clock.clone(),
        ));
        let data_key = Arc::new(secret_keys.data);
        let password_rules = PasswordRules::new(accounts.password_min_length);
        let passwords = Arc::new(Passwords::new(accounts.bcrypt_cost, cores(), hashing_callers));
        let usage = Arc::new(UsageCounter::new(stores.usage, keys.usage_retention));
        let events = Arc::new(Events::new(stores.events, audit.retention, clock.clone()));
        let statistics = Arc::new(Statistics::new(stores.statistics, keys.usage_retention, clock.clone()));
        let writes = Arc::new(WriteLimits::new(accounts.write_rates, clock.clone()));
        let throttle = LoginThrottle::new(
            stores.failures,
            stores.sessions.clone(),
            passwords.clone(),
            events.clone(),
            data_key.clone(),
            clock.clone(),
        );
        let users = Arc::new(Users::new(
            stores.users,
            passwords.clone(),
            throttle,
            accounts,
            data_key.clone(),
            events.clone(),
            clock.clone(),
        ));
        let is_required = accounts.verified_email_required;
        // Nobody waits for a verified e-mail unless one is required.
        let judge_key = move |key: &mut KnownKey| key.owner_awaits_verification &= is_required;
        let judge_session = move |session: &mut LiveSession| session.awaits_verification &= is_required;
        let (by_hash, by_id, sessions) = (stores.keys.clone(), stores.keys.clone(), stores.sessions.clone());
        App {
            known_keys: Lookup::new(
                entries,
                changes.clone(),
                Box::new(move |hashes| by_hash.keys_by_hash(hashes).map(|found| judged(found, judge_key))),
            ),
            service_keys: Lookup::new(
                entries,
                changes.clone(),
                Box::new(move |ids| by_id.keys_by_id(ids).map(|found| judged(found, judge_key))),
            ),
            live_sessions: Lookup::new(
                entries,
                changes.clone(),
                Box::new(move |ids| sessions.live_sessions(ids).map(|found| judged(found, judge_session))),
            ),
            changes,
            address_limits: AddressLimits::new(accounts.address_rates, clock.clone()),
            writes: writes.clone(),
            password_rules,
            mailed_links: Arc::new(MailedLinks::new(stores.recovery.clone(), accounts, clock.clone())),
            addresses: Addresses::new(stores.addresses, users.clone(), sends_mail, clock.clone()),
            pages: accounts.pages.clone(),
            recovery: Recovery::new(stores.recovery, users.clone(), accounts, sends_mail, clock.clone()),
            second_factors: SecondFactors::new(
                stores.second_factors,
                users.clone(),
                data_key.clone(),
                tokens.parties().issuer.as_deref(),
                clock.clone(),
            ),
            sessions: Sessions::new(
                users.clone(),
                stores.sessions,
                tokens.clone(),
                writes,
                statistics.clone(),
                accounts.clone(),
                clock.clone(),
            ),
            keys: Keys::new(stores.keys, usage.clone(), keys.clone(), clock.clone()),
            users,
            tokens,
            usage,
            events,
            statistics,
            outbox: Outbox::new(stores.outbox, outbox.retention, clock.clone()),
            webhooks: Arc::new(Webhooks::new(stores.webhooks, data_key.clone(), webhooks.clone(), clock.clone())),
            sealing: Sealing::new(stores.sealed, data_key.clone()),
            data_key,
            clock,
        }
    }

    /// Starts the threads that fetch keys and sessions from the store. A server needs them; a command fetches none, and
    /// closes the store at its end.
    pub fn start_lookups(&self) -> Result<(), String> {
        self.known_keys
            .start("keys", fetchers())
            .and_then(|()| self.service_keys.start("service-keys", 1))
            .and_then(|()| self.live_sessions.start("sessions", fetchers()))
            .map_err(|error| format!("the threads that fetch keys and sessions cannot be started: {error}"))
    }
}

/// What the store has found, after `judge` has seen each.
fn judged<K, V>(mut found: Vec<(K, V)>, judge: impl Fn(&mut V)) -> Vec<(K, V)> {
    found.iter_mut().for_each(|(_, value)| judge(value));
    found
}
