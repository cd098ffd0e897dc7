//! Who loses against the operator: what began before an account changed, and finds another one when its turn comes.

use std::thread;
use std::time::Duration;

use keyward_harness::http_client::{Answer, Client, PATIENCE};
use keyward_harness::openapi;
use keyward_harness::service::{Account, Backend, PASSWORD, Service, within};
use serde_json::json;

const NEW_PASSWORD: &str = "another Password";
const OPERATORS_PASSWORD: &str = "the operator's Password";

/// Somebody's request with an account.
type Ask = dyn Fn(&Client, &Account) -> Answer + Sync;

/// Whether somebody waits for a row.
fn waits(observer: &mut postgres::Client) -> bool {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND application_name = 'keyward' AND wait_event_type = 'Lock'";
    observer.query_one(waiting, &[]).unwrap().get::<_, i64>(0) == 1
}

/// Does the operator's work past the server, while what the request is about is held.
fn meanwhile(
    service: &Service,
    account: &Account,
    statements: &str,
    request: impl Fn(&Client) -> Answer + Sync,
) -> Answer {
    let client = Client::new(service.address(), openapi::check);
    match service.database() {
        Some(database) => {
            let (mut holder, mut observer) = (database.client(), database.client());
            holder.batch_execute(&format!("BEGIN; UPDATE users SET name = name WHERE id = '{}'", account.id)).unwrap();
            thread::scope(|scope| {
                let asked = scope.spawn(|| request(&client));
                within(PATIENCE, "it waits for the row", || waits(&mut observer));
                holder.batch_execute(&format!("{statements}; COMMIT")).unwrap();
                asked.join().unwrap()
            })
        }
        None => {
            let holder = rusqlite::Connection::open(service.sqlite_file().unwrap()).unwrap();
            holder.busy_timeout(Duration::from_secs(10)).unwrap();
            holder.execute_batch("BEGIN IMMEDIATE").unwrap();
            thread::scope(|scope| {
                let asked = scope.spawn(|| request(&client));
                // Who waits for the file is not to be seen; hashing so many passwords takes longer than all that comes before.
                for _ in 0..32 {
                    bcrypt::hash(PASSWORD, 4).unwrap();
                }
                assert!(!asked.is_finished(), "it did not wait");
                holder.execute_batch(&format!("{statements}; COMMIT")).unwrap();
                asked.join().unwrap()
            })
        }
    }
}

fn set_password(account: &Account) -> String {
    let hash = bcrypt::hash(OPERATORS_PASSWORD, 4).unwrap();
    format!("UPDATE users SET password_hash = '{hash}', session_epoch = session_epoch + 1 WHERE id = '{}'", account.id)
}

const SETTINGS: [(&str, &str); 2] = [("RATE_LIMIT_WRITES", "off"), ("WEBHOOKS", "users")];

fn on_both(story: fn(&Service)) {
    for backend in Backend::installed() {
        story(&Service::start_with(backend, &SETTINGS, |config| config.accounts.bcrypt_cost = 4));
    }
}

fn log_in_status(service: &Service, account: &Account, password: &str) -> u16 {
    service.post("/auth/login").json(json!({ "email": account.email, "password": password })).send().status
}

#[test]
fn a_login_a_change_of_password_and_a_deletion_lose_against_another_password_that_the_operator_sets() {
    on_both(|service| {
        let login = |client: &Client, account: &Account| {
            client.post("/auth/login").json(json!({ "email": account.email, "password": PASSWORD })).send()
        };
        let change = |client: &Client, account: &Account| {
            let body = json!({ "currentPassword": PASSWORD, "newPassword": NEW_PASSWORD });
            client.post("/auth/password").bearer(&account.access).json(body).send()
        };
        let delete = |client: &Client, account: &Account| {
            client.delete("/auth/me").bearer(&account.access).json(json!({ "password": PASSWORD })).send()
        };
        for (number, request) in [&login as &Ask, &change, &delete].into_iter().enumerate() {
            let account = service.sign_up(&format!("user-{number}@example.com"));
            let answer = meanwhile(service, &account, &set_password(&account), |client| request(client, &account));
            assert_eq!(
                (answer.status, answer.json()["message"].as_str()),
                (401, Some("Invalid credentials")),
                "{number}"
            );
            let statuses =
                [PASSWORD, NEW_PASSWORD, OPERATORS_PASSWORD].map(|text| log_in_status(service, &account, text));
            assert_eq!(statuses, [401, 401, 200], "{number}");
        }
    });
}

