//! The Kubernetes resources of this operator, and nothing else.
//!
//! The types here generate the CRDs in `crds/`; every rule that the API server can check by itself
//! is written on them, so that bad input is refused when it is applied.

pub mod conditions;
pub mod execution;
pub mod reasons;
pub mod values;
pub mod workflow;
pub mod workspace;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{Schema, json_schema};
use serde_json::Value;

pub use execution::{DeletionPolicy, Shutdown, WorkflowExecution, WorkflowExecutionSpec, WorkflowExecutionStatus};
pub use workflow::{ManagementPolicy, Workflow, WorkflowDeletionPolicy, WorkflowSpec, WorkflowStatus};
pub use workspace::{Workspace, WorkspaceRef, WorkspaceSpec, WorkspaceStatus};

/// The CRDs that the operator needs, in the order in which `mistral-workflows-operator crds` prints them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [Workspace::crd(), Workflow::crd(), WorkflowExecution::crd()].into_iter().map(as_the_api_server_wants_it).collect()
}

/// The formats that the API server knows, of those that schemas here have: it warns of all others.
const FORMATS: [&str; 5] = ["int32", "int64", "float", "double", "date-time"];

/// Changes what the generator of the schemas does otherwise than the API server needs it.
fn as_the_api_server_wants_it(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    fn change(value: &mut Value) {
        match value {
            Value::Object(object) => {
                // The line breaks of this source: `kubectl explain` breaks lines itself.
                if let Some(Value::String(text)) = object.get_mut("description") {
                    *text = text.split("\n\n").map(|part| part.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
                }
                // Rust's own, such as uint32. What they promise is in `minimum`.
                if object.get("format").and_then(Value::as_str).is_some_and(|format| !FORMATS.contains(&format)) {
                    object.remove("format");
                }
                object.values_mut().for_each(change);
            }
            Value::Array(array) => array.iter_mut().for_each(change),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut value = serde_json::json!(crd);
    change(&mut value);
    serde_json::from_value(value).unwrap_or(crd)
}

/// Schema of `status.conditions`: a list keyed by type, so that several writers can merge into it.
fn conditions_schema(generator: &mut schemars::SchemaGenerator) -> Schema {
    let condition = generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>();
    json_schema!({
        "type": "array",
        "items": condition,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// Schema of a JSON object, or null as good as none, whose content is the workflow's own business.
fn object_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true })
}

/// Schema of any JSON value.
fn any_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}
