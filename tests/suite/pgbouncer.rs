//! PgBouncer between Keyward and PostgreSQL, in transaction mode: each transaction may have another server, and nothing
//! of a session holds.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use keyward_harness::http_client::{Client, PATIENCE};
use keyward_harness::postgres_cluster::{Database, create_directory};
use keyward_harness::program::{Home, Process};
use keyward_harness::relay::free_port;
use keyward_harness::service::{Backend, PASSWORD, SOON, within};
use keyward_harness::tools::{Tool, installed};
use serde_json::json;

/// Servers that the pooler shares out.
const SERVERS: usize = 3;

/// A PgBouncer of a test's own before a database. It has the server's own password for its clients.
struct PgBouncer {
    port: u16,
    folder: PathBuf,
    _process: Process,
}

impl PgBouncer {
    fn before(database: &Database) -> PgBouncer {
        let user = format!("\"{}\" \"{}\"\n", database.user(), database.password());
        let (folder, owner) = create_directory(&user).unwrap();
        let port = free_port();
        let settings = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = {SERVERS}\nserver_lifetime = 3600\n",
            database.host(),
            database.port(),
            folder.join("password").display(),
        );
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, settings).unwrap();
        let mut command = Command::new(Tool::PgBouncer.path().unwrap());
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(&file, Some(user), Some(group)).unwrap();
            command.uid(user).gid(group);
        }
        let process = Process(command.spawn().unwrap());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        within(PATIENCE, "the pooler takes connections", || TcpStream::connect(address).is_ok());
        PgBouncer { port, folder, _process: process }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A home whose `DATABASE_URL` leads through the pooler.
fn home_behind_a_pooler() -> Option<(PgBouncer, Home)> {
    if !installed(&[Tool::Postgres, Tool::PgBouncer]) {
        return None;
    }
    let mut home = Home::fresh(Backend::Postgres);
    let pooler = PgBouncer::before(home.database().unwrap());
    home.set("DATABASE_URL", &home.database().unwrap().url_at(pooler.port));
    for name in ["RATE_LIMIT_SIGNUP", "RATE_LIMIT_LOGIN", "RATE_LIMIT_REFRESH", "RATE_LIMIT_WRITES"] {
        home.set(name, "off");
    }
    Some((pooler, home))
}

/// Signs up and asks for everything that reads and writes. Returns how many answers were given, and how many of them
/// were other than they should be.
fn ask_for_everything(client: &Client, number: usize) -> (usize, Vec<String>) {
    let mut answers = 0;
    let mut wrong = Vec::new();
    let mut expect = |status: u16, answer: keyward_harness::http_client::Answer| {
        answers += 1;
        if answer.status != status {
            wrong.push(format!("{} instead of {status}: {}", answer.status, answer.text()));
        }
        answer
    };
    let form = json!({ "email": format!("user{number}@example.com"), "password": PASSWORD });
    expect(201, client.post("/auth/signup").json(form.clone()).send());
    let login = expect(200, client.post("/auth/login").json(form).send());
    if login.status != 200 {
        return (answers, wrong);
    }
    let text = |answer: &keyward_harness::http_client::Answer, name: &str| {
        answer.json()[name].as_str().unwrap_or_default().to_string()
    };
    let (mut access, mut refresh) = (text(&login, "accessToken"), text(&login, "refreshToken"));
    for round in 0..5 {
        let made = client.post("/keys/create").bearer(&access).json(json!({ "name": format!("key {round}") })).send();
        let made = expect(201, made);
        let key = text(&made, "key");
        expect(200, client.get("/protected/service-only").api_key(&key).send());
        expect(200, client.get("/auth/me").bearer(&access).send());
        expect(200, client.get("/keys").bearer(&access).send());
        expect(200, client.get("/auth/events").bearer(&access).send());
        expect(200, client.get("/authz/forward-auth").bearer(&access).send());
        let pair = expect(200, client.post("/auth/refresh").json(json!({ "refreshToken": refresh })).send());
        (access, refresh) = (text(&pair, "accessToken"), text(&pair, "refreshToken"));
        expect(200, client.delete(&format!("/keys/{}", text(&made, "id"))).bearer(&access).send());
        expect(401, client.get("/protected/service-only").api_key(&key).send());
    }
    (answers, wrong)
}

