//! Who may have which scope.

use keyward_harness::forge::claims;
use keyward_harness::old_database::take_back;
use keyward_harness::postgres_cluster::available;
use keyward_harness::service::{Account, Backend, Service, error, on_both_stores, soon};
use serde_json::{Value, json};

/// Those of `USER_SCOPES` alone.
fn without_grants(service: &mut Service) {
    service.reconfigure(|config| config.accounts.user_scopes = Default::default());
}

fn key(service: &Service, owner: &Account, scopes: &[&str]) -> (String, String) {
    let made = service.create_key(&owner.access, json!({ "name": "ci", "scopes": scopes }));
    (made["id"].as_str().unwrap().to_string(), made["key"].as_str().unwrap().to_string())
}

fn scopes_of(service: &Service, user: &Account) -> Value {
    service.get("/auth/me").bearer(&user.access).send().json()["scopes"].clone()
}

fn gateway_asks(scope: &str) -> String {
    format!("/authz/forward-auth?scope={scope}")
}

on_both_stores! {
    fn a_scope_that_was_not_granted_is_on_no_key(service) {
        without_grants(service);
        let ann = service.sign_up("ann@example.com");
        let create = |scopes: Value| {
            service.post("/keys/create").bearer(&ann.access).json(json!({ "name": "ci", "scopes": scopes })).send()
        };
        let answer = create(json!(["orders:read"]));
        assert_eq!((answer.status, answer.json()), (403, error(403, "User lacks the scope orders:read")));
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Bearer error=\"insufficient_scope\", scope=\"orders:read\"")
        );
        assert_eq!(service.get("/keys").bearer(&ann.access).send().json(), json!([]));
        service.grant("ann@example.com", &["orders:*"]);
        assert_eq!(scopes_of(service, &ann), json!(["orders:*"]));
        assert_eq!(create(json!(["orders:read", "orders:write"])).status, 201);
        let answer = create(json!(["orders:read", "a", "b"]));
        assert_eq!(answer.json(), error(403, "User lacks one of the scopes a b"));
        // Neither a pattern nor the wish for one makes a power.
        service.grant("ann@example.com", &["*"]);
        for reserved in ["keyward:admin", "keys:verify"] {
            assert_eq!(create(json!([reserved])).status, 403, "{reserved}");
        }
        let answer = create(json!(["orders:*"]));
        assert_eq!(answer.status, 400);
    }

    fn a_change_of_a_key_asks_only_about_the_scopes_that_it_names(service) {
        without_grants(service);
        let ann = service.sign_up("ann@example.com");
        service.grant(&ann.id, &["a", "b"]);
        let (id, _) = key(service, &ann, &["a", "b"]);
        service.operator(&["user", "withdraw", &ann.id, "b"]);
        let change = |body: Value| {
            service.patch(&format!("/keys/{id}")).bearer(&ann.access).json(body).send()
        };
        assert_eq!(change(json!({ "name": "ci 2" })).json()["scopes"], json!(["a", "b"]));
        assert_eq!(change(json!({ "scopes": ["a", "b"] })).json(), error(403, "User lacks the scope b"));
        let rotated = service.post(&format!("/keys/{id}/rotate")).bearer(&ann.access).json(json!({})).send();
        assert_eq!((rotated.status, &rotated.json()["scopes"]), (201, &json!(["a", "b"])));
    }

    fn a_withdrawn_scope_ends_at_once_on_keys_their_tokens_and_for_the_user(service) {
        without_grants(service);
        let ann = service.sign_up("ann@example.com");
        service.grant("ann@example.com", &["orders:read", "keys:verify"]);
        let (_, key) = key(service, &ann, &["orders:read", "keys:verify"]);
        let derived = service.post("/auth/token").api_key(&key).json(json!({})).send().json();
        let derived = derived["accessToken"].as_str().unwrap();
        let ask = gateway_asks("orders:read");
        let answers = || {
            [
                service.get(&ask).api_key(&key).send(),
                service.get(&ask).bearer(derived).send(),
                service.get(&ask).bearer(&ann.access).send(),
            ]
        };
        for answer in answers() {
            assert_eq!((answer.status, answer.header("x-auth-scopes")), (200, Some("orders:read keys:verify")));
        }
        let verify = |asked: Value| service.post("/keys/verify").bearer(&ann.access).json(asked).send();
        assert_eq!(verify(json!({ "key": key })).json()["scopes"], json!(["orders:read", "keys:verify"]));
        service.operator(&["user", "withdraw", "ann@example.com", "orders:read"]);
        let who = ["API key", "Token", "User"];
        for (answer, who) in answers().into_iter().zip(who) {
            assert_eq!((answer.status, answer.json()), (403, error(403, &format!("{who} lacks the scope orders:read"))));
        }
        let said = verify(json!({ "key": key, "scopes": ["orders:read"] })).json();
        assert_eq!((&said["code"], &said["scopes"]), (&json!("INSUFFICIENT_SCOPE"), &json!(["keys:verify"])));
        let introspect = || {
            let form = format!("token={key}");
            service.post("/oauth/introspect").api_key(&key).body("application/x-www-form-urlencoded", form).send()
        };
        let said = introspect().json();
        assert_eq!(said["scope"], "keys:verify");
        let fresh = service.post("/auth/token").api_key(&key).json(json!({})).send().json();
        assert_eq!(fresh["scopes"], json!(["keys:verify"]));
        // Granted again, the key has it again.
        service.grant("ann@example.com", &["orders:*"]);
        assert_eq!(service.get(&ask).api_key(&key).send().header("x-auth-scopes"), Some("orders:read keys:verify"));
        service.operator(&["user", "withdraw", "ann@example.com", "keys:verify"]);
        assert_eq!(verify(json!({ "key": key })).json(), error(403, "User lacks the scope keys:verify"));
        assert_eq!(introspect().status, 403);
    }

    fn of_a_key_and_a_user_who_both_lack_a_scope_the_key_is_told_of(service) {
        without_grants(service);
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        service.grant("bob@example.com", &["a"]);
        let (_, key) = key(service, &ann, &[]);
        let ask = gateway_asks("a");
        let answer = service.get(&ask).api_key(&key).bearer(&ann.access).send();
        assert_eq!(answer.json(), error(403, "API key lacks the scope a"));
        let answer = service.get(&ask).api_key("sk_bad").bearer(&ann.access).send();
        assert_eq!(answer.json(), error(401, "Invalid or expired API key"));
        // Either good credential admits.
        let answer = service.get(&ask).api_key(&key).bearer(&bob.access).send();
        assert_eq!((answer.status, answer.header("x-auth-user-id")), (200, Some(bob.id.as_str())));
    }

    fn an_access_token_says_what_its_user_has_and_what_counts_is_what_they_have_now(service) {
        without_grants(service);
        let body = json!({ "email": "ann@example.com", "password": "Password123!", "name": "Ann" });
        let ann = keyward_harness::service::account(&service.post("/auth/signup").json(body).send().json());
        let said = claims(&ann.access);
        assert_eq!((&said["scope"], &said["name"]), (&json!(""), &json!("Ann")));
        assert_eq!(said["email_verified"], json!(false));
        service.grant("ann@example.com", &["a", "b:*"]);
        let ask = gateway_asks("a%20b:c");
        assert_eq!(service.get(&ask).bearer(&ann.access).send().status, 200);
        let refreshed = service.post("/auth/refresh").json(json!({ "refreshToken": ann.refresh })).send().json();
        assert_eq!(claims(refreshed["accessToken"].as_str().unwrap())["scope"], "a b:*");
        assert_eq!(claims(&service.log_in("ann@example.com").access)["scope"], "a b:*");
    }

    fn a_grant_is_recorded_by_what_came_and_went(service) {
        without_grants(service);
        let ann = service.sign_up("ann@example.com");
        service.grant("ann@example.com", &["a", "b:*"]);
        service.grant("ann@example.com", &["a"]);
        service.operator(&["user", "withdraw", "ann@example.com", "b:*", "b:c"]);
        let events = service.get("/auth/events").bearer(&ann.access).send().json();
        let of_scopes: Vec<&Value> =
            events.as_array().unwrap().iter().filter(|event| event["type"] == "user.scopes_changed").collect();
        let details: Vec<&Value> = of_scopes.iter().map(|event| &event["details"]).collect();
        assert_eq!(
            json!(details),
            json!([{ "granted": [], "withdrawn": ["b:*"] }, { "granted": ["a", "b:*"], "withdrawn": [] }])
        );
        assert_eq!(of_scopes[0]["actor"], json!({ "type": "operator" }));
    }

    fn scopes_are_granted_to_all_at_once_and_new_users_get_those_of_the_setting(service) {
        without_grants(service);
        let (ann, bob) = (service.sign_up("ann@example.com"), service.sign_up("bob@example.com"));
        let said = service.operator(&["user", "grant", "--all", "keys:verify", "--json"]);
        assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), json!({ "users": 2 }));
        for user in [&ann, &bob] {
            assert_eq!(scopes_of(service, user), json!(["keys:verify"]));
        }
        service.operator(&["user", "withdraw", "--all", "keys:verify"]);
        assert_eq!(scopes_of(service, &ann), json!([]));
        service.set("USER_SCOPES", "reports:read orders:*");
        service.restart();
        let carl = service.sign_up("carl@example.com");
        assert_eq!(scopes_of(service, &carl), json!(["reports:read", "orders:*"]));
        let shown = service.operator(&["user", "show", "carl@example.com", "--json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["scopes"], json!(["reports:read", "orders:*"]));
        let shown = service.operator(&["user", "show", "carl@example.com"]);
        assert!(shown.ends_with("\n\na person, a password, e-mail not verified\nusable keys: as MAX_KEYS_PER_USER says\nscopes: reports:read orders:*\n"), "{shown}");
    }
}

