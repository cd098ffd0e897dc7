//! What others have to know to verify tokens (RFC 8414 §2, OpenID Connect Discovery 1.0 §3).

use http::Uri;
use serde::Serialize;

/// All addresses come from the issuer that is configured, never from a request.
///
/// There is no authorization and no token endpoint, because Keyward gives no tokens by OAuth's grants.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Metadata<'a> {
    issuer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks_uri: Option<String>,
    introspection_endpoint: String,
    /// How `/oauth/introspect` takes a key; `Bearer` is RFC 6750's type of token.
    introspection_endpoint_auth_methods_supported: [&'static str; 3],
    /// Required by both documents. `none` is the only registered type by which nothing is given out.
    response_types_supported: [&'static str; 1],
    /// Required by OpenID Connect: a user has the same `sub` for everyone.
    subject_types_supported: [&'static str; 1],
    /// Required by OpenID Connect: what signs the tokens.
    id_token_signing_alg_values_supported: Vec<&'a str>,
}

impl<'a> Metadata<'a> {
    /// `published`: the algorithms of the published keys, that of the signing one first. Empty: a secret signs, and no key
    /// verifies what it signs. `None`: the issuer is no https URL, so it has no place for such a document.
    pub(crate) fn of(issuer: &'a str, published: &[&'a str]) -> Option<Metadata<'a>> {
        if !is_https(issuer) {
            return None;
        }
        let base = issuer.strip_suffix('/').unwrap_or(issuer);
        let mut algorithms = Vec::new();
        for algorithm in published {
            if !algorithms.contains(algorithm) {
                algorithms.push(*algorithm);
            }
        }
        let jwks_uri = (!algorithms.is_empty()).then(|| format!("{base}/.well-known/jwks.json"));
        if algorithms.is_empty() {
            algorithms.push("HS256");
        }
        Some(Metadata {
            issuer,
            jwks_uri,
            introspection_endpoint: format!("{base}/oauth/introspect"),
            introspection_endpoint_auth_methods_supported: ["client_secret_basic", "client_secret_post", "Bearer"],
            response_types_supported: ["none"],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: algorithms,
        })
    }
}

/// RFC 8414 §2: a URL with https, a host, and neither query nor fragment.
fn is_https(issuer: &str) -> bool {
    let has_host =
        |uri: Uri| uri.authority().is_some_and(|host| !host.as_str().contains('@') && !host.host().is_empty());
    issuer.starts_with("https://") && !issuer.contains(['?', '#']) && issuer.parse().is_ok_and(has_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_below_the_issuer() {
        for (issuer, base) in [
            ("https://auth.example.com", "https://auth.example.com"),
            ("https://auth.example.com/", "https://auth.example.com"),
            ("https://auth.example.com:8443", "https://auth.example.com:8443"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]"),
            ("https://example.com/auth", "https://example.com/auth"),
            ("https://example.com/a/b/", "https://example.com/a/b"),
        ] {
            let metadata = Metadata::of(issuer, &["EdDSA"]).unwrap();
            assert_eq!(metadata.issuer, issuer);
            assert_eq!(metadata.jwks_uri, Some(format!("{base}/.well-known/jwks.json")));
            assert_eq!(metadata.introspection_endpoint, format!("{base}/oauth/introspect"));
        }
    }

    #[test]
    fn an_issuer_that_is_no_https_url_has_no_document() {
        for issuer in [
            "",
            "keyward",
            "http://auth.example.com",
            "HTTPS://auth.example.com",
            "https://",
            "https:///a",
            "https:a",
            "https://a.example?b",
            "https://a.example/#b",
            "https://user@a.example",
            "https://a b",
            "https://:443",
        ] {
            assert_eq!(Metadata::of(issuer, &["EdDSA"]), None, "{issuer}");
        }
    }

    #[test]
    fn the_algorithms_are_those_of_the_published_keys() {
        let of = |published: &[&'static str]| {
            let metadata = Metadata::of("https://a.example", published).unwrap();
            (metadata.id_token_signing_alg_values_supported, metadata.jwks_uri.is_some())
        };
        assert_eq!(of(&["ES256", "EdDSA", "ES256"]), (vec!["ES256", "EdDSA"], true));
        // Nobody else can verify what a secret signs.
        assert_eq!(of(&[]), (vec!["HS256"], false));
    }
}
