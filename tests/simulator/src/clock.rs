//! Wall-clock time with the API's resolution and format.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The current time in whole microseconds. A time that is read from an answer and sent back as a filter then compares
/// equal.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// `start + wait`, or the end of time.
pub(crate) fn after(start: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| start.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

/// The time from `start` to `end`; zero if `end` is earlier.
pub(crate) fn between(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or_default()
}

/// RFC 3339 in UTC with microseconds and `Z`, as the live API writes it.
pub(crate) fn render(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// RFC 3339. A time without an offset is UTC.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().or_else(|| {
        let local = text.parse::<DateTime>().ok()?;
        Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_fraction_digits_and_a_z() {
        let time = Timestamp::from_microsecond(1_788_724_710_688_400).unwrap();
        assert_eq!(render(time), "2026-09-06T19:58:30.688400Z");
        assert_eq!(parse(&render(time)), Some(time));
    }

    #[test]
    fn a_time_without_an_offset_is_utc() {
        assert_eq!(parse("2026-09-06T19:58:30"), parse("2026-09-06T21:58:30+02:00"));
    }

    #[test]
    fn a_wait_beyond_the_end_of_time_ends_there() {
        assert_eq!(after(now(), Duration::MAX), Timestamp::MAX);
    }
}
