//! Everyone's accounts.

use keyward_harness::http_client::Answer;
use keyward_harness::service::{Account, Backend, PASSWORD, Service, broken_rules, error, on_both_stores};
use serde_json::{Value, json};

use super::{next, operator};

/// What an operator asks with this token.
pub(super) struct Asking<'a> {
    pub(super) service: &'a Service,
    pub(super) access: &'a str,
}

impl Asking<'_> {
    #[track_caller]
    pub(super) fn ask(&self, method: &str, target: &str, body: Option<Value>) -> Answer {
        let request = self.service.method(method, target).bearer(self.access);
        match body {
            Some(body) => request.json(body).send(),
            None => request.send(),
        }
    }

    #[track_caller]
    pub(super) fn get(&self, target: &str) -> Value {
        let answer = self.ask("GET", target, None);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    #[track_caller]
    pub(super) fn change(&self, user: &str, body: Value) -> Value {
        let answer = self.ask("PATCH", &format!("/admin/users/{user}"), Some(body));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

/// The e-mails on all pages of a list.
fn emails(asking: &Asking<'_>, first: &str) -> Vec<Vec<String>> {
    let (mut pages, mut target) = (Vec::new(), Some(first.to_string()));
    while let Some(path) = target {
        let answer = asking.ask("GET", &path, None);
        assert_eq!(answer.status, 200, "{answer:?}");
        let users = answer.json().as_array().unwrap().clone();
        pages.push(users.iter().map(|user| user["email"].as_str().unwrap().to_string()).collect());
        target = next(&answer);
    }
    pages
}

pub(super) fn said(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.json())
}

on_both_stores! {
    fn only_people_who_were_granted_it_and_keys_that_carry_it_administer(service) {
        let ann = service.sign_up("ann@example.com");
        service.grant(&ann.id, &["*"]);
        let ask = |access: &str| service.get("/admin/users").bearer(access).send();
        let answer = ask(&ann.access);
        assert_eq!(said(&answer), (403, error(403, "User lacks the scope keyward:admin")));
        assert_eq!(service.get("/admin/users").send().status, 401);
        service.grant(&ann.id, &["keyward:admin"]);
        assert_eq!(ask(&ann.access).status, 200);
        let key = |scopes: Value| {
            let made = service.create_key(&ann.access, json!({ "name": "ci", "scopes": scopes }));
            made["key"].as_str().unwrap().to_string()
        };
        let (plain, carrying) = (key(json!(["a"])), key(json!(["keyward:admin"])));
        let by_key = |key: &str| service.get("/admin/users").api_key(key).send();
        assert_eq!(said(&by_key(&plain)), (403, error(403, "API key lacks the scope keyward:admin")));
        assert_eq!(by_key(&carrying).status, 200);
        service.operator(&["user", "withdraw", &ann.id, "keyward:admin"]);
        assert_eq!((ask(&ann.access).status, by_key(&carrying).status), (403, 403));
    }

    fn every_route_of_operators_asks_for_the_scope(service) {
        let ann = service.sign_up("ann@example.com");
        for route in keyward::api::routes::ROUTES.iter().filter(|route| route.path.starts_with("/admin")) {
            let target = route.path.replace(":id", &ann.id);
            let answer = service.method(route.verb(), &target).bearer(&ann.access).json(json!({})).send();
            assert_eq!(said(&answer), (403, error(403, "User lacks the scope keyward:admin")), "{target}");
        }
    }

    fn an_account_is_shown_as_it_is(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        let ann = service.sign_up("Ann@Example.com");
        let now = service.clock.now().to_string();
        let mut expected = json!({
            "id": ann.id, "kind": "user", "email": "ann@example.com", "name": null, "isActive": true,
            "emailVerified": false, "scopes": ["*", "keys:verify"], "metadata": null, "hasPassword": true,
            "maxKeys": null, "createdAt": now, "lastLoginAt": null,
        });
        let target = format!("/admin/users/{}", ann.id);
        assert_eq!(asking.get(&target), expected);
        service.log_in("ann@example.com");
        expected["lastLoginAt"] = json!(now);
        assert_eq!(asking.get(&target), expected);
        assert_eq!(asking.get("/admin/users?email=ann@"), json!([expected]));
        for target in ["/admin/users/01890000-0000-7000-8000-000000000000", "/admin/users/x"] {
            assert_eq!(said(&asking.ask("GET", target, None)), (404, error(404, "User not found")));
        }
    }

    fn users_are_listed_in_pages_and_by_what_is_asked_for(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        for name in ["ann", "bob", "anna", "anton", "zoe"] {
            service.sign_up(&format!("{name}@example.com"));
        }
        service.operator(&["user", "deactivate", "anna@example.com"]);
        let address = |name: &&str| format!("{name}@example.com");
        let names = |names: &[&str]| names.iter().map(address).collect::<Vec<_>>();
        let by_age = ["boss", "ann", "bob", "anna", "anton", "zoe"];
        assert_eq!(emails(&asking, "/admin/users"), [names(&by_age)]);
        assert_eq!(emails(&asking, "/admin/users?limit=2"), [names(&by_age[..2]), names(&by_age[2..4]), names(&by_age[4..])]);
        assert_eq!(emails(&asking, "/admin/users?active=false"), [names(&["anna"])]);
        assert_eq!(emails(&asking, "/admin/users?kind=service"), [names(&[])]);
        assert_eq!(
            emails(&asking, "/admin/users?active=true&kind=user&limit=4"),
            [names(&["boss", "ann", "bob", "anton"]), names(&["zoe"])]
        );
        // By e-mail, the order is that of the e-mails.
        assert_eq!(emails(&asking, "/admin/users?email=AN&limit=2"), [names(&["ann", "anna"]), names(&["anton"])]);
        assert_eq!(emails(&asking, "/admin/users?email=an&active=true&limit=1"), [names(&["ann"]), names(&["anton"])]);
        assert_eq!(emails(&asking, "/admin/users?email=%25"), [names(&[])]);

        let unknown = "01890000-0000-7000-8000-000000000000";
        for (query, rule) in [
            ("limit=101", "limit must be a whole number from 1 to 100"),
            ("active=yes", "active must be true or false"),
            ("kind=person", "kind must be user or service"),
            ("after=1", "after must be a UUID"),
            (&format!("email=an&after={unknown}"), "after must be the id of a user"),
            ("name=x", "property name should not exist"),
        ] {
            let answer = asking.ask("GET", &format!("/admin/users?{query}"), None);
            assert_eq!(said(&answer), (400, broken_rules(&[rule])), "{query}");
        }
    }

    fn an_account_is_changed_field_by_field_and_the_trail_names_the_operator(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        let ann = service.sign_up("ann@example.com");
        let change = json!({ "name": "Ann", "metadata": { "plan": "pro" }, "maxKeys": 1, "emailVerified": true });
        let user = asking.change(&ann.id, change.clone());
        for (name, value) in change.as_object().unwrap() {
            assert_eq!(&user[name], value, "{name}");
        }
        assert_eq!(asking.get(&format!("/admin/users/{}", ann.id)), user);
        assert_eq!(asking.change(&ann.id, json!({})), user);
        // A new address is not verified.
        let user = asking.change(&ann.id, json!({ "email": "Ann@Example.org", "metadata": null, "name": null }));
        let told = ["email", "emailVerified", "metadata", "name", "maxKeys"].map(|name| user[name].clone());
        assert_eq!(told, [json!("ann@example.org"), json!(false), json!(null), json!(null), json!(1)]);
        assert_eq!(service.get("/auth/me").bearer(&ann.access).send().json()["email"], "ann@example.org");
        service.log_in("ann@example.org");
        assert_eq!(asking.change(&ann.id, json!({ "maxKeys": null }))["maxKeys"], json!(null));

        let events = service.get("/auth/events").bearer(&ann.access).send().json();
        let events: Vec<&Value> = events.as_array().unwrap().iter().filter(|event| event["type"] == "user.changed").collect();
        let fields: Vec<&Value> = events.iter().map(|event| &event["details"]["fields"]).collect();
        assert_eq!(
            fields,
            [
                &json!(["maxKeys"]),
                &json!(["email", "name", "emailVerified", "metadata"]),
                &json!(["name", "emailVerified", "metadata", "maxKeys"]),
            ]
        );
        assert!(events.iter().all(|event| event["actor"] == json!({ "type": "operator", "userId": boss.id })));
    }

    fn a_change_that_cannot_be_made_changes_nothing(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        let ann = service.sign_up("ann@example.com");
        let target = format!("/admin/users/{}", ann.id);
        let before = asking.get(&target);
        let answer = asking.ask("PATCH", &target, Some(json!({ "name": "A", "email": "BOSS@example.com" })));
        assert_eq!(said(&answer), (409, error(409, "User already exists")));
        let rules = [
            "property kind should not exist",
            "property password should not exist",
            "property scopes should not exist",
            "email must be an email",
            "isActive must be a boolean value",
            "metadata must be an object",
            "maxKeys must be a whole number from 0 to 1000000",
        ];
        let body = json!({
            "kind": "service", "password": PASSWORD, "scopes": ["*"], "email": "ann", "isActive": "no", "metadata": [], "maxKeys": -1
        });
        assert_eq!(said(&asking.ask("PATCH", &target, Some(body))), (400, broken_rules(&rules)));
        assert_eq!(asking.get(&target), before);
    }

    fn who_is_deactivated_is_out_and_comes_back_with_their_keys(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let key = made["key"].as_str().unwrap();
        assert_eq!((service.key_status(key), service.token_status(&ann.access)), (200, 200));
        assert_eq!(asking.change(&ann.id, json!({ "isActive": false }))["isActive"], json!(false));
        assert_eq!((service.key_status(key), service.token_status(&ann.access)), (401, 401));
        asking.change(&ann.id, json!({ "isActive": true }));
        assert_eq!((service.key_status(key), service.token_status(&ann.access)), (200, 401));
    }

    fn scopes_are_granted_and_withdrawn(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        let ann = service.sign_up("ann@example.com");
        let ask = |what: &str, scopes: Value| {
            asking.ask("POST", &format!("/admin/users/{}/{what}", ann.id), Some(json!({ "scopes": scopes })))
        };
        let answer = ask("withdraw", json!(["*", "keys:verify", "never had"]));
        assert_eq!(said(&answer).0, 400);
        assert_eq!(ask("withdraw", json!(["*", "keys:verify", "never-had"])).json()["scopes"], json!([]));
        assert_eq!(ask("grant", json!(["orders:*", "a"])).json()["scopes"], json!(["orders:*", "a"]));
        assert_eq!(service.get("/authz/forward-auth?scope=orders:read").bearer(&ann.access).send().status, 200);
        assert_eq!(ask("withdraw", json!(["orders:*"])).json()["scopes"], json!(["a"]));
        assert_eq!(service.get("/authz/forward-auth?scope=orders:read").bearer(&ann.access).send().status, 403);
        for (scopes, rule) in [
            (json!([]), "scopes should not be empty"),
            (json!(null), "scopes should not be empty"),
            (json!("a"), "scopes must be an array"),
            (json!([1]), "each value in scopes must be a string"),
            (json!(["keyward:*"]), "scopes must not hold a pattern of reserved scopes, those that begin with keyward: or keys:"),
        ] {
            assert_eq!(said(&ask("grant", scopes)), (400, broken_rules(&[rule])));
        }
        let missing = asking.ask("POST", &format!("/admin/users/{}/grant", ann.id), Some(json!({})));
        assert_eq!(said(&missing), (400, broken_rules(&["scopes must be an array"])));
    }

    fn sessions_are_listed_and_ended(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        let ann = service.sign_up("ann@example.com");
        let elsewhere = service.log_in("ann@example.com");
        let target = format!("/admin/users/{}/sessions", ann.id);
        let own = service.get("/auth/sessions").bearer(&ann.access).send().json();
        let mut listed = asking.get(&target);
        assert_eq!(listed.as_array().unwrap().len(), 2);
        for (index, session) in own.as_array().unwrap().iter().enumerate() {
            listed[index]["current"] = session["current"].clone();
        }
        assert_eq!(listed, own);
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        let answer = asking.ask("DELETE", &target, None);
        assert_eq!(said(&answer), (200, json!({ "message": "Sessions ended successfully" })));
        assert_eq!((service.token_status(&ann.access), service.token_status(&elsewhere.access)), (401, 401));
        assert_eq!(service.key_status(made["key"].as_str().unwrap()), 200, "keys are no sessions");
        assert_eq!((asking.get(&target), service.token_status(&boss.access)), (json!([]), 200));
        let nobody = asking.ask("DELETE", "/admin/users/01890000-0000-7000-8000-000000000000/sessions", None);
        assert_eq!(nobody.status, 404);
    }

    fn who_is_deleted_is_gone_at_once_with_everything(service) {
        let boss = operator(service, "boss@example.com");
        let asking = Asking { service, access: &boss.access };
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci" }))["key"].as_str().unwrap().to_string();
        assert_eq!((service.key_status(&key), service.token_status(&ann.access)), (200, 200));
        let target = format!("/admin/users/{}", ann.id);
        let answer = asking.ask("DELETE", &target, None);
        assert_eq!(said(&answer), (200, json!({ "message": "Account deleted successfully" })));
        assert_eq!((service.key_status(&key), service.token_status(&ann.access)), (401, 401));
        for (method, target) in [
            ("DELETE", target.clone()),
            ("GET", target.clone()),
            ("PATCH", target.clone()),
            ("GET", format!("{target}/sessions")),
            ("DELETE", format!("{target}/sessions")),
        ] {
            assert_eq!(asking.ask(method, &target, None).status, 404, "{method} {target}");
        }
        let deleted = asking.get(&format!("/admin/events?userId={}&type=user.deleted", ann.id));
        let actor = json!({ "type": "operator", "userId": boss.id, "sessionId": deleted[0]["actor"]["sessionId"] });
        assert_eq!((deleted.as_array().unwrap().len(), &deleted[0]["actor"]), (1, &actor));
        service.sign_up("ann@example.com");
    }

    fn operators_have_a_limit_of_their_own(service) {
        let boss = operator(service, "boss@example.com");
        service.set("RATE_LIMIT_ADMIN", "3/1m");
        service.restart();
        let asking = Asking { service, access: &boss.access };
        let statuses = |count: usize| -> Vec<u16> {
            (0..count).map(|_| asking.ask("PATCH", &format!("/admin/users/{}", boss.id), None).status).collect()
        };
        assert_eq!(statuses(4), [200, 200, 200, 429]);
        let answer = asking.ask("PATCH", &format!("/admin/users/{}", boss.id), None);
        assert_eq!(answer.json(), error(429, "Too many changes by this operator, try again later"));
        assert_eq!(asking.ask("PATCH", "/keys/x", Some(json!({}))).status, 404, "their own keys are another matter");
        assert_eq!(asking.ask("DELETE", "/admin/users/x", None).status, 404, "ending something is never refused");
    }
}

#[test]
fn what_a_user_may_have_of_keys_is_theirs_before_everybodys() {
    for backend in Backend::installed() {
        let mut service = Service::start(backend);
        let boss = operator(&service, "boss@example.com");
        service.set("MAX_KEYS_PER_USER", "2");
        service.restart();
        let ann: Account = service.sign_up("ann@example.com");
        let create = || service.post("/keys/create").bearer(&ann.access).json(json!({ "name": "ci" })).send().status;
        assert_eq!([create(), create(), create()], [201, 201, 409]);
        let asking = Asking { service: &service, access: &boss.access };
        asking.change(&ann.id, json!({ "maxKeys": 3 }));
        assert_eq!([create(), create()], [201, 409]);
        asking.change(&ann.id, json!({ "maxKeys": 0 }));
        assert_eq!(create(), 409);
    }
}
