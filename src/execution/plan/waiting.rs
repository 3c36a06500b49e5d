//! What an execution shows while it waits for its turn: no row of `kubectl get` stays blank.
//!
//! Most executions start within a moment, and a write that only says that they wait would be wasted. So the first
//! status is written after a few seconds, and only so many a second (`report_turns.rs`).

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::Progress;
use crate::api::reasons::execution as reason;
use crate::clock::{later, moment_text};
use crate::execution::phase::is_started;
use crate::execution::plan::decision::{ClusterStep, Decision, ready_reason, settle};
use crate::execution::state::input::Input;
use crate::execution::state::{ExecutionState, Report, WorkflowRefState};
use crate::execution::status;
use crate::platform::requeue::Requeue;
use crate::throttle::Place;
use crate::workspace::access::Workspace;
use crate::workspace::permit;

/// How long a row may stay blank. People and tools get five seconds, and the write takes some of them.
pub(crate) const BLANK_FOR: SignedDuration = SignedDuration::from_secs(4);

/// How long until the status has to say something; none if it already does, or nobody reads it any more.
pub(crate) fn blank_left(state: &ExecutionState, now: Timestamp) -> Option<Duration> {
    let is_blank = ready_reason(&state.status).is_none() && state.deleted.is_none();
    let left = later(state.created, BLANK_FOR).duration_since(now).min(BLANK_FOR);
    is_blank.then(|| Duration::try_from(left).unwrap_or_default())
}

/// How long until the status has to say that the execution waits in the queue, where it has been for as long as
/// `waited`; none if the status need not say so.
pub(crate) fn report_due(state: &ExecutionState, waited: Duration, now: Timestamp) -> Option<Duration> {
    let outdated = is_outdated(state).then(|| BLANK_FOR.unsigned_abs().saturating_sub(waited));
    blank_left(state, now).or(outdated)
}

/// Whether the status names a cause in this cluster that has kept the run from starting, and that is gone.
fn is_outdated(state: &ExecutionState) -> bool {
    if state.deleted.is_some() || is_started(&state.status) {
        return false;
    }
    match ready_reason(&state.status) {
        Some(reason::SUSPENDED) => !state.spec.suspend,
        Some(reason::WORKSPACE_NOT_FOUND | reason::WORKSPACE_NOT_READY) => {
            matches!(state.workspace, Workspace::Ready(_))
        }
        Some(reason::WORKFLOW_NOT_FOUND | reason::WORKFLOW_NOT_READY) => {
            matches!(state.workflow_ref, WorkflowRefState::NotNamed | WorkflowRefState::Ready { .. })
        }
        // It was read in this reconcile, and the plan went on.
        Some(reason::INPUT_NOT_FOUND | reason::INPUT_FORBIDDEN | reason::INPUT_INVALID) => {
            matches!(state.outcomes.input, Input::Read(_))
        }
        _ => false,
    }
}

/// Calls of the same key go first: reports the place in the queue.
pub(crate) fn queued(state: &ExecutionState, place: Place, now: Timestamp) -> Decision {
    let Place { ahead, limit, rate } = place;
    let slower = if rate < limit { format!(", and the API takes only {rate:.1} now") } else { String::new() };
    let ahead = match ahead {
        0 => "it was the next call with its API key".to_owned(),
        _ => format!("about {ahead} calls with the same API key were ahead of it"),
    };
    let message = format!(
        "The start waits for its turn: at {}, {ahead}; the limit is {limit:.0} a second{slower}. It starts by itself. If Mistral allows more, raise the limit (spec.requestsPerSecond of the Workspace, or the operator's --max-requests-per-second).",
        moment_text(now)
    );
    let status = status::not_started(state, Progress::Working, reason::QUEUED, message, now);
    // The queue wakes the execution. What is remembered of retries stays.
    settle(state, status, Requeue::Hold(permit::RECHECK_AFTER))
}

/// The Workspace has not been checked since this process started.
pub(crate) fn unchecked(state: &ExecutionState, now: Timestamp) -> Decision {
    match (blank_left(state, now), state.outcomes.report) {
        (None, _) => settle(state, state.status.clone(), Requeue::OnChange),
        (Some(Duration::ZERO), Report::NotAsked) => Decision::Act(ClusterStep::MayReport.into()),
        (Some(Duration::ZERO), _) => {
            let message = format!(
                "The operator is checking the key of Workspace \"{}\". The run starts once the Workspace is ready.",
                state.spec.workspace_ref.name
            );
            let status = status::not_started(state, Progress::Working, reason::WORKSPACE_NOT_READY, message, now);
            settle(state, status, Requeue::OnChange)
        }
        (Some(left), _) => settle(state, state.status.clone(), Requeue::After(left)),
    }
}
