//! Which settings the program takes, from where, and what it says of those that it does not.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use keyward_harness::http_client::PATIENCE;
use keyward_harness::postgres_cluster;
use keyward_harness::program::{Home, Server, finish, in_both_homes};
use keyward_harness::relay::Relay;
use keyward_harness::service::Backend;

use super::refusal;

#[test]
fn a_bad_value_stops_the_start_with_one_line_that_names_the_variable() {
    let home = Home::fresh(Backend::Sqlite);
    for (name, value) in [
        ("HOST", "localhost"),
        ("PORT", "70000"),
        ("PORT", "http"),
        ("KEYWARD_DB", ":memory:"),
        ("DATABASE_URL", "mysql://u:hunter2@localhost/db"),
        ("DATABASE_URL", "postgres://u:hunter2@localhost:x/db"),
        ("DB_SSLMODE", "allow"),
        ("JWT_SECRET", "hunter2"),
        ("JWT_REFRESH_SECRET", "hunter2"),
        ("JWT_REFRESH_SECRET_PREVIOUS", "hunter2"),
        ("JWT_ALG", "none"),
        ("JWT_EXPIRES_IN", "3600"),
        ("JWT_REFRESH_EXPIRES_IN", "7 days"),
        ("BCRYPT_COST", "4"),
        ("SIGNUP", "maybe"),
        ("MAX_CONNECTIONS", "0"),
        ("LOG_FORMAT", "xml"),
    ] {
        for from_file in [false, true] {
            let line = if from_file {
                let mut home = Home::fresh(Backend::Sqlite);
                home.unset(name);
                std::fs::write(home.path(".env"), format!("{name}='{value}'\n")).unwrap();
                refusal(&home, &[])
            } else {
                refusal(&home, &[(name, value)])
            };
            assert!(line.starts_with(&format!("{name}: ")), "{name}={value}: {line}");
            assert!(!line.contains("hunter2"), "{name}={value}: {line}");
        }
    }
    assert_eq!(home.files(), [""; 0], "a start that is refused leaves nothing behind");
}

