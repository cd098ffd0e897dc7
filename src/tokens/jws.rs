//! The keys of JSON Web Signatures (RFC 7515): which one signs, and which ones are accepted.
//!
//! Each key is bound to one algorithm (RFC 8725 §3.1). A token's header can only choose among our keys, by `alg` and `kid`
//! together; keys and algorithms of its own (`jwk`, `jku`, `x5u`) are ignored (§3.10).

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use crate::tokens::signing_keys::{SigningKey, VerifyingKey};

/// The keys for one use: one that signs, and those that are accepted.
pub struct Keyring {
    /// The header of what is signed.
    header: jsonwebtoken::Header,
    signing: SigningKey,
    others: Vec<VerifyingKey>,
}

/// The members of a header that choose the key and name the kind of token. A repeated one is refused (RFC 7515 §4).
#[derive(Deserialize)]
struct Header<'a> {
    alg: &'a str,
    kid: Option<&'a str>,
    typ: Option<&'a str>,
    /// We understand no extension, so a token that requires one is refused (RFC 7515 §4.1.11).
    #[serde(default, deserialize_with = "there")]
    crit: bool,
}

fn there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

/// A token that one of the keys has signed.
pub struct Signed {
    /// The kind of token that its header names.
    pub typ: Option<String>,
    pub payload: Vec<u8>,
}

impl Keyring {
    /// `others` verify only.
    pub fn new(signing: SigningKey, others: impl IntoIterator<Item = VerifyingKey>) -> Keyring {
        let mut header = jsonwebtoken::Header::new(signing.algorithm().library());
        header.kid = signing.verifying.kid().map(str::to_string);
        Keyring { header, signing, others: others.into_iter().collect() }
    }

    /// A token of the kind `typ`. Blocks for a while: RSA takes a millisecond.
    pub fn sign<T: Serialize>(&self, typ: &str, payload: &T) -> Result<String, String> {
        let header = jsonwebtoken::Header { typ: Some(typ.to_string()), ..self.header.clone() };
        let header = serde_json::to_vec(&header).map_err(|error| error.to_string())?;
        let payload = serde_json::to_vec(payload).map_err(|error| error.to_string())?;
        let mut token = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(payload));
        let signature = self.signing.sign(token.as_bytes()).map_err(|error| error.to_string())?;
        token.push('.');
        BASE64URL.encode_string(signature, &mut token);
        Ok(token)
    }

    /// `None`: none of the keys has signed it.
    pub fn verify(&self, token: &str) -> Option<Signed> {
        let (header, rest) = token.split_once('.')?;
        let (payload, _) = rest.split_once('.')?;
        let header = BASE64URL.decode(header).ok()?;
        let header: Header<'_> = object(&header).filter(|header: &Header<'_>| !header.crit)?;
        let good = self.verifying().any(|key| key.is_named_by(header.alg, header.kid) && key.has_signed(token));
        // The library has read the payload too, but `object` is stricter.
        let payload = if good { BASE64URL.decode(payload).ok()? } else { return None };
        Some(Signed { typ: header.typ.map(str::to_string), payload })
    }

    /// The public keys, the one that signs first. Secrets are not in it.
    pub fn jwks(&self) -> JwkSet {
        let mut keys: Vec<Jwk> = Vec::new();
        for jwk in self.verifying().filter_map(|key| key.public.as_ref()) {
            if !keys.contains(jwk) {
                keys.push(jwk.clone());
            }
        }
        JwkSet { keys }
    }

    /// The algorithms of the published keys, that of the signing one first. Empty: a secret signs.
    pub(crate) fn published_algorithms(&self) -> Vec<&'static str> {
        if self.signing.verifying.public.is_none() {
            return Vec::new();
        }
        self.verifying().filter(|key| key.public.is_some()).map(|key| key.algorithm.name()).collect()
    }

    fn verifying(&self) -> impl Iterator<Item = &VerifyingKey> {
        std::iter::once(&self.signing.verifying).chain(&self.others)
    }
}

/// Reads a JSON object in UTF-8. `None` for anything else: serde would accept an array for a struct, and any bytes in a
/// member that it does not know.
pub(crate) fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    let text = std::str::from_utf8(json).ok()?;
    if text.starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, appendix A.1: the key is not text, so it is put in directly.
    #[test]
    fn the_example_of_rfc_7515_verifies() {
        let key = BASE64URL
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let keyring = Keyring::new(SigningKey::from_secret_bytes(&key), []);
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9\
            .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
            .dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let signed = keyring.verify(token).unwrap();
        assert_eq!(signed.typ.as_deref(), Some("JWT"));
        assert!(signed.payload.starts_with(b"{\"iss\":\"joe\""));
        assert_eq!(keyring.jwks(), JwkSet { keys: vec![] });
    }
}
