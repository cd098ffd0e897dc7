//! The addresses that a user has opened sessions from.

use std::net::IpAddr;

use crate::base::network::client_network;

/// Whether one of these is in the same network as this one.
pub(crate) fn is_known_address(addresses: &[String], address: &str) -> bool {
    let network = |address: &str| address.parse::<IpAddr>().ok().map(client_network);
    network(address).is_some_and(|own| addresses.iter().any(|address| network(address) == Some(own)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_of_a_client_are_one() {
        let known = ["192.0.2.1".to_string(), "2001:db8:0:1::1".to_string()];
        for (address, is_known) in [
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("2001:db8:0:1::2", true),
            ("2001:db8:0:2::1", false),
            ("", false),
        ] {
            assert_eq!(is_known_address(&known, address), is_known, "{address}");
        }
        assert!(!is_known_address(&["".to_string()], ""));
    }
}
