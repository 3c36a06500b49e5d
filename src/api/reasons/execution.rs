//! Reasons of a WorkflowExecution.

pub use super::any::{FINALIZER_REFUSED, STATUS_REFUSED, UNDECODABLE};

/// `spec.suspend` is `true`, so the operator does not start the run.
///
/// On: `Ready`, Event
///
/// Do: set `spec.suspend` to `false` to start the run.
pub const SUSPENDED: &str = "Suspended";
/// The start waits in the queue of its API key, since more calls are requested than the limit allows. The message says
/// how many were ahead when it was written. An execution that waits for less than four seconds never says so. It replaces
/// a reason that no longer holds, such as `WorkflowNotFound`.
///
/// On: `Ready`
///
/// Do: wait; the run starts by itself. Raise the limit if Mistral allows more: see
/// [throttling](../explanation/throttling.md).
pub const QUEUED: &str = "Queued";
/// The Workspace that the spec names does not exist.
///
/// On: `Ready`, Event
///
/// Do: create the Workspace, or correct `workspaceRef` in a new resource.
pub const WORKSPACE_NOT_FOUND: &str = "WorkspaceNotFound";
/// The Workspace is not ready, or the operator is checking it; its own `Ready` condition says more.
///
/// On: `Ready`, Event
///
/// Do: see the Workspace.
pub const WORKSPACE_NOT_READY: &str = "WorkspaceNotReady";
/// The Workflow that `spec.workflowRef` names does not exist.
///
/// On: `Ready`, Event
///
/// Do: create the Workflow, or correct the name in a new execution.
pub const WORKFLOW_NOT_FOUND: &str = "WorkflowNotFound";
/// The Workflow that `spec.workflowRef` names cannot run now; its own `Ready` condition says why. An archived
/// workflow does not run by `workflowRef`; by `workflowIdentifier`, Mistral decides.
///
/// On: `Ready`, Event
///
/// Do: see the Workflow.
pub const WORKFLOW_NOT_READY: &str = "WorkflowNotReady";
/// The Workspace now leads to another address or another Mistral workspace than the claim names.
///
/// On: `Ready`, Event
///
/// Do: restore the old key, and create another Workspace for the new key.
pub const WORKSPACE_CHANGED: &str = "WorkspaceChanged";
/// The API refused the key for this call (401).
///
/// On: `Ready`, Event
///
/// Do: put a valid key into the Workspace's Secret.
pub const CREDENTIAL_REFUSED: &str = "CredentialRefused";
/// The API knows no such workflow or registration (404).
///
/// On: `Ready`, Event
///
/// Do: start the worker that registers the workflow; the run then starts by itself.
pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
/// The workflow exists, but no live worker of the deployment that `spec.deploymentName` names serves it. The message
/// names the deployments that serve it.
///
/// On: `Ready`, Event
///
/// Do: start a worker of the deployment; the run then starts by itself. Or name another deployment in a new execution.
pub const DEPLOYMENT_NOT_FOUND: &str = "DeploymentNotFound";
/// Several active deployments own the workflow (409).
///
/// On: `Ready`, Event
///
/// Do: name one of the deployments in a new execution, or stop the others.
pub const AMBIGUOUS_DEPLOYMENT: &str = "AmbiguousDeployment";
/// The API refuses the call for another reason, which the message quotes. Often the key lacks a permission (403).
///
/// On: `Ready`, Event
///
/// Do: correct what the API names, or give the key the permission (403).
pub const REQUEST_REFUSED: &str = "RequestRefused";
/// The API does not answer, or its answer is invalid. The operator tries again.
///
/// On: `Ready`, Event
///
/// Do: wait. If the reason stays, check egress, proxy, DNS and Mistral's status page.
pub const API_UNAVAILABLE: &str = "APIUnavailable";
/// A start was sent and its answer was lost. The operator looks for the run until the time that the message names, and
/// repeats the start only once it is sure that no run exists.
///
/// On: `Ready`, Event
///
/// Do: wait; once the API answers, this takes about two minutes at most.
pub const OUTCOME_UNKNOWN: &str = "OutcomeUnknown";
/// Another workflow's run, or a run with another input, has this `executionId`. The operator starts nothing.
///
/// On: `Ready`, Event
///
/// Do: choose another `executionId` in a new execution.
pub const EXECUTION_ID_TAKEN: &str = "ExecutionIDTaken";
/// Another WorkflowExecution starts the run of this `executionId`, or may do so. This one follows the run once it
/// exists.
///
/// On: `Ready`, Event
///
/// Do: wait.
pub const EXECUTION_ID_CLAIMED: &str = "ExecutionIDClaimed";
/// The claim is older than a day and the API knows no run, as after a restore. The API may have forgotten an ended
/// run, so the operator starts nothing.
///
/// On: `Ready`, Event
///
/// Do: [confirm the start](../how-to/backup-and-restore.md#start-a-run-after-all), or delete the execution.
pub const STALE_CLAIM: &str = "StaleClaim";
/// The claim was made in another cluster or namespace: the resource was restored or cloned. The operator starts
/// nothing, and only reads an existing run.
///
/// On: `Ready`, Event
///
/// Do: [confirm the start](../how-to/backup-and-restore.md#start-a-run-after-all), or delete the execution.
pub const FOREIGN_CLAIM: &str = "ForeignClaim";
/// The operator cannot read the claim annotation: a newer operator wrote it, or somebody edited it.
///
/// On: `Ready`, Event
///
/// Do: upgrade the operator, or restore the claim from a backup.
pub const CLAIM_UNREADABLE: &str = "ClaimUnreadable";
/// The API server refuses the claim, so the operator starts nothing. The message quotes the API server.
///
/// On: `Ready`, Event
///
/// Do: remove the cause; see [refused writes](../how-to/troubleshooting.md#refused-writes).
pub const CLAIM_REFUSED: &str = "ClaimRefused";
/// The API server does not let the operator remove the label `workflows.mistral.ai/finished`. The label hides the
/// resource from the operator, although the resource was edited, has expired, or carries the label of another one. A
/// resource with the operator's finalizer is reconciled anyway. The message quotes the API server.
///
/// On: Event
///
/// Do: remove the label, or change the policy, webhook or right that refuses the write.
pub const LABEL_REFUSED: &str = "LabelRefused";
/// The claim annotation belonged to another resource, or was older than the operator's last one, as in a copied or
/// exported manifest. The operator has replaced it.
///
/// On: Event
///
/// Do: nothing; leave the annotation out of manifests.
pub const CLAIM_IGNORED: &str = "ClaimIgnored";
/// The spec, or a value that `spec.inputFrom` reads, changed between the claim and the start. The operator starts
/// nothing.
///
/// On: `Ready`, Event
///
/// Do: create another execution, or follow the message to start this one with the present values.
pub const INPUT_CHANGED: &str = "InputChanged";
/// An object that `spec.inputFrom` names, or a key in it, does not exist.
///
/// On: `Ready`, Event
///
/// Do: create the object or the key that the message names; the operator finds it within five minutes.
pub const INPUT_NOT_FOUND: &str = "InputNotFound";
/// The operator may not read an object that `spec.inputFrom` names, or the Secret may not be an input: it holds an
/// API key of a Workspace, or lacks the label that `inputs.secretsNeedLabel` asks for.
///
/// On: `Ready`, Event
///
/// Do: let the operator read the object (`rbac.secretNames` lacks the name, or somebody changed the Role), or label
/// the Secret; see [who can read which Secrets](../how-to/inputs-and-results.md#who-can-read-which-secrets).
pub const INPUT_FORBIDDEN: &str = "InputForbidden";
/// A value that `spec.inputFrom` reads is not UTF-8 or not JSON, or the whole input is longer than the 2 MB that
/// the API accepts.
///
/// On: `Ready`, Event
///
/// Do: correct the value that the message names.
pub const INPUT_INVALID: &str = "InputInvalid";
/// A path of `spec.inputFrom` conflicts with a value of `spec.input`. Nothing ran.
///
/// On: `Ready`, `Failed`, Event
///
/// Do: correct the path in another execution.
pub const INPUT_CONFLICT: &str = "InputConflict";
/// The object that `spec.result.to` names belongs to somebody else, or was changed. The operator changes no
/// existing object.
///
/// On: `ResultNotWritten`, Event
///
/// Do: name another object in the next execution.
pub const RESULT_NOT_OURS: &str = "ResultNotOurs";
/// The operator may not write the object that `spec.result.to` names. Results in Secrets are off by default.
///
/// On: `ResultNotWritten`, Event
///
/// Do: set `results.secrets` or `results.configMaps` in the chart, and with `rbac.secretNames` add the name there.
pub const RESULT_FORBIDDEN: &str = "ResultForbidden";
/// The API server refuses the object that `spec.result.to` names, or the result in the status: a quota, a policy,
/// an immutable object. The message quotes the API server.
///
/// On: `ResultNotWritten`, Event
///
/// Do: remove the cause, or move the result: to an object (`result.to`) or into the status.
pub const RESULT_REFUSED: &str = "ResultRefused";
/// The result is too large: an object of `result.to` holds at most 1 MiB, and an execution has 1.5 MiB for input
/// and result together.
///
/// On: `ResultNotWritten`, Event
///
/// Do: set `result.to`, or let the workflow store the result elsewhere and return its location.
pub const RESULT_TOO_LARGE: &str = "ResultTooLarge";
/// The run has completed, but the operator cannot write the result for now. The execution becomes `Complete` only
/// once the result is written. The message quotes the API server; the operator tries again.
///
/// On: `Ready`, Event
///
/// Do: remove the cause that the message names.
pub const RESULT_PENDING: &str = "ResultPending";
/// The result may hold values of a Secret that can no longer be redacted.
///
/// On: `ResultNotWritten`, Event
///
/// Do: use `result.to.secret`, which stores the result unchanged.
pub const RESULT_WITHHELD: &str = "ResultWithheld";
/// The result is nested more than 64 levels deep, or has a number or text that Kubernetes cannot hold, such as
/// `1e400`.
///
/// On: `ResultNotWritten`, Event
///
/// Do: use `result.to`, which stores the result unchanged.
pub const RESULT_NOT_KEEPABLE: &str = "ResultNotKeepable";
/// The list of runs says that the run completed, but the API's answer about the run cannot be read: for example, it
/// holds `NaN`, which is not JSON.
///
/// On: `ResultNotWritten`, Event
///
/// Do: look up the result in Mistral's console.
pub const RESULT_UNREADABLE: &str = "ResultUnreadable";
/// Somebody bypassed the API server's rules and edited the spec after the claim. The run follows the claim. The
/// operator sets the condition when it next fetches the run.
///
/// On: `Edited`
///
/// Do: nothing; the edit changes nothing.
pub const EDITED: &str = "EditedAfterClaim";
/// The API has accepted the run.
///
/// On: `Started`, Event
///
/// Do: wait; `kubectl get -w` shows the progress.
pub const STARTED: &str = "Started";
/// The operator found the run under its id; this resource did not start it.
///
/// On: `Started`, Event
///
/// Do: wait; `kubectl get -w` shows the progress.
pub const ADOPTED: &str = "Adopted";
/// The run has not ended. The message says since when it goes on, and whether a worker serves its workflow where a
/// Workflow resource knew that at the time.
///
/// On: `Ready`
///
/// Do: wait; `kubectl get -w` shows the progress.
pub const RUNNING: &str = "Running";
/// The API no longer knows a run that had started. The operator notices that within 45 minutes. It never starts the run
/// again, and the execution fails as `Lost` after a day.
///
/// On: `Ready`, `Missing`, Event
///
/// Do: ask Mistral.
pub const MISSING: &str = "Missing";
/// The operator is stopping the run, for `shutdown`, a deadline or the resource's deletion. The message says when a run
/// that was asked to stop is terminated.
///
/// On: `Ready`, Event
///
/// Do: wait.
pub const STOPPING: &str = "Stopping";
/// The run ended with `COMPLETED`.
///
/// On: `Ready`, `Complete`, Event
///
/// Do: nothing.
pub const COMPLETED: &str = "Completed";
/// The run ended with `FAILED`; `status.failure` says why.
///
/// On: `Ready`, `Failed`, Event
///
/// Do: to run the workflow again, create another execution.
pub const WORKFLOW_FAILED: &str = "WorkflowFailed";
/// The run ended with `CANCELED`; `status.failure` says who canceled it. If `spec.shutdown` requested the stop, `Ready`
/// is `True`.
///
/// On: `Ready`, `Failed`, Event
///
/// Do: to run the workflow again, create another execution.
pub const CANCELED: &str = "Canceled";
/// The run ended with `TERMINATED`; `status.failure` says who terminated it. If `spec.shutdown` requested the stop,
/// `Ready` is `True`.
///
/// On: `Ready`, `Failed`, Event
///
/// Do: to run the workflow again, create another execution.
pub const TERMINATED: &str = "Terminated";
/// The run ended with `TIMED_OUT`, at the execution timeout in the worker's code; `status.failure` says why.
///
/// On: `Ready`, `Failed`, Event
///
/// Do: to run the workflow again, create another execution; raise the timeout if the run needs longer.
pub const TIMED_OUT: &str = "TimedOut";
/// The API refused the input for good (422). Nothing ran.
///
/// On: `Ready`, `Failed`, Event
///
/// Do: correct the input in another execution.
pub const INPUT_REJECTED: &str = "InputRejected";
/// The run took longer than `spec.activeDeadlineSeconds`, and the operator stopped it.
///
/// On: `Ready`, `Failed`, Event
///
/// Do: allow more time, or find out why the run took so long.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
/// The run did not start within `spec.startingDeadlineSeconds`, and never will. The message says why.
///
/// On: `Ready`, `Failed`, Event
///
/// Do: remove the cause, and create another execution.
pub const STARTING_DEADLINE_EXCEEDED: &str = "StartingDeadlineExceeded";
/// `spec.ttlSecondsAfterFinished` has passed, but the operator keeps the resource: Argo CD, Flux, Helm or a
/// controller would create the resource again, and the workflow would run again.
///
/// On: `Expired`
///
/// Do: remove the resource from its source.
pub const TRACKED: &str = "Tracked";
/// `spec.ttlSecondsAfterFinished` has passed, but the API server does not let the operator delete the resource.
///
/// On: `Expired`
///
/// Do: change the policy, webhook or right that the message quotes.
pub const DELETION_REFUSED: &str = "DeletionRefused";
/// The API has not known the run for a day.
///
/// On: `Ready`, `Failed`, Event
///
/// Do: look the run up in Mistral's console before you start another.
pub const LOST: &str = "Lost";

