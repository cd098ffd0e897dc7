//! The command line: what an operator does, alone and beside a server that runs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::thread;

use keyward::config::settings;
use keyward::store::migrate::Pending;
use keyward::store::sqlite::Sqlite;
use keyward_harness::program::{Home, finish, in_both_homes};
use keyward_harness::service::{Account, Backend, PASSWORD, account, on_both_stores, soon};
use serde_json::{Value, json};

use super::stores::make_before;

const NEW_PASSWORD: &str = "another horse 42";
/// An id that nobody has.
const NOBODY: &str = "0192f0c1-0000-7000-8000-000000000000";

#[track_caller]
fn json_of(output: &str) -> Value {
    serde_json::from_str(output).unwrap_or_else(|error| panic!("{error}: {output}"))
}

/// The cells of a table, header first. Columns are at least two spaces apart.
fn table(output: &str) -> Vec<Vec<&str>> {
    output
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>())
        .collect()
}

fn schema_tables(home: &Home) -> i64 {
    let count = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    home.database().map_or(0, |database| database.client().query_one(count, &[]).unwrap().get(0))
}

in_both_homes! {
    fn migrate_check_reports_what_is_missing_and_changes_nothing(home) {
        let checked = home.run(&["migrate", "--check"]);
        assert!(checked.failed(1).contains("keyward migrate"), "{checked:?}");
        let each = |word: &str| -> String {
            Pending::all::<Sqlite>().migrations.iter().map(|migration| format!("{word}: {migration}\n")).collect()
        };
        assert_eq!(checked.stdout, each("missing"));
        assert_eq!((home.files(), schema_tables(&home)), (Vec::new(), 0));

        assert_eq!(home.run(&["migrate"]).succeeded(), each("applied"));
        let before = std::fs::read(home.path("keyward.db")).ok();
        assert_eq!(home.run(&["migrate", "--check"]).succeeded(), "the database is up to date\n");
        assert_eq!(home.run(&["migrate"]).succeeded(), "the database is up to date\n");
        assert_eq!(std::fs::read(home.path("keyward.db")).ok(), before);
    }

    fn a_user_is_made_listed_and_shown(home) {
        home.run(&["migrate"]).succeeded();
        assert_eq!(json_of(&home.run(&["user", "list", "--json"]).succeeded()), json!([]));
        let empty = home.run(&["user", "list"]).succeeded();
        assert_eq!(table(&empty), [["ID", "ACTIVE", "CREATED", "LAST LOGIN", "EMAIL", "NAME"]]);

        let line = format!("{PASSWORD}\n");
        let create = ["user", "create", "Ann@Example.com", "--name", "Ann", "--json"];
        let ann = json_of(&home.run_reading(&create, &line).succeeded());
        assert_eq!((&ann["email"], &ann["name"], &ann["isActive"]), (&json!("ann@example.com"), &json!("Ann"), &json!(true)));
        let bob = home.run_reading(&["user", "create", "bob@example.com"], &line).succeeded();
        let bob = table(&bob)[1].join("|");
        let (bob_id, rest) = bob.split_once('|').unwrap();
        assert!(rest.starts_with("yes|2") && rest.ends_with("|-|bob@example.com|-"), "{bob}");

        let listed = json_of(&home.run(&["user", "list", "--json"]).succeeded());
        assert_eq!(listed[0], ann);
        assert_eq!((&listed[1]["id"], &listed[1]["name"]), (&json!(bob_id), &Value::Null));
        let listed = home.run(&["user", "list"]).succeeded();
        assert_eq!(table(&listed)[1][3..], ["-", "ann@example.com", "Ann"]);
        for named in ["ANN@example.com", ann["id"].as_str().unwrap()] {
            assert_eq!(json_of(&home.run(&["user", "show", named, "--json"]).succeeded()), ann);
        }
        assert_eq!(table(&home.run(&["user", "show", bob_id]).succeeded())[1].join("|"), bob);
    }

    fn a_password_is_read_from_standard_input_and_judged_by_the_same_rules(home) {
        home.run(&["migrate"]).succeeded();
        let create = ["user", "create", "ann@example.com"];
        for (input, rule) in [
            ("short\n", "longer than or equal to 8"),
            ("Password1\n", "is too common"),
            ("", "longer than or equal to 8"),
            ("\nSecond line 1\n", "longer than or equal to 8"),
            (&format!("{}\n", "x".repeat(73)), "72 bytes"),
            ("NUL\0in the middle\n", "NUL"),
        ] {
            let finished = home.run_reading(&create, input);
            let line = finished.failed(1);
            assert!(line.starts_with("the password ") && line.contains(rule), "{input:?}: {line}");
            assert_eq!(finished.stdout, "");
        }
        for arguments in [
            &["user", "create", "ann@example.com", PASSWORD][..],
            &["user", "create", "ann@example.com", "--password", PASSWORD],
            &["user", "set-password", "ann@example.com", PASSWORD],
        ] {
            home.run_reading(arguments, "Something else 1\n").failed(2);
        }
        assert_eq!(json_of(&home.run(&["user", "list", "--json"]).succeeded()), json!([]));

        // The end of the line is not part of it, whatever wrote it; what follows is not read.
        home.run_reading(&create, &format!("{PASSWORD}\r\nmore\n")).succeeded();
        let server = home.start(&[]);
        let form = json!({ "email": "ann@example.com", "password": PASSWORD });
        assert_eq!(server.client().post("/auth/login").json(form).send().status, 200);
    }

    fn what_cannot_be_done_is_exit_code_1_and_one_line(home) {
        home.run(&["migrate"]).succeeded();
        home.run_reading(&["user", "create", "ann@example.com"], "Password123!\n").succeeded();
        for (arguments, expected) in [
            (&["user", "create", "ANN@example.com"][..], "User already exists"),
            (&["user", "show", "nobody@example.com"], "there is no such user"),
            (&["user", "show", NOBODY], "there is no such user"),
            (&["user", "activate", NOBODY], "there is no such user"),
            (&["user", "deactivate", NOBODY], "there is no such user"),
            (&["user", "set-password", NOBODY], "there is no such user"),
            (&["user", "reset-totp", NOBODY], "there is no such user"),
            (&["user", "delete", NOBODY], "there is no such user"),
            (&["key", "list", "--user", NOBODY], "there is no such user"),
            (&["key", "revoke", NOBODY], "there is no such key"),
        ] {
            let finished = home.run_reading(&[arguments, &["--json"]].concat(), "Password123!\n");
            assert_eq!((finished.failed(1), finished.stdout.as_str()), (expected, ""), "{arguments:?}");
        }
    }

    fn what_an_operator_does_makes_no_database_and_brings_none_up_to_date(home) {
        let line = format!("{PASSWORD}\n");
        let refused = || {
            for arguments in [
                &["user", "list"][..],
                &["user", "show", "ann@example.com"],
                &["user", "create", "ann@example.com"],
                &["user", "delete", NOBODY],
                &["key", "list", "--json"],
                &["key", "revoke", NOBODY],
                &["events"],
            ] {
                let finished = home.run_reading(arguments, &line);
                let line = finished.failed(1);
                assert!(line.contains("keyward migrate"), "{arguments:?}: {line}");
                if home.database().is_none() && home.files().is_empty() {
                    let file = home.path(".").canonicalize().unwrap().join("keyward.db");
                    assert!(line.contains(&format!("there is no database at {};", file.display())), "{line}");
                } else {
                    assert!(line.contains("lacks "), "{line}");
                }
                assert_eq!(finished.stdout, "", "{arguments:?}");
            }
        };
        refused();
        assert_eq!((home.files(), schema_tables(&home)), (Vec::new(), 0));
        // Made by a version of long ago.
        make_before(&home, 2);
        let checked = || home.run(&["migrate", "--check"]).stdout;
        let before = checked();
        refused();
        assert_eq!(checked(), before);
        if home.database().is_none() {
            std::fs::write(home.path("keyward.db"), "").unwrap();
            refused();
            assert_eq!(std::fs::read(home.path("keyward.db")).unwrap(), b"");
        }
    }

    fn a_list_that_is_longer_than_a_page_is_complete(home) {
        home.run(&["migrate"]).succeeded();
        let ids: Vec<String> = (0..1001).map(|_| uuid::Uuid::now_v7().to_string()).collect();
        let time = "2026-01-01T00:00:00.000Z";
        let rows = |row: fn(&str, usize, &str) -> String| -> String {
            ids.iter().enumerate().map(|(count, id)| row(id, count, time)).collect::<Vec<_>>().join(",")
        };
        let users = rows(|id, count, time| format!("('{id}', 'user-{count}@example.com', 'x', TRUE, '{time}')"));
        let blob = if home.database().is_some() { "decode('" } else { "unhex('" };
        let end = if home.database().is_some() { "', 'hex')" } else { "')" };
        let keys = ids.iter().enumerate().map(|(count, id)| {
            format!("('{id}', '{}', {blob}{count:064x}{end}, 'sk_', 'key {count}', TRUE, '{time}')", ids[0])
        });
        let keys = keys.collect::<Vec<_>>().join(",");
        let script = format!(
            "INSERT INTO users (id, email, password_hash, is_active, created_at) VALUES {users};
             INSERT INTO api_keys (id, user_id, hash, hint, name, is_active, created_at) VALUES {keys}"
        );
        match home.database() {
            Some(database) => database.client().batch_execute(&script).unwrap(),
            None => rusqlite::Connection::open(home.path("keyward.db")).unwrap().execute_batch(&script).unwrap(),
        }
        for command in [&["user", "list"][..], &["key", "list"], &["key", "list", "--user", &ids[0]]] {
            let listed = json_of(&home.run(&[command, &["--json"]].concat()).succeeded());
            let listed: Vec<&str> = listed.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
            assert_eq!(listed, ids, "{command:?}");
        }
        assert_eq!(home.run(&["user", "list"]).succeeded().lines().count(), ids.len() + 1);
        assert_eq!(json_of(&home.run(&["key", "list", "--json", "--user", &ids[1]]).succeeded()), json!([]));
    }

    fn a_pipe_that_nobody_reads_is_no_panic(home) {
        home.run(&["migrate"]).succeeded();
        let exits_when_closed = |arguments: &[&str], close_errors: bool| {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut command = home.command(arguments);
            command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap());
            command.stderr(if close_errors { Stdio::from(writer) } else { Stdio::piped() });
            let child = command.spawn().unwrap();
            drop(command);
            let output = child.wait_with_output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        for arguments in [&["--help"][..], &["--version"], &["migrate"], &["user", "list"], &["key", "list", "--json"]] {
            for close_errors in [false, true] {
                assert_eq!(exits_when_closed(arguments, close_errors), (Some(0), String::new()), "{arguments:?}");
            }
        }
        // With standard error closed, only the exit code tells.
        assert_eq!(exits_when_closed(&["nonsense"], true).0, Some(2));
        assert_eq!(exits_when_closed(&["user", "show", NOBODY], true).0, Some(1));
    }
}

