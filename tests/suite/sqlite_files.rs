//! SQLite's file, and what is done to it under a server or after a crash: whatever it is, the data is whole or there is
//! one line that says what happened and how to restore.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use keyward_harness::http_client::Client;
use keyward_harness::program::{Finished, Home, Process, finish};
use keyward_harness::service::{Backend, PASSWORD};
use keyward_harness::tools::{Tool, installed, skip};
use rusqlite::Connection;
use serde_json::{Value, json};

fn home() -> Home {
    Home::fresh(Backend::Sqlite)
}

#[track_caller]
fn create_key(client: &Client, access: &str, name: &str) {
    let answer = client.post("/keys/create").bearer(access).json(json!({ "name": name })).send();
    assert_eq!(answer.status, 201, "{answer:?}");
}

/// The names of all keys, oldest first.
#[track_caller]
fn keys(home: &Home) -> Vec<String> {
    let listed: Value = serde_json::from_str(&home.run(&["key", "list", "--json"]).succeeded()).unwrap();
    listed.as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_string()).collect()
}

/// The commands of `docs/deployment.md` that make a backup and restore it.
fn documented_commands() -> (String, String) {
    let page = include_str!("../../docs/deployment.md");
    let line =
        |part: &str| page.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}")).to_string();
    (line("VACUUM INTO"), line("keyward.db-wal"))
}

/// As the document does it.
fn back_up(home: &Home) {
    let database = rusqlite::Connection::open(home.path("keyward.db")).unwrap();
    database.execute("VACUUM INTO ?1", [home.path("backup.db").to_str()]).unwrap();
}

/// Runs them where the database is.
#[track_caller]
fn shell(home: &Home, commands: &str) {
    let finished = finish(Command::new("/bin/sh").args(["-ec", commands]).current_dir(home.path(".")), "");
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{commands}");
}

/// A server's life after the backup: what was in the -wal is in the database, and there are newer changes in the -wal. Then
/// it is killed.
fn live_on_and_crash(home: &Home, access: &str) {
    let server = home.start(&[]);
    create_key(&server.client(), access, "second");
    let events = "INSERT INTO events (id, at, kind, actor, details, count)
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
        SELECT printf('0192f0c1-0000-7000-8000-%012d', i), '2026-01-01T00:00:00.000Z', 'user.created', 'operator', '{}', 1
        FROM n;";
    let database = rusqlite::Connection::open(home.path("keyward.db")).unwrap();
    database.execute_batch(events).unwrap();
    database.pragma_query(None, "wal_checkpoint", |_| Ok(())).unwrap();
    // While the server lives: the last one to close the database would remove the -wal.
    drop(database);
    create_key(&server.client(), access, "third");
    create_key(&server.client(), access, "fourth");
    server.kill();
}

#[track_caller]
fn assert_refused(home: &Home, why: &str) {
    let contents = || home.files().iter().map(|file| fs::read(home.path(file)).unwrap()).collect::<Vec<_>>();
    let (files, before) = (home.files(), contents());
    for arguments in [&[][..], &["migrate"], &["user", "list"], &["events"]] {
        let finished = home.run(arguments);
        let line = finished.failed(1);
        assert!(line.contains(why), "{arguments:?}: {line}");
        let database = home.path("keyward.db");
        let advice = format!("remove {0}-wal and {0}-shm, put the backup in the place of {0}", database.display());
        assert!(line.contains(&advice), "{arguments:?}: {line}");
    }
    assert_eq!((home.files(), contents() == before), (files, true), "nothing is changed");
}

