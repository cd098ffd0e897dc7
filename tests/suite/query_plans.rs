//! How the databases go about each of our statements: along an index, whatever the size of a table and of one user's
//! history.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyward::accounts::changing::UserChange;
use keyward::accounts::creating::UserDraft;
use keyward::accounts::email::Email;
use keyward::accounts::granting::ScopeChange;
use keyward::accounts::links::PublicUrl;
use keyward::accounts::purposes::Purpose;
use keyward::accounts::second_factor::codes::Code;
use keyward::accounts::second_factor::shown::Proof;
use keyward::accounts::user::{UserFilter, UserKind, UserRef};
use keyward::app::App;
use keyward::app::{SecretKeys, ServiceSettings};
use keyward::audit::event::{Actor, By, Credential, Filter, Kind, Origin};
use keyward::base::clock::{Clock, Timestamp};
use keyward::base::data_key::DataKey;
use keyward::base::error::StoreError;
use keyward::base::id::{KeyId, SessionId, UserId};
use keyward::base::period::{DAY, Period};
use keyward::base::sealing::{Renewed, Sealed};
use keyward::config::Config;
use keyward::keys::grants::Grants;
use keyward::keys::key::{KeyChange, KeyHash};
use keyward::keys::listing::{KeyFilter, KeyStatus};
use keyward::keys::service::KeySpec;
use keyward::keys::usage::Outcome;
use keyward::memory::changes::Changes;
use keyward::outbox::delivery::{Answer, Outcome as Delivered};
use keyward::outbox::outlet::Outlet;
use keyward::outbox::settings::Reach;
use keyward::outbox::store::{Then, Tried, Wanted};
use keyward::run;
use keyward::store::Store;
use keyward::store::driver::{Column, Driver, Migration, Row, Transaction, Value};
use keyward::store::migrate;
use keyward::store::postgres::{Patience, Postgres};
use keyward::store::settings::Database;
use keyward::store::sql::SqlStore;
use keyward::store::sqlite::Sqlite;
use keyward::tokens::claims::Claims;
use keyward::tokens::key_files::JwtKeys;
use keyward::webhooks::service::WebhookSpec;
use keyward::webhooks::types::Types;
use keyward::webhooks::webhook::{Holder, WebhookChange};
use keyward_harness::authenticator::Authenticator;
use keyward_harness::postgres_cluster::available;
use keyward_harness::program::Home;
use keyward_harness::service::{Backend, PASSWORD};
use uuid::Uuid;

/// A statement, and the columns of the rows that stand for `ROWS` in it.
type Statement = (&'static str, Vec<&'static str>);

/// Notes every statement that goes through a driver.
struct Noting<D> {
    driver: D,
    noted: Arc<Mutex<BTreeSet<Statement>>>,
}

impl<D> Noting<D> {
    fn note(&self, sql: &'static str) {
        self.noted.lock().unwrap().insert((sql, Vec::new()));
    }
}

impl<D: Driver> Driver for Noting<D> {
    type Link = D::Link;
    const PAUSE: Duration = D::PAUSE;
    const MIGRATIONS: &'static [Migration] = D::MIGRATIONS;
    const FIND_RELATIONS: &'static str = D::FIND_RELATIONS;
    const ELSEWHERE: &'static str = D::ELSEWHERE;
    const LOCK_SCHEMA: Option<&'static str> = D::LOCK_SCHEMA;

    fn outlet(&self) -> &Arc<Outlet> {
        self.driver.outlet()
    }

    fn query(&self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        self.note(sql);
        self.driver.query(sql, parameters)
    }

    fn execute(&self, sql: &'static str, parameters: &[Value]) -> Result<u64, StoreError> {
        self.note(sql);
        self.driver.execute(sql, parameters)
    }

    fn transaction<T>(
        &self,
        work: impl FnOnce(&mut dyn Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.driver.transaction(|inner| work(&mut NotingWithin { inner, noted: &self.noted }))
    }

    fn listen(&self, link: &mut Option<D::Link>, changes: &Changes) -> Result<(), StoreError> {
        self.driver.listen(link, changes)
    }
}

struct NotingWithin<'a> {
    inner: &'a mut dyn Transaction,
    noted: &'a Mutex<BTreeSet<Statement>>,
}

