//! Another process on the same SQLite file.

use std::thread;
use std::time::Duration;

use keyward_harness::http_client::{Client, PATIENCE};
use keyward_harness::service::{Backend, soon};
use serde_json::json;

use super::{Credential, start};

#[test]
fn what_the_command_line_ends_has_ended_when_it_returns() {
    let service = start(Backend::Sqlite);
    let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
    let (key, bobs_key) = (Credential::key(&service, &ann), Credential::key(&service, &bob));
    let Credential::Key { id, .. } = &key else { panic!("not a key") };
    let client = service.client();
    let steps: [(&[&str], &Credential, u16); 4] = [
        (&["key", "revoke", id], &key, 401),
        (&["user", "deactivate", &bob.email], &bobs_key, 401),
        (&["user", "activate", &bob.email], &bobs_key, 200),
        (&["user", "delete", &bob.email], &bobs_key, 401),
    ];
    for (arguments, credential, expected) in steps {
        assert_eq!(credential.status(&client), if expected == 200 { 401 } else { 200 });
        service.operator(arguments);
        soon(&format!("{arguments:?} is seen"), || credential.status(&client) == expected);
    }
    assert_eq!(service.token_status(&ann.access), 200);
    // By then the command waits itself; only a machine that stands still makes the server late.
    let at_once = (0..5).filter(|_| {
        let key = Credential::key(&service, &ann);
        let Credential::Key { id, .. } = &key else { panic!("not a key") };
        assert_eq!(key.status(&client), 200);
        service.operator(&["key", "revoke", id]);
        let is_over = key.status(&client) == 401;
        soon("it is revoked", || key.status(&client) == 401);
        is_over
    });
    assert!(at_once.count() >= 3);
}

#[test]
fn what_another_process_writes_into_the_file_is_seen_soon() {
    let service = start(Backend::Sqlite);
    let ann = service.sign_up("ann@example.com");
    let key = Credential::key(&service, &ann);
    let session = Credential::Token(ann.access.clone());
    let client = service.client();
    let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
    file.busy_timeout(PATIENCE).unwrap();
    for (statement, credential, expected) in [
        ("UPDATE api_keys SET is_active = 0", &key, 401),
        ("UPDATE api_keys SET is_active = 1", &key, 200),
        ("UPDATE sessions SET ended_at = created_at", &session, 401),
        ("UPDATE sessions SET ended_at = NULL", &session, 200),
        ("UPDATE users SET is_active = 0", &key, 401),
    ] {
        assert_eq!(credential.status(&client), if expected == 200 { 401 } else { 200 });
        file.execute(statement, []).unwrap();
        soon(&format!("{statement} is seen"), || credential.status(&client) == expected);
    }
}

#[test]
fn what_another_process_has_written_is_seen_while_it_keeps_on_writing() {
    let service = start(Backend::Sqlite);
    let ann = service.sign_up("ann@example.com");
    let key = Credential::key(&service, &ann);
    let client = service.client();
    assert_eq!(key.status(&client), 200);
    let file = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
    file.execute_batch("BEGIN IMMEDIATE").unwrap();
    let address = service.address();
    thread::scope(|scope| {
        // The server has something to write as well, and waits for its turn.
        scope.spawn(|| {
            let body = json!({ "name": "waits" });
            let status = Client::unobserved(address).post("/keys/create").bearer(&ann.access).json(body).send().status;
            assert!(matches!(status, 201 | 503), "{status}");
        });
        thread::sleep(Duration::from_millis(200));
        file.execute_batch("UPDATE api_keys SET is_active = 0; COMMIT; BEGIN IMMEDIATE").unwrap();
        soon("it is seen while the file is locked", || key.status(&client) == 401);
        file.execute_batch("ROLLBACK").unwrap();
    });
}
