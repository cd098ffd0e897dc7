//! `EMAIL_VERIFICATION=required`: what users reach before they have verified their addresses, and who counts as verified.

use keyward_harness::service::{Backend, PASSWORD, Service, error, on_both_stores};
use serde_json::{Value, json};

const REFUSED: &str = "E-mail address is not verified";

fn require(service: &mut Service) {
    service.reconfigure(|config| config.accounts.verified_email_required = true);
}

fn status(service: &Service, access: &str, path: &str) -> u16 {
    service.get(path).bearer(access).send().status
}

fn introspected(service: &Service, asking: &str, token: &str) -> Value {
    let form = format!("token={token}");
    let answer =
        service.post("/oauth/introspect").api_key(asking).body("application/x-www-form-urlencoded", form).send();
    answer.json()["active"].clone()
}

on_both_stores! {
    fn who_has_not_verified_their_address_reaches_their_account_alone_until_they_have(service) {
        require(service);
        let ann = service.sign_up("ann@example.com");
        for path in ["/auth/me", "/auth/sessions", "/auth/events"] {
            assert_eq!(status(service, &ann.access, path), 200, "{path}");
        }
        for path in ["/keys", "/protected/user-only", "/protected/flexible", "/authz/forward-auth", "/admin/users"] {
            let answer = service.get(path).bearer(&ann.access).send();
            assert_eq!(answer.status, 403, "{path}");
            assert_eq!(answer.json(), error(403, REFUSED), "{path}");
        }
        let body = json!({ "name": "ci" });
        assert_eq!(service.post("/keys/create").bearer(&ann.access).json(body).send().json(), error(403, REFUSED));
        let token = service.mailed_token(&ann.id, "verify-email", "ann@example.com");
        assert_eq!(service.post("/auth/verify-email").json(json!({ "token": token })).send().status, 200);
        // At once, with the same access token.
        for path in ["/keys", "/protected/user-only", "/authz/forward-auth"] {
            assert_eq!(status(service, &ann.access, path), 200, "{path}");
        }
    }

    fn their_keys_are_disabled_and_nothing_of_theirs_is_active(service) {
        let asking = service.sign_up("gateway@example.com");
        let asking = service.create_key(&asking.access, json!({ "name": "gateway", "scopes": ["keys:verify"] }));
        let asking = asking["key"].as_str().unwrap();
        require(service);
        let ann = service.sign_up("ann@example.com");
        let token = service.mailed_token(&ann.id, "verify-email", "ann@example.com");
        assert_eq!(service.post("/auth/verify-email").json(json!({ "token": token })).send().status, 200);
        let key = service.create_key(&ann.access, json!({ "name": "ci" }));
        let key = key["key"].as_str().unwrap();
        let seen = |service: &Service| {
            let verified = service.post("/keys/verify").api_key(asking).json(json!({ "key": key })).send().json();
            let active = (introspected(service, asking, key), introspected(service, asking, &ann.access));
            (verified["code"].clone(), active, service.key_status(key))
        };
        assert_eq!(seen(service), (json!("VALID"), (json!(true), json!(true)), 200));
        service.execute("UPDATE users SET email_verified = FALSE WHERE email = 'ann@example.com'");
        service.restart();
        assert_eq!(seen(service), (json!("DISABLED"), (json!(false), json!(false)), 401));
        service.operator(&["user", "verify-email", "ann@example.com"]);
        assert_eq!(seen(service), (json!("VALID"), (json!(true), json!(true)), 200));
    }

    fn accounts_from_before_and_service_accounts_count_as_verified(service) {
        let before = service.sign_up("before@example.com");
        service.grant("before@example.com", &["keyward:admin"]);
        let key = service.create_key(&before.access, json!({ "name": "ci" }));
        require(service);
        assert_eq!((status(service, &before.access, "/keys"), service.key_status(key["key"].as_str().unwrap())), (200, 200));
        let create = |body: Value| {
            let answer = service.post("/admin/users").bearer(&before.access).json(body).send();
            assert_eq!(answer.status, 201, "{answer:?}");
            answer.json()["id"].as_str().unwrap().to_string()
        };
        let key_of = |id: &str| {
            let body = json!({ "userId": id, "name": "ci", "scopes": [] });
            let answer = service.post("/admin/keys").bearer(&before.access).json(body).send();
            service.key_status(answer.json()["key"].as_str().unwrap())
        };
        assert_eq!(key_of(&create(json!({ "kind": "service", "email": "billing@example.com" }))), 200);
        assert_eq!(key_of(&create(json!({ "email": "known@example.com", "emailVerified": true }))), 200);
        assert_eq!(key_of(&create(json!({ "email": "unknown@example.com", "password": PASSWORD }))), 401);
        let unknown = service.log_in("unknown@example.com");
        assert_eq!(service.token_status(&unknown.access), 403);
        service.operator(&["user", "verify-email", "--all"]);
        assert_eq!(service.token_status(&unknown.access), 200);
        // Switched off, it asks nothing of anybody.
        let ann = service.sign_up("ann@example.com");
        assert_eq!(service.token_status(&ann.access), 403);
        service.reconfigure(|config| config.accounts.verified_email_required = false);
        assert_eq!(service.token_status(&ann.access), 200);
    }
}

#[test]
fn instances_agree_at_once_that_an_address_is_verified() {
    if !keyward_harness::postgres_cluster::available() {
        return;
    }
    let service = Service::start_with(Backend::Postgres, &[("EMAIL_VERIFICATION", "required")], |_| {});
    let (_sibling, client) = service.sibling();
    let ann = service.sign_up("ann@example.com");
    assert_eq!((service.token_status(&ann.access), client.token_status(&ann.access)), (403, 403));
    let token = service.mailed_token(&ann.id, "verify-email", "ann@example.com");
    assert_eq!(service.post("/auth/verify-email").json(json!({ "token": token })).send().status, 200);
    assert_eq!(service.token_status(&ann.access), 200);
    keyward_harness::service::soon("the other instance admits her", || client.token_status(&ann.access) == 200);
}