impl Transaction for NotingWithin<'_> {
    fn query(&mut self, sql: &'static str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        self.noted.lock().unwrap().insert((sql, Vec::new()));
        self.inner.query(sql, parameters)
    }

    fn execute(&mut self, sql: &'static str, parameters: &[Value]) -> Result<u64, StoreError> {
        self.noted.lock().unwrap().insert((sql, Vec::new()));
        self.inner.execute(sql, parameters)
    }

    fn execute_with_rows(
        &mut self,
        sql: &'static str,
        columns: &'static [Column],
        rows: &mut dyn Iterator<Item = Vec<Value>>,
    ) -> Result<(), StoreError> {
        let kinds = columns.iter().map(|column| match column {
            Column::Int => "bigint",
            Column::Text => "text",
            Column::Uuid => "uuid",
            Column::Timestamp => "timestamptz",
        });
        self.noted.lock().unwrap().insert((sql, kinds.collect()));
        self.inner.execute_with_rows(sql, columns, rows)
    }

    fn script(&mut self, sql: &str) -> Result<(), StoreError> {
        self.inner.script(sql)
    }

    fn notify(&mut self, change: uuid::Uuid) -> Result<(), StoreError> {
        self.inner.notify(change)
    }

    fn outlet(&self) -> &Outlet {
        self.inner.outlet()
    }

    fn wake_deliverers(&mut self) -> Result<(), StoreError> {
        self.inner.wake_deliverers()
    }

    fn now(&mut self, clock: &Clock) -> Result<Timestamp, StoreError> {
        self.inner.now(clock)
    }
}

/// Every statement, noted while everything is done once that the program can do.
fn statements<D: Driver>(driver: D, home: &Home) -> BTreeSet<Statement> {
    let noted = Arc::new(Mutex::new(BTreeSet::new()));
    let clock = Clock::stopped();
    migrate::migrate(&driver, clock.now()).unwrap();
    // An older account.
    let older = "INSERT INTO users (id, email, normal_email, password_hash, is_active, created_at) VALUES \
        ('0192f0c1-0000-7000-8000-000000000001', 'a@xn--bcher-kva.example', 'a@b\u{fc}cher.example', '', FALSE, \
         '2026-01-01T00:00:00.000Z')";
    driver.execute(older, &[]).unwrap();
    fill_endpoint(&driver);
    let wants = "INSERT INTO email_changes (user_id, email, asked_at) VALUES \
        ('0192f0c1-0000-7000-8000-000000000001', 'a@example.com', '[]')";
    driver.execute(wants, &[]).unwrap();
    let changes = Arc::new(Changes::default());
    let store = SqlStore::new(Noting { driver, noted: noted.clone() }, changes.clone(), clock.clone());
    let store: Arc<dyn Store> = Arc::new(store);
    let mut config = home.config();
    config.accounts.bcrypt_cost = 4;
    config.accounts.pages.public = PublicUrl::parse("https://auth.example.com").ok();
    config.accounts.session_max_age = Some(Duration::from_secs(86_400));
    let data = DataKey::resolve_existing(&config.data_key, None, None).unwrap();
    let secret_keys = SecretKeys { jwt: JwtKeys::ephemeral().unwrap(), data };
    let settings = ServiceSettings { sends_mail: true, ..run::service_settings(&config) };
    let app = App::new(run::stores(&store), secret_keys, settings, 8, clock.clone(), changes);
    app.start_lookups().unwrap();
    do_everything(&app, &*store, &config);
    std::mem::take(&mut *noted.lock().unwrap())
}

