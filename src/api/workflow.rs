//! `Workflow`: what a workflow that workers have registered should look like.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WorkspaceRef;
use crate::json::{self, Json};

/// A workflow that workers have registered with Mistral: what it should look like, and what the API
/// says of it.
///
/// Each of displayName, description, tags, availableInChatAssistant and archived is left alone while
/// it is absent.
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
    printcolumn(name = "Tags", type_ = "string", json_path = ".status.tags", priority = 1),
    printcolumn(name = "Workflow ID", type_ = "string", json_path = ".status.workflowId", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.workspaceRef == oldSelf.workspaceRef").message("workspaceRef is immutable: create another Workflow for another Workspace"),
    validation = Rule::new("has(self.identifier) == has(oldSelf.identifier) && (!has(self.identifier) || self.identifier == oldSelf.identifier)")
        .message("identifier is immutable: create another Workflow for another workflow"),
    validation = Rule::new("self.deletionPolicy != 'Archive' || self.managementPolicy != 'Observe'")
        .message("deletionPolicy Archive changes the workflow, which managementPolicy Observe rules out")
)]
pub struct WorkflowSpec {
    /// The Workspace, in this namespace, whose workflow this is. Immutable.
    #[serde(default)]
    #[schemars(extend("default" = { "name": "default" }))]
    pub workspace_ref: WorkspaceRef,

    /// Name or UUID of the workflow; the name of this resource if absent. Immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9_-]+$"))]
    pub identifier: Option<String>,

    /// Manage makes the workflow look as this spec says and keeps it so; Observe only reads it and
    /// says what differs.
    #[serde(default)]
    pub management_policy: ManagementPolicy,

    /// While true, the operator leaves the workflow alone, also when this resource is deleted.
    #[serde(default)]
    pub suspend: bool,

    /// What people see, at most 128 characters. Once set, it can be changed but not cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.trim() != ''").message("displayName must not be blank"))]
    pub display_name: Option<String>,

    /// What the workflow is for. An empty text clears it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub description: Option<String>,

    /// The whole list of tags, in order; an empty list clears it. White space around a tag and
    /// repetitions do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "tags_schema")]
    pub tags: Option<Vec<String>>,

    /// Whether Mistral's chat assistant offers the workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_in_chat_assistant: Option<bool>,

    /// Whether the workflow is archived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,

    /// What the deletion of this resource does to the workflow, which nothing can delete: Retain
    /// leaves it alone, Archive archives it.
    #[serde(default)]
    pub deletion_policy: WorkflowDeletionPolicy,
}

/// The API trims tags and refuses blank and overlong ones.
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
    /// It makes the workflow look as the spec says, and keeps it so.
    #[default]
    Manage,
    /// It only reads.
    Observe,
}

/// What the deletion of a Workflow does at the API.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkflowDeletionPolicy {
    /// Nothing.
    #[default]
    Retain,
    /// The workflow is archived.
    Archive,
}

/// What the API says of the workflow.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowStatus {
    /// `Ready`, `Reconciling`, `Stalled`; `Active`: a live worker serves it; `Contested`,
    /// `Ambiguous` and `NeedsUser` only where that is so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::conditions_schema")]
    pub conditions: Vec<Condition>,
    /// UUID of the workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
    /// The name under which workers register it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The API's own word for its kind, such as code.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// What people see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What the workflow is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// In the API's order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Whether the chat assistant offers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_in_chat_assistant: Option<bool>,
    /// Whether it is archived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
    /// Whether a live worker serves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// Whether it is registered by Mistral's SDK for its own use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub technical: Option<bool>,
    /// The namespace from which it is shared, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_namespace: Option<String>,
    /// The versions that deployments have registered: the newest 20, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub registrations: Vec<RegistrationStatus>,
    /// What the newest registration with a live worker offers; the newest of all if none has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
    /// The fields that the other side keeps reverting, and which are set only hourly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contested_fields: Vec<String>,
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// One version of a workflow.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct RegistrationStatus {
    /// UUID, for `spec.registrationId` of a WorkflowExecution.
    pub id: String,
    /// The deployment that registered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// Whether a live worker serves it.
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
    #[schemars(schema_with = "super::any_schema")]
    pub input_schema: Option<Json>,
    /// JSON Schema of the result.
    #[serde(default, deserialize_with = "json::any", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::any_schema")]
    pub output_schema: Option<Json>,
    /// Why the schemas are not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schemas_omitted: Option<String>,
    /// Names of the signals that a run takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<String>,
    /// Names of the queries that a run answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<String>,
    /// Names of the updates that a run takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<String>,
    /// How long a run may take, in whole seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_timeout_seconds: Option<i64>,
    /// A run acts on behalf of a user.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_behalf_of: bool,
}
