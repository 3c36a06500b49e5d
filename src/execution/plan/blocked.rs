//! Reports what keeps a run from starting or from being read: each function ends the reconcile with one obstacle.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::{self, Progress, READY, STALLED};
use crate::api::reasons::execution as reason;
use crate::clock::{later, moment_text};
use crate::execution::claim::{CLAIM, Claim, ClaimAnnotation, TAKE_OVER};
use crate::execution::phase::is_started;
use crate::execution::plan::backoff::{TRIES_AGAIN, asked_to_wait, backoff, blocked_retry};
use crate::execution::plan::decision::{Decision, settle};
use crate::execution::plan::waiting::BLANK_FOR;
use crate::execution::state::{ExecutionState, Refusal, Remote, Target, WorkflowRefState};
use crate::execution::status;
use crate::mistral::wire::Execution;
use crate::mistral::{Trouble, TroubleKind, is_forbidden, when_again};
use crate::platform::requeue::Requeue;
use crate::text::without_stop;
use crate::workspace::access::key_text;

/// How long the resources of one manifest may take to arrive. No longer than a row may stay blank.
const APPLIED_TOGETHER: SignedDuration = BLANK_FOR;

/// Reports why the Workflow that the spec names is unknown or cannot be run; none if it can be run.
pub(crate) fn unresolved(state: &ExecutionState, now: Timestamp) -> Option<Decision> {
    let name = state.spec.workflow_ref.as_ref().map(|named| named.name.as_str()).unwrap_or_default();
    // Reconciles of the Workflow wake this execution; the interval covers a lost wake-up.
    let requeue = Requeue::After(Duration::from_secs(300));
    match &state.workflow_ref {
        WorkflowRefState::NotNamed | WorkflowRefState::Ready { .. } => None,
        WorkflowRefState::NotFound => {
            let message = format!(
                "There is no Workflow \"{name}\" in this namespace. Create it, or name another in a new WorkflowExecution; the run starts once the Workflow is there."
            );
            Some(missing(state, reason::WORKFLOW_NOT_FOUND, message, requeue, now))
        }
        WorkflowRefState::NotReady { why, wait, .. } => {
            let why = without_stop(why);
            let message = format!(
                "Workflow \"{name}\" is not ready to be run: {why}. The run starts once the Workflow is ready."
            );
            Some(waiting(state, *wait, reason::WORKFLOW_NOT_READY, message, requeue, now))
        }
    }
}

/// Whether it is unknown which workflow the spec means, so that a run that was found cannot be matched with it.
pub(crate) fn is_unresolved(state: &ExecutionState) -> bool {
    state.workflow_ref != WorkflowRefState::NotNamed && state.workflow_ref.workflow().is_none()
}

/// A start was or may have been sent, and whether a run exists is not known yet.
pub(crate) fn in_doubt(state: &ExecutionState, left: Duration, trouble: Option<&Trouble>, now: Timestamp) -> Decision {
    let message = doubt_message(state, trouble, now);
    let status = status::not_started(state, Progress::Working, reason::OUTCOME_UNKNOWN, message, now);
    // Until the doubt ends, poll now and then; after that, back off as for any API in trouble.
    let wait = if left.is_zero() {
        backoff(state, 2, 60)
    } else {
        backoff(state, 2, 10).min(left + Duration::from_millis(100))
    };
    // The same start would be refused again, so the next one is not hurried.
    let is_refused = trouble.is_some_and(|trouble| trouble.kind == TroubleKind::Refused);
    let patience = if is_refused { backoff(state, 30, 300) } else { Duration::ZERO };
    settle(state, status, Requeue::Retry(wait.max(patience).max(asked_to_wait(trouble))))
}

/// What happened, until when the operator looks for the run, and that there is nothing to do. Keeps the first message about
/// a doubt: what a later poll finds is not worth a write.
fn doubt_message(state: &ExecutionState, trouble: Option<&Trouble>, now: Timestamp) -> String {
    let until = match &state.annotation {
        ClaimAnnotation::Claim(claim) if !state.may_be_predecessors(claim) => claim.outcome_known_by(),
        ClaimAnnotation::Claim(_) | ClaimAnnotation::Absent | ClaimAnnotation::Unreadable => state.earlier_calls_end(),
    };
    let id = state.execution_id();
    let until = if until > now {
        format!(
            "The operator looks for the run \"{id}\" until {}, and starts it again only if the API does not know it then. There is nothing to do.",
            moment_text(until)
        )
    } else {
        format!(
            "The operator looks for the run \"{id}\" now. If the API does not know it, the operator starts it again, or, where the start is more than a day old, asks for a person's consent."
        )
    };
    let old = conditions::find(&state.status.conditions, READY).filter(|ready| ready.reason == reason::OUTCOME_UNKNOWN);
    if let Some(old) = old.filter(|ready| ready.message.ends_with(&until)) {
        return old.message.clone();
    }
    let why = trouble.map_or_else(String::new, |trouble| format!(" ({})", without_stop(&trouble.message)));
    format!("A start was sent, or may have been, and no answer says whether it took effect{why}. {until}")
}

