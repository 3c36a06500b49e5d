//! The deletion of a resource: stops the run, then releases the resource, in bounded time.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::reasons::execution as reason;
use crate::api::{DeletionPolicy, Shutdown};
use crate::clock::{CLOCK_SKEW, later};
use crate::execution::claim::{Claim, VISIBILITY};
use crate::execution::phase::{is_finished, is_started};
use crate::execution::plan::blocked::is_taken;
use crate::execution::plan::claim::write;
use crate::execution::plan::decision::{Call, ClusterStep, Decision, ready_reason, settle};
use crate::execution::plan::follow::unreadable_end;
use crate::execution::plan::start::{resolve_predecessors_claim, restored};
use crate::execution::plan::stop;
use crate::execution::state::ownership::{Ownership, ownership};
use crate::execution::state::{ExecutionState, Remote, StopCall};
use crate::execution::status;
use crate::mistral::wire::is_terminal;
use crate::mistral::{Error, TroubleKind};
use crate::platform::requeue::Requeue;

/// How long a deletion waits for a run to stop before it releases the resource.
const DELETION_LIMIT: SignedDuration = SignedDuration::from_mins(5);
/// Longest grace period in seconds between cancel and terminate: short enough for the limit.
pub(crate) const LONGEST_GRACE: u32 = 240;

/// The resource is being deleted: stops the run if it is ours, then releases the resource.
pub(crate) fn delete(state: &ExecutionState, since: Timestamp, now: Timestamp) -> Decision {
    if !state.finalizer {
        return settle(state, state.status.clone(), Requeue::OnChange);
    }
    let free = Decision::Act(ClusterStep::Release { abandoned: false }.into());
    if is_finished(&state.status) || state.spec.deletion_policy == DeletionPolicy::Orphan {
        return free;
    }
    let claim = match ownership(state) {
        Ownership::Ours(claim) => claim,
        Ownership::ReadOnly(_) | Ownership::Foreign(_) => return free,
        // The claim is gone, but something still shows that there was one.
        Ownership::Unclaimed if state.has_lost_a_claim() => {
            return match &state.stop_with {
                _ if has_waited(state, since, now) => {
                    Decision::Act(ClusterStep::Release { abandoned: !is_only_held(state) }.into())
                }
                Some(connection) => write(state, restored(state, connection, now), false),
                None => stopping(state, 10, now),
            };
        }
        Ownership::Unclaimed => return free,
        Ownership::Unreadable => return Decision::Act(ClusterStep::Release { abandoned: true }.into()),
    };
    if state.is_refused(claim) {
        return free;
    }
    // A time left by an earlier deletion, as in a restored backup, is not when this stop began. The clock that is
    // behind decides: the deletion time comes from the API server's clock.
    let asked_for = |at: &Timestamp| claim.stop_for.is_some() || *at >= later(since.min(now), -CLOCK_SKEW);
    let stop_since = stop::began(claim, now).filter(asked_for);
    // Leaders may follow each other quickly, and each would begin to count anew.
    let was_tried = later(since, DELETION_LIMIT) < now && stop_since.is_some_and(|at| later(at, DELETION_LIMIT) < now);
    if was_tried || has_waited(state, since, now) {
        return Decision::Act(ClusterStep::Release { abandoned: !is_only_held(state) }.into());
    }
    let Some(connection) = &state.stop_with else { return stopping(state, 10, now) };
    if !claim.is_for(&connection.origin, connection.workspace_id.as_deref(), true) {
        return stopping(state, 10, now);
    }
    if state.may_be_predecessors(claim) {
        return resolve_predecessors_claim(state, connection, claim, now);
    }
    let Some(stop_since) = stop_since else {
        return write(state, Claim { stop_since: Some(now), ..claim.clone() }, false);
    };
    stop_run(state, claim, stop_since, now)
}

/// Whether a deletion requested at `since` has waited for as long as it may. Time in which this operator did not lead does not
/// count: the run is stopped first. Both moments are by the API server's clock.
fn has_waited(state: &ExecutionState, since: Timestamp, now: Timestamp) -> bool {
    let present = state.instance.api_server_time.unwrap_or(now);
    later(since.max(state.instance.since), DELETION_LIMIT) < present
}

