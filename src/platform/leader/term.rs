//! The time for which a process leads, as its reconciles see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

/// The time for which this process may act. Code checks whether the term is over before each effect, and after each
/// await that precedes one: a process that was suspended does not notice otherwise.
#[derive(Clone, Debug)]
pub struct Term {
    /// Cancelled when the process is to end: nothing new is begun then.
    pub stop: CancellationToken,
    /// Only this process has worked on objects created after this time, by the API server's clock.
    pub since: Timestamp,
    /// When the Lease write that began the term was made, by the API server's clock.
    written: Option<Timestamp>,
    origin: Instant,
    /// Milliseconds after `origin`.
    until: Arc<AtomicU64>,
}

impl Term {
    /// A term that ends with the process, for use without an election.
    pub fn unlimited(stop: CancellationToken, since: Timestamp) -> Self {
        Self { stop, since, written: None, origin: Instant::now(), until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// A term that lasts until `until`, unless it is [extended](Self::extend).
    pub fn until(stop: CancellationToken, since: Timestamp, until: Instant) -> Self {
        let term = Self::unlimited(stop, since);
        term.extend(until);
        term
    }

    /// Extends the term after a renewal. Returns whether that was in time: a term that is over stays over, since
    /// reconciles have acted on it.
    pub fn extend(&self, until: Instant) -> bool {
        if self.is_over() {
            return false;
        }
        let left = until.saturating_duration_since(self.origin).as_millis();
        self.until.store(u64::try_from(left).unwrap_or(u64::MAX), Ordering::Relaxed);
        true
    }

    /// The earliest time that the API server's clock can show now. None if unknown: without an election, no write has
    /// shown the time.
    pub fn api_server_time(&self) -> Option<Timestamp> {
        let written = self.written?;
        written.saturating_add(SignedDuration::try_from(self.origin.elapsed()).ok()?).ok()
    }

    /// Sets when the Lease was written before the term began, by the API server's clock.
    #[must_use]
    pub fn written(self, written: Option<Timestamp>) -> Self {
        Self { written, ..self }
    }

    /// Ends the term because another process may lead.
    pub fn end(&self) {
        self.until.store(0, Ordering::Relaxed);
    }

    /// Whether another process may act by now, so that this one must not.
    pub fn is_over(&self) -> bool {
        self.origin.elapsed().as_millis() >= u128::from(self.until.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_term_is_over_when_its_time_is_and_not_before() {
        let stop = CancellationToken::new();
        assert!(!Term::unlimited(stop.clone(), Timestamp::UNIX_EPOCH).is_over());
        let term = Term::until(stop, Timestamp::UNIX_EPOCH, Instant::now());
        let other = term.clone();
        assert!(other.is_over());
        assert!(!term.extend(Instant::now() + MINUTE) && other.is_over(), "what is over stays over");
        let term = Term::until(CancellationToken::new(), Timestamp::UNIX_EPOCH, Instant::now() + MINUTE);
        assert!(term.extend(Instant::now() + 2 * MINUTE) && !term.is_over());
        term.end();
        assert!(term.is_over());
    }
}
