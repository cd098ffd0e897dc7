//! Where webhooks may be: what is read of a URL, and which addresses users may name.
#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use http::Uri;
use keyward::webhooks::addresses::Reach;
use keyward::webhooks::origin::{Host, Origin};
use keyward::webhooks::url::WebhookUrl;
use libfuzzer_sys::fuzz_target;

/// Whether `inet_aton`, which resolvers use, would read it as an address: one to four numbers, also octal and hexadecimal.
fn is_number_to_resolvers(host: &str) -> bool {
    let parts: Vec<&str> = host.split('.').collect();
    let is_number = |part: &&str| match part.strip_prefix("0x").or(part.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => part.bytes().all(|b| b.is_ascii_digit()),
    };
    parts.len() <= 4 && parts.iter().all(is_number)
}

/// What the standard library knows of addresses that are not of the whole internet.
fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_documentation()
                || v4.is_multicast()
                || v4.is_unspecified()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    }
}

fuzz_target!(|text: &str| {
    let reach = Reach::User { networks: Vec::new() };
    // The bytes as an address too: few URLs name one.
    if let Some(bytes) = text.as_bytes().first_chunk() {
        let address = IpAddr::from(Ipv6Addr::from_bits(u128::from_be_bytes(*bytes)));
        assert!(!reach.allows(address) || (!is_inside(address) && Reach::Operator.allows(address)), "{address}");
    }
    let Ok(url) = WebhookUrl::parse(text) else { return };
    let Ok(origin) = Origin::parse(url.as_str()) else { return };
    let sent: Uri = url.as_str().parse().unwrap();
    assert_eq!(sent.port_u16().unwrap_or(if origin.is_https { 443 } else { 80 }), origin.port);
    let host = sent.host().unwrap();
    match &origin.host {
        Host::Name(name) => {
            assert!(name.eq_ignore_ascii_case(host));
            assert!(!is_number_to_resolvers(host), "{host}");
        }
        Host::Address(address) => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            assert_eq!(bare.parse(), Ok(*address));
            assert!(origin.judge(&reach).is_err() || !is_inside(*address), "{address}");
        }
    }
    if origin.judge(&reach).is_ok() {
        assert!(origin.is_https && origin.port == 443);
        assert!(origin.judge(&Reach::Operator).is_ok());
    }
});
