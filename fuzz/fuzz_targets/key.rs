//! API keys and ids: only their one written form is taken, and equal hashes are equal keys.
#![no_main]

use keyward::base::id::KeyId;
use keyward::keys::key::{KeyHash, parse_key_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let hash = KeyHash::of(data);
    assert_eq!(hash.is_some(), is_key(data), "{}", data.escape_ascii());
    if let Some(hash) = hash {
        assert!(KeyHash::of(data) == Some(hash));
        assert!(KeyHash::from_stored(hash.as_bytes().to_vec()) == Some(hash));
        assert_eq!(format!("{hash:?}"), "(key hash)");
        for place in 3..data.len() {
            let mut other = data.to_vec();
            other[place] = if other[place] == b'0' { b'1' } else { b'0' };
            assert!(KeyHash::of(&other).is_some_and(|other| other != hash), "{place}");
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

/// `sk_` and 64 lower-case hexadecimal digits.
fn is_key(data: &[u8]) -> bool {
    data.len() == 67 && data.starts_with(b"sk_") && data[3..].iter().all(|b| b"0123456789abcdef".contains(b))
}

/// The hyphenated form of RFC 9562 §4, in any case.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    lengths == [8, 4, 4, 4, 12] && groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()))
}
