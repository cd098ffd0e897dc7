//! To which IP addresses deliveries may go.
//!
//! Users name endpoints, and Keyward calls them from inside the operator's network. So users' endpoints must be where
//! everyone can reach them, or in a network that the operator has named. Operators' endpoints may be nearly anywhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::base::network::Network;

/// What has a meaning of its own in IPv4: first address, length of the prefix, and whether it is globally reachable.
/// From IANA's IPv4 Special-Purpose Address Registry. Of several that hold an address, the longest counts.
const SPECIAL_V4: &[(Ipv4Addr, u32, bool)] = &[
    (v4(0, 0, 0, 0), 8, false),          // "This network" [RFC791, section 3.2]
    (v4(0, 0, 0, 0), 32, false),         // "This host on this network" [RFC1122, section 3.2.1.3]
    (v4(10, 0, 0, 0), 8, false),         // Private-Use [RFC1918]
    (v4(100, 64, 0, 0), 10, false),      // Shared Address Space [RFC6598]
    (v4(127, 0, 0, 0), 8, false),        // Loopback [RFC1122, section 3.2.1.3]
    (v4(169, 254, 0, 0), 16, false),     // Link Local [RFC3927]
    (v4(172, 16, 0, 0), 12, false),      // Private-Use [RFC1918]
    (v4(192, 0, 0, 0), 24, false),       // IETF Protocol Assignments [RFC6890, section 2.1]
    (v4(192, 0, 0, 0), 29, false),       // IPv4 Service Continuity Prefix [RFC7335]
    (v4(192, 0, 0, 8), 32, false),       // IPv4 dummy address [RFC7600]
    (v4(192, 0, 0, 9), 32, true),        // Port Control Protocol Anycast [RFC7723]
    (v4(192, 0, 0, 10), 32, true),       // Traversal Using Relays around NAT Anycast [RFC8155]
    (v4(192, 0, 0, 170), 31, false),     // NAT64/DNS64 Discovery [RFC8880, RFC7050, section 2.2]
    (v4(192, 0, 2, 0), 24, false),       // Documentation (TEST-NET-1) [RFC5737]
    (v4(192, 31, 196, 0), 24, true),     // AS112-v4 [RFC7535]
    (v4(192, 52, 193, 0), 24, true),     // AMT [RFC7450]
    (v4(192, 88, 99, 0), 24, false),     // Deprecated (6to4 Relay Anycast) [RFC7526]
    (v4(192, 88, 99, 2), 32, false),     // 6a44-relay anycast address [RFC6751]
    (v4(192, 168, 0, 0), 16, false),     // Private-Use [RFC1918]
    (v4(192, 175, 48, 0), 24, true),     // Direct Delegation AS112 Service [RFC7534]
    (v4(198, 18, 0, 0), 15, false),      // Benchmarking [RFC2544]
    (v4(198, 51, 100, 0), 24, false),    // Documentation (TEST-NET-2) [RFC5737]
    (v4(203, 0, 113, 0), 24, false),     // Documentation (TEST-NET-3) [RFC5737]
    (v4(224, 0, 0, 0), 4, false),        // Multicast, not in that registry [RFC5771]
    (v4(240, 0, 0, 0), 4, false),        // Reserved [RFC1112, section 4]
    (v4(255, 255, 255, 255), 32, false), // Limited Broadcast [RFC8190, RFC919, section 7]
];

