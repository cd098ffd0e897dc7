//! Keys that may be used from some addresses only.

use keyward_harness::http_client::Request;
use keyward_harness::service::{Account, Backend, Service, broken_rules, error, on_both_stores};
use serde_json::{Value, json};

const REFUSAL: &str = "API key may not be used from this address";

/// Where the service of the stories is, and elsewhere.
const HOME: &str = "198.51.100.7";
const AWAY: &str = "203.0.113.9";

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn from<'a>(address: &str, request: Request<'a>) -> Request<'a> {
    request.header("x-forwarded-for", address)
}

/// A key that may be used from home, with these settings.
fn key_of(service: &Service, owner: &Account, mut settings: Value) -> Value {
    settings["name"] = json!("ci");
    settings["allowedIps"] = json!(["2001:db8::/32", "198.51.100.0/28"]);
    service.create_key(&owner.access, settings)
}

/// The counts of today, of a key.
fn usage(service: &Service, owner: &Account, key: &Value) -> Value {
    let target = format!("/keys/{}/usage?by=day", text(&key["id"]));
    let usage = service.get(&target).bearer(&owner.access).send().json();
    let today = usage["series"].as_array().unwrap().last().unwrap().clone();
    json!([today["allowed"], today["refused"]["forbiddenAddress"]])
}

