//! Keys with a prefix of the operator's own, and the checksum that tells mistyped ones.

use keyward_harness::service::{Account, Service, error, on_both_stores};
use serde_json::{Value, json};

/// CRC-32 bit by bit, in six base62 digits.
fn checksum(text: &str) -> String {
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = text.bytes().fold(!0_u32, |rest, byte| {
        (0..8).fold(rest ^ u32::from(byte), |rest, _| (rest >> 1) ^ if rest & 1 == 1 { 0xEDB8_8320 } else { 0 })
    }) ^ !0;
    let mut written = [0; 6];
    for digit in written.iter_mut().rev() {
        *digit = digits[(rest % 62) as usize];
        rest /= 62;
    }
    String::from_utf8(written.to_vec()).unwrap()
}

fn with_prefix(service: &mut Service, prefix: &str) {
    service.set("KEY_PREFIX", prefix);
    service.restart();
}

fn new_key(service: &Service, owner: &Account) -> Value {
    service.create_key(&owner.access, json!({ "name": "ci", "scopes": ["keys:verify"] }))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Other keys with the same prefix and length, each with one mistake of somebody who typed this one.
fn mistyped(key: &str) -> Vec<String> {
    let swapped = |at: usize| {
        let mut bytes = key.as_bytes().to_vec();
        bytes.swap(at, at + 1);
        String::from_utf8(bytes).unwrap()
    };
    let other = |at: usize| {
        let digit = if key.as_bytes()[at] == b'0' { '1' } else { '0' };
        format!("{}{digit}{}", &key[..at], &key[at + 1..])
    };
    let end = key.len();
    (end - 70..end - 1).map(swapped).chain((end - 70..end).map(other)).filter(|wrong| wrong != key).collect()
}

on_both_stores! {
    fn new_keys_have_the_prefix_and_a_checksum(service) {
        with_prefix(service, "acme_live");
        let ann = service.sign_up("ann@example.com");
        let made = new_key(service, &ann);
        let digits = text(&made["key"]).strip_prefix("acme_live_").unwrap();
        let (digits, written) = digits.split_at(64);
        assert!(digits.bytes().all(|b| b"0123456789abcdef".contains(&b)), "{digits}");
        assert_eq!(written, checksum(&format!("acme_live_{digits}")));
        assert_eq!(service.key_status(text(&made["key"])), 200);
        let listed = service.get("/keys").bearer(&ann.access).send().json();
        assert_eq!(listed[0]["hint"], format!("acme_live_{}…{}", &digits[..4], &digits[60..]));
        // Without its checksum it is none of ours.
        assert_eq!(service.key_status(&format!("acme_live_{digits}")), 401);
        assert_eq!(service.key_status(&format!("sk_{digits}")), 401);
    }

    fn keys_survive_a_change_of_the_prefix_and_a_rotation_takes_the_new_one(service) {
        let ann = service.sign_up("ann@example.com");
        let mut keys = vec![new_key(service, &ann)];
        assert!(text(&keys[0]["key"]).starts_with("sk_") && text(&keys[0]["key"]).len() == 67, "{keys:?}");
        for prefix in ["acme", "acme_2", "sk"] {
            with_prefix(service, prefix);
            let target = format!("/keys/{}/rotate", text(&keys.last().unwrap()["id"]));
            let rotated = service.post(&target).bearer(&ann.access).json(json!({})).send();
            assert_eq!(rotated.status, 201, "{rotated:?}");
            keys.push(rotated.json());
            let begins = format!("{prefix}_");
            assert!(text(&keys.last().unwrap()["key"]).starts_with(&begins), "{keys:?}");
            for key in &keys {
                assert_eq!(service.key_status(text(&key["key"])), 200, "{key}");
            }
        }
    }

    fn a_mistyped_key_never_reaches_the_store(service) {
        with_prefix(service, "acme");
        let ann = service.sign_up("ann@example.com");
        let made = new_key(service, &ann);
        let key = text(&made["key"]);
        let unknown = format!("acme_{}", "0".repeat(64));
        let unknown = format!("{unknown}{}", checksum(&unknown));
        assert_eq!(service.key_status(&unknown), 401);
        // From here on, every look-up of a key fails.
        service.execute("ALTER TABLE api_keys RENAME TO keys_elsewhere");
        for wrong in mistyped(key) {
            let answer = service.get("/protected/service-only").api_key(&wrong).send();
            assert_eq!((answer.status, answer.json()), (401, error(401, "Invalid or expired API key")), "{wrong}");
            let asked = service.post("/keys/verify").bearer(&ann.access).json(json!({ "key": wrong })).send();
            assert_eq!((asked.status, &asked.json()["code"]), (200, &json!("NOT_FOUND")), "{wrong}");
        }
        let other = format!("acme_{}", "1".repeat(64));
        assert_eq!(service.key_status(&format!("{other}{}", checksum(&other))), 500);
        service.execute("ALTER TABLE keys_elsewhere RENAME TO api_keys");
        assert_eq!(service.key_status(key), 200);
    }
}
