//! What is kept no longer is deleted, bit by bit and behind the scenes.

use std::time::{Duration, Instant};

use keyward_harness::http_client::PATIENCE;
use keyward_harness::program::Home;
use keyward_harness::service::{PASSWORD, on_both_stores, within};
use serde_json::json;

use super::new_key;

on_both_stores! {
    fn what_was_counted_is_written_when_a_server_stops_amid_deleting_what_is_kept_no_longer(service) {
        const OLD: i64 = 200_000;
        let ann = service.sign_up("ann@example.com");
        let made = new_key(service, &ann);
        service.stop();
        let id = match service.database() {
            Some(_) => "CAST('00000000-0000-7000-8000-' || (100000000000 + i) AS UUID)",
            None => "'00000000-0000-7000-8000-' || (100000000000 + i)",
        };
        service.execute(&format!(
            "WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {OLD}) \
             INSERT INTO events (id, at, kind, actor, details, count) \
             SELECT {id}, '2000-01-01T00:00:00.000Z', 'login.failed', 'anonymous', '{{}}', 1 FROM numbers"
        ));
        service.restart();
        let left = |service: &Service| service.count("SELECT COUNT(*) FROM events WHERE at < '2001-01-01T00:00:00.000Z'");
        let deadline = Instant::now() + Duration::from_secs(10);
        while left(service) == OLD {
            assert!(Instant::now() < deadline, "nothing is deleted");
        }
        for _ in 0..3 {
            assert_eq!(service.key_status(&made.key), 200);
        }
        service.stop();
        assert!(left(service) > 0, "it was done before the test was");
        service.restart();
        let listed = service.get("/keys").bearer(&ann.access).send().json();
        assert_eq!(listed[0]["usesLast24h"], 3);
    }
}

on_both_stores! {
    fn what_cannot_be_deleted_holds_up_nothing_else_and_is_tried_again_after_a_minute(service) {
        let ann = service.sign_up("ann@example.com");
        let key = new_key(service, &ann);
        assert_eq!(service.key_status(&key.key), 200);
        let kept = |table: &str| service.count(&format!("SELECT COUNT(*) FROM {table}"));
        within(PATIENCE, "the use is written", || kept("key_hours") == 1);
        service.execute("ALTER TABLE key_hours RENAME TO hidden");
        service.advance(370 * 86_400);
        within(PATIENCE, "the others are deleted", || (kept("sessions"), kept("events")) == (0, 0));
        service.execute("ALTER TABLE hidden RENAME TO key_hours");
        assert_eq!(kept("key_hours"), 1);
        service.advance(60);
        within(PATIENCE, "it is deleted", || kept("key_hours") == 0);
    }

    fn a_clock_that_is_far_ahead_at_the_start_deletes_nothing_for_a_week(service) {
        let ann = service.sign_up("ann@example.com");
        let key = new_key(service, &ann);
        assert_eq!(service.key_status(&key.key), 200);
        service.advance(400 * 86_400);
        service.restart();
        // By then it has been at its chores between two rounds of writing.
        for uses in 2..=3 {
            assert_eq!(service.key_status(&key.key), 200);
            let written = || service.count("SELECT CAST(SUM(allowed) AS BIGINT) FROM key_hours") == uses;
            within(PATIENCE, "the use is written", written);
        }
        let kept = |table: &str| service.count(&format!("SELECT COUNT(*) FROM {table}"));
        assert_eq!((kept("sessions"), kept("events"), kept("key_hours")), (1, 2, 2));
        service.advance(7 * 86_400);
        within(PATIENCE, "what is old is deleted", || {
            (kept("sessions"), kept("events"), kept("key_hours")) == (0, 0, 1)
        });
    }
}

