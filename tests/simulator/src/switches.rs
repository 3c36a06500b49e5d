//! Answers that the API's documentation leaves open. Each default is the likeliest answer.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The body of `PUT /__sim/switches`; an absent field means its default.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Switches {
    /// The code of a `404` for an unknown workflow, registration or deployment; `null` leaves it out.
    pub(crate) unknown_workflow_code: Option<String>,
    /// Whether an archived workflow can be executed; `409` if not.
    pub(crate) execute_archived: Admission,
    /// What executing a workflow without a live worker does.
    pub(crate) execute_without_worker: WithoutWorker,
    /// The status of cancelling a finished execution: 409 or 204.
    pub(crate) cancel_finished: u16,
    /// What executing the id of a finished execution does.
    pub(crate) reuse_finished_id: Reuse,
    /// What `null` in a workflow update does to the field.
    pub(crate) put_null: NullField,
    /// Whether a client's updates of a workflow survive another registration by its worker.
    pub(crate) reregistration: Reregistration,
    /// The status of archiving an archived workflow, or unarchiving one that is not archived: 200 or 409.
    pub(crate) repeated_archive: u16,
    /// Whether updates, archiving and unarchiving answer with `null` in place of the workflow.
    pub(crate) null_workflow: bool,
    /// The status word of running executions. May be `null`, or a word that no client knows.
    pub(crate) running_status: Option<String>,
    /// The result of failed executions.
    pub(crate) failed_result: Value,
    /// Whether `archived` is the string `"true"` or `"false"`, as in the examples of the API reference.
    pub(crate) archived_as_string: bool,
    /// Whether workers encode inputs and results, so that events show them as opaque text.
    pub(crate) encoded_payloads: bool,
    /// Whether COMPLETED, FAILED and CANCELED events get lost.
    pub(crate) drop_terminal_events: bool,
    /// Whether the stream of a whole workspace is available without naming an execution, its root or its parent; `422`
    /// if not.
    pub(crate) unscoped_stream: Admission,
    /// Whether frames of streams have an `id`, the event's `broker_sequence`.
    pub(crate) stream_ids: bool,
    /// Whether an execution's own stream ends with the execution.
    pub(crate) execution_stream_ends: bool,
    /// How long a stream is silent before it sends a heartbeat.
    pub(crate) heartbeat_ms: u64,
    /// The status of a `wait_for_result` that times out.
    pub(crate) wait_timeout_status: u16,
    /// The status of a `wait_for_result` whose execution did not complete.
    pub(crate) wait_failure_status: u16,
    /// How long `wait_for_result` waits when the client does not say.
    pub(crate) wait_default_timeout_s: f64,
    /// Malformed rows at the end of each list of workflows.
    pub(crate) odd_workflow_rows: Vec<Value>,
    /// Malformed rows at the end of each list of registrations.
    pub(crate) odd_registration_rows: Vec<Value>,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            unknown_workflow_code: Some("WF_1100".to_owned()),
            execute_archived: Admission::Accept,
            execute_without_worker: WithoutWorker::NotFound,
            cancel_finished: 409,
            reuse_finished_id: Reuse::NewRun,
            put_null: NullField::Untouched,
            reregistration: Reregistration::Keep,
            repeated_archive: 200,
            null_workflow: false,
            running_status: Some("RUNNING".to_owned()),
            failed_result: Value::Null,
            archived_as_string: false,
            encoded_payloads: false,
            drop_terminal_events: false,
            unscoped_stream: Admission::Accept,
            stream_ids: false,
            execution_stream_ends: true,
            heartbeat_ms: 15_000,
            wait_timeout_status: 504,
            wait_failure_status: 500,
            wait_default_timeout_s: 60.0,
            odd_workflow_rows: Vec::new(),
            odd_registration_rows: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Admission {
    Accept,
    Reject,
}

/// What happens to a start that no live worker can pick up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WithoutWorker {
    /// `404 No active deployment found`.
    NotFound,
    /// The run waits for a worker.
    Accept,
    /// `409`.
    Reject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reuse {
    /// A new run under the same id.
    NewRun,
    /// `409 WF_1101`, the same as for a running execution.
    Conflict,
}

/// What `null` in an update does to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NullField {
    Untouched,
    /// The field gets the value of a new workflow.
    Clear,
}

/// What happens to a client's updates when a worker registers the workflow again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reregistration {
    /// The updates stay, and so does the archive flag.
    Keep,
    /// Display name and description are the worker's again, and the workflow is not archived.
    Overwrite,
}
