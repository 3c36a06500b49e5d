//! What remains once a run has ended: removing the finalizer, leaving the watch, and deleting the resource when it
//! expires.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::clock::later;
use crate::execution::finished::mark::Returns;
use crate::execution::plan::refused_writes::Write;
use crate::execution::plan::{ClusterStep, Decision, settle};
use crate::execution::state::ExecutionState;
use crate::execution::status;
use crate::platform::requeue::{Requeue, jitter};

/// How long a finished execution keeps its finalizer: removing it costs a write that nobody waits for. The doubt of its
/// claim is over by then, 90 s after the claim, so the claim leaves the operator's memory with this last change.
const FINALIZER_LINGERS: SignedDuration = SignedDuration::from_secs(95);
/// A resource that expires sooner stays in the watch: coming back for its deletion would cost a write.
const EXPIRES_SOON: Duration = Duration::from_secs(3600);
/// How long to wait at most before looking at a finished resource again.
const LONGEST_WAIT: Duration = Duration::from_secs(125);

/// What this process has seen of a run's end, by the monotonic clock: the wall clock may be set meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Time since this process first saw the end.
    pub ago: Duration,
    /// This process wrote the end. Otherwise it found the end written, and the end is older than `ago`.
    pub witnessed: bool,
}

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

/// Field managers of Argo CD and Flux. Argo CD may track by a label that others use as well
/// (`app.kubernetes.io/instance`); only the field manager shows that the label is Argo CD's.
pub(crate) const MANAGERS: [(&str, &str); 3] =
    [("argocd-controller", "Argo CD"), ("kustomize-controller", "Flux"), ("helm-controller", "Flux")];

/// Annotations and labels by which tools track a resource, according to their documentation: Argo CD's tracking
/// annotation or label, the labels that Flux's two controllers set on what they apply, the annotation by which Helm
/// owns a resource, the label of the members of an ApplySet, and the labels that kro and Crossplane set on what they
/// make.
pub(crate) const MARKS: [(&str, &str); 8] = [
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "Flux"),
    ("meta.helm.sh/release-name", "Helm"),
    ("applyset.kubernetes.io/part-of", "an ApplySet"),
    ("kro.run/owned", "kro"),
    ("crossplane.io/composite", "Crossplane"),
];

/// Owners, by API group and kind, that run to completion and create a resource once. Any other controller would create
/// it again.
const RUN_TO_COMPLETION: [(&str, &str); 8] = [
    ("", "Pod"),
    ("batch", "Job"),
    ("batch", "CronJob"),
    ("argoproj.io", "Workflow"),
    ("argoproj.io", "CronWorkflow"),
    ("tekton.dev", "TaskRun"),
    ("tekton.dev", "PipelineRun"),
    ("workflows.mistral.ai", "WorkflowExecution"),
];

/// What tracks a resource and would create it again if it were deleted; none if nothing does.
pub(crate) fn tracked_by(metadata: &ObjectMeta) -> Option<String> {
    let has = |key: &str| {
        let within = |map: &Option<std::collections::BTreeMap<String, String>>| {
            map.as_ref().is_some_and(|map| map.contains_key(key))
        };
        within(&metadata.annotations) || within(&metadata.labels)
    };
    let wrote =
        |name: &str| metadata.managed_fields.iter().flatten().any(|entry| entry.manager.as_deref() == Some(name));
    let mark = MARKS.iter().find(|(key, _)| has(key)).map(|(_, tool)| *tool);
    let tool = mark.or_else(|| MANAGERS.iter().find(|(name, _)| wrote(name)).map(|(_, tool)| *tool));
    tool.map(str::to_owned).or_else(|| controller(metadata))
}

/// The owner that controls a resource, unless it is one that runs to completion.
fn controller(metadata: &ObjectMeta) -> Option<String> {
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    let ends = RUN_TO_COMPLETION.contains(&(group, owner.kind.as_str()));
    (!ends).then(|| format!("{} \"{}\"", owner.kind, owner.name))
}
