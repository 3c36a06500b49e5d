//! `WorkflowExecution`: one run of a workflow, as a Job is to a Pod.

#![expect(clippy::duplicated_attributes, reason = "each printer column has the same attributes")]
#![expect(
    dead_code,
    reason = "KubeSchema makes a copy of the spec, whose field that is never on the wire nobody reads"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::unchanged;
use super::values::{InputFrom, ResultRef, ResultTo};
use super::workspace::WorkspaceRef;
use crate::json::{self, Json};

/// One run of a workflow.
///
/// The fields that define the run are immutable.
// The API server evaluates these rules at each write, including the operator's own. Each access to a field of the spec
// costs a copy of the spec's schema, which once took a tenth of the API server's time. So fields that are always
// present have rules of their own. The rules of optional fields are on the whole spec: only there does a field that
// appears or vanishes count as a change.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "workflows.mistral.ai",
    version = "v1alpha1",
    kind = "WorkflowExecution",
    plural = "workflowexecutions",
    shortname = "mwfx",
    category = "mistral",
    namespaced,
    status = "WorkflowExecutionStatus",
    doc = "One run of a Mistral workflow, started exactly once; its state and result are in the status.",
    derive = "PartialEq",
    selectable = ".spec.workflowRef.name",
    selectable = ".spec.workflowIdentifier",
    selectable = ".spec.registrationId",
    selectable = ".status.workflowName",
    selectable = ".status.status",
    printcolumn(name = "Workflow", type_ = "string", json_path = ".status.workflowName"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Execution ID", type_ = "string", json_path = ".status.executionId", priority = 1),
    printcolumn(name = "Workspace", type_ = "string", json_path = ".spec.workspaceRef.name", priority = 1),
    // Last, since a sentence would push other columns out of sight.
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[x_kube(
    validation = Rule::new("[has(self.workflowRef), has(self.workflowIdentifier), has(self.registrationId)].filter(given, given).size() == 1")
        .message("name exactly one target: workflowRef, workflowIdentifier or registrationId"),
    validation = Rule::new(unchanged("workflowRef")).message("workflowRef is immutable: create another WorkflowExecution for another run"),
    validation = Rule::new(unchanged("workflowIdentifier")).message("workflowIdentifier is immutable: create another WorkflowExecution for another run"),
    validation = Rule::new(unchanged("registrationId")).message("registrationId is immutable: create another WorkflowExecution for another run"),
    validation = Rule::new(unchanged("executionId")).message("executionId is immutable: create another WorkflowExecution for another run"),
    validation = Rule::new(unchanged("input")).message("input is immutable: create another WorkflowExecution for another run"),
    validation = Rule::new(unchanged_inputs()).message("inputFrom is immutable: create another WorkflowExecution for another run"),
    validation = Rule::new(unchanged("deploymentName")).message("deploymentName is immutable: create another WorkflowExecution for another run"),
    validation = Rule::new(unchanged("customTracingAttributes")).message("customTracingAttributes is immutable: create another WorkflowExecution for another run"),
    validation = Rule::new(unchanged("extensions")).message("extensions is immutable: create another WorkflowExecution for another run"),
    validation = Rule::new(unchanged("startingDeadlineSeconds")).message("startingDeadlineSeconds is immutable: create another WorkflowExecution for another run"),
    validation = Rule::new(unchanged("activeDeadlineSeconds")).message("activeDeadlineSeconds is immutable: set shutdown to stop the run")
)]
pub struct WorkflowExecutionSpec {
    /// The Workspace, in this namespace, through which the run is started. Defaults to the Workspace
    /// named default. Immutable.
    #[serde(default)]
    #[schemars(extend("default" = { "name": "default" }))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("workspaceRef is immutable"))]
    pub workspace_ref: WorkspaceRef,

    /// The Workflow resource, in this namespace, whose workflow to run. The run starts once the API
    /// knows the workflow and the workflow is not archived. Set exactly one of workflowRef,
    /// workflowIdentifier and registrationId. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_ref: Option<WorkflowRef>,

    /// Name or UUID of the workflow to run. Set exactly one of workflowRef, workflowIdentifier and
    /// registrationId. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9_-]+$"))]
    pub workflow_identifier: Option<String>,

    /// UUID of the workflow registration to run, to pin one version. Set exactly one of
    /// workflowRef, workflowIdentifier and registrationId. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36), regex(pattern = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"))]
    pub registration_id: Option<String>,

    /// Id of the run at the API. By default, the operator derives it from the resource's name and
    /// UID, so a resource that is created again starts a new run. An id set here outlives the
    /// resource for as long as the API remembers the run (30 days by default). Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 240), regex(pattern = r"^[a-zA-Z0-9_-]+$"))]
    pub execution_id: Option<String>,

    /// The workflow's input: a JSON object of at most 2 MB, the limit of the API. Immutable.
    #[serde(default, deserialize_with = "json::any", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::object_schema")]
    pub input: Option<Json>,

    /// Parts of the input that come from ConfigMaps and Secrets of this namespace. The operator
    /// reads them right before the start, and the start waits until all of them exist. No two paths
    /// may be equal or one inside the other, and no path may meet a value of spec.input. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(
        validation = Rule::new("self.all(a, self.exists_one(b, b.path == a.path || b.path.startsWith(a.path + '/')))")
            .message("two paths of inputFrom are the same, or one is inside the other: each value needs a place of its own")
    )]
    pub input_from: Option<Vec<InputFrom>>,

    /// The deployment whose workers execute the run. Required if several active deployments own the
    /// workflow. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9_.-]+$"))]
    pub deployment_name: Option<String>,

    /// Attributes added to the run's trace. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "tracing_attributes_schema")]
    pub custom_tracing_attributes: Option<BTreeMap<String, String>>,

    /// Plugin data, passed to the API unchanged. Immutable.
    #[serde(default, deserialize_with = "json::any", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::object_schema")]
    pub extensions: Option<Json>,

    /// If true, the run does not start. A run that has started is not affected. Defaults to false.
    #[serde(default)]
    pub suspend: bool,

    /// Seconds after the creation of this resource within which the run must start, even while
    /// suspend is true. After that, the execution fails with StartingDeadlineExceeded and never
    /// starts. By default, a start waits without limit. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub starting_deadline_seconds: Option<u32>,

    /// Seconds after the start of the run after which the operator stops it, as with shutdown
    /// Cancel. The execution then fails with DeadlineExceeded. The API has an execution timeout of
    /// its own, set in the worker's code (1 hour by default). Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<u32>,

    /// Stops the run. Cancel asks the workflow to stop, and terminates the run if it has not
    /// stopped after terminationGracePeriodSeconds. Terminate ends the run at once. A run that has
    /// not started never starts. A stop cannot be undone by removing this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "shutdown_schema")]
    pub shutdown: Option<Shutdown>,

    /// Seconds that a canceled run has to stop by itself before the operator terminates it. The
    /// deletion of the resource grants at most 240 seconds. Defaults to 30. Immutable.
    #[serde(default = "default_grace")]
    #[schemars(range(min = 0, max = 86_400))]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("terminationGracePeriodSeconds is immutable: set shutdown to Terminate to end the run at once")
    )]
    pub termination_grace_period_seconds: u32,

    /// What happens to an unfinished run when this resource is deleted: Cancel asks the run to stop
    /// and terminates it if it has not stopped after terminationGracePeriodSeconds, Terminate ends
    /// the run at once, Orphan leaves the run alone. The deletion waits for at most 5 minutes.
    /// Defaults to Cancel.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Seconds after the end of the run after which the operator deletes this resource. A resource
    /// that Argo CD, Flux, Helm or a controller tracks is not deleted: they would create it again,
    /// which would run the workflow again. By default, the resource stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<u32>,

    /// Where to store the run's result, and up to which size. Defaults to status.result, up to
    /// 32768 bytes. Immutable.
    #[serde(default)]
    #[schemars(extend("default" = { "maxBytes": 32768 }))]
    #[x_kube(
        validation = Rule::new("self.maxBytes == oldSelf.maxBytes && has(self.to) == has(oldSelf.to)")
            .message("result is immutable: create another WorkflowExecution for another run")
    )]
    pub result: ResultSpec,

    /// Set in memory only, where the cache leaves out long fields: the fingerprint of the whole spec.
    #[serde(skip)]
    #[schemars(skip)]
    pub left_out: Option<LeftOut>,
}

