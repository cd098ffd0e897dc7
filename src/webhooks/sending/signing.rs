//! How a delivery is signed (Standard Webhooks): by HMAC-SHA-256 over its id, the time of the try, and the body.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::webhooks::secret::WebhookSecret;

/// The value of `webhook-signature`: one signature for each secret. A receiver accepts the delivery if one of them is by
/// the secret that it knows.
pub(super) fn signatures(secrets: &[WebhookSecret], id: &str, seconds: i64, body: &str) -> String {
    let signature = |secret: &WebhookSecret| {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(body.as_bytes());
        format!("v1,{}", STANDARD.encode(context.sign()))
    };
    secrets.iter().map(signature).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_signed_as_the_specification_shows() {
        let decoded = |text: &str| WebhookSecret::from_bytes(STANDARD.decode(text).unwrap());
        // The example of the specification's reference libraries.
        let example = decoded("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let (id, seconds, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signatures(std::slice::from_ref(&example), id, seconds, body), signature);
        let both = signatures(&[decoded("AAAA"), example], id, seconds, body);
        let (first, second) = both.split_once(' ').unwrap();
        assert!(first.starts_with("v1,") && first != signature);
        assert_eq!(second, signature);
    }
}
