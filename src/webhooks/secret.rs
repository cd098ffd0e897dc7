//! What signs the deliveries to an endpoint.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::base::error::Error;
use crate::base::random;

/// The key of an HMAC, of 256 random bits. The endpoint's owner has it too.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    pub fn generate() -> Result<WebhookSecret, Error> {
        Ok(WebhookSecret(random::bytes::<32>()?.to_vec()))
    }

    pub fn from_bytes(bytes: Vec<u8>) -> WebhookSecret {
        WebhookSecret(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As Standard Webhooks writes it.
    pub fn written(&self) -> String {
        format!("whsec_{}", STANDARD.encode(&self.0))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(webhook secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_256_bits_in_base64_and_no_log_shows_it() {
        let secret = WebhookSecret::generate().unwrap();
        let written = secret.written();
        let bytes = STANDARD.decode(written.strip_prefix("whsec_").unwrap()).unwrap();
        assert_eq!(bytes.len(), 32);
        assert!(WebhookSecret::from_bytes(bytes) == secret);
        assert!(WebhookSecret::generate().unwrap() != secret);
        assert_eq!(format!("{secret:?}"), "(webhook secret)");
    }
}