on_both_stores! {
    fn an_account_with_much_history_is_gone_at_once_and_its_rows_soon(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let (hers, his) = (new_key(service, &ann), new_key(service, &bob));
        assert_eq!((service.key_status(&hers.key), service.key_status(&his.key)), (200, 200));
        let written = || service.count("SELECT COUNT(*) FROM key_hours") == 2;
        within(PATIENCE, "the uses are written", written);
        let (id, bytes) = match service.database() {
            Some(_) => ("CAST('00000000-0000-7000-8000-' || (100000000000 + i) AS UUID)", "decode(md5(i::text), 'hex')"),
            None => ("'00000000-0000-7000-8000-' || (100000000000 + i)", "CAST('hash ' || i AS BLOB)"),
        };
        let numbers = "WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < 3000)";
        let then = "'2026-01-01T00:00:00.000Z'";
        service.execute(&format!(
            "INSERT INTO sessions (id, user_id, generation, created_at, expires_at, ip) {numbers} \
             SELECT {id}, '{ann}', 1, {then}, '2999-01-01T00:00:00.000Z', '192.0.2.1' FROM numbers; \
             INSERT INTO api_keys (id, user_id, hash, hint, name, is_active, created_at) {numbers} \
             SELECT {id}, '{ann}', {bytes}, '', '', TRUE, {then} FROM numbers; \
             INSERT INTO key_hours (key_id, hour, allowed, disabled, expired) {numbers} \
             SELECT '{key}', i, 1, 0, 0 FROM numbers",
            ann = ann.id, key = hers.id
        ));
        // What hangs on it cannot be deleted for now: the account is gone all the same.
        service.execute(match service.database() {
            Some(_) => "CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'held'; END $$; \
                        CREATE TRIGGER held BEFORE DELETE ON key_hours EXECUTE FUNCTION held()",
            None => "CREATE TRIGGER held BEFORE DELETE ON key_hours BEGIN SELECT RAISE(ABORT, 'held'); END",
        });
        let body = json!({ "password": PASSWORD });
        assert_eq!(service.delete("/auth/me").bearer(&ann.access).json(body).send().status, 200);
        let refreshed = service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send().status;
        assert_eq!((service.token_status(&ann.access), refreshed, service.key_status(&hers.key)), (401, 401, 401));
        let verified = service.post("/keys/verify").bearer(&bob.access).json(json!({ "key": hers.key })).send().json();
        assert_eq!(verified["code"], "NOT_FOUND");
        let login = json!({ "email": ann.email, "password": PASSWORD });
        assert_eq!(service.post("/auth/login").json(login).send().status, 401);
        assert!(!service.operator(&["user", "list"]).contains(&ann.id));
        let keys = service.operator(&["key", "list"]);
        assert!(keys.contains(&his.id) && !keys.contains(&hers.id), "{keys}");
        let home = Home::beside(service);
        for command in ["show", "activate", "deactivate", "delete"] {
            assert_eq!(home.run(&["user", command, &ann.id]).failed(1), "there is no such user", "{command}");
        }
        let named = "SELECT COUNT(*) FROM users WHERE email = 'ann@example.com' OR password_hash <> '' AND email <> 'bob@example.com'";
        assert_eq!(service.count(named), 0);
        let again = service.sign_up("ann@example.com");
        assert_ne!(again.id, ann.id);

        // As after a crash.
        service.stop();
        service.execute(match service.database() {
            Some(_) => "DROP TRIGGER held ON key_hours",
            None => "DROP TRIGGER held",
        });
        service.restart();
        let left = || {
            let of_ann = |table: &str| service.count(&format!("SELECT COUNT(*) FROM {table} WHERE user_id = '{}'", ann.id));
            let users = service.count(&format!("SELECT COUNT(*) FROM users WHERE id = '{}'", ann.id));
            let hours = service.count(&format!("SELECT COUNT(*) FROM key_hours WHERE key_id = '{}'", hers.id));
            (users, of_ann("sessions"), of_ann("api_keys"), hours)
        };
        within(PATIENCE, "nothing is left", || left() == (0, 0, 0, 0));
        assert_eq!((service.key_status(&his.key), service.token_status(&again.access)), (200, 200));
        assert_eq!(service.count("SELECT COUNT(*) FROM key_hours"), 1);
    }

    fn of_an_account_with_little_history_nothing_is_left_when_its_deletion_is_answered(service) {
        let ann = service.sign_up("ann@example.com");
        let bob = service.sign_up("bob@example.com");
        for account in [&ann, &bob] {
            new_key(service, account);
        }
        let body = json!({ "password": PASSWORD });
        assert_eq!(service.delete("/auth/me").bearer(&ann.access).json(body).send().status, 200);
        let left = |table: &str| service.count(&format!("SELECT COUNT(*) FROM {table}"));
        assert_eq!((left("users"), left("sessions"), left("api_keys")), (1, 1, 1));
        service.operator(&["user", "delete", &bob.id]);
        assert_eq!((left("users"), left("sessions"), left("api_keys")), (0, 0, 0));
    }
}
