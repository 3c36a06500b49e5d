//! Executions that this version cannot decode, such as those written by a newer one. They are skipped, but can be
//! deleted.
//!
//! To stop a run, the operator needs only what every version writes alike: the metadata, and the claim in it.

use kube::core::ObjectMeta;

use crate::api::execution::ResultSpec;
use crate::api::{DeletionPolicy, WorkflowExecution, WorkflowExecutionSpec, WorkspaceRef};
use crate::execution::claim::{ClaimAnnotation, FINALIZER};
use crate::workspace::connections::Connections;

/// A stand-in for a resource that is being deleted, sufficient for its deletion. None if there is nothing to do.
///
/// The spec is not known, but a resource whose run is not to be stopped has no finalizer. The Workspace is not known
/// either: any Workspace of the namespace will do that leads to where the claim says the run is.
pub fn being_deleted(metadata: &ObjectMeta, connections: &Connections) -> Option<WorkflowExecution> {
    let held = metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if metadata.deletion_timestamp.is_none() || !held {
        return None;
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let workspace = match ClaimAnnotation::read(metadata.annotations.as_ref()) {
        ClaimAnnotation::Claim(claim) => connections
            .stopper_in(namespace, |live| claim.is_for(&live.origin, live.workspace_id.as_deref(), true))
            .map(|key| WorkspaceRef { name: key.name }),
        ClaimAnnotation::Absent | ClaimAnnotation::Unreadable => None,
    };
    let spec = WorkflowExecutionSpec {
        workspace_ref: workspace.unwrap_or_default(),
        workflow_ref: None,
        workflow_identifier: None,
        registration_id: None,
        execution_id: None,
        input: None,
        input_from: None,
        deployment_name: None,
        custom_tracing_attributes: None,
        extensions: None,
        suspend: false,
        starting_deadline_seconds: None,
        active_deadline_seconds: None,
        shutdown: None,
        termination_grace_period_seconds: 30,
        deletion_policy: DeletionPolicy::Cancel,
        ttl_seconds_after_finished: None,
        result: ResultSpec::default(),
        left_out: None,
    };
    Some(WorkflowExecution { metadata: metadata.clone(), spec, status: None })
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use kube::core::{ObjectList, WatchEvent};

    use super::*;
    use crate::platform::decoded::Decoded;

    fn nested(levels: usize, inside: &str) -> String {
        format!("{}{inside}{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
    }

    /// An execution whose input is nested `input` levels deep, its managedFields `fields`, and its result `result`.
    fn execution(name: &str, input: usize, fields: usize, result: usize) -> String {
        format!(
            r#"{{"apiVersion":"workflows.mistral.ai/v1alpha1","kind":"WorkflowExecution",
            "metadata":{{"name":"{name}","namespace":"team","uid":"u","resourceVersion":"7","finalizers":["f"],
            "managedFields":[{{"manager":"kubectl","operation":"Update","fieldsV1":{}}}]}},
            "spec":{{"workflowIdentifier":"echo","input":{}}},"status":{{"result":{}}}}}"#,
            nested(fields, "{}"),
            nested(input, "1"),
            nested(result, "1"),
        )
    }

    #[test]
    fn no_depth_of_an_execution_keeps_it_or_another_one_from_being_read() {
        let deep = 100_000;
        for (input, fields, result) in [(120, 120, 1), (deep, deep, 1), (deep, 1, deep), (1, deep, 1)] {
            let (line, next) = (execution("deep", input, fields, result), execution("next", 1, 1, 1));
            let list = format!(
                r#"{{"apiVersion":"v1","kind":"List","metadata":{{"resourceVersion":"9"}},"items":[{line},{next}]}}"#
            );
            let list: ObjectList<Decoded<WorkflowExecution>> = serde_json::from_str(&list).unwrap();
            let [Decoded(Ok(read)), Decoded(Ok(next))] = &list.items[..] else { panic!("{:?}", list.items) };
            assert_eq!((read.name_any(), next.name_any()), ("deep".into(), "next".into()));
            assert_eq!(read.spec.input.as_ref().unwrap().depth(), input);
            let event = format!(r#"{{"type":"ADDED","object":{line}}}"#);
            let WatchEvent::Added(Decoded(Ok(read))) = serde_json::from_str(&event).unwrap() else { panic!("{input}") };
            let read: WorkflowExecution = read;
            assert_eq!(read.finalizers(), ["f"]);
        }
    }

    #[test]
    fn an_execution_that_cannot_be_decoded_has_a_stand_in_that_can_be_named_and_let_go() {
        let deep = nested(100_000, "1");
        for spec in [
            r#"{"suspend":"perhaps"}"#.to_owned(),
            format!(r#"{{"workflowRef":[{deep}]}}"#),
            format!("[{deep}]"),
            "7".into(),
        ] {
            let text = execution("odd", 1, 5000, 1);
            let (before, after) = text.split_once(r#""spec":"#).unwrap();
            let (_, after) = after.split_once(r#","status""#).unwrap();
            let text = format!(r#"{before}"spec":{spec},"status"{after}"#);
            let Decoded(Err(undecodable)) = Decoded::<WorkflowExecution>::from_text(&text) else {
                panic!("{spec:.40}")
            };
            let metadata = &undecodable.metadata;
            assert_eq!((metadata.name.as_deref(), metadata.uid.as_deref()), (Some("odd"), Some("u")));
            assert_eq!(metadata.resource_version.as_deref(), Some("7"));
            assert_eq!(metadata.managed_fields.as_ref().unwrap()[0].manager.as_deref(), Some("kubectl"));
            assert!(undecodable.error.len() < 300, "{}", undecodable.error);
        }
    }
}
