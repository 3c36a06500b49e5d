//! How much memory long answers may take: that of the process is everybody's.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Answers up to this length, in bytes, wait for nobody: as many as may be under way take little.
pub const SHORT: usize = 64 << 10;
/// KiB for the long answers of all keys together.
const ALL: usize = 64 << 10;
/// KiB for those of one key: a tenant whose results are long waits for itself.
const OF_A_KEY: usize = 16 << 10;
/// How long an answer waits for room.
const PATIENCE: Duration = Duration::from_secs(10);

static SHARED: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(ALL)));

/// The room that one key has for long answers. Clones share it.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(OF_A_KEY)))
    }
}

impl Room {
    /// Room for an answer of so many bytes: its text as it comes, and the part of it that is kept. None if there is none
    /// for long. Taken at once, never bit by bit: two that each hold a half would wait for each other.
    pub async fn take(&self, bytes: usize) -> Option<Held> {
        if bytes <= SHORT {
            return Some(Held::default());
        }
        let kib = u32::try_from(bytes.div_ceil(512)).ok()?.min(u32::try_from(OF_A_KEY).ok()?);
        let taken = async {
            // In this order: whoever waits for the others of its key keeps nobody else waiting.
            let own = Arc::clone(&self.0).acquire_many_owned(kib).await.ok()?;
            let shared = Arc::clone(&SHARED).acquire_many_owned(kib).await.ok()?;
            Some(Held(Some(Arc::new((own, shared)))))
        };
        tokio::time::timeout(PATIENCE, taken).await.ok().flatten()
    }
}

/// Room that is held by an answer, and by its clones.
#[derive(Clone, Debug, Default)]
pub struct Held(Option<Arc<(OwnedSemaphorePermit, OwnedSemaphorePermit)>>);

impl Held {
    /// Gives back what an answer of so many bytes does not need.
    pub fn cut_to(self, bytes: usize) -> Self {
        let Some((mut own, mut shared)) = self.0.and_then(Arc::into_inner) else { return Self::default() };
        let needed = if bytes <= SHORT { 0 } else { bytes.div_ceil(512) };
        let spare = |permit: &OwnedSemaphorePermit| permit.num_permits().saturating_sub(needed);
        let (of_own, of_shared) = (spare(&own), spare(&shared));
        drop((own.split(of_own), shared.split(of_shared)));
        Self(Some(Arc::new((own, shared))))
    }
}

/// It is no part of what was answered.
impl PartialEq for Held {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_long_answers_of_one_key_wait_for_each_other_and_for_nobody_elses() {
        let (one, other) = (Room::default(), Room::default());
        let long = 4 << 20;
        let (first, second) = (one.take(long).await.unwrap(), one.take(long).await.unwrap());
        assert!(one.take(long).await.is_none(), "its third is read as well");
        assert!(other.take(long).await.is_some());
        assert!(one.take(SHORT).await.is_some());
        drop((first, second));
        assert!(one.take(long).await.is_some());
        // One that is longer than the room of its key has it to itself.
        assert!(other.take(1 << 30).await.is_some());
    }
}