#[test]
fn migrate_check_does_not_touch_a_file_that_is_there_already() {
    let home = Home::fresh(Backend::Sqlite);
    std::fs::write(home.path("keyward.db"), "").unwrap();
    home.run(&["migrate", "--check"]).failed(1);
    assert_eq!(std::fs::read_to_string(home.path("keyward.db")).unwrap(), "");
    assert_eq!(home.files(), ["keyward.db"]);
}

#[test]
fn what_makes_no_sense_is_exit_code_2_and_one_line_and_opens_no_database() {
    let home = Home::fresh(Backend::Sqlite);
    for arguments in [
        &["nonsense"][..],
        &["--nonsense"],
        &["-x"],
        &["serve", "--nonsense"],
        &["serve", "extra"],
        &["migrate", "--nonsense"],
        &["migrate", "extra"],
        &["user"],
        &["user", "nonsense"],
        &["user", "list", "extra"],
        &["user", "list", "--nonsense"],
        &["user", "show"],
        &["user", "show", "not-an-email"],
        &["user", "show", "ann@example.com", "extra"],
        &["user", "create"],
        &["user", "create", "not-an-email"],
        &["user", "create", "ann@example.com", "--name"],
        &["user", "activate"],
        &["user", "deactivate", "--json"],
        &["user", "set-password"],
        &["user", "reset-totp"],
        &["user", "delete"],
        &["user", "delete", "--all"],
        &["key"],
        &["key", "nonsense"],
        &["key", "list", "--user"],
        &["key", "list", "--user", "not-an-email"],
        &["key", "list", "extra"],
        &["key", "revoke"],
        &["key", "revoke", "sk_1234"],
        &["key", "revoke", NOBODY, "extra"],
        &["healthcheck", "extra"],
    ] {
        let finished = home.run_reading(arguments, "Password123!\n");
        assert!(finished.failed(2).ends_with("; see keyward --help"), "{arguments:?}: {finished:?}");
        assert_eq!(finished.stdout, "");
    }
    assert_eq!(home.files(), [""; 0]);
}

