//! Who leads: what to do about the Lease, from what was seen of it. No I/O here; `elector.rs` has that.
//!
//! No wall clocks are compared. A candidate may take the Lease once nobody has changed it for as long as it
//! says, measured from when this candidate first saw it so; and the leader stops acting
//! [earlier than that](HELD_FOR), measured from when it sent its last write that succeeded. What it sent was seen
//! by others only later, so the leader's time is over first, unless clocks run at speeds a sixth apart. Every write
//! names the version that it replaces, so of two candidates one gets a conflict.
//!
//! The Lease keeps two operators from working on the same things. It cannot keep a call that has been sent from
//! being carried out late: for that there are claims.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

/// For how long others leave a Lease alone that does not change.
pub const LASTS: Duration = Duration::from_secs(10);
/// For how long after it sent its last successful write the leader acts.
pub const HELD_FOR: Duration = Duration::from_secs(7);
/// How long the leader rests between renewals.
pub const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How often a candidate looks, and the leader when a renewal failed.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long one call about the Lease may take.
pub const CALL: Duration = Duration::from_secs(2);

/// The holder of a Lease that is new. It renews nothing, so its time is soon over.
pub const NOBODY: &str = "nobody-yet";

/// The Lease at one moment; the default is that there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its resource version; none if there is no Lease.
    pub version: Option<String>,
    /// Who holds it; empty if nobody does.
    pub holder: String,
    /// For how long it is to be left alone, by its own word.
    pub lasts: Option<Duration>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read the Lease.
    Look,
    /// Create it in the name of [`NOBODY`], whom it is taken from later: where there is no Lease, somebody may have
    /// deleted it, and its holder not know yet.
    Create,
    /// Write it, with this process as the holder, on condition that it is still what was last seen.
    Write,
    /// Another leads, or may: look again later.
    Wait,
    /// This process led and does so no longer.
    End(Lost),
}

/// Why this process leads no longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It could not renew in time, or was stopped.
    #[error("it was not renewed for {} s", HELD_FOR.as_secs())]
    Late,
    /// Somebody else wrote it.
    #[error("its holder is \"{0}\" now")]
    Taken(String),
    /// Somebody deleted it.
    #[error("it was deleted")]
    Deleted,
}

/// One process that leads or would.
#[derive(Clone, Debug)]
pub struct Candidate {
    name: String,
    record: Record,
    /// When the record was first seen as it is.
    since: Instant,
    /// Whether the record is known to be the Lease's latest state, as far as anybody can know.
    fresh: bool,
    /// Until when this process leads.
    until: Option<Instant>,
}

impl Candidate {
    /// One who has seen nothing yet; `name` is nobody else's, also not that of this program's next process.
    pub fn new(name: String, now: Instant) -> Self {
        Self { name, record: Record::default(), since: now, fresh: false, until: None }
    }

    /// What to do now.
    pub fn next(&self, now: Instant) -> Next {
        let ours = self.record.holder == self.name;
        match self.until {
            Some(until) if now >= until => Next::End(Lost::Late),
            _ if !self.fresh => Next::Look,
            Some(_) if ours => Next::Write,
            Some(_) if self.record.version.is_none() => Next::End(Lost::Deleted),
            Some(_) => Next::End(Lost::Taken(self.record.holder.clone())),
            None if self.record.version.is_none() => Next::Create,
            // It is ours where a write took effect whose answer was lost.
            None if ours || self.is_free(now) => Next::Write,
            None => Next::Wait,
        }
    }

    /// Whether nobody acts on it: it was released, or not renewed.
    fn is_free(&self, now: Instant) -> bool {
        // Whatever it says: a leader acts for some seconds, and one that is dead is not waited for long.
        let lasts = self.record.lasts.unwrap_or(LASTS).clamp(LASTS, LASTS * 6);
        self.record.holder.is_empty() || now.saturating_duration_since(self.since) >= lasts
    }

    /// The Lease was read.
    pub fn looked(&mut self, record: Record, now: Instant) {
        if self.record != record {
            self.since = now;
            self.record = record;
        }
        self.fresh = true;
    }

    /// Time has passed, or a call failed: the Lease may be another by now.
    pub fn forget(&mut self) {
        self.fresh = false;
    }

    /// A write that was sent at `sent` has succeeded. Returns until when this process leads.
    pub fn wrote(&mut self, record: Record, sent: Instant) -> Instant {
        let until = sent + HELD_FOR;
        (self.record, self.since, self.fresh, self.until) = (record, sent, true, Some(until));
        until
    }

    /// Who holds it, as far as is known.
    pub fn holder(&self) -> &str {
        &self.record.holder
    }

    /// Until when this process leads, if it does.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the leader's last write succeeded, so that there is time until the next.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }
}

/// The time for which this process may act. Whoever is about to have an effect looks whether it is over, after
/// each await before: a process that was stopped does not notice otherwise.
#[derive(Clone, Debug)]
pub struct Term {
    /// Set when the process is to end: nothing new is begun then.
    pub stop: CancellationToken,
    /// What was created from then on, nobody but this process has worked on. By the API server's clock.
    pub since: Timestamp,
    /// When the Lease was written with which the term began, by the API server's clock.
    written: Option<Timestamp>,
    origin: Instant,
    /// Milliseconds after `origin`.
    until: Arc<AtomicU64>,
}

impl Term {
    /// One that ends with the process, where there is no election.
    pub fn unlimited(stop: CancellationToken, since: Timestamp) -> Self {
        Self { stop, since, written: None, origin: Instant::now(), until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// One that lasts until `until`, if it is not [extended](Self::extend).
    pub fn until(stop: CancellationToken, since: Timestamp, until: Instant) -> Self {
        let term = Self::unlimited(stop, since);
        term.extend(until);
        term
    }

    /// The Lease was renewed. Returns whether that was in time: passes have acted on a term that was over, and it
    /// does not come back to life.
    pub fn extend(&self, until: Instant) -> bool {
        if self.is_over() {
            return false;
        }
        let left = until.saturating_duration_since(self.origin).as_millis();
        self.until.store(u64::try_from(left).unwrap_or(u64::MAX), Ordering::Relaxed);
        true
    }

    /// What the API server's clock shows now at least; none if this process does not know. Without an election nothing was
    /// written by which it could.
    pub fn api_server_time(&self) -> Option<Timestamp> {
        let written = self.written?;
        written.saturating_add(SignedDuration::try_from(self.origin.elapsed()).ok()?).ok()
    }

    /// The Lease was written at this time by the API server's clock, before the term began.
    #[must_use]
    pub fn written(self, written: Option<Timestamp>) -> Self {
        Self { written, ..self }
    }

    /// Another leads.
    pub fn end(&self) {
        self.until.store(0, Ordering::Relaxed);
    }

    /// Whether another may act by now, so that this process must not.
    pub fn is_over(&self) -> bool {
        self.origin.elapsed().as_millis() >= u128::from(self.until.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
