//! Where a request comes from: which proxies are believed about it, and what counts as one client.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName};

/// Addresses that share a prefix, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// In bits.
    prefix: u32,
}

impl Network {
    /// Reads CIDR notation; an address alone is a network of one. Bits behind the prefix are passed over.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => longest,
        };
        if prefix > longest {
            return None;
        }
        match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) if prefix >= 96 => {
                Some(Network { address: IpAddr::V4(mapped), prefix: prefix - 96 })
            }
            _ => Some(Network { address, prefix }),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        // Shifted by the whole width, nothing is left to differ.
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).checked_shr(32 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()).checked_shr(128 - self.prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Who is believed about a client's address, and the one header in which he says it.
#[derive(Clone, Debug)]
pub struct Proxies {
    pub trusted: Vec<Network>,
    pub header: HeaderName,
}

impl Proxies {
    /// The client behind the other end of the connection. IPv4 addresses inside IPv6 ones come out as IPv4.
    ///
    /// Each proxy appends whom it has heard from, so the header is read from its end, for as long as whoever wrote an
    /// element is trusted: the first address that is not a proxy's is the client's. What stands before it may be anyone's
    /// invention. An element that is no address ends it as well: the proxy that wrote it counts as the client.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let lines = headers.get_all(&self.header).iter().rev();
        let elements = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        // Empty elements mean nothing (RFC 9110 §5.6.1).
        for element in elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty()) {
            let Some(address) = parse_element(element) else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// `192.0.2.1`, `192.0.2.1:5678`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:443`.
fn parse_element(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?;
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let address = text.parse::<IpAddr>().ok().or_else(in_brackets);
    let address = address.or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|with_port| with_port.ip()));
    address.map(|address| address.to_canonical())
}

/// What is counted as one: an IPv4 address, or the /64 of an IPv6 address, of which one customer has at least one.
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(trusted: &str, peer: &str, lines: &[&str]) -> String {
        let trusted = trusted.split(',').map(|network| Network::parse(network).unwrap()).collect();
        let proxies = Proxies { trusted, header: HeaderName::from_static("x-forwarded-for") };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers.append("x-real-ip", HeaderValue::from_static("192.0.2.99"));
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn networks_are_read_in_cidr_notation() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3/8", "10.0.0.1", "9.0.0.0"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("::/0", "2001::", "1.2.3.4"),
        ] {
            let network = Network::parse(text).unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{text}");
            assert!(!network.contains(outside.parse().unwrap()), "{text}");
        }
        for text in
            ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/-1", "10.0/8", "proxy", "1.2.3.4:80"]
        {
            assert_eq!(Network::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn nobody_is_believed_but_a_trusted_proxy() {
        assert_eq!(client("127.0.0.0/8", "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("127.0.0.0/8", "127.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("127.0.0.0/8", "::ffff:127.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("127.0.0.0/8", "127.0.0.1", &[]), "127.0.0.1");
    }

    #[test]
    fn the_header_is_read_from_the_right_up_to_the_first_address_that_is_no_proxys() {
        let behind = |lines: &[&str]| client("127.0.0.1,10.0.0.0/8,2001:db8::/32", "127.0.0.1", lines);
        assert_eq!(behind(&["1.1.1.1, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        // Lines are one list, in their order.
        assert_eq!(behind(&["1.1.1.1", "198.51.100.7, 10.0.0.2", "10.0.0.3"]), "198.51.100.7");
        assert_eq!(behind(&["198.51.100.7, 2001:db8::5"]), "198.51.100.7");
        assert_eq!(behind(&["10.0.0.9, 10.0.0.2"]), "10.0.0.9");
        assert_eq!(behind(&[" , 198.51.100.7 ,, 10.0.0.2,"]), "198.51.100.7");
    }

    #[test]
    fn what_is_no_address_ends_the_walk_at_the_proxy_that_wrote_it() {
        let behind = |line: &str| client("127.0.0.1,10.0.0.0/8", "127.0.0.1", &[line]);
        assert_eq!(behind("198.51.100.7, unknown, 10.0.0.2"), "10.0.0.2");
        for line in ["unknown", "198.51.100.7;", "1.2.3", "[::1", "::1]", "1.2.3.4:99999", "198.51.100.7 10.0.0.2", "é"]
        {
            assert_eq!(behind(line), "127.0.0.1", "{line}");
        }
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        let behind = |line: &str| client("127.0.0.1", "127.0.0.1", &[line]);
        for (line, expected) in [
            ("198.51.100.7:5678", "198.51.100.7"),
            ("[2001:DB8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8:0::1", "2001:db8::1"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("[::ffff:198.51.100.7]:1", "198.51.100.7"),
        ] {
            assert_eq!(behind(line), expected, "{line}");
        }
    }

    #[test]
    fn a_head_full_of_proxies_is_read_to_its_end() {
        let line = format!("198.51.100.7{}", ",127.0.0.1".repeat(1600));
        assert_eq!(client("127.0.0.0/8", "127.0.0.1", &[&line]), "198.51.100.7");
    }

    #[test]
    fn an_ipv6_client_is_counted_by_its_64_first_bits() {
        let counted = |text: &str| neighbourhood(text.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("198.51.100.7"), "198.51.100.7");
        assert_eq!(counted("::ffff:198.51.100.7"), "198.51.100.7");
    }
}
