//! `Workflow`: how a workflow that workers have registered should look.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WorkspaceRef;
use crate::json::{self, Json};

/// A workflow that workers have registered with Mistral: how it should look, and what the API
/// reports about it.
///
/// While displayName, description, tags, availableInChatAssistant or archived is absent, the
/// operator leaves that field of the workflow alone.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "workflows.mistral.ai",
    version = "v1alpha1",
    kind = "Workflow",
    plural = "workflows",
    shortname = "mwf",
    category = "mistral",
    namespaced,
    status = "WorkflowStatus",
    doc = "A workflow that workers have registered with Mistral: how it should look, and what the API says of it.",
    derive = "PartialEq",
    selectable = ".spec.identifier",
    validation = Rule::new("has(self.spec.identifier) || (self.metadata.name.matches('^[a-z0-9-]+$') && size(self.metadata.name) <= 128)")
        .message("no workflow can have the name of this resource; set spec.identifier to the workflow's name or UUID"),
    printcolumn(name = "Display Name", type_ = "string", json_path = ".status.displayName"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.conditions[?(@.type==\"Active\")].status"),
    printcolumn(name = "Archived", type_ = "boolean", json_path = ".status.archived"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Tags", type_ = "string", json_path = ".status.tags", priority = 1),
    printcolumn(name = "Workflow ID", type_ = "string", json_path = ".status.workflowId", priority = 1),
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
    validation = Rule::new("self.workspaceRef == oldSelf.workspaceRef").message("workspaceRef is immutable: create another Workflow for another Workspace"),
    validation = Rule::new("has(self.identifier) == has(oldSelf.identifier) && (!has(self.identifier) || self.identifier == oldSelf.identifier)")
        .message("identifier is immutable: create another Workflow for another workflow"),
    validation = Rule::new("self.deletionPolicy != 'Archive' || self.managementPolicy != 'Observe'")
        .message("deletionPolicy Archive changes the workflow, which managementPolicy Observe rules out")
)]
pub struct WorkflowSpec {
    /// The Workspace, in this namespace, that the workflow belongs to. Defaults to the Workspace named
    /// default. Immutable.
    #[serde(default)]
    #[schemars(extend("default" = { "name": "default" }))]
    pub workspace_ref: WorkspaceRef,

    /// Name or UUID of the workflow. Defaults to the name of this resource. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9_-]+$"))]
    pub identifier: Option<String>,

    /// Manage makes the workflow match this spec and corrects drift. Observe only reads the
    /// workflow and reports what differs. Defaults to Manage.
    #[serde(default)]
    pub management_policy: ManagementPolicy,

    /// If true, the operator leaves the workflow alone, even when this resource is deleted. Defaults
    /// to false.
    #[serde(default)]
    pub suspend: bool,

    /// The name that people see, at most 128 characters. Once set, it can be changed but not
    /// cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.trim() != ''").message("displayName must not be blank"))]
    pub display_name: Option<String>,

    /// What the workflow is for. An empty string clears it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub description: Option<String>,

    /// The complete list of tags, in order. An empty list removes all tags. White space around a
    /// tag and duplicates are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "tags_schema")]
    pub tags: Option<Vec<String>>,

    /// Whether Mistral's chat assistant offers the workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_in_chat_assistant: Option<bool>,

    /// Whether the workflow is archived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,

    /// What happens to the workflow when this resource is deleted: Retain leaves it alone, Archive
    /// archives it. The workflow itself cannot be deleted. Defaults to Retain.
    #[serde(default)]
    pub deletion_policy: WorkflowDeletionPolicy,
}

/// The API trims tags, and refuses blank tags and tags that are too long.
fn tags_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "nullable": true,
        "maxItems": 64,
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": 100,
            "x-kubernetes-validations": [{ "rule": "self.trim() != ''", "message": "a tag must not be blank" }],
        },
    })
}

/// Whether the operator may change the workflow.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManagementPolicy {
    /// The operator makes the workflow match the spec and corrects drift.
    #[default]
    Manage,
    /// The operator only reads the workflow.
    Observe,
}

/// What happens to the workflow when its Workflow resource is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkflowDeletionPolicy {
    /// The workflow is left alone.
    #[default]
    Retain,
    /// The workflow is archived.
    Archive,
}

/// What the API reports about the workflow.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowStatus {
    /// `Ready`, `Reconciling` and `Stalled`. `Active`: a live worker serves the workflow.
    /// `Contested`, `Ambiguous` and `NeedsUser` are present only while they apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::schema::conditions_schema")]
    pub conditions: Vec<Condition>,
    /// UUID of the workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
    /// The name under which workers register the workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The API's own term for the kind of workflow, such as code.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// The name that people see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What the workflow is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The tags, in the API's order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Whether Mistral's chat assistant offers the workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_in_chat_assistant: Option<bool>,
    /// Whether the workflow is archived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
    /// Whether a live worker serves the workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// Whether Mistral's SDK registered the workflow for its own use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub technical: Option<bool>,
    /// The namespace that shares the workflow, if it is shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_namespace: Option<String>,
    /// The versions that deployments have registered: the newest 20, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub registrations: Vec<RegistrationStatus>,
    /// What the newest registration with a live worker offers. If no registration has one, the
    /// newest of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
    /// The fields that somebody else keeps setting back. The operator sets them only once an hour.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contested_fields: Vec<String>,
    /// The generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// One version of a workflow.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct RegistrationStatus {
    /// UUID of the registration, for `spec.registrationId` of a WorkflowExecution.
    pub id: String,
    /// The deployment that registered this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// Whether a live worker serves this version.
    pub active: bool,
}

/// What a registration offers, as its worker declared it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// UUID of the registration.
    pub registration_id: String,
    /// JSON Schema of the input.
    #[serde(default, deserialize_with = "json::any", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::any_schema")]
    pub input_schema: Option<Json>,
    /// JSON Schema of the result.
    #[serde(default, deserialize_with = "json::any", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::any_schema")]
    pub output_schema: Option<Json>,
    /// Why the status does not show the schemas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schemas_omitted: Option<String>,
    /// Names of the signals that a run accepts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<String>,
    /// Names of the queries that a run answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<String>,
    /// Names of the updates that a run accepts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<String>,
    /// How long a run may take, in whole seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_timeout_seconds: Option<i64>,
    /// Whether a run acts on behalf of a user.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_behalf_of: bool,
}