/// Stands in the cache for the long input, extensions and tracing attributes of an execution that has not started. The
/// operator reads them again when a start is due.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftOut {
    /// Fingerprint of everything that decides what a run does.
    pub digest: String,
}

/// The same rule for `inputFrom`, whose entries have optional fields.
fn unchanged_inputs() -> String {
    // `as` is a reserved word of CEL, which spells the field `__as__`.
    let of = |kind: &str, field: &str| format!("['{kind}', e.{field}.name, e.{field}.key, e.path, e.__as__]");
    let (map, secret) = (of("ConfigMap", "configMapKeyRef"), of("Secret", "secretKeyRef"));
    let entries = |of: &str| format!("{of}.inputFrom.map(e, has(e.configMapKeyRef) ? {map} : {secret})");
    let (new, old) = (entries("self"), entries("oldSelf"));
    format!("has(self.inputFrom) ? has(oldSelf.inputFrom) && {new} == {old} : !has(oldSelf.inputFrom)")
}

fn tracing_attributes_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 1024 },
    })
}

/// Not an enum: the API server would refuse a null, which elsewhere counts as absent.
fn shutdown_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "nullable": true, "maxLength": 9, "pattern": "^(Cancel|Terminate)$" })
}

/// Refers to a Workflow in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct WorkflowRef {
    /// Name of the Workflow resource.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn default_grace() -> u32 {
    30
}