fn do_everything(app: &App, store: &dyn Store, config: &Config) {
    let origin = || Origin { ip: [192, 0, 2, 1].into(), user_agent: None, request_id: "of-a-test".to_string() };
    let email = |name: &str| Email::parse(&format!("{name}@example.com")).unwrap();
    let password = |text: &str| app.password_rules.judge(text).unwrap();
    let invited = |name: &str| UserDraft::invited(email(name));
    let proof = |password| Proof { password, code: None };
    let nobody = By { actor: Actor::Anonymous, origin: Some(origin()) };

    // Accounts and sessions.
    let ann = app.sessions.sign_up(email("ann"), None, password(PASSWORD), true, origin()).unwrap();
    let id = ann.user.id;
    let Some(Claims::User(claims)) = app.tokens.judge(&ann.tokens.access_token) else { unreachable!() };
    let ann = "ann@example.com";
    let by = By::user(claims.sid, origin());
    app.live_sessions.fetch(claims.sid).unwrap().unwrap();
    let second = app.sessions.log_in(&email("ann"), &proof(PASSWORD), origin()).unwrap();
    for _ in 0..2 {
        app.sessions.refresh(&second.tokens.refresh_token, &nobody).unwrap();
        app.clock.advance(Duration::from_secs(1));
    }
    app.clock.advance(Duration::from_secs(3600 * 2));
    assert!(app.sessions.refresh(&second.tokens.refresh_token, &nobody).is_err());
    let Some(Claims::User(third)) =
        app.tokens.judge(&app.sessions.log_in(&email("ann"), &proof(PASSWORD), origin()).unwrap().tokens.access_token)
    else {
        unreachable!()
    };
    app.sessions.of_user(id).unwrap();
    assert!(app.sessions.end(id, third.sid, &by).unwrap());
    app.sessions.end_others(id, claims.sid, &by).unwrap();
    store.addresses_of(id, 10).unwrap();
    let tokens = app.sessions.change_password(id, ann, &proof(PASSWORD), password("Another Password 1!"), &by);
    let Some(Claims::User(claims)) = app.tokens.judge(&tokens.unwrap().access_token) else { unreachable!() };
    let by = By::user(claims.sid, origin());
    use_a_second_factor(app, id, "Another Password 1!", claims.sid, &by);
    let bob = app.users.create(invited("bob"), &By::operator()).unwrap();
    app.users.find(&UserRef::Email(email("bob"))).unwrap();
    app.users.by_id(bob.id).unwrap();
    for email in [None, Some("a".to_string())] {
        let filter = UserFilter { email, ..UserFilter::default() };
        app.users.page(&filter, Some(id), 10).unwrap().unwrap();
    }
    let renamed = UserChange { email: Some(email("robert")), ..UserChange::default() };
    app.users.change(bob.id, &renamed, &by).unwrap();
    app.users.sharing_email("").unwrap();
    for active in [false, false, true] {
        let change = UserChange { is_active: Some(active), ..UserChange::default() };
        app.users.change(bob.id, &change, &By::operator()).unwrap();
    }
    app.users.set_password(bob.id, password(PASSWORD), &By::operator()).unwrap();
    app.users
        .change_scopes(bob.id, &ScopeChange::Grant(Grants::parse(&["*", "keys:verify"]).unwrap()), &By::operator())
        .unwrap();
    let operators = |change: fn(Grants) -> ScopeChange| change(Grants::parse(&["keyward:admin"]).unwrap());
    app.users.change_scopes(bob.id, &operators(ScopeChange::Grant), &By::operator()).unwrap();
    assert!(app.users.change_scopes(bob.id, &operators(ScopeChange::Withdraw), &by).is_err(), "the last operator");
    app.users.change_scopes(bob.id, &operators(ScopeChange::Withdraw), &By::operator()).unwrap();
    app.users.note_costs().unwrap();
    for _ in 0..2 {
        let reset = app.recovery.request_reset(bob.id, &by).unwrap().unwrap();
        app.recovery.reset_password(reset.token.expose(), password(PASSWORD), &nobody).unwrap();
    }
    // The first login of an account without any session.
    app.sessions.log_in(&email("robert"), &proof(PASSWORD), origin()).unwrap();
    let older = UserId::parse("0192f0c1-0000-7000-8000-000000000001").unwrap();
    for purpose in Purpose::ALL {
        app.mailed_links.make(older, purpose).unwrap();
    }
    let link = |purpose| app.mailed_links.make(bob.id, purpose).unwrap().unwrap().url;
    let verify = |url: String| app.addresses.verify(url.split('#').nth(1).unwrap(), &nobody).unwrap();
    app.addresses.request_verification(bob.id).unwrap();
    verify(link(Purpose::Verification));
    for name in ["bobby", "rob"] {
        app.addresses.request_change(bob.id, "robert@example.com", &email(name), &proof(PASSWORD), &by).unwrap();
    }
    verify(link(Purpose::AddressChange));
    for name in ["rob", "nobody"] {
        app.recovery.note_forgotten(&email(name), &nobody).unwrap();
    }
    app.mailed_links.address_news(older).unwrap();
    app.mailed_links.note_told(older, "a@example.com").unwrap();
    let billing = UserDraft { kind: UserKind::Service, ..invited("billing") };
    let billing = app.users.create(billing, &By::operator()).unwrap();
    assert!(app.recovery.request_reset(billing.id, &by).is_err());

    // Wrong guesses.
    assert!(app.sessions.log_in(&email("ann"), &proof("wrong"), origin()).is_err());
    app.sessions.log_in(&email("ann"), &proof("Another Password 1!"), origin()).unwrap();
    assert!(app.sessions.log_in(&email("nobody"), &proof("wrong"), origin()).is_err());

    // Keys and their use.
    let settings = || KeySpec {
        name: "ci".to_string(),
        expires_at: Some(app.clock.now().plus(Duration::from_secs(60))),
        ..KeySpec::default()
    };
    let (key, secret) = app.keys.create(id, settings(), &by).unwrap().unwrap();
    let hash = KeyHash::of(secret.expose().as_bytes()).unwrap();
    let known = app.known_keys.fetch(hash).unwrap().unwrap();
    app.service_keys.fetch(known.id).unwrap().unwrap();
    app.keys.tell_of_expiry().unwrap();
    app.usage.note(key.id, Outcome::Allowed, app.clock.now());
    app.usage.flush().unwrap();
    app.keys.of_owner(id).unwrap();
    app.clock.advance(Duration::from_secs(120));
    let change = KeyChange { expires_at: Some(None), ..KeyChange::default() };
    app.keys.change(id, &key.id.to_string(), &change, &by).unwrap();
    let rotated = app.keys.rotate(id, &key.id.to_string(), Duration::from_secs(60), &by).unwrap();
    let now = app.clock.now();
    let period = Period { from: now.minus(config.keys.usage_retention), to: now, step: DAY };
    app.keys.usage(id, &key.id.to_string(), &period).unwrap();
    for owner in [None, Some(id)] {
        app.keys.list(owner, None, 10).unwrap();
    }
    app.keys.revoke(id, &rotated.key.id.to_string(), &by).unwrap();
    app.keys.revoke_any(key.id, &By::operator()).unwrap();
    list_keys(app, id);
    // As many as are asked for.
    store.keys_of(id, now, now, 1).unwrap();
    // Everything that has ended is too much.
    app.keys.create(id, settings(), &by).unwrap();
    while store.trim_keys(id, 0, now).unwrap().is_some() {}

    // Events.
    app.events.note_failure(Kind::LoginFailed, Some(id), &nobody);
    app.events.flush().unwrap();
    let latest = app.events.of_user(id, None, 2).unwrap();
    app.events.of_user(id, Some(latest[0].id), 2).unwrap();
    for (user, kind) in
        [(None, None), (Some(id), None), (None, Some(Kind::KeyCreated)), (Some(id), Some(Kind::KeyCreated))]
    {
        let filter = Filter { user, kind, since: None };
        app.events.list(&filter, Some(&latest[1]), 10).unwrap();
        app.events.newest(&filter, Some(latest[0].id), 10).unwrap();
    }

    // Figures.
    app.statistics.flush().unwrap();
    app.statistics.inventory().unwrap();
    app.statistics.activity(&period).unwrap();

    do_webhooks(app, bob.id);
    do_outbox(app, store, bob.id);

    // What is sealed.
    for of in [Sealed::SecondFactors, Sealed::Webhooks] {
        store.heads(of).unwrap();
        store.sealed_by(of, b"12345", id.0, 10).unwrap();
        store.replace_sealed(of, &[Renewed { row: id.0, old: Vec::new(), new: Vec::new() }]).unwrap();
    }

    // What ends and is forgotten.
    store.latest().unwrap();
    app.users.delete(bob.id, &By::operator()).unwrap();
    app.users.delete_own(id, ann, &proof("Another Password 1!"), &by).unwrap();
    app.clock.advance(Duration::from_secs(400 * 86_400));
    app.sessions.prune().unwrap();
    store.prune_tokens(app.clock.now()).unwrap();
    while store.prune_failures(0, app.clock.now()).unwrap() {}
    app.usage.prune(app.clock.now()).unwrap();
    app.statistics.prune().unwrap();
    app.events.prune().unwrap();
    let mut from = Uuid::nil();
    while let Some(next) = store.trim_deliveries(from, 0).unwrap() {
        from = next;
    }
    app.outbox.prune().unwrap();
    app.keys.prune().unwrap();
    while app.webhooks.prune().unwrap() {}
}