/// The reasons with which an execution ends.
pub const ENDS: [&str; 10] = [
    COMPLETED,
    WORKFLOW_FAILED,
    CANCELED,
    TERMINATED,
    TIMED_OUT,
    DEADLINE_EXCEEDED,
    STARTING_DEADLINE_EXCEEDED,
    INPUT_REJECTED,
    INPUT_CONFLICT,
    LOST,
];

/// All reasons of a WorkflowExecution.
pub const ALL: [&str; 54] = [
    SUSPENDED,
    QUEUED,
    WORKFLOW_NOT_FOUND,
    WORKFLOW_NOT_READY,
    WORKSPACE_NOT_FOUND,
    WORKSPACE_NOT_READY,
    WORKSPACE_CHANGED,
    CREDENTIAL_REFUSED,
    TARGET_NOT_FOUND,
    DEPLOYMENT_NOT_FOUND,
    AMBIGUOUS_DEPLOYMENT,
    REQUEST_REFUSED,
    API_UNAVAILABLE,
    OUTCOME_UNKNOWN,
    EXECUTION_ID_TAKEN,
    EXECUTION_ID_CLAIMED,
    STALE_CLAIM,
    FOREIGN_CLAIM,
    CLAIM_UNREADABLE,
    CLAIM_REFUSED,
    LABEL_REFUSED,
    CLAIM_IGNORED,
    INPUT_CHANGED,
    INPUT_NOT_FOUND,
    INPUT_FORBIDDEN,
    INPUT_INVALID,
    INPUT_CONFLICT,
    RESULT_NOT_OURS,
    RESULT_FORBIDDEN,
    RESULT_REFUSED,
    RESULT_TOO_LARGE,
    RESULT_PENDING,
    RESULT_WITHHELD,
    RESULT_NOT_KEEPABLE,
    RESULT_UNREADABLE,
    EDITED,
    STARTED,
    ADOPTED,
    RUNNING,
    MISSING,
    STOPPING,
    COMPLETED,
    WORKFLOW_FAILED,
    CANCELED,
    TERMINATED,
    TIMED_OUT,
    INPUT_REJECTED,
    DEADLINE_EXCEEDED,
    STARTING_DEADLINE_EXCEEDED,
    TRACKED,
    DELETION_REFUSED,
    LOST,
    FINALIZER_REFUSED,
    STATUS_REFUSED,
];
