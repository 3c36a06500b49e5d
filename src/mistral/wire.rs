//! Requests and answers as the API spells them.
//!
//! Every field that the API could leave out is optional here, enumerations are open strings, and
//! fields that this version does not know are kept in `other`: the API adds some now and then.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// A workflow. The list leaves out most fields; `active` comes only with a single one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Workflow {
    /// UUID.
    pub id: String,
    /// The name under which workers register it.
    pub name: String,
    /// What people see; the name when unset.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Free text; live answers have `""` when unset.
    #[serde(default)]
    pub description: Option<String>,
    /// `code`, or a kind that did not exist yet.
    #[serde(default, rename = "type")]
    pub type_: Option<String>,
    /// UUID of the organization.
    #[serde(default)]
    pub customer_id: Option<String>,
    /// UUID of the Mistral workspace.
    #[serde(default)]
    pub workspace_id: Option<String>,
    /// Set when the workflow is shared into this workspace by another.
    #[serde(default)]
    pub shared_namespace: Option<String>,
    /// Whether the chat assistant offers it.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub available_in_chat_assistant: Option<bool>,
    /// Registered by the SDK for its own use.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub is_technical: Option<bool>,
    /// Archived workflows stay listed.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub archived: Option<bool>,
    /// Whether a live worker serves it.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub active: Option<bool>,
    /// In the order given.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
    /// What this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Workflow {
    /// Whether the SDK has registered it for its own use. The list does not tell; its names do: `__parallel_execution__`.
    pub fn is_internal(&self) -> bool {
        is_internal(self.is_technical, &self.name)
    }

    /// Whether another Mistral workspace shares it. The list has that in `metadata`.
    pub fn is_shared(&self) -> bool {
        let listed = self.other.get("metadata").and_then(|metadata| metadata.get("shared_namespace")?.as_str());
        self.shared_namespace.as_deref().or(listed).is_some_and(|namespace| !namespace.is_empty())
    }
}

fn is_internal(is_technical: Option<bool>, name: &str) -> bool {
    is_technical == Some(true) || name.starts_with("__")
}

/// A row of the list of workflows without what no sweep compares: there may be fifty thousand.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct WorkflowRow {
    /// See [`Workflow`], as for all of these.
    pub id: String,
    /// The name under which workers register it.
    pub name: String,
    /// What people see.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Free text.
    #[serde(default)]
    pub description: Option<String>,
    /// Registered by the SDK for its own use.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub is_technical: Option<bool>,
    /// Archived workflows stay listed.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub archived: Option<bool>,
    /// In the order given.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
}

impl WorkflowRow {
    /// See [`Workflow::is_internal`].
    pub fn is_internal(&self) -> bool {
        is_internal(self.is_technical, &self.name)
    }
}

/// Any row, where only which ones are listed is of interest.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Id {
    /// UUID.
    pub id: String,
}

/// A row of the list of registrations without its schemas, which may be far larger than all else.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RegistrationRow {
    /// UUID.
    pub id: String,
    /// UUID of its workflow.
    pub workflow_id: String,
}

/// One version of a workflow, as one deployment registered it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Registration {
    /// UUID.
    pub id: String,
    /// UUID of its workflow.
    pub workflow_id: String,
    /// Schemas and handlers, as the worker registered them.
    #[serde(default)]
    pub definition: Value,
    /// The deployment that registered it.
    #[serde(default)]
    pub deployment_name: Option<String>,
    /// Whether a live worker serves it; comes only with a single one.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub active: Option<bool>,
    /// The workflow itself, when asked for.
    #[serde(default)]
    pub workflow: Option<Workflow>,
    /// What this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An execution, or one row of the list of runs (which has a `run_id` and never a result).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Execution {
    /// The identity that the caller chose or the API made.
    pub execution_id: String,
    /// Name of the workflow.
    #[serde(default)]
    pub workflow_name: Option<String>,
    /// UUID of the workflow; null in the answer to a start.
    #[serde(default)]
    pub workflow_id: Option<String>,
    /// The execution at the root of the tree.
    #[serde(default)]
    pub root_execution_id: Option<String>,
    /// The API's database id of the run; live, only the list of runs has it.
    #[serde(default)]
    pub run_id: Option<String>,
    /// `RUNNING`, `COMPLETED`, …; may be null.
    #[serde(default)]
    pub status: Option<String>,
    /// When it started.
    #[serde(default, deserialize_with = "lenient_time")]
    pub start_time: Option<Timestamp>,
    /// When it ended.
    #[serde(default, deserialize_with = "lenient_time")]
    pub end_time: Option<Timestamp>,
    /// Milliseconds from start to end.
    #[serde(default)]
    pub total_duration_ms: Option<f64>,
    /// Any JSON.
    #[serde(default)]
    pub result: Option<Value>,
    /// What this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How an execution's status reads to someone who waits for its end.
