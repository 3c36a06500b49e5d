//! The end of a reconcile, and what people are notified of then.

use k8s_openapi::jiff::Timestamp;

use super::decision::{Decision, Settled};
use crate::api::WorkflowStatus as Status;
use crate::api::conditions::{self, Progress, READY, STALLED};
use crate::api::reasons::workflow as reason;
use crate::platform::events::Notice;
use crate::platform::requeue::Requeue;
use crate::workflow::fields::{Field, brief};
use crate::workflow::state::{Change, WorkflowState};
use crate::workflow::status;

/// Ends the reconcile. People are notified of what was changed, and of what changes in `Ready`.
pub(super) fn settle(state: &WorkflowState, status: Status, requeue: Requeue) -> Decision {
    let mut news = Vec::new();
    let old = conditions::find(&state.status.conditions, READY);
    if let Some(new) = conditions::find(&status.conditions, READY)
        && old.is_none_or(|old| old.reason != new.reason)
        && new.reason != reason::UPDATING
        // This was reported already, when it was found.
        && !(new.reason == reason::CONTESTED && conditions::is_true(&state.status.conditions, conditions::CONTESTED))
    {
        // A Workspace that is missing may still arrive. If it does not, this stays the only Event.
        let warning = conditions::is_true(&status.conditions, STALLED)
            || [reason::API_UNAVAILABLE, reason::WORKSPACE_NOT_FOUND].contains(&new.reason.as_str());
        let notice = if warning { Notice::warning } else { Notice::normal };
        news.push(notice(&new.reason, &new.message));
    }
    for type_ in [conditions::NEEDS_USER, conditions::AMBIGUOUS, conditions::CONTESTED] {
        if let Some(new) = conditions::find(&status.conditions, type_)
            && conditions::find(&state.status.conditions, type_).is_none()
            && news.iter().all(|notice: &Notice| notice.reason != new.reason)
        {
            news.push(Notice::warning(&new.reason, &new.message));
        }
    }
    Decision::Settle(Box::new(Settled { status, done: done(state), news, requeue }))
}

/// Ends the reconcile: a person has to act before it goes on.
pub(super) fn blocked(
    state: &WorkflowState,
    reason: &str,
    message: &str,
    requeue: Requeue,
    now: Timestamp,
) -> Decision {
    settle(state, status::unready(state, Progress::Stalled, reason, message, now), requeue)
}

/// What this reconcile has changed. Corrected drift is reported apart from new values of the spec.
fn done(state: &WorkflowState) -> Vec<Notice> {
    let Change::Made { fields, before } = &state.change else { return Vec::new() };
    let drifted = drifted(state);
    let (mut drift, mut updated) = (Vec::new(), Vec::new());
    for (field, held) in fields.iter().zip(before) {
        let Some(wanted) = field.wanted(&state.spec) else { continue };
        if drifted.contains(field) {
            drift.push((*field, format!("{} from {} to {}", field.name(), brief(held), brief(&wanted))));
        } else {
            updated.push((*field, format!("{} to {}", field.name(), brief(&wanted))));
        }
    }
    let mut notices = Vec::new();
    if !updated.is_empty() {
        notices.push(Notice::normal(reason::UPDATED, told("Set", &updated)));
    }
    if !drift.is_empty() {
        notices.push(Notice::normal(reason::DRIFT_CORRECTED, told("Set back after a change in Mistral:", &drift)));
    }
    notices
}

/// The names of all fields come first, because an Event is cut after 1 KiB.
fn told(what: &str, fields: &[(Field, String)]) -> String {
    let names: Vec<&str> = fields.iter().map(|(field, _)| field.name()).collect();
    let values: Vec<&str> = fields.iter().map(|(_, value)| value.as_str()).collect();
    format!("{what} {} ({}).", names.join(", "), values.join("; "))
}

/// The fields that this reconcile has set back after somebody else had changed them.
pub fn drifted(state: &WorkflowState) -> Vec<Field> {
    let Change::Made { fields, .. } = &state.change else { return Vec::new() };
    fields.iter().copied().filter(|field| state.had_been_set(*field)).collect()
}
