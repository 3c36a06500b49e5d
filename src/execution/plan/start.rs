//! From no claim to a started run, or to the report that none was started.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::{self, Progress, STARTED};
use crate::api::reasons::execution as reason;
use crate::clock::later;
use crate::execution::claim::{Claim, TAKE_OVER};
use crate::execution::plan::backoff::{backoff, blocked_retry};
use crate::execution::plan::blocked::{
    blocked, deployment_not_found, in_doubt, is_taken, is_unresolved, refused, suspended, taken, target_gone, troubled,
    unresolved,
};
use crate::execution::plan::claim::{is_consent, write};
use crate::execution::plan::decision::{Call, ClusterStep, Decision, ready_reason, settle};
use crate::execution::plan::follow::{observe, unread};
use crate::execution::plan::{input, refused_writes, stop};
use crate::execution::state::ownership::{Ownership, ownership};
use crate::execution::state::{ExecutionState, Refusal, Remote, Sent, Target, WorkflowRefState};
use crate::execution::status;
use crate::mistral::TroubleKind;
use crate::mistral::wire::{Execution, is_terminal};
use crate::platform::requeue::Requeue;
use crate::workspace::access::ConnectionInfo;

/// How long a claim is trusted after its doubt has ended. An older claim may come from a backup, and the API may have
/// forgotten a run that ended long ago.
const CLAIM_GOES_STALE: SignedDuration = SignedDuration::from_hours(24);

/// There is no claim: makes one, or restores one that was lost.
pub(crate) fn begin(state: &ExecutionState, connection: &ConnectionInfo, now: Timestamp) -> Decision {
    if state.has_lost_a_claim() {
        return write(state, restored(state, connection, now), false);
    }
    if state.no_run_can_exist() {
        return claim_and_send(state, connection, 1, now);
    }
    match &state.outcomes.remote {
        Remote::NotFetched => Decision::Act(Call::GetRun.into()),
        Remote::Unknown(trouble) => troubled(state, trouble, now),
        // Its run has ended in this term, so the claim is lost, not missing.
        Remote::Absent if state.memory.seen => write(state, state.claim(connection, 1, now), false),
        Remote::Absent => claim_and_send(state, connection, 1, now),
        Remote::Found(_) if is_unresolved(state) => {
            unresolved(state, now).unwrap_or_else(|| settle(state, state.status.clone(), Requeue::OnChange))
        }
        Remote::Found(run) if is_taken(state, run) => taken(state, run.workflow_name.as_deref(), now),
        Remote::Found(_) => {
            let claim = state.claim(connection, 1, now);
            // A derived id contains the resource's UID, so nobody else can have started that run.
            let read_only = state.spec.execution_id.is_some();
            write(state, Claim { read_only, ..claim }, false)
        }
    }
}

/// Writes a claim whose call follows in this reconcile. Waits if another resource here has just claimed the same
/// explicit id: that run may not be visible yet, and once it has ended, the API would accept a second one.
pub(crate) fn claim_and_send(
    state: &ExecutionState,
    connection: &ConnectionInfo,
    attempt: u32,
    now: Timestamp,
) -> Decision {
    if let Some(decision) = stop::start_forbidden(state, now) {
        return decision;
    }
    if let Some(decision) = unresolved(state, now) {
        return decision;
    }
    // A claim that only records what has happened may have been refused in this very reconcile.
    if let Some(decision) = refused_writes::claim_refused(state, now) {
        return decision;
    }
    if state.outcomes.conflicting_claim_until.is_some() {
        let message = format!(
            "Another WorkflowExecution may have claimed the execution id \"{}\" and started its run. This one waits until the API would show that run, for about 90 s, and then follows it. There is nothing to do.",
            state.execution_id()
        );
        let status = status::not_started(state, Progress::Working, reason::EXECUTION_ID_CLAIMED, message, now);
        return settle(state, status, Requeue::Retry(backoff(state, 2, 10)));
    }
    match input::ready(state, now) {
        Ok(inputs) => write(state, Claim { inputs, ..state.claim(connection, attempt, now) }, true),
        Err(decision) => *decision,
    }
}

/// Rebuilds a lost claim: `kubectl replace` drops annotations but not the status. Another operator may have claimed
/// after the claim that this process remembers, so the rebuilt claim is as doubtful as a call made now.
pub(crate) fn restored(state: &ExecutionState, connection: &ConnectionInfo, now: Timestamp) -> Claim {
    let adopted =
        conditions::find(&state.status.conditions, STARTED).is_some_and(|started| started.reason == reason::ADOPTED);
    match &state.memory.claim {
        Some(known) => Claim {
            read_only: known.read_only || adopted,
            since: known.since,
            digest: known.digest.clone(),
            inputs: known.inputs.clone(),
            // A stop that has reached the run cannot be taken back.
            stop_since: known.stop_since,
            stop_for: known.stop_for,
            ..state.claim(connection, known.attempt, now)
        },
        None => Claim { read_only: adopted, since: None, ..state.claim(connection, 1, now) },
    }
}

