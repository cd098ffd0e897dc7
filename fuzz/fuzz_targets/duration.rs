//! `30s`, `15m`, `1h`, `7d`: against a reader that goes digit by digit, and back from what is written.
#![no_main]

use std::time::Duration;

use keyward::base::duration::{LONGEST, parse, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let read = parse(text).ok();
    assert_eq!(read, model(text), "{text:?}");
    if let Some(span) = read {
        let written = write(span);
        assert_eq!(parse(&written), Ok(span), "{text:?} is written as {written:?}");
    }
});

fn model(text: &str) -> Option<Duration> {
    let seconds_a_unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    if digits.is_empty() {
        return None;
    }
    let mut number: u64 = 0;
    for digit in digits.chars() {
        number = number.checked_mul(10)?.checked_add(digit.to_digit(10)?.into())?;
    }
    let span = Duration::from_secs(number.checked_mul(seconds_a_unit)?);
    (span <= LONGEST).then_some(span)
}
