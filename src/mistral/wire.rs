//! Requests and responses in the API's wire format.
//!
//! Every field that the API could leave out is optional here. A field of an unexpected type counts as absent.
//! Enumerations are open strings. Unknown fields are skipped: the API adds some now and then.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::answer_memory::Held;
use crate::json::{self, Json, Rows};

/// How many characters of a description are read, shown and compared.
pub const MAX_DESCRIPTION: usize = 16_384;

/// A workflow. Rows of the list lack most fields. Only the response for a single workflow has `active`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Workflow {
    /// UUID.
    pub id: String,
    /// The name under which workers register it.
    pub name: String,
    /// The name that people see; equal to `name` when unset.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub display_name: Option<String>,
    /// Free text. The live API sends `""` when it is unset.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub description: Option<String>,
    /// `code`, or a kind that this version does not know.
    #[serde(default, rename = "type", deserialize_with = "json::lenient_string")]
    pub type_: Option<String>,
    /// UUID of the organization.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub customer_id: Option<String>,
    /// UUID of the Mistral workspace.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub workspace_id: Option<String>,
    /// Set when another workspace shares the workflow into this one.
    #[serde(default, deserialize_with = "json::lenient_string")]
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
    #[serde(default, deserialize_with = "lenient_strings")]
    pub tags: Option<Vec<String>>,
    /// Rows of the list have this instead of `shared_namespace`.
    #[serde(default, deserialize_with = "json::lenient")]
    pub metadata: Option<WorkflowMetadata>,
}

/// Additional data in the rows of the list of workflows.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct WorkflowMetadata {
    /// See [`Workflow::shared_namespace`].
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub shared_namespace: Option<String>,
}

impl Workflow {
    /// Whether the SDK has registered the workflow for its own use. Rows of the list show this only by the name:
    /// `__parallel_execution__`.
    pub fn is_internal(&self) -> bool {
        is_internal(self.is_technical, &self.name)
    }

    /// Whether another Mistral workspace shares the workflow. Rows of the list say so in `metadata`.
    pub fn is_shared(&self) -> bool {
        let listed = self.metadata.as_ref().and_then(|metadata| metadata.shared_namespace.as_deref());
        self.shared_namespace.as_deref().or(listed).is_some_and(|namespace| !namespace.is_empty())
    }
}

fn is_internal(is_technical: Option<bool>, name: &str) -> bool {
    is_technical == Some(true) || name.starts_with("__")
}

/// A row of the list of workflows. There may be fifty thousand, so texts of any length are kept only as a fingerprint.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "Described")]
pub struct WorkflowRow {
    /// See [`Workflow`] for all of these fields.
    pub id: String,
    /// The name under which workers register it.
    pub name: String,
    /// Registered by the SDK for its own use.
    pub is_technical: Option<bool>,
    /// Archived workflows stay listed.
    pub archived: Option<bool>,
    /// Fingerprint of its texts: see [`fingerprint`].
    pub texts: u64,
}

/// A row as the API sends it.
#[derive(Deserialize)]
struct Described {
    id: String,
    name: String,
    #[serde(default, deserialize_with = "json::lenient_string")]
    display_name: Option<String>,
    #[serde(default, deserialize_with = "json::lenient_string")]
    description: Option<String>,
    #[serde(default, deserialize_with = "lenient_bool")]
    is_technical: Option<bool>,
    #[serde(default, deserialize_with = "lenient_bool")]
    archived: Option<bool>,
    #[serde(default, deserialize_with = "lenient_strings")]
    tags: Option<Vec<String>>,
}

impl From<Described> for WorkflowRow {
    fn from(row: Described) -> Self {
        let Described { id, name, display_name, description, is_technical, archived, tags } = row;
        let texts = fingerprint(display_name.as_deref(), description.as_deref(), tags.as_deref());
        Self { id, name, is_technical, archived, texts }
    }
}

impl WorkflowRow {
    /// See [`Workflow::is_internal`].
    pub fn is_internal(&self) -> bool {
        is_internal(self.is_technical, &self.name)
    }
}

