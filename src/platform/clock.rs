//! Times, by clocks that differ slightly.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// How far two clocks of a cluster may differ.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(15);

/// A later time, or the last possible one: annotations and the clocks of others may hold any time.
pub fn later(moment: Timestamp, by: SignedDuration) -> Timestamp {
    moment.saturating_add(by).unwrap_or(Timestamp::MAX)
}