///
/// `RETRYING_AFTER_ERROR` and `CONTINUED_AS_NEW` are no ends: the latter ends one run of an
/// execution that goes on under the same id. A status that is missing or unknown is no end either.
pub fn is_terminal(status: Option<&str>) -> bool {
    matches!(status, Some("COMPLETED" | "FAILED" | "CANCELED" | "TERMINATED" | "TIMED_OUT"))
}

/// The statuses for which [`is_terminal`] holds.
pub const TERMINAL: [&str; 5] = ["COMPLETED", "FAILED", "CANCELED", "TERMINATED", "TIMED_OUT"];

/// Body of a start.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ExecuteRequest {
    /// Identity of the run: 1 to 256 of letters, digits, `_` and `-`.
    pub execution_id: String,
    /// Checked by the API against the workflow's input schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Map<String, Value>>,
    /// Needed where several active deployments own the workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment_name: Option<String>,
    /// Added to the run's trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_tracing_attributes: Option<BTreeMap<String, String>>,
    /// Plugin data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
}

/// Body of an update: a field that is left out is left alone, null is never sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UpdateRequest {
    /// At most 128 characters, not blank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// `""` clears it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether the chat assistant offers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_in_chat_assistant: Option<bool>,
    /// Replaces the whole list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
}

/// Answer to a bulk archive or unarchive.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct BulkOutcome {
    /// Those that now are as asked, including those that already were.
    #[serde(default, alias = "archived", alias = "unarchived")]
    pub done: Vec<Option<Workflow>>,
    /// Those that are not.
    #[serde(default)]
    pub errored: Vec<BulkError>,
}

/// One workflow that a bulk call left as it was.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct BulkError {
    /// UUID.
    pub workflow_id: String,
    /// Why.
    #[serde(default)]
    pub message: Option<String>,
}

/// Whose key it is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct WhoAmI {
    /// Live: `<customer uuid>:<workspace uuid>`.
    #[serde(default)]
    pub namespace: Option<String>,
    /// What this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// One row of an execution's history of events.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Event {
    /// `WORKFLOW_EXECUTION_FAILED`, `ACTIVITY_TASK_FAILED`, …
    #[serde(default)]
    pub event_type: String,
    /// Nanoseconds since 1970.
    #[serde(default)]
    pub event_timestamp: Option<i64>,
    /// The execution that it belongs to.
    #[serde(default)]
    pub workflow_exec_id: Option<String>,
    /// Differs by type.
    #[serde(default)]
    pub attributes: Value,
}

/// One page of a list and how to get the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// What to pass to get the next page; none at the end.
    pub next: Option<String>,
}

/// The API has answered booleans; some of its published examples have them as strings.
fn lenient_bool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Bool(value) => Some(value),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    })
}

/// RFC 3339, or what Python's `str()` makes of a time; a text that is no time is no reason to lose
/// the rest of the answer.
fn lenient_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text.parse().ok().or_else(|| {
            let local: DateTime = text.parse().ok()?;
            Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
        }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_every_spelling_are_read() {
        let expected: Timestamp = "2026-09-06T19:58:30.688462Z".parse().unwrap();
        for spelling in [
            "2026-09-06T19:58:30.688462Z",
            "2026-09-06 19:58:30.688462+00:00",
            "2026-09-06T19:58:30.688462",
            "2026-09-06T21:58:30.688462+02:00",
        ] {
            let json = format!(r#"{{"execution_id":"e","start_time":"{spelling}"}}"#);
            let execution: Execution = serde_json::from_str(&json).unwrap();
            assert_eq!(execution.start_time, Some(expected), "{spelling}");
        }
        let execution: Execution =
            serde_json::from_str(r#"{"execution_id":"e","start_time":"soon","end_time":7}"#).unwrap();
        assert_eq!((execution.start_time, execution.end_time), (None, None));
    }

    #[test]
    fn unknown_fields_and_statuses_are_kept() {
        let execution: Execution =
            serde_json::from_str(r#"{"execution_id":"e","status":"PAUSED","new_field":[1]}"#).unwrap();
        assert_eq!(execution.status.as_deref(), Some("PAUSED"));
        assert_eq!(execution.other["new_field"], serde_json::json!([1]));
        assert!(!is_terminal(execution.status.as_deref()));
    }

    #[test]
    fn an_archived_flag_may_be_a_string() {
        let workflow: Workflow =
            serde_json::from_str(r#"{"id":"1","name":"n","archived":"false","active":"true"}"#).unwrap();
        assert_eq!((workflow.archived, workflow.active), (Some(false), Some(true)));
    }
}