/// Fingerprint of a workflow's display name, description and tags. An absent value counts as empty.
pub fn fingerprint(display_name: Option<&str>, description: Option<&str>, tags: Option<&[String]>) -> u64 {
    let text = |text: Option<&str>| text.unwrap_or_default().chars().take(MAX_DESCRIPTION).collect::<String>();
    let mut hasher = DefaultHasher::new();
    (text(display_name), text(description), tags.unwrap_or_default()).hash(&mut hasher);
    hasher.finish()
}

/// A row of any list, for callers that need only to know which rows exist.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Id {
    /// UUID.
    pub id: String,
}

/// A row of the list of registrations without its schemas, which may be far larger than everything else.
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
    #[serde(default, deserialize_with = "json::lenient")]
    pub definition: Option<Definition>,
    /// The deployment that registered it.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub deployment_name: Option<String>,
    /// Whether a live worker serves it. Only the response for a single registration has this.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub active: Option<bool>,
}

/// What a worker declares. Schemas have any depth and length, and hold any number and string.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Definition {
    /// JSON Schema of the input.
    #[serde(default, deserialize_with = "json::any")]
    pub input_schema: Option<Json>,
    /// JSON Schema of the result.
    #[serde(default, deserialize_with = "json::any")]
    pub output_schema: Option<Json>,
    /// Names of the signals that a run takes.
    #[serde(default, deserialize_with = "names")]
    pub signals: Vec<String>,
    /// Names of the queries that a run answers.
    #[serde(default, deserialize_with = "names")]
    pub queries: Vec<String>,
    /// Names of the updates that a run takes.
    #[serde(default, deserialize_with = "names")]
    pub updates: Vec<String>,
    /// How long a run may take, in seconds.
    #[serde(default, deserialize_with = "json::lenient")]
    pub execution_timeout: Option<f64>,
    /// Whether a run acts on behalf of a user.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub on_behalf_of: Option<bool>,
}

/// An execution, or one row of the list of runs (which has a `run_id` and never a result).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Execution {
    /// The identity, which the caller chose or the API generated.
    pub execution_id: String,
    /// Name of the workflow.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub workflow_name: Option<String>,
    /// UUID of the workflow; null in the response to a start.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub workflow_id: Option<String>,
    /// The execution at the root of the tree.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub root_execution_id: Option<String>,
    /// The API's database id of the run. On the live API, only the list of runs has it.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub run_id: Option<String>,
    /// `RUNNING`, `COMPLETED`, …; may be null. A value of another type is an error: the operator does not guess whether
    /// a run has ended.
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default, deserialize_with = "lenient_time")]
    pub start_time: Option<Timestamp>,
    #[serde(default, deserialize_with = "lenient_time")]
    pub end_time: Option<Timestamp>,
    /// Milliseconds from start to end.
    #[serde(default, deserialize_with = "json::lenient")]
    pub total_duration_ms: Option<f64>,
    /// Any JSON, of any depth; `None` for null.
    #[serde(default, deserialize_with = "json::any")]
    pub result: Option<Json>,
    /// Why the result is unknown, if only a row of the list reports the end.
    #[serde(skip)]
    pub result_unread: Option<String>,
    /// Reserves the memory that a long response takes, as long as this lives.
    #[serde(skip)]
    pub room: Held,
}

/// Whether an execution with this status has ended.
///
/// `RETRYING_AFTER_ERROR` and `CONTINUED_AS_NEW` are not terminal: the latter ends one run of an execution that goes on
/// under the same id. A missing or unknown status is not terminal either.
pub fn is_terminal(status: Option<&str>) -> bool {
    matches!(status, Some("COMPLETED" | "FAILED" | "CANCELED" | "TERMINATED" | "TIMED_OUT"))
}

/// The statuses for which [`is_terminal`] holds.
pub const TERMINAL: [&str; 5] = ["COMPLETED", "FAILED", "CANCELED", "TERMINATED", "TIMED_OUT"];

/// Body of a start.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ExecuteRequest {
    /// Identity of the run: 1 to 256 letters, digits, `_` or `-`.
    pub execution_id: String,
    /// Checked by the API against the workflow's input schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    /// Needed where several active deployments own the workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment_name: Option<String>,
    /// Added to the run's trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_tracing_attributes: Option<BTreeMap<String, String>>,
    /// Plugin data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Json>,
}

