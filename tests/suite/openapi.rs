//! `static/openapi.json` agrees with the route table, every operation answers as documented, and the document suits its
//! readers: people in Swagger UI, and generators.

use std::collections::BTreeSet;

use keyward::api::routes::ROUTES;
use keyward::audit::event::Kind;
use keyward::guard::requirements::Guard;
use keyward::http::route::Route;
use keyward_harness::authenticator::Authenticator;
use keyward_harness::http_client::Answer;
use keyward_harness::openapi::{DOCUMENT, REST, TEXT, documented_path, resolved};
use keyward_harness::service::{Backend, PASSWORD, Service};
use serde_json::{Value, json};

/// The methods that the document can name.
const METHODS: [&str; 7] = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE"];

/// The route's methods and paths as the document names them.
fn operations(route: &Route) -> Vec<(&'static str, String)> {
    let path = route.path.split('/').map(|segment| match segment.strip_prefix(':') {
        Some(name) => format!("{{{name}}}"),
        None => segment.to_string(),
    });
    let path = path.collect::<Vec<_>>().join("/");
    // `*` stands for nothing as well.
    let paths = match path.strip_suffix("/*") {
        Some(before) => vec![before.to_string(), format!("{before}/{REST}")],
        None => vec![path],
    };
    let methods = METHODS.into_iter().filter(|method| route.method.is_none() || route.verb() == *method);
    methods.flat_map(|method| paths.iter().map(move |path| (method, path.clone()))).collect()
}

#[test]
fn the_document_and_the_route_table_name_the_same_operations() {
    let served: BTreeSet<String> =
        ROUTES.iter().flat_map(operations).map(|(method, path)| format!("{method} {path}")).collect();
    let mut documented = BTreeSet::new();
    for (path, operations) in DOCUMENT["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            documented.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    assert_eq!(served, documented);
}

#[test]
fn the_document_asks_for_the_credential_that_the_route_takes() {
    for route in ROUTES.iter() {
        let expected = match route.guard {
            Guard::Public => json!([]),
            Guard::Jwt => json!([{ "jwt": [] }]),
            Guard::ApiKey if route.requirements.oauth => {
                json!([{ "apiKey": [] }, { "keyAsBearer": [] }, { "keyAsPassword": [] }])
            }
            Guard::ApiKey => json!([{ "apiKey": [] }, { "keyAsBearer": [] }]),
            Guard::Flexible => json!([{ "jwt": [] }, { "apiKey": [] }, { "keyAsBearer": [] }]),
        };
        for (method, path) in operations(route) {
            let security = &DOCUMENT["paths"][&path][method.to_lowercase()]["security"];
            assert_eq!(*security, expected, "{method} {path}");
        }
    }
}

#[test]
fn the_document_names_every_type_of_event() {
    let types: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(DOCUMENT["components"]["schemas"]["Event"]["properties"]["type"]["enum"], json!(types));
}

/// Calls `visit` with each object in `value` and the JSON pointer to it.
fn for_each_object(value: &'static Value, pointer: &str, visit: &mut impl FnMut(&str, &'static Value)) {
    let child = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(members) => {
            visit(pointer, value);
            members.iter().for_each(|(key, member)| for_each_object(member, &child(key), visit));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| for_each_object(item, &child(&index.to_string()), visit));
        }
        _ => {}
    }
}

/// Swagger UI's dialog shows the schemes in the order in which they are written.
#[test]
fn the_authorize_dialog_begins_with_the_jwt_and_the_api_key() {
    let (_, schemes) = TEXT.split_once("\"securitySchemes\": {").unwrap();
    let mut names: Vec<&str> =
        DOCUMENT["components"]["securitySchemes"].as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_by_key(|name| schemes.find(&format!("\"{name}\": {{")).unwrap());
    assert_eq!(names[..2], ["jwt", "apiKey"]);
}