/// Stops the run of this claim, and releases the resource once the run has ended or no run can exist.
fn stop_run(state: &ExecutionState, claim: &Claim, stop_since: Timestamp, now: Timestamp) -> Decision {
    let free = Decision::Act(ClusterStep::Release { abandoned: false }.into());
    let is_unknown = match (&state.outcomes.stopped, &state.outcomes.remote) {
        (Some(Err(Error::NotFound(said))), _) => said.is_no_execution(),
        (None, Remote::Absent) => true,
        _ => false,
    };
    if is_unknown {
        // A start may still be in flight, or its run not visible yet: a missing run proves nothing then.
        let may_show = match &state.status.start_time {
            Some(start) if is_started(&state.status) => state.began < later(later(start.0, VISIBILITY), CLOCK_SKEW),
            _ => !state.doubt(claim).is_zero(),
        };
        return if may_show { stopping(state, 5, now) } else { free };
    }
    match (&state.outcomes.stopped, &state.outcomes.remote) {
        (Some(Ok(())), _) => stopping(state, 2, now),
        // The run is not running, whatever else its state is.
        (Some(Err(Error::Conflict(_))), Remote::Unknown(_)) => free,
        (None, Remote::Unknown(trouble)) if unreadable_end(state, trouble).is_some() => free,
        // Stopping a run needs no answer about it. A started run is ours; an id that was only claimed may be somebody
        // else's.
        (None, Remote::Unknown(trouble)) if trouble.kind != TroubleKind::Unauthorized && is_started(&state.status) => {
            let call = call(state, stop_since, now);
            match (state.memory.has_stopped(call, now), call) {
                (false, _) => Decision::Act(Call::Stop(call).into()),
                // There is nothing more to do, and nothing more to learn.
                (true, StopCall::Terminate) if state.memory.unanswered > 1 => free,
                (true, _) => stopping(state, 5, now),
            }
        }
        (Some(Err(_)), _) | (None, Remote::Unknown(_) | Remote::Absent) => stopping(state, 5, now),
        (None, Remote::NotFetched) => Decision::Act(Call::GetRun.into()),
        (None, Remote::Found(run)) if is_terminal(run.status.as_deref()) => free,
        // A started run is ours, whatever the spec resolves to by now.
        (None, Remote::Found(run)) if !is_started(&state.status) && is_taken(state, run) => free,
        (None, Remote::Found(_)) => {
            let call = call(state, stop_since, now);
            if state.memory.has_stopped(call, now) {
                stopping(state, 2, now)
            } else {
                Decision::Act(Call::Stop(call).into())
            }
        }
    }
}

/// Whether the API server has refused to remove the finalizer before. If so, the run had ended, or was already reported
/// as abandoned. The status records it for a process that does not remember.
fn is_only_held(state: &ExecutionState) -> bool {
    state.memory.refusals.finalizer.is_some() || ready_reason(&state.status) == Some(reason::FINALIZER_REFUSED)
}

/// How long a canceled run has to end before it is terminated, if its resource is being deleted or is gone.
pub(crate) fn grace(state: &ExecutionState) -> SignedDuration {
    SignedDuration::from_secs(i64::from(state.spec.termination_grace_period_seconds.min(LONGEST_GRACE)))
}

/// How to stop the run now.
fn call(state: &ExecutionState, since: Timestamp, now: Timestamp) -> StopCall {
    let at_once =
        state.spec.deletion_policy == DeletionPolicy::Terminate || state.spec.shutdown == Some(Shutdown::Terminate);
    let terminate = at_once || now > later(since, grace(state));
    if terminate { StopCall::Terminate } else { StopCall::Cancel }
}

fn stopping(state: &ExecutionState, seconds: u64, now: Timestamp) -> Decision {
    settle(state, status::deleting(state, now), Requeue::After(Duration::from_secs(seconds)))
}
