//! Bad input and a failing API: reported, bounded, and overcome.

use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::*;

const EXECUTE: (&str, &str) = ("POST", "/v1/workflows/{workflow_identifier}/execute");
/// Allows for the 90 s in which the outcome of a call may be unknown, the delay of a retry, and a busy machine.
const AFTER_DOUBT: Duration = Duration::from_secs(180);
/// How long the retry of something that a person has to correct may take. The delay is half a minute at first.
const RETRY: Duration = Duration::from_secs(90);

fn execute_fault(kind: Value) -> Value {
    json!({ "faults": [{ "method": EXECUTE.0, "route": EXECUTE.1, "times": 1, "kind": kind }] })
}

async fn runs_once(world: &World, limit: Duration) {
    let done = world.wait("run", limit, is_finished).await;
    assert_eq!(ready_reason(&done), Some("Completed"), "{:#?}", done.status);
    let [run] = &world.api.executions().await[..] else { panic!("one execution id") };
    assert_eq!(run["starts"], 1);
}

fn message(object: &mistral_workflows_operator::api::WorkflowExecution) -> String {
    condition(object, "Ready").map(|ready| ready.message.clone()).unwrap_or_default()
}

#[tokio::test]
async fn an_unknown_workflow_waits_with_few_calls_and_runs_once_it_is_registered() {
    let world = World::new("unknown").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.api.forget_calls().await;
    world.execute("run", json!({ "workflowIdentifier": "later" })).await;
    let waiting = world.wait_for_reason("run", "TargetNotFound").await;
    assert!(message(&waiting).contains("workflow \"later\"") && message(&waiting).contains("WF_1100"));
    assert!(is_true(&waiting, "Stalled") && !is_finished(&waiting));
    // Measures a minute of waiting.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let calls = world.api.arrivals(None).await;
    assert!(calls <= 6, "{calls} calls in a minute: {:#?}", world.api.calls().await);
    let still = world.executions().get("run").await.unwrap();
    assert_eq!(still.metadata.resource_version, waiting.metadata.resource_version, "written to while it waited");
    world.api.register(json!({ "name": "later" })).await;
    runs_once(&world, Duration::from_secs(150)).await;
    assert_eq!(world.events("run").await.iter().filter(|(reason, _)| reason == "TargetNotFound").count(), 1);
}

#[tokio::test]
async fn an_ambiguous_workflow_names_its_deployments_and_runs_once_there_is_one() {
    let world = World::new("ambiguous").await;
    let _operator = world.operator();
    let deployments = |bob: bool| json!([{ "name": "alice", "active": true }, { "name": "bob", "active": bob }]);
    world.api.register(json!({ "name": "twice", "deployments": deployments(true) })).await;
    world.execute("run", json!({ "workflowIdentifier": "twice" })).await;
    let waiting = world.wait_for_reason("run", "AmbiguousDeployment").await;
    assert!(message(&waiting).contains("alice, bob") && message(&waiting).contains("deploymentName"));
    world.api.edit("twice", json!({ "deployments": deployments(false) })).await;
    runs_once(&world, RETRY).await;
}

#[tokio::test]
async fn an_unknown_deployment_is_told_with_those_that_there_are_and_runs_once_it_is_there() {
    let world = World::new("no-deployment").await;
    let _operator = world.operator();
    let deployments = |names: &[&str]| -> Value {
        names.iter().map(|name| json!({ "name": name, "active": true })).collect::<Vec<_>>().into()
    };
    world.api.register(json!({ "name": "twice", "deployments": deployments(&["alice", "bob"]) })).await;
    world.execute("run", json!({ "workflowIdentifier": "twice", "deploymentName": "carol" })).await;
    let waiting = world.wait_for_reason("run", "DeploymentNotFound").await;
    assert!(message(&waiting).contains("\"carol\"") && message(&waiting).contains("alice, bob"));
    world.api.edit("twice", json!({ "deployments": deployments(&["alice", "bob", "carol"]) })).await;
    runs_once(&world, RETRY).await;
}

#[tokio::test]
async fn a_named_deployment_is_no_longer_ambiguous() {
    let world = World::new("deployment").await;
    let _operator = world.operator();
    let deployments = json!([{ "name": "alice", "active": true }, { "name": "bob", "active": true }]);
    world.api.register(json!({ "name": "twice", "deployments": deployments })).await;
    world.execute("run", json!({ "workflowIdentifier": "twice", "deploymentName": "bob" })).await;
    runs_once(&world, SOON).await;
    assert_eq!(world.api.executions().await[0]["deployment_name"], "bob");
}

#[tokio::test]
async fn an_input_that_the_api_refuses_ends_the_execution_after_one_call() {
    let world = World::new("input").await;
    let _operator = world.operator();
    let schema = json!({ "type": "object", "required": ["name"] });
    world.api.register(json!({ "name": "strict", "input_schema": schema })).await;
    world.execute("run", json!({ "workflowIdentifier": "strict", "input": {} })).await;
    let failed = world.wait_for_reason("run", "InputRejected").await;
    assert!(message(&failed).contains("required property"), "{}", message(&failed));
    assert!(is_true(&failed, "Failed") && status(&failed).end_time.is_some() && status(&failed).failure.is_some());
    assert!(!is_true(&failed, "Started"));
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 1);
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
}

#[tokio::test]
async fn a_missing_workspace_is_said_and_waited_for_without_a_call() {
    let world = World::bare("workspace").await;
    world.secret("mistral", "api-key", KEY).await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    let waiting = world.wait_for_reason("run", "WorkspaceNotFound").await;
    assert!(message(&waiting).contains("There is no Workspace \"default\""));
    assert_eq!(world.api.arrivals(None).await, 0);
    world.workspace("default", &world.api.url).await;
    runs_once(&world, SOON).await;
}

