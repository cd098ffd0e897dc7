//! Endpoints that are told what happens: whose they are, what may be said of them, and what becomes of them.

use keyward_harness::http_client::Answer;
use keyward_harness::service::{Account, PASSWORD, Service, broken_rules, error, on_both_stores, soon};
use serde_json::{Value, json};

const URL: &str = "https://hooks.invalid/in?token=hunter2";
const NOT_FOUND: &str = "Webhook not found";

/// Users may have webhooks from now on.
fn for_users(service: &mut Service) {
    service.set("WEBHOOKS", "users");
    service.restart();
}

fn operator(service: &Service, email: &str) -> Account {
    let operator = service.sign_up(email);
    service.grant(&operator.id, &["keyward:admin"]);
    operator
}

fn ask(service: &Service, who: &Account, method: &str, target: &str, body: Option<Value>) -> Answer {
    let request = service.method(method, target).bearer(&who.access);
    match body {
        Some(body) => request.json(body).send(),
        None => request.send(),
    }
}

fn said(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.json())
}

/// The path of a new endpoint, and the answer that made it. `at`: where endpoints are.
#[track_caller]
fn create(service: &Service, who: &Account, at: &str, body: Value) -> (String, Value) {
    let answer = ask(service, who, "POST", at, Some(body));
    assert_eq!(answer.status, 201, "{answer:?}");
    let made = answer.json();
    (format!("{at}/{}", made["id"].as_str().unwrap()), made)
}

/// The newest events on an account, as pairs of a type and the details.
fn events(service: &Service, who: &Account) -> Vec<(String, Value)> {
    let events = service.get("/auth/events?limit=200").bearer(&who.access).send().json();
    let of_webhooks = events.as_array().unwrap().iter().filter(|event| event["subject"]["type"] == "webhook");
    of_webhooks.map(|event| (event["type"].as_str().unwrap().to_string(), event["details"].clone())).collect()
}

fn id_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// The last digits of the ids of what [`store_deliveries`] stores: delivered, given up, and still to be tried.
const STORED: [&str; 3] = ["01", "02", "03"];

/// Stores three deliveries to an endpoint that nobody tries now, and gives the beginning of their ids.
fn store_deliveries(service: &Service, webhook: &str) -> String {
    let beginning = format!("{}-0000-7000-8000-{}", &webhook[..8], &webhook[26..]);
    for (number, rest) in STORED.iter().zip([
        "'{\"type\":\"key.created\"}', NULL, 1, '2026-02-01T00:00:01.000Z', 'delivered', 204, 'thanks', NULL",
        "'{}', NULL, 10, '2026-02-04T00:00:00.000Z', 'failed', 503, 'not now', 'its status is no success'",
        "NULL, '2999-01-01T00:00:00.000Z', 0, NULL, NULL, NULL, NULL, NULL",
    ]) {
        service.execute(&format!(
            "INSERT INTO deliveries (id, channel, receiver, kind, event_id, count, created_at, body, next_at, tries, \
             tried_at, outcome, status, answer, reason) VALUES ('{beginning}{number}', 'webhook', '{webhook}', \
             'key.created', '{webhook}', 1, '2026-02-01T00:00:00.000Z', {rest})"
        ));
    }
    beginning
}