/// The last version in which a scope was what its key's owner wished for.
const BEFORE: u32 = 9;

on_both_stores! {
    fn at_the_upgrade_owners_get_what_their_usable_keys_have_and_no_power(service) {
        let (ann, eve) = (service.sign_up("ann@example.com"), service.sign_up("eve@example.com"));
        let bob = service.sign_up("bob@example.com");
        let (first, anns) = key(service, &ann, &["orders:read", "a"]);
        let (second, _) = key(service, &ann, &["a", "keys:verify"]);
        let (ended, _) = key(service, &ann, &["ended"]);
        let (paused, _) = key(service, &ann, &["paused"]);
        service.delete(&format!("/keys/{ended}")).bearer(&ann.access).send();
        service.patch(&format!("/keys/{paused}")).bearer(&ann.access).json(json!({ "isActive": false })).send();
        let (wish, eves) = key(service, &eve, &["x"]);
        key(service, &bob, &[]);
        take_back(service, BEFORE);
        service.execute(&format!(
            "UPDATE api_keys SET scopes = 'keyward:admin * orders:* orders:read keys:* keyward:x y' WHERE id = '{wish}'"
        ));
        service.reconfigure(|config| config.accounts.user_scopes = Default::default());
        // The most common first, then by their letters.
        assert_eq!(scopes_of(service, &ann), json!(["a", "keys:verify", "orders:read", "paused"]));
        assert_eq!(scopes_of(service, &eve), json!(["orders:read", "y"]));
        assert_eq!(scopes_of(service, &bob), json!([]));
        for (key, scope, status) in [
            (&anns, "orders:read", 200),
            (&eves, "orders:read", 200),
            (&eves, "keyward:admin", 403),
            (&eves, "orders:write", 403),
            (&eves, "anything", 403),
        ] {
            let answer = service.get(&gateway_asks(scope)).api_key(key).send();
            assert_eq!(answer.status, status, "{scope}");
        }
        // Nor do they come alive when their owner is granted something.
        service.grant("eve@example.com", &["keyward:admin", "*", "orders:*"]);
        let answer = service.get(&gateway_asks("keyward:admin")).api_key(&eves).send();
        assert_eq!(answer.status, 403);
        let answer = service.get("/authz/forward-auth").api_key(&eves).send();
        assert_eq!(answer.header("x-auth-scopes"), Some("orders:read y"));
        let listed = service.get("/keys").bearer(&ann.access).send().json();
        for id in [&first, &second, &ended, &paused] {
            let key = listed.as_array().unwrap().iter().find(|key| key["id"] == json!(id)).unwrap();
            assert_ne!(key["scopes"], json!([]), "{id}");
        }
        let events = service.get("/auth/events").bearer(&ann.access).send().json();
        let event = events.as_array().unwrap().iter().find(|event| event["type"] == "user.scopes_changed").unwrap();
        assert_eq!(event["actor"], json!({ "type": "system" }));
        assert_eq!(
            event["details"],
            json!({ "granted": ["a", "keys:verify", "orders:read", "paused"], "withdrawn": [] })
        );
        assert_eq!(service.count("SELECT COUNT(*) FROM events WHERE kind = 'user.scopes_changed' AND actor = 'system'"), 2);
    }

    fn what_an_upgrade_gives_has_a_bound(service) {
        let ann = service.sign_up("ann@example.com");
        for batch in 0..3 {
            let scopes: Vec<String> = (0..50).map(|number| format!("{batch}-{number:0>60}")).collect();
            service.create_key(&ann.access, json!({ "name": "many", "scopes": scopes }));
        }
        take_back(service, BEFORE);
        service.restart();
        let given = scopes_of(service, &ann);
        let bytes = given.as_array().unwrap().iter().map(|scope| scope.as_str().unwrap().len() + 1).sum::<usize>() - 1;
        assert!((1980..=2048).contains(&bytes), "{bytes}");
    }
}

