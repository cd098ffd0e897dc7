//! API keys and ids: only their written forms are taken, and equal hashes are equal keys. With one digit changed, a key
//! without a checksum is another key, and one with a checksum is none.
#![no_main]

use keyward::base::id::KeyId;
use keyward::keys::key::{KeyHash, parse_key_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let hash = KeyHash::of(data);
    assert_eq!(hash.is_some(), is_plain_key(data) || is_checked_key(data), "{}", data.escape_ascii());
    if let Some(hash) = hash {
        assert!(KeyHash::of(data) == Some(hash));
        assert!(KeyHash::from_stored(hash.as_bytes().to_vec()) == Some(hash));
        assert_eq!(format!("{hash:?}"), "(key hash)");
        for place in 3..data.len() {
            let mut other = data.to_vec();
            other[place] = if other[place] == b'0' { b'1' } else { b'0' };
            match KeyHash::of(&other) {
                Some(other) => assert!(is_plain_key(data) && other != hash, "{place}"),
                None => assert!(!is_plain_key(data), "{place}"),
            }
        }
    }
    // Hashes have 32 bytes.
    assert_eq!(KeyHash::from_stored(data.to_vec()).is_some(), data.len() == 32);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let id = KeyId::parse(text);
    assert_eq!(id.is_some(), is_uuid(text), "{text:?}");
    if let Some(id) = id {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
        assert_eq!(KeyId::parse(&id.to_string()), Some(id));
    }
    let length = text.chars().count();
    assert_eq!(parse_key_name(text).ok().as_deref(), (1..=255).contains(&length).then_some(text));
});

const HEX: &[u8] = b"0123456789abcdef";

/// `sk_` and 64 lower-case hexadecimal digits.
fn is_plain_key(data: &[u8]) -> bool {
    data.len() == 67 && data.starts_with(b"sk_") && data[3..].iter().all(|b| HEX.contains(b))
}

/// Any prefix, `_`, 64 lower-case hexadecimal digits, and their CRC-32 in base62.
fn is_checked_key(data: &[u8]) -> bool {
    let Some(separator) = data.iter().rposition(|b| *b == b'_') else { return false };
    let (prefix, rest) = (&data[..separator], &data[separator + 1..]);
    let is_of_prefix = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_';
    if prefix.is_empty() || prefix.len() > 24 || !prefix.iter().all(is_of_prefix) || rest.len() != 70 {
        return false;
    }
    let place = |b: &u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'A'..=b'Z' => Some(b - b'A' + 10),
        b'a'..=b'z' => Some(b - b'a' + 36),
        _ => None,
    };
    let read = rest[64..].iter().try_fold(0, |sum, b| Some(sum * 62 + u64::from(place(b)?)));
    rest[..64].iter().all(|b| HEX.contains(b)) && read == Some(u64::from(crc32(&data[..separator + 65])))
}

/// Bit by bit, as it is defined.
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |rest, byte| {
        (0..8).fold(rest ^ u32::from(*byte), |rest, _| (rest >> 1) ^ if rest & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}

/// The hyphenated form of RFC 9562 §4, in any case.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    lengths == [8, 4, 4, 4, 12] && groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()))
}
