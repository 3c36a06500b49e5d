//! When to try again: later each time, and not all resources at once.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;

use crate::workspace::access::{Connection, Workspace};

/// When the next pass is due, if nothing changes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// Something will wake it: a change, the Workspace, what watches the API.
    OnChange,
    /// Something will wake it, and else the time will that is then due; nothing has to be asked.
    AtLatest(Duration),
    /// After this time.
    After(Duration),
    /// After this time, which grows with each retry in a row, and not before: the operator's own
    /// writes wake the resource too.
    Retry(Duration),
    /// When the retry that was put off is due.
    Hold(Duration),
}

impl Requeue {
    /// As the controller's runtime calls it.
    pub fn action(self) -> Action {
        match self {
            Self::OnChange => Action::await_change(),
            Self::AtLatest(wait) | Self::After(wait) | Self::Retry(wait) | Self::Hold(wait) => Action::requeue(wait),
        }
    }

    /// The same, but not later than this.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        match self {
            Self::OnChange => Self::AtLatest(limit),
            Self::AtLatest(wait) => Self::AtLatest(wait.min(limit)),
            Self::After(wait) => Self::After(wait.min(limit)),
            Self::Retry(wait) => Self::Retry(wait.min(limit)),
            Self::Hold(wait) => Self::Hold(wait.min(limit)),
        }
    }
}

/// What is remembered of a resource's retries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retries {
    /// Passes in a row that ended with [`Requeue::Retry`].
    pub in_a_row: u32,
    /// Until when the next is put off.
    pub hold: Option<Hold>,
}

impl Retries {
    /// How long the next retry is put off; none if it is due.
    pub fn held(&self, generation: Option<i64>, connection: &Connection, now: Timestamp) -> Option<Duration> {
        self.hold.as_ref()?.left(generation, connection, now)
    }

    /// A pass has ended.
    pub fn settled(&mut self, requeue: Requeue, workspace: &Workspace, generation: Option<i64>, now: Timestamp) {
        match (requeue, workspace) {
            (Requeue::Hold(_), _) => {}
            (Requeue::Retry(wait), Workspace::Ready(connection)) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                let until = now.saturating_add(wait).unwrap_or(Timestamp::MAX);
                self.hold = Some(Hold { until, generation, connection: connection.clone() });
            }
            (Requeue::OnChange | Requeue::AtLatest(_) | Requeue::After(_) | Requeue::Retry(_), _) => {
                *self = Self::default();
            }
        }
    }
}

/// A retry that is put off: until a moment, or until what it failed with has changed.
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
    fn left(&self, generation: Option<i64>, connection: &Connection, now: Timestamp) -> Option<Duration> {
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
