//! Arithmetic with moments that come from different clocks.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp, TimestampArithmetic};

/// How far two clocks of a cluster may be apart.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(15);

/// A moment later, at most the last one that can be represented: annotations and foreign clocks may hold any time.
pub fn later(moment: Timestamp, by: impl Into<TimestampArithmetic>) -> Timestamp {
    moment.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// A moment earlier, at least the first one that can be represented.
pub fn earlier(moment: Timestamp, by: impl Into<TimestampArithmetic>) -> Timestamp {
    moment.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

/// A moment as a message names it.
pub fn moment_text(moment: Timestamp) -> String {
    moment.strftime("%FT%TZ").to_string()
}

/// A length of time as people write it, in at most two units: `4.2s`, `45s`, `1m30s`, `2h5m`, `3d4h`.
pub fn duration_text(length: Duration) -> String {
    let seconds = length.as_secs();
    let two = |large: u64, unit: char, small: u64, of: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{of}"),
    };
    match seconds {
        0..10 => format!("{seconds}.{}s", length.subsec_millis() / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, 'm', seconds % 60, 's'),
        3600..86_400 => two(seconds / 3600, 'h', seconds % 3600 / 60, 'm'),
        _ => two(seconds / 86_400, 'd', seconds % 86_400 / 3600, 'h'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_written_as_people_write_it() {
        for (millis, expected) in [
            (0, "0.0s"),
            (4_270, "4.2s"),
            (9_999, "9.9s"),
            (10_000, "10s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (90_000, "1m30s"),
            (3_600_000, "1h"),
            (7_500_000, "2h5m"),
            (273_600_000, "3d4h"),
        ] {
            assert_eq!(duration_text(Duration::from_millis(millis)), expected);
        }
    }
}
