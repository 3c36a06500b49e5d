//! Decides from the Lease who leads and what to do next. This module does no I/O; `elector.rs` does.
//!
//! No wall clocks are compared. A candidate may take the Lease once nobody has changed it for as long as the Lease
//! says, measured from when this candidate first saw the present state. The leader stops acting
//! [earlier than that](RENEW_DEADLINE), measured from when it sent its last successful write. Others see a write only
//! after it was sent, so the leader's time is over first, unless the clocks' speeds differ by a sixth. Every write names
//! the version that it replaces, so of two candidates one gets a conflict.
//!
//! The Lease keeps two operators from working on the same objects. It cannot keep a call that was sent from taking
//! effect late; claims exist for that.

use std::time::{Duration, Instant};

/// How long candidates leave an unchanged Lease alone.
pub const LEASE_DURATION: Duration = Duration::from_secs(10);
/// How long the leader acts after it sent its last successful write.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(7);
/// Time between the leader's renewals.
pub const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How often a candidate polls the Lease, and how often the leader retries a failed renewal.
pub const RETRY_PERIOD: Duration = Duration::from_millis(500);
/// How long one call about the Lease may take.
pub const CALL: Duration = Duration::from_secs(2);

/// The holder of a new Lease. Nobody renews in this name, so the Lease is soon free.
pub const NOBODY: &str = "nobody-yet";

/// The Lease at one moment. The default means that there is no Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The resource version; none if there is no Lease.
    pub version: Option<String>,
    /// Empty if nobody holds the Lease.
    pub holder: String,
    /// How long others are to leave the Lease alone, as the Lease states.
    pub lasts: Option<Duration>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read the Lease.
    Look,
    /// Create the Lease in the name of [`NOBODY`], from whom it is taken later. Where there is no Lease, somebody may
    /// have deleted it, and its holder may not know yet.
    Create,
    /// Write the Lease with this process as the holder, provided that it has not changed since it was last read.
    Write,
    /// Another process leads, or may lead: poll again later.
    Wait,
    /// This process led and no longer does.
    End(Lost),
}

/// Why this process no longer leads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// This process could not renew in time, or was suspended.
    #[error("it was not renewed for {} s", RENEW_DEADLINE.as_secs())]
    Late,
    /// Somebody else wrote the Lease.
    #[error("its holder is \"{0}\" now")]
    Taken(String),
    /// Somebody deleted the Lease.
    #[error("it was deleted")]
    Deleted,
}

/// A process that leads or wants to lead.
#[derive(Clone, Debug)]
pub struct Candidate {
    name: String,
    record: Record,
    /// When the present state of the record was first seen.
    since: Instant,
    /// Whether the record is the latest state of the Lease, as far as anybody can know.
    fresh: bool,
    /// Until when this process leads.
    until: Option<Instant>,
}

impl Candidate {
    /// A candidate that has read nothing yet. No other process may have its name, not even a later one of this program.
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
            // The Lease is ours if a write took effect but its response was lost.
            None if ours || self.is_free(now) => Next::Write,
            None => Next::Wait,
        }
    }

    /// Whether nobody acts on the Lease: it was released, or not renewed.
    fn is_free(&self, now: Instant) -> bool {
        // A leader acts for some seconds whatever the Lease says, and nobody waits long for a dead leader.
        let lasts = self.record.lasts.unwrap_or(LEASE_DURATION).clamp(LEASE_DURATION, LEASE_DURATION * 6);
        self.record.holder.is_empty() || now.saturating_duration_since(self.since) >= lasts
    }

    /// Records that the Lease was read.
    pub fn looked(&mut self, record: Record, now: Instant) {
        if self.record != record {
            self.since = now;
            self.record = record;
        }
        self.fresh = true;
    }

    /// Records that time has passed or a call has failed: the Lease may have changed.
    pub fn forget(&mut self) {
        self.fresh = false;
    }

    /// Records a successful write that was sent at `sent`. Returns until when this process leads.
    pub fn wrote(&mut self, record: Record, sent: Instant) -> Instant {
        let until = sent + RENEW_DEADLINE;
        (self.record, self.since, self.fresh, self.until) = (record, sent, true, Some(until));
        until
    }

    /// The holder, as far as is known.
    pub fn holder(&self) -> &str {
        &self.record.holder
    }

    /// Until when this process leads, if it does.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the leader's last write succeeded, so that there is time until the next one.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
