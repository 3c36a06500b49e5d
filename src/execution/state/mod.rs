//! What is known about one execution during one reconcile.

pub mod comparison;
pub mod input;
pub mod memory;
pub mod outcomes;
pub mod ownership;
pub mod refusals;
pub mod result;
pub mod start_answer;
pub mod tracked;
pub mod update;
pub mod workflow_ref;

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::api::{WorkflowExecution, WorkflowExecutionSpec, WorkflowExecutionStatus};
use crate::clock::later;
use crate::execution::claim::{CLAIM, ClaimAnnotation, FINALIZER, Owner, TAKE_OVER};
use crate::execution::phase::is_finished;
use crate::mistral::ExecuteTarget;
use crate::platform::apiserver::written_by_us;
use crate::workspace::access::{ConnectionInfo, Workspace};
pub use memory::{Instance, Memory};
pub use outcomes::{Comparison, FailureText, Outcomes, Remote, Report, StopCall, Target, failure_text};
pub use start_answer::{Refusal, Sent};
use tracked::tracked_by;
pub use workflow_ref::{Named, WorkflowRefState};

/// Everything that [`plan`](crate::execution::plan::plan) may use.
#[derive(Clone, Debug)]
pub struct ExecutionState {
    pub spec: WorkflowExecutionSpec,
    /// The status as last written.
    pub status: WorkflowExecutionStatus,
    pub owner: Owner,
    pub uid: String,
    pub generation: Option<i64>,
    /// When the resource was created, by the API server's clock.
    pub created: Timestamp,
    /// When its deletion was requested.
    pub deleted: Option<Timestamp>,
    /// Whether the operator's finalizer is on the resource.
    pub finalizer: bool,
    /// The claim that this process goes by: the one on the resource, or one that the API server refuses to record.
    pub annotation: ClaimAnnotation,
    /// The claim on the resource.
    pub recorded: ClaimAnnotation,
    /// The resource version on which the next write depends.
    pub version: String,
    /// The claim on the resource speaks of another resource, or is older than one written since.
    pub copied: bool,
    /// The execution id of another resource's claim that a person lets this resource take over.
    pub take_over: Option<String>,
    /// What this process remembers of earlier reconciles.
    pub memory: Memory,
    /// When the reconcile began. All its requests were sent later, however long the answers took.
    pub began: Timestamp,
    /// How long this process had known the claim's call when the reconcile began. By the monotonic clock: the wall
    /// clock may be set, and the machine suspended, while the call is in flight.
    pub known_for: Duration,
    /// How long ago an operator wrote the claim on the resource, by the API server's clock. None if somebody else has
    /// changed the claim since: it may then be an older one that came back.
    pub claim_age: Option<Duration>,
    pub instance: Instance,
    pub workspace: Workspace,
    /// The state of the Workflow resource that the spec names.
    pub workflow_ref: WorkflowRefState,
    /// A connection that may still be used to stop the run, even if its Workspace or Secret is gone.
    pub stop_with: Option<ConnectionInfo>,
    /// Whether to get a run that is not known to have ended.
    pub refresh: bool,
    /// What this process has seen of the run's end, if the run has ended.
    pub ended: Option<Ended>,
    /// The tool that tracks the resource and would create it again.
    pub tracked_by: Option<String>,

    pub outcomes: Outcomes,
}

/// What this process has seen of a run's end, by the monotonic clock: the wall clock may be set meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Time since this process first saw the end.
    pub ago: Duration,
    /// This process wrote the end. Otherwise it found the end written, and the end is older than `ago`.
    pub witnessed: bool,
}

/// The state of the resources in this cluster that the execution names.
#[derive(Clone, Debug)]
pub struct References {
    pub workspace: Workspace,
    /// A connection that may still be used to stop the run.
    pub stop_with: Option<ConnectionInfo>,
    pub workflow_ref: WorkflowRefState,
}

impl ExecutionState {
    /// What is known before any step.
    pub fn new(
        object: &WorkflowExecution,
        cluster: &str,
        instance: Instance,
        memory: Memory,
        references: References,
        refresh: bool,
        now: Timestamp,
    ) -> Self {
        let mut memory = memory;
        let References { workspace, stop_with, workflow_ref } = references;
        let meta = &object.metadata;
        let recorded = ClaimAnnotation::read(meta.annotations.as_ref());
        memory.refusals.forget_outdated(&recorded);
        let owner = Owner {
            cluster: cluster.to_owned(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        };
        let mut state = Self {
            spec: object.spec.clone(),
            status: object.status.clone().unwrap_or_default(),
            owner,
            uid: object.uid().unwrap_or_default(),
            generation: meta.generation,
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0),
            deleted: meta.deletion_timestamp.as_ref().map(|time| time.0),
            finalizer: object.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
            copied: false,
            annotation: memory.refusals.annotation(&recorded),
            recorded,
            version: object.resource_version().unwrap_or_default(),
            take_over: object.annotations().get(TAKE_OVER).cloned(),
            memory,
            began: now,
            known_for: Duration::ZERO,
            claim_age: None,
            instance,
            workspace,
            workflow_ref,
            stop_with,
            refresh,
            ended: None,
            tracked_by: tracked_by(meta),
            outcomes: Outcomes::default(),
        };
        state.claim_age = state.age_of_claim(written_by_us(meta.managed_fields.iter().flatten(), CLAIM));
        state.copied = matches!(&state.recorded, ClaimAnnotation::Claim(claim) if state.is_void(claim));
        state.learn();
        state.known_for = state.memory.claim.as_ref().map_or(Duration::ZERO, |known| known.first.elapsed());
        state
    }

    /// Remembers the claim on the resource. If an older claim comes back, this process knows the newer one.
    fn learn(&mut self) {
        let ClaimAnnotation::Claim(claim) = &self.annotation else { return };
        if claim.owner != self.owner || self.names_another_uid(claim) {
            return;
        }
        if !self.is_void(claim) {
            // Most executions that had ended before this process began leave nothing to remember.
            if self.memory.claim.is_some() || !is_finished(&self.status) {
                self.memory.claim = Some(Box::new(self.known(claim)));
            }
        } else if let Some(known) = self.memory.claim.as_deref()
            && known.send_before < claim.send_before
        {
            // A second operator has claimed over an older claim that had come back.
            self.memory.claim = Some(Box::new(known.with_call_of(claim)));
        }
    }

    /// The workflow as the spec names it, until the API tells its name.
    pub(crate) fn workflow_of_spec(&self) -> Option<String> {
        let resolved = self.workflow_ref.workflow().map(|workflow| &workflow.name);
        let named = resolved.or(self.spec.workflow_ref.as_ref().map(|named| &named.name));
        named.or(self.spec.workflow_identifier.as_ref()).or(self.spec.registration_id.as_ref()).cloned()
    }

    /// When the start is given up (`spec.startingDeadlineSeconds`).
    pub(crate) fn starting_deadline(&self) -> Option<Timestamp> {
        let seconds = self.spec.starting_deadline_seconds?;
        Some(later(self.created, SignedDuration::from_secs(i64::from(seconds))))
    }

    /// The workflow or registration to run.
    pub(crate) fn target(&self) -> ExecuteTarget<'_> {
        match (&self.workflow_ref, &self.spec.workflow_identifier, &self.spec.registration_id) {
            (WorkflowRefState::Ready { workflow, .. }, ..) => ExecuteTarget::Workflow(&workflow.id),
            (_, Some(identifier), _) => ExecuteTarget::Workflow(identifier),
            (_, None, id) => ExecuteTarget::Registration(id.as_deref().unwrap_or_default()),
        }
    }
}
