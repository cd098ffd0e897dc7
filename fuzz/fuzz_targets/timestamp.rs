//! RFC 3339: what is read is written in the one form that sorts as text, and read again as the same instant.
#![no_main]

use keyward::base::clock::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some(instant) = Timestamp::parse(text) else { return };
    let written = instant.to_string();
    assert!(is_written_form(&written), "{text:?} is written as {written:?}");
    assert_eq!(Timestamp::parse(&written), Some(instant), "{text:?} is written as {written:?}");
    assert_eq!(Timestamp::from_millis(instant.millis()), Some(instant), "{text:?}");
    // The order of the texts is the order of the instants.
    let epoch = Timestamp::EPOCH;
    assert_eq!(written.cmp(&epoch.to_string()), instant.cmp(&epoch), "{text:?}");
});

/// `2025-12-31T23:59:59.000Z`
fn is_written_form(text: &str) -> bool {
    let shape = text.bytes().map(|b| if b.is_ascii_digit() { b'0' } else { b });
    shape.eq("0000-00-00T00:00:00.000Z".bytes())
}