/// Endpoints of a user's and of the operators'. One of each stays until the account is deleted.
fn do_webhooks(app: &App, owner: UserId) {
    let by = By::operator();
    for holder in [Holder::User(owner), Holder::Operators] {
        let create = || {
            let url = app.webhooks.parse_url(holder, "https://hooks.example.com/in").unwrap();
            let spec = WebhookSpec { url, types: None, description: None };
            app.webhooks.create(holder, owner, spec, &by).unwrap().unwrap().0
        };
        let (webhook, id) = (create(), create().id.to_string());
        app.webhooks.of(holder).unwrap();
        for is_active in [false, true] {
            let change = WebhookChange { is_active: Some(is_active), ..WebhookChange::default() };
            app.webhooks.change(holder, &id, &change, &by).unwrap();
        }
        app.webhooks.rotate_secret(holder, &id, &by).unwrap();
        let test = app.webhooks.test(holder, &id).unwrap();
        app.webhooks.resend(holder, &id, &test.to_string()).unwrap();
        app.webhooks.deliveries(holder, &id, Some(test), 10).unwrap().unwrap();
        app.webhooks.target(webhook.id).unwrap().unwrap();
        app.webhooks.delete(holder, &id, &by).unwrap();
    }
    // An operator whose session and whose key have ended meanwhile.
    let operators = || Grants::parse(&["keyward:admin"]).unwrap();
    app.users.change_scopes(owner, &ScopeChange::Grant(operators()), &by).unwrap();
    let (session_id, key_id) = (SessionId::new(), KeyId::new());
    for credential in [Credential::Session { session_id }, Credential::Key { key_id }] {
        let by = By { actor: Actor::UserAsOperator { user_id: owner, by: Some(credential) }, origin: None };
        let own = app.webhooks.of(Holder::Operators).unwrap();
        assert!(app.webhooks.delete(Holder::Operators, &own[0].id.to_string(), &by).is_err());
    }
    app.users.change_scopes(owner, &ScopeChange::Withdraw(operators()), &by).unwrap();
}

