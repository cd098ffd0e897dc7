//! The key of the secrets that are stored and read again: where it comes from, and what is said of a bad one.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::thread;

use keyward_harness::program::{Home, Server};
use keyward_harness::service::Backend;

use super::refusal;

const FILE: &str = "keyward.db.secrets";

/// A file of secrets as versions before the data key made it.
fn earlier_file() -> String {
    format!("JWT_SECRET={}\nJWT_REFRESH_SECRET={}\n", "a".repeat(64), "b".repeat(64))
}

fn values(text: &str, name: &str) -> Vec<String> {
    let prefix = format!("{name}=");
    text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_string).collect()
}

#[test]
fn servers_that_start_at_once_add_one_data_key_to_an_earlier_file_of_secrets() {
    let home = Home::fresh(Backend::Sqlite);
    // Somebody keeps it elsewhere, and their editor ends no last line.
    fs::write(home.path("kept"), earlier_file().trim_end()).unwrap();
    fs::set_permissions(home.path("kept"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("kept", home.path(FILE)).unwrap();
    let old = home.path("kept").metadata().unwrap().ino();
    let servers: Vec<Server<'_>> = thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| home.start(&[]))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let text = fs::read_to_string(home.path(FILE)).unwrap();
    assert!(text.starts_with(&earlier_file()), "what was there stays");
    let keys = values(&text, "DATA_KEY");
    assert!(keys.len() == 1 && hex::decode(&keys[0]).unwrap().len() == 32, "one key");
    let made = home.path("kept").metadata().unwrap();
    assert!(
        made.ino() != old && made.permissions().mode() & 0o777 == 0o640,
        "the file is another one of the same mode"
    );
    assert!(fs::symlink_metadata(home.path(FILE)).unwrap().is_symlink());
    let said: Vec<String> = servers.into_iter().map(|server| server.stop().stderr).collect();
    let told = said.iter().filter(|said| said.contains("DATA_KEY was generated; it is kept in keyward.db.secrets"));
    assert_eq!(told.count(), 1);
    assert!(!said.concat().contains(&keys[0]), "no log shows it");
    assert_eq!(home.files(), ["kept", "keyward.db", FILE]);
}

#[test]
fn a_data_key_that_is_set_is_not_kept_and_commands_make_none() {
    let home = Home::fresh(Backend::Sqlite);
    fs::write(home.path(FILE), earlier_file()).unwrap();
    home.start(&[("DATA_KEY", &"c".repeat(64))]).stop();
    home.run(&["user", "list"]).succeeded();
    assert_eq!(fs::read_to_string(home.path(FILE)).unwrap(), earlier_file());
}

#[test]
fn a_data_key_that_is_none_stops_the_start_and_is_not_shown() {
    let mut home = Home::fresh(Backend::Sqlite);
    let accepted = "accepted: 32 bytes, in hexadecimal or base64, such as the output of `openssl rand -hex 32`";
    for name in ["DATA_KEY", "DATA_KEY_PREVIOUS"] {
        for (value, fault) in [
            ("hunter2, in words", "is neither hexadecimal nor base64"),
            ("deadbeef", "is not 32 bytes"),
            ("deadbeefdeadbeefdeadbeefdeadbeef", "is not 32 bytes"),
        ] {
            assert_eq!(refusal(&home, &[(name, value)]), format!("{name}: the value {fault}; {accepted}"));
        }
    }
    let damaged = format!("{}DATA_KEY=hunter2\n", earlier_file());
    fs::write(home.path(FILE), &damaged).unwrap();
    let line = refusal(&home, &[]);
    assert_eq!(line, "keyward.db.secrets has no good DATA_KEY; restore it");
    assert_eq!(fs::read_to_string(home.path(FILE)).unwrap(), damaged);
    home.set("DATA_KEY", &"c".repeat(64));
    home.start(&[]).stop();
}
