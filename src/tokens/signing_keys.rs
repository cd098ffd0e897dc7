//! The keys that sign and verify, each bound to one algorithm (RFC 8725 §3.1).
//!
//! aws-lc-rs signs, with keys that are parsed and checked once: an RSA key takes long to check. The `jsonwebtoken` library
//! verifies, and writes the published keys.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{PublicKey, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey,
    RSA_PKCS1_SHA256, RsaKeyPair,
};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{DecodingKey, Validation};
use serde::de::IgnoredAny;

use crate::base::secret::Secret;
use crate::tokens::algorithm::Algorithm;

/// What is wrong with a key that cannot be taken; follows the name of its file.
pub(crate) const OF_NO_KIND: &str = "holds no Ed25519, P-256 or RSA key";
/// RFC 7518 §3.3 asks for 2048 bits or more. A signature by more than 8192 takes long to verify.
const OF_WRONG_SIZE: &str = "holds an RSA key of less than 2048 or more than 8192 bits";

/// A key that signs, with the key that verifies its signatures.
pub struct SigningKey {
    signer: Signer,
    pub(crate) verifying: VerifyingKey,
}

enum Signer {
    Secret(Box<hmac::Key>),
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    pub fn from_secret(secret: &Secret) -> SigningKey {
        SigningKey::from_secret_bytes(secret.expose().as_bytes())
    }

    pub(crate) fn from_secret_bytes(secret: &[u8]) -> SigningKey {
        let signer = Signer::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret)));
        SigningKey { signer, verifying: VerifyingKey::from_secret_bytes(secret) }
    }

    /// A private key as PKCS#8 (RFC 5208): Ed25519, P-256 or RSA.
    pub fn from_pkcs8(der: &[u8]) -> Result<SigningKey, &'static str> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            let verifying = VerifyingKey::from_ed25519(pair.public_key().as_ref())?;
            return Ok(SigningKey { signer: Signer::Ed25519(pair), verifying });
        }
        match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            Ok(pair) => SigningKey::from_p256(pair),
            Err(_) => SigningKey::from_rsa(RsaKeyPair::from_pkcs8(der)),
        }
    }

    /// A P-256 private key by itself (SEC 1, RFC 5915).
    pub(crate) fn from_sec1(der: &[u8]) -> Result<SigningKey, &'static str> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
        SigningKey::from_p256(pair.map_err(|_| OF_NO_KIND)?)
    }

    /// An RSA private key by itself (PKCS#1, RFC 8017 §A.1.2).
    pub(crate) fn from_pkcs1(der: &[u8]) -> Result<SigningKey, &'static str> {
        SigningKey::from_rsa(RsaKeyPair::from_der(der))
    }

    fn from_p256(pair: EcdsaKeyPair) -> Result<SigningKey, &'static str> {
        let verifying = VerifyingKey::from_p256(pair.public_key().as_ref())?;
        Ok(SigningKey { signer: Signer::P256(pair), verifying })
    }

    fn from_rsa(pair: Result<RsaKeyPair, KeyRejected>) -> Result<SigningKey, &'static str> {
        let pair = pair.map_err(|rejected| match rejected.description_() {
            "TooSmall" | "TooLarge" => OF_WRONG_SIZE,
            _ => OF_NO_KIND,
        })?;
        let verifying = VerifyingKey::from_rsa(pair.public_key())?;
        Ok(SigningKey { signer: Signer::Rsa(pair), verifying })
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.verifying.algorithm
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        Ok(match &self.signer {
            Signer::Secret(key) => hmac::sign(key, message).as_ref().to_vec(),
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Signer::P256(pair) => pair.sign(&SystemRandom::new(), message)?.as_ref().to_vec(),
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)?;
                signature
            }
        })
    }

    /// The key to verify with.
    pub(crate) fn into_verifying(self) -> VerifyingKey {
        self.verifying
    }
}

/// A key that verifies.
pub struct VerifyingKey {
    pub(crate) algorithm: Algorithm,
    key: DecodingKey,
    /// Accepts the algorithm of the key and no other.
    validation: Validation,
    /// The published form, with RFC 7638's thumbprint as `kid`. A secret is not published and has no `kid`.
    pub(crate) public: Option<Jwk>,
}