/// Turns it on, logs in with it, and loses it.
fn use_a_second_factor(app: &App, user: UserId, password: &str, session: SessionId, by: &By) {
    let email = "ann@example.com";
    let begun = app.second_factors.begin(user, email, password, by).unwrap();
    let authenticator = Authenticator::new(&begun.secret, &app.clock);
    let code = Code::parse(&authenticator.code());
    let recovery_codes = app.second_factors.enable(user, session, &code, by).unwrap();
    let log_in = |code: &str| {
        let code = Code::parse(code);
        let proof = Proof { password, code: Some(&code) };
        app.sessions.log_in(&Email::parse(email).unwrap(), &proof, by.origin.clone().unwrap())
    };
    for _ in 0..10 {
        assert!(log_in(&authenticator.wrong_code()).is_err());
    }
    log_in(&recovery_codes[0]).unwrap();
    app.clock.advance(Duration::from_secs(30));
    let code = Code::parse(&authenticator.code());
    app.second_factors.disable(user, email, &Proof { password, code: Some(&code) }, by).unwrap();
    app.second_factors.reset(user, &By::operator()).unwrap();
}

/// An endpoint for which too much waits.
const FULL: Uuid = Uuid::from_u128(7);

fn fill_endpoint(driver: &impl Driver) {
    let endpoint = "INSERT INTO webhooks (id, user_id, is_operators, url, secret, is_active, created_at) VALUES \
        ($1, '0192f0c1-0000-7000-8000-000000000001', FALSE, 'https://a.example', $2, TRUE, '2026-01-01T00:00:00.000Z')";
    driver.execute(endpoint, &[Value::Uuid(FULL), Value::Bytes(Vec::new())]).unwrap();
    let row = |number: u128| vec![Value::Uuid(Uuid::from_u128(number)), Value::Uuid(FULL)];
    let insert = "WITH given (id, receiver) AS (ROWS) \
        INSERT INTO deliveries (id, channel, receiver, kind, body, count, created_at, next_at, tries) \
        SELECT id, 'webhook', receiver, 'key.created', '{}', 1, '2026-01-01T00:00:00.000Z', \
        '1970-01-01T00:00:00.000Z', 0 FROM given";
    let rows = &mut (0..10_001).map(row);
    driver
        .transaction(|transaction| transaction.execute_with_rows(insert, &[Column::Uuid, Column::Uuid], rows))
        .unwrap();
}

