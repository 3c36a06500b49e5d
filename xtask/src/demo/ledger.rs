//! Compares the simulator's ledger with the resources.

use kube::ResourceExt;
use mistral_workflows_operator::api::WorkflowExecution;
use serde_json::{Value, json};

use super::Result;

/// Compares the simulator's entries, one per execution id, with all WorkflowExecutions of the namespace. Each execution
/// must have been started exactly once, with its workflow, its input and its end. Nothing else may have been started.
/// An execution with `token` in its input must have it in its result.
pub fn compare(ledger: &[Value], executions: &[WorkflowExecution], token: &str) -> Result<()> {
    let mut token_came_back = false;
    for execution in executions {
        let name = execution.name_any();
        let status = execution.status.clone().unwrap_or_default();
        let is_it = |entry: &&Value| entry["execution_id"].as_str() == status.execution_id.as_deref();
        let Some(entry) = ledger.iter().find(is_it) else {
            return Err(format!("the simulator knows nothing of {name}, whose status is {}.", json!(status)).into());
        };
        // The examples' Workflow resources have the names of their workflows.
        let named = execution.spec.workflow_ref.as_ref().map(|workflow| &workflow.name);
        let expected = json!({
            "workflow_name": execution.spec.workflow_identifier.as_ref().or(named),
            "input": execution.spec.input,
            "starts": 1,
            "runs": 1,
            "status": status.status,
        });
        for (field, expected) in expected.as_object().into_iter().flatten() {
            if entry[field] != *expected {
                let found = &entry[field];
                return Err(format!("the {field} of {name} should be {expected}; the simulator has {found}.").into());
            }
        }
        token_came_back |= entry["input"]["token"] == token
            && status.result.as_ref().is_some_and(|result| *result == json!({ "token": token }));
    }
    if ledger.len() != executions.len() {
        let (runs, resources) = (ledger.len(), executions.len());
        return Err(format!("the simulator has {runs} executions where {resources} were asked for.").into());
    }
    if !token_came_back {
        return Err(format!("the random token {token} did not come back in a result.").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn execution() -> WorkflowExecution {
        serde_json::from_value(json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
            "metadata": { "name": "echo" },
            "spec": { "workflowIdentifier": "hello-world", "input": { "token": "t" } },
            "status": { "executionId": "echo-1", "status": "COMPLETED", "result": { "token": "t" } },
        }))
        .unwrap()
    }

    fn entry() -> Value {
        json!({
            "execution_id": "echo-1", "workflow_name": "hello-world", "input": { "token": "t" },
            "starts": 1, "runs": 1, "status": "COMPLETED",
        })
    }

    fn complaint(ledger: &[Value], token: &str) -> String {
        compare(ledger, &[execution()], token).unwrap_err().to_string()
    }

    #[test]
    fn books_that_agree_are_accepted() {
        compare(&[entry()], &[execution()], "t").unwrap();
    }

    #[test]
    fn a_second_start_is_found() {
        let mut twice = entry();
        twice["starts"] = json!(2);
        assert_eq!(complaint(&[twice], "t"), "the starts of echo should be 1; the simulator has 2.");
    }

    #[test]
    fn a_start_that_nobody_asked_for_is_found() {
        let mut other = entry();
        other["execution_id"] = json!("other");
        assert_eq!(complaint(&[entry(), other], "t"), "the simulator has 2 executions where 1 were asked for.");
    }

    #[test]
    fn a_run_that_never_happened_is_found() {
        assert!(complaint(&[], "t").starts_with("the simulator knows nothing of echo"));
    }

    #[test]
    fn another_token_is_not_the_token() {
        assert_eq!(complaint(&[entry()], "u"), "the random token u did not come back in a result.");
    }
}