/// Swagger UI would send them along with every request that is tried out.
#[test]
fn no_optional_parameter_has_a_value_that_is_filled_in() {
    let mut optional = 0;
    for_each_object(&DOCUMENT, "", &mut |pointer, object| {
        if object["in"].is_string() && object["schema"].is_object() && object["required"] != true {
            optional += 1;
            for (holder, name) in [
                (object, "example"),
                (object, "examples"),
                (&object["schema"], "example"),
                (&object["schema"], "default"),
            ] {
                assert!(holder[name].is_null(), "{pointer} has {name}");
            }
            assert_eq!(resolved(&object["schema"])["default"], Value::Null, "{pointer}");
        }
    });
    assert!(optional >= 8, "only {optional} optional parameters were found");
}

/// openapi-typescript would require it of every caller.
#[test]
fn no_field_that_may_be_left_out_has_a_default() {
    let mut fields = 0;
    for_each_object(&DOCUMENT["components"]["schemas"], "", &mut |pointer, schema| {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            fields += 1;
            assert!(field["default"].is_null(), "{pointer}: {name} has a default; its description can say it");
        }
    });
    assert!(fields > 100, "only {fields} fields were found");
}

/// Generators read a copy of the document, without a server.
#[test]
fn a_saved_document_refers_to_nothing_outside_itself() {
    let (mut operations, mut linked, mut references) = (BTreeSet::new(), BTreeSet::new(), 0);
    for_each_object(&DOCUMENT, "", &mut |pointer, object| {
        assert!(object["externalValue"].is_null(), "{pointer} has an externalValue");
        if let Some(reference) = object["$ref"].as_str() {
            references += 1;
            let target = reference.strip_prefix('#').and_then(|target| DOCUMENT.pointer(target));
            assert!(target.is_some(), "{pointer} refers to {reference}");
        }
        if let Some(id) = object["operationId"].as_str() {
            let ids = if pointer.contains("/links/") { &mut linked } else { &mut operations };
            ids.insert(id);
        }
    });
    assert!(references > 100, "only {references} references were found");
    assert!(!linked.is_empty() && linked.is_subset(&operations), "{linked:?} are not all among {operations:?}");
}

/// A newcomer reads from the top. Gateways' paths have a row for each method, and what operators do is for few.
#[test]
fn the_tour_comes_first_gateways_and_operators_last_and_every_operation_has_one_listed_tag() {
    let listed: Vec<&str> =
        DOCUMENT["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut operators = BTreeSet::new();
    for (path, operations) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let tags: Vec<&str> =
                operation["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
            assert!(tags.len() == 1 && listed.contains(&tags[0]), "{method} {path} has the tags {tags:?}");
            if path.starts_with("/admin/") {
                operators.insert(tags[0]);
            }
        }
    }
    assert_eq!(listed[..3], ["Auth", "API keys", "Protected"]);
    let last: Vec<&str> = ["Gateways"].into_iter().chain(operators).collect();
    assert!(listed.ends_with(&last), "{listed:?} do not end in {last:?}");
    let (_, paths) = TEXT.split_once("\"paths\": {").unwrap();
    assert!(paths.trim_start().starts_with("\"/auth/signup\""), "the tour begins with signing up");
}

#[test]
fn the_document_has_the_version_of_the_program() {
    assert_eq!(DOCUMENT["info"]["version"], env!("CARGO_PKG_VERSION"));
}

