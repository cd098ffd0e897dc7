//! Lists of keys, in pages and by what the keys have in common.

use std::collections::BTreeSet;

use keyward::app::App;
use keyward::base::id::{KeyId, UserId};
use keyward::keys::listing::{KeyFilter, KeyStatus};
use keyward_harness::http_client::Answer;
use keyward_harness::service::{Account, Service, broken_rules, on_both_stores};
use serde_json::{Value, json};

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The path of the next page that an answer names.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    Some(link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_string())
}

/// The names of the keys on all pages. After each page, `meanwhile` happens.
fn names(service: &Service, owner: &Account, query: &str, mut meanwhile: impl FnMut()) -> Vec<String> {
    let mut target = Some(format!("/keys?{query}"));
    let mut names = Vec::new();
    while let Some(path) = target {
        let answer = service.get(&path).bearer(&owner.access).send();
        assert_eq!(answer.status, 200, "{answer:?}");
        names.extend(answer.json().as_array().unwrap().iter().map(|key| text(&key["name"]).to_string()));
        target = next(&answer);
        meanwhile();
    }
    names
}

/// Keys of every status, some with an external id, made in this order.
fn make_keys(service: &Service, owner: &Account) {
    let soon = service.clock.now().plus(std::time::Duration::from_secs(60)).to_string();
    for (name, external_id, fate) in [
        ("a1", json!("42"), ""),
        ("a2", json!("42"), "paused"),
        ("b1", json!("42"), "expired"),
        ("b2", json!(null), "revoked"),
        ("a3", json!("43"), "paused, expired"),
        ("a10", json!(null), "revoked, expired"),
        ("ä1", json!("42&43"), ""),
        ("a", json!(null), ""),
    ] {
        service.advance(1);
        let expires_at = if fate.contains("expired") { json!(soon) } else { json!(null) };
        let body = json!({ "name": name, "externalId": external_id, "expiresAt": expires_at });
        let made = service.create_key(&owner.access, body);
        let target = format!("/keys/{}", text(&made["id"]));
        if fate.contains("paused") {
            let paused = service.patch(&target).bearer(&owner.access).json(json!({ "isActive": false })).send();
            assert_eq!(paused.status, 200);
        }
        if fate.contains("revoked") {
            assert_eq!(service.delete(&target).bearer(&owner.access).send().status, 200);
        }
    }
    service.advance(60);
}

/// The services over the same store, for what no route shows yet.
fn services_of(service: &Service) -> App {
    keyward::run::open_app(service.config(), service.clock.clone()).unwrap().0
}

/// All pages of a list, by names.
fn all_pages(app: &App, filter: &KeyFilter, limit: usize) -> Vec<String> {
    let mut after: Option<KeyId> = None;
    let mut names = Vec::new();
    loop {
        let page = app.keys.page(filter, after, limit).unwrap().unwrap();
        assert!(page.keys.len() <= limit);
        names.extend(page.keys.into_iter().map(|(key, _)| key.name));
        after = page.next;
        if after.is_none() {
            return names;
        }
    }
}

