//! A call failed, or the API does not know the workflow.

use k8s_openapi::jiff::Timestamp;

use super::decision::Decision;
use super::notices::{blocked, settle};
use crate::api::conditions::Progress;
use crate::api::reasons::workflow as reason;
use crate::mistral::{Trouble, TroubleKind, is_forbidden, when_again};
use crate::platform::requeue::{Requeue, backoff};
use crate::text::without_stop;
use crate::workflow::fields::{self, Field};
use crate::workflow::state::{Remote, WorkflowState};
use crate::workflow::status;
use crate::workspace::access::key_text;

pub(super) fn not_found(state: &WorkflowState, now: Timestamp) -> Decision {
    let message = format!(
        "The API does not know workflow \"{}\". To register it, start the worker that has it, or correct spec.identifier in a new resource. The operator looks again within an hour, and sooner where a list shows the workflow.",
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
            let message = format!(
                "The API cannot be used now: {}. The operator tries again {}.",
                without_stop(message),
                when_again(*retry_after, "within a minute")
            );
            let status = status::unready(state, Progress::Working, reason::API_UNAVAILABLE, &message, now);
            let wait = backoff(state.memory.retries.in_a_row, &state.uid, 2, 60).max(retry_after.unwrap_or_default());
            settle(state, status, Requeue::Retry(wait))
        }
        TroubleKind::Unauthorized => {
            let message = format!(
                "The API refuses {}: {}. Put a valid key there. The operator tries again within 5 minutes, and at once with another key.",
                key(state),
                without_stop(message)
            );
            blocked(state, reason::CREDENTIAL_REFUSED, &message, patience, now)
        }
        TroubleKind::Refused => {
            let remedy = if is_forbidden(message) {
                format!(
                    " Give {} the right to read workflows in Mistral's console, or put another key there.",
                    key(state)
                )
            } else {
                String::new()
            };
            let message = format!(
                "The API refuses to show the workflow: {}.{remedy} The operator tries again within 5 minutes.",
                without_stop(message)
            );
            blocked(state, reason::REQUEST_REFUSED, &message, patience, now)
        }
    }
}

/// Where the key comes from.
fn key(state: &WorkflowState) -> String {
    key_text(state.workspace.connection().or(state.stop_with.as_ref()), &state.spec.workspace_ref.name)
}

pub(super) fn change_failed(state: &WorkflowState, fields: &[Field], trouble: &Trouble, now: Timestamp) -> Decision {
    if trouble.kind != TroubleKind::Refused {
        return troubled(state, trouble, now);
    }
    let remedy = if is_forbidden(&trouble.message) {
        format!("Give {} the right to change workflows in Mistral's console, or put another key there", key(state))
    } else {
        "Correct the field in the spec, or leave it out".to_owned()
    };
    let message = format!(
        "The API refuses to set {}: {}. {remedy}. The operator tries again within an hour.",
        fields::names(fields),
        without_stop(&trouble.message)
    );
    blocked(
        state,
        reason::CHANGE_REFUSED,
        &message,
        Requeue::Retry(backoff(state.memory.retries.in_a_row, &state.uid, 30, 3600)),
        now,
    )
}
