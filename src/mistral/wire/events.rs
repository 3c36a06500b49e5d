//! Events of an execution: only those fields that describe its failure or its input.

use serde::Deserialize;

use crate::json::{self, Json};

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