/// What is delivered, and what becomes of it.
fn do_outbox(app: &App, store: &dyn Store, owner: UserId) {
    let by = By::operator();
    let url = app.webhooks.parse_url(Holder::User(owner), "https://hooks.example.com/in").unwrap();
    let types = Some(Types::parse(&["login.failed", "key.created"]).unwrap());
    let spec = WebhookSpec { url, types, description: None };
    app.webhooks.create(Holder::User(owner), owner, spec, &by).unwrap().unwrap();
    app.events.note_failure(Kind::LoginFailed, Some(owner), &by);
    app.events.flush().unwrap();
    // Two notices, of which the second goes with the first.
    for name in ["first", "second"] {
        let spec = KeySpec { name: name.to_string(), ..KeySpec::default() };
        app.keys.create(owner, spec, &by).unwrap().unwrap();
    }
    app.clock.advance(Duration::from_secs(120));
    let wanted = [true, false].map(|is_slow| Wanted { after: Uuid::nil(), most: 100, is_slow });
    let holder = Uuid::now_v7();
    let found = store.due_endpoints(holder, &wanted).unwrap().endpoints.concat();
    assert!(found.len() > 2);
    let failed = Delivered::Failed { answer: Answer::default(), reason: "silent".to_string(), timed_out: true };
    let gone = Delivered::Gone(Answer::default());
    for turn in &found {
        assert!(store.take_turn(turn).unwrap());
        let due = store.due_for(turn).unwrap();
        if turn.endpoint == FULL {
            assert!(store.record_tries(turn, &[], Then::End).unwrap());
            continue;
        }
        let tried = |outcome: &Delivered| [Tried { due: due[0].clone(), outcome: outcome.clone(), is_slow: true }];
        assert!(store.record_tries(turn, &tried(&failed), Then::GoOn).unwrap());
        assert!(store.record_tries(turn, &tried(&gone), Then::End).unwrap());
    }
    let mails = store.take_mail(10).unwrap();
    for due in &mails {
        let tried = Tried { due: due.clone(), outcome: Delivered::Delivered(Answer::default()), is_slow: false };
        store.record_mail(&tried).unwrap();
    }
    store.return_mail(&mails).unwrap();
    store.call_others().unwrap();
}

/// Every kind of list, from its beginning and from a key on.
fn list_keys(app: &App, owner: UserId) {
    for owner in [None, Some(owner)] {
        let all = || KeyFilter { owner, ..KeyFilter::default() };
        let text = || Some("ci".to_string());
        let mut filters = vec![all(), KeyFilter { name: text(), ..all() }, KeyFilter { external_id: text(), ..all() }];
        let states = [KeyStatus::Usable, KeyStatus::Paused, KeyStatus::Expired, KeyStatus::Revoked];
        filters.extend(states.map(|status| KeyFilter { status: Some(status), ..all() }));
        for filter in filters {
            let page = app.keys.page(&filter, None, 1).unwrap().unwrap();
            app.keys.page(&filter, page.keys.first().map(|(key, _)| key.id), 1).unwrap();
        }
    }
}

/// Fails for a statement in the source that was not noted: its plan would be read by nobody.
fn assert_nothing_is_missing(noted: &BTreeSet<Statement>) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sql");
    let mut missing = Vec::new();
    for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let source = std::fs::read_to_string(&file).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap();
        let starts = ["\"SELECT ", "\"INSERT ", "\"UPDATE ", "\"DELETE ", "\"WITH ", "select!(\""];
        for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let Some(start) = starts.iter().find_map(|start| line.find(start)) else { continue };
            let literal = line[start..].split('"').nth(1).unwrap().trim_end_matches('\\').trim_end();
            if !noted.iter().any(|(sql, _)| sql.contains(literal)) {
                missing.push(format!("{}: {literal}", file.display()));
            }
        }
    }
    assert_eq!(missing, [""; 0], "these were not run: do them in `do_everything`");
}

/// Whether a statement reads a page of keys. It must find them in their order, and none between them.
fn is_page(sql: &str) -> bool {
    sql.starts_with("SELECT id, created_at, name, external_id")
}

/// What counts everything reads everything. It is done once a minute at most: operators alone ask for it, or it is a job
/// over the million failures that are kept.
fn counts_everything(sql: &str) -> bool {
    sql.starts_with("SELECT kind, is_active, COUNT(*) FROM users ")
        || sql == "SELECT until FROM failures ORDER BY until DESC LIMIT 1 OFFSET $1"
        || ["sessions", "api_keys"]
            .iter()
            .any(|table| sql.starts_with("SELECT COUNT(*)") && sql.contains(&format!("FROM {table} JOIN users ")))
}

/// They have a row for each migration, and for each lock.
const SMALL: [&str; 2] = ["schema_migrations", "locks"];

/// Indexes of few rows: the operators, their endpoints, and those that are deleted and go with the next job.
const FEW: [&str; 3] = ["users_operators", "webhooks_of_operators", "webhooks_deleted"];

/// To everybody.
fn outlet() -> Arc<Outlet> {
    Arc::new(Outlet::new(Reach { operators: true, users: true, mail: true }))
}

