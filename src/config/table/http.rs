//! What the front listens on, and what a client may do there.

use http::HeaderName;

use super::read::{list, path, whole_number};
use crate::base::network::Network;
use crate::config::setting::{ALWAYS, Setting};
use crate::http::page_headers::PageHeaders;

pub(super) static SETTINGS: &[Setting] = &[
    Setting {
        name: "HOST",
        default: Some("127.0.0.1,::1"),
        accepts: "IP addresses, separated by commas; 0.0.0.0 is every IPv4 address, :: every address, or every IPv6 address if an IPv4 address is listed too",
        meaning: "Addresses to listen on",
        secret: false,
        counts: ALWAYS,
        read: |config, value| {
            let hosts = list(value, |host| host.parse().map_err(|_| "is not a list of IP addresses"))?;
            config.http.hosts = hosts;
            Ok(())
        },
    },
    Setting {
        name: "PORT",
        default: Some("3000"),
        accepts: "0 to 65535; 0 takes a free port",
        meaning: "Port to listen on",
        secret: false,
        counts: ALWAYS,
        read: |config, value| whole_number(value, 0..=65535).map(|port| config.http.port = port),
    },
    Setting {
        name: "TLS_CERT",
        default: None,
        accepts: "the path of a PEM file, together with TLS_KEY",
        meaning: "The server's certificate and its chain; with it, PORT speaks HTTPS (HTTP/1.1 and HTTP/2)",
        secret: false,
        counts: ALWAYS,
        read: |config, value| path(&mut config.http.tls_cert, value),
    },
    Setting {
        name: "TLS_KEY",
        default: None,
        accepts: "the path of a PEM file (PKCS#8, SEC1 or PKCS#1, without a passphrase), together with TLS_CERT",
        meaning: "The certificate's private key; renewed files are noticed within seconds, and at once on SIGHUP",
        secret: false,
        counts: ALWAYS,
        read: |config, value| path(&mut config.http.tls_key, value),
    },
    Setting {
        name: "HTTP_REDIRECT_PORT",
        default: None,
        accepts: "0 to 65535, other than PORT, with TLS_CERT and TLS_KEY; 0 takes a free port",
        meaning: "Port that redirects plain HTTP to HTTPS on PORT",
        secret: false,
        counts: ALWAYS,
        read: |config, value| whole_number(value, 0..=65535).map(|port| config.http.redirect_port = Some(port)),
    },
    Setting {
        name: "TRUSTED_PROXIES",
        default: Some("127.0.0.0/8,::1/128"),
        accepts: "networks such as 10.0.0.0/8 and addresses, separated by commas, or none",
        meaning: "Proxies that are trusted to name the client's address",
        secret: false,
        counts: ALWAYS,
        read: |config, value| {
            config.http.proxies.trusted = match value {
                "none" => Vec::new(),
                networks => list(networks, |network| Network::parse(network).ok_or("is not a list of networks"))?,
            };
            Ok(())
        },
    },
    Setting {
        name: "TRUSTED_PROXY_HEADER",
        default: Some("X-Forwarded-For"),
        accepts: "the name of a header that holds addresses, such as X-Forwarded-For or X-Real-IP",
        meaning: "The one header in which these proxies name the client's address; it is read from its end",
        secret: false,
        counts: |config| {
            if config.http.proxies.trusted.is_empty() { Err("TRUSTED_PROXIES is none") } else { Ok(()) }
        },
        read: |config, value| {
            config.http.proxies.header = HeaderName::try_from(value).map_err(|_| "is not the name of a header")?;
            // RFC 7239.
            if config.http.proxies.header == http::header::FORWARDED {
                return Err("has a syntax of its own, which is not read".to_string());
            }
            Ok(())
        },
    },
    Setting {
        name: "CORS_ORIGINS",
        default: None,
        accepts: "origins, separated by commas, such as https://app.example.com or http://localhost:5173",
        meaning: "Origins whose web pages may call Keyward from a browser and read its answers",
        secret: false,
        counts: ALWAYS,
        read: |config, value| config.http.cors.set_origins(value),
    },
    Setting {
        name: "CORS_HEADERS",
        default: Some("any"),
        accepts: "any, none, or names of headers, separated by commas or spaces, together with CORS_ORIGINS",
        meaning: "Headers that these pages may send beside Authorization, Content-Type, x-api-key and x-request-id",
        secret: false,
        counts: ALWAYS,
        read: |config, value| PageHeaders::parse(value).map(|headers| config.http.cors.headers = headers),
    },
    Setting {
        name: "MAX_CONNECTIONS",
        default: Some("10000"),
        accepts: "1 to 1000000",
        meaning: "Most connections at once; beyond that, a new one replaces the one that has been idle longest, or waits",
        secret: false,
        counts: ALWAYS,
        read: |config, value| {
            whole_number(value, 1..=1_000_000).map(|connections| config.http.max_connections = connections)
        },
    },
    Setting {
        name: "MAX_CONNECTIONS_PER_ADDRESS",
        default: None,
        accepts: "1 to 1000000; without it, a quarter of MAX_CONNECTIONS",
        meaning: "Most connections at once from one address (with IPv6, from one /64); TRUSTED_PROXIES have no limit",
        secret: false,
        counts: ALWAYS,
        read: |config, value| {
            whole_number(value, 1..=1_000_000).map(|most| config.http.max_connections_per_address = Some(most))
        },
    },
];
