//! When to try again: later each time, and not all resources at once.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::workspace::access::Connection;

/// A retry that is put off: until a moment, or until what it failed with has changed. The operator's
/// own writes wake the resource too, so a requeue alone would not put it off.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// When it is due.
    pub until: Timestamp,
    /// The generation of the spec that failed.
    pub generation: Option<i64>,
    /// The connection that it failed with.
    pub connection: Connection,
}

impl Hold {
    /// How long it still holds; none if it does not.
    pub fn left(&self, generation: Option<i64>, connection: &Connection, now: Timestamp) -> Option<Duration> {
        if self.generation != generation || self.connection != *connection {
            return None;
        }
        Duration::try_from(self.until.duration_since(now)).ok().filter(|left| !left.is_zero())
    }
}

/// Doubles from `first` to `last` seconds with the retries so far, a tenth more or less by resource.
pub fn backoff(retries: u32, uid: &str, first: u64, last: u64) -> Duration {
    let seconds = first.saturating_mul(1 << retries.min(16)).min(last);
    Duration::from_millis(seconds * u64::from(900 + jitter(uid) % 200))
}

/// Spreads resources evenly, the same for each of them at any time.
pub fn jitter(uid: &str) -> u32 {
    uid.bytes().fold(0, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)))
}
