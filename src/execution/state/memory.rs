//! What a process remembers of an execution between reconciles.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::outcomes::StopCall;
use super::refusals::Refusals;
use crate::clock::later;
use crate::execution::claim::{ClaimBackup, DOUBT};
use crate::execution::finished::left;
use crate::mistral::wire::Execution;
use crate::platform::requeue::Retries;
use crate::workspace::access::ConnectionInfo;

/// If a run goes on this long after the API accepted a stop, the stop may not have reached it. Repeating the stop does
/// no harm.
const STOP_AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// What this process remembers of a resource. Losing it costs calls, but breaks no guarantee.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// The newest claim that this process has written or seen. `kubectl replace` may drop that claim from the resource,
    /// and an older one may come back.
    pub claim: Option<Box<ClaimBackup>>,
    pub retries: Retries<ConnectionInfo>,
    /// The last stop that the API accepted, and when, to avoid repeating it.
    pub stop: Option<(StopCall, Timestamp)>,
    /// The API has said that the run exists, even if the status does not say so yet.
    pub seen: bool,
    /// This process has used a person's consent: the run of another resource is this resource's own from then on.
    pub consented: bool,
    /// The resource has finished and left the watch in this term, whatever it looks like now.
    pub left: Option<left::Memory>,
    /// Consecutive gets of the run without an answer.
    pub unanswered: u32,
    /// How often the events of the failed run were read.
    pub failure_reads: u32,
    /// The API's database id of the run, which only the list of runs contains.
    pub run_id: Option<String>,
    /// The row of the list of runs that shows the end, in case the run itself cannot be read.
    pub listed_end: Option<Box<Execution>>,
    /// The writes that the API server refuses.
    pub refusals: Refusals,
}

impl Memory {
    /// The run has ended. The claim stays in memory as long as the resource exists: if the cluster's store is restored
    /// to an earlier time, the run must not look new.
    pub fn ended(&mut self) {
        let refusals = Refusals { unrecorded: None, end: None, ..std::mem::take(&mut self.refusals) };
        *self = Self { claim: self.claim.take(), seen: self.seen, left: self.left, refusals, ..Self::default() };
    }

    /// Whether the call of the remembered claim may be in flight, or its run not be visible yet. As long as that holds,
    /// the claim is remembered even of a resource that is gone. If somebody hides the resource behind the label of
    /// finished ones, and the cluster's store is then restored to before the claim, a 404 still proves nothing.
    pub fn may_have_called(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| self.may_have_called_after(claim.first.elapsed()))
    }

    /// The same once this process has known the remembered claim for this long.
    pub(crate) fn may_have_called_after(&self, known_for: Duration) -> bool {
        let started_nothing = |claim: &ClaimBackup| claim.read_only || (claim.own && claim.refused);
        known_for < DOUBT.unsigned_abs() && self.claim.as_deref().is_some_and(|claim| !started_nothing(claim))
    }

    /// Remembers the row in which the list of runs shows the end, if there is one, and its database id.
    pub fn listed(&mut self, row: Option<Box<Execution>>) {
        let Some(row) = row else { return };
        self.run_id = row.run_id.clone().or(self.run_id.take());
        self.listed_end = Some(row);
    }

    /// Whether the API has accepted this stop, recently enough that it need not be repeated.
    pub fn has_stopped(&self, call: StopCall, now: Timestamp) -> bool {
        // A stop in the future was recorded before the clock was set back.
        self.stop.is_some_and(|(taken, at)| taken == call && at <= now && now < later(at, STOP_AGAIN))
    }
}

/// This operator process.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name in claims.
    pub name: String,
    /// Since when only this process acts. It has seen every resource created later from its creation. By the API
    /// server's clock if there is a leader election, otherwise by its own.
    pub since: Timestamp,
    /// The earliest time that the API server's clock may show now. None if this process does not know.
    pub api_server_time: Option<Timestamp>,
}
