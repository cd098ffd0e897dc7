//! PostgreSQL as it is when a machine or a switch hangs: it takes connections and bytes, and says nothing. All is well
//! within two seconds where there is somebody else to ask, and without a restart.

use std::time::{Duration, Instant};

use keyward_harness::http_client::Client;
use keyward_harness::postgres_cluster::available;
use rustix::process::{Pid, Signal, kill_process};

use crate::load::SOON;
use crate::postgres::{REFUSED, home_at, under_load};
use crate::postgres_pair::{Node, Pair};
use crate::target::{NO_LIMITS, Witness, create_key};

/// Processes that stand still until this is dropped.
struct Frozen(Vec<Pid>);

impl Frozen {
    /// Those of the server's processes for Keyward's connections that `which` leaves of them.
    fn those(node: &Node, which: &str) -> Frozen {
        let select = format!("SELECT pid FROM pg_stat_activity WHERE application_name = 'keyward' {which}");
        let rows = node.client().query(&select, &[]).unwrap();
        assert!(!rows.is_empty(), "{select}");
        let frozen = Frozen(rows.iter().map(|row| Pid::from_raw(row.get(0)).unwrap()).collect());
        frozen.signal(Signal::STOP);
        frozen
    }

    fn signal(&self, signal: Signal) {
        for pid in &self.0 {
            // It may have ended.
            let _ = kill_process(*pid, signal);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
    }
}

/// That on which an instance is told of changes.
const LISTENS: &str = "(query LIKE 'LISTEN%' OR query LIKE '%NOTIFY keyward_listener%')";

#[test]
fn when_one_process_of_postgresql_hangs_keys_that_are_not_remembered_are_verified_all_the_same() {
    if !available() {
        return;
    }
    let pair = Pair::single();
    let home = home_at(&pair.primary.url(pair.primary.port));
    let server = home.start(&NO_LIMITS);
    let witness = Witness::of(&server);
    let client = Client::unobserved(witness.address);
    let keys: Vec<String> = (0..8).map(|_| create_key(&client, &witness.account)).collect();
    // The one that was used last is the next one to be used.
    let _frozen = Frozen::those(&pair.primary, &format!("AND NOT {LISTENS} ORDER BY state_change DESC LIMIT 1"));
    let frozen = Instant::now();
    for key in keys {
        let asked = Instant::now();
        let answer = client.get("/protected/service-only").api_key(&key).send();
        println!("{} after {:?}", answer.status, asked.elapsed());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    witness.is_served();
    assert!(frozen.elapsed() < 2 * SOON, "{:?}", frozen.elapsed());
}

#[test]
fn when_all_open_connections_hang_for_good_clients_are_served_soon_on_new_ones() {
    if !available() {
        return;
    }
    let pair = Pair::single();
    under_load(&pair.primary.url(pair.primary.port), |load| {
        let _frozen = Frozen::those(&pair.primary, "");
        load.is_good_soon_after(Instant::now());
    });
}

#[test]
fn when_the_first_of_two_hosts_hangs_clients_are_served_soon_by_the_other() {
    if !available() {
        return;
    }
    let mut pair = Pair::replicated();
    let standby = pair.standby.take().unwrap();
    let both = format!("127.0.0.1:{},127.0.0.1:{}", pair.primary.port, standby.port);
    let url = pair.primary.url(pair.primary.port).replace(&pair.primary.address().to_string(), &both);
    under_load(&url, |load| {
        pair.primary.hang();
        load.wait_for_refused(REFUSED);
        standby.promote();
        load.is_good_soon_after(Instant::now());
    });
    // Nor does it keep anybody from starting.
    let home = home_at(&url);
    let started = Instant::now();
    let server = home.start(&NO_LIMITS);
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    server.stop();
    pair.primary.resume();
}

#[test]
fn when_the_process_that_tells_of_changes_hangs_it_is_noticed_and_replaced() {
    if !available() {
        return;
    }
    let pair = Pair::single();
    let home = home_at(&pair.primary.url(pair.primary.port));
    let mut server = home.start(&NO_LIMITS);
    let witness = Witness::of(&server);
    let _frozen = Frozen::those(&pair.primary, &format!("AND {LISTENS}"));
    let frozen = Instant::now();
    server.wait_for_line("changes made elsewhere take up to 5 s to be seen");
    server.wait_for_line("changes made elsewhere are seen at once again");
    let silence = frozen.elapsed();
    println!("changes were seen at once again {silence:?} after the process was frozen");
    assert!(silence < 2 * SOON, "{silence:?}");
    // What another process changes takes effect long before it is forgotten.
    let client = server.client();
    assert_eq!(client.get("/auth/me").bearer(&witness.account.access).send().status, 200);
    home.run(&["user", "deactivate", "witness@example.com"]).succeeded();
    let verified = client.get("/protected/service-only").api_key(&witness.key).send();
    assert_eq!((verified.status, client.get("/auth/me").bearer(&witness.account.access).send().status), (401, 401));
}
