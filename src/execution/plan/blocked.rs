//! Reports what keeps a run from starting or from being read: each function ends the reconcile with one obstacle.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::{self, READY, STALLED, Wait};
use crate::clock::later;
use crate::execution::claim::TAKE_OVER;
use crate::execution::plan::backoff::{asked_to_wait, backoff, blocked_retry};
use crate::execution::plan::{Decision, settle};
use crate::execution::state::{Observed, Referent, Refusal};
use crate::execution::status::{self, is_started, reason};
use crate::mistral::wire::Execution;
use crate::mistral::{Trouble, TroubleKind};
use crate::platform::requeue::Requeue;

/// How long the resources of one manifest may take to arrive.
pub(crate) const APPLIED_TOGETHER: SignedDuration = SignedDuration::from_secs(5);

/// Reports why the Workflow that the spec names is unknown or cannot be run; none if it can be run.
pub(crate) fn unresolved(o: &Observed, now: Timestamp) -> Option<Decision> {
    let name = o.spec.workflow_ref.as_ref().map(|named| named.name.as_str()).unwrap_or_default();
    // Reconciles of the Workflow wake this execution; the interval covers a lost wake-up.
    let requeue = Requeue::After(Duration::from_secs(300));
    match &o.referent {
        Referent::NotNamed | Referent::Ready { .. } => None,
        // A manifest may list the execution before its Workflow.
        Referent::NotFound if now < later(o.created, APPLIED_TOGETHER) => {
            Some(settle(o, o.status.clone(), Requeue::After(Duration::from_secs(1))))
        }
        Referent::NotFound => {
            let message = format!("There is no Workflow \"{name}\" in this namespace; create it.");
            Some(missing(o, reason::WORKFLOW_NOT_FOUND, message, requeue, now))
        }
        Referent::NotReady { why, wait, .. } => {
            let message = format!("Workflow \"{name}\" is not ready to be run: {why}");
            Some(waiting(o, *wait, reason::WORKFLOW_NOT_READY, message, requeue, now))
        }
    }
}

/// Whether it is unknown which workflow the spec means, so that a run that was found cannot be matched with it.
pub(crate) fn is_unresolved(o: &Observed) -> bool {
    o.referent != Referent::NotNamed && o.referent.workflow().is_none()
}

/// A start was or may have been sent, and whether a run exists is not known yet.
pub(crate) fn in_doubt(o: &Observed, left: Duration, trouble: Option<&Trouble>, now: Timestamp) -> Decision {
    if let Some(trouble) = trouble
        && trouble.kind != TroubleKind::Unavailable
    {
        return troubled(o, trouble, now);
    }
    let message = "A start was sent or may have been, and its outcome is not known yet; it is not repeated before the API has had time to show the run.".to_owned();
    let status = status::not_started(o, Wait::Working, reason::OUTCOME_UNKNOWN, message, now);
    // Until the doubt ends, poll now and then; after that, back off as for any API in trouble.
    let wait =
        if left.is_zero() { backoff(o, 2, 60) } else { backoff(o, 2, 10).min(left + Duration::from_millis(100)) };
    settle(o, status, Requeue::Retry(wait.max(asked_to_wait(trouble))))
}

/// A call failed and leaves no start in doubt.
pub(crate) fn troubled(o: &Observed, trouble: &Trouble, now: Timestamp) -> Decision {
    let Trouble { kind, message, retry_after: _ } = trouble;
    match kind {
        TroubleKind::Unavailable => {
            let message = format!("The API cannot be used now; it is tried again: {message}");
            let status = status::not_started(o, Wait::Working, reason::API_UNAVAILABLE, message, now);
            settle(o, status, Requeue::Retry(backoff(o, 2, 60).max(asked_to_wait(Some(trouble)))))
        }
        TroubleKind::Unauthorized => {
            let message = format!(
                "The API refused the key of Workspace \"{}\"; correct its Secret: {message}",
                o.spec.workspace_ref.name
            );
            blocked(o, reason::CREDENTIAL_REFUSED, message, blocked_retry(o), now)
        }
        TroubleKind::Refused => {
            let message = format!("The API refused: {message}");
            blocked(o, reason::REQUEST_REFUSED, message, blocked_retry(o), now)
        }
    }
}