impl VerifyingKey {
    pub(crate) fn from_secret(secret: &Secret) -> VerifyingKey {
        VerifyingKey::from_secret_bytes(secret.expose().as_bytes())
    }

    fn from_secret_bytes(secret: &[u8]) -> VerifyingKey {
        VerifyingKey::new(Algorithm::Hs256, DecodingKey::from_secret(secret), None)
    }

    /// A public key as SubjectPublicKeyInfo (RFC 5280 §4.1): Ed25519, P-256 or RSA.
    pub(crate) fn from_spki(der: &[u8]) -> Result<VerifyingKey, &'static str> {
        if let Some(raw) = der.strip_prefix(&ED25519_PREFIX) {
            return VerifyingKey::from_ed25519(raw);
        }
        if let Some(point) = der.strip_prefix(&P256_PREFIX) {
            return VerifyingKey::from_p256(point);
        }
        let key = PublicKey::from_der(der).map_err(|_| OF_NO_KIND)?;
        // It also reads keys for RSASSA-PSS, which must not sign by RS256 (RFC 4055 §1.2).
        let as_rsa: PublicKeyX509Der<'_> = key.as_der().map_err(|_| OF_NO_KIND)?;
        if as_rsa.as_ref() == der { VerifyingKey::from_rsa(&key) } else { Err(OF_NO_KIND) }
    }

    /// The 32 bytes of an Ed25519 public key.
    fn from_ed25519(raw: &[u8]) -> Result<VerifyingKey, &'static str> {
        VerifyingKey::published(Algorithm::EdDsa, DecodingKey::from_ed_der(raw))
    }

    /// The 65 bytes of a P-256 public key: a point of the curve, not compressed.
    fn from_p256(point: &[u8]) -> Result<VerifyingKey, &'static str> {
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| OF_NO_KIND)?;
        VerifyingKey::published(Algorithm::Es256, DecodingKey::from_ec_der(point))
    }

    fn from_rsa(key: &PublicKey) -> Result<VerifyingKey, &'static str> {
        // Both without leading zeros, as RFC 7518 §6.3.1 has them.
        let PublicKeyComponents::<Vec<u8>> { n, e } = key.into();
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        if !(2048..=8192).contains(&bits) {
            return Err(OF_WRONG_SIZE);
        }
        VerifyingKey::published(Algorithm::Rs256, DecodingKey::from_rsa_raw_components(&n, &e))
    }

    fn published(algorithm: Algorithm, key: DecodingKey) -> Result<VerifyingKey, &'static str> {
        let jwk = Jwk::from_decoding_key(&key, Some(algorithm.library())).and_then(|mut jwk| {
            jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256)?);
            jwk.common.public_key_use = Some(PublicKeyUse::Signature);
            Ok(jwk)
        });
        Ok(VerifyingKey::new(algorithm, key, Some(jwk.map_err(|_| OF_NO_KIND)?)))
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

    pub(crate) fn kid(&self) -> Option<&str> {
        self.public.as_ref()?.common.key_id.as_deref()
    }

    /// Whether a header with these members names this key.
    pub(crate) fn is_named_by(&self, alg: &str, kid: Option<&str>) -> bool {
        alg == self.algorithm.name() && kid == self.kid()
    }

    /// In constant time for a secret.
    pub(crate) fn has_signed(&self, token: &str) -> bool {
        jsonwebtoken::decode::<IgnoredAny>(token, &self.key, &self.validation).is_ok()
    }
}