#[test]
fn a_database_that_is_replaced_or_removed_under_the_server_stops_it_with_one_line() {
    let told = |finished: &Finished, file: &str, what: &str| {
        let said: Vec<&str> = finished.stderr.lines().filter(|line| line.contains("while it was in use")).collect();
        assert_eq!((finished.code, said.len()), (Some(1), 1), "{finished:?}");
        assert!(
            said[0].contains(&format!("{file} was {what}")) && said[0].contains("to restore a backup, stop"),
            "{said:?}"
        );
    };
    type Deed = fn(&Home);
    let deeds: [(Deed, &str, &str); 5] = [
        (|home| shell(home, "mv backup.db keyward.db"), "keyward.db", "replaced"),
        // Between the two steps the file is missing: a look at that moment says "removed".
        (|home| shell(home, "mv keyward.db old.db && mv backup.db keyward.db"), "keyward.db", "re"),
        (|home| shell(home, "rm keyward.db"), "keyward.db", "removed"),
        (|home| shell(home, "rm keyward.db-wal"), "keyward.db-wal", "removed"),
        (|home| shell(home, "rm keyward.db-shm"), "keyward.db-shm", "removed"),
    ];
    thread::scope(|scope| {
        for (deed, file, what) in deeds {
            scope.spawn(move || {
                let home = home();
                let server = home.start(&[]);
                server.client().sign_up("ann@example.com");
                back_up(&home);
                deed(&home);
                // Nothing is acknowledged any more that would be written where nobody finds it.
                let form = json!({ "email": "late@example.com", "password": PASSWORD });
                let late = server.client().post("/auth/signup").json(form).try_send();
                assert!(late.as_ref().is_ok_and(|answer| answer.status == 503) || late.is_err(), "{file}: {late:?}");
                told(&server.finish(), file, what);
            });
        }
    });
}

#[test]
fn a_server_that_reads_all_the_time_while_its_database_is_replaced_ends_by_no_signal() {
    let home = home();
    for _ in 0..3 {
        let server = home.start(&[]);
        let address = server.address();
        shell(&home, "rm -f backup.db");
        back_up(&home);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(move || {
                    let client = Client::unobserved(address);
                    let keys = (0_u64..).map(|count| format!("sk_{count:064x}"));
                    for key in keys {
                        if client.get("/protected/service-only").api_key(&key).try_send().is_err() {
                            return;
                        }
                    }
                });
            }
            shell(&home, "mv backup.db keyward.db");
            assert_eq!(server.finish().code, Some(1));
        });
        shell(&home, "rm keyward.db-wal keyward.db-shm");
    }
}

