//! What an endpoint's URL names: scheme, host and port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;

use crate::webhooks::addresses::Reach;

/// RFC 1035 §2.3.4, in the usual notation.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// Read with the parser that also sends, so that both always mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub host: Host,
    pub port: u16,
    pub is_https: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Address(IpAddr),
    /// To be resolved.
    Name(String),
}

impl Origin {
    /// The error is the rule that is broken; it follows the field's name.
    pub fn parse(url: &str) -> Result<Origin, &'static str> {
        Origin::of(&url.parse().map_err(|_| "must be a URL")?)
    }

    /// The same of a URL that is read already.
    pub fn of(url: &Uri) -> Result<Origin, &'static str> {
        let is_https = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("must be an http or https URL"),
        };
        let authority = url.authority().ok_or("must have a host")?;
        let host = Host::parse(authority.host())?;
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Ok(Origin { host, port, is_https })
    }

    /// What is known before a name is resolved. The error is as for [`Origin::parse`].
    pub fn judge(&self, reach: &Reach) -> Result<(), &'static str> {
        const USUAL: &str = "must be https on port 443";
        match (&self.host, reach) {
            (Host::Address(address), Reach::User { .. }) if !reach.allows(*address) => {
                Err("must not be at an address that is not globally reachable")
            }
            (Host::Address(address), Reach::Operator) if !reach.allows(*address) => {
                Err("must not be at a link-local, unspecified, multicast or broadcast address")
            }
            (Host::Address(address), _) if !self.allows(*address, reach) => Err(USUAL),
            (Host::Name(_), Reach::User { networks }) if networks.is_empty() && !self.is_usual() => Err(USUAL),
            _ => Ok(()),
        }
    }

    /// Whether it may be at this address. A user's endpoint is served by https on port 443, so that nobody uses
    /// Keyward to speak to other services; in networks that the operator has named, by any.
    pub fn allows(&self, address: IpAddr, reach: &Reach) -> bool {
        let serves = self.is_usual() || matches!(reach, Reach::Operator) || reach.names(address);
        serves && reach.allows(address)
    }

    fn is_usual(&self) -> bool {
        self.is_https && self.port == 443
    }
}

