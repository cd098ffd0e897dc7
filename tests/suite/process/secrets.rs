//! Secrets that are not in the environment: in files that Docker or Kubernetes mounts, and in systemd's credentials.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use keyward::config::settings;
use keyward_harness::postgres_cluster;
use keyward_harness::program::{Home, in_both_homes};
use keyward_harness::service::Backend;

use super::refusal;

const SECRET: &str = "hunter2, and more than 32 bytes in all";
const OTHER: &str = "hunter2, but another one of 32 bytes";

/// Writes a file into the home; returns its path.
fn place(home: &Home, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = home.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_string()
}

/// Whether a server with these settings accepts an access token.
fn accepts(home: &Home, settings: &[(&str, &str)], token: &str) -> bool {
    let server = home.start(settings);
    let status = server.client().get("/auth/me").bearer(token).send().status;
    assert!([200, 401].contains(&status), "{status}");
    status == 200
}

in_both_homes! {
    fn a_secret_from_a_file_or_a_credential_is_the_same_as_from_the_environment(home) {
        let mut home = home;
        home.unset("JWT_SECRET");
        let server = home.start(&[("JWT_SECRET", SECRET)]);
        let token = server.client().sign_up("ann@example.com").access;
        server.stop();
        let credentials = home.path("credentials").to_str().unwrap().to_string();
        for (content, is_the_same) in [
            (SECRET.to_string(), true),
            (format!("{SECRET}\n"), true),
            (format!("{SECRET}\r\n"), true),
            (format!("{SECRET}\n\n"), false),
            (format!("{SECRET}\r"), false),
            (format!("{SECRET} "), false),
            (format!("\n{SECRET}"), false),
        ] {
            let file = place(&home, "credentials/jwt_secret", &content);
            assert_eq!(accepts(&home, &[("JWT_SECRET_FILE", &file)], &token), is_the_same, "{content:?}");
            assert_eq!(accepts(&home, &[("CREDENTIALS_DIRECTORY", &credentials)], &token), is_the_same, "{content:?}");
        }
    }

    fn the_operators_commands_find_the_database_in_the_same_places(home) {
        let mut home = home;
        let credentials = home.path("credentials").to_str().unwrap().to_string();
        if let Some(url) = home.setting("DATABASE_URL").map(str::to_string) {
            home.unset("DATABASE_URL");
            let file = place(&home, "credentials/database_url", format!("{url}\n"));
            home.set("DATABASE_URL_FILE", &file);
        }
        home.run(&["migrate"]).succeeded();
        home.run(&["user", "list"]).succeeded();
        home.unset("DATABASE_URL_FILE");
        if home.database().is_some() {
            home.set("CREDENTIALS_DIRECTORY", &credentials);
        }
        home.run(&["user", "list"]).succeeded();
        home.start(&[]).client().sign_up("ann@example.com");
        assert!(home.run(&["user", "list"]).succeeded().contains("ann@example.com"));
    }
}

#[test]
fn every_setting_that_is_a_secret_is_read_from_files_and_no_other() {
    let secrets: Vec<&str> = settings().filter(|one| one.file_variable().is_some()).map(|one| one.name).collect();
    for name in ["DATABASE_URL", "DB_PASSWORD", "JWT_SECRET", "JWT_REFRESH_SECRET_PREVIOUS"] {
        assert!(secrets.contains(&name), "{name}");
    }
    let help = Home::fresh(Backend::Sqlite).run(&["--help"]).succeeded();
    for setting in settings() {
        let name = setting.name;
        let home = Home::fresh(Backend::Sqlite);
        let variable = format!("{name}_FILE");
        let missing = home.path("no such file").to_str().unwrap().to_string();
        // A credential that is a folder cannot be read.
        fs::create_dir_all(home.path("credentials").join(name.to_lowercase())).unwrap();
        let credentials = home.path("credentials").to_str().unwrap().to_string();
        assert_eq!(help.contains(&variable), secrets.contains(&name), "{variable}");
        if secrets.contains(&name) {
            let line = refusal(&home, &[(&variable, &missing)]);
            assert!(line.starts_with(&format!("{variable}: {missing} cannot be read: No such file")), "{line}");
            assert!(line.ends_with(&format!("; accepted: a file with {name}")), "{line}");
            let line = refusal(&home, &[("CREDENTIALS_DIRECTORY", &credentials)]);
            assert!(line.starts_with(&format!("credential {}: ", name.to_lowercase())), "{line}");
            assert!(line.contains("cannot be read: Is a directory"), "{line}");
        }
    }
    // A credential whose name is that of a path, or of nothing, is no setting.
    let home = Home::fresh(Backend::Sqlite);
    place(&home, "credentials/jwt_private_key_file", "hunter2");
    place(&home, "credentials/port", "hunter2");
    let credentials = home.path("credentials").to_str().unwrap().to_string();
    home.start(&[("CREDENTIALS_DIRECTORY", &credentials), ("PORT_FILE", "no such file")]).stop();
    home.start(&[("CREDENTIALS_DIRECTORY", "")]).stop();
}

