//! Decides whether the input of a run is complete, before a claim and before a comparison.

use k8s_openapi::jiff::Timestamp;

use crate::api::reasons::execution as reason;
use crate::execution::claim::{InputVersion, TAKE_OVER};
use crate::execution::plan::backoff::blocked_retry;
use crate::execution::plan::blocked::{arriving, blocked};
use crate::execution::plan::claim::is_consent;
use crate::execution::plan::decision::{ClusterStep, Decision, settle};
use crate::execution::state::ExecutionState;
use crate::execution::state::input::compose::{check_paths, compose};
use crate::execution::state::input::sources::{Input, InputError, changed, entries, versions};
use crate::execution::state::ownership::{Ownership, ownership};
use crate::execution::status;
use crate::platform::requeue::Requeue;

/// Checks the input before a claim. Returns the versions of its objects for the claim, or else the next decision.
pub(crate) fn ready(state: &ExecutionState, now: Timestamp) -> Result<Vec<InputVersion>, Box<Decision>> {
    if state.spec.left_out.is_some() {
        return Err(Box::new(Decision::Act(ClusterStep::ReadInput.into())));
    }
    let wanted = entries(&state.spec);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    if let Err(conflict) = check_paths(&state.spec) {
        let message = format!("{conflict}; correct the path in a new WorkflowExecution. Nothing was started.");
        let status = status::ended_without_run(state, reason::INPUT_CONFLICT, &message, now);
        return Err(Box::new(settle(state, status, Requeue::OnChange)));
    }
    let Input::Read(sources) = &state.outcomes.input else {
        return Err(Box::new(Decision::Act(ClusterStep::ReadInput.into())));
    };
    if let Err(InputError { reason, message }) = compose(&state.spec, sources) {
        if reason == reason::INPUT_NOT_FOUND
            && let Some(decision) = arriving(state, now)
        {
            return Err(Box::new(decision));
        }
        let message = format!("{message} The operator looks again within 5 minutes.");
        return Err(Box::new(blocked(state, reason, message, blocked_retry(state), now)));
    }
    let present = versions(&state.spec, sources);
    match ownership(state) {
        // A call with other values may have been sent. A call that was definitely refused or never sent does not count.
        // A claim that was lost has lost its versions too, so there is nothing to compare with.
        Ownership::Ours(claim)
            if !state.is_refused(claim)
                && !claim.inputs.is_empty()
                && claim.inputs != present
                && !is_consent(state, claim) =>
        {
            let id = &claim.execution_id;
            let changed = changed(&claim.inputs, &present);
            let message = format!(
                "{changed} was changed after a start with the old content may have been sent, so nothing was started. Create another WorkflowExecution, or, to start this one with the present content, annotate this resource with {TAKE_OVER}={id}."
            );
            Err(Box::new(blocked(state, reason::INPUT_CHANGED, message, Requeue::OnChange, now)))
        }
        _ => Ok(present),
    }
}

/// What has to be read before a run that was found can be compared with the spec, if anything.
pub(crate) fn comparable(state: &ExecutionState) -> Option<Decision> {
    let has_to = state.spec.left_out.is_some() || !entries(&state.spec).is_empty();
    (has_to && matches!(state.outcomes.input, Input::NotRead)).then_some(Decision::Act(ClusterStep::ReadInput.into()))
}
