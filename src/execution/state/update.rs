//! How the outcome of a step updates what is known.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::ExecutionState;
use super::outcomes::{Comparison, FailureText, Remote, StopCall, Target, failure_text};
use super::refusals::Write;
use super::start_answer::Sent;
use crate::api::WorkflowExecutionStatus as Status;
use crate::execution::claim::{Claim, ClaimAnnotation};
use crate::execution::phase::is_finished;
use crate::mistral::wire::{Event, Execution};
use crate::mistral::{Error, Trouble};
use crate::platform::refused::Refused;
use crate::platform::requeue::{Refusal, Requeue};

impl ExecutionState {
    /// The reconcile ends: remembers when the next retry is due.
    pub fn settled(&mut self, requeue: Requeue, now: Timestamp) {
        self.memory.retries.settled(requeue, self.workspace.connection(), self.generation, now);
    }

    /// A claim was written. `claimed_this_reconcile` means that its call is to be sent in this reconcile.
    pub fn claimed(&mut self, claim: Claim, claimed_this_reconcile: bool) {
        if self.execution_id() != claim.execution_id {
            // The answer was about another run.
            self.outcomes.remote = Remote::NotFetched;
        }
        let known = self.known(&claim);
        if self.memory.claim.as_ref().is_none_or(|before| before.first != known.first) {
            self.known_for = Duration::ZERO;
            self.claim_age = None;
        }
        self.memory.claim = Some(Box::new(known));
        self.memory.retries.hold = None;
        (self.memory.refusals.claim, self.memory.refusals.unrecorded) = (None, None);
        self.recorded = ClaimAnnotation::Claim(Box::new(claim.clone()));
        self.annotation = ClaimAnnotation::Claim(Box::new(claim));
        self.outcomes.claimed_this_reconcile = claimed_this_reconcile;
    }

    /// The reconcile has waited for the run to end, and fetched it (`outcome`) if it seemed to have ended.
    pub fn lingered(&mut self, outcome: Option<Result<Execution, Error>>) {
        self.outcomes.lingered = true;
        // What the API said before the start no longer holds.
        self.outcomes.remote = Remote::NotFetched;
        if let Some(outcome) = outcome {
            self.fetched(outcome);
        }
    }

    /// The run was fetched from the API.
    pub fn fetched(&mut self, outcome: Result<Execution, Error>) {
        // A run exists if its answer cannot be read.
        self.memory.seen |= matches!(outcome, Err(Error::Unreadable { .. }));
        self.outcomes.remote = match outcome {
            Ok(execution) => Remote::Found(Box::new(execution)),
            Err(Error::NotFound(said)) if said.is_no_execution() => Remote::Absent,
            Err(Error::NotFound(said)) => Remote::Unknown(said.not_the_apis_own()),
            Err(error) => Remote::Unknown(Trouble::from(error)),
        };
        match self.outcomes.remote {
            Remote::Unknown(_) => self.memory.unanswered = self.memory.unanswered.saturating_add(1),
            // The row is needed only while the run itself cannot be read.
            _ => (self.memory.unanswered, self.memory.listed_end) = (0, None),
        }
        self.memory.seen |= matches!(self.outcomes.remote, Remote::Found(_));
    }

    /// The workflow or registration was fetched from the API.
    pub fn target_fetched(&mut self, outcome: Result<Target, Error>) {
        self.outcomes.target = match outcome {
            Ok(target) => target,
            Err(Error::NotFound(_)) => Target::Absent,
            Err(error) => Target::Unknown(Trouble::from(error)),
        };
    }

    /// The events of a failed run were read. Errors are ignored, since the text is optional.
    pub fn failure_read(&mut self, outcome: Result<Vec<Event>, Error>) {
        self.memory.failure_reads = self.memory.failure_reads.saturating_add(1);
        self.outcomes.failure = FailureText::Read(outcome.ok().and_then(|events| failure_text(&events)));
    }

    /// The API was asked to stop the run.
    pub fn stop_sent(&mut self, call: StopCall, outcome: Result<(), Error>, now: Timestamp) {
        if outcome.is_ok() {
            self.memory.stop = Some((call, now));
        }
        self.outcomes.stopped = Some(outcome);
    }

    /// The run that was found was compared with what the spec asks for.
    pub fn compared(&mut self, comparison: Comparison) {
        self.outcomes.comparison = comparison;
    }

    /// The call that starts the run was made.
    pub fn sent(&mut self, answer: Result<Execution, Error>) {
        self.outcomes.claimed_this_reconcile = false;
        self.outcomes.sent = Sent::from(answer);
        self.memory.seen |= matches!(self.outcomes.sent, Sent::Accepted(_) | Sent::AlreadyStarted);
        self.started_nothing(matches!(self.outcomes.sent, Sent::Refused(_) | Sent::NotStarted(_)));
    }

    /// The claim was too old to send its call.
    pub fn too_late(&mut self) {
        self.outcomes.claimed_this_reconcile = false;
        self.outcomes.sent = Sent::TooLate;
        self.started_nothing(true);
    }

    fn started_nothing(&mut self, is_known: bool) {
        if let Some(known) = &mut self.memory.claim {
            known.refused = is_known;
        }
    }

    /// Remembers that the API server has refused this write.
    pub fn refused(&mut self, write: Write, refused: Refused, now: Timestamp) {
        let last = self.memory.refusals.of(write);
        let next = Refusal::once_more(last.as_deref(), refused, &self.version, &self.uid, now);
        *last = Some(Box::new(next));
    }

    /// The API server refuses this claim, so it is not on the resource. A claim whose call would follow is dropped; any
    /// other is acted on anyway.
    pub fn unclaimed(&mut self, claim: Claim, send: bool) {
        if !send {
            self.memory.claim = Some(Box::new(self.known(&claim)));
            self.memory.refusals.unrecorded = Some(Box::new((claim.clone(), self.recorded.clone())));
            self.annotation = ClaimAnnotation::Claim(Box::new(claim));
        }
    }

    /// The operator has written to the resource, which has this version now.
    pub fn wrote(&mut self, version: &str) {
        for write in [Write::Claim, Write::Finalizer, Write::Status, Write::Deletion, Write::Label] {
            if let Some(refusal) = self.memory.refusals.of(write) {
                refusal.follow(&self.version, version);
            }
        }
        version.clone_into(&mut self.version);
    }

    /// The finalizer was added or removed.
    pub fn finalizer_set(&mut self, present: bool) {
        self.finalizer = present;
        self.memory.refusals.finalizer = None;
    }

    /// The status was written, or was up to date already.
    pub fn told(&mut self, status: &Status) {
        let refusals = &mut self.memory.refusals;
        // This status only announces an end that is still to be written and may be refused again.
        let ahead = refusals.end.take().is_some() && !is_finished(status);
        match &mut refusals.status {
            Some(refusal) if ahead => refusal.make_due(),
            _ => (refusals.status, refusals.told) = (None, None),
        }
    }
}
