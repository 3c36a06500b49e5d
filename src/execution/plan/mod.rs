//! Decides the next step of a run from what is known. No I/O here.
//!
//! A reconcile calls [`plan`], carries out the step, folds its outcome into [`Observed`] and calls [`plan`] again,
//! until it settles. A reconcile changes at most one thing at the API. Two rules keep a run from starting twice.
//! Nothing is sent without a claim written in the same reconcile. Unless this process has seen the resource since its
//! creation, it first gets the run from the API, and believes that there is none only once no earlier call can still be
//! in flight.

pub mod backoff;
pub mod blocked;
pub mod decision;
pub mod delete;
pub mod finish;
pub mod follow;
pub mod priority;
pub mod refused_writes;
pub mod start;
pub mod stop;

#[cfg(test)]
mod promise_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::WorkflowExecutionStatus as Status;
use crate::api::conditions::{self, READY, RESULT_NOT_WRITTEN, STALLED, STARTED};
use crate::clock::later;
use crate::execution::claim::{CLAIM, Claim, Note};
use crate::execution::plan::blocked::{APPLIED_TOGETHER, blocked, missing, suspended, waiting};
use crate::execution::plan::refused_writes::Write;
use crate::execution::state::Observed;
use crate::execution::state::ownership::{Standing, standing};
use crate::execution::status::{is_finished, is_started, reason};
use crate::platform::events::Notice;
use crate::platform::requeue::Requeue;
use crate::workspace::access::Workspace;
pub use decision::{Call, ClusterStep, Decision, Settled, Step};
use follow::{read, running};
use start::{begin, consented, is_consent, of_which_life, resume, take_over};

/// The next step.
pub fn plan(o: &Observed, now: Timestamp) -> Decision {
    match decide(o, now) {
        Decision::Settle(mut settled) => {
            if let Some(left) = stop::next_deadline(o, &settled.status, now) {
                settled.requeue = settled.requeue.within(left);
            }
            if let Some(left) = refused_writes::next_retry(o, now) {
                settled.requeue = settled.requeue.within(left);
            }
            Decision::Settle(settled)
        }
        act @ Decision::Act(_) => act,
    }
}

fn decide(o: &Observed, now: Timestamp) -> Decision {
    if let Some(since) = o.deleted {
        return refused_writes::release_refused(o, now).unwrap_or_else(|| delete::delete(o, since, now));
    }
    if is_finished(&o.status) {
        return finish::finished(o, now);
    }
    if let Some(decision) = refused_writes::status_refused(o, now) {
        return decision;
    }
    if !o.may_have_started()
        && let Some(decision) = stop::barred(o, now)
    {
        return decision;
    }
    if o.spec.suspend && !o.may_have_started() {
        return suspended(o, now);
    }
    let connection = match (&o.workspace, &o.stop_with) {
        (Workspace::Ready(connection), _) => connection,
        // A run that has started is stopped with a key that worked until recently.
        (_, Some(connection)) if is_started(&o.status) && stop::is_due(o, now) => connection,
        (workspace, _) => return without_workspace(o, workspace, now),
    };
    if let Some(claim) = consented(o) {
        return take_over(o, claim);
    }
    if let Some(wait) = o.memory.retries.held(o.generation, connection, now) {
        return settle(o, o.status.clone(), Requeue::Hold(wait));
    }
    match &o.note {
        Note::Claim(claim) if o.is_unrecorded() && o.refusal(Write::Claim, now).is_none() => {
            return write(o, Claim::clone(claim), false);
        }
        _ if refused_writes::waits_for_claim(o) => {
            if let Some(decision) = refused_writes::claim_refused(o, now) {
                return decision;
            }
        }
        _ => {}
    }
    if let Some(claim) = o.claimed_by().filter(|claim| o.is_elder(claim)) {
        return of_which_life(o, connection, claim, now);
    }
    match standing(o) {
        Standing::Unclaimed => begin(o, connection, now),
        Standing::Ours(claim) | Standing::Reading(claim) | Standing::Foreign(claim)
            if !claim.is_for(&connection.origin, connection.workspace_id.as_deref(), is_started(&o.status)) =>
        {
            let message = format!(
                "The run was claimed at {} in Mistral workspace {}, which is not where Workspace \"{}\" leads now; point it back, or create another WorkflowExecution for a new run.",
                claim.origin,
                claim.workspace_id.as_deref().unwrap_or("(not told)"),
                o.spec.workspace_ref.name,
            );
            blocked(o, reason::WORKSPACE_CHANGED, message, Requeue::OnChange, now)
        }
        Standing::Ours(_) if is_started(&o.status) => running(o, now),
        // As after a restore: writing the claim again records when it was seen on this resource.
        Standing::Ours(claim) if o.is_of_another_life(claim) && o.refusal(Write::Claim, now).is_none() => {
            write(o, claim.clone(), false)
        }
        Standing::Ours(claim) => resume(o, connection, claim, now),
        Standing::Reading(claim) => read(o, claim, false, now),
        Standing::Foreign(claim) => read(o, claim, true, now),
        Standing::Unreadable => {
            let message = format!(
                "The annotation {CLAIM} was written by a newer operator or by hand and cannot be read, so a run may exist; upgrade the operator, or remove the annotation once you are sure that there is none."
            );
            blocked(o, reason::CLAIM_UNREADABLE, message, Requeue::OnChange, now)
        }
    }
}