/// What operators ask.
fn see_operators(service: &Service, see: &mut dyn FnMut(&str, &str, Answer)) {
    let boss = service.sign_up("boss@example.com");
    service.grant(&boss.id, &["keyward:admin"]);
    let of_boss = format!("/admin/users/{}", boss.id);
    let bob = service.sign_up("robert@example.com");
    let of_bob = format!("/admin/users/{}", bob.id);
    let scopes = json!({ "scopes": ["keyward:admin"] });
    let carol = service.sign_up("carol@example.com");
    let new = |name: &str| {
        let made = service.create_key(&carol.access, json!({ "name": name }));
        format!("/admin/keys/{}", made["id"].as_str().unwrap())
    };
    let (key, revoked) = (new("of carol"), new("revoked"));
    service.operator(&["key", "revoke", revoked.rsplit('/').next().unwrap()]);
    let for_carol = |more: Value| {
        let mut body = json!({ "userId": carol.id, "name": "for carol" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Some(body)
    };
    let service_account = json!({ "kind": "service", "email": "billing@example.com" });
    let billing = service.post("/admin/users").bearer(&boss.access).json(service_account).send();
    let of_billing = format!("/admin/users/{}", billing.json()["id"].as_str().unwrap());
    see("POST", "/admin/users", billing);
    let token = || {
        let made = service.post(&format!("{of_bob}/reset-password")).bearer(&boss.access).send();
        json!({ "token": made.json()["token"], "password": "another Password" })
    };
    for body in [token(), json!({ "token": "x", "password": "another Password" }), json!({})] {
        see("POST", "/auth/reset-password", service.post("/auth/reset-password").json(body).send());
    }
    let large = service.post("/auth/reset-password").body("application/json", vec![b' '; 300_000]).send();
    see("POST", "/auth/reset-password", large);
    for (method, path, body) in [
        ("POST", "/admin/keys".to_string(), for_carol(json!({ "externalId": "customer-1", "scopes": ["a"] }))),
        ("POST", "/admin/keys".to_string(), for_carol(json!({ "name": "" }))),
        ("POST", "/admin/keys".to_string(), for_carol(json!({ "userId": "01890000-0000-7000-8000-000000000000" }))),
        ("GET", "/admin/keys".to_string(), None),
        ("GET", "/admin/keys?limit=0".to_string(), None),
        ("GET", key.clone(), None),
        ("GET", "/admin/keys/x".to_string(), None),
        ("GET", format!("{key}/usage"), None),
        ("GET", format!("{key}/usage?by=week"), None),
        ("GET", "/admin/keys/x/usage".to_string(), None),
        ("PATCH", key.clone(), Some(json!({ "name": "renamed" }))),
        ("PATCH", key.clone(), Some(json!({ "name": 1 }))),
        ("PATCH", revoked.clone(), Some(json!({ "name": "renamed" }))),
        ("PATCH", "/admin/keys/x".to_string(), Some(json!({}))),
        ("POST", format!("{key}/rotate"), Some(json!({ "gracePeriod": "1h" }))),
        ("POST", format!("{key}/rotate"), Some(json!({ "gracePeriod": "1y" }))),
        ("POST", format!("{revoked}/rotate"), Some(json!({}))),
        ("POST", "/admin/keys/x/rotate".to_string(), Some(json!({}))),
        ("DELETE", key.clone(), None),
        ("DELETE", "/admin/keys/x".to_string(), None),
        ("PATCH", format!("/admin/users/{}", carol.id), Some(json!({ "maxKeys": 0 }))),
        ("POST", "/admin/keys".to_string(), for_carol(json!({}))),
        ("GET", "/admin/users".to_string(), None),
        ("GET", "/admin/users?limit=0".to_string(), None),
        ("GET", "/admin/events".to_string(), None),
        ("GET", "/admin/events?limit=0".to_string(), None),
        ("GET", "/admin/stats".to_string(), None),
        ("GET", "/admin/stats?by=week".to_string(), None),
        ("GET", of_bob.clone(), None),
        ("GET", "/admin/users/x".to_string(), None),
        ("GET", format!("{of_bob}/sessions"), None),
        ("GET", "/admin/users/x/sessions".to_string(), None),
        ("PATCH", of_bob.clone(), Some(json!({ "name": "Robert", "metadata": { "a": 1 }, "maxKeys": 1 }))),
        ("PATCH", of_bob.clone(), Some(json!({ "name": 1 }))),
        ("PATCH", of_boss.clone(), Some(json!({ "isActive": false }))),
        ("PATCH", "/admin/users/x".to_string(), Some(json!({}))),
        ("POST", "/admin/users".to_string(), Some(json!({ "email": "robert@example.com" }))),
        ("POST", "/admin/users".to_string(), Some(json!({}))),
        ("POST", format!("{of_bob}/reset-password"), None),
        ("POST", format!("{of_bob}/reset-password"), Some(json!({ "url": "x" }))),
        ("POST", format!("{of_billing}/reset-password"), None),
        ("POST", "/admin/users/x/reset-password".to_string(), None),
        ("POST", format!("{of_bob}/grant"), Some(json!({ "scopes": ["a:*"] }))),
        ("POST", format!("{of_bob}/grant"), Some(json!({}))),
        ("POST", "/admin/users/x/grant".to_string(), Some(scopes.clone())),
        ("POST", format!("{of_bob}/withdraw"), Some(scopes.clone())),
        ("POST", format!("{of_bob}/withdraw"), Some(json!({}))),
        ("POST", format!("{of_boss}/withdraw"), Some(scopes.clone())),
        ("POST", "/admin/users/x/withdraw".to_string(), Some(scopes)),
        ("DELETE", format!("{of_bob}/sessions"), None),
        ("DELETE", "/admin/users/x/sessions".to_string(), None),
        ("DELETE", of_boss.clone(), None),
        ("DELETE", "/admin/users/x".to_string(), None),
        ("DELETE", of_bob.clone(), None),
    ] {
        let ask = || service.method(method, &path);
        let asking = ask().bearer(&boss.access);
        see(
            method,
            &path,
            match body {
                Some(body) => asking.json(body).send(),
                None => asking.send(),
            },
        );
        see(method, &path, ask().send());
        if ["PATCH", "POST"].contains(&method) {
            see(method, &path, ask().bearer(&boss.access).body("application/json", vec![b' '; 300_000]).send());
            let coded = ask().bearer(&boss.access).header("content-encoding", "gzip");
            see(method, &path, coded.body("application/json", "{}").send());
        }
    }
    let leaving = service.method("DELETE", "/auth/me").bearer(&boss.access);
    see("DELETE", "/auth/me", leaving.json(json!({ "password": "Password123!" })).send());
}

/// What is asked of endpoints, under `/webhooks` and under `/admin/webhooks`.
fn see_webhooks(service: &Service, see: &mut dyn FnMut(&str, &str, Answer)) {
    let admin = service.sign_up("admin@example.com");
    service.grant(&admin.id, &["keyward:admin"]);
    let endpoint = json!({ "url": "https://hooks.example.com/in" });
    for (at, most) in [("/webhooks", 10), ("/admin/webhooks", 100)] {
        let create = || service.post(at).bearer(&admin.access).json(endpoint.clone()).send();
        let made = create().json();
        let one = format!("{at}/{}", made["id"].as_str().unwrap());
        let unknown = format!("{at}/x");
        let queued = service.post(&format!("{one}/test")).bearer(&admin.access).send().json();
        let resend = format!("{one}/deliveries/{}/resend", queued["id"].as_str().unwrap());
        see("POST", &resend, service.post(&resend).bearer(&admin.access).send());
        let switch =
            |is_active: bool| service.patch(&one).bearer(&admin.access).json(json!({ "isActive": is_active })).send();
        see("PATCH", &one, switch(false));
        for target in [&format!("{one}/test"), &resend] {
            see("POST", target, service.post(target).bearer(&admin.access).send());
        }
        see("PATCH", &one, switch(true));
        for path in [&one, &unknown] {
            for (method, more, body) in [
                ("GET", "", None),
                ("PATCH", "", Some(json!({ "types": ["key.created"] }))),
                ("POST", "/rotate-secret", Some(json!({}))),
                ("POST", "/test", Some(json!({}))),
                ("GET", "/deliveries", None),
                ("GET", "/deliveries?limit=0", None),
                ("POST", "/deliveries/x/resend", Some(json!({}))),
                ("DELETE", "", None),
            ] {
                let target = format!("{path}{more}");
                let ask = || service.method(method, &target).bearer(&admin.access);
                if let Some(body) = body {
                    see(method, &target, ask().json(json!({ "x": 1 })).send());
                    see(method, &target, ask().body("application/json", vec![b' '; 300_000]).send());
                    see(method, &target, ask().header("content-encoding", "gzip").json(json!({})).send());
                    see(method, &target, ask().json(body).send());
                } else {
                    see(method, &target, ask().send());
                }
                see(method, &target, service.method(method, &target).send());
            }
        }
        for answer in [
            service.post(at).bearer(&admin.access).json(json!({})).send(),
            service.post(at).bearer(&admin.access).body("application/json", vec![b' '; 300_000]).send(),
            service.post(at).bearer(&admin.access).header("content-encoding", "gzip").json(json!({})).send(),
            service.post(at).send(),
        ] {
            see("POST", at, answer);
        }
        for _ in 0..=most {
            see("POST", at, create());
        }
        see("GET", at, service.get(at).bearer(&admin.access).send());
        see("GET", at, service.get(at).send());
    }
}

/// The routes of the second factor.
fn see_second_factor(service: &Service, see: &mut impl FnMut(&str, &str, Answer)) {
    let account = service.sign_up("totp@example.com");
    let ask = |path: &str| service.post(path).bearer(&account.access);
    let password = json!({ "password": "Password123!" });
    let begun = ask("/auth/totp").json(password.clone()).send();
    let authenticator = Authenticator::new(begun.json()["secret"].as_str().unwrap(), &service.clock);
    see("POST", "/auth/totp", begun);
    see("POST", "/auth/totp/disable", ask("/auth/totp/disable").json(password.clone()).send());
    let confirm = || ask("/auth/totp/confirm").json(json!({ "code": authenticator.code() })).send();
    for _ in 0..2 {
        see("POST", "/auth/totp/confirm", confirm());
    }
    see("POST", "/auth/totp", ask("/auth/totp").json(password.clone()).send());
    see(
        "POST",
        "/auth/login",
        service.post("/auth/login").json(json!({ "email": account.email, "password": "Password123!" })).send(),
    );
    for path in ["/auth/totp", "/auth/totp/confirm", "/auth/totp/disable"] {
        see("POST", path, ask(path).json(json!({})).send());
        see("POST", path, ask(path).body("application/json", vec![b' '; 20_000]).send());
        see("POST", path, service.post(path).send());
    }
    let code = authenticator.code_after(1);
    let disable = json!({ "password": "Password123!", "code": code });
    see("POST", "/auth/totp/disable", ask("/auth/totp/disable").json(disable).send());
}

/// The routes of passwords and addresses that are proven by a mail, with a server that sends some.
fn see_recovery(service: &Service, see: &mut impl FnMut(&str, &str, Answer)) {
    let (ann, bob) = (service.sign_up("recovered@example.com"), service.sign_up("taken@example.com"));
    let ask =
        |method: &str, path: &str, body: Value| service.method(method, path).bearer(&ann.access).json(body).send();
    let verify = |token: &str| service.post("/auth/verify-email").json(json!({ "token": token })).send();
    for answer in [
        verify(&service.mailed_token(&ann.id, "verify-email", &ann.email)),
        verify(&service.mailed_token(&ann.id, "change-email", &bob.email)),
        verify("x"),
    ] {
        see("POST", "/auth/verify-email", answer);
    }
    for (method, path, body) in [
        ("POST", "/auth/forgot-password", json!({ "email": "nobody@example.com" })),
        ("POST", "/auth/verify-email/request", json!({})),
        ("POST", "/auth/email", json!({ "newEmail": "new@example.com", "password": PASSWORD })),
        ("PATCH", "/auth/me", json!({ "name": "Ann" })),
        ("POST", "/auth/verify-email", json!({})),
        ("POST", "/auth/delete", json!({ "password": PASSWORD })),
    ] {
        see(method, path, ask(method, path, json!({ "x": 1 })));
        let large = service.method(method, path).bearer(&ann.access).body("application/json", vec![b' '; 20_000]);
        see(method, path, large.send());
        see(method, path, service.method(method, path).json(json!({ "x": 1 })).send());
        see(method, path, ask(method, path, body));
    }
    service.grant("taken@example.com", &["keyward:admin"]);
    let last = service.post("/auth/delete").bearer(&bob.access).json(json!({ "password": PASSWORD })).send();
    see("POST", "/auth/delete", last);
    for path in
        ["/account/reset", "/account/verify", "/account/account.js", "/account/account.css", "/account/other.js"]
    {
        see("GET", path, service.get(path).send());
        see("GET", path, service.get(path).header("if-none-match", "*").send());
        see("GET", path, service.get(path).header("if-match", "\"other\"").send());
    }
    let without_pages = Service::start(Backend::Sqlite);
    for path in ["/account/reset", "/account/verify"] {
        see("GET", path, without_pages.get(path).send());
    }
}

/// Asks every operation for its success and, where this test can provoke it, for each documented refusal. The harness
/// checks each answer against its schema.
#[test]
fn every_operation_answers_as_documented() {
    let settings = [("MAX_KEYS_PER_USER", "5"), ("JWT_ISSUER", "https://auth.example.com"), ("WEBHOOKS", "users")];
    let service = Service::start_with(Backend::Sqlite, &settings, |_| {});
    let ann = service.sign_up("ann@example.com");
    let key = service.create_key(&ann.access, json!({ "name": "ci", "expiresAt": "2999-01-01T00:00:00Z" }));
    let (id, key) = (key["id"].as_str().unwrap(), key["key"].as_str().unwrap());
    let (patched, rotated) = (format!("/keys/{id}"), format!("/keys/{id}/rotate"));
    let body = |email: &str| json!({ "email": email, "password": "Password123!" });
    let mut seen = BTreeSet::new();
    let mut see = |method: &str, path: &str, answer: Answer| {
        seen.insert(format!("{method} {} {}", documented_path(path).unwrap(), answer.status));
    };
    for (path, good) in [
        ("/auth/signup", json!({ "email": "bob@example.com", "password": "Password123!", "name": "Bob" })),
        ("/auth/signup", body("ann@example.com")),
        ("/auth/login", body("ann@example.com")),
        ("/auth/login", json!({ "email": "ann@example.com", "password": "wrong" })),
        ("/auth/refresh", json!({ "refreshToken": ann.refresh })),
        ("/auth/refresh", json!({ "refreshToken": "nonsense" })),
        ("/keys/create", json!({ "name": "another" })),
        (rotated.as_str(), json!({ "gracePeriod": "7d" })),
        ("/keys/verify", json!({ "key": key, "scopes": ["a"] })),
        ("/keys/verify-batch", json!({ "keys": [{ "key": key }] })),
        (patched.as_str(), json!({ "expiresAt": null })),
        (patched.as_str(), json!({ "name": "renamed" })),
    ] {
        let method = if path == patched { "PATCH" } else { "POST" };
        see(method, path, service.method(method, path).bearer(&ann.access).json(good).send());
        see(method, path, service.method(method, path).bearer(&ann.access).json(json!({})).send());
        see(method, path, service.method(method, path).bearer(&ann.access).body("application/json", "{").send());
        see(
            method,
            path,
            service.method(method, path).bearer(&ann.access).body("application/json", vec![b' '; 300_000]).send(),
        );
    }
    for (method, path, good) in [
        ("POST", "/auth/password", json!({ "currentPassword": "Password123!", "newPassword": "another Password" })),
        ("DELETE", "/auth/me", json!({ "password": "Password123!" })),
    ] {
        let account = service.sign_up(&format!("{}@example.com", method.to_lowercase()));
        let ask = || service.method(method, path).bearer(&account.access);
        see(method, path, ask().json(json!({})).send());
        see(method, path, ask().body("application/json", vec![b' '; 20_000]).send());
        see(method, path, service.method(method, path).send());
        see(method, path, ask().json(good).send());
    }
    see_second_factor(&service, &mut see);
    for path in [
        "/auth/me",
        "/auth/sessions",
        "/auth/events",
        "/keys",
        "/protected/user-only",
        "/protected/service-only",
        "/protected/flexible",
    ] {
        see("GET", path, service.get(path).bearer(&ann.access).api_key(key).send());
        see("GET", path, service.get(path).send());
        see("GET", path, service.get(path).bearer("bad").api_key("bad").send());
    }
    for (method, path) in ROUTES.iter().filter(|route| route.path.starts_with("/authz/")).flat_map(operations) {
        see(method, &path, service.method(method, &path).api_key(key).send());
        see(method, &path, service.method(method, &path).send());
    }
    let refused = service.create_key(&ann.access, json!({ "name": "revoked" }));
    let refused = format!("/keys/{}", refused["id"].as_str().unwrap());
    service.delete(&refused).bearer(&ann.access).send();
    for path in ["/keys/verify", "/keys/verify-batch"] {
        see("POST", path, service.post(path).json(json!({})).send());
    }
    let derive = || service.post("/auth/token").api_key(key);
    for answer in [
        derive().send(),
        derive().json(json!({ "expiresIn": "2h" })).send(),
        derive().body("application/json", vec![b' '; 20_000]).send(),
        service.post("/auth/token").send(),
    ] {
        see("POST", "/auth/token", answer);
    }
    let gateway = service.sign_up("gateway@example.com");
    let gateway = service.create_key(&gateway.access, json!({ "name": "gateway", "scopes": ["keys:verify"] }));
    let introspect = || service.post("/oauth/introspect").bearer(gateway["key"].as_str().unwrap());
    const FORM: &str = "application/x-www-form-urlencoded";
    for (path, operations) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if !operation["responses"]["415"].is_null() && !path.starts_with("/admin/") {
                let (method, target) = (method.to_uppercase(), path.replace("{id}", id));
                let introspects = path == "/oauth/introspect";
                let ask = service.method(&method, &target).header("content-encoding", "gzip");
                let ask = if introspects {
                    ask.body(FORM, "token=x").api_key(gateway["key"].as_str().unwrap())
                } else {
                    ask.body("application/json", "{}").api_key(key).bearer(&ann.access)
                };
                see(&method, &target, ask.send());
            }
        }
    }
    for answer in [
        introspect().body(FORM, format!("token={key}")).send(),
        introspect().body(FORM, format!("token={}", ann.access)).send(),
        introspect().body(FORM, "token=x").send(),
        introspect().body(FORM, "").send(),
        introspect().body(FORM, vec![b'x'; 20_000]).send(),
        service.post("/oauth/introspect").send(),
    ] {
        see("POST", "/oauth/introspect", answer);
    }
    let found = service.create_key(&ann.access, json!({ "name": "found" }));
    for _ in 0..2 {
        let answer = service.post("/keys/revoke-self").api_key(found["key"].as_str().unwrap()).send();
        see("POST", "/keys/revoke-self", answer);
    }
    for _ in 0..5 {
        see(
            "POST",
            "/keys/create",
            service.post("/keys/create").bearer(&ann.access).json(json!({ "name": "x" })).send(),
        );
    }
    for (method, path) in [("PATCH", refused.clone()), ("POST", format!("{refused}/rotate"))] {
        see(method, &path, service.method(method, &path).bearer(&ann.access).json(json!({})).send());
        see(method, &path, service.method(method, &path).json(json!({})).send());
        let unknown = path.replace(&refused, "/keys/x");
        see(method, &unknown, service.method(method, &unknown).bearer(&ann.access).json(json!({})).send());
    }
    let mut public = vec!["/health".to_string()];
    let is_file = |path: &String| path.starts_with("/api/docs") || path.starts_with("/.well-known/");
    public.extend(ROUTES.iter().map(|route| route.path.to_string()).filter(is_file));
    for path in public {
        let target = path.replace(":file", "docs.js");
        see("GET", &path, service.get(&target).send());
        if path != "/health" {
            see("GET", &path, service.get(&target).header("if-none-match", "*").send());
            see("GET", &path, service.get(&target).header("if-match", "\"other\"").send());
        }
    }
    let without_issuer = Service::start(Backend::Sqlite);
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        see("GET", path, without_issuer.get(path).send());
    }
    for file in ["swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png", "LICENSE", "NOTICE", "nothing.js"] {
        let path = format!("/api/docs/{file}");
        see("GET", &path, service.get(&path).send());
    }
    for query in ["", "?by=week"] {
        let path = format!("/keys/{id}/usage{query}");
        see("GET", &path, service.get(&path).bearer(&ann.access).send());
    }
    see("GET", "/keys", service.get("/keys?limit=0").bearer(&ann.access).send());
    see("GET", "/auth/events", service.get("/auth/events?limit=0").bearer(&ann.access).send());
    see("GET", "/keys/x/usage", service.get("/keys/x/usage").bearer(&ann.access).send());
    see("GET", "/keys/x/usage", service.get("/keys/x/usage").send());
    see("GET", "/keys/x", service.get(&format!("/keys/{id}")).bearer(&ann.access).send());
    see("GET", "/keys/x", service.get("/keys/x").bearer(&ann.access).send());
    see("GET", "/keys/x", service.get("/keys/x").send());
    see("DELETE", "/keys/x", service.delete(&format!("/keys/{id}")).bearer(&ann.access).send());
    see("DELETE", "/keys/x", service.delete("/keys/x").bearer(&ann.access).send());
    see("DELETE", "/keys/x", service.delete("/keys/x").send());
    let elsewhere = service.log_in("ann@example.com");
    let session = keyward_harness::forge::claims(&elsewhere.access)["sid"].as_str().unwrap().to_string();
    for id in [session.as_str(), "x"] {
        let path = format!("/auth/sessions/{id}");
        see("DELETE", &path, service.delete(&path).bearer(&ann.access).send());
        see("DELETE", &path, service.delete(&path).send());
    }
    see("DELETE", "/auth/sessions", service.delete("/auth/sessions").bearer(&ann.access).send());
    see("DELETE", "/auth/sessions", service.delete("/auth/sessions").send());
    see("POST", "/keys/create", service.post("/keys/create").json(json!({ "name": "x" })).send());
    see("POST", "/auth/logout", service.post("/auth/logout").bearer(&ann.access).send());
    see("POST", "/auth/logout", service.post("/auth/logout").bearer(&ann.access).send());

    let mailing = [
        ("SMTP_URL", "smtp://127.0.0.1:1?tls=none"),
        ("MAIL_FROM", "auth@example.com"),
        ("PUBLIC_URL", "https://auth.example.com"),
    ];
    see_recovery(&Service::start_with(Backend::Sqlite, &mailing, |_| {}), &mut see);
    see_operators(&service, &mut see);
    see_webhooks(&service, &mut see);

    // Other tests provoke these: they need a closed sign-up, a key with a limit or without a scope, a slow client, many
    // requests, a fault, a server without DATA_KEY, or a store that is away.
    let elsewhere = ["403", "408", "429", "500", "501", "503"];
    let mut documented = BTreeSet::new();
    for (path, operations) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            for status in operation["responses"].as_object().into_iter().flatten().map(|(status, _)| status) {
                if !elsewhere.contains(&status.as_str()) {
                    documented.insert(format!("{} {path} {status}", method.to_uppercase()));
                }
            }
        }
    }
    let missing = [documented.difference(&seen), seen.difference(&documented)].map(Iterator::collect::<Vec<_>>);
    assert_eq!(missing, [[""; 0]; 2], "documented, not seen; seen, not documented");
}
