//! What the program makes when it starts, and what it finds.

use std::os::unix::fs::PermissionsExt;
use std::thread;

use keyward_harness::program::Home;
use keyward_harness::program::Server;
use keyward_harness::service::Backend;
use serde_json::json;

use super::create_key;

#[test]
fn without_a_setting_an_empty_folder_gets_a_database_and_secrets_that_only_their_owner_can_read() {
    let home = Home::fresh(Backend::Sqlite);
    let server = home.start(&[]);
    assert_eq!(server.client().get("/health").send().status, 200);
    let said = server.log().join("\n");
    assert!(said.contains("JWT secrets and a data key were generated; they are kept in keyward.db.secrets"), "{said}");
    assert!(said.contains("migration 0001_users_sessions_keys was applied"), "{said}");
    assert_eq!(home.files(), ["keyward.db", "keyward.db-shm", "keyward.db-wal", "keyward.db.secrets"]);
    for name in home.files() {
        let mode = home.path(&name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn after_a_stop_the_database_file_alone_is_the_whole_database() {
    let home = Home::fresh(Backend::Sqlite);
    let server = home.start(&[]);
    server.client().sign_up("ann@example.com");
    assert_eq!(server.stop().code, Some(0));
    let copy = Home::fresh(Backend::Sqlite);
    std::fs::copy(home.path("keyward.db"), copy.path("keyward.db")).unwrap();
    let shown = copy.run(&["user", "show", "ann@example.com"]).succeeded();
    assert!(shown.contains("ann@example.com"), "{shown}");
}

#[test]
fn a_second_start_makes_nothing_new_and_honours_what_was_issued_before() {
    let home = Home::fresh(Backend::Sqlite);
    let server = home.start(&[]);
    let ann = server.client().sign_up("ann@example.com");
    let (_, key) = create_key(&server.client(), &ann.access);
    server.stop();
    let secrets = std::fs::read(home.path("keyward.db.secrets")).unwrap();

    let server = home.start(&[]);
    let client = server.client();
    assert_eq!((client.token_status(&ann.access), client.key_status(&key)), (200, 200));
    let refreshed = client.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send();
    assert_eq!(refreshed.status, 200, "{refreshed:?}");
    let said = server.stop().stderr;
    assert!(!said.contains("generated") && !said.contains("migration"), "{said}");
    assert_eq!(std::fs::read(home.path("keyward.db.secrets")).unwrap(), secrets);
}

#[test]
fn servers_that_start_at_once_on_an_empty_folder_agree_on_the_secrets() {
    let home = Home::fresh(Backend::Sqlite);
    let servers: Vec<Server<'_>> = thread::scope(|scope| {
        let starts: Vec<_> = (0..3).map(|_| scope.spawn(|| home.start(&[]))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let ann = servers[0].client().sign_up("ann@example.com");
    for server in &servers {
        assert_eq!(server.client().token_status(&ann.access), 200);
    }
    assert_eq!(home.files(), ["keyward.db", "keyward.db-shm", "keyward.db-wal", "keyward.db.secrets"]);
}

#[test]
fn a_server_that_is_told_to_stop_as_soon_as_it_says_that_it_listens_stops_in_good_order() {
    let home = Home::fresh(Backend::Sqlite);
    for _ in 0..12 {
        assert_eq!(home.start(&[]).stop().code, Some(0));
    }
}

#[test]
fn a_secrets_file_that_was_damaged_stops_the_start_and_stays_as_it_is() {
    let home = Home::fresh(Backend::Sqlite);
    std::fs::write(home.path("keyward.db.secrets"), "JWT_SECRET=cut-off-he").unwrap();
    let failed = home.run(&[]);
    let line = failed.failed(1);
    assert!(line.contains("keyward.db.secrets") && line.contains("JWT_SECRET"), "{line}");
    assert!(!line.contains("cut-off"), "{line}");
    assert_eq!(home.files(), ["keyward.db.secrets"]);
    assert_eq!(std::fs::read_to_string(home.path("keyward.db.secrets")).unwrap(), "JWT_SECRET=cut-off-he");
}
