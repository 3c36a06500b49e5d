//! Answers to questions that the API's documentation leaves open, each with the likeliest answer as its default.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The body of `PUT /__sim/switches`; an absent field means its default.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Switches {
    /// The code of a `404` for an unknown workflow, registration or deployment; `null` leaves it out.
    pub(crate) unknown_workflow_code: Option<String>,
    /// Whether an archived workflow can be executed; a refusal is a `409`.
    pub(crate) execute_archived: Admission,
    /// Whether a workflow without a live worker can be executed; a refusal is a `409`.
    pub(crate) execute_without_worker: Admission,
    /// The status of cancelling a finished execution: 409 or 204.
    pub(crate) cancel_finished: u16,
    /// What executing the id of a finished execution does.
    pub(crate) reuse_finished_id: Reuse,
    /// What `null` in a workflow update does to the field.
    pub(crate) put_null: NullField,
    /// The status word of running executions; `null` and words that no client knows are possible.
    pub(crate) running_status: Option<String>,
    /// The result of failed executions.
    pub(crate) failed_result: Value,
    /// Whether `archived` is the string `"true"` or `"false"`, as in the examples of the API reference.
    pub(crate) archived_as_string: bool,
    /// Whether COMPLETED, FAILED and CANCELED events get lost.
    pub(crate) drop_terminal_events: bool,
    /// The status of a `wait_for_result` that took too long.
    pub(crate) wait_timeout_status: u16,
    /// The status of a `wait_for_result` whose execution did not complete.
    pub(crate) wait_failure_status: u16,
    /// How long `wait_for_result` waits when the client does not say.
    pub(crate) wait_default_timeout_s: f64,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            unknown_workflow_code: Some("WF_1100".to_owned()),
            execute_archived: Admission::Accept,
            execute_without_worker: Admission::Accept,
            cancel_finished: 409,
            reuse_finished_id: Reuse::NewRun,
            put_null: NullField::Untouched,
            running_status: Some("RUNNING".to_owned()),
            failed_result: Value::Null,
            archived_as_string: false,
            drop_terminal_events: false,
            wait_timeout_status: 504,
            wait_failure_status: 500,
            wait_default_timeout_s: 60.0,
        }
    }
}

/// Whether something is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Admission {
    Accept,
    Reject,
}

/// What executing a finished execution's id does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reuse {
    /// A new run under the same id.
    NewRun,
    /// `409 WF_1101`, as while it runs.
    Conflict,
}

/// What `null` does to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NullField {
    Untouched,
    /// Back to what a new workflow has.
    Clear,
}
