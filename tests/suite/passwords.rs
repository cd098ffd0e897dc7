//! What a password must be like where one is set, and how its hash keeps up with the settings.

use std::sync::Barrier;

use keyward_harness::service::{Backend, PASSWORD, Service, broken_rules, on_both_stores};
use serde_json::json;

fn sign_up_status(service: &Service, email: &str, password: &str) -> u16 {
    service.post("/auth/signup").json(json!({ "email": email, "password": password })).send().status
}

fn log_in_status(service: &Service, email: &str, password: &str) -> u16 {
    service.post("/auth/login").json(json!({ "email": email, "password": password })).send().status
}

on_both_stores! {
    fn common_passwords_are_refused_where_one_is_set(service) {
        let ann = service.sign_up("ann@example.com");
        let answer = service.post("/auth/signup").json(json!({ "email": "b@example.com", "password": "Password1" })).send();
        assert_eq!((answer.status, answer.json()), (400, broken_rules(&["password is too common"])));
        let body = json!({ "currentPassword": PASSWORD, "newPassword": "iloveyou" });
        let answer = service.post("/auth/password").bearer(&ann.access).json(body).send();
        assert_eq!((answer.status, answer.json()), (400, broken_rules(&["newPassword is too common"])));
        // As they are written, and no kinds of characters are asked for.
        for (number, password) in ["Password123!", "Test123!", "pASSWORD1", "correct horse", "        "].iter().enumerate() {
            assert_eq!(sign_up_status(service, &format!("c{number}@example.com"), password), 201, "{password:?}");
        }
    }

    fn the_longest_password_has_72_bytes_of_which_each_counts(service) {
        for (number, longest) in ["x".repeat(72), "ä".repeat(36), "🔑".repeat(18)].iter().enumerate() {
            let email = format!("a{number}@example.com");
            assert_eq!(sign_up_status(service, &email, &format!("{longest}x")), 400);
            assert_eq!(sign_up_status(service, &email, longest), 201);
            assert_eq!(log_in_status(service, &email, longest), 200);
            let mut shorter = longest.clone();
            shorter.pop();
            assert_eq!(log_in_status(service, &email, &shorter), 401);
            assert_eq!(log_in_status(service, &email, &format!("{shorter}y")), 401);
        }
    }

    fn a_common_password_from_before_still_logs_in(service) {
        let ann = service.sign_up("ann@example.com");
        service.store_hash(&bcrypt::hash("password", 10).unwrap());
        assert_eq!(log_in_status(service, &ann.email, "password"), 200);
    }

    fn a_hash_of_the_configured_cost_or_a_higher_one_stays(service) {
        let ann = service.sign_up("ann@example.com");
        for cost in [10, 11] {
            let hash = bcrypt::hash(PASSWORD, cost).unwrap();
            service.store_hash(&hash);
            assert_eq!(log_in_status(service, &ann.email, PASSWORD), 200);
            assert_eq!(service.stored_hash(), hash);
        }
    }

    fn a_hash_of_a_lower_cost_is_made_anew_at_the_next_good_login(service) {
        let ann = service.sign_up("ann@example.com");
        let weak = bcrypt::hash(PASSWORD, 6).unwrap();
        service.store_hash(&weak);
        assert_eq!(log_in_status(service, &ann.email, "Password123?"), 401);
        assert_eq!(service.stored_hash(), weak);
        assert_eq!(log_in_status(service, &ann.email, PASSWORD), 200);
        let strong = service.stored_hash();
        assert!(strong.starts_with("$2b$10$"), "{strong}");
        // The sessions from before live on, and the password is the same.
        assert_eq!(service.token_status(&ann.access), 200);
        assert_eq!((log_in_status(service, &ann.email, PASSWORD), log_in_status(service, &ann.email, "Password123?")), (200, 401));
        assert_eq!(service.stored_hash(), strong);
    }

    fn logins_that_make_a_hash_anew_at_once_all_succeed(service) {
        let ann = service.sign_up("ann@example.com");
        for _ in 0..3 {
            service.store_hash(&bcrypt::hash(PASSWORD, 4).unwrap());
            let start = Barrier::new(4);
            let (start, email) = (&start, ann.email.as_str());
            let statuses = std::thread::scope(|scope| {
                let racers = [0; 4].map(|_| service.client()).map(|client| scope.spawn(move || {
                    start.wait();
                    client.post("/auth/login").json(json!({ "email": email, "password": PASSWORD })).send().status
                }));
                racers.map(|racer| racer.join().unwrap())
            });
            assert_eq!(statuses, [200; 4]);
        }
    }

    fn an_imported_password_that_was_cut_stays_what_it_was_when_its_hash_is_made_anew(service) {
        let ann = service.sign_up("ann@example.com");
        service.store_hash(&bcrypt::hash("x".repeat(80), 6).unwrap());
        for _ in 0..2 {
            assert_eq!(log_in_status(service, &ann.email, &"x".repeat(80)), 200);
            assert!(service.stored_hash().starts_with("$2b$10$"));
        }
        assert_eq!(log_in_status(service, &ann.email, &"x".repeat(71)), 401);
    }
}

#[test]
fn the_operator_may_ask_for_longer_passwords() {
    for backend in Backend::installed() {
        let mut service = Service::start(backend);
        let ann = service.sign_up("ann@example.com");
        service.set("PASSWORD_MIN_LENGTH", "15");
        service.restart();
        let answer =
            service.post("/auth/signup").json(json!({ "email": "b@example.com", "password": "fourteen chars" })).send();
        let rule = "must be longer than or equal to 15 characters";
        assert_eq!((answer.status, answer.json()), (400, broken_rules(&[&format!("password {rule}")])));
        assert_eq!(sign_up_status(&service, "b@example.com", "fifteen  chars."), 201);
        let body = json!({ "currentPassword": PASSWORD, "newPassword": "fourteen chars" });
        let answer = service.post("/auth/password").bearer(&ann.access).json(body).send();
        assert_eq!((answer.status, answer.json()), (400, broken_rules(&[&format!("newPassword {rule}")])));
        // What was set before is as good as it was.
        assert_eq!(log_in_status(&service, &ann.email, PASSWORD), 200);
    }
}