#[test]
fn the_documented_backup_is_its_owners_alone_and_can_be_restored() {
    if !installed(&[Tool::Sqlite]) {
        return;
    }
    let home = home();
    let server = home.start(&[]);
    let access = server.client().sign_up("ann@example.com").access;
    create_key(&server.client(), &access, "first");
    let (make, restore) = documented_commands();
    shell(&home, &format!("umask 022; {make}"));
    assert_eq!(home.path("backup.db").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    create_key(&server.client(), &access, "second");
    server.kill();
    shell(&home, &format!("umask 022; {restore}"));
    assert_eq!(home.path("keyward.db").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let _server = home.start(&[]);
    assert_eq!(keys(&home), ["first"]);
    for file in home.files() {
        assert_eq!(home.path(&file).metadata().unwrap().permissions().mode() & 0o077, 0, "{file}");
    }
}

#[test]
fn a_backup_beside_the_wal_of_what_it_replaced_is_refused() {
    let commands = [
        "cp backup.db keyward.db",
        "cp -p backup.db keyward.db",
        "cp backup.db keyward.db; chmod 600 keyward.db keyward.db-shm keyward.db-wal",
        "mv backup.db keyward.db",
        "cp backup.db new.db; mv new.db keyward.db",
    ];
    thread::scope(|scope| {
        for command in commands {
            for is_copy in [false, true] {
                scope.spawn(move || {
                    let home = home();
                    let server = home.start(&[]);
                    let access = server.client().sign_up("ann@example.com").access;
                    create_key(&server.client(), &access, "first");
                    if is_copy {
                        // Of the file alone, as it is after a stop.
                        assert_eq!(server.stop().code, Some(0));
                        shell(&home, "cp keyward.db backup.db");
                    } else {
                        back_up(&home);
                        server.kill();
                    }
                    live_on_and_crash(&home, &access);
                    shell(&home, command);
                    assert_refused(&home, "-wal");
                    // As the line says.
                    shell(&home, "rm keyward.db-wal keyward.db-shm");
                    let _server = home.start(&[]);
                    assert_eq!(keys(&home), ["first"]);
                    let check = "PRAGMA integrity_check";
                    let beside = Connection::open(home.path("keyward.db")).unwrap();
                    assert_eq!(beside.query_row(check, (), |row| row.get::<_, String>(0)).unwrap(), "ok");
                });
            }
        }
    });
}

#[test]
fn what_a_crash_leaves_is_taken_up_whatever_was_done_to_the_files_beside_their_contents() {
    let commands = [
        "true",
        "touch keyward.db",
        "touch -d 2001-01-01 keyward.db",
        "chmod 640 keyward.db-wal; chmod 640 keyward.db",
        "rm keyward.db-shm",
        "mkdir copy && cp keyward.db-wal copy && sleep 0.01 && cp keyward.db copy && mv copy/* .",
        "ln keyward.db second-name",
    ];
    thread::scope(|scope| {
        for command in commands {
            scope.spawn(move || {
                let home = home();
                let server = home.start(&[]);
                let access = server.client().sign_up("ann@example.com").access;
                server.kill();
                live_on_and_crash(&home, &access);
                shell(&home, command);
                // Each of them may be the first to open the database.
                let server = command.contains("keyward.db-wal").then(|| home.start(&[]));
                assert_eq!(keys(&home), ["second", "third", "fourth"], "{command}");
                drop(server);
                assert_eq!(home.start(&[]).client().get("/auth/me").bearer(&access).send().status, 200, "{command}");
            });
        }
    });
}

#[test]
fn a_wal_without_its_database_is_not_thrown_away() {
    let home = home();
    let server = home.start(&[]);
    let access = server.client().sign_up("ann@example.com").access;
    server.kill();
    live_on_and_crash(&home, &access);
    for order in ["mv keyward.db elsewhere.db", ": > keyward.db"] {
        shell(&home, order);
        let wal = fs::read(home.path("keyward.db-wal")).unwrap();
        for arguments in [&[][..], &["migrate"]] {
            let finished = home.run(arguments);
            assert!(finished.failed(1).contains("its -wal is there, but the database is not"), "{finished:?}");
        }
        home.run(&["user", "list"]).failed(1);
        assert!(fs::read(home.path("keyward.db-wal")).unwrap() == wal);
    }
    shell(&home, "mv elsewhere.db keyward.db");
    assert_eq!(keys(&home), ["second", "third", "fourth"]);
}

#[test]
fn a_damaged_file_is_refused_with_what_to_do() {
    let home = home();
    let server = home.start(&[]);
    server.client().sign_up("ann@example.com");
    assert_eq!(server.stop().code, Some(0));
    let good = fs::read(home.path("keyward.db")).unwrap();
    let half = good[..good.len() / 2].to_vec();
    let mut no_header = good.clone();
    no_header[..100].fill(0);
    for bad in [half, no_header, b"a text".repeat(1000)] {
        fs::write(home.path("keyward.db"), bad).unwrap();
        assert_refused(&home, "keyward.db: SQLite: ");
    }
    fs::write(home.path("keyward.db"), good).unwrap();
    assert!(home.run(&["user", "list"]).succeeded().contains("ann@example.com"));
}

#[test]
fn beside_a_running_server_everyone_is_let_in() {
    let home = home();
    let server = home.start(&[]);
    let access = server.client().sign_up("ann@example.com").access;
    // As if somebody had been at it.
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(home.path("keyward.db-wal")).unwrap().set_modified(long_ago).unwrap();
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        assert!(home.run(&["user", "list"]).succeeded().contains("ann@example.com"));
    }
    let second = home.start(&[]);
    assert_eq!(second.client().get("/auth/me").bearer(&access).send().status, 200);
    assert_eq!((second.stop().code, server.stop().code), (Some(0), Some(0)));
    assert_eq!(home.files(), ["keyward.db", "keyward.db.secrets"]);
}

/// `fsync` and `fdatasync` of the -wal so far.
fn syncs(trace: &std::path::Path) -> usize {
    let calls = fs::read_to_string(trace).unwrap();
    calls.lines().filter(|line| line.contains("keyward.db-wal>") && line.contains("sync(")).count()
}

#[test]
fn what_is_acknowledged_is_on_the_disk() {
    if !installed(&[Tool::Strace]) {
        return;
    }
    let home = home();
    let trace = home.path("trace");
    let server = home.start(&[]);
    let access = server.client().sign_up("ann@example.com").access;
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-e", "trace=fsync,fdatasync", "-p", &server.pid().to_string(), "-o"]).arg(&trace);
    let attached = strace.stderr(Stdio::piped()).spawn().ok().and_then(|mut child| {
        let mut said = BufReader::new(child.stderr.take()?).lines();
        let process = Process(child);
        said.next()?.ok().filter(|line| line.contains("attached")).map(|_| (process, said))
    });
    if attached.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI=true, but strace may trace nothing");
        skip("tracing another process");
        return;
    }
    for count in 0..5 {
        let before = syncs(&trace);
        create_key(&server.client(), &access, &format!("key-{count}"));
        assert!(syncs(&trace) > before, "a key that was acknowledged is not synced");
    }
}

