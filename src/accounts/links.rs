//! The pages to which links with a token lead: ours, or the operator's.

use crate::accounts::one_time::{OneTimeToken, TokenKind};

/// The address of a page that takes a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUrl {
    before: String,
    after: String,
}

impl TokenUrl {
    /// `{token}` stands for the token.
    pub(crate) fn parse(text: &str) -> Result<TokenUrl, &'static str> {
        let host =
            ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme)).ok_or("is no http URL")?;
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("has characters that a URL does not have");
        }
        let (before, after) = text.split_once("{token}").ok_or("has no {token}")?;
        if after.contains("{token}") {
            return Err("has several {token}");
        }
        // A token in the name of a host would go to name servers.
        if !before[text.len() - host.len()..].contains('/') {
            return Err("has no path before {token}");
        }
        Ok(TokenUrl { before: before.to_string(), after: after.to_string() })
    }

    pub(crate) fn with(&self, token: &OneTimeToken) -> String {
        format!("{}{}{}", self.before, token.expose(), self.after)
    }
}

/// Where clients reach Keyward, as the operator has named it; never what a request says of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// A path is kept, for proxies that serve Keyward below one.
    pub fn parse(text: &str) -> Result<PublicUrl, &'static str> {
        let rest =
            ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme)).ok_or("is no http URL")?;
        let host = rest.split('/').next().unwrap_or_default();
        if host.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("is no http URL");
        }
        if host.contains('@') {
            return Err("has a user's name");
        }
        if rest.contains(['?', '#', '{', '}']) {
            return Err("has more than a host and a path");
        }
        Ok(PublicUrl(text.trim_end_matches('/').to_string()))
    }
}

/// Our page that sets a password.
pub const RESET_PAGE: &str = "/account/reset";
/// Our page that verifies an e-mail.
pub const VERIFY_PAGE: &str = "/account/verify";

/// Where the pages are.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// Ours are below it.
    pub public: Option<PublicUrl>,
    /// The operator's own page in place of ours that sets a password.
    pub reset: Option<TokenUrl>,
    /// The operator's own page in place of ours that verifies an e-mail.
    pub verify: Option<TokenUrl>,
}

impl Pages {
    /// The link to the page that takes this kind of token, if there is one. The token is in the fragment of ours, so it is
    /// sent to no server and is in no log.
    pub(crate) fn link(&self, kind: TokenKind, token: &OneTimeToken) -> Option<String> {
        let (own, page) = self.of(kind);
        own.as_ref().map(|own| own.with(token)).or_else(|| {
            let PublicUrl(public) = self.public.as_ref()?;
            Some(format!("{public}{page}#{}", token.expose()))
        })
    }

    /// Whether links lead to our page for this kind of token.
    pub fn are_ours(&self, kind: TokenKind) -> bool {
        self.public.is_some() && self.of(kind).0.is_none()
    }

    fn of(&self, kind: TokenKind) -> (&Option<TokenUrl>, &'static str) {
        match kind {
            TokenKind::ResetPassword => (&self.reset, RESET_PAGE),
            TokenKind::VerifyEmail | TokenKind::ChangeEmail => (&self.verify, VERIFY_PAGE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_takes_its_place_in_the_address_of_a_page() {
        let token = OneTimeToken::generate().unwrap();
        for (text, expected) in [
            ("https://a.example/reset#{token}", format!("https://a.example/reset#{}", token.expose())),
            ("http://localhost:5173/?t={token}&x=1", format!("http://localhost:5173/?t={}&x=1", token.expose())),
        ] {
            assert_eq!(TokenUrl::parse(text).unwrap().with(&token), expected);
        }
        for (text, fault) in [
            ("a.example/{token}", "is no http URL"),
            ("javascript:alert('{token}')", "is no http URL"),
            ("https://a.example/reset", "has no {token}"),
            ("https://a.example/{token}/{token}", "has several {token}"),
            ("https://{token}.example/", "has no path before {token}"),
            ("https://a.example/reset token={token}", "has characters that a URL does not have"),
        ] {
            assert_eq!(TokenUrl::parse(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn links_lead_to_our_pages_unless_the_operator_has_their_own() {
        let token = OneTimeToken::generate().unwrap();
        let public = |text: &str| PublicUrl::parse(text).unwrap();
        let mut pages = Pages::default();
        assert!(pages.link(TokenKind::ResetPassword, &token).is_none() && !pages.are_ours(TokenKind::ResetPassword));
        pages.public = Some(public("https://a.example/id/"));
        pages.verify = Some(TokenUrl::parse("https://b.example/verify#{token}").unwrap());
        let expected = [
            (TokenKind::ResetPassword, "https://a.example/id/account/reset", true),
            (TokenKind::VerifyEmail, "https://b.example/verify", false),
            (TokenKind::ChangeEmail, "https://b.example/verify", false),
        ];
        for (kind, page, is_ours) in expected {
            assert_eq!(pages.link(kind, &token), Some(format!("{page}#{}", token.expose())));
            assert_eq!(pages.are_ours(kind), is_ours);
        }
    }

    #[test]
    fn a_public_url_is_a_host_and_perhaps_a_path() {
        for (text, fault) in [
            ("a.example", "is no http URL"),
            ("https://", "is no http URL"),
            ("https:///path", "is no http URL"),
            ("https://a.example/a b", "is no http URL"),
            ("https://ann@a.example", "has a user's name"),
            ("https://a.example/?a", "has more than a host and a path"),
            ("https://a.example#a", "has more than a host and a path"),
            ("https://a.example/{token}", "has more than a host and a path"),
        ] {
            assert_eq!(PublicUrl::parse(text), Err(fault), "{text}");
        }
        for text in ["https://a.example", "http://localhost:3000/", "https://a.example/id"] {
            assert!(PublicUrl::parse(text).is_ok(), "{text}");
        }
    }
}
