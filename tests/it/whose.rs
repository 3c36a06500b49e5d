//! Who owns a run: ids that were used before, claims that come back, and answers that are not the API's.

use std::time::Duration;

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::support::*;

const EXECUTE: (&str, &str) = ("POST", "/v1/workflows/{workflow_identifier}/execute");
const GET: &str = "/v1/workflows/executions/{execution_id}";
const CLAIM: &str = "workflows.mistral.ai/claim";

async fn create_again(world: &World, spec: Value) {
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
    world.execute("run", spec).await;
}

#[tokio::test]
async fn an_execution_id_with_another_input_is_taken_and_with_the_same_it_is_the_run_that_was() {
    let world = World::new("other-input").await;
    let _operator = world.operator();
    let spec = |input: Value| json!({ "workflowIdentifier": "echo", "executionId": "report", "input": input });
    world.execute("run", spec(json!({ "month": 11, "of": { "year": 2026 } }))).await;
    world.wait_for_reason("run", "Completed").await;
    create_again(&world, spec(json!({ "month": 12, "of": { "year": 2026 } }))).await;
    let taken = world.wait_for_reason("run", "ExecutionIDTaken").await;
    assert!(is_true(&taken, "Stalled") && !is_true(&taken, "Complete") && result(&taken).is_none());
    let message = &condition(&taken, "Ready").unwrap().message;
    assert!(message.contains("another input (at /month)") && !message.contains("11"), "{message}");
    create_again(&world, spec(json!({ "of": { "year": 2026 }, "month": 11 }))).await;
    let same = world.wait_for_reason("run", "Completed").await;
    assert_eq!(result(&same), Some(json!({ "month": 11, "of": { "year": 2026 } })));
    let message = &condition(&same, "Complete").unwrap().message;
    assert!(message.contains("not started by this resource") && message.contains("same input"), "{message}");
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn of_a_run_whose_input_is_encoded_it_is_said_that_its_input_is_unknown() {
    let world = World::new("encoded-input").await;
    world.api.switches(json!({ "encoded_payloads": true })).await;
    let _operator = world.operator();
    let spec = |n: u32| json!({ "workflowIdentifier": "echo", "executionId": "report", "input": { "n": n } });
    world.execute("run", spec(1)).await;
    world.wait_for_reason("run", "Completed").await;
    create_again(&world, spec(2)).await;
    let adopted = world.wait_for_reason("run", "Completed").await;
    let message = &condition(&adopted, "Complete").unwrap().message;
    assert!(message.contains("the worker encodes the input"), "{message}");
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_consent_has_a_run_with_another_input_all_the_same_and_is_taken_off() {
    let world = World::new("consented").await;
    let _operator = world.operator();
    let spec = |n: u32| json!({ "workflowIdentifier": "echo", "executionId": "mine", "input": { "n": n } });
    world.execute("run", spec(1)).await;
    world.wait_for_reason("run", "Completed").await;
    create_again(&world, spec(2)).await;
    world.wait_for_reason("run", "ExecutionIDTaken").await;
    let consent = json!({ "metadata": { "annotations": { "workflows.mistral.ai/take-over": "mine" } } });
    world.patch("run", consent).await.unwrap();
    let done = world.wait_for_reason("run", "Completed").await;
    assert_eq!(result(&done), Some(json!({ "n": 1 })));
    assert!(!done.annotations().contains_key("workflows.mistral.ai/take-over"));
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_registration_adopts_no_run_of_another_workflow() {
    let world = World::new("registration").await;
    let _operator = world.operator();
    world.execute("first", json!({ "workflowIdentifier": "echo", "executionId": "mine" })).await;
    world.wait_for_reason("first", "Completed").await;
    let slow = world.api.call("GET", "/v1/workflows/registrations?workflow_search=slow", None).await;
    let registration = &slow["workflow_registrations"][0];
    assert!(registration["id"].is_string(), "{slow}");
    world.execute("second", json!({ "registrationId": registration["id"], "executionId": "mine" })).await;
    let taken = world.wait_for_reason("second", "ExecutionIDTaken").await;
    assert!(condition(&taken, "Ready").unwrap().message.contains("workflow \"echo\""));
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_404_of_a_gateway_starts_nothing() {
    let world = World::new("gateway").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    let body = json!({ "message": "no Route matched with those values" });
    let gateway = json!({ "method": "GET", "route": GET, "kind": { "error": { "status": 404, "body": body } } });
    world.api.faults(json!({ "faults": [gateway] })).await;
    world.execute("run", json!({ "workflowIdentifier": "echo", "executionId": "mine" })).await;
    let waiting = world.wait_for_reason("run", "APIUnavailable").await;
    assert!(condition(&waiting, "Ready").unwrap().message.contains("no Route matched"));
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 0);
    world.api.heal().await;
    world.wait("run", Duration::from_secs(90), |object| ready_reason(object) == Some("Completed")).await;
    assert_eq!(world.api.starts().await, 1);
}

/// Replaces the claim of a running execution with a changed one. The operator has to restore the claim, and a deletion
/// has to stop the run.
async fn comes_back(name: &str, change: fn(&mut Value)) {
    let world = World::new(name).await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    let running = world.wait_for_reason("run", "Running").await;
    let id = status(&running).execution_id.unwrap();
    let original: Value = serde_json::from_str(&running.annotations()[CLAIM]).unwrap();
    let mut claim = original.clone();
    change(&mut claim);
    world.patch("run", json!({ "metadata": { "annotations": { CLAIM: claim.to_string() } } })).await.unwrap();
    let is_put_back = |text: &str| {
        let now: Value = serde_json::from_str(text).unwrap();
        now["owner"] == original["owner"] && now["executionId"] == original["executionId"] && now["refused"].is_null()
    };
    world.wait("run", SOON, |object| is_put_back(&object.annotations()[CLAIM])).await;
    world.delete("run").await;
    world.wait_until_gone("run", Duration::from_secs(60)).await;
    let runs = world.api.executions().await;
    let [run] = &runs[..] else { panic!("one run: {runs:?}") };
    assert_eq!((&run["execution_id"], &run["starts"]), (&json!(id), &json!(1)));
    assert_ne!(run["status"], "RUNNING");
}

#[tokio::test]
async fn an_older_claim_that_is_applied_again_is_replaced_and_releases_nothing() {
    comes_back("older", |claim| {
        claim["revision"] = json!(0);
        claim["refused"] = json!(true);
    })
    .await;
}

#[tokio::test]
async fn a_copied_claim_that_is_applied_over_a_running_one_releases_nothing() {
    comes_back("copied-over", |claim| claim["owner"]["name"] = json!("other")).await;
}

#[tokio::test]
async fn a_run_is_stopped_while_the_api_cannot_tell_of_it() {
    let world = World::new("stop-blind").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    world.wait_for_reason("run", "Running").await;
    let failing = json!({ "method": "GET", "route": GET, "kind": { "error": { "status": 500 } } });
    world.api.faults(json!({ "faults": [failing] })).await;
    world.patch("run", json!({ "spec": { "shutdown": "Terminate" } })).await.unwrap();
    until(SOON, "the run to be terminated", async || {
        let runs = world.api.executions().await;
        runs.iter().all(|run| run["status"] == "TERMINATED").then_some(())
    })
    .await;
    world.api.heal().await;
    world.wait("run", Duration::from_secs(90), |object| ready_reason(object) == Some("Terminated")).await;
}

#[tokio::test]
async fn what_is_applied_at_once_is_never_stalled_on_the_way() {
    let world = World::bare("at-once").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let waiting = world.executions().get("run").await.unwrap();
    assert_eq!(ready_reason(&waiting), Some("WorkspaceNotFound"));
    assert!(is_true(&waiting, "Reconciling") && !is_true(&waiting, "Stalled"));
    world.workspace("default", &world.api.url).await;
    let of_workspace = world.wait_for_workspace("default", "SecretNotFound").await;
    let conditions = of_workspace.status.unwrap().conditions;
    assert!(conditions.iter().all(|condition| condition.type_ != "Stalled"), "{conditions:?}");
    world.secret("mistral", "api-key", KEY).await;
    world.wait_for_reason("run", "Completed").await;
}
