//! The audit trail of everyone.

use keyward_harness::service::{broken_rules, on_both_stores};
use serde_json::{Value, json};

use super::{next, operator};

on_both_stores! {
    fn operators_read_what_happened_to_everyone_newest_first(service) {
        let boss = operator(service, "boss@example.com");
        // The command that made them an operator has a clock of its own.
        service.advance(3600);
        let boss = service.log_in(&boss.email);
        let ask = |target: &str| {
            let answer = service.get(target).bearer(&boss.access).send();
            assert_eq!(answer.status, 200, "{answer:?}");
            answer
        };
        service.advance(1);
        let ann = service.sign_up("ann@example.com");
        service.advance(1);
        let since = service.clock.now().to_string();
        for name in ["one", "two"] {
            service.create_key(&ann.access, json!({ "name": name }));
        }
        service.post("/auth/logout").bearer(&ann.access).send();
        let all = ask("/admin/events").json();
        let kinds = |events: &Value| -> Vec<String> {
            events.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap().to_string()).collect()
        };
        let anns = ["session.ended", "key.created", "key.created", "user.signed_up"];
        assert_eq!(kinds(&all), [&anns[..], &["session.opened", "user.scopes_changed", "user.signed_up"]].concat());
        assert_eq!(kinds(&ask(&format!("/admin/events?userId={}", ann.id)).json()), anns);
        assert_eq!(kinds(&ask("/admin/events?type=user.signed_up").json()), ["user.signed_up"; 2]);
        let both = format!("/admin/events?userId={}&type=key.created", ann.id);
        assert_eq!(kinds(&ask(&both).json()), ["key.created"; 2]);
        assert_eq!(kinds(&ask(&format!("/admin/events?since={since}")).json()), anns[..3]);
        assert_eq!(ask(&format!("{both}&since=2100-01-01T00:00:00Z")).json(), json!([]));

        for first in ["/admin/events?limit=2".to_string(), format!("/admin/events?limit=2&userId={}", ann.id)] {
            let whole = ask(&first.replace("limit=2", "limit=100")).json();
            let (mut pages, mut target) = (Vec::new(), Some(first));
            while let Some(path) = target {
                let answer = ask(&path);
                pages.extend(answer.json().as_array().unwrap().clone());
                target = next(&answer);
                // What happens meanwhile is on none of the later pages.
                service.sign_up(&format!("user-{}@example.com", service.count("SELECT COUNT(*) FROM users")));
            }
            assert_eq!(json!(pages), whole);
        }

        for (query, rule) in [
            ("type=user.unknown", "type must be a type of event, such as key.created"),
            ("userId=x", "userId must be a UUID"),
            ("after=01890000-0000-7000-8000-000000000000", "after must be the id of an event"),
            ("since=yesterday", "since must be an RFC 3339 date and time with an offset"),
        ] {
            let answer = service.get(&format!("/admin/events?{query}")).bearer(&boss.access).send();
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&[rule])));
        }
    }
}
