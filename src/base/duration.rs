//! Spans of time as people write them: `30s`, `15m`, `1h`, `7d`.

use std::time::Duration;

/// The longest span that is read: ten years.
pub const LONGEST: Duration = Duration::from_secs(3650 * DAY);

const DAY: u64 = 24 * 60 * 60;
const UNITS: [(&str, u64); 4] = [("d", DAY), ("h", 60 * 60), ("m", 60), ("s", 1)];

/// Reads a whole number with a unit; the error says what is wrong with it. A number without a unit is refused, because
/// the service that Keyward replaces read it as milliseconds.
pub fn parse(text: &str) -> Result<Duration, &'static str> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    if unit.is_empty() {
        return Err("has no unit");
    }
    let seconds_a_unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds);
    // The standard library would accept a sign.
    let number: Option<u64> = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    let (Some(seconds_a_unit), Some(number)) = (seconds_a_unit, number) else { return Err("is not a span of time") };
    match number.checked_mul(seconds_a_unit).map(Duration::from_secs) {
        Some(span) if span <= LONGEST => Ok(span),
        _ => Err("is out of range"),
    }
}

/// Whole seconds in the largest unit that they fill: 3600 s are `1h`.
pub fn write(span: Duration) -> String {
    let seconds = span.as_secs();
    let fits = |(_, size): &&(&str, u64)| seconds >= *size && seconds.is_multiple_of(*size);
    let (unit, size) = UNITS.iter().find(fits).unwrap_or(&("s", 1));
    format!("{}{unit}", seconds / size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_whole_second_is_read_as_it_is_written(seconds in 0..=LONGEST.as_secs()) {
            let span = Duration::from_secs(seconds);
            prop_assert_eq!(parse(&write(span)), Ok(span));
        }

        #[test]
        fn every_number_with_a_unit_is_that_span_or_out_of_range(number: u64, unit in 0..UNITS.len()) {
            let (name, size) = UNITS[unit];
            let seconds = u128::from(number) * u128::from(size);
            let expected = if seconds <= u128::from(LONGEST.as_secs()) {
                Ok(Duration::from_secs(seconds as u64))
            } else {
                Err("is out of range")
            };
            prop_assert_eq!(parse(&format!("{number}{name}")), expected);
        }

        #[test]
        fn nothing_but_digits_and_a_unit_is_read(text in "\\PC{0,12}") {
            let well_formed = text.len() > 1
                && text.ends_with(['s', 'm', 'h', 'd'])
                && text[..text.len() - 1].bytes().all(|b| b.is_ascii_digit());
            prop_assert!(well_formed || parse(&text).is_err(), "{}", text);
        }
    }
}
