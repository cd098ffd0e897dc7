//! The three protected routes, and how the guards judge credentials.

use keyward_harness::service::{Service, error, on_both_stores, soon};
use serde_json::{Value, json};

const USER_ONLY: &str = "This route is accessible only with user JWT token";
const SERVICE_ONLY: &str = "This route is accessible only with API key";
const FLEXIBLE: &str = "This route accepts both user JWT and API key";

/// Status, body and challenges of a GET with these headers.
fn ask(service: &Service, path: &str, headers: &[(&str, &str)]) -> (u16, Value, Vec<String>) {
    let request = headers.iter().fold(service.get(path), |request, (name, value)| request.header(name, value));
    let answer = request.send();
    let challenges = answer.headers.get_all("www-authenticate").iter();
    let challenges = challenges.map(|value| value.to_str().unwrap().to_string()).collect();
    (answer.status, answer.json(), challenges)
}

fn refused(message: &str, challenges: &[&str]) -> (u16, Value, Vec<String>) {
    (401, error(401, message), challenges.iter().map(|challenge| challenge.to_string()).collect())
}

const INVALID_TOKEN: &str = "Bearer error=\"invalid_token\"";

on_both_stores! {
    fn each_route_tells_who_asks(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let (bearer, key) = (format!("Bearer {}", ann.access), made["key"].as_str().unwrap());
        let (token, key) = (("authorization", bearer.as_str()), ("x-api-key", key));
        let who = |kind: &str| json!({ "userId": ann.id, "email": ann.email, "type": kind });
        let user = json!({ "userId": ann.id, "email": ann.email });
        for (path, headers, expected) in [
            ("user-only", vec![token], json!({ "message": USER_ONLY, "user": user, "accessType": "user" })),
            ("service-only", vec![key], json!({ "message": SERVICE_ONLY, "user": who("service"), "accessType": "service" })),
            ("flexible", vec![token], json!({ "message": FLEXIBLE, "user": who("user"), "accessType": "user" })),
            ("flexible", vec![key], json!({ "message": FLEXIBLE, "user": who("service"), "accessType": "service" })),
            ("flexible", vec![token, key], json!({ "message": FLEXIBLE, "user": who("service"), "accessType": "service" })),
        ] {
            assert_eq!(ask(service, &format!("/protected/{path}"), &headers), (200, expected, vec![]));
        }
    }

    fn without_a_good_credential_it_is_a_401_that_says_what_is_taken(service) {
        let ann = service.sign_up("ann@example.com");
        let unknown = format!("sk_{}", "0".repeat(64));
        let bearer = format!("Bearer {}", ann.access);
        let key = ("x-api-key", unknown.as_str());
        let token = ("authorization", bearer.as_str());
        let bad_token = ("authorization", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.AAAA");
        let bad_key = "Invalid or expired API key";
        for (path, headers, expected) in [
            ("user-only", vec![], refused("Unauthorized", &["Bearer"])),
            ("user-only", vec![bad_token], refused("Unauthorized", &[INVALID_TOKEN])),
            ("user-only", vec![key], refused("Unauthorized", &["Bearer"])),
            ("user-only", vec![("authorization", "Basic YTpi")], refused("Unauthorized", &["Bearer"])),
            ("user-only", vec![token, token], refused("Unauthorized", &[INVALID_TOKEN])),
            ("service-only", vec![], refused("Unauthorized", &["ApiKey"])),
            // It takes tokens that were derived from keys, and this one was meant as one.
            ("service-only", vec![token], refused("Unauthorized", &[INVALID_TOKEN, "ApiKey"])),
            ("service-only", vec![bad_token], refused("Unauthorized", &[INVALID_TOKEN, "ApiKey"])),
            ("service-only", vec![key], refused(bad_key, &["ApiKey"])),
            ("service-only", vec![("x-api-key", "sk_short")], refused(bad_key, &["ApiKey"])),
            ("service-only", vec![("x-api-key", "")], refused(bad_key, &["ApiKey"])),
            ("flexible", vec![], refused("Unauthorized", &["Bearer", "ApiKey"])),
            ("flexible", vec![bad_token], refused("Unauthorized", &[INVALID_TOKEN, "ApiKey"])),
            ("flexible", vec![key], refused(bad_key, &["Bearer", "ApiKey"])),
            ("flexible", vec![key, bad_token], refused(bad_key, &[INVALID_TOKEN, "ApiKey"])),
        ] {
            assert_eq!(ask(service, &format!("/protected/{path}"), &headers), expected, "{path} {headers:?}");
        }
    }

    fn on_the_flexible_route_either_good_credential_admits(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let (key, token) = (made["key"].as_str().unwrap(), ann.access.as_str());
        let unknown = format!("sk_{}", "0".repeat(64));
        for (key, token, admitted) in [
            (key, "bad", "service"),
            ("bad", token, "user"),
            (unknown.as_str(), token, "user"),
            (key, token, "service"),
        ] {
            let answer = service.get("/protected/flexible").api_key(key).bearer(token).send();
            assert_eq!((answer.status, &answer.json()["accessType"]), (200, &json!(admitted)));
        }
        service.delete(&format!("/keys/{}", made["id"].as_str().unwrap())).bearer(token).send();
        let answer = service.get("/protected/flexible").api_key(key).bearer(token).send();
        assert_eq!((answer.status, &answer.json()["accessType"]), (200, &json!("user")));
    }

    fn the_scheme_is_read_without_case(service) {
        let ann = service.sign_up("ann@example.com");
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let headers = [("authorization", format!("{scheme} {}", ann.access))];
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(ask(service, "/protected/user-only", &headers).0, 200, "{scheme}");
        }
    }

    fn tokens_that_were_tampered_with_are_refused(service) {
        let ann = service.sign_up("ann@example.com");
        let bob = service.sign_up("bob@example.com");
        let part = |token: &str, index: usize| token.split('.').nth(index).unwrap().to_string();
        let none = "eyJhbGciOiJub25lIn0";
        for token in [
            format!("{}.{}.{}", part(&ann.access, 0), part(&bob.access, 1), part(&ann.access, 2)),
            format!("{none}.{}.", part(&ann.access, 1)),
            format!("{none}.{}.{}", part(&ann.access, 1), part(&ann.access, 2)),
            format!("{}.{}", part(&ann.access, 0), part(&ann.access, 1)),
            format!("{}x", ann.access),
            String::new(),
            ".".to_string(),
            "..".to_string(),
        ] {
            assert_eq!(service.token_status(&token), 401, "{token}");
        }
    }

    fn a_deleted_users_credentials_are_worth_nothing(service) {
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let key = made["key"].as_str().unwrap();
        assert_eq!((service.token_status(&ann.access), service.key_status(key)), (200, 200));
        service.operator(&["user", "delete", &ann.email]);
        soon("they are refused", || (service.token_status(&ann.access), service.key_status(key)) == (401, 401));
    }
}
