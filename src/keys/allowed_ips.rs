//! The addresses from which a key may be used.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use crate::base::network::Network;

/// The most addresses and networks of a key.
const MOST: usize = 50;

/// Addresses and networks, one at least, in the order in which they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedIps(Box<[Network]>);

impl AllowedIps {
    /// The error is the rule that is broken; it follows the field's name.
    pub fn parse(texts: &[&str]) -> Result<AllowedIps, &'static str> {
        if !(1..=MOST).contains(&texts.len()) {
            return Err("must hold 1 to 50 addresses or networks, or be null for any address");
        }
        let networks: Option<Box<[Network]>> = texts.iter().map(|text| Network::parse(text)).collect();
        networks.map(AllowedIps).ok_or("must hold IP addresses and networks, such as 192.0.2.7 or 2001:db8::/32")
    }

    /// As it was written by `to_string`. `None`: it was not.
    pub fn from_stored(text: &str) -> Option<AllowedIps> {
        AllowedIps::parse(&text.split(' ').collect::<Vec<_>>()).ok()
    }

    /// Whether a client at this address may use the key.
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }

    /// How many bytes it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// Separated by spaces.
impl fmt::Display for AllowedIps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            write!(f, "{}{network}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl Serialize for AllowedIps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Network::to_string))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written() {
        let texts = ["192.0.2.7", "10.0.0.0/8", "2001:db8::/32", "::1"];
        let allowed = AllowedIps::parse(&texts).unwrap();
        assert_eq!(allowed.to_string(), texts.join(" "));
        assert_eq!(AllowedIps::from_stored(&allowed.to_string()), Some(allowed));
    }

    #[test]
    fn there_are_one_to_fifty_and_all_are_networks() {
        assert!(AllowedIps::parse(&["10.0.0.1"; 50]).is_ok());
        assert!(AllowedIps::parse(&["10.0.0.1"; 51]).is_err());
        assert!(AllowedIps::parse(&[]).is_err());
        assert!(AllowedIps::parse(&["10.0.0.1", "somewhere"]).is_err());
        assert_eq!(AllowedIps::from_stored(""), None);
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        let allowed = AllowedIps::parse(&["10.0.0.0/8"]).unwrap();
        for (address, admitted) in [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("11.0.0.1", false), ("::1", false)]
        {
            assert_eq!(allowed.contain(address.parse().unwrap()), admitted, "{address}");
        }
    }
}
