//! Fewer descriptors than connections: at the start, and from one moment to the next.

use std::time::Instant;

use keyward_harness::http_client::Client;
use keyward_harness::program::{Home, Server, in_both_homes};
use keyward_harness::service::{Backend, PASSWORD};
use keyward_harness::wire::{Wire, get, refresh};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;

use crate::target::{NO_LIMITS, SLACK, Witness, create_key};

/// From now on the process may have so many, or as many as before.
fn limit_descriptors(server: &Server<'_>, most: Option<usize>) {
    let pid = Pid::from_raw(server.pid().try_into().unwrap());
    // The upper limit is the one that it has from here: only the superuser could raise it again.
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: most.map(|most| most as u64).or(maximum), maximum }).unwrap();
}

/// As many connections as there is room for beside the store, of 64 descriptors.
const ROOM: usize = 32;

#[test]
fn connections_are_no_more_than_the_limit_of_open_files_has_room_for_and_the_store_goes_on() {
    let home = Home::fresh(Backend::Sqlite);
    let server = home.start_after("ulimit -n 64", &NO_LIMITS);
    let warned = server.log().iter().any(|line| line.contains("MAX_CONNECTIONS") && line.contains("open files (64)"));
    assert!(warned, "{:?}", server.log());
    let witness = Witness::of(&server);
    let kept = Client::unobserved(server.address());
    assert_eq!(kept.get("/health").send().status, 200);
    // An answer tells that a connection has been let in; it is not idle afterwards. The last place is `kept`'s.
    let mut attackers: Vec<Wire> = (0..ROOM - 1)
        .map(|_| {
            let mut wire = Wire::open(server.address());
            assert_eq!(wire.send(get("/health") + &refresh("Content-Length: 2", "{")).answer().status, 200);
            wire
        })
        .collect();
    // Those who are connected are served as ever, with all that the store needs.
    for number in 0..10 {
        let ann = kept.sign_up(&format!("ann{number}@example.com"));
        let key = create_key(&kept, &ann);
        assert_eq!(kept.get("/protected/service-only").api_key(&key).send().status, 200);
        assert_eq!(kept.get("/keys").bearer(&ann.access).send().status, 200);
    }
    // Others wait until there is room, or until somebody is idle.
    let mut next = Wire::open(server.address());
    next.send(get("/health"));
    attackers.clear();
    assert_eq!(next.answer().status, 200);
    witness.testify();
    let said = server.stop();
    assert_eq!(said.code, Some(0));
    assert!(!said.stderr.contains("could not be accepted"), "{}", said.stderr);
}

in_both_homes! {
    fn a_server_that_runs_out_of_descriptors_serves_those_who_are_connected_and_comes_back(home) {
        let mut server = home.start(&NO_LIMITS);
        let witness = Witness::of(&server);
        let kept = Client::unobserved(server.address());
        assert_eq!(kept.get("/health").send().status, 200);

        limit_descriptors(&server, Some(witness.next_descriptor()));
        let mut next: Vec<Wire> = (0..10)
            .map(|_| {
                let mut wire = Wire::open(server.address());
                wire.send(get("/health"));
                wire
            })
            .collect();
        server.wait_for_line("a connection could not be accepted");
        for number in 0..5 {
            let asked = Instant::now();
            // It may be that the store needs a descriptor.
            let client = &kept;
            let form = json!({ "email": format!("ann{number}@example.com"), "password": PASSWORD });
            let answers = [
                client.get("/health").send(),
                client.post("/auth/signup").json(form).send(),
                client.get("/keys").bearer(&witness.account.access).send(),
                client.get("/protected/service-only").api_key(&witness.key).send(),
            ];
            for (answer, expected) in answers.iter().zip([200, 201, 200, 200]) {
                assert!(answer.status == expected || answer.status == 503, "{answer:?}");
            }
            assert!(asked.elapsed() < 2 * SLACK, "{:?}", asked.elapsed());
        }

        limit_descriptors(&server, None);
        let back = Instant::now();
        for wire in &mut next {
            assert_eq!(wire.answer().status, 200);
        }
        witness.testify();
        println!("served again after {:?}", back.elapsed());
        let number_of_lines = server.log().len();
        assert!(number_of_lines < 1000, "{number_of_lines} lines");
    }
}