/// How to stop a run.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Asks the run to stop, and terminates it if it has not stopped after
    /// terminationGracePeriodSeconds.
    Cancel,
    /// Ends the run at once.
    Terminate,
}

/// What happens to an unfinished run when its resource is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// Asks the run to stop, and terminates it if it has not stopped after
    /// terminationGracePeriodSeconds.
    #[default]
    Cancel,
    /// Ends the run at once.
    Terminate,
    /// Leaves the run alone.
    Orphan,
}

/// Where to store a result, and up to which size.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ResultSpec {
    /// The largest result, in bytes of compact JSON, that the operator copies into status.result. A
    /// larger result stays at the API, and status.resultBytes shows its size. Defaults to 32768.
    #[serde(default = "default_max_bytes")]
    #[schemars(range(min = 0, max = 262_144))]
    pub max_bytes: u32,

    /// Where to store the whole result instead of in status.result: an object in this namespace.
    /// The operator creates the object, and it is deleted together with this resource. By default,
    /// the result goes into status.result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<ResultTo>,
}

fn default_max_bytes() -> u32 {
    32_768
}

impl Default for ResultSpec {
    fn default() -> Self {
        Self { max_bytes: default_max_bytes(), to: None }
    }
}

/// What the operator and the API know about the run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowExecutionStatus {
    /// `Started`, `Complete`, `Failed`, `Ready`, `Reconciling` and `Stalled`. `Missing`, `Edited`,
    /// `Expired` and `ResultNotWritten` are present only while they apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::schema::conditions_schema")]
    pub conditions: Vec<Condition>,
    /// Id of the run at the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<String>,
    /// The execution at the root of the tree that this run belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_execution_id: Option<String>,
    /// The API's database id of the run, if the API reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Name of the workflow, as the API spells it. Until the API has told it: what the spec names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_name: Option<String>,
    /// The API's own term: RUNNING, COMPLETED, FAILED, CANCELED, TERMINATED, TIMED_OUT, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// When the run started, by the API's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the run ended, by the API's clock. Set however the run ends, so that
    /// `kubectl wait --for=jsonpath='{.status.endTime}'` waits for any end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// How long the run took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// How long the run took, for people: such as 4.2s, 1m30s or 2h5m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The run's result, if it has at most spec.result.maxBytes bytes.
    #[serde(default, deserialize_with = "json::any", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::any_schema")]
    pub result: Option<Json>,
    /// Size of the result in bytes of compact JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_bytes: Option<i64>,
    /// The object that holds the result, if spec.result.to asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_ref: Option<ResultRef>,
    /// Why the run did not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Why a run did not complete.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Failure {
    /// The reason of the `Failed` condition.
    pub reason: String,
    /// The explanation by the workflow or the API.
    pub message: String,
}
