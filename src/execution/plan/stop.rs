//! Stops a run while its resource stays: for `shutdown` and for the two deadlines.
//!
//! A run that has not started is kept from starting. A started run is canceled, and terminated if it does not end. The
//! claim records the stop before the first call, so the stop outlives this process and a withdrawn request: a cancel
//! that has reached the run cannot be taken back.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::{self, READY, STARTED};
use crate::api::reasons::execution as reason;
use crate::api::{Shutdown, WorkflowExecutionStatus as Status};
use crate::clock::{CLOCK_SKEW, later, moment_text};
use crate::execution::claim::{Claim, SEND_WITHIN, StopFor};
use crate::execution::phase::{is_finished, is_started};
use crate::execution::plan::backoff::{asked_to_wait, backoff};
use crate::execution::plan::blocked::troubled;
use crate::execution::plan::claim::write;
use crate::execution::plan::decision::{Call, Decision, settle};
use crate::execution::state::ownership::{Ownership, ownership};
use crate::execution::state::{ExecutionState, Sent, StopCall};
use crate::execution::status;
use crate::mistral::wire::Execution;
use crate::mistral::{Error, Trouble, TroubleKind, when_again};
use crate::platform::requeue::Requeue;
use crate::text::{first_sentence, without_stop};

/// The longest account of what a start waited for, in bytes.
const MAX_CAUSE: usize = 2048;

/// Ends the execution without a run if nothing may be started any more; none if a start is allowed.
pub(crate) fn start_forbidden(state: &ExecutionState, now: Timestamp) -> Option<Decision> {
    let (reason, message) = match state.spec.shutdown {
        Some(shutdown) => {
            let reason = if shutdown == Shutdown::Cancel { reason::CANCELED } else { reason::TERMINATED };
            let message = "spec.shutdown was set before the run started, so it never starts. To run the workflow, create another WorkflowExecution.";
            return Some(settle(state, status::stopped_before_start(state, reason, message, now), Requeue::OnChange));
        }
        None if state.starting_deadline().is_some_and(|deadline| deadline <= now) => {
            let seconds = state.spec.starting_deadline_seconds.unwrap_or_default();
            let mut message = format!(
                "The run had not started within {seconds} s of the resource's creation (spec.startingDeadlineSeconds), and never will. To run the workflow, create another WorkflowExecution."
            );
            let ready = conditions::find(&state.status.conditions, READY);
            if let Some(obstacle) = ready.filter(|ready| ready.reason != reason::STARTING_DEADLINE_EXCEEDED) {
                // What is said there about the next try no longer holds.
                let cause = first_sentence(&obstacle.message, MAX_CAUSE);
                message = format!("{message} What it waited for ({}): {cause}", obstacle.reason);
            } else if let Some(refusal) = &state.memory.refusals.claim {
                // The status that would have reported this may have been refused as well.
                message = format!("{message} The API server refused the claim: {}", refusal.refused.said);
            }
            (reason::STARTING_DEADLINE_EXCEEDED, message)
        }
        None => return None,
    };
    Some(settle(state, status::ended_without_run(state, reason, &message, now), Requeue::OnChange))
}

/// How long until a deadline needs a reconcile, whatever else happens; none if no deadline does.
pub(crate) fn next_deadline(state: &ExecutionState, status: &Status, now: Timestamp) -> Option<Duration> {
    if is_finished(status) || state.deleted.is_some() {
        return None;
    }
    let deadline = if is_started(status) { active_deadline(state, status)? } else { state.starting_deadline()? };
    // A deadline that has passed was acted on already, or cannot be acted on now.
    Duration::try_from(deadline.duration_since(now)).ok().filter(|left| !left.is_zero())
}

/// Whether this run is to be stopped or is being stopped, so that its state is needed now.
pub(crate) fn is_due(state: &ExecutionState, now: Timestamp) -> bool {
    matches!(ownership(state), Ownership::Ours(claim) if why(state, claim, &state.status, now).is_some())
}

/// Whether somebody has requested a stop, or the operator has recorded one.
pub(crate) fn is_asked_for(state: &ExecutionState) -> bool {
    state.spec.shutdown.is_some() || matches!(ownership(state), Ownership::Ours(claim) if claim.stop_for.is_some())
}