#[test]
fn a_sqlite_file_that_cannot_be_had_is_one_line_that_names_it() {
    let mut home = Home::fresh(Backend::Sqlite);
    home.set("JWT_SECRET", "the-secret-of-access-tokens-of-a-test");
    home.set("JWT_REFRESH_SECRET", "the-secret-of-refresh-tokens-of-a-test");
    std::fs::create_dir(home.path("folder")).unwrap();
    std::fs::write(home.path("text.db"), "This is a text and no database, but about as long as a header.".repeat(9))
        .unwrap();
    for (file, expected) in [
        ("missing/keyward.db", "No such file or directory"),
        ("folder", "unable to open database file"),
        ("text.db", "file is not a database"),
        ("text.db/keyward.db", "Not a directory"),
    ] {
        home.set("KEYWARD_DB", file);
        for arguments in [&[][..], &["migrate"], &["user", "list"]] {
            let finished = home.run(arguments);
            let line = finished.failed(1);
            let is_absent = file.starts_with("missing") && arguments.contains(&"user");
            let expected = if is_absent { "there is no database at /" } else { expected };
            assert!(line.contains(file) && line.contains(expected), "{file}: {line}");
        }
    }
    assert_eq!(home.files(), ["folder", "text.db"]);
}

#[test]
fn a_sqlite_file_or_folder_that_is_read_only_is_one_line_that_names_it() {
    let mut home = Home::fresh(Backend::Sqlite);
    home.set("JWT_SECRET", "the-secret-of-access-tokens-of-a-test");
    home.set("JWT_REFRESH_SECRET", "the-secret-of-refresh-tokens-of-a-test");
    // For the superuser nothing is read-only: the program runs as another user, from a folder that this user can read.
    let program = home.path("program");
    std::fs::copy(env!("CARGO_BIN_EXE_keyward"), &program).unwrap();
    let as_someone = |arguments: &[&str]| -> Finished {
        let usual = home.command(arguments);
        let mut command = Command::new(&program);
        command.args(arguments).env_clear().current_dir(usual.get_current_dir().unwrap());
        command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if rustix::process::getuid().is_root() {
            command.uid(65534).gid(65534);
        }
        finish(&mut command, "Password123!\n")
    };
    let set_mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let (folder, file) = (home.path("."), home.path("keyward.db"));
    home.run(&["migrate"]).succeeded();
    let full_path = file.canonicalize().unwrap();
    for file_mode in [0o444, 0o400, 0o000] {
        set_mode(&file, file_mode);
        for folder_mode in [0o777, 0o555] {
            set_mode(&folder, folder_mode);
            for arguments in [&[][..], &["migrate"], &["user", "create", "ann@example.com"]] {
                let finished = as_someone(arguments);
                // Whose it is: root has made it, and the service may not use it.
                let owned = format!("{} belongs to ", full_path.display());
                let line = finished.failed(1);
                assert!(line.contains(&owned) && line.contains(&format!("(mode {file_mode:04o})")), "{line}");
                if rustix::process::getuid().is_root() {
                    assert!(line.contains(&format!("{owned}root ")) && line.contains("run this as root"), "{line}");
                }
            }
        }
    }
    // The file may be used, but nothing can be put beside it.
    set_mode(&file, 0o666);
    set_mode(&folder, 0o555);
    let finished = as_someone(&["user", "list"]);
    assert!(
        finished.failed(1).contains(&format!("{} belongs to ", full_path.parent().unwrap().display())),
        "{finished:?}"
    );
    // Nor can one be made.
    set_mode(&folder, 0o755);
    std::fs::remove_file(&file).unwrap();
    set_mode(&folder, 0o555);
    for arguments in [&[][..], &["migrate"]] {
        let finished = as_someone(arguments);
        let line = finished.failed(1);
        assert!(line.contains("keyward.db") && line.contains("Permission denied"), "{line}");
    }
    set_mode(&folder, 0o755);
}