/// The DER encoding before the 32 bytes of an Ed25519 key (RFC 8410 §4); there is only one.
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The DER encoding before the 65 bytes of a P-256 key on a named curve (RFC 5480 §2).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING;
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;

    use super::*;

    /// RFC 8037, appendix A.
    #[test]
    fn the_example_of_rfc_8037_has_its_thumbprint_and_its_signature() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let der = hex::decode(format!("302e020100300506032b657004220420{seed}")).unwrap();
        let key = SigningKey::from_pkcs8(&der).unwrap();
        assert_eq!(key.verifying.kid(), Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"));
        let published = serde_json::to_value(&key.verifying.public).unwrap();
        assert_eq!(published["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert_eq!(BASE64URL.encode(key.sign(message).unwrap()), signature);
    }

    /// RFC 7515, appendix A.3.
    #[test]
    fn the_example_of_rfc_7515_for_es256_has_its_coordinates_and_verifies() {
        let unb64 = |text: &str| BASE64URL.decode(text).unwrap();
        let (x, y) = ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
        let spki = [P256_PREFIX.to_vec(), vec![4], unb64(x), unb64(y)].concat();
        let key = VerifyingKey::from_spki(&spki).unwrap();
        let published = serde_json::to_value(&key.public).unwrap();
        assert_eq!((&published["crv"], &published["x"], &published["y"]), (&"P-256".into(), &x.into(), &y.into()));
        let token = "eyJhbGciOiJFUzI1NiJ9\
            .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
            .DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        assert!(key.has_signed(token));
        // A point beside the curve.
        let mut beside = spki.clone();
        *beside.last_mut().unwrap() ^= 1;
        assert_eq!(VerifyingKey::from_spki(&beside).err(), Some(OF_NO_KIND));
    }

    #[test]
    fn coordinates_that_begin_with_zeros_keep_them() {
        let short = std::iter::repeat_with(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
            .find(|pair| pair.public_key().as_ref()[1] == 0);
        let key = SigningKey::from_p256(short.unwrap()).unwrap();
        let published = serde_json::to_value(&key.verifying.public).unwrap();
        for coordinate in ["x", "y"] {
            assert_eq!(BASE64URL.decode(published[coordinate].as_str().unwrap()).unwrap().len(), 32);
        }
    }

    #[test]
    fn an_rsa_key_is_published_without_leading_zeros_and_by_its_thumbprint() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let spki: PublicKeyX509Der = pair.public_key().as_der().unwrap();
        let key = SigningKey::from_rsa(Ok(pair)).unwrap();
        let published = serde_json::to_value(&key.verifying.public).unwrap();
        let n = BASE64URL.decode(published["n"].as_str().unwrap()).unwrap();
        assert_eq!((n.len(), n[0] >= 0x80, &published["e"]), (256, true, &"AQAB".into()));
        let alike = VerifyingKey::from_spki(spki.as_ref()).unwrap();
        assert_eq!(alike.public, key.verifying.public);
        let message = format!("{}.e30", BASE64URL.encode(r#"{"alg":"RS256"}"#));
        let token = format!("{message}.{}", BASE64URL.encode(key.sign(message.as_bytes()).unwrap()));
        assert!(alike.has_signed(&token));
    }

    /// The DER encoding of an RSA public key with a modulus of so many bits.
    fn rsa_of(bits: usize) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| {
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[tag, 0x82][..], &length, content].concat()
        };
        let mut n = vec![0xff; bits.div_ceil(8)];
        n[0] = 0xff >> (bits.div_ceil(8) * 8 - bits);
        let n = if bits.is_multiple_of(8) { [vec![0], n].concat() } else { n };
        let key = wrap(0x30, &[wrap(0x02, &n), vec![0x02, 0x03, 0x01, 0x00, 0x01]].concat());
        let kind = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
        wrap(0x30, &[kind.to_vec(), wrap(0x03, &[vec![0], key].concat())].concat())
    }

    #[test]
    fn an_rsa_key_has_2048_to_8192_bits() {
        for (bits, fault) in [
            (2040, Some(OF_WRONG_SIZE)),
            (2047, Some(OF_WRONG_SIZE)),
            (2048, None),
            (3072, None),
            (8192, None),
            (8193, Some(OF_WRONG_SIZE)),
        ] {
            assert_eq!(VerifyingKey::from_spki(&rsa_of(bits)).err(), fault, "{bits}");
        }
        assert!(VerifyingKey::from_spki(&rsa_of(65_000)).is_err());
    }

    #[test]
    fn keys_on_other_curves_are_of_no_kind() {
        let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let public: PublicKeyX509Der = p384.public_key().as_der().unwrap();
        assert_eq!(SigningKey::from_pkcs8(p384.to_pkcs8v1().unwrap().as_ref()).err(), Some(OF_NO_KIND));
        assert_eq!(VerifyingKey::from_spki(public.as_ref()).err(), Some(OF_NO_KIND));
    }
}