/// The next step of stopping a run; none if the run may go on.
pub(crate) fn stop(state: &ExecutionState, run: &Execution, now: Timestamp) -> Option<Decision> {
    let Ownership::Ours(claim) = ownership(state) else { return None };
    // The status reports the start first, and that write wakes the resource again.
    if state.outcomes.sent != Sent::Nothing {
        return None;
    }
    let status = status::running(state, run, now);
    let cause = why(state, claim, &status, now)?;
    // A time left by an earlier deletion, as in a restored backup, is not when this stop began.
    let Some(since) = began(claim, now).filter(|_| claim.stop_for.is_some()) else {
        let claim = Claim { stop_since: Some(now), stop_for: Some(cause), ..claim.clone() };
        return Some(write(state, claim, false));
    };
    let grace = later(since, SignedDuration::from_secs(i64::from(state.spec.termination_grace_period_seconds)));
    let terminate = state.spec.shutdown == Some(Shutdown::Terminate) || now >= grace;
    let call = if terminate { StopCall::Terminate } else { StopCall::Cancel };
    let trouble = match &state.outcomes.stopped {
        None if state.memory.has_stopped(call, now) => None,
        None => return Some(Decision::Act(Call::Stop(call).into())),
        // The run has ended, or is not visible yet: the next poll tells which.
        Some(Ok(()) | Err(Error::NotFound(_) | Error::Conflict(_))) => None,
        Some(Err(error)) => Some(Trouble::from(error.clone())),
    };
    let cause = match cause {
        StopFor::Shutdown => "spec.shutdown is set",
        StopFor::Deadline => "The run has taken longer than spec.activeDeadlineSeconds",
    };
    let mut message = match call {
        StopCall::Cancel => format!(
            "{cause}, and the run was asked to stop. If it goes on until {}, the operator terminates it (spec.terminationGracePeriodSeconds).",
            moment_text(grace)
        ),
        StopCall::Terminate => {
            format!("{cause}, and the operator terminates the run. It polls the run until it has ended.")
        }
    };
    let requeue = match &trouble {
        Some(trouble) if trouble.kind != TroubleKind::Unavailable => return Some(troubled(state, trouble, now)),
        Some(trouble) => {
            message = format!(
                "The run has to stop, but the API cannot be used now: {}. The operator tries again {}.",
                without_stop(&trouble.message),
                when_again(trouble.retry_after, "within 30 s")
            );
            Requeue::Retry(backoff(state, 2, 30).max(asked_to_wait(Some(trouble))))
        }
        None => Requeue::After(next_look(since, grace, terminate, now)),
    };
    Some(settle(state, status::stopping(state, status, &message, now), requeue))
}

/// When the stop that the claim records began. A time in the future comes from another clock, and its grace period
/// would never end, so it does not count.
pub(crate) fn began(claim: &Claim, now: Timestamp) -> Option<Timestamp> {
    claim.stop_since.filter(|since| *since <= later(now, CLOCK_SKEW))
}

/// Polls often at first, then less, since a workflow may take its time to clean up; and once when the grace period
/// ends.
fn next_look(since: Timestamp, grace: Timestamp, terminating: bool, now: Timestamp) -> Duration {
    let (shortest, longest) = (Duration::from_secs(2), Duration::from_secs(30));
    let so_far = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    let refresh = (so_far / 4).clamp(shortest, longest);
    match Duration::try_from(grace.duration_since(now)) {
        Ok(left) if !terminating => refresh.min(left),
        _ => refresh,
    }
}

fn why(state: &ExecutionState, claim: &Claim, status: &Status, now: Timestamp) -> Option<StopFor> {
    let recorded = claim.stop_for;
    recorded
        .or_else(|| state.spec.shutdown.map(|_| StopFor::Shutdown))
        .or_else(|| active_deadline(state, status).filter(|deadline| *deadline <= now).map(|_| StopFor::Deadline))
}

fn active_deadline(state: &ExecutionState, status: &Status) -> Option<Timestamp> {
    // The deadline does not apply to somebody else's run.
    let seconds = state.spec.active_deadline_seconds.filter(|_| !state.is_read_only())?;
    let start = began_running(state, status)?;
    Some(later(start, SignedDuration::from_secs(i64::from(seconds))))
}

/// When the run began by the API's clock. That clock may be wrong, so the time is limited: not before the claim or the
/// resource's creation, whichever is earlier, and not after the status reported the start.
fn began_running(state: &ExecutionState, status: &Status) -> Option<Timestamp> {
    let start = status.start_time.as_ref()?.0;
    let not_before = match ownership(state) {
        Ownership::Ours(claim) => state.created.min(later(claim.send_before, -SEND_WITHIN)),
        _ => state.created,
    };
    let told = conditions::find(&status.conditions, STARTED).filter(|it| it.status == "True");
    // The condition's time is cut to whole seconds.
    let not_after =
        told.map_or(Timestamp::MAX, |started| later(started.last_transition_time.0, SignedDuration::from_secs(1)));
    Some(start.min(not_after).max(not_before))
}
