//! The keys of JSON Web Signatures (RFC 7515): which one signs, and which ones are accepted.
//!
//! The `jsonwebtoken` library signs and verifies; this module chooses the key. Each key is bound to one algorithm (RFC
//! 8725 §3.1). A token's header can only choose among our keys, by `alg` and `kid` together; keys and algorithms of its
//! own (`jwk`, `jku`, `x5u`) are ignored (§3.10).

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{DecodingKey, EncodingKey, Validation};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use crate::base::secret::Secret;

/// How access tokens are signed (RFC 7518 §3.2, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    #[default]
    Hs256,
    EdDsa,
}

impl Algorithm {
    pub(crate) fn parse(name: &str) -> Option<Algorithm> {
        [Algorithm::Hs256, Algorithm::EdDsa].into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The name in headers.
    fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// A key that signs, with the key that verifies its signatures.
pub struct SigningKey {
    key: EncodingKey,
    verifying: VerifyingKey,
}

impl SigningKey {
    pub fn from_secret(secret: &Secret) -> SigningKey {
        let key = EncodingKey::from_secret(secret.expose().as_bytes());
        SigningKey { key, verifying: VerifyingKey::from_secret(secret) }
    }

    /// An Ed25519 private key as PKCS#8 (RFC 8410 §7). `None` for anything else.
    pub fn from_pkcs8(der: &[u8]) -> Option<SigningKey> {
        let pair = Ed25519KeyPair::from_pkcs8(der).ok()?;
        let verifying = VerifyingKey::from_ed25519(pair.public_key().as_ref())?;
        Some(SigningKey { key: EncodingKey::from_ed_der(der), verifying })
    }

    /// The key to verify with.
    pub(crate) fn into_verifying(self) -> VerifyingKey {
        self.verifying
    }
}

/// A key that verifies.
pub struct VerifyingKey {
    algorithm: Algorithm,
    key: DecodingKey,
    /// Accepts the algorithm of the key and no other.
    validation: Validation,
    /// The published form, with RFC 7638's thumbprint as `kid`. A secret is not published and has no `kid`.
    public: Option<Jwk>,
}

impl VerifyingKey {
    pub(crate) fn from_secret(secret: &Secret) -> VerifyingKey {
        VerifyingKey::new(Algorithm::Hs256, DecodingKey::from_secret(secret.expose().as_bytes()), None)
    }

    /// An Ed25519 public key as SubjectPublicKeyInfo (RFC 8410 §4). `None` for anything else.
    pub(crate) fn from_spki(der: &[u8]) -> Option<VerifyingKey> {
        VerifyingKey::from_ed25519(der.strip_prefix(&SPKI_PREFIX)?)
    }

    /// The 32 bytes of an Ed25519 public key.
    fn from_ed25519(raw: &[u8]) -> Option<VerifyingKey> {
        let key = DecodingKey::from_ed_der(raw);
        let mut jwk = Jwk::from_decoding_key(&key, Some(Algorithm::EdDsa.library())).ok()?;
        jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).ok()?);
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Some(VerifyingKey::new(Algorithm::EdDsa, key, Some(jwk)))
    }

    fn new(algorithm: Algorithm, key: DecodingKey, public: Option<Jwk>) -> VerifyingKey {
        // `claims` checks the claims. The library would use the system's clock, allow a minute of leeway, and accept a
        // list as an issuer.
        let mut validation = Validation::new(algorithm.library());
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        VerifyingKey { algorithm, key, validation, public }
    }

    fn kid(&self) -> Option<&str> {
        self.public.as_ref()?.common.key_id.as_deref()
    }

    /// Whether the header names this key.
    fn is_named_by(&self, header: &Header<'_>) -> bool {
        header.alg == self.algorithm.name() && header.kid == self.kid()
    }

    /// In constant time for a secret.
    fn has_signed(&self, token: &str) -> bool {
        jsonwebtoken::decode::<IgnoredAny>(token, &self.key, &self.validation).is_ok()
    }
}

/// The DER encoding before the 32 bytes of an Ed25519 key; there is only one.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

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
        let mut header = jsonwebtoken::Header::new(signing.verifying.algorithm.library());
        header.kid = signing.verifying.kid().map(str::to_string);
        Keyring { header, signing, others: others.into_iter().collect() }
    }

    /// A token of the kind `typ`.
    pub fn sign<T: Serialize>(&self, typ: &str, payload: &T) -> Result<String, jsonwebtoken::errors::Error> {
        let header = jsonwebtoken::Header { typ: Some(typ.to_string()), ..self.header.clone() };
        jsonwebtoken::encode(&header, payload, &self.signing.key)
    }

    /// `None`: none of the keys has signed it.
    pub fn verify(&self, token: &str) -> Option<Signed> {
        let (header, rest) = token.split_once('.')?;
        let (payload, _) = rest.split_once('.')?;
        let header = BASE64URL.decode(header).ok()?;
        let header: Header<'_> = object(&header).filter(|header: &Header<'_>| !header.crit)?;
        let good = self.verifying().any(|key| key.is_named_by(&header) && key.has_signed(token));
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

    /// RFC 8037, appendix A.
    #[test]
    fn the_example_of_rfc_8037_has_its_thumbprint_and_its_signature() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let der = hex::decode(format!("302e020100300506032b657004220420{seed}")).unwrap();
        let SigningKey { key, verifying } = SigningKey::from_pkcs8(&der).unwrap();
        assert_eq!(verifying.kid(), Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"));
        let published = serde_json::to_value(verifying.public).unwrap();
        assert_eq!(published["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert_eq!(jsonwebtoken::crypto::sign(message, &key, Algorithm::EdDsa.library()).unwrap(), signature);
    }

    /// RFC 7515, appendix A.1: the key is not text, so it is put in directly.
    #[test]
    fn the_example_of_rfc_7515_verifies() {
        let key = BASE64URL
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let verifying = VerifyingKey::new(Algorithm::Hs256, DecodingKey::from_secret(&key), None);
        let keyring = Keyring::new(SigningKey { key: EncodingKey::from_secret(&key), verifying }, []);
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9\
            .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
            .dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let signed = keyring.verify(token).unwrap();
        assert_eq!(signed.typ.as_deref(), Some("JWT"));
        assert!(signed.payload.starts_with(b"{\"iss\":\"joe\""));
        assert_eq!(keyring.jwks(), JwkSet { keys: vec![] });
    }
}
