//! A call failed, or the API does not know the workflow.

use k8s_openapi::jiff::Timestamp;

use super::decision::Decision;
use super::notices::{blocked, settle};
use crate::api::conditions::Progress;
use crate::api::reasons::workflow as reason;
use crate::mistral::{Trouble, TroubleKind};
use crate::platform::requeue::{Requeue, backoff};
use crate::workflow::fields::{self, Field};
use crate::workflow::state::{Remote, WorkflowState};
use crate::workflow::status;

pub(super) fn not_found(state: &WorkflowState, now: Timestamp) -> Decision {
    let message = format!(
        "The API does not know workflow \"{}\"; start the worker that registers it, or correct spec.identifier in a new resource.",
        state.identifier
    );
    let mut absent = state.clone();
    absent.remote = Remote::Absent;
    let status = status::unready(&absent, Progress::Stalled, reason::WORKFLOW_NOT_FOUND, &message, now);
    settle(state, status, Requeue::Retry(backoff(state.memory.retries.in_a_row, &state.uid, 15, 3600)))
}

/// A call failed.
pub(super) fn troubled(state: &WorkflowState, trouble: &Trouble, now: Timestamp) -> Decision {
    let Trouble { kind, message, retry_after } = trouble;
    let patience = Requeue::Retry(backoff(state.memory.retries.in_a_row, &state.uid, 30, 300));
    match kind {
        TroubleKind::Unavailable => {
            let message = format!("The API cannot be used now; the operator tries again: {message}");
            let status = status::unready(state, Progress::Working, reason::API_UNAVAILABLE, &message, now);
            let wait = backoff(state.memory.retries.in_a_row, &state.uid, 2, 60).max(retry_after.unwrap_or_default());
            settle(state, status, Requeue::Retry(wait))
        }
        TroubleKind::Unauthorized => {
            let name = &state.spec.workspace_ref.name;
            let message = format!("The API refused the key of Workspace \"{name}\"; correct its Secret: {message}");
            blocked(state, reason::CREDENTIAL_REFUSED, &message, patience, now)
        }
        TroubleKind::Refused => {
            let message = format!("The API refused to show the workflow: {message}");
            blocked(state, reason::REQUEST_REFUSED, &message, patience, now)
        }
    }
}

pub(super) fn change_failed(state: &WorkflowState, fields: &[Field], trouble: &Trouble, now: Timestamp) -> Decision {
    if trouble.kind != TroubleKind::Refused {
        return troubled(state, trouble, now);
    }
    let message = format!(
        "The API refused to set {}; correct the spec, or leave the field out: {}",
        fields::names(fields),
        trouble.message
    );
    blocked(
        state,
        reason::CHANGE_REFUSED,
        &message,
        Requeue::Retry(backoff(state.memory.retries.in_a_row, &state.uid, 30, 3600)),
        now,
    )
}
