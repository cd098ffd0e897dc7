//! `SMTP_URL`: the server that takes mail, how the way to it is protected, and who we are to it.

use std::net::{IpAddr, Ipv6Addr};

use percent_encoding::percent_decode_str;

use crate::base::secret::Secret;

/// How the connection to the server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// TLS from the first byte.
    Implicit,
    /// STARTTLS; a server without it gets nothing.
    Required,
    /// STARTTLS if the server offers it, whatever certificate it has: who can change what passes could also hide the offer.
    Opportunistic,
    None,
}

#[derive(Clone, Debug)]
pub struct SmtpUrl {
    /// A name in ASCII, or an address without brackets.
    pub host: String,
    pub port: u16,
    pub protection: Protection,
    pub login: Option<(String, Secret)>,
}

impl SmtpUrl {
    /// The error says what is wrong without showing any of the value.
    pub(crate) fn parse(text: &str) -> Result<SmtpUrl, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("is no URL")?;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let protection = match (scheme, query) {
            ("smtps", None) => Protection::Implicit,
            ("smtps", Some(_)) => return Err("has a query; with smtps:// there is nothing to choose"),
            ("smtp", None | Some("tls=required")) => Protection::Required,
            ("smtp", Some("tls=opportunistic")) => Protection::Opportunistic,
            ("smtp", Some("tls=none")) => Protection::None,
            ("smtp", Some(_)) => return Err("has another query than tls=required, tls=opportunistic or tls=none"),
            _ => return Err("does not begin with smtps:// or smtp://"),
        };
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(parse_login(login)?), place),
            None => (None, rest),
        };
        if login.is_some() && matches!(protection, Protection::Opportunistic | Protection::None) {
            return Err("would send its password without TLS");
        }
        let (host, port) = parse_place(place.strip_suffix('/').unwrap_or(place))?;
        let port = port.unwrap_or(match protection {
            Protection::Implicit => 465,
            Protection::Required => 587,
            Protection::Opportunistic | Protection::None => 25,
        });
        Ok(SmtpUrl { host, port, protection, login })
    }
}

fn parse_login(text: &str) -> Result<(String, Secret), &'static str> {
    let (user, password) = text.split_once(':').ok_or("has a user without a password")?;
    let decoded = |part: &str| {
        let part = percent_decode_str(part).decode_utf8().ok().filter(|part| !part.is_empty())?;
        (!part.contains(char::is_control)).then(|| part.into_owned())
    };
    let (user, password) = decoded(user).zip(decoded(password)).ok_or("has a user or password that cannot be read")?;
    Ok((user, Secret::new(password)))
}

fn parse_place(text: &str) -> Result<(String, Option<u16>), &'static str> {
    if text.contains(['/', '#']) {
        return Err("has more than a host and a port");
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or("has an address without its ]")?;
        let address: Ipv6Addr = address.parse().map_err(|_| "has no IPv6 address in its brackets")?;
        let port = match port {
            "" => None,
            _ => Some(port.strip_prefix(':').ok_or("has more than a host and a port")?),
        };
        return Ok((address.to_string(), port.map(parse_port).transpose()?));
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let port = port.map(parse_port).transpose()?;
    if host.parse::<IpAddr>().is_ok() {
        return Ok((host.to_string(), port));
    }
    let host = idna::domain_to_ascii(host).map_err(|_| "has no host")?;
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if host.is_empty() || !host.bytes().all(is_letter) { Err("has no host") } else { Ok((host, port)) }
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err("has a port that is none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_protection_and_login() {
        for (text, host, port, protection, login) in [
            ("smtps://ann:pw@mail.example", "mail.example", 465, Protection::Implicit, Some(("ann", "pw"))),
            (
                "smtps://a%40b:p%3Aw%2F@mail.example:5000/",
                "mail.example",
                5000,
                Protection::Implicit,
                Some(("a@b", "p:w/")),
            ),
            ("smtps://a@b:p@w@mail.example", "mail.example", 465, Protection::Implicit, Some(("a@b", "p@w"))),
            ("smtp://ann:pw@mail.example", "mail.example", 587, Protection::Required, Some(("ann", "pw"))),
            ("smtp://mail.example?tls=required", "mail.example", 587, Protection::Required, None),
            ("smtp://mail?tls=opportunistic", "mail", 25, Protection::Opportunistic, None),
            ("smtp://127.0.0.1:1025/?tls=none", "127.0.0.1", 1025, Protection::None, None),
            ("smtp://[::1]:1025?tls=none", "::1", 1025, Protection::None, None),
            ("smtp://[::1]?tls=none", "::1", 25, Protection::None, None),
            ("smtps://poczta.żółw.example", "poczta.xn--w-uga1v8h.example", 465, Protection::Implicit, None),
        ] {
            let url = SmtpUrl::parse(text).unwrap();
            let shown = url.login.as_ref().map(|(user, password)| (user.as_str(), password.expose()));
            assert_eq!((url.host.as_str(), url.port, url.protection, shown), (host, port, protection, login), "{text}");
            assert!(!format!("{url:?}").contains("pw"));
        }
    }

    #[test]
    fn a_fault_is_told_without_the_value() {
        for (text, fault) in [
            ("mail.example", "is no URL"),
            ("https://mail.example", "does not begin with smtps:// or smtp://"),
            ("smtps://mail.example?tls=none", "has a query; with smtps:// there is nothing to choose"),
            ("smtp://mail.example?tls=yes", "has another query than tls=required, tls=opportunistic or tls=none"),
            ("smtps://ann@mail.example", "has a user without a password"),
            ("smtps://ann:@mail.example", "has a user or password that cannot be read"),
            ("smtps://ann:%ff@mail.example", "has a user or password that cannot be read"),
            ("smtps://ann:a%0d%0ab@mail.example", "has a user or password that cannot be read"),
            ("smtp://ann:pw@mail.example?tls=opportunistic", "would send its password without TLS"),
            ("smtp://ann:pw@localhost?tls=none", "would send its password without TLS"),
            ("smtps://", "has no host"),
            ("smtps://mail example", "has no host"),
            ("smtps://mail.example:0", "has a port that is none"),
            ("smtps://mail.example:65536", "has a port that is none"),
            ("smtps://mail.example:+25", "has a port that is none"),
            ("smtps://[::1", "has an address without its ]"),
            ("smtps://[mail]", "has no IPv6 address in its brackets"),
            ("smtps://[::1]25", "has more than a host and a port"),
            ("smtps://mail.example/inbox", "has more than a host and a port"),
        ] {
            assert_eq!(SmtpUrl::parse(text).map(drop), Err(fault), "{text}");
        }
    }
}