#[test]
fn every_statement_finds_its_rows_by_an_index_on_sqlite() {
    let mut home = Home::fresh(Backend::Sqlite);
    home.set("DATA_KEY", &"7".repeat(64));
    let file = home.path("keyward.db");
    let noted = statements(Sqlite::open(&file).unwrap().with_outlet(outlet()), &home);
    assert_nothing_is_missing(&noted);
    let database = rusqlite::Connection::open(&file).unwrap();
    let mut bad = Vec::new();
    for (sql, columns) in noted.iter().filter(|(sql, _)| !counts_everything(sql)) {
        // As the driver does.
        let row = (1..=columns.len()).map(|column| format!("?{column}")).collect::<Vec<_>>().join(", ");
        let sql = sql
            .split(" FOR UPDATE")
            .next()
            .unwrap()
            .replace('$', "?")
            .replace("= ANY(?1)", "= ?1")
            .replace("ROWS", &format!("VALUES ({row})"));
        let mut statement = database.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let count = statement.parameter_count();
        let nothing = vec![rusqlite::types::Null; count];
        let steps = statement.query_map(rusqlite::params_from_iter(nothing), |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<String> = steps.map(Result::unwrap).collect();
        // The first or last of an index is found by it, and what a query within has found is no table.
        let is_first = steps.len() == 1 && sql.ends_with("LIMIT 1");
        let found =
            |what: &str| ["CO-ROUTINE", "MATERIALIZE"].iter().any(|made| steps.contains(&format!("{made} {what}")));
        let strays = |step: &String| step.contains("TEMP B-TREE");
        // What waits for one endpoint must not be sought among what waits for all.
        let is_of_endpoint = ["receiver = ", "receiver > "].iter().any(|condition| sql.contains(condition));
        let looks_at_others = |step: &String| is_of_endpoint && step.contains("_by_time");
        let looks_at_all = |step: &String| {
            step.strip_prefix("SCAN ").is_some_and(|what| {
                let is_fine = what == "CONSTANT ROW" || found(what) || FEW.iter().any(|few| what.ends_with(few));
                !(is_fine || is_first && what.contains(" USING COVERING INDEX "))
            })
        };
        if steps.iter().any(|step| looks_at_all(step) || looks_at_others(step))
            || (is_page(&sql) && steps.iter().any(strays))
        {
            bad.push(format!("{sql}\n    {}", steps.join("\n    ")));
        }
    }
    assert!(bad.is_empty(), "these look at whole tables:\n\n{}", bad.join("\n\n"));
}

#[test]
fn every_statement_finds_its_rows_by_an_index_on_postgresql() {
    if !available() {
        return;
    }
    let home = Home::fresh(Backend::Postgres);
    let Ok(Database::Postgres(target)) = home.config().store.database() else { unreachable!() };
    let noted = statements(Postgres::connect(&target, Patience::OfAClient).unwrap().with_outlet(outlet()), &home);
    assert_nothing_is_missing(&noted);
    let mut client = home.database().unwrap().client();
    client.batch_execute(FILL).unwrap();
    client.batch_execute("SET plan_cache_mode = force_generic_plan").unwrap();
    let mut bad = Vec::new();
    for (sql, columns) in noted.iter().filter(|(sql, _)| !counts_everything(sql)) {
        // As the driver does.
        let arrays = columns.iter().enumerate().map(|(index, kind)| format!("${}::{kind}[]", index + 1));
        let given = format!("SELECT * FROM unnest({})", arrays.collect::<Vec<_>>().join(", "));
        let sql = sql.replace("ROWS", &given);
        let count = (1..=20).rev().find(|number| sql.contains(&format!("${number}"))).unwrap_or(0);
        client.batch_execute(&format!("PREPARE plan AS {sql}")).unwrap();
        let nothing = if count == 0 { String::new() } else { format!("({})", vec!["NULL"; count].join(", ")) };
        let steps = client.query(&format!("EXPLAIN (COSTS OFF) EXECUTE plan{nothing}"), &[]).unwrap();
        client.batch_execute("DEALLOCATE plan").unwrap();
        let steps: Vec<String> = steps.iter().map(|row| row.get(0)).collect();
        // A filter would pass over keys, for as long as it takes to find enough.
        let strays = |step: &String| step.contains("Sort") || step.contains("Filter");
        let looks_at_all =
            |step: &String| step.contains("Seq Scan on") && !SMALL.iter().any(|table| step.contains(table));
        if steps.iter().any(looks_at_all) || (is_page(&sql) && steps.iter().any(strays)) {
            bad.push(format!("{sql}\n    {}", steps.join("\n    ")));
        }
    }
    assert!(bad.is_empty(), "these look at whole tables:\n\n{}", bad.join("\n\n"));
}

/// Many rows of many users, as text and numbers that are what they have to be and nothing more.
const FILL: &str = "
    CREATE FUNCTION id(kind int, n bigint) RETURNS uuid IMMUTABLE LANGUAGE sql AS
        $$ SELECT CAST(lpad(to_hex(kind), 8, '0') || '-0000-7000-8000-' || lpad(to_hex(n), 12, '0') AS uuid) $$;
    INSERT INTO users (id, email, password_hash, is_active, created_at)
        SELECT id(1, n), n || '@example.com', '$2b$10$' || md5(n::text), TRUE, now() FROM generate_series(1, 10000) n;
    INSERT INTO sessions (id, user_id, generation, created_at, expires_at, ip)
        SELECT id(2, n), id(1, 1 + n % 10000), 1, now(), now() + n * interval '1 s', '192.0.2.1'
        FROM generate_series(1, 60000) n;
    INSERT INTO api_keys
        (id, user_id, hash, hint, name, is_active, created_at, expires_at, revoked_at, external_id, notice_at)
        SELECT id(3, n), id(1, 1 + n % 10000), decode(md5(n::text), 'hex'), '', 'key ' || n % 3000, n % 50 > 1,
               now() - n * interval '1 s', CASE WHEN n % 5 = 0 THEN now() END, CASE WHEN n % 50 = 0 THEN now() END,
               CASE WHEN n % 2 = 0 THEN 'customer ' || n % 9000 END,
               CASE WHEN n % 5 = 0 THEN now() + n * interval '1 s' END
        FROM generate_series(1, 60000) n;
    INSERT INTO key_last_use SELECT id(3, n), now() FROM generate_series(1, 60000) n;
    INSERT INTO key_hours (key_id, hour, allowed, disabled, expired)
        SELECT id(3, 1 + n % 5000), 400000 + n / 5000, 1, 0, 0 FROM generate_series(1, 100000) n;
    INSERT INTO events (id, at, kind, user_id, actor, details, count)
        SELECT id(4, n), now() - n * interval '1 s', 'kind' || n % 16, id(1, 1 + n % 10000),
               'operator', '{}', 1
        FROM generate_series(1, 100000) n;
    INSERT INTO second_factors (user_id, secret, created_at, last_step, wrong)
        SELECT id(1, n), decode(md5(n::text), 'hex'), now(), 0, 0 FROM generate_series(1, 9000) n;
    INSERT INTO recovery_codes (user_id, hash)
        SELECT id(1, 1 + n % 9000), decode(md5(n::text), 'hex') FROM generate_series(1, 60000) n;
    INSERT INTO one_time_tokens (id, user_id, kind, hash, created_at, expires_at)
        SELECT id(5, n), id(1, 1 + n % 10000), 'reset-password', decode(md5(n::text), 'hex'), now(),
               now() + n * interval '1 s'
        FROM generate_series(1, 30000) n;
    INSERT INTO email_changes (user_id, asked_at) SELECT id(1, n), '[]' FROM generate_series(1, 10000) n
        ON CONFLICT DO NOTHING;
    INSERT INTO failures SELECT id(6, n), 1, now() - n * interval '1 s' FROM generate_series(1, 30000) n;
    INSERT INTO account_failures SELECT id(6, n), now() - n * interval '1 s' FROM generate_series(1, 30000) n;
    INSERT INTO figures SELECT n, 'login', 1 FROM generate_series(1, 20000) n;
    INSERT INTO deliveries (id, channel, receiver, kind, event_id, body, count, created_at, next_at, tries)
        SELECT id(8, n), CASE WHEN n % 10 = 0 THEN 'mail' ELSE 'webhook' END, id(7, n % 3000), 'kind' || n, id(4, n),
               CASE WHEN n % 100 > 0 THEN '{}' END, 1, now() - n * interval '1 s',
               CASE WHEN n % 7 < 3 THEN now() + n * interval '1 s' END, 1
        FROM generate_series(1, 100000) n;
    INSERT INTO delivery_leases SELECT id(7, n), id(9, n), now() FROM generate_series(1, 1000) n;
    INSERT INTO webhooks (id, user_id, is_operators, url, secret, is_active, created_at, deleted_at)
        SELECT id(7, n), id(1, 1 + n % 10000), n % 300 = 0, 'https://a.example', '', TRUE, now() - n * interval '1 s',
               CASE WHEN n % 1000 = 7 THEN now() END
        FROM generate_series(1, 30000) n;
    ANALYZE;
";
