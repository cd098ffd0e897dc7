//! Whose address it is that a session remembers, behind proxies and without.

use keyward_harness::service::{Account, Backend, PASSWORD, Service, account, on_both_stores};
use serde_json::json;

/// Signs up with these headers.
fn sign_up_through(service: &Service, headers: &[(&str, &str)]) -> Account {
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let request = service.post("/auth/signup").json(body);
    let answer = headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send();
    assert_eq!(answer.status, 201, "{answer:?}");
    account(&answer.json())
}

fn address_of_session(service: &Service, ann: &Account) -> String {
    let sessions = service.get("/auth/sessions").bearer(&ann.access).send().json();
    sessions[0]["ip"].as_str().unwrap().to_string()
}

on_both_stores! {
    fn a_proxy_on_this_machine_is_believed_about_the_client(service) {
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-real-ip", "2.2.2.2"), ("X-Forwarded-For", "[2001:db8::7]:443")];
        let ann = sign_up_through(service, &lines);
        assert_eq!(address_of_session(service, &ann), "2001:db8::7");
    }
}

#[test]
fn the_operator_says_which_proxies_and_which_header_are_believed() {
    for (settings, expected) in [
        (&[("TRUSTED_PROXIES", "none")][..], "127.0.0.1"),
        (&[("TRUSTED_PROXIES", "10.0.0.0/8")], "127.0.0.1"),
        (&[("TRUSTED_PROXIES", "127.0.0.1, 192.0.2.0/24")], "198.51.100.7"),
        (&[("TRUSTED_PROXY_HEADER", "X-Real-IP")], "203.0.113.9"),
    ] {
        let service = Service::start_with(Backend::Sqlite, settings, |_| {});
        let headers = [("x-forwarded-for", "198.51.100.7, 192.0.2.3"), ("x-real-ip", "203.0.113.9")];
        let ann = sign_up_through(&service, &headers);
        assert_eq!(address_of_session(&service, &ann), expected, "{settings:?}");
    }
}
