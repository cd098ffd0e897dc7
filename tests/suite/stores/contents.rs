//! What is stored outlives a restart, and no secret is stored.

use keyward_harness::service::{PASSWORD, on_both_stores};
use serde_json::{Value, json};

use super::new_key;

on_both_stores! {
    fn users_sessions_keys_and_revocations_outlive_a_restart(service) {
        let ann = service.sign_up("ann@example.com");
        let other_session = service.log_in("ann@example.com");
        let (good, revoked) = (new_key(service, &ann), new_key(service, &ann));
        let expiring = service.create_key(&ann.access, json!({ "name": "brief", "expiresAt": "2999-01-01T00:00:00Z" }));
        assert_eq!(service.delete(&format!("/keys/{}", revoked.id)).bearer(&ann.access).send().status, 200);
        assert_eq!(service.post("/auth/logout").bearer(&other_session.access).send().status, 200);
        let refreshed = service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send().json();
        let listed = service.get("/keys").bearer(&ann.access).send().json();

        service.restart();
        assert_eq!(service.get("/keys").bearer(&ann.access).send().json(), listed);
        assert_eq!((service.token_status(&ann.access), service.token_status(&other_session.access)), (200, 401));
        assert_eq!((service.key_status(&good.key), service.key_status(&revoked.key)), (200, 401));
        assert_eq!(service.key_status(expiring["key"].as_str().unwrap()), 200);
        let refresh = |token: &Value| service.post("/auth/refresh").json(json!({ "refreshToken": token })).send().status;
        assert_eq!(refresh(&refreshed["refreshToken"]), 200);
        assert_eq!(refresh(&json!(other_session.refresh)), 401);
        assert_eq!(service.log_in("ann@example.com").id, ann.id);
    }

    fn neither_a_password_nor_a_key_nor_a_token_is_stored_anywhere(service) {
        let ann = service.sign_up("ann@example.com");
        let made = new_key(service, &ann);
        assert_eq!(service.key_status(&made.key), 200);
        assert_eq!(service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send().status, 200);
        service.grant(&ann.id, &["keyward:admin"]);
        let reset = service.post(&format!("/admin/users/{}/reset-password", ann.id)).bearer(&ann.access).send().json();
        let reset = reset["token"].as_str().unwrap();
        let (unknown, wrong) = ("nobody@example.com", "a mistyped Passwrod 1!");
        for email in [&ann.email, unknown] {
            let body = json!({ "email": email, "password": wrong });
            assert_eq!(service.post("/auth/login").json(body).send().status, 401);
        }
        service.restart();
        service.stop();

        // Everything that is stored, as bytes and as text.
        let (stored, hash) = match (service.sqlite_file(), service.database()) {
            (Some(file), _) => {
                let folder = std::fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
                let files: Vec<_> = folder.filter(|path| !path.ends_with("keyward.db.secrets")).collect();
                assert!(files.contains(&file));
                let bytes: Vec<u8> = files.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
                let connection = rusqlite::Connection::open(&file).unwrap();
                (bytes, connection.query_row("SELECT password_hash FROM users", [], |row| row.get(0)).unwrap())
            }
            (None, Some(database)) => {
                let mut client = database.client();
                let mut rows = Vec::new();
                for table in [
                    "users",
                    "sessions",
                    "api_keys",
                    "one_time_tokens",
                    "failures",
                    "account_failures",
                    "events",
                    "schema_migrations",
                ] {
                    let select = format!("SELECT row_to_json({table})::text FROM {table}");
                    rows.extend(client.query(&select, &[]).unwrap().iter().map(|row| row.get::<_, String>(0)));
                }
                let hash: String = client.query_one("SELECT password_hash FROM users", &[]).unwrap().get(0);
                (rows.join("\n").into_bytes(), hash)
            }
            (None, None) => unreachable!(),
        };
        assert!(hash.starts_with("$2b$10$") && hash.len() == 60, "{hash}");
        let contains = |needle: &[u8]| stored.windows(needle.len()).any(|window| window == needle);
        assert!(contains(b"ann@example.com") && contains(hash.as_bytes()), "what is stored can be found this way");
        let digits = &made.key[3..];
        for secret in [PASSWORD, digits, &digits[..32], &digits[32..], &ann.access, &ann.refresh, reset, unknown, wrong] {
            assert!(!contains(secret.as_bytes()), "{secret}");
        }
        for digits in [digits, reset] {
            assert!(!contains(&hex::decode(digits).unwrap()));
        }
        for token in [&ann.access, &ann.refresh] {
            assert!(!contains(token.rsplit('.').next().unwrap().as_bytes()), "a signature");
        }
    }
}