#[test]
fn no_message_plays_tricks_with_the_terminal() {
    let mut home = Home::fresh(Backend::Sqlite);
    home.set("KEYWARD_DB", "is\u{1b}[2Jgone\u{9b}31m\r\n.db");
    let told = |text: &str| {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert!(text.contains("is\\u{1b}[2Jgone\\u{9b}31m  .db"), "{text:?}");
    };
    told(home.run(&["user", "list"]).failed(1));
    told(&home.start(&[]).stop().stderr);
}

#[test]
fn help_names_every_command_and_every_setting() {
    let home = Home::fresh(Backend::Sqlite);
    let help = home.run(&["--help"]).succeeded();
    for arguments in [&["-h"][..], &["serve", "--help"], &["user", "list", "-h"], &["nonsense", "--help"]] {
        assert_eq!(home.run(arguments).succeeded(), help, "{arguments:?}");
    }
    for setting in settings() {
        assert!(help.contains(&format!("\n  {}", setting.name)), "{}", setting.name);
        assert!(help.contains(setting.meaning) && help.contains(setting.accepts), "{}", setting.name);
    }
    // Each listed command exists: an unknown argument is wrong usage, but not an unknown command.
    let commands = help.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let commands: Vec<Vec<&str>> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().take_while(|word| word.starts_with(|c: char| c.is_lowercase())).collect())
        .collect();
    assert!(commands.len() >= 12, "{commands:?}");
    for command in commands {
        let finished = home.run(&[&command[..], &["--nonsense"]].concat());
        let line = finished.failed(2);
        assert!(!line.contains("there is no command"), "{command:?}: {line}");
    }
}