/// The same for IPv6, from IANA's IPv6 Special-Purpose Address Registry. Those that hold an IPv4 address are in [`EMBEDDING`].
/// Of the rest, only 2000::/3 has addresses that are globally reachable.
const SPECIAL_V6: &[(Ipv6Addr, u32, bool)] = &[
    (v6([0x2000, 0, 0, 0, 0, 0, 0, 0]), 3, true),   // Global Unicast [RFC4291]
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0]), 23, false), // IETF Protocol Assignments [RFC2928]
    (v6([0x2001, 1, 0, 0, 0, 0, 0, 1]), 128, true), // Port Control Protocol Anycast [RFC7723]
    (v6([0x2001, 1, 0, 0, 0, 0, 0, 2]), 128, true), // Traversal Using Relays around NAT Anycast [RFC8155]
    (v6([0x2001, 1, 0, 0, 0, 0, 0, 3]), 128, true), // DNS-SD Service Registration Protocol Anycast [RFC9665]
    (v6([0x2001, 2, 0, 0, 0, 0, 0, 0]), 48, false), // Benchmarking [RFC5180, RFC Errata 1752]
    (v6([0x2001, 3, 0, 0, 0, 0, 0, 0]), 32, true),  // AMT [RFC7450]
    (v6([0x2001, 4, 0x112, 0, 0, 0, 0, 0]), 48, true), // AS112-v6 [RFC7535]
    (v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0]), 28, false), // Deprecated (previously ORCHID) [RFC4843]
    (v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0]), 28, true), // ORCHIDv2 [RFC7343]
    (v6([0x2001, 0x30, 0, 0, 0, 0, 0, 0]), 28, true), // Drone Remote ID Protocol Entity Tags [RFC9374]
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0]), 32, false), // Documentation [RFC3849]
    (v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0]), 48, true), // Direct Delegation AS112 Service [RFC7534]
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0]), 20, false), // Documentation [RFC9637]
];

/// IPv6 addresses that hold an IPv4 address, at which a packet to them may come out: the prefix, and at which bits the IPv4
/// address begins.
const EMBEDDING: &[(Ipv6Addr, u32, u32)] = &[
    (v6([0, 0, 0, 0, 0, 0, 0, 0]), 96, 96), // IPv4-Compatible [RFC4291, section 2.5.5.1]
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0]), 96, 96), // IPv4-mapped Address [RFC4291]
    (v6([0, 0, 0, 0, 0xffff, 0, 0, 0]), 96, 96), // IPv4-translated [RFC2765]
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0]), 96, 96), // IPv4-IPv6 Translation [RFC6052]
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0]), 16, 16), // 6to4 [RFC3056]
];

/// Teredo [RFC4380]: after the prefix the server's IPv4 address, and in the last bits, inverted, the client's.
const TEREDO: (Ipv6Addr, u32) = (v6([0x2001, 0, 0, 0, 0, 0, 0, 0]), 32);

/// IPv4-IPv6 Translation [RFC8215]: not globally reachable. It holds an IPv4 address, but where is each network's own
/// choice, so it cannot be judged as that.
const LOCAL_TRANSLATION: (Ipv6Addr, u32) = (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0]), 48);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

const fn v6(groups: [u16; 8]) -> Ipv6Addr {
    let [a, b, c, d, e, f, g, h] = groups;
    Ipv6Addr::new(a, b, c, d, e, f, g, h)
}

/// Where the deliveries to an endpoint may go.
#[derive(Clone, Debug)]
pub enum Reach {
    /// To globally reachable addresses, and into the networks that the operator has named.
    User {
        networks: Vec<Network>,
    },
    Operator,
}

impl Reach {
    pub fn allows(&self, address: IpAddr) -> bool {
        let allows = |address: &IpAddr| match self {
            Reach::User { networks } => is_global(*address) || networks.iter().any(|named| named.contains(*address)),
            Reach::Operator => true,
        };
        judged_as(address).iter().all(|address| is_of_a_server(*address) && allows(address))
    }

    /// Whether the operator has named a network that it is in.
    pub fn names(&self, address: IpAddr) -> bool {
        let Reach::User { networks } = self else { return false };
        judged_as(address).iter().all(|address| networks.iter().any(|named| named.contains(*address)))
    }
}

/// Not one of the link, where clouds tell each machine its secrets (169.254.169.254), nor one of nobody or of many.
fn is_of_a_server(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || v4.octets().starts_with(&[0]))
        }
        IpAddr::V6(v6) if begins(v6, LOCAL_TRANSLATION) => {
            locally_translated(v6).into_iter().all(|inner| !inner.is_link_local())
        }
        IpAddr::V6(v6) => !(v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified()),
    }
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let holding = SPECIAL_V4.iter().filter(|(first, prefix, _)| {
                (first.to_bits() ^ v4.to_bits()).checked_shr(32 - prefix).unwrap_or(0) == 0
            });
            holding.max_by_key(|(_, prefix, _)| prefix).is_none_or(|(_, _, is_global)| *is_global)
        }
        IpAddr::V6(v6) => {
            let holding = SPECIAL_V6.iter().filter(|(first, prefix, _)| begins(v6, (*first, *prefix)));
            holding.max_by_key(|(_, prefix, _)| prefix).is_some_and(|(_, _, is_global)| *is_global)
        }
    }
}

