//! The workflow at the API is known: which of its fields differ from the spec, and which one to set.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::decision::{Call, Decision, Step};
use super::notices::{blocked, settle};
use crate::api::conditions::{self, Progress, READY};
use crate::api::reasons::workflow as reason;
use crate::api::{ManagementPolicy, WorkflowStatus as Status};
use crate::mistral::TroubleKind;
use crate::mistral::wire::Workflow;
use crate::platform::requeue::{Requeue, backoff};
use crate::workflow::contest;
use crate::workflow::fields::{self, Field};
use crate::workflow::state::{Change, Registrations, WorkflowState};
use crate::workflow::status;
use crate::workspace::access::ConnectionInfo;

/// Compares the workflow at the API with the spec.
pub(super) fn compare(
    state: &WorkflowState,
    connection: &ConnectionInfo,
    workflow: &Workflow,
    now: Timestamp,
) -> Decision {
    let differing = fields::differing(&state.spec, workflow);
    if state.spec.management_policy == ManagementPolicy::Observe {
        let message = if differing.is_empty() {
            "The operator only reads the workflow (managementPolicy Observe).".to_owned()
        } else {
            format!(
                "The operator only reads the workflow (managementPolicy Observe), which differs from the spec in {}.",
                fields::names(&differing)
            )
        };
        return in_order(state, status::ready(state, workflow, reason::OBSERVED, &message, now), now);
    }
    if !differing.is_empty()
        && let Some((reason, message)) = not_ours(workflow, connection)
    {
        let message = format!("{message} It differs from the spec in {}.", fields::names(&differing));
        return blocked(
            state,
            reason,
            &message,
            Requeue::Retry(backoff(state.memory.retries.in_a_row, &state.uid, 300, 3600)),
            now,
        );
    }
    let (held, free): (Vec<Field>, Vec<Field>) =
        differing.iter().partition(|field| held_until(state, **field, workflow, now).is_some());
    if !free.is_empty() {
        return update(state, connection, workflow, &free, now);
    }
    if held.is_empty() {
        let status = status::ready(state, workflow, reason::IN_SYNC, "The workflow matches the spec.", now);
        return in_order(state, status, now);
    }
    let due = held.iter().filter_map(|field| held_until(state, *field, workflow, now)).min();
    let message = status::contested_message(state, &held, due);
    let mut status = status::unready(state, Progress::Stalled, reason::CONTESTED, &message, now);
    status::contested(&mut status, state, &held, due, now);
    settle(state, status, Requeue::Retry(wait_until(due, now)))
}

/// Sets the next field, or reports why that has to wait.
fn update(
    state: &WorkflowState,
    connection: &ConnectionInfo,
    workflow: &Workflow,
    free: &[Field],
    now: Timestamp,
) -> Decision {
    // A refresh may come at any time; a refused change is repeated only when that is due.
    if let Some(wait) = state.memory.retries.held(state.generation, connection, now)
        && let Some(refused) = was_refused(state)
    {
        let status = status::unready(state, Progress::Stalled, reason::CHANGE_REFUSED, refused, now);
        return settle(state, status, Requeue::Hold(wait));
    }
    // One change per reconcile; and the API may store another value than it was sent.
    match &state.change {
        Change::None => Decision::Act(change(state, workflow, free)),
        Change::Made { fields: set, .. } | Change::Failed { fields: set, .. } => {
            let message = format!("The operator is updating the workflow; still to set: {}.", fields::names(free));
            let status = status::unready(state, Progress::Working, reason::UPDATING, &message, now);
            // A value that was just set may become visible later.
            let soon = Requeue::Retry(backoff(state.memory.retries.in_a_row, &state.uid, 5, 60));
            let unmoved = free.iter().any(|field| set.contains(field));
            settle(state, status, if unmoved { soon } else { Requeue::After(Duration::ZERO) })
        }
    }
}

