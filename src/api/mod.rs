//! The Kubernetes resources of this operator, and nothing else.
//!
//! The types here generate the CRDs in `crds/`. They carry every rule that the API server can check
//! by itself, so that it refuses bad input when the input is applied.

#![warn(missing_docs)]

pub mod conditions;
pub mod execution;
pub mod labels;
pub mod reasons;
mod schema;
pub mod values;
pub mod workflow;
pub mod workspace;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

pub use execution::{DeletionPolicy, Shutdown, WorkflowExecution, WorkflowExecutionSpec, WorkflowExecutionStatus};
pub use workflow::{ManagementPolicy, Workflow, WorkflowDeletionPolicy, WorkflowSpec, WorkflowStatus};
pub use workspace::{Workspace, WorkspaceRef, WorkspaceSpec, WorkspaceStatus};

/// The CRDs that the operator needs, in the order in which `mistral-workflows-operator crds` prints them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [Workspace::crd(), Workflow::crd(), WorkflowExecution::crd()].into_iter().map(as_the_api_server_wants_it).collect()
}

/// Formats in these schemas that the API server knows. It warns about all others.
const FORMATS: [&str; 5] = ["int32", "int64", "float", "double", "date-time"];

/// Adapts the generated schemas to the API server.
fn as_the_api_server_wants_it(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    fn change(value: &mut Value) {
        match value {
            Value::Object(object) => {
                // `kubectl explain` breaks lines itself, so the line breaks of the source go.
                if let Some(Value::String(text)) = object.get_mut("description") {
                    *text = text.split("\n\n").map(|part| part.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
                }
                // Formats of Rust, such as uint32. `minimum` says the same.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields below this one that have a default which their description does not name.
    fn unnamed(path: &str, field: &Value, found: &mut Vec<String>) {
        let description = field["description"].as_str().unwrap_or_default();
        let values: Vec<String> = match &field["default"] {
            Value::Null => Vec::new(),
            Value::Object(fields) => fields.values().map(|value| value.to_string().replace('"', "")).collect(),
            value => vec![value.to_string().replace('"', "")],
        };
        let (_, told) = description.split_once("Defaults to ").unwrap_or_default();
        if values.iter().any(|value| !told.contains(value.as_str())) {
            found.push(path.to_owned());
        }
        for (name, field) in field["properties"].as_object().into_iter().flatten() {
            unnamed(&format!("{path}.{name}"), field, found);
        }
        if field["items"].is_object() {
            unnamed(&format!("{path}[]"), &field["items"], found);
        }
    }

    /// kubectl explain shows descriptions, and no defaults.
    #[test]
    fn the_description_of_each_field_with_a_default_names_it() {
        let mut found = Vec::new();
        for crd in crds() {
            let schema = serde_json::json!(crd.spec.versions[0].schema);
            unnamed(&crd.spec.names.kind, &schema["openAPIV3Schema"], &mut found);
        }
        assert_eq!(found, Vec::<String>::new());
    }
}
