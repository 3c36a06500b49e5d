//! What a test says about the workflows that exist and how their runs behave.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A workflow as its workers would register it.
///
/// For a workflow that exists already, absent display fields (`display_name` … `shared_namespace`) keep their values.
/// Once one of the API's clients has updated the workflow, those that clients can set keep them in any case, unless a switch says
/// otherwise.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkflowSpec {
    /// Unique in its workspace: letters, digits, `_` and `-`, at most 128.
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
    /// Marks an internal workflow, which `include_internal=false` leaves out of run lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_technical: Option<bool>,
    /// Marks a workflow that is shared from another workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_namespace: Option<String>,
    /// Whether runs need a user's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<bool>,
    /// JSON Schema that inputs must satisfy; by default any object does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    /// The text that stands for the input schema in answers: JSON of any depth, with any number and text. Not enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_input_schema: Option<String>,
    /// JSON Schema of the result, shown and not enforced.
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
    /// Seconds after which a run times out, continuations included; one hour by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_timeout_s: Option<f64>,
    /// The deployments that serve the workflow, each with a registration of its own; by default one, active, called `<name>-deployment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployments: Option<Vec<DeploymentSpec>>,
    /// How runs go; by default they complete at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behaviour: Option<Behaviour>,
}

impl WorkflowSpec {
    /// A workflow that completes at once.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Fills in what a registration always has, so that registering again replaces the definition and the behaviour as a whole.
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
    /// What the API's clients can set is not mentioned any more.
    pub(crate) fn leave_display_fields(&mut self) {
        self.display_name = None;
        self.description = None;
        self.tags = None;
        self.archived = None;
        self.available_in_chat_assistant = None;
    }

    /// What is not mentioned is as a new workflow has it.
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
    /// Name of the deployment.
    pub name: String,
    /// Whether one of its workers is alive.
    #[serde(default = "yes")]
    pub active: bool,
}

fn yes() -> bool {
    true
}

/// How the runs of a workflow go.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// How long a run takes; nothing by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How a run ends.
    #[serde(default)]
    pub outcome: Outcome,
    /// The message of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// A failure's cause lies in an activity with this message; the workflow's own message is then `Activity task failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity_error: Option<String>,
    /// The result of a completed run; by default the run's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// The bytes that stand for the result of a completed run in the answer about that execution, JSON or not: workers
    /// return what Python's encoder makes of it, at any depth and with `NaN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_result: Option<String>,
    /// How long a run takes to honour a cancel request; nothing by default.
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
    /// Takes no notice of a cancel request. COMPLETED after the duration; without a duration it hangs.
    IgnoreCancel,
    /// CONTINUED_AS_NEW after the duration, once; the run that follows completes after the duration.
    ContinueAsNew,
}
