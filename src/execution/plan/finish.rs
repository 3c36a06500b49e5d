//! What remains once a run has ended: removing the finalizer, leaving the watch, and deleting the resource when it
//! expires.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::clock::later;
use crate::execution::finished::mark::Returns;
use crate::execution::plan::decision::{ClusterStep, Decision, settle};
use crate::execution::state::ExecutionState;
use crate::execution::state::refusals::Write;
use crate::execution::status;
use crate::platform::requeue::{Requeue, jitter};

/// How long a finished execution keeps its finalizer: removing it costs a write that nobody waits for. The doubt of its
/// claim is over by then, 90 s after the claim, so the claim leaves the operator's memory with this last change.
const FINALIZER_LINGERS: SignedDuration = SignedDuration::from_secs(95);
/// A resource that expires sooner stays in the watch: coming back for its deletion would cost a write.
const EXPIRES_SOON: Duration = Duration::from_secs(3600);
/// How long to wait at most before looking at a finished resource again.
const LONGEST_WAIT: Duration = Duration::from_secs(125);

/// The run has ended: nothing is polled or started any more.
pub(crate) fn finished(state: &ExecutionState, now: Timestamp) -> Decision {
    let expires = time_left(state, now);
    let (status, requeue) = match (expires, state.tracked_by.as_deref()) {
        (Some(Duration::ZERO), None) => match state.refusal(Write::Deletion, now) {
            None => return Decision::Act(ClusterStep::Delete.into()),
            Some((refusal, left)) => (status::deletion_refused(state, &refusal.refused, now), Requeue::After(left)),
        },
        (Some(Duration::ZERO), Some(who)) => (status::expired(state, who, now), Requeue::OnChange),
        (Some(left), _) => (status::not_expired(state), Requeue::AtLatest(left)),
        (None, _) => (status::not_expired(state), Requeue::OnChange),
    };
    if state.refusal(Write::Finalizer, now).is_some() {
        return settle(state, status, requeue);
    }
    let leaves = leaves(state, expires, now);
    if leaves.is_none() && !state.finalizer {
        return settle(state, status, requeue);
    }
    let due = later(
        status::known_end(&state.status).unwrap_or(now),
        FINALIZER_LINGERS + SignedDuration::from_secs(i64::from(jitter(&state.uid) % 30)),
    );
    let stays = state.memory.left.map_or(Duration::ZERO, |left| left.stays);
    match Duration::try_from(due.duration_since(now)).unwrap_or_default().max(stays) {
        Duration::ZERO => match settle(state, status, requeue) {
            // Outside the watch nobody would repeat a write that failed, so the status comes first.
            Decision::Settle(settled) if settled.status == state.status && leaves.is_some() => {
                let returns = leaves.unwrap_or(Returns::Never);
                Decision::Act(ClusterStep::Leave { returns }.into())
            }
            _ if state.finalizer => Decision::Act(ClusterStep::SetFinalizer(false).into()),
            settled => settled,
        },
        // An end in the future, after a clock was set back, must not delay this for long.
        wait => settle(state, status, requeue.within(wait.min(LONGEST_WAIT))),
    }
}

/// When the resource would come back if it left the watch now; none if it is to stay.
fn leaves(state: &ExecutionState, expires: Option<Duration>, now: Timestamp) -> Option<Returns> {
    if state.refusal(Write::Label, now).is_some() {
        return None;
    }
    match expires {
        None => Some(Returns::Never),
        // To be deleted, or kept because a tool would create it again.
        Some(Duration::ZERO) => state.tracked_by.is_some().then_some(Returns::WhenUntracked),
        Some(left) if left > EXPIRES_SOON => {
            let left = SignedDuration::try_from(left).unwrap_or(SignedDuration::MAX);
            Some(Returns::At(later(now, left)))
        }
        Some(_) => None,
    }
}

/// How long until the resource is deleted; none if it stays.
///
/// A process that wrote the end counts by its monotonic clock alone. Any other has to believe the times in the status,
/// which come from other clocks: an end in the future counts from when this process first saw it.
fn time_left(state: &ExecutionState, now: Timestamp) -> Option<Duration> {
    let ttl = Duration::from_secs(u64::from(state.spec.ttl_seconds_after_finished?));
    let seen = state.ended.map_or(Duration::ZERO, |ended| ended.ago);
    if state.ended.is_some_and(|ended| ended.witnessed) {
        return Some(ttl.saturating_sub(seen));
    }
    // The later of two clocks: the API's, and that of the operator that wrote the end.
    let Some(end) = status::known_end(&state.status) else { return Some(ttl.saturating_sub(seen)) };
    let ago = Duration::try_from(now.duration_since(end)).unwrap_or_default();
    Some(ttl.saturating_sub(ago.max(seen)))
}