#[test]
fn a_file_that_is_no_good_stops_the_start_with_one_line_and_is_not_shown() {
    let home = Home::fresh(Backend::Sqlite);
    let huge = vec![b'x'; 64 * 1024 + 1];
    for (name, content, fault) in [
        ("JWT_SECRET", &b""[..], "is empty"),
        ("JWT_SECRET", b"\n", "is empty"),
        ("DB_PASSWORD", b"\r\n", "is empty"),
        ("JWT_SECRET", b"hunter2 \xff and more than 32 bytes", "is not UTF-8"),
        ("JWT_SECRET", &huge, "has more than 65536 bytes"),
        ("JWT_SECRET", b"hunter2\n", "the value has 7 bytes; accepted: 32 bytes or more"),
        ("DATABASE_URL", b"mysql://u:hunter2@localhost/db\n", "does not begin with postgres://"),
        ("DATABASE_URL", b"postgres://u:hunter2@localhost:x/db", "is not a PostgreSQL URL"),
    ] {
        let variable = format!("{name}_FILE");
        let file = place(&home, &format!("credentials/{}", name.to_lowercase()), content);
        let credentials = Path::new(&file).parent().unwrap().to_str().unwrap();
        for (given, called) in [
            ((variable.as_str(), file.as_str()), variable.clone()),
            (("CREDENTIALS_DIRECTORY", credentials), format!("credential {}", name.to_lowercase())),
        ] {
            let line = refusal(&home, &[given]);
            // A URL is judged together with other settings, by its own name.
            let starts = line.starts_with(&format!("{called}: ")) || line.starts_with("DATABASE_URL: ");
            assert!(starts && line.contains(fault) && !line.contains("hunter2"), "{line}");
        }
        fs::remove_file(&file).unwrap();
    }
    // Endless, and a folder.
    let line = refusal(&home, &[("JWT_SECRET_FILE", "/dev/zero")]);
    assert!(line.contains("has more than 65536 bytes"), "{line}");
    let line = refusal(&home, &[("JWT_SECRET_FILE", "/")]);
    assert!(line.starts_with("JWT_SECRET_FILE: / cannot be read: Is a directory"), "{line}");
    let finished = home.run(&["user", "list"]);
    assert!(finished.failed(1).contains("there is no database"), "{finished:?}");
    let mut home = home;
    home.set("JWT_SECRET_FILE", "/");
    let finished = home.run(&["user", "list"]);
    assert!(finished.failed(1).starts_with("JWT_SECRET_FILE: "), "{finished:?}");
    assert_eq!(home.files(), ["credentials"]);
}

#[test]
fn a_file_of_somebody_else_is_refused_with_who_owns_it() {
    let home = Home::fresh(Backend::Sqlite);
    let file = place(&home, "jwt", SECRET);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads everything.
    if fs::read(&file).is_ok() {
        return;
    }
    let line = refusal(&home, &[("JWT_SECRET_FILE", &file)]);
    assert!(line.contains("Permission denied") && line.contains("(mode 0000)"), "{line}");
}