/// The workflow matches the spec, perhaps only for a short time.
fn in_order(state: &WorkflowState, mut status: Status, now: Timestamp) -> Decision {
    let still = |field: &Field| {
        let wanted = field.wanted(&state.spec);
        wanted.is_some_and(|wanted| state.memory.contests.is_exhausted(*field, &wanted))
    };
    let contested: Vec<Field> = fields::ALL.into_iter().filter(still).collect();
    status::contested(&mut status, state, &contested, None, now);
    let unread = matches!(&state.registrations, Registrations::Unknown(it) if it.kind == TroubleKind::Unavailable);
    let requeue = match (contested.is_empty(), unread) {
        (true, false) => Requeue::OnChange,
        (false, _) => Requeue::Retry(Duration::from_secs(600)),
        (true, true) => Requeue::Retry(backoff(state.memory.retries.in_a_row, &state.uid, 30, 300)),
    };
    settle(state, status, requeue)
}

/// Until when a field that somebody else keeps setting back is left alone.
fn held_until(state: &WorkflowState, field: Field, workflow: &Workflow, now: Timestamp) -> Option<Timestamp> {
    let wanted = field.wanted(&state.spec)?;
    let foreign = field.at_the_api(workflow);
    if let Some(until) = state.memory.contests.held_until(field, &wanted, &foreign, now) {
        return Some(until);
    }
    // The field was contested before this process began.
    let known = state.was_contested(field) && !state.memory.contests.is_exhausted(field, &wanted);
    let since = conditions::find(&state.status.conditions, conditions::CONTESTED)?.last_transition_time.0;
    contest::hold_ends(since, now).filter(|_| known)
}

/// Unarchives first and archives last: it is not documented whether an archived workflow can be changed.
fn change(state: &WorkflowState, workflow: &Workflow, free: &[Field]) -> Step {
    let id = workflow.id.clone();
    let rest: Vec<Field> = free.iter().copied().filter(|field| *field != Field::Archived).collect();
    match state.spec.archived.filter(|_| free.contains(&Field::Archived)) {
        Some(false) => Step::SetArchived(id, false),
        // A field that the API refuses must not keep the workflow out of the archive.
        Some(true) if rest.is_empty() || was_refused(state).is_some() => Step::SetArchived(id, true),
        Some(true) | None => Call::Update(id, rest).into(),
    }
}

/// The API's message when it last refused to set a field, if nothing else has happened since.
fn was_refused(state: &WorkflowState) -> Option<&str> {
    let ready = conditions::find(&state.status.conditions, READY)?;
    (ready.reason == reason::CHANGE_REFUSED).then_some(ready.message.as_str())
}

/// Why the operator must not change this workflow; none if it may.
pub(super) fn not_ours(workflow: &Workflow, connection: &ConnectionInfo) -> Option<(&'static str, String)> {
    let namespace = workflow.shared_namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let elsewhere = match (&workflow.workspace_id, &connection.workspace_id) {
        (Some(theirs), Some(ours)) => !theirs.eq_ignore_ascii_case(ours),
        // The owner is not known: a shared workflow may belong to another workspace.
        (None, _) | (_, None) => namespace.is_some(),
    };
    if elsewhere {
        let name = namespace.map(|namespace| format!(" as \"{namespace}\"")).unwrap_or_default();
        let message = format!(
            "The workflow belongs to another Mistral workspace, which shares it{name}. Only that workspace can change it; use managementPolicy Observe."
        );
        return Some((reason::SHARED, message));
    }
    (workflow.is_technical == Some(true)).then(|| {
        let message = "Mistral's SDK registered the workflow for its own use, so the operator does not change it; use managementPolicy Observe.";
        (reason::TECHNICAL, message.to_owned())
    })
}

fn wait_until(due: Option<Timestamp>, now: Timestamp) -> Duration {
    due.and_then(|due| Duration::try_from(due.duration_since(now)).ok()).unwrap_or_default().max(Duration::from_secs(1))
}