#[tokio::test]
async fn a_key_that_may_not_start_runs_is_said_with_few_calls() {
    let world = World::new("unauthorized").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    let refuse = json!({ "error": { "status": 401, "body": { "detail": "Unauthorized" } } });
    world.api.faults(json!({ "faults": [{ "method": EXECUTE.0, "route": EXECUTE.1, "kind": refuse }] })).await;
    world.api.forget_calls().await;
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    let waiting = world.wait_for_reason("run", "CredentialRefused").await;
    assert!(message(&waiting).contains("Workspace \"default\""));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let calls = world.api.arrivals(None).await;
    assert!(calls <= 12, "{calls} calls in a minute: {:#?}", world.api.calls().await);
    world.api.heal().await;
    runs_once(&world, Duration::from_secs(150)).await;
}

#[tokio::test]
async fn a_start_whose_answer_is_lost_is_found_and_not_repeated() {
    for (name, kind) in [
        ("closed", json!({ "close": "after_effect" })),
        ("cut", json!({ "truncate": true })),
        (
            "html",
            json!({ "error": { "status": 502, "body": "<html>", "content_type": "text/html", "after_effect": true } }),
        ),
        (
            "timeout",
            json!({ "error": { "status": 504, "body": { "detail": "An error occurred", "code": "WF_1103" }, "after_effect": true } }),
        ),
        (
            "nonsense",
            json!({ "error": { "status": 200, "body": "<html>", "content_type": "text/html", "after_effect": true } }),
        ),
    ] {
        let world = World::new(&format!("lost-{name}")).await;
        let _operator = world.operator();
        world.wait_for_workspace("default", "Connected").await;
        world.api.faults(execute_fault(kind)).await;
        world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
        runs_once(&world, SOON).await;
        assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 1, "{name}");
    }
}

#[tokio::test]
async fn a_start_that_failed_without_effect_is_repeated_only_once_that_is_sure() {
    let world = World::new("no-effect").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.api.faults(execute_fault(json!({ "error": { "status": 503 } }))).await;
    let begun = Instant::now();
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    let doubt = world.wait_for_reason("run", "OutcomeUnknown").await;
    assert_eq!(condition(&doubt, "Started").unwrap().status, "Unknown");
    runs_once(&world, AFTER_DOUBT).await;
    // 15 s to send, 30 s for the call, 30 s until the run is visible, and 15 s of margin for clocks.
    assert!(begun.elapsed() >= Duration::from_secs(85), "repeated after {:?}", begun.elapsed());
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 2);
}

#[tokio::test]
async fn a_start_that_hangs_is_given_up_and_made_once_in_the_end() {
    let world = World::new("hangs").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.api.faults(execute_fault(json!({ "hold": "before_effect" }))).await;
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    until(SOON, "the held call", async || world.api.held().await.pop()).await;
    runs_once(&world, AFTER_DOUBT).await;
}

#[tokio::test]
async fn an_api_that_is_down_loses_nothing() {
    let world = World::new("down").await;
    let _operator = world.operator();
    world.execute("before", json!({ "workflowIdentifier": "slow" })).await;
    world.wait_for_reason("before", "Running").await;
    let everything = json!({ "route": "/v1/*", "kind": { "error": { "status": 503, "body": "<html>", "content_type": "text/html" } } });
    world.api.faults(json!({ "faults": [everything] })).await;
    world.execute("during", json!({ "workflowIdentifier": "echo" })).await;
    world.wait("during", SOON, |object| ready_reason(object).is_some()).await;
    // The run ends while the API is down.
    until(SOON, "the end of the run", async || {
        world.api.executions().await.iter().any(|run| run["status"] == "COMPLETED").then_some(())
    })
    .await;
    world.api.heal().await;
    world.wait("before", RETRY, |object| ready_reason(object) == Some("Completed")).await;
    world.wait("during", AFTER_DOUBT, |object| ready_reason(object) == Some("Completed")).await;
    assert!(world.api.executions().await.iter().all(|run| run["starts"] == 1));
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let world = World::new("throttled").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.api.faults(execute_fault(json!({ "error": { "status": 429, "headers": { "Retry-After": "10" } } }))).await;
    let begun = Instant::now();
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("run", "APIUnavailable").await;
    runs_once(&world, SOON).await;
    assert!(begun.elapsed() >= Duration::from_secs(10), "came back after {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_run_that_the_api_forgot_is_never_started_again() {
    let world = World::new("forgotten").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    let running = world.wait_for_reason("run", "Running").await;
    world.api.forget(&status(&running).execution_id.unwrap()).await;
    // A new run may be unknown to the API for half a minute. Only after that is it missing.
    let missing = world.wait("run", RETRY, |object| is_true(object, "Missing")).await;
    assert!(is_true(&missing, "Started") && !is_finished(&missing));
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 1);
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
}

#[tokio::test]
async fn a_store_restored_under_a_running_operator_to_before_a_run_does_not_run_it_again() {
    let world = World::new("restored").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    // Creation timestamps are whole seconds: the operator has to be sure that it ran before the creation.
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.execute("run", json!({ "workflowIdentifier": "echo", "deletionPolicy": "Orphan" })).await;
    world.wait_for_reason("run", "Completed").await;
    // Takes the object back to its state before the claim. The order matters: the operator must not put anything back.
    world.patch("run", json!({ "metadata": { "annotations": null } })).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let nothing = Patch::Merge(json!({ "status": null }));
    world.executions().patch_status("run", &PatchParams::default(), &nothing).await.unwrap();
    world.wait("run", SOON * 2, |object| ready_reason(object) == Some("Completed")).await;
    assert_eq!(world.api.starts().await, 1);
}