/// The claim was written on an earlier resource of this name. Either a restore brought it back, or an exported manifest
/// replaced this resource's own claim at a moment when nothing else was left of that. Only the API knows.
pub(crate) fn resolve_predecessors_claim(
    state: &ExecutionState,
    connection: &ConnectionInfo,
    claim: &Claim,
    now: Timestamp,
) -> Decision {
    match &state.outcomes.remote {
        Remote::NotFetched => Decision::Act(Call::GetRun.into()),
        Remote::Found(_) => write(state, Claim { since: None, ..state.claim(connection, 1, now) }, false),
        Remote::Unknown(trouble) => troubled(state, trouble, now),
        Remote::Absent if state.began < state.earlier_calls_end() => {
            let left = Duration::try_from(state.earlier_calls_end().duration_since(now)).unwrap_or_default();
            in_doubt(state, left, None, now)
        }
        Remote::Absent => write(state, claim.clone(), false),
    }
}

/// The claim is ours, and the status does not report a start yet.
pub(crate) fn resume(state: &ExecutionState, connection: &ConnectionInfo, claim: &Claim, now: Timestamp) -> Decision {
    if let Some(decision) = answered(state, claim, now) {
        return decision;
    }
    // An earlier process reported why nothing was started. Whether that is final is known once the doubt has ended.
    if claim.refused
        && !state.is_refused(claim)
        && !state.doubt(claim).is_zero()
        && ready_reason(&state.status).is_some_and(|it| it != reason::QUEUED)
    {
        return settle(state, state.status.clone(), Requeue::After(state.doubt(claim)));
    }
    if let Some(decision) = target_missing(state, claim, now) {
        return decision;
    }
    match &state.outcomes.remote {
        Remote::NotFetched => Decision::Act(Call::GetRun.into()),
        // Somebody else started the run of this explicit id, before the claim or after its call was refused.
        Remote::Found(run) if state.spec.execution_id.is_some() && is_anothers(claim, run) => {
            write(state, Claim { read_only: true, ..claim.clone() }, false)
        }
        Remote::Found(run) if is_taken(state, run) => taken(state, run.workflow_name.as_deref(), now),
        Remote::Found(run) => observe(state, run, now),
        Remote::Unknown(trouble) if claim.refused => troubled(state, trouble, now),
        // The run exists and cannot be read. Its id contains this resource's UID, so it is ours and is followed.
        Remote::Unknown(_) if state.memory.seen && state.memory.unanswered > 1 && state.spec.execution_id.is_none() => {
            settle(state, status::running(state, &unread(state), now), Requeue::OnChange)
        }
        Remote::Unknown(trouble) if trouble.kind != TroubleKind::Unavailable => troubled(state, trouble, now),
        Remote::Unknown(trouble) => in_doubt(state, state.doubt(claim), Some(trouble), now),
        Remote::Absent if !state.doubt(claim).is_zero() => match &state.outcomes.sent {
            Sent::Unknown(trouble) => in_doubt(state, state.doubt(claim), Some(trouble), now),
            _ => in_doubt(state, state.doubt(claim), None, now),
        },
        // The API has reported this run before, so it has forgotten the run.
        Remote::Absent if state.memory.seen => settle(state, status::missing(state, now), Requeue::OnChange),
        Remote::Absent => start_again(state, connection, claim, now),
    }
}