/// A call failed and leaves no start in doubt.
pub(crate) fn troubled(state: &ExecutionState, trouble: &Trouble, now: Timestamp) -> Decision {
    let Trouble { kind, message, retry_after } = trouble;
    let (reason, message) = match kind {
        TroubleKind::Unavailable => {
            let message = format!(
                "The API cannot be used now: {}. The operator tries again {}.",
                without_stop(message),
                when_again(*retry_after, "within a minute")
            );
            let status = status::not_started(state, Progress::Working, reason::API_UNAVAILABLE, message, now);
            return settle(state, status, Requeue::Retry(backoff(state, 2, 60).max(asked_to_wait(Some(trouble)))));
        }
        TroubleKind::Unauthorized => {
            let message = format!(
                "The API refuses {}: {}. Put a valid key there. {TRIES_AGAIN}, and at once with another key.",
                key(state),
                without_stop(message)
            );
            (reason::CREDENTIAL_REFUSED, message)
        }
        TroubleKind::Refused => (reason::REQUEST_REFUSED, not_allowed(state, what_was_asked(state), message)),
    };
    blocked(state, reason, message, blocked_retry(state), now)
}

/// What the API has refused, apart from a start.
fn what_was_asked(state: &ExecutionState) -> &'static str {
    match (&state.outcomes.stopped, &state.outcomes.target, &state.outcomes.remote) {
        (Some(Err(_)), ..) => "stop the run",
        (_, Target::Unknown(_), _) => "show the workflow",
        (_, _, Remote::Unknown(_)) => "show the run",
        _ => "say whether the run was started",
    }
}

/// The API understands a call and refuses it, mostly because the key lacks a right (403).
fn not_allowed(state: &ExecutionState, what: &str, said: &str) -> String {
    let remedy = if is_forbidden(said) {
        format!(" Give {} the right to do so in Mistral's console, or put another key there.", key(state))
    } else if is_started(&state.status) {
        String::new()
    } else {
        " Correct what the API names in a new WorkflowExecution.".to_owned()
    };
    format!("The API refuses to {what}: {}.{remedy} {TRIES_AGAIN}.", without_stop(said))
}

/// Where the key comes from.
fn key(state: &ExecutionState) -> String {
    key_text(state.workspace.connection().or(state.stop_with.as_ref()), &state.spec.workspace_ref.name)
}

/// What the spec asks to run.
fn target(state: &ExecutionState) -> String {
    match (state.workflow_ref.workflow(), &state.spec.workflow_identifier, &state.spec.registration_id) {
        (Some(workflow), ..) => format!("workflow \"{}\"", workflow.name),
        (_, Some(name), _) => format!("workflow \"{name}\""),
        (_, None, id) => format!("registration \"{}\"", id.as_deref().unwrap_or_default()),
    }
}

/// The API refused the start and definitely started nothing.
pub(crate) fn refused(state: &ExecutionState, refusal: &Refusal, now: Timestamp) -> Decision {
    if let Refusal::TargetNotFound(_) = refusal {
        match (&state.outcomes.target, conditions::find(&state.status.conditions, READY)) {
            (Target::NoDeployment { .. }, _) => return deployment_not_found(state, now),
            // An incomplete list of deployments says nothing new.
            (Target::DeploymentUnknown | Target::Unknown(_), Some(ready))
                if ready.reason == reason::DEPLOYMENT_NOT_FOUND =>
            {
                return blocked(state, reason::DEPLOYMENT_NOT_FOUND, ready.message.clone(), blocked_retry(state), now);
            }
            _ => {}
        }
    }
    let target = target(state);
    let (reason, message) = match refusal {
        Refusal::TargetNotFound(said) => {
            let message = format!(
                "The API does not know {target}, or has no worker for it: {said}. Start the worker that registers it, and the run starts by itself, or correct the name in a new WorkflowExecution. {TRIES_AGAIN}."
            );
            (reason::TARGET_NOT_FOUND, message)
        }
        Refusal::Ambiguous(said) => {
            let message = format!(
                "Several active deployments own {target} ({}): {said}. Name one of them as spec.deploymentName in a new WorkflowExecution, or stop the others. {TRIES_AGAIN}.",
                said.deployments.join(", ")
            );
            (reason::AMBIGUOUS_DEPLOYMENT, message)
        }
        Refusal::Input(said) => {
            let message = format!(
                "The API refused the input for good, and nothing was started: {said}. Correct the input in a new WorkflowExecution."
            );
            let status = status::ended_without_run(state, reason::INPUT_REJECTED, &message, now);
            return settle(state, status, Requeue::OnChange);
        }
        Refusal::Other(said) => {
            (reason::REQUEST_REFUSED, not_allowed(state, &format!("start {target}"), &said.to_string()))
        }
    };
    blocked(state, reason, message, blocked_retry(state), now)
}