#[test]
fn two_places_for_one_secret_stop_the_start_with_a_line_that_names_both() {
    let home = Home::fresh(Backend::Sqlite);
    let file = place(&home, "credentials/jwt_secret", SECRET);
    let credentials = home.path("credentials").to_str().unwrap().to_string();
    let (value, file) = (("JWT_SECRET", SECRET), ("JWT_SECRET_FILE", file.as_str()));
    let credential = ("CREDENTIALS_DIRECTORY", credentials.as_str());
    for (given, names) in [
        (&[value, file][..], "JWT_SECRET and JWT_SECRET_FILE"),
        (&[value, credential], "JWT_SECRET and credential jwt_secret"),
        (&[file, credential], "JWT_SECRET_FILE and credential jwt_secret"),
        (&[value, file, credential], "JWT_SECRET and JWT_SECRET_FILE and credential jwt_secret"),
    ] {
        let line = refusal(&home, given);
        assert_eq!(line, format!("JWT_SECRET: is set more than once, by {names}; accepted: one of them"));
    }
    // The two are different secrets, and an empty variable is none.
    home.start(&[("JWT_SECRET", ""), file, ("JWT_REFRESH_SECRET", OTHER)]).stop();
    home.start(&[value, ("JWT_SECRET_FILE", "")]).stop();
    // Also both in `.env`.
    fs::write(home.path(".env"), format!("JWT_SECRET='{SECRET}'\nJWT_SECRET_FILE={}\n", file.1)).unwrap();
    let line = refusal(&home, &[]);
    assert!(line.contains("by JWT_SECRET and JWT_SECRET_FILE; "), "{line}");
}

#[test]
fn env_gives_way_to_every_other_place() {
    let home = Home::fresh(Backend::Sqlite);
    let server = home.start(&[("JWT_SECRET", SECRET)]);
    let token = server.client().sign_up("ann@example.com").access;
    server.stop();
    let file = place(&home, "credentials/jwt_secret", SECRET);
    place(&home, "other", OTHER);
    let credentials = home.path("credentials").to_str().unwrap().to_string();
    let places =
        [("JWT_SECRET", SECRET), ("JWT_SECRET_FILE", file.as_str()), ("CREDENTIALS_DIRECTORY", credentials.as_str())];
    for dotenv in [
        format!("JWT_SECRET='{OTHER}'\n"),
        "JWT_SECRET_FILE=other\n".to_string(),
        "JWT_SECRET_FILE='no such file'\n".to_string(),
        format!("JWT_SECRET='{OTHER}'\nJWT_SECRET_FILE=other\n"),
    ] {
        fs::write(home.path(".env"), &dotenv).unwrap();
        for place in places {
            assert!(accepts(&home, &[place], &token), "{place:?} beside {dotenv}");
        }
    }
    // Alone, it counts, and its paths are relative to the working directory.
    for (dotenv, is_the_same) in [("credentials/jwt_secret", true), ("other", false)] {
        fs::write(home.path(".env"), format!("JWT_SECRET_FILE={dotenv}\n")).unwrap();
        assert_eq!(accepts(&home, &[], &token), is_the_same, "{dotenv}");
    }
}

/// Kubernetes mounts a secret as a link to a file in a folder that is a link.
#[test]
fn a_file_behind_links_is_read() {
    if !postgres_cluster::available() {
        return;
    }
    let mut home = Home::fresh(Backend::Postgres);
    let database = home.database().unwrap();
    place(&home, "..2026/password", database.password());
    symlink("..2026", home.path("..data")).unwrap();
    symlink("..data/password", home.path("password")).unwrap();
    let parts = [
        ("DB_HOST", database.host().to_string()),
        ("DB_PORT", database.port().to_string()),
        ("DB_USERNAME", database.user().to_string()),
        ("DB_PASSWORD_FILE", home.path("password").to_str().unwrap().to_string()),
        ("DB_NAME", database.name().to_string()),
    ];
    home.unset("DATABASE_URL");
    for (name, value) in parts {
        home.set(name, &value);
    }
    home.start(&[]).client().sign_up("ann@example.com");
}
