//! Specifications of workflows, and of how their runs behave.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

/// A workflow as its workers would register it.
///
/// For a workflow that already exists, absent display fields (`display_name` … `shared_namespace`) keep their values.
/// Once an API client has updated the workflow, all fields that clients can set keep their values, unless a switch says
/// otherwise.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkflowSpec {
    /// Unique in its workspace: at most 128 letters, digits, `_` and `-`.
    pub name: String,
    /// The workflow's UUID; generated when absent. Fixed once the workflow exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<uuid::Uuid>,
    /// Defaults to the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Defaults to the empty string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Defaults to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Defaults to false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
    /// Defaults to false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_in_chat_assistant: Option<bool>,
    /// Marks an internal workflow, which `include_internal=false` excludes from run lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_technical: Option<bool>,
    /// Marks a workflow that another workspace shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_namespace: Option<String>,
    /// Whether runs need a user's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<bool>,
    /// JSON Schema of inputs. By default any object is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    /// Replaces the input schema in answers: JSON of any depth, with any number and text. Not enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_input_schema: Option<String>,
    /// JSON Schema of the result. Shown, but not enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// Signal handlers, shown as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signals: Option<Vec<Value>>,
    /// Query handlers, shown as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<Vec<Value>>,
    /// Update handlers, shown as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<Vec<Value>>,
    /// Seconds after which a run times out, including its continuations. One hour by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_timeout_s: Option<f64>,
    /// The deployments that serve the workflow, each with its own registration. The default is one active deployment
    /// called `<name>-deployment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployments: Option<Vec<DeploymentSpec>>,
    /// How runs behave. By default they complete at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behaviour: Option<Behaviour>,
}

impl WorkflowSpec {
    /// A workflow that completes at once.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Fills in what a registration always has. A repeated registration therefore replaces the whole definition and
    /// behaviour.
    pub(crate) fn complete(mut self) -> Self {
        let deployment = || vec![DeploymentSpec { name: format!("{}-deployment", self.name), active: true }];
        self.deployments = Some(self.deployments.take().unwrap_or_else(deployment));
        self.input_schema.get_or_insert_with(|| json!({ "properties": {}, "title": "run_Input", "type": "object" }));
        self.output_schema.get_or_insert(Value::Null);
        self.signals.get_or_insert_default();
        self.queries.get_or_insert_default();
        self.updates.get_or_insert_default();
        self.on_behalf_of.get_or_insert(false);
        self.execution_timeout_s.get_or_insert(3600.0);
        self.behaviour.get_or_insert_default();
        self
    }
}

impl WorkflowSpec {
    /// Clears the fields that API clients can set.
    pub(crate) fn leave_display_fields(&mut self) {
        self.display_name = None;
        self.description = None;
        self.tags = None;
        self.archived = None;
        self.available_in_chat_assistant = None;
    }

    /// Sets absent fields to the values of a new workflow.
    pub(crate) fn reset_display_fields(&mut self) {
        self.display_name.get_or_insert_with(|| self.name.clone());
        self.description.get_or_insert_default();
        self.archived.get_or_insert_default();
    }
}

/// A deployment that serves a workflow.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentSpec {
    /// The deployment's name.
    pub name: String,
    /// Whether one of its workers is alive.
    #[serde(default = "yes")]
    pub active: bool,
}

fn yes() -> bool {
    true
}

/// Reads a field that is there, so that `null` differs from an absent field.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// How the runs of a workflow behave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// How long a run takes; zero by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How a run ends.
    #[serde(default)]
    pub outcome: Outcome,
    /// The message of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The message of a failed activity that makes the run fail. The workflow's own message is then `Activity task
    /// failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity_error: Option<String>,
    /// The result of a completed run; by default the run's input. A `null` is a result, as of a workflow that returns
    /// nothing.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Replaces the result of a completed run in the answer about that execution. The text need not be JSON: workers
    /// return the output of Python's encoder, at any depth and with `NaN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_result: Option<String>,
    /// How long a run takes to honour a cancel request; zero by default.
    #[serde(default)]
    pub cancel_delay_ms: u64,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// COMPLETED after the duration.
    #[default]
    Complete,
    /// FAILED after the duration.
    Fail,
    /// TIMED_OUT after the duration, as if the execution timeout were that short.
    TimeOut,
    /// Runs until the execution timeout.
    Hang,
    /// Ignores a cancel request. COMPLETED after the duration; hangs without a duration.
    IgnoreCancel,
    /// CONTINUED_AS_NEW after the duration, once. The next run completes after the duration.
    ContinueAsNew,
}