/// Body of an update. A field that is left out stays unchanged; null is never sent.
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
    /// Workflows that are now in the requested state, including those that already were.
    #[serde(default, alias = "archived", alias = "unarchived", deserialize_with = "readable")]
    pub done: Vec<Option<Workflow>>,
    /// Workflows that are not in the requested state.
    #[serde(default, deserialize_with = "readable")]
    pub errored: Vec<BulkError>,
}

/// One workflow that a bulk call left unchanged.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct BulkError {
    /// UUID.
    pub workflow_id: String,
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub message: Option<String>,
}

/// The owner of a key.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct WhoAmI {
    /// On the live API: `<customer uuid>:<workspace uuid>`.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub namespace: Option<String>,
}

/// One row of an execution's event history. Only the fields that describe a failure are read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Event {
    /// `WORKFLOW_EXECUTION_FAILED`, `ACTIVITY_TASK_FAILED`, …
    #[serde(default)]
    pub event_type: String,
    /// Nanoseconds since 1970.
    #[serde(default, deserialize_with = "json::lenient")]
    pub event_timestamp: Option<i64>,
    /// The execution that the event belongs to.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub workflow_exec_id: Option<String>,
    /// Differs by type.
    #[serde(default, deserialize_with = "json::lenient")]
    pub attributes: Option<EventAttributes>,
}

/// The attributes of an event that describe a failure.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct EventAttributes {
    #[serde(default, deserialize_with = "json::lenient")]
    pub failure: Option<EventFailure>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct EventFailure {
    /// The worker's error message.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub message: Option<String>,
}

/// An event of an execution. Only the fields that describe the run's input are read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StartEvent {
    /// Only `WORKFLOW_EXECUTION_STARTED` has an input.
    #[serde(default)]
    pub event_type: String,
    /// Nanoseconds since 1970.
    #[serde(default, deserialize_with = "json::lenient")]
    pub event_timestamp: Option<i64>,
    /// What the workflow was called with.
    #[serde(default, deserialize_with = "json::lenient")]
    pub attributes: Option<StartAttributes>,
}

/// The attributes of an event that describe a run's input.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct StartAttributes {
    #[serde(default, deserialize_with = "json::lenient")]
    pub input: Option<StartInput>,
}

/// The arguments of a workflow.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct StartInput {
    /// A list; opaque where a worker encodes payloads.
    #[serde(default, deserialize_with = "json::any")]
    pub value: Option<Json>,
}

/// One page of a list and how to get the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The cursor or token of the next page; `None` at the end.
    pub next: Option<String>,
    /// Rows that could not be read.
    pub unreadable: usize,
}

/// The live API sends booleans. Some of its published examples have strings instead.
fn lenient_bool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let flag = Json::deserialize(deserializer)?;
    Ok(match flag.string().as_deref().unwrap_or(flag.text()) {
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    })
}

/// A list of strings. Items of other types are left out.
fn lenient_strings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let items: Option<Vec<Json>> = json::lenient(deserializer)?;
    Ok(items.map(|items| items.iter().filter_map(Json::string).collect()))
}

/// The names of handlers. Their schemas, which may be anything, are skipped.
fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    struct Handler {
        #[serde(default, deserialize_with = "json::lenient_string")]
        name: Option<String>,
    }
    let handlers: Option<Rows<Handler>> = json::lenient(deserializer)?;
    Ok(handlers.into_iter().flat_map(|handlers| handlers.rows).filter_map(|handler| handler.name).collect())
}

/// Items of a list, each decoded on its own. Unreadable items are left out. Anything but a list counts as empty.
fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let items: Option<Rows<T>> = json::lenient(deserializer)?;
    Ok(items.map(|items| items.rows).unwrap_or_default())
}

