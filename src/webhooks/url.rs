//! The address of an endpoint.

use std::fmt;

use http::Uri;

/// In characters.
const LONGEST: usize = 2048;

/// An http or https URL, as it was given. Paths and queries of such URLs often hold a secret, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(String);

impl WebhookUrl {
    /// The error is the rule that is broken; it follows the field's name. Where an endpoint may be is another question.
    pub fn parse(text: &str) -> Result<WebhookUrl, &'static str> {
        const RULE: &str = "must be an http or https URL in ASCII, such as https://example.com/hooks";
        if text.len() > LONGEST {
            return Err("must be shorter than or equal to 2048 characters");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(RULE);
        }
        let url: Uri = text.parse().map_err(|_| RULE)?;
        let is_http = url.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"));
        let Some(authority) = url.authority().filter(|authority| is_http && !authority.host().is_empty()) else {
            return Err(RULE);
        };
        if authority.as_str().contains('@') {
            return Err("must not hold a name or a password before the host; deliveries are signed");
        }
        let has_port = authority.as_str().rsplit(']').next().is_some_and(|rest| rest.contains(':'));
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err("must have a port from 1 to 65535, or none");
        }
        if text.contains('#') {
            return Err("must not have a fragment, which would not be sent");
        }
        Ok(WebhookUrl(text.to_string()))
    }

    pub fn from_stored(text: String) -> WebhookUrl {
        WebhookUrl(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(webhook URL)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_http_url_without_userinfo_and_fragment() {
        let long = |length: usize| format!("https://a.example/{}", "x".repeat(length - 18));
        for good in [
            "https://a.example",
            "https://a.example/hooks?token=1",
            "http://127.0.0.1:8080/",
            "https://[2001:db8::1]:8443/x",
            "HTTPS://xn--bcher-kva.example/",
            &long(2048),
        ] {
            assert_eq!(WebhookUrl::parse(good).map(|url| url.0), Ok(good.to_string()), "{good}");
        }
        for (bad, part) in [
            ("", "must be an http"),
            ("a.example", "must be an http"),
            ("/hooks", "must be an http"),
            ("//a.example/", "must be an http"),
            ("ftp://a.example/", "must be an http"),
            ("https://", "must be an http"),
            ("https:///x", "must be an http"),
            ("https://:443/", "must be an http"),
            ("https://a.example/ä", "must be an http"),
            ("https://bücher.example/", "must be an http"),
            ("https://a.example/a b", "must be an http"),
            ("https://a.example\r\nHost: b.example/", "must be an http"),
            ("https://a.example:99999/", "must have a port"),
            ("https://a.example:0/", "must have a port"),
            ("https://a.example:/", "must have a port"),
            ("https://ann:secret@a.example/", "must not hold a name"),
            ("https://@a.example/", "must not hold a name"),
            ("https://a.example/#x", "must not have a fragment"),
            (&long(2049), "must be shorter"),
        ] {
            let error = WebhookUrl::parse(bad).unwrap_err();
            assert!(error.starts_with(part), "{bad}: {error}");
        }
        assert_eq!(format!("{:?}", WebhookUrl::parse("https://a.example/secret").unwrap()), "(webhook URL)");
    }
}
