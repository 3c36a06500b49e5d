//! Moments, as clocks tell them that are not quite the same.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// How far two clocks of a cluster may be apart.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(15);

/// A moment later, or the last one that there is: annotations and the clocks of others may hold any time.
pub fn later(moment: Timestamp, by: SignedDuration) -> Timestamp {
    moment.saturating_add(by).unwrap_or(Timestamp::MAX)
}