on_both_stores! {
    fn what_was_sent_is_listed_in_pages_and_operators_see_what_came_back(service) {
        for_users(service);
        let (boss, ann) = (operator(service, "boss@example.com"), service.sign_up("ann@example.com"));
        for (who, at) in [(&ann, "/webhooks"), (&boss, "/admin/webhooks")] {
            let (path, made) = create(service, who, at, json!({ "url": URL, "types": ["user.deleted"] }));
            let target = format!("{path}/deliveries");
            assert_eq!(said(&ask(service, who, "GET", &target, None)), (200, json!([])));
            let beginning = store_deliveries(service, id_of(&path));
            let shown = |number: &str, more: Value| {
                let mut shown = json!({
                    "id": format!("{beginning}{number}"), "messageId": made["id"], "type": "key.created",
                    "createdAt": "2026-02-01T00:00:00.000Z",
                });
                shown.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                if at == "/webhooks" {
                    shown.as_object_mut().unwrap().remove("response");
                }
                shown
            };
            let pending = shown("03", json!({
                "state": "pending", "tries": 0, "lastTriedAt": null, "nextTryAt": "2999-01-01T00:00:00.000Z",
                "responseStatus": null, "reason": null, "body": null, "response": null,
            }));
            let failed = shown("02", json!({
                "state": "failed", "tries": 10, "lastTriedAt": "2026-02-04T00:00:00.000Z", "nextTryAt": null,
                "responseStatus": 503, "reason": "its status is no success", "body": {}, "response": "not now",
            }));
            let delivered = shown("01", json!({
                "state": "delivered", "tries": 1, "lastTriedAt": "2026-02-01T00:00:01.000Z", "nextTryAt": null,
                "responseStatus": 204, "reason": null, "body": { "type": "key.created" }, "response": "thanks",
            }));
            let page = ask(service, who, "GET", &format!("{target}?limit=2"), None);
            assert_eq!(said(&page), (200, json!([pending, failed])));
            let link = page.header("link").unwrap();
            let next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
            assert_eq!(next, format!("{target}?limit=2&after={beginning}02"));
            let page = ask(service, who, "GET", next, None);
            assert_eq!((said(&page), page.header("link")), ((200, json!([delivered])), None));
            for (query, rule) in [
                ("limit=0", "limit must be a whole number from 1 to 100"),
                ("after=x", "after must be a UUID"),
                (&format!("after={beginning}09"), "after must be the id of a delivery to this webhook"),
                ("state=pending", "property state should not exist"),
            ] {
                let answer = ask(service, who, "GET", &format!("{target}?{query}"), None);
                assert_eq!(said(&answer), (400, broken_rules(&[rule])), "{query}");
            }
            // A delivery to another endpoint is none of this one.
            let (other, _) = create(service, who, at, json!({ "url": URL, "types": ["user.deleted"] }));
            let answer = ask(service, who, "GET", &format!("{other}/deliveries?after={beginning}02"), None);
            assert_eq!(answer.status, 400);
            let resend = format!("{other}/deliveries/{beginning}02/resend");
            assert_eq!(said(&ask(service, who, "POST", &resend, None)), (404, error(404, "Delivery not found")));
        }
    }

    fn a_test_is_sent_and_what_was_sent_is_sent_again(service) {
        for_users(service);
        let ann = service.sign_up("ann@example.com");
        let (path, made) = create(service, &ann, "/webhooks", json!({ "url": URL, "types": ["user.deleted"] }));
        let test = format!("{path}/test");
        let queued = ask(service, &ann, "POST", &test, None);
        assert_eq!(queued.status, 202);
        let deliveries = || ask(service, &ann, "GET", &format!("{path}/deliveries"), None).json();
        let sent = deliveries()[0].clone();
        assert_eq!((&sent["id"], &sent["messageId"]), (&queued.json()["id"], &queued.json()["id"]));
        assert_eq!((&sent["type"], &sent["body"]["type"]), (&json!("webhook.test"), &json!("webhook.test")));
        assert_eq!(sent["body"]["data"], json!({ "webhookId": made["id"] }));
        assert_eq!(sent["body"]["timestamp"], sent["createdAt"]);

        let beginning = store_deliveries(service, id_of(&path));
        for number in STORED {
            let id = format!("{beginning}{number}");
            let again = ask(service, &ann, "POST", &format!("{path}/deliveries/{id}/resend"), None);
            assert_eq!(said(&again), (202, json!({ "id": id })));
            let all = deliveries();
            let sent = all.as_array().unwrap().iter().find(|delivery| delivery["id"] == json!(id)).unwrap();
            // Nobody answers there.
            assert_eq!((&sent["state"], &sent["messageId"]), (&json!("pending"), &made["id"]));
            assert!(sent["nextTryAt"].as_str().unwrap() < "2999");
        }
        let resend = format!("{path}/deliveries/{beginning}01/resend");
        for target in [&test, &resend] {
            let answer = ask(service, &ann, "POST", target, Some(json!({ "x": 1 })));
            assert_eq!(said(&answer), (400, broken_rules(&["property x should not exist"])), "{target}");
        }
        let unknown = format!("{path}/deliveries/{beginning}09/resend");
        assert_eq!(said(&ask(service, &ann, "POST", &unknown, None)), (404, error(404, "Delivery not found")));
        ask(service, &ann, "PATCH", &path, Some(json!({ "isActive": false })));
        let off = (409, error(409, "Webhook is switched off; set isActive to true first"));
        for target in [&test, &resend] {
            assert_eq!(said(&ask(service, &ann, "POST", target, None)), off, "{target}");
        }
    }

    fn an_endpoint_is_its_owners_alone(service) {
        for_users(service);
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let body = json!({ "url": URL, "types": ["key.created", "key.revoked", "key.created"], "description": "Billing" });
        let (path, mut made) = create(service, &ann, "/webhooks", body);
        let secret = made.as_object_mut().unwrap().remove("secret").unwrap();
        assert!(secret.as_str().unwrap().starts_with("whsec_"));
        assert_eq!((&made["url"], &made["types"]), (&json!(URL), &json!(["key.created", "key.revoked"])));
        assert_eq!((&made["isActive"], &made["disabledAt"]), (&json!(true), &json!(null)));
        assert_eq!(said(&ask(service, &ann, "GET", &path, None)), (200, made.clone()));
        service.advance(1);
        let (_, all) = create(service, &ann, "/webhooks", json!({ "url": "https://b.invalid", "types": null }));
        assert_eq!((&all["types"], &all["description"]), (&json!(null), &json!(null)));
        let listed = ask(service, &ann, "GET", "/webhooks", None).json();
        assert_eq!(listed[0], made);
        assert_eq!((&listed[1]["id"], listed.as_array().unwrap().len()), (&all["id"], 2));

        let change = json!({ "url": "https://c.invalid/", "types": null, "description": null, "isActive": false });
        let changed = ask(service, &ann, "PATCH", &path, Some(change));
        let mut expected = made.clone();
        for (name, value) in [
            ("url", json!("https://c.invalid/")),
            ("types", json!(null)),
            ("description", json!(null)),
            ("isActive", json!(false)),
        ] {
            expected[name] = value;
        }
        assert_eq!(said(&changed), (200, expected.clone()));
        assert_eq!(said(&ask(service, &ann, "PATCH", &path, None)), (200, expected.clone()));

        for who in [&bob, &operator(service, "boss@example.com")] {
            assert_eq!(ask(service, who, "GET", "/webhooks", None).json(), json!([]));
            for (method, more) in
                [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate-secret"), ("POST", "/test"), ("GET", "/deliveries")]
            {
                let answer = ask(service, who, method, &format!("{path}{more}"), None);
                assert_eq!(said(&answer), (404, error(404, NOT_FOUND)), "{method} {more}");
            }
        }
        assert_eq!(said(&ask(service, &ann, "GET", &path, None)), (200, expected));
        let message = json!({ "message": "Webhook deleted successfully" });
        assert_eq!(said(&ask(service, &ann, "DELETE", &path, None)), (200, message));
        for method in ["GET", "PATCH", "DELETE"] {
            assert_eq!(ask(service, &ann, method, &path, None).status, 404, "{method}");
        }
        assert_eq!(ask(service, &ann, "GET", "/webhooks", None).json().as_array().unwrap().len(), 1);
    }

    fn operators_share_the_endpoints_of_the_installation(service) {
        let (boss, chief) = (operator(service, "boss@example.com"), operator(service, "chief@example.com"));
        let ann = service.sign_up("ann@example.com");
        let (path, mut made) = create(service, &boss, "/admin/webhooks", json!({ "url": "http://127.0.0.1:1/in" }));
        made.as_object_mut().unwrap().remove("secret").unwrap();
        assert_eq!(made["createdBy"], json!(boss.id));
        assert_eq!(said(&ask(service, &chief, "GET", "/admin/webhooks", None)), (200, json!([made])));
        assert_eq!(said(&ask(service, &chief, "GET", &path, None)), (200, made.clone()));
        let changed = ask(service, &chief, "PATCH", &path, Some(json!({ "types": ["user.deleted"] }))).json();
        assert_eq!((&changed["types"], &changed["createdBy"]), (&json!(["user.deleted"]), &json!(boss.id)));
        let rotated = ask(service, &chief, "POST", &format!("{path}/rotate-secret"), None);
        assert_eq!((rotated.status, &rotated.json()["createdBy"]), (200, &json!(boss.id)));
        // What an operator may do, their key may, if it carries the scope.
        let key = service.create_key(&boss.access, json!({ "name": "siem", "scopes": ["keyward:admin"] }));
        let by_key = service.post("/admin/webhooks").api_key(key["key"].as_str().unwrap());
        let by_key = by_key.json(json!({ "url": "https://siem.invalid" })).send();
        assert_eq!((by_key.status, &by_key.json()["createdBy"]), (201, &json!(boss.id)));
        for (method, target) in [("POST", "/admin/webhooks"), ("GET", "/admin/webhooks"), ("DELETE", path.as_str())] {
            assert_eq!(ask(service, &ann, method, target, None).status, 403, "{method} {target}");
        }
        // They know who did it; the maker, whose account it is on, does not see the other one's session.
        let everything = ask(service, &boss, "GET", "/admin/events?type=webhook.changed", None).json();
        assert_eq!(everything[0]["actor"]["userId"], json!(chief.id));
        assert!(everything[0]["actor"]["sessionId"].is_string());
        let own = service.get("/auth/events").bearer(&boss.access).send().json();
        let seen = own.as_array().unwrap().iter().find(|event| event["type"] == "webhook.changed").unwrap();
        assert_eq!(seen["actor"], json!({ "type": "operator", "userId": chief.id }));
        assert_eq!(ask(service, &chief, "DELETE", &path, None).status, 200);
        assert_eq!(ask(service, &boss, "GET", &path, None).status, 404);
    }

    fn webhooks_are_for_those_whom_the_operator_names(service) {
        let (boss, ann) = (operator(service, "boss@example.com"), service.sign_up("ann@example.com"));
        let id = "01890000-0000-7000-8000-000000000000";
        let ways = [
            ("POST", "".to_string()),
            ("GET", "".to_string()),
            ("GET", format!("/{id}")),
            ("PATCH", format!("/{id}")),
            ("DELETE", format!("/{id}")),
            ("POST", format!("/{id}/rotate-secret")),
            ("POST", format!("/{id}/test")),
            ("GET", format!("/{id}/deliveries")),
            ("POST", format!("/{id}/deliveries/{id}/resend")),
        ];
        let refused = |service: &Service, at: &str, message: &str| {
            for (method, path) in &ways {
                let who = if at == "/webhooks" { &ann } else { &boss };
                let answer = ask(service, who, method, &format!("{at}{path}"), None);
                assert_eq!(said(&answer), (403, error(403, message)), "{method} {at}{path}");
            }
        };
        refused(service, "/webhooks", "Webhooks are for operators alone here, at /admin/webhooks (WEBHOOKS=operators)");
        create(service, &boss, "/admin/webhooks", json!({ "url": URL }));
        service.set("WEBHOOKS", "off");
        service.restart();
        for at in ["/webhooks", "/admin/webhooks"] {
            refused(service, at, "Webhooks are switched off here (WEBHOOKS=off)");
        }
        for_users(service);
        create(service, &ann, "/webhooks", json!({ "url": URL }));
        assert_eq!(ask(service, &boss, "GET", "/admin/webhooks", None).json().as_array().unwrap().len(), 1);
        // PostgreSQL's instances share a key that the operator has to set.
        service.reconfigure(|config| config.data_key.key = None);
        let status = if service.database().is_some() { 501 } else { 200 };
        for (who, at) in [(&ann, "/webhooks"), (&boss, "/admin/webhooks")] {
            let answer = ask(service, who, "GET", at, None);
            assert_eq!(answer.status, status, "{answer:?}");
            if status == 501 {
                assert!(answer.json()["message"].as_str().unwrap().contains("DATA_KEY"), "{answer:?}");
            }
        }
    }

    fn broken_rules_of_an_endpoint_are_named(service) {
        for_users(service);
        let ann = service.sign_up("ann@example.com");
        let (path, _) = create(service, &ann, "/webhooks", json!({ "url": URL }));
        let none = |name: &str| format!("types must hold types of events, such as key.created; {name} is none");
        let inside = "url must not be at an address that is not globally reachable";
        let url = "url must be an http or https URL in ASCII, such as https://example.com/hooks";
        for (body, rules) in [
            (json!({ "url": "hooks.example.com" }), vec![url]),
            (json!({ "url": "ftp://hooks.example.com" }), vec![url]),
            (json!({ "url": "https://bücher.example/" }), vec![url]),
            (
                json!({ "url": "https://ann:hunter2@hooks.example.com/" }),
                vec!["url must not hold a name or a password before the host; deliveries are signed"],
            ),
            (json!({ "url": format!("https://a.example/{}", "x".repeat(2048)) }), vec![
                "url must be shorter than or equal to 2048 characters",
            ]),
            (json!({ "url": "http://hooks.invalid/" }), vec!["url must be https on port 443"]),
            (json!({ "url": "https://hooks.invalid:8443/" }), vec!["url must be https on port 443"]),
            (json!({ "url": "https://127.0.0.1/" }), vec![inside]),
            (json!({ "url": "https://169.254.169.254/" }), vec![inside]),
            (json!({ "url": "https://[::ffff:10.0.0.1]/" }), vec![inside]),
            (json!({ "url": URL, "types": ["key.created", "key.made"] }), vec![&none("key.made")]),
            (json!({ "url": URL, "types": ["webhook.test"] }), vec![&none("webhook.test")]),
            (json!({ "url": URL, "types": [] }), vec!["types should not be empty; null stands for all"]),
            (json!({ "url": URL, "types": "key.created" }), vec!["types must be an array"]),
            (json!({ "url": URL, "description": "" }), vec!["description should not be empty"]),
            (json!({ "url": URL, "description": "x".repeat(256) }), vec![
                "description must be shorter than or equal to 255 characters",
            ]),
            (json!({ "url": URL, "secret": "whsec_x" }), vec!["property secret should not exist"]),
        ] {
            for (method, target) in [("POST", "/webhooks"), ("PATCH", path.as_str())] {
                let answer = ask(service, &ann, method, target, Some(body.clone()));
                assert_eq!(said(&answer), (400, broken_rules(&rules)), "{method} {body}");
            }
        }
        for (method, target) in [("POST", "/webhooks"), ("PATCH", path.as_str())] {
            let answer = ask(service, &ann, method, target, Some(json!({ "url": null })));
            assert_eq!(said(&answer), (400, broken_rules(&[url, "url must be a string"])), "{method}");
        }
        let answer = ask(service, &ann, "POST", "/webhooks", Some(json!({ "url": URL, "isActive": false })));
        assert_eq!(said(&answer), (400, broken_rules(&["property isActive should not exist"])));
        let answer = ask(service, &ann, "PATCH", &path, Some(json!({ "isActive": null })));
        assert_eq!(said(&answer), (400, broken_rules(&["isActive must be a boolean value"])));
        let boss = operator(service, "boss@example.com");
        let answer = ask(service, &boss, "POST", "/admin/webhooks", Some(json!({ "url": "http://169.254.169.254/" })));
        let rule = "url must not be at a link-local, unspecified, multicast or broadcast address";
        assert_eq!(said(&answer), (400, broken_rules(&[rule])));
    }

    fn a_user_has_ten_endpoints_however_many_they_ask_for_at_once(service) {
        for_users(service);
        let ann = service.sign_up("ann@example.com");
        let (first, _) = create(service, &ann, "/webhooks", json!({ "url": URL }));
        let clients: Vec<_> = (0..16).map(|_| service.client()).collect();
        let statuses = std::thread::scope(|scope| {
            let asked: Vec<_> = clients
                .iter()
                .map(|client| {
                    let ask = || client.post("/webhooks").bearer(&ann.access).json(json!({ "url": URL })).send();
                    scope.spawn(move || said(&ask()))
                })
                .collect();
            asked.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(statuses.iter().filter(|(status, _)| *status == 201).count(), 9);
        let too_many = (409, error(409, "Too many webhooks, at most 10; delete one that is not needed"));
        assert_eq!(statuses.iter().filter(|answer| **answer == too_many).count(), 7);
        assert_eq!(ask(service, &ann, "DELETE", &first, None).status, 200);
        create(service, &ann, "/webhooks", json!({ "url": URL }));
        // Those of the installation do not count as an operator's own.
        service.grant(&ann.id, &["keyward:admin"]);
        create(service, &ann, "/admin/webhooks", json!({ "url": URL }));
    }

    fn what_is_made_changed_and_sent_counts_against_the_limit_of_writes(service) {
        service.set("RATE_LIMIT_WRITES", "1/1m");
        service.restart();
        let ann = service.sign_up("ann@example.com");
        // Judged before who may have webhooks, so that refused requests count too.
        let statuses = |ways: &[(&str, &str)]| -> Vec<u16> {
            let target = |more: &str| format!("/webhooks{}", more.replace('x', "01890000-0000-7000-8000-000000000000"));
            ways.iter().map(|(method, more)| ask(service, &ann, method, &target(more), None).status).collect()
        };
        assert_eq!(statuses(&[("POST", ""), ("POST", "")]), [403, 429]);
        let writing = [
            ("PATCH", "/x"),
            ("POST", "/x/rotate-secret"),
            ("POST", "/x/test"),
            ("POST", "/x/deliveries/x/resend"),
        ];
        assert_eq!(statuses(&writing), [429; 4]);
        assert_eq!(statuses(&[("GET", ""), ("GET", "/x"), ("DELETE", "/x"), ("GET", "/x/deliveries")]), [403; 4]);
    }

    fn every_change_of_an_endpoint_is_in_the_audit_trail_without_an_address(service) {
        for_users(service);
        let ann = service.sign_up("ann@example.com");
        let (path, made) = create(service, &ann, "/webhooks", json!({ "url": URL, "description": "Billing" }));
        ask(service, &ann, "PATCH", &path, Some(json!({ "url": "https://b.invalid/hunter3", "isActive": true })));
        ask(service, &ann, "PATCH", &path, Some(json!({})));
        ask(service, &ann, "PATCH", &path, Some(json!({ "url": "nonsense" })));
        assert_eq!(ask(service, &ann, "POST", &format!("{path}/rotate-secret"), None).status, 200);
        ask(service, &ann, "DELETE", &path, None);
        ask(service, &ann, "DELETE", &path, None);
        let named = |kind: &str, details: Value| (kind.to_string(), details);
        let expected = [
            named("webhook.deleted", json!({})),
            named("webhook.changed", json!({ "settings": ["secret"] })),
            named("webhook.changed", json!({ "settings": ["url", "isActive"] })),
            named("webhook.created", json!({})),
        ];
        assert_eq!(events(service, &ann), expected);
        let all = service.get("/auth/events").bearer(&ann.access).send().json();
        assert_eq!(all[0]["subject"], json!({ "type": "webhook", "id": made["id"] }));
        assert_eq!((&all[0]["userId"], &all[0]["actor"]["type"]), (&json!(ann.id), &json!("user")));
        assert!(!all.to_string().contains(".invalid") && !all.to_string().contains("hunter"));
    }

    fn a_secret_is_shown_once_and_stored_encrypted(service) {
        for_users(service);
        let ann = service.sign_up("ann@example.com");
        let (path, made) = create(service, &ann, "/webhooks", json!({ "url": URL }));
        assert_eq!(made["previousSecretUntil"], json!(null));
        let rotate = || ask(service, &ann, "POST", &format!("{path}/rotate-secret"), None);
        service.advance(300);
        let rotated = rotate();
        assert_eq!(rotated.status, 200);
        let mut rotated = rotated.json();
        let secret = rotated.as_object_mut().unwrap().remove("secret").unwrap();
        assert_ne!(secret, made["secret"]);
        let until = |hours: u64| {
            let end = service.clock.now().plus(std::time::Duration::from_secs(hours * 3600));
            serde_json::to_value(end).unwrap()
        };
        assert_eq!(rotated["previousSecretUntil"], until(24));
        assert_eq!(ask(service, &ann, "GET", &path, None).json(), rotated);
        service.advance(300);
        // Only the last two sign.
        assert_eq!(rotate().json()["previousSecretUntil"], until(24));
        let answer = ask(service, &ann, "POST", &format!("{path}/rotate-secret"), Some(json!({ "secret": "mine" })));
        assert_eq!(said(&answer), (400, broken_rules(&["property secret should not exist"])));
        // A head, a nonce, 32 bytes and a tag.
        let sealed = service.count("SELECT CAST(LENGTH(secret) AS BIGINT) FROM webhooks WHERE LENGTH(secret) = LENGTH(previous_secret)");
        assert_eq!(sealed, 5 + 12 + 32 + 16);
    }

    fn switching_an_endpoint_on_clears_why_keyward_switched_it_off(service) {
        for_users(service);
        let ann = service.sign_up("ann@example.com");
        let (path, _) = create(service, &ann, "/webhooks", json!({ "url": URL }));
        service.execute(
            "UPDATE webhooks SET is_active = FALSE, disabled_at = '2026-02-01T00:00:00.000Z', disabled_reason = 'failing', \
             failing_since = '2026-01-27T00:00:00.000Z'",
        );
        let off = ask(service, &ann, "GET", &path, None).json();
        assert_eq!((&off["isActive"], &off["disabledReason"]), (&json!(false), &json!("failing")));
        assert_eq!(off["disabledAt"], json!("2026-02-01T00:00:00.000Z"));
        assert_eq!(ask(service, &ann, "PATCH", &path, Some(json!({ "isActive": false }))).json(), off);
        let on = ask(service, &ann, "PATCH", &path, Some(json!({ "isActive": true }))).json();
        assert_eq!((&on["isActive"], &on["disabledAt"]), (&json!(true), &json!(null)));
        assert_eq!(on["disabledReason"], json!(null));
        assert_eq!(service.count("SELECT COUNT(*) FROM webhooks WHERE failing_since IS NULL"), 1);
    }

    fn a_reset_of_an_address_that_was_never_verified_deletes_its_endpoints(service) {
        for_users(service);
        let boss = operator(service, "boss@example.com");
        for (email, is_verified, left) in [("ann@example.com", false, 0), ("bob@example.com", true, 1)] {
            let somebody = service.sign_up(email);
            create(service, &somebody, "/webhooks", json!({ "url": URL }));
            let account = format!("/admin/users/{}", somebody.id);
            ask(service, &boss, "PATCH", &account, Some(json!({ "emailVerified": is_verified })));
            let token = ask(service, &boss, "POST", &format!("{account}/reset-password"), None).json();
            let reset = json!({ "token": token["token"], "password": PASSWORD });
            assert_eq!(service.post("/auth/reset-password").json(reset).send().status, 200);
            let somebody = service.log_in(email);
            let webhooks = ask(service, &somebody, "GET", "/webhooks", None).json();
            assert_eq!(webhooks.as_array().unwrap().len(), left, "{email}");
            let deleted = ("webhook.deleted".to_string(), json!({ "reason": "password.reset" }));
            assert_eq!(events(service, &somebody).contains(&deleted), left == 0, "{email}");
        }
    }

    fn with_an_account_go_the_endpoints_that_it_has_made(service) {
        for_users(service);
        let (boss, chief) = (operator(service, "boss@example.com"), operator(service, "chief@example.com"));
        for at in ["/webhooks", "/admin/webhooks"] {
            let (path, _) = create(service, &boss, at, json!({ "url": URL }));
            store_deliveries(service, id_of(&path));
        }
        let (kept, _) = create(service, &chief, "/admin/webhooks", json!({ "url": URL }));
        let deleted = ask(service, &boss, "DELETE", "/auth/me", Some(json!({ "password": PASSWORD })));
        assert_eq!(deleted.status, 200);
        let left = ask(service, &chief, "GET", "/admin/webhooks", None).json();
        assert_eq!(left.as_array().unwrap().len(), 1);
        assert_eq!(ask(service, &chief, "GET", &kept, None).status, 200);
        let events = ask(service, &chief, "GET", "/admin/events?type=webhook.deleted", None).json();
        let details: Vec<&Value> = events.as_array().unwrap().iter().map(|event| &event["details"]).collect();
        assert_eq!(details, [&json!({ "reason": "user.deleted" }); 2]);
        // Nothing of them is left, and what is stored until then says nothing.
        assert_eq!(service.count("SELECT COUNT(*) FROM webhooks WHERE deleted_at IS NOT NULL AND url <> ''"), 0);
        service.advance(120);
        soon("the rows are deleted", || {
            service.advance(60);
            service.count("SELECT COUNT(*) FROM webhooks") == 1
                && service.count("SELECT COUNT(*) FROM deliveries WHERE created_at < '2026-02-02T00:00:00.000Z'") == 0
        });
    }
}
