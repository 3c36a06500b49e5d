//! Arithmetic with moments that come from different clocks.

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
