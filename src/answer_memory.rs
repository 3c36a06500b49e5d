//! Limits the memory for long responses: all tenants share the memory of the process.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Responses up to this length, in bytes, never wait: all that may be in flight take little memory.
pub const SHORT: usize = 64 << 10;
/// KiB for the long responses of all keys together.
const ALL: usize = 64 << 10;
/// KiB for the long responses of one Workspace: a tenant whose results are long waits only for itself.
const OF_A_WORKSPACE: usize = 16 << 10;
/// How long a response waits for memory.
const PATIENCE: Duration = Duration::from_secs(10);

static SHARED: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(ALL)));

/// The memory of one Workspace for long responses. Clones share it.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(OF_A_WORKSPACE)))
    }
}

impl Room {
    /// Reserves memory for a response of this many bytes: for its text as it arrives, and for the part of it that is
    /// kept. None if too little is free for long. All or nothing: two responses with half each would wait for each
    /// other.
    pub async fn take(&self, bytes: usize) -> Option<Held> {
        if bytes <= SHORT {
            return Some(Held::default());
        }
        let kib = u32::try_from(bytes.div_ceil(512)).ok()?.min(u32::try_from(OF_A_WORKSPACE).ok()?);
        let taken = async {
            // In this order: a response that waits for others of its own Workspace must not hold shared memory.
            let own = Arc::clone(&self.0).acquire_many_owned(kib).await.ok()?;
            let shared = Arc::clone(&SHARED).acquire_many_owned(kib).await.ok()?;
            Some(Held(Some(Arc::new((own, shared)))))
        };
        tokio::time::timeout(PATIENCE, taken).await.ok().flatten()
    }
}

/// Memory that a response and its clones hold.
#[derive(Clone, Debug, Default)]
pub struct Held(Option<Arc<(OwnedSemaphorePermit, OwnedSemaphorePermit)>>);

impl Held {
    /// Returns what a response of this many bytes does not need.
    pub fn cut_to(self, bytes: usize) -> Self {
        let Some((mut own, mut shared)) = self.0.and_then(Arc::into_inner) else { return Self::default() };
        let needed = if bytes <= SHORT { 0 } else { bytes.div_ceil(512) };
        let spare = |permit: &OwnedSemaphorePermit| permit.num_permits().saturating_sub(needed);
        let (of_own, of_shared) = (spare(&own), spare(&shared));
        drop((own.split(of_own), shared.split(of_shared)));
        Self(Some(Arc::new((own, shared))))
    }
}

/// The reservation is not part of the response.
impl PartialEq for Held {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_long_answers_of_one_workspace_wait_for_each_other_and_for_nobody_elses() {
        let (one, other) = (Room::default(), Room::default());
        let long = 4 << 20;
        let (first, second) = (one.take(long).await.unwrap(), one.take(long).await.unwrap());
        assert!(one.take(long).await.is_none(), "its third is read as well");
        assert!(other.take(long).await.is_some());
        assert!(one.take(SHORT).await.is_some());
        drop((first, second));
        assert!(one.take(long).await.is_some());
        // A response that is longer than the memory of its Workspace has all of it to itself.
        assert!(other.take(1 << 30).await.is_some());
    }
}