#[test]
fn version_is_the_packages() {
    let expected = format!("keyward {}\n", env!("CARGO_PKG_VERSION"));
    let home = Home::fresh(Backend::Sqlite);
    for flag in ["--version", "-V"] {
        assert_eq!(home.run(&[flag]).succeeded(), expected);
    }
}

#[test]
fn a_bad_setting_stops_a_command_as_it_stops_the_server() {
    let mut home = Home::fresh(Backend::Sqlite);
    home.set("BCRYPT_COST", "4");
    for arguments in [&["migrate"][..], &["user", "list"], &["key", "list"], &["healthcheck"]] {
        assert!(home.run(arguments).failed(1).starts_with("BCRYPT_COST: "), "{arguments:?}");
    }
    assert_eq!(home.files(), [""; 0]);
}

#[test]
fn what_people_wrote_cannot_play_tricks_with_the_terminal() {
    let home = Home::fresh(Backend::Sqlite);
    let name = "Ann\u{1b}[2J\u{7}\r\n\u{202e}nnA";
    let server = home.start(&[]);
    let form = json!({ "email": "ann@example.com", "password": PASSWORD, "name": name });
    let ann = account(&server.client().post("/auth/signup").json(form).send().json());
    server.client().post("/keys/create").bearer(&ann.access).json(json!({ "name": name })).send();
    for (command, lines) in [(&["user", "list"][..], 2), (&["user", "show", &ann.email], 6), (&["key", "list"], 2)] {
        let shown = home.run(command).succeeded();
        assert_eq!(shown.lines().count(), lines, "{shown:?}");
        assert!(!shown.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{shown:?}");
        assert_eq!(
            json_of(&home.run(&[command, &["--json"]].concat()).succeeded()).to_string().matches("nnA").count(),
            1
        );
    }
}

on_both_stores! {
    fn deactivating_a_user_ends_their_sessions_and_turns_their_keys_off_at_once(service) {
        let home = Home::beside(service);
        let ann = service.sign_up("ann@example.com");
        let bob = service.sign_up("bob@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci" }))["key"].as_str().unwrap().to_string();
        assert_eq!((service.token_status(&ann.access), service.key_status(&key)), (200, 200));

        let shown = home.run(&["user", "deactivate", &ann.email, "--json"]).succeeded();
        assert_eq!(json_of(&shown)["isActive"], false);
        soon("the session is over", || service.token_status(&ann.access) == 401);
        soon("the key is refused", || service.key_status(&key) == 401);
        let refresh = |token: &str| service.post("/auth/refresh").json(json!({ "refreshToken": token })).send().status;
        assert_eq!(refresh(&ann.refresh), 401);
        let log_in = || service.post("/auth/login").json(json!({ "email": ann.email, "password": PASSWORD })).send();
        assert_eq!(log_in().status, 401);
        assert_eq!(service.token_status(&bob.access), 200, "another user is not concerned");

        let shown = home.run(&["user", "activate", &ann.id]).succeeded();
        assert_eq!(table(&shown)[1][1], "yes");
        soon("the key is accepted again", || service.key_status(&key) == 200);
        assert_eq!(log_in().status, 200);
        assert_eq!((service.token_status(&ann.access), refresh(&ann.refresh)), (401, 401), "the old session stays over");
    }

    fn a_users_last_login_is_shown(service) {
        let home = Home::beside(service);
        let ann = service.sign_up("ann@example.com");
        let shown = || json_of(&home.run(&["user", "show", &ann.email, "--json"]).succeeded());
        assert_eq!(shown()["lastLoginAt"], Value::Null, "signing up is no login");
        let session = service.log_in(&ann.email);
        let login = shown()["lastLoginAt"].clone();
        assert!(login.is_string() && login.as_str() >= shown()["createdAt"].as_str(), "{login}");
        assert_eq!(json_of(&home.run(&["user", "list", "--json"]).succeeded())[0]["lastLoginAt"], login);
        assert_eq!(table(&home.run(&["user", "show", &ann.email]).succeeded())[1][3], login);
        assert_eq!(service.token_status(&session.access), 200);
        assert_eq!(shown()["lastLoginAt"], login, "use of a session is no login");
    }

    fn setting_a_password_ends_the_sessions_and_the_new_password_logs_in(service) {
        let home = Home::beside(service);
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci" }))["key"].as_str().unwrap().to_string();
        assert_eq!(service.token_status(&ann.access), 200);

        let shown = home.run_reading(&["user", "set-password", &ann.email, "--json"], &format!("{NEW_PASSWORD}\n"));
        assert_eq!(json_of(&shown.succeeded())["email"], "ann@example.com");
        soon("the session is over", || service.token_status(&ann.access) == 401);
        assert_eq!(service.key_status(&key), 200, "keys are not the password's");
        let log_in = |password: &str| {
            service.post("/auth/login").json(json!({ "email": ann.email, "password": password })).send().status
        };
        assert_eq!((log_in(PASSWORD), log_in(NEW_PASSWORD)), (401, 200));

        home.run_reading(&["user", "set-password", &ann.email], "short\n").failed(1);
        assert_eq!(log_in(NEW_PASSWORD), 200, "a refused password changes nothing");
    }

    fn setting_a_password_ends_the_wait_after_failed_logins(service) {
        let home = Home::beside(service);
        let ann = service.sign_up("ann@example.com");
        let log_in = |password: &str| {
            service.post("/auth/login").json(json!({ "email": ann.email, "password": password })).send().status
        };
        assert!((0..7).all(|_| log_in("forgotten") == 401));
        assert_eq!(log_in(PASSWORD), 429);
        home.run_reading(&["user", "set-password", &ann.email], &format!("{NEW_PASSWORD}\n")).succeeded();
        assert_eq!(log_in(NEW_PASSWORD), 200);
    }

    fn deleting_a_user_deletes_their_sessions_and_keys(service) {
        let home = Home::beside(service);
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci" }))["key"].as_str().unwrap().to_string();
        assert_eq!((service.token_status(&ann.access), service.key_status(&key)), (200, 200));

        assert_eq!(home.run(&["user", "delete", &ann.email]).succeeded(), "deleted ann@example.com\n");
        soon("the session is gone", || service.token_status(&ann.access) == 401);
        soon("the key is gone", || service.key_status(&key) == 401);
        assert_eq!(json_of(&home.run(&["key", "list", "--json"]).succeeded()), json!([]));
        home.run(&["user", "show", &ann.email]).failed(1);

        // The address is free, and who takes it is someone else.
        let other = service.sign_up("ann@example.com");
        assert_ne!(other.id, ann.id);
        assert_eq!((service.token_status(&ann.access), service.key_status(&key)), (401, 401));
        let deleted = json_of(&home.run(&["user", "delete", &other.id, "--json"]).succeeded());
        assert_eq!(deleted, json!({ "deleted": other.id }));
    }

    fn keys_are_listed_without_the_keys_and_revoked_for_anyone(service) {
        let home = Home::beside(service);
        let ann = service.sign_up("ann@example.com");
        let bob = service.sign_up("bob@example.com");
        let new_key = |owner: &Account, body: Value| {
            let made = service.create_key(&owner.access, body);
            (made["id"].as_str().unwrap().to_string(), made["key"].as_str().unwrap().to_string())
        };
        let (ann_id, ann_key) = new_key(&ann, json!({ "name": "build machine", "expiresAt": "2999-01-01T00:00:00Z" }));
        let (bob_id, bob_key) = new_key(&bob, json!({ "name": "nightly" }));
        assert_eq!(service.key_status(&bob_key), 200);

        let listed = json_of(&home.run(&["key", "list", "--json"]).succeeded());
        let hint = format!("sk_{}…{}", &ann_key[3..7], &ann_key[63..]);
        let mut first = listed[0].clone();
        assert!(first.as_object_mut().unwrap().remove("createdAt").unwrap().is_string());
        assert_eq!(
            first,
            json!({
                "id": ann_id,
                "userId": ann.id,
                "name": "build machine",
                "hint": hint,
                "isActive": true,
                "expiresAt": "2999-01-01T00:00:00.000Z",
                "lastUsedAt": null,
                "revokedAt": null,
            })
        );
        assert_eq!((&listed[1]["id"], listed.as_array().unwrap().len()), (&json!(bob_id), 2));
        let shown = home.run(&["key", "list", "--user", &ann.email]).succeeded();
        let rows = table(&shown);
        assert_eq!(rows[0], ["ID", "ACTIVE", "EXPIRES", "LAST USED", "HINT", "OWNER", "NAME"]);
        let expected = [&ann_id, "yes", "2999-01-01T00:00:00.000Z", "-", &hint, &ann.id, "build machine"];
        assert_eq!(rows[1..], [expected]);
        assert!(!shown.contains(&ann_key[..20]) && !listed.to_string().contains(&ann_key[..20]));

        assert_eq!(home.run(&["key", "revoke", &bob_id]).succeeded(), format!("revoked {bob_id}\n"));
        soon("the key is revoked", || service.key_status(&bob_key) == 401);
        assert_eq!(service.key_status(&ann_key), 200);
        let of_bob = json_of(&home.run(&["key", "list", "--user", &bob.id, "--json"]).succeeded());
        assert_eq!(of_bob[0]["isActive"], false);
        let revoked = json_of(&home.run(&["key", "revoke", &bob_id, "--json"]).succeeded());
        assert_eq!(revoked, json!({ "revoked": bob_id }), "again is as good as once");
    }

    fn healthcheck_tells_whether_the_server_answers(service) {
        let mut home = Home::beside(service);
        assert_eq!(home.run(&["healthcheck"]).succeeded(), "");
        home.set("HOST", "0.0.0.0");
        assert_eq!(home.run(&["healthcheck"]).succeeded(), "", "every address is this machine's as well");
        let address = service.address().to_string();
        service.stop();
        home.set("HOST", "127.0.0.1");
        let finished = home.run(&["healthcheck"]);
        assert!(finished.failed(1).contains(&address), "{finished:?}");
    }
}

