//! Readers of values. An error says what is wrong with the value, to be put after it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::duration;
use crate::base::secret::Secret;
use crate::memory::limiter::Rate;

pub(crate) const LIFETIMES: &str = "a whole number with a unit (s, m, h, d), such as 30s, 15m, 1h or 7d; at most 3650d";
pub(crate) const LIFETIMES_OR_OFF: &str =
    "off, or a whole number with a unit (s, m, h, d), such as 30s, 15m, 1h or 7d; at most 3650d";
pub(crate) const RATES_OR_OFF: &str =
    "off, or a number from 1 to 1000000 and a window of at most 3650d, such as 60/1m or 1000/24h";

/// In bytes.
const SHORTEST_SECRET: usize = 32;

pub(crate) fn text(field: &mut Option<String>, value: &str) -> Result<(), String> {
    *field = Some(value.to_string());
    Ok(())
}

pub(crate) fn path(field: &mut Option<PathBuf>, value: &str) -> Result<(), String> {
    *field = Some(PathBuf::from(value));
    Ok(())
}

pub(crate) fn secret(field: &mut Option<Secret>, value: &str) -> Result<(), String> {
    *field = Some(Secret::new(value.to_string()));
    Ok(())
}

pub(crate) fn signing_secret(field: &mut Option<Secret>, value: &str) -> Result<(), String> {
    if value.len() < SHORTEST_SECRET {
        return Err(format!("has {} bytes", value.len()));
    }
    secret(field, value)
}

/// A list that is separated by commas.
pub(crate) fn list<T>(value: &str, item: impl Fn(&str) -> Result<T, &'static str>) -> Result<Vec<T>, &'static str> {
    value.split(',').map(|text| item(text.trim())).collect()
}

/// `accepted` must fit into `T`.
pub(crate) fn whole_number<T: TryFrom<u64>>(value: &str, accepted: RangeInclusive<u64>) -> Result<T, String> {
    let number = value.parse().map_err(|_| "is not a whole number")?;
    let number = accepted.contains(&number).then_some(number);
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| "is out of range".to_string())
}

/// A span of time that is longer than zero.
pub(crate) fn lifetime(value: &str) -> Result<Duration, String> {
    match duration::parse(value)? {
        Duration::ZERO => Err("is out of range".to_string()),
        span => Ok(span),
    }
}

pub(crate) fn lifetime_or_off(value: &str) -> Result<Option<Duration>, String> {
    if value == "off" { Ok(None) } else { lifetime(value).map(Some) }
}

/// Reads `60/1m`.
pub(crate) fn rate_or_off(value: &str) -> Result<Option<Rate>, String> {
    if value == "off" {
        return Ok(None);
    }
    let (limit, window) = value.split_once('/').ok_or("is not a number and a window")?;
    Ok(Some(Rate { limit: whole_number(limit, 1..=1_000_000)?, window: lifetime(window)? }))
}