/// The IPv4 addresses in an IPv6 address, if it holds some; otherwise the address itself.
fn judged_as(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(v6) = address else { return vec![address] };
    // The unspecified address and loopback begin like IPv4-compatible ones.
    if v6.is_unspecified() || v6.is_loopback() {
        return vec![address];
    }
    if begins(v6, TEREDO) {
        let (server, client) = (bits(v6, 32, 32), !bits(v6, 96, 32));
        return vec![Ipv4Addr::from_bits(server).into(), Ipv4Addr::from_bits(client).into()];
    }
    match EMBEDDING.iter().find(|(first, prefix, _)| begins(v6, (*first, *prefix))) {
        Some((_, _, at)) => vec![Ipv4Addr::from_bits(bits(v6, *at, 32)).into()],
        None => vec![address],
    }
}

/// What an address of [`LOCAL_TRANSLATION`] may mean, for each length of the network's prefix (RFC 6052 §2.2): 48, 56, 64
/// and 96 bits. The first three leave out the bits 64 to 71.
fn locally_translated(address: Ipv6Addr) -> [Ipv4Addr; 4] {
    let parts = |first: u32, in_first: u32| {
        let rest = bits(address, 72, 32 - in_first);
        // All 32 bits are after the gap: nothing of the first part remains.
        Ipv4Addr::from_bits(bits(address, first, in_first).checked_shl(32 - in_first).unwrap_or(0) | rest)
    };
    [parts(48, 16), parts(56, 8), parts(64, 0), Ipv4Addr::from_bits(bits(address, 96, 32))]
}

fn begins(address: Ipv6Addr, (first, prefix): (Ipv6Addr, u32)) -> bool {
    (first.to_bits() ^ address.to_bits()).checked_shr(128 - prefix).unwrap_or(0) == 0
}