/// RFC 3339, or what Python's `str()` makes of a time. Any other text counts as absent, so that the rest of the
/// response is not lost.
fn lenient_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(json::lenient_string(deserializer)?.and_then(|text| {
        text.parse().ok().or_else(|| {
            let local: DateTime = text.parse().ok()?;
            Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
        })
    }))
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
    fn an_unknown_status_is_kept_and_is_no_end() {
        let execution: Execution =
            serde_json::from_str(r#"{"execution_id":"e","status":"PAUSED","new_field":[1]}"#).unwrap();
        assert_eq!(execution.status.as_deref(), Some("PAUSED"));
        assert!(!is_terminal(execution.status.as_deref()));
    }

    #[test]
    fn an_archived_flag_may_be_a_string() {
        let workflow: Workflow =
            serde_json::from_str(r#"{"id":"1","name":"n","archived":"false","active":"true"}"#).unwrap();
        assert_eq!((workflow.archived, workflow.active), (Some(false), Some(true)));
    }

    #[test]
    fn a_list_of_a_bulk_answer_that_is_no_list_costs_only_itself() {
        let workflow = r#"{"id":"1","name":"n"}"#;
        let error = r#"{"workflow_id":"2","message":"shared"}"#;
        for odd in ["null", "7", "{}", &odd(1000)] {
            let text = format!(r#"{{"archived":[{workflow},null],"errored":{odd}}}"#);
            let outcome: BulkOutcome = serde_json::from_str(&text).unwrap();
            assert_eq!((outcome.done.len(), outcome.errored.len()), (2, 0), "{odd:.40}");
            let text = format!(r#"{{"unarchived":{odd},"errored":[{error},{odd}]}}"#);
            let outcome: BulkOutcome = serde_json::from_str(&text).unwrap();
            assert_eq!((outcome.done.len(), outcome.errored.len()), (0, 1), "{odd:.40}");
        }
    }

    /// Nested `levels` deep, around a number and half of a character, both of which `serde_json` refuses.
    fn odd(levels: usize) -> String {
        format!(r#"{}[1e400,"\udce9"]{}"#, r#"{"a":"#.repeat(levels), "}".repeat(levels))
    }

    #[test]
    fn whatever_a_worker_registers_its_registration_can_be_read() {
        for levels in [0, 119, 1000, 100_000] {
            let odd = odd(levels);
            let text = format!(
                r#"{{"id":"r","workflow_id":"w","deployment_name":{odd},"active":{odd},"new":{odd},"workflow":{odd},"definition":
                {{"input_schema":{odd},"output_schema":{odd},"signals":[{{"name":"stop","input_schema":{odd}}},{odd},7],
                "queries":{odd},"updates":[],"execution_timeout":1e400,"on_behalf_of":{odd},"plugin_metadata":{odd}}}}}"#
            );
            let read: Registration = serde_json::from_str(&text).unwrap();
            assert_eq!((read.id.as_str(), read.deployment_name, read.active), ("r", None, None));
            let definition = read.definition.unwrap();
            assert_eq!(definition.input_schema.unwrap().text(), odd);
            assert_eq!(definition.signals, ["stop"]);
            assert_eq!((definition.execution_timeout, definition.on_behalf_of), (None, None));
        }
        let bare: Registration = serde_json::from_str(r#"{"id":"r","workflow_id":"w","definition":1e400}"#).unwrap();
        assert_eq!(bare.definition, None);
    }

    #[test]
    fn a_field_of_another_type_than_promised_is_as_good_as_absent() {
        let odd = odd(1000);
        let text = format!(
            r#"{{"id":"1","name":"n","display_name":7,"description":"caf\udce9","type":{odd},"tags":["a",{odd},"b\ud83d"],
            "archived":"true","active":{odd},"shared_namespace":{odd},"metadata":{{"shared_namespace":"s","x":{odd}}}}}"#
        );
        let workflow: Workflow = serde_json::from_str(&text).unwrap();
        assert_eq!((workflow.display_name.as_deref(), workflow.description.as_deref()), (None, Some("caf\u{fffd}")));
        assert_eq!(workflow.tags, Some(vec!["a".to_owned(), "b\u{fffd}".to_owned()]));
        assert_eq!((workflow.archived, workflow.active, workflow.is_shared()), (Some(true), None, true));
        let row: WorkflowRow = serde_json::from_str(&text).unwrap();
        let texts = fingerprint(None, workflow.description.as_deref(), workflow.tags.as_deref());
        assert_eq!((row.archived, row.texts), (Some(true), texts));
    }
}
