//! Addresses that want all connections for themselves.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use keyward_harness::http_client::read_answer;
use keyward_harness::program::Home;
use keyward_harness::service::Backend;
use keyward_harness::wire::{Wire, get};

use crate::target::{NO_LIMITS, Witness};

const PLACES: usize = 100;
/// How soon a newcomer is served, on a machine that is busy as well.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Opens connections from there and asks something on each; those that were served.
fn keep(host: u8, count: usize, address: SocketAddr) -> Vec<Wire> {
    let open = |_| {
        let mut wire = Wire::open_from(Ipv4Addr::new(127, 0, 0, host), address);
        is_served(&mut wire).then_some(wire)
    };
    (0..count).filter_map(open).collect()
}

fn is_served(wire: &mut Wire) -> bool {
    let _ = wire.try_send(get("/health"));
    read_answer(&mut wire.0, false).is_ok_and(|answer| answer.status == 200)
}

#[test]
fn an_address_that_keeps_all_the_connections_that_it_can_get_keeps_nobody_out() {
    let home = Home::fresh(Backend::Sqlite);
    let places = PLACES.to_string();
    let settings =
        [NO_LIMITS.as_slice(), &[("MAX_CONNECTIONS", places.as_str()), ("TRUSTED_PROXIES", "none")]].concat();
    let server = home.start(&settings);
    let witness = Witness::of(&server);

    // One address, and it stays as lively as it can.
    let mut kept = keep(2, PLACES, server.address());
    for _ in 0..5 {
        kept.retain_mut(is_served);
        let asked = Instant::now();
        witness.is_served();
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    }
    assert_eq!(kept.len(), PLACES / 4);

    // As many addresses as it takes.
    let crowd: Vec<Wire> = (3..8).flat_map(|host| keep(host, PLACES / 4, server.address())).collect();
    assert_eq!(crowd.len(), 5 * PLACES / 4);
    for _ in 0..5 {
        let asked = Instant::now();
        witness.is_served();
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    }
    witness.testify();
    let said = server.stop();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}