#[test]
fn a_login_without_a_code_loses_against_a_second_factor_that_is_turned_on() {
    on_both(|service| {
        let ann = service.sign_up("ann@example.com");
        let secret = if service.database().is_some() { "'\\x00'" } else { "X'00'" };
        let turn_on = format!(
            "INSERT INTO second_factors (user_id, secret, created_at, enabled_at, last_step, wrong) \
             VALUES ('{}', {secret}, '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z', 0, 0)",
            ann.id
        );
        let answer = meanwhile(service, &ann, &turn_on, |client| {
            client.post("/auth/login").json(json!({ "email": ann.email, "password": PASSWORD })).send()
        });
        assert_eq!((answer.status, answer.json()["message"].as_str()), (401, Some("One-time code required")));
        assert_eq!(service.count("SELECT COUNT(*) FROM sessions"), 1);
    });
}

#[test]
fn a_deactivated_owner_makes_no_key() {
    on_both(|service| {
        let ann = service.sign_up("ann@example.com");
        let deactivate = format!("UPDATE users SET is_active = FALSE WHERE id = '{}'", ann.id);
        let answer = meanwhile(service, &ann, &deactivate, |client| {
            client.post("/keys/create").bearer(&ann.access).json(json!({ "name": "ci" })).send()
        });
        assert_eq!(answer.status, 401, "{answer:?}");
        assert_eq!(service.count("SELECT COUNT(*) FROM api_keys"), 0);
    });
}

#[test]
fn a_session_that_has_ended_meanwhile_gets_no_key() {
    on_both(|service| {
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci" }));
        let rotate = format!("/keys/{}/rotate", key["id"].as_str().unwrap());
        let end = format!("UPDATE users SET session_epoch = session_epoch + 1 WHERE id = '{}'", ann.id);
        let answer = meanwhile(service, &ann, &end, |client| {
            client.post("/keys/create").bearer(&ann.access).json(json!({ "name": "ci" })).send()
        });
        assert_eq!(answer.status, 401, "{answer:?}");
        let ann = service.log_in(&ann.email);
        let answer = meanwhile(service, &ann, &end, |client| {
            client.post(&rotate).bearer(&ann.access).json(json!({ "gracePeriod": "0s" })).send()
        });
        assert_eq!(answer.status, 404, "{answer:?}");
        assert_eq!(service.count("SELECT COUNT(*) FROM api_keys"), 1);
    });
}

/// Somebody who knew a password that was just replaced must not go on being told what happens.
#[test]
fn a_session_that_has_ended_meanwhile_makes_and_changes_no_webhook() {
    on_both(|service| {
        let ann = service.sign_up("ann@example.com");
        let url = json!({ "url": "https://hooks.invalid/in", "types": ["user.deleted"] });
        let made = service.post("/webhooks").bearer(&ann.access).json(url.clone()).send();
        let one = format!("/webhooks/{}", made.json()["id"].as_str().unwrap());
        let rotate = format!("{one}/rotate-secret");
        let end = format!("UPDATE users SET session_epoch = session_epoch + 1 WHERE id = '{}'", ann.id);
        for (method, target, body, status) in [
            ("POST", "/webhooks", url.clone(), 401),
            ("PATCH", &one, json!({ "url": "https://elsewhere.invalid/" }), 404),
            ("POST", &rotate, json!({}), 404),
        ] {
            let ann = service.log_in(&ann.email);
            let answer = meanwhile(service, &ann, &end, |client| {
                client.method(method, target).bearer(&ann.access).json(body.clone()).send()
            });
            assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
        }
        let ann = service.log_in(&ann.email);
        let mut left = service.get("/webhooks").bearer(&ann.access).send().json();
        let mut made = made.json();
        made.as_object_mut().unwrap().remove("secret");
        assert_eq!(left.as_array_mut().unwrap().pop(), Some(made));
        assert_eq!(left, json!([]));
    });
}

#[test]
fn an_operator_whose_session_or_grant_has_ended_meanwhile_makes_and_changes_no_webhook_of_operators() {
    on_both(|service| {
        let ann = service.sign_up("ann@example.com");
        let grant = |scopes: &str| format!("UPDATE users SET scopes = '{scopes}' WHERE id = '{}'", ann.id);
        service.execute(&grant("keyward:admin"));
        let url = json!({ "url": "https://hooks.invalid/in", "types": ["user.deleted"] });
        let operator = service.log_in(&ann.email);
        let made = service.post("/admin/webhooks").bearer(&operator.access).json(url.clone()).send();
        let one = format!("/admin/webhooks/{}", made.json()["id"].as_str().unwrap());
        let rotate = format!("{one}/rotate-secret");
        let end = format!("UPDATE users SET session_epoch = session_epoch + 1 WHERE id = '{}'", ann.id);
        let revoke = "UPDATE api_keys SET revoked_at = created_at";
        for lost in [&end, &grant(""), revoke] {
            for (method, target, body, status) in [
                ("POST", "/admin/webhooks", url.clone(), 403),
                ("PATCH", &one, json!({ "url": "https://elsewhere.invalid/" }), 404),
                ("POST", &rotate, json!({}), 404),
            ] {
                service.execute(&grant("keyward:admin"));
                let operator = service.log_in(&ann.email);
                let key = json!({ "name": "ci", "scopes": ["keyward:admin"] });
                let key = service.create_key(&operator.access, key)["key"].as_str().unwrap().to_string();
                let credential = if lost == revoke { &key } else { &operator.access };
                let answer = meanwhile(service, &ann, lost, |client| {
                    client.method(method, target).bearer(credential).json(body.clone()).send()
                });
                assert_eq!(answer.status, status, "{lost}: {method} {target}: {answer:?}");
            }
        }
        service.execute(&grant("keyward:admin"));
        let operator = service.log_in(&ann.email);
        let left = service.get("/admin/webhooks").bearer(&operator.access).send().json();
        assert_eq!(left.as_array().unwrap().len(), 1);
        assert_eq!(left[0]["url"], "https://hooks.invalid/in");
        assert_eq!(service.count("SELECT COUNT(*) FROM webhooks WHERE previous_secret IS NOT NULL"), 0);
    });
}