#[test]
fn healthcheck_fails_at_whatever_is_not_a_healthy_server() {
    let answer_with = |answer: &'static [u8]| -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer);
        });
        address
    };
    let mut home = Home::fresh(Backend::Sqlite);
    for answer in [&b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"\xff\xfe"] {
        home.set("PORT", &answer_with(answer).port().to_string());
        home.run(&["healthcheck"]).failed(1);
    }
    // Takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    home.set("PORT", &silent.local_addr().unwrap().port().to_string());
    home.run(&["healthcheck"]).failed(1);
}

#[test]
fn a_user_made_before_the_first_start_is_there_when_the_server_starts() {
    let home = Home::fresh(Backend::Sqlite);
    home.run(&["migrate"]).succeeded();
    home.run_reading(&["user", "create", "ann@example.com"], &format!("{PASSWORD}\n")).succeeded();
    let mode = std::os::unix::fs::PermissionsExt::mode(&home.path("keyward.db").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let server = home.start(&[("SIGNUP", "closed")]);
    let form = json!({ "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(server.client().post("/auth/login").json(form).send().status, 200);
    // With sign-up closed the operator is the only one who makes users, also while the server runs.
    let create = &mut home.command(&["user", "create", "bob@example.com"]);
    finish(create, &format!("{PASSWORD}\n")).succeeded();
    let form = json!({ "email": "bob@example.com", "password": PASSWORD });
    assert_eq!(server.client().post("/auth/login").json(form).send().status, 200);
}
