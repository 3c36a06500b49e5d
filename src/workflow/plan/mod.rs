//! Decides the next step for a workflow from what is known. No I/O here.
//!
//! A reconcile calls [`plan`], carries out the step, folds its outcome into [`WorkflowState`] and calls [`plan`] again,
//! until it settles. A reconcile changes at most one thing at the API.

mod compare;
pub mod decision;
mod delete;
mod notices;
mod trouble;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::state::{Address, Change, Registrations, Remote, WorkflowState};
use super::status;
use crate::api::WorkflowDeletionPolicy;
use crate::api::conditions::{self, Progress, READY};
use crate::api::reasons::workflow as reason;
use crate::platform::requeue::Requeue;
use crate::workspace::access::{ConnectionInfo, Workspace};
use compare::compare;
pub use decision::{Call, ClusterStep, Decision, Settled, Step};
use delete::delete;
pub use notices::drifted;
use notices::settle;
use trouble::{change_failed, not_found, troubled};

/// Reasons that a Workflow has while its Workspace may still arrive.
const ARRIVING: [&str; 3] = [reason::SUSPENDED, reason::WORKSPACE_NOT_FOUND, reason::WORKSPACE_NOT_READY];

/// The next step.
pub fn plan(state: &WorkflowState, now: Timestamp) -> Decision {
    let refused = state.memory.finalizer_refused.as_ref().and_then(|refusal| refusal.left(&state.version, now));
    match (decide(state, refused, now), refused) {
        (Decision::Settle(mut settled), Some(left)) => {
            settled.requeue = settled.requeue.within(left);
            Decision::Settle(settled)
        }
        (decision, _) => decision,
    }
}

/// `refused` is how long the finalizer, which the API server refuses, is not tried again.
fn decide(state: &WorkflowState, refused: Option<Duration>, now: Timestamp) -> Decision {
    if let Some(since) = state.deleted {
        return match refused {
            Some(left) => settle(state, state.status.clone(), Requeue::After(left)),
            None => delete(state, since, now),
        };
    }
    let wants = state.spec.deletion_policy == WorkflowDeletionPolicy::Archive;
    // Everything else goes on without the finalizer.
    if state.finalizer != wants && refused.is_none() {
        return Decision::Act(ClusterStep::SetFinalizer(wants).into());
    }
    if state.spec.suspend {
        let message = "spec.suspend is true, so the operator leaves the workflow alone; set it to false to resume.";
        return settle(
            state,
            status::unready(state, Progress::Working, reason::SUSPENDED, message, now),
            Requeue::OnChange,
        );
    }
    let connection = match &state.workspace {
        Workspace::Ready(connection) => connection,
        Workspace::Pending => return settle(state, state.status.clone(), Requeue::OnChange),
        // A manifest may list the Workflow before its Workspace.
        Workspace::NotFound if conditions::is_arriving(state.created, now) => {
            return settle(state, state.status.clone(), Requeue::After(Duration::from_secs(1)));
        }
        Workspace::NotFound => {
            let message =
                format!("There is no Workspace \"{}\" in this namespace; create it.", state.spec.workspace_ref.name);
            // A Workflow that got further before had its Workspace, which has been deleted.
            let (wait, left) = match conditions::find(&state.status.conditions, READY) {
                // What was reported as stalled stays stalled.
                Some(_) if conditions::is_true(&state.status.conditions, conditions::STALLED) => {
                    (Progress::Stalled, None)
                }
                Some(ready) if !ARRIVING.contains(&ready.reason.as_str()) => (Progress::Stalled, None),
                Some(_) | None => Progress::for_missing(state.created, now),
            };
            let requeue = left.map_or(Requeue::OnChange, Requeue::After);
            return settle(state, status::unready(state, wait, reason::WORKSPACE_NOT_FOUND, &message, now), requeue);
        }
        Workspace::NotReady(why, wait) => {
            let message = format!("Workspace \"{}\" is not ready: {why}", state.spec.workspace_ref.name);
            let status = status::unready(state, *wait, reason::WORKSPACE_NOT_READY, &message, now);
            return settle(state, status, Requeue::OnChange);
        }
    };
    if !state.refresh {
        if let Some(wait) = state.memory.retries.held(state.generation, connection, now) {
            return settle(state, state.status.clone(), Requeue::Hold(wait));
        }
        if is_up_to_date(state) && state.change == Change::None && state.remote == Remote::NotFetched {
            return settle(state, state.status.clone(), Requeue::OnChange);
        }
    }
    observe(state, connection, now)
}

/// Whether the status is about this spec and nothing is wrong: then drift detection reports changes.
fn is_up_to_date(state: &WorkflowState) -> bool {
    state.status.observed_generation == state.generation
        && conditions::is_true(&state.status.conditions, READY)
        && state.status.contested_fields.is_empty()
        && !state.memory.incomplete
}

/// Reads until everything is known that the next decision needs.
fn observe(state: &WorkflowState, connection: &ConnectionInfo, now: Timestamp) -> Decision {
    if let Change::Failed { fields, trouble } = &state.change {
        return change_failed(state, fields, trouble, now);
    }
    match (&state.remote, &state.address) {
        (Remote::NotFetched, Address::NotFetched) => Decision::Act(Call::Find(state.identifier.clone()).into()),
        (Remote::NotFetched, Address::Absent) | (Remote::Absent, _) => not_found(state, now),
        (Remote::NotFetched, Address::Unknown(trouble)) | (Remote::Unknown(trouble), _) => {
            troubled(state, trouble, now)
        }
        (Remote::NotFetched, Address::Direct(address)) => Decision::Act(Call::Get(address.clone()).into()),
        (Remote::Found(workflow), _)
            if state.registrations == Registrations::NotFetched && state.lacks_registrations(workflow) =>
        {
            Decision::Act(Call::ReadRegistrations(workflow.id.clone()).into())
        }
        (Remote::Found(workflow), _) => compare(state, connection, workflow, now),
    }
}