/// The workflow exists, and no live worker of the deployment that the spec names serves it.
pub(crate) fn deployment_not_found(state: &ExecutionState, now: Timestamp) -> Decision {
    let Target::NoDeployment { active } = &state.outcomes.target else {
        return settle(state, state.status.clone(), blocked_retry(state));
    };
    let (name, target) = (state.spec.deployment_name.as_deref().unwrap_or_default(), target(state));
    let others = match active.as_slice() {
        [] => "No other deployment serves it now".to_owned(),
        names => format!("These serve it now: {}", names.join(", ")),
    };
    let message = format!(
        "No live worker of deployment \"{name}\" serves {target}. {others}. Start a worker of \"{name}\", and the run starts by itself, or name another spec.deploymentName in a new WorkflowExecution. {TRIES_AGAIN}."
    );
    blocked(state, reason::DEPLOYMENT_NOT_FOUND, message, blocked_retry(state), now)
}

/// The workflow itself is not there any more, where only the deployment that the spec names was missing.
pub(crate) fn target_gone(state: &ExecutionState, now: Timestamp) -> Decision {
    let message = format!(
        "The API does not know {} any more. Start the worker that registers it, and the run starts by itself, or correct the name in a new WorkflowExecution. {TRIES_AGAIN}.",
        target(state)
    );
    blocked(state, reason::TARGET_NOT_FOUND, message, blocked_retry(state), now)
}