on_both_stores! {
    fn a_key_is_refused_from_other_addresses_than_it_allows(service) {
        let ann = service.sign_up("ann@example.com");
        let made = key_of(service, &ann, json!({}));
        let ask = |address: &str| from(address, service.get("/protected/service-only").api_key(text(&made["key"]))).send();
        // Twice each: from the store, and from memory.
        for (address, status) in [
            (HOME, 200), (HOME, 200), (AWAY, 403), (AWAY, 403), ("198.51.100.16", 403), ("2001:db8:7::1", 200),
            ("::ffff:198.51.100.8", 200), ("::1", 403),
        ] {
            let answer = ask(address);
            assert_eq!(answer.status, status, "{address}");
            if status == 403 {
                assert_eq!((answer.json(), answer.header("www-authenticate")), (error(403, REFUSAL), None));
            }
        }
        assert_eq!(usage(service, &ann, &made), json!([4, 4]));
        // What it allows changes at once.
        let target = format!("/keys/{}", text(&made["id"]));
        let allow = |allowed: Value| {
            let answer = service.patch(&target).bearer(&ann.access).json(json!({ "allowedIps": allowed })).send();
            assert_eq!(answer.status, 200, "{answer:?}");
        };
        allow(json!([AWAY]));
        assert_eq!((ask(HOME).status, ask(AWAY).status), (403, 200));
        allow(json!(null));
        assert_eq!((ask(HOME).status, ask(AWAY).status), (200, 200));
    }

    fn a_refused_address_spends_nothing_and_hears_of_no_limit(service) {
        let ann = service.sign_up("ann@example.com");
        let made = key_of(service, &ann, json!({ "rateLimit": { "limit": 1, "window": "1h" } }));
        let ask = |address: &str| from(address, service.get("/protected/service-only").api_key(text(&made["key"]))).send();
        for _ in 0..3 {
            let answer = ask(AWAY);
            assert_eq!((answer.status, answer.header("ratelimit")), (403, None));
        }
        assert_eq!((ask(HOME).status, ask(HOME).status, ask(AWAY).status), (200, 429, 403));
        let listed = service.get("/keys").bearer(&ann.access).send().json();
        assert_eq!(listed[0]["usesLast24h"], 1);
    }

    fn tokens_that_were_derived_from_the_key_are_judged_too(service) {
        let ann = service.sign_up("ann@example.com");
        let made = key_of(service, &ann, json!({ "scopes": ["a"] }));
        let derive = |address: &str| from(address, service.post("/auth/token").api_key(text(&made["key"])).json(json!({}))).send();
        let refused = derive(AWAY);
        assert_eq!((refused.status, refused.json()), (403, error(403, REFUSAL)));
        let token = text(&derive(HOME).json()["accessToken"]).to_string();
        let ask = |address: &str| from(address, service.get("/protected/service-only").bearer(&token)).send();
        assert_eq!(ask(HOME).status, 200);
        let refused = ask(AWAY);
        assert_eq!((refused.status, refused.json()), (403, error(403, REFUSAL)));
        assert_eq!(usage(service, &ann, &made), json!([2, 2]));
    }

    fn on_flexible_routes_the_jwt_decides(service) {
        let ann = service.sign_up("ann@example.com");
        let made = key_of(service, &ann, json!({}));
        let ask = || from(AWAY, service.get("/protected/flexible").api_key(text(&made["key"])));
        let refused = ask().send();
        assert_eq!((refused.status, refused.json()), (403, error(403, REFUSAL)));
        let refused = ask().bearer("no.token.atall").send();
        assert_eq!((refused.status, refused.json()), (403, error(403, REFUSAL)));
        let admitted = ask().bearer(&ann.access).send();
        assert_eq!((admitted.status, &admitted.json()["accessType"]), (200, &json!("user")));
    }

    fn those_who_find_the_key_can_end_it_from_anywhere(service) {
        let ann = service.sign_up("ann@example.com");
        let made = key_of(service, &ann, json!({}));
        let key = text(&made["key"]);
        assert_eq!(from(AWAY, service.post("/keys/revoke-self").api_key(key)).send().status, 200);
        assert_eq!(from(HOME, service.get("/protected/service-only").api_key(key)).send().status, 401);
        // It is told before the address: of an ended key, nothing else is.
        assert_eq!(from(AWAY, service.get("/protected/service-only").api_key(key)).send().status, 401);
    }

    fn gateways_refuse_it_by_their_clients_address(service) {
        let ann = service.sign_up("ann@example.com");
        let made = key_of(service, &ann, json!({}));
        for gateway in ["/authz/forward-auth", "/authz/auth-request", "/authz/ext-authz/orders"] {
            let ask = |address: &str| from(address, service.get(gateway).api_key(text(&made["key"]))).send();
            assert_eq!(ask(HOME).status, 200, "{gateway}");
            let refused = ask(AWAY);
            assert_eq!((refused.status, refused.json()), (403, error(403, REFUSAL)), "{gateway}");
            assert!(refused.headers.keys().all(|name| !name.as_str().starts_with("x-auth")), "{gateway}");
        }
    }

    fn services_that_ask_about_it_say_the_address(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let made = key_of(service, &ann, json!({
            "scopes": ["a"], "rateLimit": { "limit": 9, "window": "1h" }, "externalId": "42",
        }));
        let key = text(&made["key"]);
        let asker = service.create_key(&bob.access, json!({ "name": "asker", "scopes": ["keys:verify"] }));
        let asker = text(&asker["key"]);
        let verify = |body: Value| service.post("/keys/verify").api_key(asker).json(body).send().json();
        for (ip, code) in [
            (json!(HOME), "VALID"), (json!("::ffff:198.51.100.7"), "VALID"), (json!(AWAY), "FORBIDDEN_ADDRESS"),
            (json!(null), "FORBIDDEN_ADDRESS"),
        ] {
            assert_eq!(verify(json!({ "key": key, "ip": ip }))["code"], code, "{ip}");
        }
        // Before its scopes are looked at. It is a good key, so the asker hears whose it is.
        let refused = verify(json!({ "key": key, "scopes": ["b"] }));
        assert_eq!(
            refused,
            json!({
                "valid": false, "code": "FORBIDDEN_ADDRESS", "keyId": made["id"], "userId": ann.id, "name": "ci",
                "scopes": ["a"], "expiresAt": null, "rateLimit": null, "externalId": "42", "metadata": null,
                "remaining": null,
            })
        );
        // Each key of a batch has its own.
        let keys = json!([{ "key": key, "ip": HOME }, { "key": key, "ip": AWAY }, { "key": key }, { "key": asker }]);
        let batch = service.post("/keys/verify-batch").api_key(asker).json(json!({ "keys": keys })).send().json();
        let codes: Vec<&str> = batch["results"].as_array().unwrap().iter().map(|result| text(&result["code"])).collect();
        assert_eq!(codes, ["VALID", "FORBIDDEN_ADDRESS", "FORBIDDEN_ADDRESS", "VALID"]);
        assert_eq!(batch["results"][0]["rateLimit"]["remaining"], 6);

        let token = from(HOME, service.post("/auth/token").api_key(key).json(json!({}))).send().json();
        let introspect = |form: String| {
            let ask = service.post("/oauth/introspect").api_key(asker).body("application/x-www-form-urlencoded", form);
            ask.send()
        };
        for token in [key, text(&token["accessToken"])] {
            let active = |ip: &str| introspect(format!("token={token}{ip}")).json();
            assert_eq!(active(&format!("&ip={HOME}"))["active"], true);
            assert_eq!(active(&format!("&ip={AWAY}")), json!({ "active": false }));
            assert_eq!(active(""), json!({ "active": false }));
        }
        // The address matters for such keys only.
        assert_eq!(introspect(format!("token={}&ip={AWAY}", ann.access)).json()["active"], true);

        let rule = ["ip must be an IP address"];
        for ip in [json!(""), json!("198.51.100.7:80"), json!("198.51.100.0/28"), json!("somewhere")] {
            let answer = service.post("/keys/verify").api_key(asker).json(json!({ "key": key, "ip": ip })).send();
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&rule)), "{ip}");
            // A field of a form that is empty counts as left out.
            if ip != "" {
                let answer = introspect(format!("token={key}&ip={}", text(&ip)));
                assert_eq!((answer.status, answer.json()), (400, broken_rules(&rule)), "{ip}");
            }
        }
        let answer = service.post("/keys/verify-batch").api_key(asker).json(json!({ "keys": [{ "key": key, "ip": 7 }] }));
        assert_eq!(answer.send().json(), broken_rules(&["keys.0.ip must be a string"]));
    }
}

// A client who may write the header itself could be anywhere.
#[test]
fn a_proxy_that_is_not_trusted_is_itself_the_client() {
    let service = Service::start_with(Backend::Sqlite, &[("TRUSTED_PROXIES", "none")], |_| {});
    let ann = service.sign_up("ann@example.com");
    let made = key_of(&service, &ann, json!({}));
    let key = text(&made["key"]);
    assert_eq!(from(HOME, service.get("/authz/forward-auth").api_key(key)).send().status, 403);
    let target = format!("/keys/{}", text(&made["id"]));
    let here = json!({ "allowedIps": ["127.0.0.1"] });
    assert_eq!(service.patch(&target).bearer(&ann.access).json(here).send().status, 200);
    assert_eq!(from(AWAY, service.get("/authz/forward-auth").api_key(key)).send().status, 200);
}
