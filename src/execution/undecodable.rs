//! Executions that this version cannot decode, such as those written by a newer one. They are skipped, but can be
//! deleted.
//!
//! To stop a run, the operator needs only what every version writes alike: the metadata, and the claim in it.

use kube::core::ObjectMeta;

use crate::api::execution::ResultSpec;
use crate::api::{DeletionPolicy, WorkflowExecution, WorkflowExecutionSpec, WorkspaceRef};
use crate::execution::claim::{ClaimAnnotation, FINALIZER};
use crate::workspace::connections::Connections;

/// A stand-in for a resource that is being deleted, sufficient for its deletion. None if there is nothing to do.
///
/// The spec is not known, but a resource whose run is not to be stopped has no finalizer. The Workspace is not known
/// either: any Workspace of the namespace will do that leads to where the claim says the run is.
pub fn being_deleted(metadata: &ObjectMeta, connections: &Connections) -> Option<WorkflowExecution> {
    let held = metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if metadata.deletion_timestamp.is_none() || !held {
        return None;
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let workspace = match ClaimAnnotation::read(metadata.annotations.as_ref()) {
        ClaimAnnotation::Claim(claim) => connections
            .stopper_in(namespace, |live| claim.is_for(&live.origin, live.workspace_id.as_deref(), true))
            .map(|key| WorkspaceRef { name: key.name }),
        ClaimAnnotation::Absent | ClaimAnnotation::Unreadable => None,
    };
    let spec = WorkflowExecutionSpec {
        workspace_ref: workspace.unwrap_or_default(),
        workflow_ref: None,
        workflow_identifier: None,
        registration_id: None,
        execution_id: None,
        input: None,
        input_from: None,
        deployment_name: None,
        custom_tracing_attributes: None,
        extensions: None,
        suspend: false,
        starting_deadline_seconds: None,
        active_deadline_seconds: None,
        shutdown: None,
        termination_grace_period_seconds: 30,
        deletion_policy: DeletionPolicy::Cancel,
        ttl_seconds_after_finished: None,
        result: ResultSpec::default(),
        left_out: None,
    };
    Some(WorkflowExecution { metadata: metadata.clone(), spec, status: None })
}
