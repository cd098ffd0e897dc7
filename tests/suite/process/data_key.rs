//! The key of the secrets that are stored and read again: where it comes from, and what is said of a bad one.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::thread;

use keyward::base::clock::Clock;
use keyward_harness::authenticator::Authenticator;
use keyward_harness::program::{Home, Server, in_both_homes};
use keyward_harness::service::{Backend, PASSWORD};
use serde_json::json;

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
    home.run(&["migrate"]).succeeded();
    assert_eq!(home.run(&["user", "list", "--json"]).succeeded().trim(), "[]", "operators need no key");
    home.set("DATA_KEY", &"c".repeat(64));
    home.start(&[]).stop();
}

/// What a login with this code answers.
fn log_in(server: &Server<'_>, code: &str) -> u16 {
    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "code": code });
    server.client().post("/auth/login").json(body).send().status
}

in_both_homes! {
    fn an_operator_changes_the_data_key_and_is_told_when_the_old_one_is_needed_no_more(home) {
        let [old, new] = [&*"a".repeat(64), &*"b".repeat(64)];
        let server = home.start(&[("DATA_KEY", old)]);
        let client = server.client();
        let ann = client.sign_up("ann@example.com");
        let post = |path: &str, body| client.post(path).bearer(&ann.access).json(body).send();
        let secret = post("/auth/totp", json!({ "password": PASSWORD })).json()["secret"].as_str().unwrap().to_string();
        let app = Authenticator::new(&secret, &Clock::default());
        let confirmed = post("/auth/totp/confirm", json!({ "code": app.code_after(-1) }));
        assert_eq!(confirmed.status, 200);
        let recovery_code = confirmed.json()["recoveryCodes"][0].as_str().unwrap().to_string();
        server.stop();

        let mut server = home.start(&[("DATA_KEY", new)]);
        server.wait_for_line("were encrypted by a DATA_KEY that is not set: set it as DATA_KEY, or beside another one as DATA_KEY_PREVIOUS");
        assert_eq!(log_in(&server, &app.code()), 500);
        server.wait_for_line("was sealed by another DATA_KEY: set that one as DATA_KEY_PREVIOUS");
        assert_eq!(log_in(&server, &recovery_code), 200);
        let said = server.stop().stderr;
        assert!(!said.contains(new) && !said.contains(&secret), "{said}");

        let mut server = home.start(&[("DATA_KEY", new), ("DATA_KEY_PREVIOUS", old)]);
        server.wait_for_line("1 secrets that DATA_KEY_PREVIOUS had encrypted are now encrypted by DATA_KEY");
        assert_eq!(log_in(&server, &app.code()), 200);
        server.stop();

        let server = home.start(&[("DATA_KEY", new)]);
        // A little later, so that it is another code.
        assert_eq!(log_in(&server, &app.code_after(1)), 200);
        assert!(!server.stop().stderr.contains("DATA_KEY"));
    }
}
