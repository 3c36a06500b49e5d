//! What a process remembers of an execution between passes.

use super::*;
use crate::clock::later;
use crate::execution::claim::Known;
use crate::execution::plan::refused_writes::Refusals;
use crate::mistral::wire::Execution;
use crate::platform::requeue::Retries;
use crate::workspace::access::Connection;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A run that goes on this long after a stop that the API took may never have heard of it: asking again does no harm.
const STOP_AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// What this process remembers of a resource. Losing it costs calls, never a promise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// The newest claim that this process has written or seen: `kubectl replace` may have dropped it, and an older one
    /// come back.
    pub claim: Option<Box<Known>>,
    /// Its retries.
    pub retries: Retries<Connection>,
    /// The stop that the API has last taken, and when, to not ask twice.
    pub stop: Option<(StopCall, Timestamp)>,
    /// The API has said that the run exists, even if the status does not say so yet.
    pub seen: bool,
    /// Questions about the run in a row without an answer.
    pub unanswered: u32,
    /// How often the events of the failed run were read.
    pub failure_reads: u32,
    /// The API's database id of the run, which only the list of runs tells.
    pub run_id: Option<String>,
    /// What the list of runs says of the run's end, should the run itself not be readable.
    pub listed_end: Option<Box<Execution>>,
    /// What the API server refuses to write.
    pub refusals: Refusals,
}

impl Memory {
    /// The run has ended. What was claimed stays for as long as the resource is there: should the cluster's store be
    /// restored to a time before that, the run must not look new.
    pub fn ended(&mut self) {
        let refusals = Refusals { unrecorded: None, end: None, ..std::mem::take(&mut self.refusals) };
        *self = Self { claim: self.claim.take(), seen: self.seen, refusals, ..Self::default() };
    }

    /// The list of runs has told of the run, if it has: with the end in it, and the database id.
    pub fn listed(&mut self, row: Option<Box<Execution>>) {
        let Some(row) = row else { return };
        self.run_id = row.run_id.clone().or(self.run_id.take());
        self.listed_end = Some(row);
    }

    /// Whether the API has taken this stop, and not so long ago that it has to be repeated.
    pub fn has_stopped(&self, call: StopCall, now: Timestamp) -> bool {
        // One in the future was taken by a clock that has been set back since.
        self.stop.is_some_and(|(taken, at)| taken == call && at <= now && now < later(at, STOP_AGAIN))
    }
}

/// This operator process.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name in claims.
    pub name: String,
    /// Since when nobody but it works: what was created later, it has seen from its beginning. By the API server's
    /// clock where there is an election, else by its own.
    pub since: Timestamp,
    /// What the API server's clock shows now at least; none if this process does not know.
    pub api_server_time: Option<Timestamp>,
}