/// What follows from the start in this reconcile: the call itself, or its answer. None if no call is to be sent, or its
/// answer leaves open whose run exists, if any.
fn answered(state: &ExecutionState, claim: &Claim, now: Timestamp) -> Option<Decision> {
    let decision = match &state.outcomes.sent {
        Sent::Nothing if state.outcomes.claimed_this_reconcile => Decision::Act(Call::Start.into()),
        Sent::TooLate | Sent::Refused(_) | Sent::NotStarted(_) if !claim.refused => {
            write(state, Claim { refused: true, ..claim.clone() }, false)
        }
        Sent::TooLate => settle(state, state.status.clone(), Requeue::After(Duration::ZERO)),
        Sent::Accepted(run) => match &state.outcomes.remote {
            _ if !state.outcomes.lingered && !is_terminal(run.status.as_deref()) => {
                Decision::Act(ClusterStep::Linger.into())
            }
            Remote::Found(newer) => observe(state, newer, now),
            Remote::NotFetched | Remote::Absent | Remote::Unknown(_) => observe(state, run, now),
        },
        // Our own earlier calls provably started nothing, so the run is somebody else's.
        Sent::AlreadyStarted if state.spec.execution_id.is_some() => {
            write(state, Claim { read_only: true, ..claim.clone() }, false)
        }
        // The workflow may well exist, and the deployment that the spec names not.
        Sent::Refused(Refusal::TargetNotFound(_))
            if state.spec.deployment_name.is_some() && state.outcomes.target == Target::NotFetched =>
        {
            Decision::Act(Call::GetTarget.into())
        }
        Sent::NotStarted(trouble) => troubled(state, trouble, now),
        Sent::Refused(refusal) => refused(state, refusal, now),
        Sent::Nothing | Sent::AlreadyStarted | Sent::Unknown(_) => return None,
    };
    Some(decision)
}

/// The workflow was missing at the last start. One cheap request checks whether it exists now, instead of another claim.
fn target_missing(state: &ExecutionState, claim: &Claim, now: Timestamp) -> Option<Decision> {
    let missing = [reason::TARGET_NOT_FOUND, reason::DEPLOYMENT_NOT_FOUND];
    let was_missing = ready_reason(&state.status).is_some_and(|it| missing.contains(&it)) && state.is_refused(claim);
    let is_known = matches!(state.workflow_ref, WorkflowRefState::NotNamed | WorkflowRefState::Ready { .. });
    if !was_missing || !is_known {
        return None;
    }
    match &state.outcomes.target {
        Target::NotFetched => Some(Decision::Act(Call::GetTarget.into())),
        Target::Unknown(trouble) => Some(troubled(state, trouble, now)),
        // Only the deployment was missing, and now the workflow is, too.
        Target::Absent if ready_reason(&state.status) == Some(reason::DEPLOYMENT_NOT_FOUND) => {
            Some(target_gone(state, now))
        }
        Target::Absent => Some(settle(state, state.status.clone(), blocked_retry(state))),
        Target::NoDeployment { .. } => Some(deployment_not_found(state, now)),
        // Where the list cannot be read to its end, the next start says whether the deployment exists.
        Target::Exists | Target::DeploymentUnknown => None,
    }
}

/// Whether the run of a claimed explicit id was started by something other than the claim's call.
pub(crate) fn is_anothers(claim: &Claim, run: &Execution) -> bool {
    claim.refused || run.start_time.is_some_and(|start| claim.is_younger_than(start))
}

/// No run exists, and no call can be in flight: starts again unless something forbids it.
pub(crate) fn start_again(
    state: &ExecutionState,
    connection: &ConnectionInfo,
    claim: &Claim,
    now: Timestamp,
) -> Decision {
    if let Some(decision) = stop::start_forbidden(state, now) {
        return decision;
    }
    if !claim.refused && now > later(claim.outcome_known_by(), CLAIM_GOES_STALE) && !is_consent(state, claim) {
        let id = &claim.execution_id;
        let message = format!(
            "Run \"{id}\" was claimed on {}, and the API does not know it. It may have ended long ago, as after a restore from a backup, so it is not started. To start it, annotate this resource with {TAKE_OVER}={id}.",
            claim.send_before.strftime("%F")
        );
        return blocked(state, reason::STALE_CLAIM, message, Requeue::OnChange, now);
    }
    if state.spec.suspend {
        return suspended(state, now);
    }
    if state.is_edited() {
        let message = "The spec was edited between the claim and the start, so nothing was started; create another WorkflowExecution with the spec that you want.".to_owned();
        return blocked(state, reason::INPUT_CHANGED, message, Requeue::OnChange, now);
    }
    claim_and_send(state, connection, claim.attempt.saturating_add(1), now)
}

/// The claim on somebody else's run, if a person consents that this resource takes it over.
pub(crate) fn consented(state: &ExecutionState) -> Option<&Claim> {
    match ownership(state) {
        Ownership::ReadOnly(claim) | Ownership::Foreign(claim) => Some(claim).filter(|claim| is_consent(state, claim)),
        Ownership::Unclaimed | Ownership::Ours(_) | Ownership::Unreadable => None,
    }
}

/// A person has consented: the claim becomes this resource's, and keeps its doubt.
pub(crate) fn take_over(state: &ExecutionState, claim: &Claim) -> Decision {
    let claim = Claim {
        owner: state.owner.clone(),
        since: None,
        read_only: false,
        stop_since: None,
        stop_for: None,
        ..claim.clone()
    };
    write(state, claim, false)
}
