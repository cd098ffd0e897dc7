//! The time: one type for an instant, one source of "now" that tests can move.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

/// An instant in UTC, to the millisecond: the precision that answers show and both databases keep.
///
/// Written as RFC 3339 with milliseconds and `Z`, which sorts as text up to the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const EPOCH: Timestamp = Timestamp(0);
    /// The earliest instant that RFC 3339 can write: the start of the year 0.
    pub(crate) const FIRST: Timestamp = Timestamp(-62_167_219_200_000);
    /// The latest instant that RFC 3339 can write: the end of the year 9999.
    pub(crate) const LAST: Timestamp = Timestamp(253_402_300_799_999);

    /// `None` outside the years that [`DateTime`] can hold.
    pub fn from_millis(millis: i64) -> Option<Timestamp> {
        DateTime::from_timestamp_millis(millis).map(|_| Timestamp(millis))
    }

    /// Reads RFC 3339 with any offset; `None` for anything else and for years beyond 0 to 9999 in UTC.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let instant = Timestamp(DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis());
        // The year is checked as it will be written: a leap second counts as the next day, which may be in the next
        // year.
        (Timestamp::FIRST..=Timestamp::LAST).contains(&instant).then_some(instant)
    }

    /// Reads `2030-01-31`, which is its midnight in UTC.
    pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
        if text.len() == "2030-01-31".len() { Timestamp::parse(&format!("{text}T00:00:00Z")) } else { None }
    }

    /// Milliseconds since the epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, as JWTs count (RFC 7519 §2, NumericDate).
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    pub fn plus(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    pub fn minus(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The start of the span that this instant lies in (such as an hour or a day in UTC), counted from the epoch.
    pub fn start_of(self, span: Duration) -> Timestamp {
        let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX).max(1);
        Timestamp(self.0.div_euclid(span) * span)
    }

    pub(crate) fn to_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(instant: DateTime<Utc>) -> Timestamp {
        Timestamp(instant.timestamp_millis())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_datetime().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where "now" comes from. Clones share one time.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    ahead_millis: Arc<AtomicI64>,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// The system's time; the clock was made at this instant.
    System(Instant),
    /// Always this time.
    Stopped(Timestamp),
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { source: Source::System(Instant::now()), ahead_millis: Arc::default() }
    }
}

impl Clock {
    /// A clock that only [`Clock::advance`] moves. For tests, whose outcome must not depend on how long they take.
    pub fn stopped() -> Clock {
        Clock { source: Source::Stopped(system_time()), ahead_millis: Arc::default() }
    }

    pub fn now(&self) -> Timestamp {
        let now = match self.source {
            Source::System(_) => system_time(),
            Source::Stopped(then) => then,
        };
        Timestamp(now.0 + self.ahead_millis.load(Ordering::Relaxed))
    }

    /// Whether it follows the system's time. Then instances that share a database judge by the database's clock
    /// instead.
    pub(crate) fn is_the_systems(&self) -> bool {
        matches!(self.source, Source::System(_))
    }

    /// The time since this clock was made. It never goes back, even when the system's time is set.
    pub(crate) fn elapsed(&self) -> Duration {
        let gone = match self.source {
            Source::System(started) => started.elapsed(),
            Source::Stopped(_) => Duration::ZERO,
        };
        gone + self.advanced()
    }

    /// How far [`Clock::advance`] has moved it in all.
    pub(crate) fn advanced(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.ahead_millis.load(Ordering::Relaxed)).unwrap_or(0))
    }

    /// Moves this clock ahead of the system's. For tests: nothing in the server calls it.
    pub fn advance(&self, span: Duration) {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        self.ahead_millis.fetch_add(millis, Ordering::Relaxed);
    }
}

fn system_time() -> Timestamp {
    // A system clock before 1970 counts as 1970.
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_and_written_as_utc() {
        let instant = Timestamp::parse("2026-01-01T01:30:00+01:30").unwrap();
        assert_eq!(instant.to_string(), "2026-01-01T00:00:00.000Z");
    }

    #[test]
    fn the_first_instant_and_the_last_are_those_of_the_years_0_and_9999() {
        assert_eq!(Timestamp::FIRST.to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::LAST.to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_would_not_sort_as_text_or_has_no_offset_is_refused() {
        for text in
            ["9999-12-31T23:59:59-12:00", "0000-01-01T00:00:00+00:01", "2026-01-01T00:00:00", "2026-01-01", "", "now"]
        {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_leap_second_is_the_second_after_it_and_the_year_9999_has_none() {
        let instant = Timestamp::parse("2016-12-31T23:59:60.500Z").unwrap();
        assert_eq!(instant.to_string(), "2017-01-01T00:00:00.500Z");
        assert_eq!(Timestamp::parse("9999-12-31T23:59:60Z"), None);
    }
}
