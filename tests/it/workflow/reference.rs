//! `spec.workflowRef`: an execution waits for its Workflow, and runs the workflow of that resource.

use kube::api::DeleteParams;
use mistral_workflows_operator::api::WorkflowExecution;
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn an_execution_waits_for_its_workflow_and_runs_it() {
    let world = World::new("ref-wait").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowRef": { "name": "greeter" }, "input": { "a": 1 } })).await;
    let waiting = world.wait_for_reason("run", "WorkflowNotFound").await;
    assert!(condition(&waiting, "Ready").unwrap().message.contains("\"greeter\""));
    world.workflow("greeter", json!({ "identifier": "echo" })).await;
    let done = world.wait_for_reason("run", "Completed").await;
    assert_eq!(status(&done).workflow_name.as_deref(), Some("echo"));
    assert_eq!(result(&done), Some(json!({ "a": 1 })));
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn both_in_one_manifest_start_without_a_detour() {
    let world = World::new("ref-together").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.execute("run", json!({ "workflowRef": { "name": "echo" } })).await;
    world.workflow("echo", json!({ "displayName": "Echo" })).await;
    world.wait_for_reason("run", "Completed").await;
    let events = until(SOON, "the Event of its end", async || {
        let events = world.events("run").await;
        events.iter().any(|(reason, _)| reason == "Completed").then_some(events)
    });
    let reasons: Vec<String> = events.await.into_iter().map(|(reason, _)| reason).collect();
    assert!(!reasons.contains(&"WorkflowNotFound".to_owned()), "{reasons:?}");
}

#[tokio::test]
async fn a_workflow_that_cannot_run_holds_its_executions_with_the_reason() {
    let world = World::new("ref-held").await;
    let _operator = world.operator();
    world.workflow("unregistered", json!({})).await;
    world.workflow("archived", json!({ "identifier": "echo", "archived": true })).await;
    world.workflow("elsewhere", json!({ "identifier": "echo", "workspaceRef": { "name": "other" } })).await;
    world.wait_for_workflow("archived", "InSync").await;
    for (name, words) in [
        ("unregistered", "start the worker"),
        ("archived", "set archived to false"),
        ("elsewhere", "Workspace \"other\""),
    ] {
        world.execute(name, json!({ "workflowRef": { "name": name } })).await;
        let told =
            |object: &WorkflowExecution| condition(object, "Ready").is_some_and(|ready| ready.message.contains(words));
        let held = world.wait(name, SOON, told).await;
        assert_eq!(ready_reason(&held), Some("WorkflowNotReady"), "{name}");
    }
    assert_eq!(world.api.starts().await, 0);
    world.patch_workflow("archived", json!({ "archived": false })).await;
    world.api.register(json!({ "name": "unregistered" })).await;
    world.wait_for_reason("archived", "Completed").await;
    world.wait_for_reason("unregistered", "Completed").await;
    assert_eq!(world.api.starts().await, 2);
}

#[tokio::test]
async fn none_of_many_executions_misses_that_its_workflow_can_be_run() {
    const WORKFLOWS: usize = 60;
    let world = World::new("ref-many").await;
    for n in 0..WORKFLOWS {
        world.api.register(json!({ "name": format!("w{n}"), "archived": true })).await;
        world.workflow(&format!("w{n}"), json!({})).await;
        for k in 0..3 {
            world.execute(&format!("run-{n}-{k}"), json!({ "workflowRef": { "name": format!("w{n}") } })).await;
        }
    }
    let _operator = world.operator();
    for n in 0..WORKFLOWS {
        for k in 0..3 {
            world.wait_for_reason(&format!("run-{n}-{k}"), "WorkflowNotReady").await;
        }
    }
    for n in 0..WORKFLOWS {
        world.patch_workflow(&format!("w{n}"), json!({ "archived": false })).await;
    }
    for n in 0..WORKFLOWS {
        for k in 0..3 {
            world.wait_for_reason(&format!("run-{n}-{k}"), "Completed").await;
        }
    }
    assert_eq!(world.api.starts().await, 3 * WORKFLOWS as u64);
}

#[tokio::test]
async fn no_live_worker_is_said_and_no_reason_not_to_start() {
    let world = World::new("ref-worker").await;
    let deployments = json!([{ "name": "default", "active": false }]);
    world.api.register(json!({ "name": "asleep", "deployments": deployments })).await;
    world.api.switches(json!({ "execute_without_worker": "accept" })).await;
    let _operator = world.operator();
    world.workflow("asleep", json!({})).await;
    world.wait_for_workflow("asleep", "InSync").await;
    world.execute("run", json!({ "workflowRef": { "name": "asleep" } })).await;
    let running = world.wait_for_reason("run", "Running").await;
    let message = &condition(&running, "Ready").unwrap().message;
    assert!(message.contains("no live worker"), "{message}");
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_start_that_finds_no_live_worker_is_repeated_once_there_is_one_and_runs_once() {
    let world = World::new("ref-deployment").await;
    let deployments = |active: bool| json!([{ "name": "default", "active": active }]);
    world.api.register(json!({ "name": "asleep", "deployments": deployments(false) })).await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "asleep" })).await;
    let waiting = world.wait_for_reason("run", "TargetNotFound").await;
    let message = &condition(&waiting, "Ready").unwrap().message;
    assert!(message.contains("No active deployment found"), "{message}");
    world.api.edit("asleep", json!({ "deployments": deployments(true) })).await;
    world.wait_for_reason("run", "Completed").await;
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_run_outlives_the_workflow_that_it_was_started_through() {
    let world = World::new("ref-outlive").await;
    let _operator = world.operator();
    world.workflow("slow", json!({})).await;
    world.execute("run", json!({ "workflowRef": { "name": "slow" } })).await;
    world.wait_for_reason("run", "Running").await;
    world.workflows().delete("slow", &DeleteParams::default()).await.unwrap();
    world.wait_for_reason("run", "Completed").await;
    assert_eq!(world.api.starts().await, 1);
}