impl Host {
    /// Resolvers also read 127.1, 0x7f000001 and 017700000001 as addresses (`inet_aton`), each a little differently, so
    /// what is neither a plain address nor a plain name is refused.
    fn parse(host: &str) -> Result<Host, &'static str> {
        const RULE: &str = "must have as host a name in ASCII, an IPv4 address of four decimal numbers or an IPv6 address \
                            in brackets";
        if let Some(inside) = host.strip_prefix('[') {
            let address = inside.strip_suffix(']').and_then(|inside| inside.parse::<Ipv6Addr>().ok());
            return address.map(|address| Host::Address(address.into())).ok_or(RULE);
        }
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Ok(Host::Address(address.into()));
        }
        let is_label = |label: &str| {
            (1..=LONGEST_LABEL).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let is_number = |label: &str| {
            let hex = label.strip_prefix("0x").or(label.strip_prefix("0X"));
            hex.map_or(label.bytes().all(|b| b.is_ascii_digit()), |digits| {
                digits.bytes().all(|b| b.is_ascii_hexdigit())
            })
        };
        let is_name = host.len() <= LONGEST_NAME && host.split('.').all(is_label);
        // A name whose last part is a number is meant as an address (the URL standard says the same).
        if !is_name || host.rsplit('.').next().is_none_or(is_number) {
            return Err(RULE);
        }
        Ok(Host::Name(host.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::network::Network;

    fn user(networks: &[&str]) -> Reach {
        Reach::User { networks: networks.iter().map(|network| Network::parse(network).unwrap()).collect() }
    }

    fn judged(url: &str, reach: &Reach) -> Result<Origin, &'static str> {
        let origin = Origin::of(&url.parse().map_err(|_| "not parsed")?)?;
        origin.judge(reach).map(|()| origin)
    }

    #[test]
    fn a_host_is_a_plain_name_or_a_plain_address() {
        for (url, host, port) in [
            ("https://a.example", Host::Name("a.example".into()), 443),
            ("http://A.Example:8080/x?y", Host::Name("a.example".into()), 8080),
            ("https://xn--bcher-kva.example/", Host::Name("xn--bcher-kva.example".into()), 443),
            ("http://my_service", Host::Name("my_service".into()), 80),
            ("https://1.2.3.4.example", Host::Name("1.2.3.4.example".into()), 443),
            ("https://0x.example", Host::Name("0x.example".into()), 443),
            ("https://8.8.8.8", Host::Address([8, 8, 8, 8].into()), 443),
            ("https://[2001:db8::1]:1/", Host::Address("2001:db8::1".parse().unwrap()), 1),
            ("https://[::ffff:8.8.8.8]/", Host::Address("::ffff:8.8.8.8".parse().unwrap()), 443),
        ] {
            let is_https = url.starts_with("https");
            assert_eq!(judged(url, &Reach::Operator), Ok(Origin { host, port, is_https }), "{url}");
        }
        for odd in [
            "https://2130706433",
            "https://0x7f000001",
            "https://0X7F.1",
            "https://017700000001",
            "https://127.1",
            "https://127.0.1",
            "https://0177.0.0.1",
            "https://127.0.0.01",
            "https://127.0.0.1.",
            "https://127.0.0.256",
            "https://1.2.3.4.5",
            "https://a.0x7f",
            "https://a.0x",
            "https://example.1",
            "https://[fe80::1%25eth0]",
            "https://[::1",
            "https://[127.0.0.1]",
            "https://::1/",
            "https://%31%32%37.0.0.1",
            "https://127。0。0。1",
            "https://１２７.0.0.1",
            "https://bücher.example",
            "https://a.example.",
            "https://a..example",
            "https://.example",
            "https://a.example\\@b.example",
            "https://a b.example",
            "https://a.example;b",
            "https://a*.example",
            "ftp://a.example",
            "a.example",
            "/x",
        ] {
            assert!(judged(odd, &Reach::Operator).is_err(), "{odd}");
        }
        let label = "a".repeat(64);
        assert!(judged(&format!("https://{label}.example"), &Reach::Operator).is_err());
        assert!(judged(&format!("https://{}", "a.".repeat(127) + "a"), &Reach::Operator).is_err());
    }

    #[test]
    fn users_name_https_on_443_and_only_in_named_networks_another() {
        for (url, without, with) in [
            ("https://a.example", true, true),
            ("https://a.example:443", true, true),
            ("https://a.example:8443", false, true),
            ("http://a.example", false, true),
            ("http://a.example:443", false, true),
            ("https://8.8.8.8", true, true),
            ("https://8.8.8.8:8443", false, false),
            ("http://8.8.8.8", false, false),
            ("https://10.1.0.1", false, true),
            ("http://10.1.0.1:8080", false, true),
            ("http://[::ffff:10.1.0.1]", false, true),
            ("https://10.2.0.1", false, false),
            ("https://[::1]", false, false),
            ("https://169.254.169.254", false, false),
        ] {
            assert_eq!(judged(url, &user(&[])).is_ok(), without, "{url}");
            assert_eq!(judged(url, &user(&["10.1.0.0/16"])).is_ok(), with, "{url}");
        }
        // What a name leads to is judged alike.
        let origin = judged("http://a.example:8080", &user(&["10.1.0.0/16"])).unwrap();
        for (address, allowed) in [("10.1.0.1", true), ("8.8.8.8", false), ("10.2.0.1", false)] {
            assert_eq!(origin.allows(address.parse().unwrap(), &user(&["10.1.0.0/16"])), allowed, "{address}");
        }
    }

    #[test]
    fn operators_name_any_scheme_and_port_but_not_the_link() {
        for (url, allowed) in [
            ("http://127.0.0.1:8080", true),
            ("http://localhost", true),
            ("http://[::1]:1", true),
            ("http://169.254.169.254", false),
            ("http://[fe80::1]", false),
            ("http://[::ffff:169.254.169.254]", false),
            ("http://0.0.0.0", false),
        ] {
            assert_eq!(judged(url, &Reach::Operator).is_ok(), allowed, "{url}");
        }
    }
}
