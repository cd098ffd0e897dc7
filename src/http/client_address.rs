//! The address of a request's client, behind proxies that are trusted.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName};

use crate::base::network::Network;

/// The proxies that are trusted about a client's address, and the one header in which they report it.
#[derive(Clone, Debug)]
pub struct Proxies {
    pub trusted: Vec<Network>,
    pub header: HeaderName,
}

impl Default for Proxies {
    fn default() -> Proxies {
        Proxies { trusted: Vec::new(), header: HeaderName::from_static("x-forwarded-for") }
    }
}

impl Proxies {
    /// The client behind the other end of the connection. IPv4 addresses inside IPv6 ones come out as IPv4.
    ///
    /// Each proxy appends the address that it saw, so the header is read from its end as long as the elements are
    /// written by trusted proxies: the first address that does not belong to a proxy is the client's. Everything before
    /// it could be invented. An element that is no address ends the walk too: then the proxy that wrote it counts as
    /// the client.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let lines = headers.get_all(&self.header).iter().rev();
        let elements = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        // Empty elements are ignored (RFC 9110 §5.6.1).
        for element in elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty()) {
            let Some(address) = parse_element(element) else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
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
}
