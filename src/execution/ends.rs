//! Ends give way to starts: where more is to be written than the API server takes, what waits to run goes first, and what
//! has ended is told of a little later. When the last one has started, the API server has ends left to write, instead of
//! nothing until those last runs end as well.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Ends that are written at a time, beside up to 96 claims of each API key.
const AT_ONCE: usize = 16;
/// For how long an end gives way at most. An API server that is slow for one namespace holds the others up for no longer.
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
    /// Waits until an end may be written: until few others are, or it has waited for long. What is returned is to be held
    /// until it is written.
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