/// Whether the run with this id belongs to another workflow, as far as the API reports. Only an explicit id can be
/// taken: a derived id contains the resource's UID.
pub(crate) fn is_taken(state: &ExecutionState, run: &Execution) -> bool {
    if state.spec.execution_id.is_none() {
        return false;
    }
    // Names are case-sensitive; UUIDs are not.
    let is = |known: &String, asked: &str| known == asked || (is_uuid(asked) && known.eq_ignore_ascii_case(asked));
    if let Some(workflow) = state.workflow_ref.workflow() {
        // One match is enough: a workflow that was registered again has another UUID.
        let names = run.workflow_name.as_ref().map(|name| is(name, &workflow.name));
        let ids = run.workflow_id.as_ref().map(|id| is(id, &workflow.id));
        return !matches!((names, ids), (Some(true), _) | (_, Some(true)) | (None, None));
    }
    let Some(asked) = &state.spec.workflow_identifier else { return false };
    match (&run.workflow_name, &run.workflow_id) {
        (Some(name), Some(id)) => !is(name, asked) && !is(id, asked),
        // The spec may name a UUID, which the API reports only later.
        (Some(name), None) => !is(name, asked) && !is_uuid(asked),
        (None, _) => false,
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().filter(|byte| *byte == b'-').count() == 4
}

/// The run with the explicit id belongs to this other workflow.
pub(crate) fn taken(state: &ExecutionState, workflow: Option<&str>, now: Timestamp) -> Decision {
    let message = format!(
        "Execution id \"{}\" belongs to a run of workflow \"{}\", so nothing was started. Create another WorkflowExecution with another executionId.",
        state.execution_id(),
        workflow.unwrap_or("(unknown)")
    );
    blocked(state, reason::EXECUTION_ID_TAKEN, message, Requeue::OnChange, now)
}

/// The run with the explicit id was started with another input.
pub(crate) fn taken_with_other_input(state: &ExecutionState, how: &str, now: Timestamp) -> Decision {
    let id = state.execution_id();
    let message = format!(
        "Execution id \"{id}\" belongs to a run that was started with another input ({how}), so nothing was started and its result is not shown. For a new run, create another WorkflowExecution with another executionId. To take over that run anyway, annotate this resource with {TAKE_OVER}={id}."
    );
    blocked(state, reason::EXECUTION_ID_TAKEN, message, Requeue::OnChange, now)
}

/// The Workspace leads to another API or Mistral workspace than the one that the run was claimed in.
pub(crate) fn workspace_changed(state: &ExecutionState, claim: &Claim, now: Timestamp) -> Decision {
    let there = |origin: &str, id: Option<&str>| format!("{origin}, Mistral workspace {}", id.unwrap_or("(unknown)"));
    let connection = state.workspace.connection().or(state.stop_with.as_ref());
    let message = format!(
        "The run was claimed at {}, but Workspace \"{}\" now leads to {}. Put the old key back into the Workspace's Secret, and create another Workspace for the new key.",
        there(&claim.origin, claim.workspace_id.as_deref()),
        state.spec.workspace_ref.name,
        connection.map_or_else(|| "another place".to_owned(), |it| there(&it.origin, it.workspace_id.as_deref())),
    );
    blocked(state, reason::WORKSPACE_CHANGED, message, Requeue::OnChange, now)
}

/// Nobody knows whether there is a run: its claim cannot be read.
pub(crate) fn claim_unreadable(state: &ExecutionState, now: Timestamp) -> Decision {
    let what = if is_started(&state.status) {
        "The run is not affected. Upgrade the operator, or restore the annotation from a backup."
    } else {
        "A run may exist. Upgrade the operator, or remove the annotation once you are sure that no run exists."
    };
    let message =
        format!("The operator cannot read the annotation {CLAIM}: a newer operator or a person wrote it. {what}");
    blocked(state, reason::CLAIM_UNREADABLE, message, Requeue::OnChange, now)
}

pub(crate) fn suspended(state: &ExecutionState, now: Timestamp) -> Decision {
    let mut message = "spec.suspend is true, so nothing is started. Set it to false to start the run".to_owned();
    message += &state.starting_deadline().map_or_else(
        || ".".to_owned(),
        |deadline| format!(", by {} at the latest (spec.startingDeadlineSeconds).", moment_text(deadline)),
    );
    settle(state, status::not_started(state, Progress::Working, reason::SUSPENDED, message, now), Requeue::OnChange)
}

/// A person has to act before the execution goes on.
pub(crate) fn blocked(
    state: &ExecutionState,
    reason: &str,
    message: String,
    requeue: Requeue,
    now: Timestamp,
) -> Decision {
    waiting(state, Progress::Stalled, reason, message, requeue, now)
}

/// Something that the spec names does not exist. For a while it may still arrive.
pub(crate) fn missing(
    state: &ExecutionState,
    reason: &str,
    message: String,
    requeue: Requeue,
    now: Timestamp,
) -> Decision {
    if let Some(decision) = arriving(state, now) {
        return decision;
    }
    let (wait, left) =
        if was_complete(state) { (Progress::Stalled, None) } else { Progress::for_missing(state.created, now) };
    waiting(state, wait, reason, message, left.map_or(requeue, Requeue::After), now)
}

/// Waits for what the spec names, since a manifest may list the execution first; none once that has taken too long.
pub(crate) fn arriving(state: &ExecutionState, now: Timestamp) -> Option<Decision> {
    let left = Duration::try_from(later(state.created, APPLIED_TOGETHER).duration_since(now)).ok()?;
    let wait = left.min(Duration::from_secs(1));
    (!left.is_zero()).then(|| settle(state, state.status.clone(), Requeue::After(wait)))
}

/// Whether everything that the spec names existed before, so that what is missing now was deleted.
fn was_complete(state: &ExecutionState) -> bool {
    let arriving = [
        reason::SUSPENDED,
        reason::QUEUED,
        reason::WORKSPACE_NOT_FOUND,
        reason::WORKSPACE_NOT_READY,
        reason::WORKFLOW_NOT_FOUND,
        reason::WORKFLOW_NOT_READY,
    ];
    let ready = conditions::find(&state.status.conditions, READY);
    // What was reported as stalled stays stalled.
    is_started(&state.status)
        || conditions::is_true(&state.status.conditions, STALLED)
        || ready.is_some_and(|ready| !arriving.contains(&ready.reason.as_str()))
}

/// The execution cannot go on now; `wait` says whether a person has to act.
pub(crate) fn waiting(
    state: &ExecutionState,
    wait: Progress,
    reason: &str,
    message: String,
    requeue: Requeue,
    now: Timestamp,
) -> Decision {
    let status = if is_started(&state.status) {
        status::state_unreadable(state, wait, reason, message, now)
    } else {
        status::not_started(state, wait, reason, message, now)
    };
    settle(state, status, requeue)
}
