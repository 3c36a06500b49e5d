//! When to try again: later each time, and not all resources at once.

use std::time::Duration;

use super::observed::{Observed, Trouble};
use super::plan::Requeue;

/// Retries of something that a person has to correct: from half a minute to five.
pub(super) fn blocked_retry(o: &Observed) -> Requeue {
    Requeue::Retry(backoff(o, 30, 300))
}

/// Doubles from `first` to `last` seconds with the retries so far, a tenth more or less by resource.
pub(super) fn backoff(o: &Observed, first: u64, last: u64) -> Duration {
    let seconds = first.saturating_mul(1 << o.memory.retries.min(16)).min(last);
    Duration::from_millis(seconds * u64::from(900 + jitter(&o.uid) % 200))
}

pub(super) fn asked_to_wait(trouble: Option<&Trouble>) -> Duration {
    trouble.and_then(|trouble| trouble.retry_after).unwrap_or_default()
}

/// Spreads resources evenly, the same for each of them at any time.
pub(super) fn jitter(uid: &str) -> u32 {
    uid.bytes().fold(0, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)))
}