#[test]
fn through_a_pooler_in_transaction_mode_every_answer_is_the_right_one() {
    let Some((pooler, home)) = home_behind_a_pooler() else { return };
    let mut server = home.start(&[]);
    let told = server.wait_for_line("DATABASE_URL_DIRECT");
    assert!(told.contains("WARN") && told.contains("take up to 5 s"), "{told}");
    let address = server.address();
    let answers = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..8 {
            let answers = &answers;
            scope.spawn(move || {
                let (count, wrong) = ask_for_everything(&Client::new(address, keyward_harness::openapi::check), number);
                assert_eq!(wrong, Vec::<String>::new(), "of {count} answers");
                answers.fetch_add(count, Ordering::SeqCst);
            });
        }
    });
    println!("{} answers", answers.into_inner());
    // Commands go the same way.
    let listed = home.run(&["user", "list"]).succeeded();
    assert_eq!(listed.lines().count(), 1 + 8, "{listed}");

    // Those who have the servers after us find them as they left them.
    let database = home.database().unwrap();
    let url = database.url_at(pooler.port);
    let mut clients: Vec<_> = (0..SERVERS).map(|_| postgres::Client::connect(&url, postgres::NoTls).unwrap()).collect();
    for client in &mut clients {
        client.batch_execute("BEGIN").unwrap();
    }
    for client in &mut clients {
        for (setting, expected) in [
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("plan_cache_mode", "auto"),
            ("default_transaction_isolation", "read committed"),
        ] {
            let row = client.simple_query(&format!("SHOW {setting}")).unwrap();
            let Some(postgres::SimpleQueryMessage::Row(row)) = row.get(1) else { panic!("{setting}: {row:?}") };
            assert_eq!(row.get(0), Some(expected), "{setting}");
        }
        let left = client.simple_query("SELECT name FROM pg_prepared_statements").unwrap();
        assert!(left.iter().all(|message| !matches!(message, postgres::SimpleQueryMessage::Row(_))), "{left:?}");
        client.batch_execute("COMMIT").unwrap();
    }
    drop(clients);
    let said = server.stop();
    assert_eq!(said.stderr.matches("DATABASE_URL_DIRECT").count(), 1, "{}", said.stderr);
    assert!(!said.stderr.contains("ERROR"), "{}", said.stderr);
}

#[test]
fn with_the_direct_url_as_well_changes_made_elsewhere_take_effect_at_once() {
    let Some((_pooler, mut home)) = home_behind_a_pooler() else { return };
    let direct = home.database().unwrap().url();
    home.set("DATABASE_URL_DIRECT", &direct);
    let (here, there) = (home.start(&[]), home.start(&[]));
    let (answers, wrong) = ask_for_everything(&here.client(), 1);
    assert!(wrong.is_empty(), "of {answers}: {wrong:?}");
    let form = json!({ "email": "user1@example.com", "password": PASSWORD });
    let access =
        here.client().post("/auth/login").json(form).send().json()["accessToken"].as_str().unwrap().to_string();
    let made = here.client().post("/keys/create").bearer(&access).json(json!({ "name": "ci" })).send().json();
    let key = made["key"].as_str().unwrap();
    // What an instance remembers while it hears nothing ends after 5 s.
    for _ in 0..3 {
        assert_eq!(there.client().get("/protected/service-only").api_key(key).send().status, 200);
    }
    let revoked = here.client().delete(&format!("/keys/{}", made["id"].as_str().unwrap())).bearer(&access).send();
    assert_eq!(revoked.status, 200);
    let at = Instant::now();
    within(SOON, "the key is refused by the other instance", || {
        there.client().get("/protected/service-only").api_key(key).send().status == 401
    });
    println!("refused {:?} after it was revoked elsewhere", at.elapsed());
    for server in [here, there] {
        let said = server.stop().stderr;
        assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    }
}

#[test]
fn a_schema_of_its_own_is_set_in_each_transaction_through_a_pooler() {
    let Some((_pooler, mut home)) = home_behind_a_pooler() else { return };
    let database = home.database().unwrap();
    let direct = database.url();
    database.client().batch_execute("CREATE TABLE users (id INTEGER); CREATE SCHEMA keyward").unwrap();
    let tables = |home: &Home| -> i64 {
        let count = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
        home.database().unwrap().client().query_one(count, &[]).unwrap().get(0)
    };
    // The pooler refuses options that it does not know.
    let url = format!("{}?options=-csearch_path%3Dkeyward", home.setting("DATABASE_URL").unwrap());
    home.set("DATABASE_URL", &url);
    let server = home.start(&[]);
    let (answers, wrong) = ask_for_everything(&server.client(), 1);
    assert!(wrong.is_empty(), "of {answers}: {wrong:?}");
    server.stop();
    // The other URL need not say it again.
    home.set("DATABASE_URL_DIRECT", &direct);
    let server = home.start(&[]);
    let (answers, wrong) = ask_for_everything(&server.client(), 2);
    assert!(wrong.is_empty(), "of {answers}: {wrong:?}");
    let said = server.stop().stderr;
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    assert_eq!(home.run(&["user", "list"]).succeeded().lines().count(), 3);
    assert_eq!(tables(&home), 1);
}
