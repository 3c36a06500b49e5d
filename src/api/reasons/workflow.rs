//! Reasons of a Workflow.

pub use super::any::{FINALIZER_REFUSED, STATUS_REFUSED, UNDECODABLE};

/// The workflow in Mistral matches the spec.
///
/// On: `Ready`, Event
///
/// Do: nothing.
pub const IN_SYNC: &str = "InSync";
/// The operator only reads the workflow (`managementPolicy: Observe`). The message names the fields that differ.
///
/// On: `Ready`, Event
///
/// Do: nothing.
pub const OBSERVED: &str = "Observed";
/// The operator is setting fields, one call after the other.
///
/// On: `Ready`
///
/// Do: wait.
pub const UPDATING: &str = "Updating";
/// `spec.suspend` is `true`, so the operator leaves the workflow alone.
///
/// On: `Ready`, Event
///
/// Do: set `spec.suspend` to `false` to resume.
pub const SUSPENDED: &str = "Suspended";
/// The Workspace that the spec names does not exist.
///
/// On: `Ready`, Event
///
/// Do: create the Workspace, or correct `workspaceRef` in a new resource.
pub const WORKSPACE_NOT_FOUND: &str = "WorkspaceNotFound";
/// The Workspace is not ready; its own `Ready` condition says why.
///
/// On: `Ready`, Event
///
/// Do: see the Workspace.
pub const WORKSPACE_NOT_READY: &str = "WorkspaceNotReady";
/// The API knows no workflow of this name (404).
///
/// On: `Ready`, `Active`, Event
///
/// Do: start the worker that registers the workflow, or correct the name.
pub const WORKFLOW_NOT_FOUND: &str = "WorkflowNotFound";
/// The workflow belongs to another Mistral workspace, which shares it. The operator does not change it.
///
/// On: `Ready`, Event
///
/// Do: set `managementPolicy: Observe`.
pub const SHARED: &str = "Shared";
/// The workflow belongs to Mistral's SDK. The operator does not change it.
///
/// On: `Ready`, Event
///
/// Do: set `managementPolicy: Observe`.
pub const TECHNICAL: &str = "Technical";
/// The API refuses the key (401).
///
/// On: `Ready`, Event
///
/// Do: put a valid key into the Workspace's Secret.
pub const CREDENTIAL_REFUSED: &str = "CredentialRefused";
/// The API refuses the call for another reason, which the message quotes. Often the key lacks a permission (403).
///
/// On: `Ready`, Event
///
/// Do: correct what the API names, or give the key the permission (403).
pub const REQUEST_REFUSED: &str = "RequestRefused";
/// The API refuses the new value of a field. The message quotes the API.
///
/// On: `Ready`, Event
///
/// Do: correct the field that the message names, or leave it out; or give the key the permission (403).
pub const CHANGE_REFUSED: &str = "ChangeRefused";
/// The API does not answer, or its answer is invalid. The operator tries again.
///
/// On: `Ready`, Event
///
/// Do: wait. If the reason stays, check egress, proxy, DNS and Mistral's status page.
pub const API_UNAVAILABLE: &str = "APIUnavailable";
/// Three times within an hour, somebody else has set a field back to the same other value: perhaps a second
/// Workflow, a worker that registers, or a person. The operator now sets the field at most once an hour.
///
/// On: `Ready`, `Contested`, Event
///
/// Do: agree on one value, or leave the field out here.
pub const CONTESTED: &str = "Contested";
/// The resource is being deleted, and the operator archives its workflow first. After five minutes the resource is
/// deleted in any case.
///
/// On: `Ready`, Event
///
/// Do: wait.
pub const ARCHIVING: &str = "Archiving";
/// The operator has set fields to new values of the spec; the message names them.
///
/// On: Event
///
/// Do: nothing.
pub const UPDATED: &str = "Updated";
/// Somebody changed fields in Mistral, and the operator has set them back; the message names the fields.
///
/// On: Event
///
/// Do: nothing, or change the spec instead of Mistral.
pub const DRIFT_CORRECTED: &str = "DriftCorrected";
/// A live worker serves the workflow.
///
/// On: `Active`
///
/// Do: nothing.
pub const WORKER_ALIVE: &str = "WorkerAlive";
/// No live worker serves the workflow. An execution would wait for one.
///
/// On: `Active`
///
/// Do: start the worker.
pub const NO_WORKER: &str = "NoWorker";
/// The API does not say whether a live worker serves the workflow.
///
/// On: `Active`
///
/// Do: nothing.
pub const NOT_TOLD: &str = "NotTold";
/// A run of the workflow acts on behalf of a user, and an API key is not a user. Executions from the cluster may
/// fail.
///
/// On: `NeedsUser`, Event
///
/// Do: start such runs where a user is signed in.
pub const ON_BEHALF_OF: &str = "OnBehalfOf";
/// Several active deployments serve the workflow, so the API refuses an execution that names none.
///
/// On: `Ambiguous`, Event
///
/// Do: set `spec.deploymentName` in executions, or stop all deployments but one.
pub const SEVERAL_DEPLOYMENTS: &str = "SeveralDeployments";
