//! Whose request it is: the first line has the trusted networks, the second the peer, the others are the header's.
#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue};
use keyward::base::network::{Network, client_network};
use keyward::http::client_address::Proxies;
use libfuzzer_sys::fuzz_target;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|b| *b == b'\n');
    let text = |line: Option<&[u8]>| String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
    let (networks, peer) = (text(lines.next()), text(lines.next()));
    let mut trusted = Vec::new();
    let mut expected = Vec::new();
    for network in networks.split(',') {
        let (read, model) = (Network::parse(network), model_network(network));
        assert_eq!(read.is_some(), model.is_some(), "{network:?}");
        trusted.extend(read);
        expected.extend(model);
    }
    let Ok(peer) = peer.parse::<IpAddr>() else { return };
    let lines: Vec<HeaderValue> = lines.filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let mut headers = HeaderMap::new();
    for line in &lines {
        headers.append(X_FORWARDED_FOR, line.clone());
    }
    let client = Proxies { trusted, header: X_FORWARDED_FOR }.client(peer, &headers);
    let lines: Vec<&[u8]> = lines.iter().map(HeaderValue::as_bytes).collect();
    let believed = |address: IpAddr| expected.iter().any(|network| is_within(network, address));
    assert_eq!(client, model_client(believed, peer, &lines), "{}", data.escape_ascii());
    assert_eq!(client, client.to_canonical());
    let counted = client_network(client);
    assert_eq!(client_network(counted), counted);
});

/// The address of a network as bits, and how many of them count.
fn model_network(text: &str) -> Option<(String, usize)> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => longest,
        Some(digits) if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) => {
            digits.parse().ok().filter(|prefix| *prefix <= longest)?
        }
        Some(_) => return None,
    };
    // An IPv4 network that is written inside IPv6.
    let shorter = if address.is_ipv6() && address.to_canonical().is_ipv4() && prefix >= 96 { 96 } else { 0 };
    let address = if shorter > 0 { address.to_canonical() } else { address };
    Some((bits(address), prefix - shorter))
}

fn bits(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:032b}", address.to_bits()),
        IpAddr::V6(address) => format!("{:0128b}", address.to_bits()),
    }
}

fn is_within((network, prefix): &(String, usize), address: IpAddr) -> bool {
    let address = bits(address);
    address.len() == network.len() && address[..*prefix] == network[..*prefix]
}

/// Everyone on the way, the peer last; the client is the last one who is not believed, or else the farthest who is known.
fn model_client(believed: impl Fn(IpAddr) -> bool, peer: IpAddr, lines: &[&[u8]]) -> IpAddr {
    let list = lines.join(&b',');
    let mut way: Vec<Option<IpAddr>> = list
        .split(|b| *b == b',')
        .map(|element| String::from_utf8_lossy(element).trim_matches([' ', '\t']).to_string())
        .filter(|element| !element.is_empty())
        .map(|element| model_element(&element))
        .collect();
    way.push(Some(peer.to_canonical()));
    let known: Vec<IpAddr> = way.into_iter().rev().map_while(|address| address).collect();
    known.iter().copied().find(|address| !believed(*address)).or(known.last().copied()).unwrap_or(peer)
}

/// An address, an IPv6 address in brackets, or either with a port.
fn model_element(text: &str) -> Option<IpAddr> {
    let is_port = |digits: &str| digits.chars().all(|c| c.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    if let Some(rest) = text.strip_prefix('[') {
        let (mut address, port) = rest.split_once(']')?;
        let is_good = match port.strip_prefix(':') {
            Some(digits) => {
                // The standard library takes a zone here, and nowhere else; it says nothing about the client.
                if let Some((before, zone)) = address.split_once('%') {
                    let is_zone = zone.chars().all(|c| c.is_ascii_digit()) && zone.parse::<u32>().is_ok();
                    address = if is_zone { before } else { address };
                }
                is_port(digits)
            }
            None => port.is_empty(),
        };
        return address.parse::<Ipv6Addr>().ok().filter(|_| is_good).map(|address| IpAddr::V6(address).to_canonical());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = text.split_once(':')?;
    is_port(port).then(|| address.parse().ok().map(IpAddr::V4)).flatten()
}