/// `count` bits of an address, at most 32, counted from the left.
fn bits(address: Ipv6Addr, from: u32, count: u32) -> u32 {
    let right = address.to_bits() >> (128 - from - count);
    (right & ((1_u128 << count) - 1)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(networks: &[&str]) -> Reach {
        Reach::User { networks: networks.iter().map(|network| Network::parse(network).unwrap()).collect() }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn users_reach_what_is_globally_reachable() {
        for global in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.0.9",
            "192.0.0.10",
            "192.0.1.0",
            "192.31.196.1",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:1::1",
            "2001:200::1",
            "2001:4:112::1",
            "2001:20::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2620:4f:8000::1",
            "3ffe:ffff::1",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(user(&[]).allows(address(global)), "{global}");
            assert!(Reach::Operator.allows(address(global)), "{global}");
        }
    }

    #[test]
    fn users_reach_nothing_of_the_machine_its_networks_and_what_is_reserved() {
        for inner in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.0",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.8",
            "192.0.0.11",
            "192.0.0.170",
            "192.0.0.171",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            assert!(!user(&[]).allows(address(inner)), "{inner}");
            let IpAddr::V4(inner) = address(inner) else { panic!() };
            for outer in embedding(inner) {
                assert!(!user(&[]).allows(outer.into()), "{outer} with {inner}");
            }
        }
        for inner in [
            "::",
            "::1",
            "::2",
            "64:ff9b:1::8.8.8.8",
            "64:ff9b:1:808:8:800::",
            "100::1",
            "100:0:0:1::1",
            "200::1",
            "1fff::1",
            "2001:1::4",
            "2001:2::1",
            "2001:5::1",
            "2001:10::1",
            "2001:db8::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!user(&[]).allows(address(inner)), "{inner}");
        }
    }

    #[test]
    fn users_reach_the_networks_that_the_operator_has_named_but_nothing_of_the_link() {
        let reach = user(&["10.1.0.0/16", "fd00::/8", "169.254.0.0/16", "fe80::/10", "64:ff9b:1::/48", "0.0.0.0/8"]);
        for (text, allowed) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("64:ff9b::10.1.2.3", true),
            ("2002:a01:203::1", true),
            ("10.2.0.1", false),
            ("::ffff:10.2.0.1", false),
            ("fd00::1", true),
            ("fc00::1", false),
            ("64:ff9b:1::10.9.9.9", true),
            ("64:ff9b:1::169.254.169.254", false),
            ("64:ff9b:1:a9fe:a9:fe00::", false),
            ("64:ff9b:1:a9:fe:a9fe::", false),
            ("64:ff9b:1:0:a9:fea9:fe00::", false),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(reach.allows(address(text)), allowed, "{text}");
            assert!(!allowed || reach.names(address(text)), "{text}");
        }
        assert!(reach.allows(address("8.8.8.8")) && !reach.names(address("8.8.8.8")));
    }

    #[test]
    fn operators_reach_all_but_the_link_nobody_and_many() {
        for (text, allowed) in [
            ("127.0.0.1", true),
            ("10.0.0.1", true),
            ("192.168.1.1", true),
            ("100.64.0.1", true),
            ("::1", true),
            ("fd00::1", true),
            ("::ffff:127.0.0.1", true),
            ("2001:db8::1", true),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("64:ff9b::169.254.169.254", false),
            ("2002:a9fe:a9fe::1", false),
            ("fe80::1", false),
            ("febf::1", false),
            ("0.0.0.0", false),
            ("::", false),
            ("::ffff:0.0.0.0", false),
            ("255.255.255.255", false),
            ("224.0.0.1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(Reach::Operator.allows(address(text)), allowed, "{text}");
        }
    }

    /// The IPv6 addresses that hold this IPv4 address.
    fn embedding(inner: Ipv4Addr) -> Vec<Ipv6Addr> {
        let [a, b, c, d] = inner.octets();
        let teredo = |server: Ipv4Addr, client: Ipv4Addr| {
            Ipv6Addr::from_bits(0x2001_0000 << 96 | u128::from(server.to_bits()) << 64 | u128::from(!client.to_bits()))
        };
        let public = Ipv4Addr::new(8, 8, 8, 8);
        let mut outer = vec![
            format!("::ffff:{inner}").parse().unwrap(),
            format!("::ffff:0:{inner}").parse().unwrap(),
            format!("64:ff9b::{inner}").parse().unwrap(),
            format!("2002:{a:x}{b:02x}:{c:x}{d:02x}::1").parse().unwrap(),
            teredo(inner, public),
            teredo(public, inner),
        ];
        // ::0.0.0.1 is loopback itself, which is refused as that.
        outer.push(format!("::{inner}").parse().unwrap());
        outer
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_judged_alike_wherever_it_is_written(bits in any::<u32>()) {
            let inner = Ipv4Addr::from_bits(bits);
            for reach in [user(&[]), user(&["10.0.0.0/8", "0.0.0.0/1"]), Reach::Operator] {
                // 0.0.0.0/8 holds the two that are no IPv4 address: :: and ::1.
                for outer in embedding(inner).into_iter().filter(|_| bits > 1) {
                    prop_assert_eq!(reach.allows(outer.into()), reach.allows(inner.into()) , "{} in {}", inner, outer);
                }
            }
        }

        #[test]
        fn what_users_reach_operators_reach_and_a_named_network_only_adds(bits in any::<u128>(), short in any::<u32>()) {
            for address in [IpAddr::from(Ipv6Addr::from_bits(bits)), Ipv4Addr::from_bits(short).into()] {
                if user(&[]).allows(address) {
                    prop_assert!(Reach::Operator.allows(address));
                    prop_assert!(user(&["10.0.0.0/8"]).allows(address));
                }
                prop_assert_eq!(user(&["0.0.0.0/0", "::/0"]).allows(address), Reach::Operator.allows(address));
            }
        }
    }
}
