//! Decides the next step of a run from what is known. No I/O here.
//!
//! A reconcile calls [`plan`], carries out the step, folds its outcome into [`ExecutionState`] and calls [`plan`] again,
//! until it settles. A reconcile changes at most one thing at the API. Two rules keep a run from starting twice.
//! Nothing is sent without a claim written in the same reconcile. Unless this process has seen the resource since its
//! creation, it first gets the run from the API, and believes that there is none only once no earlier call can still be
//! in flight.

pub mod backoff;
pub mod blocked;
pub mod claim;
pub mod decision;
pub mod delete;
pub mod finish;
pub mod follow;
pub mod input;
pub mod priority;
pub mod refused_writes;
pub mod result;
pub mod start;
pub mod stop;
pub mod waiting;

#[cfg(test)]
mod promise_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;

use k8s_openapi::jiff::Timestamp;

use crate::api::reasons::execution as reason;
use crate::execution::phase::{is_finished, is_started};
use crate::execution::state::ownership::{Ownership, ownership};
use crate::execution::state::refusals::Write;
use crate::execution::state::{ExecutionState, Report};
use crate::platform::requeue::Requeue;
use crate::text::without_stop;
use crate::workspace::access::{ConnectionInfo, Workspace};
use blocked::{claim_unreadable, missing, suspended, workspace_changed};
use claim::write;
use decision::settle;
pub use decision::{Call, ClusterStep, Decision, Settled, Step};
use follow::{read, running};
use start::{begin, consented, resolve_predecessors_claim, resume, take_over};

/// The next step.
pub fn plan(state: &ExecutionState, now: Timestamp) -> Decision {
    match decide(state, now) {
        Decision::Settle(mut settled) => {
            if let Some(left) = stop::next_deadline(state, &settled.status, now) {
                settled.requeue = settled.requeue.within(left);
            }
            if let Some(left) = refused_writes::next_retry(state, now) {
                settled.requeue = settled.requeue.within(left);
            }
            Decision::Settle(settled)
        }
        act @ Decision::Act(_) => act,
    }
}

/// The order of these decisions is part of the promise that a run starts once: each is made only if none above holds.
fn decide(state: &ExecutionState, now: Timestamp) -> Decision {
    if let Some(since) = state.deleted {
        return refused_writes::release_refused(state, now).unwrap_or_else(|| delete::delete(state, since, now));
    }
    if is_finished(&state.status) {
        return finish::finished(state, now);
    }
    if let Some(decision) = refused_writes::status_refused(state, now) {
        return decision;
    }
    if let Report::Queued(place) = state.outcomes.report {
        return waiting::queued(state, place, now);
    }
    if !state.may_have_started()
        && let Some(decision) = stop::start_forbidden(state, now)
    {
        return decision;
    }
    if state.spec.suspend && !state.may_have_started() {
        return suspended(state, now);
    }
    let Some(connection) = usable_connection(state, now) else { return without_workspace(state, now) };
    if let Some(claim) = consented(state) {
        return take_over(state, claim);
    }
    if let Some(wait) = state.memory.retries.held(state.generation, connection, now) {
        return settle(state, state.status.clone(), Requeue::Hold(wait));
    }
    if let Some(decision) = refused_writes::claim_pending(state, now) {
        return decision;
    }
    if let Some(claim) = state.claimed_by().filter(|claim| state.may_be_predecessors(claim)) {
        return resolve_predecessors_claim(state, connection, claim, now);
    }
    match ownership(state) {
        Ownership::Unclaimed => begin(state, connection, now),
        Ownership::Ours(claim) | Ownership::ReadOnly(claim) | Ownership::Foreign(claim)
            if !claim.is_for(&connection.origin, connection.workspace_id.as_deref(), is_started(&state.status)) =>
        {
            workspace_changed(state, claim, now)
        }
        Ownership::Ours(_) if is_started(&state.status) => running(state, now),
        // As after a restore: writing the claim again records when it was seen on this resource.
        Ownership::Ours(claim) if state.names_another_uid(claim) && state.refusal(Write::Claim, now).is_none() => {
            write(state, claim.clone(), false)
        }
        Ownership::Ours(claim) => resume(state, connection, claim, now),
        Ownership::ReadOnly(claim) => read(state, claim, false, now),
        Ownership::Foreign(claim) => read(state, claim, true, now),
        Ownership::Unreadable => claim_unreadable(state, now),
    }
}

/// The connection to call the API with; none if the Workspace has none.
fn usable_connection(state: &ExecutionState, now: Timestamp) -> Option<&ConnectionInfo> {
    match (&state.workspace, &state.stop_with) {
        (Workspace::Ready(connection), _) => Some(connection),
        // A run that has started is stopped with a key that worked until recently.
        (_, Some(connection)) if is_started(&state.status) && stop::is_due(state, now) => Some(connection),
        _ => None,
    }
}

fn without_workspace(state: &ExecutionState, now: Timestamp) -> Decision {
    let name = &state.spec.workspace_ref.name;
    match &state.workspace {
        Workspace::Ready(_) => settle(state, state.status.clone(), Requeue::OnChange),
        Workspace::Pending => waiting::unchecked(state, now),
        Workspace::NotFound => {
            let what = if is_started(&state.status) {
                "so the operator cannot follow the run. Create it again; the run itself is not affected."
            } else {
                "so nothing is started. Create it, or name another in a new WorkflowExecution; the run starts once the Workspace is ready."
            };
            let message = format!("There is no Workspace \"{name}\" in this namespace, {what}");
            missing(state, reason::WORKSPACE_NOT_FOUND, message, Requeue::OnChange, now)
        }
        Workspace::NotReady(why, wait) => {
            let then = if is_started(&state.status) {
                "The operator follows the run again once the Workspace is ready; the run itself is not affected."
            } else {
                "The run starts once the Workspace is ready."
            };
            let message = format!("Workspace \"{name}\" is not ready: {}. {then}", without_stop(why));
            blocked::waiting(state, *wait, reason::WORKSPACE_NOT_READY, message, Requeue::OnChange, now)
        }
    }
}