#[test]
fn a_line_of_env_that_cannot_be_read_is_not_repeated() {
    for content in [
        "PORT=0\nJWT_SECRET=hunter2 and more hunter2\n",
        "hunter2\n",
        "JWT_SECRET='hunter2\n",
        "JWT SECRET=hunter2\n",
        "=hunter2\n",
        "JWT_SECRET=\"hunter2\\q\"\n",
    ] {
        let home = Home::fresh(Backend::Sqlite);
        std::fs::write(home.path(".env"), content).unwrap();
        let line = refusal(&home, &[]);
        assert!(line.starts_with(".env: "), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
    let home = Home::fresh(Backend::Sqlite);
    std::fs::write(home.path(".env"), b"JWT_SECRET=\xffhunter2\n").unwrap();
    let line = refusal(&home, &[]);
    assert!(line.starts_with(".env: ") && !line.contains("hunter2"), "{line}");
}

#[test]
fn a_value_that_is_not_utf_8_stops_the_start() {
    use std::os::unix::ffi::OsStrExt;
    let home = Home::fresh(Backend::Sqlite);
    let value = std::ffi::OsStr::from_bytes(b"hunter2\xff");
    let finished = finish(home.command(&[]).env("JWT_SECRET", value), "");
    let line = finished.failed(1);
    assert!(line.starts_with("JWT_SECRET: ") && !line.contains("hunter2"), "{line}");
}

#[test]
fn the_environment_wins_over_env_and_env_over_the_defaults() {
    let mut home = Home::fresh(Backend::Sqlite);
    home.set("SIGNUP", "open");
    std::fs::write(home.path(".env"), "PORT=http\nSIGNUP=closed\nKEYWARD_DB=users.db\n").unwrap();
    let server = home.start(&[]);
    server.client().sign_up("ann@example.com");
    assert!(home.path("users.db").exists() && !home.path("keyward.db").exists());
}

#[test]
fn env_is_read_from_the_working_directory_and_from_no_other() {
    let home = Home::fresh(Backend::Sqlite);
    std::fs::write(home.path(".env"), "PORT=http\n").unwrap();
    let below = home.path("below");
    std::fs::create_dir(&below).unwrap();
    let finished = finish(home.command(&["migrate"]).env_remove("PORT").current_dir(&below), "");
    finished.succeeded();
    assert!(below.join("keyward.db").exists());
}

#[test]
fn settings_of_a_database_without_its_host_never_fall_back_to_a_file() {
    let home = Home::fresh(Backend::Sqlite);
    for (name, value) in [("DB_NAME", "keyward"), ("DB_PASSWORD", "hunter2")] {
        let line = refusal(&home, &[(name, value)]);
        assert!(line.starts_with(&format!("{name}: ")) && line.contains("DB_HOST"), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
    assert_eq!(home.files(), [""; 0]);
}

#[test]
fn a_port_that_is_taken_is_one_line() {
    let home = Home::fresh(Backend::Sqlite);
    let first = home.start(&[]);
    let line = refusal(&home, &[("PORT", &first.address().port().to_string())]);
    assert!(line.contains(&first.address().to_string()) && line.contains("HOST and PORT"), "{line}");
    let line = refusal(&home, &[("HOST", "203.0.113.1")]);
    assert!(line.contains("203.0.113.1"), "{line}");
    assert_eq!(first.client().get("/health").send().status, 200);
}

#[test]
fn database_url_wins_over_the_single_settings() {
    if !postgres_cluster::available() {
        return;
    }
    let home = Home::fresh(Backend::Postgres);
    let server = home.start(&[("DB_HOST", "127.0.0.1"), ("DB_PORT", "1"), ("DB_NAME", "no_such_database")]);
    for name in ["DB_HOST", "DB_PORT", "DB_NAME"] {
        assert_eq!(warnings(&server, name).len(), 1, "{name}: {:?}", server.log());
    }
    server.client().sign_up("ann@example.com");
    let users = home.database().unwrap().client().query_one("SELECT email FROM users", &[]).unwrap();
    assert_eq!(users.get::<_, String>(0), "ann@example.com");
}

/// The warnings that name a setting.
fn warnings<'a>(server: &'a Server<'_>, name: &str) -> Vec<&'a str> {
    let lines = server.log().iter().map(String::as_str).filter(|line| line.contains("WARN"));
    lines.filter(|line| line.contains(&format!("{name}: "))).collect()
}

#[test]
fn a_setting_that_has_no_effect_is_told_at_the_start_and_not_by_commands() {
    if !postgres_cluster::available() {
        return;
    }
    let mut home = Home::fresh(Backend::Postgres);
    home.set("KEYWARD_DB", "users.db");
    home.set("DB_PASSWORD", "hunter2");
    home.run(&["migrate"]).succeeded();
    home.run(&["user", "list"]).succeeded();
    let server = home.start(&[]);
    let told = warnings(&server, "KEYWARD_DB");
    assert!(told.len() == 1 && told[0].contains("has no effect: the database is PostgreSQL"), "{told:?}");
    assert_eq!(warnings(&server, "DB_PASSWORD").len(), 1, "{:?}", server.log());
    assert_eq!(warnings(&server, "DATABASE_URL"), [""; 0]);
    assert!(!server.stop().stderr.contains("hunter2"));

    let file = home.path("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    home.unset("DB_PASSWORD");
    home.unset("KEYWARD_DB");
    let server = home.start(&[("DB_PASSWORD_FILE", file.to_str().unwrap())]);
    assert_eq!(warnings(&server, "DB_PASSWORD_FILE").len(), 1, "{:?}", server.log());
}

in_both_homes! {
    fn the_port_that_kubernetes_sets_for_a_service_called_db_is_passed_over_with_a_warning(home) {
        let port = ("DB_PORT", "tcp://10.0.0.1:5432");
        let server = home.start(&[port]);
        let told = warnings(&server, "DB_PORT");
        assert!(told.len() == 1 && told[0].contains("Kubernetes"), "{told:?}");
        server.client().sign_up("ann@example.com");
        server.stop();
        // Of a port that is needed, nothing is guessed.
        let mut home = home;
        home.unset("DATABASE_URL");
        let line = refusal(&home, &[port, ("DB_HOST", "127.0.0.1")]);
        assert!(line.starts_with("DB_PORT: \"tcp://10.0.0.1:5432\" is not a whole number; accepted: 1 to 65535"), "{line}");
    }
}

#[test]
fn the_single_settings_lead_to_the_same_database() {
    if !postgres_cluster::available() {
        return;
    }
    let mut home = Home::fresh(Backend::Postgres);
    home.unset("DATABASE_URL");
    let database = home.database().unwrap();
    let settings = [
        ("DB_HOST", database.host()),
        ("DB_PORT", &database.port().to_string()),
        ("DB_USERNAME", database.user()),
        ("DB_PASSWORD", database.password()),
        ("DB_NAME", database.name()),
    ];
    home.start(&settings).client().sign_up("ann@example.com");
    let users = database.client().query_one("SELECT email FROM users", &[]).unwrap();
    assert_eq!(users.get::<_, String>(0), "ann@example.com");
}

#[test]
fn postgresql_without_secrets_stops_the_start() {
    if !postgres_cluster::available() {
        return;
    }
    for name in ["JWT_SECRET", "JWT_REFRESH_SECRET"] {
        let mut home = Home::fresh(Backend::Postgres);
        home.unset(name);
        let line = refusal(&home, &[]);
        assert!(line.starts_with(&format!("{name}: ")), "{line}");
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
        let tables: i64 = home.database().unwrap().client().query_one(tables, &[]).unwrap().get(0);
        assert_eq!((tables, home.files()), (0, Vec::new()), "nothing was made");
    }
}

#[test]
fn a_postgresql_that_is_away_or_refuses_is_one_line_without_the_password() {
    if !postgres_cluster::available() {
        return;
    }
    let home = Home::fresh(Backend::Postgres);
    let database = home.database().unwrap();
    let (host, port) = (database.host(), database.port());
    for (url, expected) in [
        (format!("postgres://{}:hunter2@{host}:1/{}", database.user(), database.name()), "PostgreSQL"),
        (format!("postgres://{}:hunter2@{host}:{port}/{}", database.user(), database.name()), "password"),
        (database.url().replace(database.name(), "no_such_database"), "no_such_database"),
        (format!("postgres://u:hunter2@no-such-host.invalid/{}", database.name()), "PostgreSQL"),
    ] {
        let line = refusal(&home, &[("DATABASE_URL", &url)]);
        assert!(line.contains(expected), "{line}");
        assert!(!line.contains("hunter2") && !line.contains(database.password()), "{line}");
    }
}

#[test]
fn a_postgresql_that_stays_silent_does_not_hold_up_the_start_for_ever() {
    if !postgres_cluster::available() {
        return;
    }
    let home = Home::fresh(Backend::Postgres);
    let database = home.database().unwrap();
    let relay = Relay::to(SocketAddr::from((Ipv4Addr::LOCALHOST, database.port())));
    relay.freeze();
    let url = database.url_at(relay.addr().port());
    let started = Instant::now();
    let line = refusal(&home, &[("DATABASE_URL", &url)]);
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    assert!(!line.contains(database.password()), "{line}");
}

#[test]
fn of_several_hosts_one_that_is_switched_off_keeps_nobody_from_the_others() {
    if !postgres_cluster::available() {
        return;
    }
    let home = Home::fresh(Backend::Postgres);
    let database = home.database().unwrap();
    // Whose queue is full, nobody gets an answer from.
    let off = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    rustix::net::listen(&off, 0).unwrap();
    let _queued = TcpStream::connect(off.local_addr().unwrap()).unwrap();
    let there = format!("{}:{}", database.host(), database.port());
    let url = database.url().replace(&there, &format!("{},{there}", off.local_addr().unwrap()));
    // One second is left for the host that is there. A busy machine may need more once.
    let is_reached = || home.command(&["migrate"]).env("DATABASE_URL", &url).output().unwrap().status.success();
    assert!((0..3).any(|_| is_reached()));
}
