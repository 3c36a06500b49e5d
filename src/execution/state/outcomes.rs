//! How the outcome of a step adds to what is known.

use super::*;
use crate::execution::claim::{Claim, ClaimAnnotation};
use crate::mistral::wire::{Event, Execution};
use crate::mistral::{Error, Trouble};
use crate::platform::requeue::Requeue;
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

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
}

/// The workflow's failure message, followed by that of the last failed activity unless it contains it: a workflow may
/// only say that an activity failed.
pub fn failure_text(events: &[Event]) -> Option<String> {
    let last = |event_type: &str| {
        events
            .iter()
            .filter(|event| event.event_type == event_type)
            .max_by_key(|event| event.event_timestamp)
            .and_then(|event| event.attributes.as_ref()?.failure.as_ref()?.message.as_deref())
            .filter(|text| !text.trim().is_empty())
    };
    match (last("WORKFLOW_EXECUTION_FAILED"), last("ACTIVITY_TASK_FAILED")) {
        (Some(workflow), Some(activity)) if !workflow.contains(activity) => Some(format!("{workflow}: {activity}")),
        (Some(text), _) | (None, Some(text)) => Some(text.to_owned()),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(event_type: &str, at: i64, message: &str) -> Event {
        let event = json!({
            "event_type": event_type, "event_timestamp": at, "attributes": { "failure": { "message": message } },
        });
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn a_failure_is_told_in_the_words_of_the_workflow_and_of_the_last_activity() {
        let events = [
            event("ACTIVITY_TASK_FAILED", 3, "card declined"),
            event("ACTIVITY_TASK_FAILED", 1, "first try"),
            event("WORKFLOW_EXECUTION_FAILED", 4, "Activity task failed"),
        ];
        assert_eq!(failure_text(&events).as_deref(), Some("Activity task failed: card declined"));
        assert_eq!(failure_text(&events[..1]).as_deref(), Some("card declined"));
        assert_eq!(failure_text(&[event("WORKFLOW_EXECUTION_FAILED", 4, " ")]), None);
        assert_eq!(failure_text(&[]), None);
    }
}