#[test]
fn a_power_among_the_scopes_of_every_new_user_stops_the_start() {
    for bad in ["keyward:admin", "reports:read keys:verify", "keys:*", "keyward:*", "a\"b"] {
        let values = [("USER_SCOPES".to_string(), bad.to_string())].into();
        let error = keyward::config::Config::from_values(&values).unwrap_err().to_string();
        assert!(error.contains("USER_SCOPES"), "{error}");
    }
}

/// The bound of a revocation: what the other instances remember is dropped when they are notified.
#[test]
fn a_scope_that_is_withdrawn_at_one_instance_is_refused_at_another() {
    if !available() {
        return;
    }
    let service = Service::start(Backend::Postgres);
    let (_sibling, there) = service.sibling();
    let ann = service.sign_up("ann@example.com");
    let (_, key) = key(&service, &ann, &["orders:read"]);
    let ask = gateway_asks("orders:read");
    assert_eq!(there.get(&ask).api_key(&key).send().status, 200);
    assert_eq!(there.get(&ask).bearer(&ann.access).send().status, 200);
    service.operator(&["user", "withdraw", &ann.id, "*"]);
    soon("the key is refused", || there.get(&ask).api_key(&key).send().status == 403);
    soon("the user is refused", || there.get(&ask).bearer(&ann.access).send().status == 403);
}
