//! Ends give way to starts. If more is to be written than the API server takes, waiting executions start first, and
//! ends are reported a little later. Once the last execution has started, the API server still has ends to write,
//! instead of nothing until the last runs end as well.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Maximum ends written at a time, besides up to 96 claims of each API key.
const AT_ONCE: usize = 16;
/// Maximum time for which an end gives way. An API server that is slow for one namespace delays the others no longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The ends that are being written.
#[derive(Debug)]
pub struct Ends(Semaphore);

impl Default for Ends {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

impl Ends {
    /// Waits until an end may be written: until few others are being written, or the time is up. The caller holds the
    /// permit until the end is written.
    pub async fn give_way(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(PATIENCE, self.0.acquire()).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_end_waits_while_many_are_written_but_not_for_ever() {
        let (ends, begun) = (Ends::default(), Instant::now());
        let mut written = Vec::new();
        for _ in 0..AT_ONCE {
            written.push(ends.give_way().now_or_never().expect("few are written").expect("none is late"));
        }
        assert!(ends.give_way().now_or_never().is_none());

        written.pop();
        let next = ends.give_way().now_or_never().expect("one is written").expect("it is not late");
        assert!(ends.give_way().await.is_none());
        assert_eq!(begun.elapsed(), PATIENCE);
        drop(next);
        assert!(ends.give_way().now_or_never().is_some());
    }
}
