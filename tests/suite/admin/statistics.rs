//! Figures of the whole installation.

use keyward::base::period::{DAY, HOUR};
use keyward_harness::old_database::take_back;
use keyward_harness::service::{Account, PASSWORD, Service, broken_rules, on_both_stores};
use serde_json::{Value, json};

use super::operator;

fn stats(service: &Service, operator: &Account, query: &str) -> Value {
    let answer = service.get(&format!("/admin/stats{query}")).bearer(&operator.access).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn fail_to_log_in(service: &Service, email: &str) {
    let body = json!({ "email": email, "password": "wrong password" });
    assert_eq!(service.post("/auth/login").json(body).send().status, 401);
}

/// What this hour's point has, which is the last.
fn last_point(stats: &Value) -> &Value {
    stats["series"].as_array().unwrap().last().unwrap()
}

on_both_stores! {
    fn what_there_is_is_counted_and_told_again_for_a_minute(service) {
        let operator = operator(service, "operator@example.com");
        let ann = service.sign_up("ann@example.com");
        service.log_in("ann@example.com");
        let bob = service.sign_up("bob@example.com");
        let in_days = |days: u32| service.clock.now().plus(days * DAY).to_string();
        for body in [
            json!({ "name": "lasting" }),
            json!({ "name": "a year", "expiresAt": in_days(365) }),
            json!({ "name": "a week", "expiresAt": in_days(6) }),
        ] {
            service.create_key(&ann.access, body);
        }
        let revoked = service.create_key(&ann.access, json!({ "name": "revoked" }));
        service.delete(&format!("/keys/{}", revoked["id"].as_str().unwrap())).bearer(&ann.access).send();
        let paused = service.create_key(&ann.access, json!({ "name": "paused" }));
        let change = json!({ "isActive": false });
        service.patch(&format!("/keys/{}", paused["id"].as_str().unwrap())).bearer(&ann.access).json(change).send();
        service.create_key(&bob.access, json!({ "name": "of somebody inactive" }));
        service.operator(&["user", "deactivate", "bob@example.com"]);

        let counted = stats(service, &operator, "");
        assert_eq!(counted["users"], json!({ "active": 2, "inactive": 1, "services": 0 }));
        assert_eq!(counted["sessions"], json!({ "open": 3 }));
        assert_eq!(counted["keys"], json!({ "usable": 3, "expiringIn7Days": 1 }));
        assert_eq!(counted["countedAt"], service.clock.now().to_string());
        service.operator(&["user", "delete", "bob@example.com"]);
        service.advance(59);
        let again = stats(service, &operator, "");
        assert_eq!((&again["users"], &again["countedAt"]), (&counted["users"], &counted["countedAt"]));
        service.advance(1);
        assert_eq!(stats(service, &operator, "")["users"], json!({ "active": 2, "inactive": 0, "services": 0 }));
    }

    fn what_everyone_did_is_told_by_hour_or_day_and_outlives_its_keys_and_users(service) {
        let operator = operator(service, "operator@example.com");
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci", "scopes": ["a"] }));
        let key = made["key"].as_str().unwrap();
        for _ in 0..3 {
            assert_eq!(service.key_status(key), 200);
        }
        assert_eq!(service.get("/authz/forward-auth?scope=b").api_key(key).send().status, 403);
        service.log_in("ann@example.com");
        fail_to_log_in(service, "ann@example.com");
        fail_to_log_in(service, "nobody@example.com");
        let start = service.clock.now().start_of(HOUR).to_string();
        service.advance(3600);
        let operator = service.log_in(&operator.email);
        service.operator(&["user", "delete", "ann@example.com"]);
        // Stopping writes what is counted.
        service.restart();

        let series = stats(service, &operator, "")["series"].as_array().unwrap().clone();
        let refused = |scope| {
            json!({ "disabled": 0, "expired": 0, "insufficientScope": scope, "rateLimited": 0, "forbiddenAddress": 0 })
        };
        let then = json!({ "start": start, "logins": 1, "failedLogins": 2, "allowed": 3, "refused": refused(1) });
        assert_eq!((series.len(), &series[22]), (24, &then));
        assert_eq!((&series[23]["logins"], &series[23]["refused"]), (&json!(1), &refused(0)));
        let days = stats(service, &operator, "?by=day");
        assert_eq!((&days["by"], days["series"].as_array().unwrap().len()), (&json!("day"), 30));
        let of_days = |name: &str| days["series"].as_array().unwrap().iter().map(|day| day[name].as_u64().unwrap()).sum::<u64>();
        assert_eq!((of_days("logins"), of_days("failedLogins"), of_days("allowed")), (2, 2, 3));

        let answer = service.get("/admin/stats?by=week").bearer(&operator.access).send();
        let rule = "by must be one of the following values: hour, day";
        assert_eq!((answer.status, answer.json()), (400, broken_rules(&[rule])));
    }

    fn the_upgrade_counts_what_is_known_of_the_time_before(service) {
        let operator = operator(service, "operator@example.com");
        let ann = service.sign_up("ann@example.com");
        let made = service.create_key(&ann.access, json!({ "name": "ci" }));
        assert_eq!(service.key_status(made["key"].as_str().unwrap()), 200);
        service.log_in("ann@example.com");
        fail_to_log_in(service, "ann@example.com");
        let change = json!({ "currentPassword": PASSWORD, "newPassword": "Another Password 1!" });
        assert_eq!(service.post("/auth/password").bearer(&ann.access).json(change).send().status, 200);
        service.stop();
        take_back(service, 13);
        service.restart();
        let stats = stats(service, &operator, "");
        let known = last_point(&stats);
        let known = ["logins", "failedLogins", "allowed"].map(|name| known[name].as_u64().unwrap());
        assert_eq!(known, [1, 1, 1], "a changed password is no login");
    }
}