/// The API refused the start and definitely started nothing.
pub(crate) fn refused(o: &Observed, refusal: &Refusal, now: Timestamp) -> Decision {
    let target = match (o.referent.workflow(), &o.spec.workflow_identifier, &o.spec.registration_id) {
        (Some(workflow), ..) => format!("workflow \"{}\"", workflow.name),
        (_, Some(name), _) => format!("workflow \"{name}\""),
        (_, None, id) => format!("registration \"{}\"", id.as_deref().unwrap_or_default()),
    };
    match refusal {
        Refusal::TargetNotFound(said) => {
            let message = format!(
                "The API does not know {target}; register it by starting its worker, or correct the name in a new WorkflowExecution: {said}"
            );
            blocked(o, reason::TARGET_NOT_FOUND, message, blocked_retry(o), now)
        }
        Refusal::Ambiguous(said) => {
            let message = format!(
                "Several active deployments own {target} ({}); name one of them as spec.deploymentName in a new WorkflowExecution, or stop the others: {said}",
                said.deployments.join(", ")
            );
            blocked(o, reason::AMBIGUOUS_DEPLOYMENT, message, blocked_retry(o), now)
        }
        Refusal::Input(said) => {
            let message = format!(
                "The API refused the input for good, and nothing was started; correct it in a new WorkflowExecution: {said}"
            );
            settle(o, status::ended_without_run(o, reason::INPUT_REJECTED, &message, now), Requeue::OnChange)
        }
        Refusal::Other(said) => {
            let message = format!("The API refused to start {target}: {said}");
            blocked(o, reason::REQUEST_REFUSED, message, blocked_retry(o), now)
        }
    }
}

/// Whether the run with this id belongs to another workflow, as far as the API reports. Only an explicit id can be
/// taken: a derived id contains the resource's UID.
pub(crate) fn is_taken(o: &Observed, run: &Execution) -> bool {
    if o.spec.execution_id.is_none() {
        return false;
    }
    // Names are case-sensitive; UUIDs are not.
    let is = |known: &String, asked: &str| known == asked || (is_uuid(asked) && known.eq_ignore_ascii_case(asked));
    if let Some(workflow) = o.referent.workflow() {
        // One match is enough: a workflow that was registered again has another UUID.
        let names = run.workflow_name.as_ref().map(|name| is(name, &workflow.name));
        let ids = run.workflow_id.as_ref().map(|id| is(id, &workflow.id));
        return !matches!((names, ids), (Some(true), _) | (_, Some(true)) | (None, None));
    }
    let Some(asked) = &o.spec.workflow_identifier else { return false };
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
pub(crate) fn taken(o: &Observed, workflow: Option<&str>, now: Timestamp) -> Decision {
    let message = format!(
        "Execution id \"{}\" belongs to a run of workflow \"{}\"; create another WorkflowExecution with another executionId.",
        o.execution_id(),
        workflow.unwrap_or("(not told)")
    );
    blocked(o, reason::EXECUTION_ID_TAKEN, message, Requeue::OnChange, now)
}

/// The run with the explicit id was started with another input.
pub(crate) fn taken_with_other_input(o: &Observed, how: &str, now: Timestamp) -> Decision {
    let id = o.execution_id();
    let message = format!(
        "Execution id \"{id}\" belongs to a run that was started with another input ({how}), so nothing was started and its result is not shown; for a new run, create another WorkflowExecution with another executionId; to have that run all the same, annotate this resource with {TAKE_OVER}={id}."
    );
    blocked(o, reason::EXECUTION_ID_TAKEN, message, Requeue::OnChange, now)
}

pub(crate) fn suspended(o: &Observed, now: Timestamp) -> Decision {
    let message = "spec.suspend holds the start back; set it to false to start.".to_owned();
    settle(o, status::not_started(o, Wait::Working, reason::SUSPENDED, message, now), Requeue::OnChange)
}

/// A person has to act before the execution goes on.
pub(crate) fn blocked(o: &Observed, reason: &str, message: String, requeue: Requeue, now: Timestamp) -> Decision {
    waiting(o, Wait::Stalled, reason, message, requeue, now)
}

/// Something that the spec names does not exist. For a while it may still arrive.
pub(crate) fn missing(o: &Observed, reason: &str, message: String, requeue: Requeue, now: Timestamp) -> Decision {
    let (wait, left) = if was_complete(o) { (Wait::Stalled, None) } else { Wait::for_missing(o.created, now) };
    waiting(o, wait, reason, message, left.map_or(requeue, Requeue::After), now)
}

/// Whether everything that the spec names existed before, so that what is missing now was deleted.
fn was_complete(o: &Observed) -> bool {
    let arriving = [
        reason::SUSPENDED,
        reason::WORKSPACE_NOT_FOUND,
        reason::WORKSPACE_NOT_READY,
        reason::WORKFLOW_NOT_FOUND,
        reason::WORKFLOW_NOT_READY,
    ];
    let ready = conditions::find(&o.status.conditions, READY);
    // What was reported as stalled stays stalled.
    is_started(&o.status)
        || conditions::is_true(&o.status.conditions, STALLED)
        || ready.is_some_and(|ready| !arriving.contains(&ready.reason.as_str()))
}

/// The execution cannot go on now; `wait` says whether a person has to act.
pub(crate) fn waiting(
    o: &Observed,
    wait: Wait,
    reason: &str,
    message: String,
    requeue: Requeue,
    now: Timestamp,
) -> Decision {
    let status = if is_started(&o.status) {
        status::blind(o, wait, reason, message, now)
    } else {
        status::not_started(o, wait, reason, message, now)
    };
    settle(o, status, requeue)
}