on_both_stores! {
    fn a_list_shows_the_keys_that_pass_all_its_filters_each_once_in_pages_of_any_size(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        make_keys(service, &ann);
        make_keys(service, &bob);
        for (query, expected) in [
            ("", vec!["a", "ä1", "a10", "a3", "b2", "b1", "a2", "a1"]),
            ("externalId=42", vec!["b1", "a2", "a1"]),
            ("externalId=42%2643", vec!["ä1"]),
            ("externalId=4", vec![]),
            ("status=usable", vec!["a", "ä1", "a1"]),
            ("status=paused", vec!["a2"]),
            ("status=expired", vec!["a3", "b1"]),
            ("status=revoked", vec!["a10", "b2"]),
            ("externalId=42&status=paused", vec!["a2"]),
            ("externalId=42&name=a", vec!["a2", "a1"]),
            // By name, in the order of its bytes.
            ("name=a", vec!["a", "a1", "a10", "a2", "a3"]),
            ("name=a1", vec!["a1", "a10"]),
            ("name=A", vec![]),
            ("name=%C3%A4", vec!["ä1"]),
            ("name=a&status=usable", vec!["a", "a1"]),
            ("name=a&status=revoked", vec!["a10"]),
        ] {
            for limit in [1, 2, 3, 100] {
                assert_eq!(names(service, &ann, &format!("limit={limit}&{query}"), || {}), expected, "{query}");
            }
        }
    }

    fn what_is_added_meanwhile_makes_no_key_missing_or_shown_twice(service) {
        let ann = service.sign_up("ann@example.com");
        for number in 0..12 {
            service.create_key(&ann.access, json!({ "name": format!("k{}", number % 4), "externalId": "42" }));
        }
        for query in ["", "&name=k", "&externalId=42", "&status=usable"] {
            let ids = |body: Value| -> Vec<String> {
                body.as_array().unwrap().iter().map(|key| text(&key["id"]).to_string()).collect()
            };
            let all = ids(service.get("/keys?limit=100").bearer(&ann.access).send().json());
            let mut seen = Vec::new();
            let mut target = Some(format!("/keys?limit=5{query}"));
            while let Some(path) = target {
                let answer = service.get(&path).bearer(&ann.access).send();
                seen.extend(ids(answer.json()));
                target = next(&answer);
                if seen.len() < 12 {
                    service.create_key(&ann.access, json!({ "name": "k1", "externalId": "42" }));
                }
            }
            let once: BTreeSet<&String> = seen.iter().collect();
            assert_eq!(once.len(), seen.len(), "{query}");
            assert!(all.iter().all(|id| once.contains(id)), "{query}");
        }
    }

    fn a_list_goes_on_from_a_key_that_has_left_it(service) {
        let ann = service.sign_up("ann@example.com");
        for number in 0..5 {
            service.create_key(&ann.access, json!({ "name": format!("k{number}") }));
        }
        // Each page is ended before the next one is read.
        let end_all = || {
            for key in service.get("/keys?status=usable&limit=2").bearer(&ann.access).send().json().as_array().unwrap() {
                let target = format!("/keys/{}", text(&key["id"]));
                assert_eq!(service.delete(&target).bearer(&ann.access).send().status, 200);
            }
        };
        assert_eq!(names(service, &ann, "status=usable&limit=2", end_all), ["k4", "k3", "k2", "k1", "k0"]);
        // A list by name does not know where it was, once the name is another. It says so, rather than pass over keys.
        let first = service.get("/keys?name=k&limit=2").bearer(&ann.access).send();
        let revived = service.create_key(&ann.access, json!({ "name": "k" }));
        let target = format!("/keys/{}", text(&revived["id"]));
        let renamed = service.patch(&target).bearer(&ann.access).json(json!({ "name": "other" })).send();
        assert_eq!((first.status, renamed.status), (200, 200));
        let answer = service.get(&format!("/keys?name=k&after={}", text(&revived["id"]))).bearer(&ann.access).send();
        assert_eq!(answer.json(), broken_rules(&["after must be the id of one of the API keys in this list"]));
    }

    fn a_query_that_breaks_rules_is_refused(service) {
        let ann = service.sign_up("ann@example.com");
        let long = "x".repeat(256);
        let status = "status must be one of the following values: usable, expired, revoked, paused";
        for (query, rule) in [
            ("name=", "name should not be empty"),
            (&format!("name={long}"), "name must be shorter than or equal to 255 characters"),
            ("name=%00", "name must not contain NUL characters"),
            ("externalId=", "externalId should not be empty"),
            (&format!("externalId={long}"), "externalId must be shorter than or equal to 255 characters"),
            ("status=active", status),
            ("status=", status),
            ("status=Usable", status),
            ("status=usable&limit=101", "limit must be a whole number from 1 to 100"),
            ("name=a&metadata=x", "property metadata should not exist"),
        ] {
            let answer = service.get(&format!("/keys?{query}")).bearer(&ann.access).send();
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&[rule])), "{query}");
        }
        assert_eq!(service.get("/keys?status=usable&status=paused").bearer(&ann.access).send().status, 400);
    }

    fn operators_list_the_keys_of_all_users_but_not_of_deleted_ones(service) {
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        make_keys(service, &ann);
        make_keys(service, &bob);
        let app = services_of(service);
        let all = KeyFilter::default();
        let text = |text: &str| Some(text.to_string());
        let lists = [
            (all.clone(), vec!["a", "ä1", "a10", "a3", "b2", "b1", "a2", "a1"]),
            (KeyFilter { external_id: text("42"), ..all.clone() }, vec!["b1", "a2", "a1"]),
            (KeyFilter { external_id: text("42"), status: Some(KeyStatus::Usable), ..all.clone() }, vec!["a1"]),
            (KeyFilter { status: Some(KeyStatus::Usable), ..all.clone() }, vec!["a", "ä1", "a1"]),
            (KeyFilter { status: Some(KeyStatus::Paused), ..all.clone() }, vec!["a2"]),
            (KeyFilter { status: Some(KeyStatus::Expired), ..all.clone() }, vec!["a3", "b1"]),
            (KeyFilter { status: Some(KeyStatus::Revoked), ..all.clone() }, vec!["a10", "b2"]),
        ];
        for (filter, expected) in &lists {
            let twice: Vec<&str> = expected.iter().chain(expected).copied().collect();
            for limit in [1, 3, 100] {
                assert_eq!(all_pages(&app, filter, limit), twice, "{filter:?}");
            }
        }
        let by_name = KeyFilter { name: text("a1"), ..all.clone() };
        assert_eq!(all_pages(&app, &by_name, 3), ["a1", "a1", "a10", "a10"]);
        // One user's list is in their own order.
        let of_bob = KeyFilter { owner: Some(UserId(bob.id.parse().unwrap())), ..all.clone() };
        assert_eq!(all_pages(&app, &of_bob, 3), lists[0].1);

        // Deleted users' keys are deleted in parts, but shown no more.
        service.execute(&format!("UPDATE users SET deleted_at = created_at WHERE id = '{}'", bob.id));
        for (filter, expected) in &lists {
            assert_eq!(all_pages(&app, filter, 2), *expected, "{filter:?}");
        }
        assert_eq!(all_pages(&app, &of_bob, 2), [""; 0]);
        assert!(app.keys.page(&all, Some(KeyId::new()), 2).unwrap().is_none());
    }

    // Of several filters, one is an index's. A page does not read on for ever where the others find nothing.
    fn a_page_of_a_list_with_few_keys_among_many_is_short_and_leads_on(service) {
        let ann = service.sign_up("ann@example.com");
        let oldest = service.create_key(&ann.access, json!({ "name": "k", "externalId": "42" }));
        let paused = service.patch(&format!("/keys/{}", text(&oldest["id"]))).bearer(&ann.access);
        assert_eq!(paused.json(json!({ "isActive": false })).send().status, 200);
        let (id, hash, later) = match service.database() {
            Some(_) => (
                "CAST('ffffffff-0000-7000-8000-' || LPAD(TO_HEX(n), 12, '0') AS UUID)", "DECODE(MD5(CAST(n AS TEXT)), 'hex')",
                "created_at + INTERVAL '1 second'",
            ),
            None => ("PRINTF('ffffffff-0000-7000-8000-%012x', n)", "CAST(PRINTF('%d', n) AS BLOB)", "'2999-01-01T00:00:00.000Z'"),
        };
        service.execute(&format!(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 12000) \
             INSERT INTO api_keys (id, user_id, hash, hint, name, is_active, created_at, external_id) \
             SELECT {id}, user_id, {hash}, '', 'k', NOT is_active, {later}, external_id FROM numbers, api_keys"
        ));
        let app = services_of(service);
        for query in ["externalId=42&status=paused", "name=k&status=paused"] {
            let mut lengths = Vec::new();
            let mut target = Some(format!("/keys?{query}"));
            while let Some(path) = target {
                let answer = service.get(&path).bearer(&ann.access).send();
                lengths.push(answer.json().as_array().unwrap().len());
                target = next(&answer);
            }
            let pages = if query.starts_with("name") { vec![1, 0, 0] } else { vec![0, 0, 1] };
            assert_eq!(lengths, pages, "{query}");
        }
        let filter = KeyFilter {
            external_id: Some("42".to_string()), status: Some(KeyStatus::Paused), ..KeyFilter::default()
        };
        assert_eq!(all_pages(&app, &filter, 7), ["k"]);
        // Alone, each filter has an index.
        let answer = service.get("/keys?status=paused").bearer(&ann.access).send();
        assert_eq!((answer.json().as_array().unwrap().len(), next(&answer)), (1, None));
    }
}
