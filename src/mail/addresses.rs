//! Addresses as mail servers take them: from whom mail is, and to whom it goes.

use lettre::Address;
use lettre::message::Mailbox;

/// From whom mail is.
#[derive(Clone, Debug)]
pub struct Sender(Mailbox);

impl Sender {
    /// Reads `auth@example.com` and `Example <auth@example.com>`.
    pub(crate) fn parse(text: &str) -> Result<Sender, &'static str> {
        if text.contains(char::is_control) {
            return Err("has a control character");
        }
        let (name, address) = match text.trim().strip_suffix('>').map(|rest| rest.rsplit_once('<')) {
            None => (None, text.trim()),
            Some(Some((name, address))) => {
                (Some(name.trim().trim_matches('"')).filter(|name| !name.is_empty()), address)
            }
            Some(None) => return Err("is no address"),
        };
        let address = address_of(address).ok_or("is no address")?;
        // Every mail would need a server that takes such addresses.
        if !address.user().is_ascii() {
            return Err("has letters before its @ that few mail servers take");
        }
        Ok(Sender(Mailbox::new(name.map(str::to_string), address)))
    }

    /// What mail calls the service: the sender's name, or the domain.
    pub(crate) fn service(&self) -> &str {
        self.0.name.as_deref().unwrap_or_else(|| self.0.email.domain())
    }

    pub(crate) fn domain(&self) -> &str {
        self.0.email.domain()
    }

    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.0
    }
}

/// An address as it is stored, with its domain in Punycode. `None`: mail cannot have it.
pub(crate) fn address_of(stored: &str) -> Option<Address> {
    let (local, domain) = stored.rsplit_once('@')?;
    let domain = idna::domain_to_ascii(domain).ok()?;
    Address::new(local, domain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_an_address_and_perhaps_a_name() {
        for (text, shown, service) in [
            ("auth@example.com", "auth@example.com", "example.com"),
            ("Example <auth@example.com>", "Example <auth@example.com>", "Example"),
            ("\"Example, Inc.\" <auth@example.com>", "\"Example, Inc.\" <auth@example.com>", "Example, Inc."),
            ("<auth@żółw.example>", "auth@xn--w-uga1v8h.example", "xn--w-uga1v8h.example"),
        ] {
            let sender = Sender::parse(text).unwrap();
            assert_eq!((sender.mailbox().to_string().as_str(), sender.service()), (shown, service), "{text}");
        }
        for (text, fault) in [
            ("example.com", "is no address"),
            ("Example auth@example.com", "is no address"),
            ("auth@example.com>", "is no address"),
            ("a\r\nBcc: b@example.com <auth@example.com>", "has a control character"),
            ("żółw@example.com", "has letters before its @ that few mail servers take"),
        ] {
            assert_eq!(Sender::parse(text).map(drop), Err(fault), "{text}");
        }
    }

    #[test]
    fn a_recipients_domain_is_in_punycode_and_what_is_before_it_stays() {
        assert_eq!(address_of("ann@żółw.example").unwrap().to_string(), "ann@xn--w-uga1v8h.example");
        assert_eq!(address_of("żółw@example.com").unwrap().to_string(), "żółw@example.com");
        for text in ["ann", "ann@", "@example.com", "ann@example.com\r\nRCPT TO:<bob@example.com>", "a b@example.com"] {
            assert_eq!(address_of(text), None, "{text}");
        }
    }
}
