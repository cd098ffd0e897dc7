//! No request leaves an installation without an operator.

use std::thread;

use keyward_harness::http_client::{Answer, Client};
use keyward_harness::service::{Account, PASSWORD, error, on_both_stores};
use serde_json::json;

use super::{LAST, operator};

/// Everything that takes an operator away.
const WAYS: [&str; 4] = ["deactivate", "withdraw", "delete", "leave"];

/// `by` takes `whom` away; who leaves does it themselves.
fn take_away(client: &Client, way: &str, by: &Account, whom: &Account) -> Answer {
    let target = format!("/admin/users/{}", whom.id);
    match way {
        "deactivate" => client.method("PATCH", &target).bearer(&by.access).json(json!({ "isActive": false })).send(),
        "withdraw" => {
            let body = json!({ "scopes": ["keyward:admin"] });
            client.post(&format!("{target}/withdraw")).bearer(&by.access).json(body).send()
        }
        "delete" => client.delete(&target).bearer(&by.access).send(),
        _ => client.delete("/auth/me").bearer(&whom.access).json(json!({ "password": PASSWORD })).send(),
    }
}

on_both_stores! {
    fn the_last_operator_stays_whatever_is_asked_over_http(service) {
        let boss = operator(service, "boss@example.com");
        // Neither is another operator.
        let ann = service.sign_up("ann@example.com");
        let away = operator(service, "away@example.com");
        service.operator(&["user", "deactivate", &away.id]);
        service.grant(&ann.id, &["*"]);
        for way in WAYS {
            let answer = take_away(&service.client(), way, &boss, &boss);
            assert_eq!((answer.status, answer.json()), (409, error(409, LAST)), "{way}");
        }
        assert_eq!(service.get("/admin/users").bearer(&boss.access).send().status, 200, "nothing has changed");
        // Others may go, and an operator may go while another one stays.
        let second = operator(service, "second@example.com");
        assert_eq!(take_away(&service.client(), "leave", &ann, &ann).status, 200);
        assert_eq!(take_away(&service.client(), "withdraw", &second, &boss).status, 200);
        assert_eq!(take_away(&service.client(), "leave", &second, &second).status, 409);
        // Somebody on the command line can make another one.
        service.operator(&["user", "delete", &second.id]);
    }

    fn of_operators_who_take_each_other_away_at_once_one_stays(service) {
        let operators: Vec<Account> =
            (0..WAYS.len() * 2).map(|number| operator(service, &format!("operator-{number}@example.com"))).collect();
        let statuses: Vec<u16> = thread::scope(|scope| {
            let ask = |(whom, way)| {
                let client = service.client();
                scope.spawn(move || take_away(&client, way, whom, whom).status)
            };
            let asking: Vec<_> = operators.iter().zip(WAYS.into_iter().cycle()).map(ask).collect();
            asking.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        let refused = statuses.iter().filter(|status| **status == 409).count();
        assert!(refused == 1 && statuses.iter().all(|status| [200, 409].contains(status)), "{statuses:?}");
        let users = service.operator(&["user", "list", "--json"]);
        let is_operator = |user: &&str| user.contains("keyward:admin") && user.contains("\"isActive\":true");
        assert_eq!(users.lines().filter(is_operator).count(), 1, "{users}");
    }
}