#[test]
fn an_endpoint_that_is_given_up_while_it_is_changed_stays_so() {
    on_both(|service| {
        let ann = service.sign_up("ann@example.com");
        let url = json!({ "url": "https://hooks.invalid/in", "types": ["user.deleted"] });
        let made = service.post("/webhooks").bearer(&ann.access).json(url).send();
        let one = format!("/webhooks/{}", made.json()["id"].as_str().unwrap());
        let change = |client: &Client| {
            client.method("PATCH", &one).bearer(&ann.access).json(json!({ "description": "ours" })).send()
        };
        let give_up = "UPDATE webhooks SET is_active = FALSE, disabled_at = '2026-01-01T00:00:00.000Z', \
                       disabled_reason = 'gone'";
        let answer = match service.database() {
            // It waits for the endpoint.
            Some(database) => {
                let (mut holder, mut observer) = (database.client(), database.client());
                let client = service.client();
                holder.batch_execute(&format!("BEGIN; {give_up}")).unwrap();
                thread::scope(|scope| {
                    let asked = scope.spawn(|| change(&client));
                    within(PATIENCE, "it waits for the row", || waits(&mut observer));
                    holder.batch_execute("COMMIT").unwrap();
                    asked.join().unwrap()
                })
            }
            None => meanwhile(service, &ann, give_up, change),
        };
        assert_eq!(answer.status, 200, "{answer:?}");
        let left = service.get(&one).bearer(&ann.access).send().json();
        assert_eq!((&left["description"], &left["isActive"]), (&json!("ours"), &json!(false)), "{left}");
        assert_eq!(left["disabledReason"], "gone", "{left}");
    });
}

#[test]
fn a_session_that_has_ended_itself_ends_no_others() {
    on_both(|service| {
        let ann = service.sign_up("ann@example.com");
        let end = format!("UPDATE users SET session_epoch = session_epoch + 1 WHERE id = '{}'", ann.id);
        let answer =
            meanwhile(service, &ann, &end, |client| client.delete("/auth/sessions").bearer(&ann.access).send());
        assert_eq!(answer.status, 401, "{answer:?}");
        assert_eq!(service.count("SELECT session_epoch FROM users"), 1);
    });
}

/// What ending the other sessions does, past the server.
fn move_along(account: &Account) -> String {
    format!(
        "UPDATE users SET session_epoch = session_epoch + 1 WHERE id = '{0}'; \
         UPDATE sessions SET epoch = epoch + 1 WHERE user_id = '{0}'",
        account.id
    )
}

#[test]
fn a_logout_ends_a_session_that_is_kept_while_the_others_are_ended() {
    on_both(|service| {
        let ann = service.sign_up("ann@example.com");
        let answer = meanwhile(service, &ann, &move_along(&ann), |client| {
            client.post("/auth/logout").bearer(&ann.access).send()
        });
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(service.token_status(&ann.access), 401);
        assert_eq!(service.count("SELECT COUNT(*) FROM sessions WHERE ended_at IS NULL"), 0);
    });
}

#[test]
fn a_refresh_goes_on_with_a_session_that_is_kept_while_the_others_are_ended() {
    on_both(|service| {
        let ann = service.sign_up("ann@example.com");
        let refresh =
            |client: &Client| client.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send();
        let answer = match service.database() {
            // It waits for its session, which has been moved along.
            Some(database) => {
                let (mut holder, mut observer) = (database.client(), database.client());
                let client = service.client();
                holder.batch_execute(&format!("BEGIN; {}", move_along(&ann))).unwrap();
                thread::scope(|scope| {
                    let asked = scope.spawn(|| refresh(&client));
                    within(PATIENCE, "it waits for the row", || waits(&mut observer));
                    holder.batch_execute("COMMIT").unwrap();
                    asked.join().unwrap()
                })
            }
            None => meanwhile(service, &ann, &move_along(&ann), refresh),
        };
        assert_eq!(answer.status, 200, "{answer:?}");
    });
}