fn without_workspace(o: &Observed, workspace: &Workspace, now: Timestamp) -> Decision {
    let name = &o.spec.workspace_ref.name;
    match workspace {
        Workspace::Ready(_) | Workspace::Pending => settle(o, o.status.clone(), Requeue::OnChange),
        // A manifest may list the execution before its Workspace.
        Workspace::NotFound if now < later(o.created, APPLIED_TOGETHER) => {
            settle(o, o.status.clone(), Requeue::After(Duration::from_secs(1)))
        }
        Workspace::NotFound => {
            let message = format!("There is no Workspace \"{name}\" in this namespace; create it.");
            missing(o, reason::WORKSPACE_NOT_FOUND, message, Requeue::OnChange, now)
        }
        Workspace::NotReady(why, wait) => {
            let message = format!("Workspace \"{name}\" is not ready: {why}");
            waiting(o, *wait, reason::WORKSPACE_NOT_READY, message, Requeue::OnChange, now)
        }
    }
}

pub(crate) fn write(o: &Observed, claim: Claim, send: bool) -> Decision {
    let finalizer = o.deleted.is_some() || (o.wants_finalizer() && !claim.reading);
    // The new revision is above all that were written on this resource. Claims of another resource of this name count
    // as older, whatever their revision.
    let there = match &o.note {
        Note::Claim(claim) if !o.is_of_another_life(claim) => claim.revision,
        Note::Claim(_) | Note::Absent | Note::Unreadable => 0,
    };
    let revision = o.memory.claim.as_ref().map_or(there, |known| known.revision.max(there)).saturating_add(1);
    let consent = is_consent(o, &claim) && !claim.reading && !claim.refused;
    let claim = Claim { revision, uid: Some(o.uid.clone()), ..claim };
    Decision::Act(ClusterStep::WriteClaim { claim: Box::new(claim), finalizer, send, consent }.into())
}

/// Ends the reconcile. People are notified of what changes in `Ready`.
pub(crate) fn settle(o: &Observed, mut status: Status, requeue: Requeue) -> Decision {
    // An edit that changes nothing here is recorded as seen, too: tools that wait for that read these generations.
    if !status.conditions.is_empty() && o.deleted.is_none() {
        status.observed_generation = o.generation;
        status.conditions.iter_mut().for_each(|condition| condition.observed_generation = o.generation);
    }
    let mut notices = Vec::new();
    if o.copied && o.claim_exists() {
        let note = format!(
            "The annotation {CLAIM} spoke of another resource, or was older than what was written since, as in a copied or exported manifest; it was replaced."
        );
        notices.push(Notice::warning(reason::CLAIM_IGNORED, note));
    }
    if is_started(&status)
        && !is_started(&o.status)
        && let Some(started) = conditions::find(&status.conditions, STARTED)
    {
        notices.push(Notice::normal(&started.reason, &started.message));
    }
    let old = conditions::find(&o.status.conditions, READY);
    if let Some(new) = conditions::find(&status.conditions, READY)
        && old.is_none_or(|old| old.reason != new.reason)
        && new.reason != reason::RUNNING
    {
        let warning = conditions::is_true(&status.conditions, STALLED)
            || conditions::is_true(&status.conditions, RESULT_NOT_WRITTEN)
            || matches!(
                new.reason.as_str(),
                reason::API_UNAVAILABLE | reason::OUTCOME_UNKNOWN | reason::MISSING | reason::RESULT_PENDING
            );
        let notice = if warning { Notice::warning } else { Notice::normal };
        notices.push(notice(&new.reason, &new.message));
    }
    Decision::Settle(Box::new(Settled { status, notices, requeue }))
}

pub(crate) fn ready_reason(status: &Status) -> Option<&str> {
    conditions::find(&status.conditions, READY).map(|ready| ready.reason.as_str())
}
