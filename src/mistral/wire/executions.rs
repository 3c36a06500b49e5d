//! Executions: how one is started, and what the API says about it.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lenient::lenient_time;
use crate::answer_memory::Held;
use crate::json::{self, Json};

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
}
