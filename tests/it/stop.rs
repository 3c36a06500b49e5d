//! Runs that have to end: because a person says so, because time is up, or because their resource is being deleted.

use std::time::Duration;

use mistral_workflows_operator::api::WorkflowExecution;
use serde_json::{Value, json};

use crate::support::*;

const EXECUTE: (&str, &str) = ("POST", "/v1/workflows/{workflow_identifier}/execute");
const CANCEL: (&str, &str) = ("POST", "/v1/workflows/executions/{execution_id}/cancel");
const TERMINATE: (&str, &str) = ("POST", "/v1/workflows/executions/{execution_id}/terminate");

/// A world with workflows that react to a cancel in other ways than `hang`, which stops at once.
async fn world(name: &str) -> World {
    let world = World::new(name).await;
    for (name, behaviour) in [
        ("stubborn", json!({ "outcome": "ignore_cancel" })),
        ("finishing", json!({ "outcome": "ignore_cancel", "duration_ms": 6000 })),
        ("tidy", json!({ "outcome": "hang", "cancel_delay_ms": 4000 })),
    ] {
        world.api.register(json!({ "name": name, "behaviour": behaviour })).await;
    }
    world
}

async fn remote_status(world: &World, object: &WorkflowExecution) -> Value {
    let id = json!(status(object).execution_id);
    let all = world.api.executions().await;
    all.iter().find(|run| run["execution_id"] == id).map(|run| run["status"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn shutdown_stops_a_run_however_it_takes_it_and_keeps_the_resource() {
    let world = world("shutdown").await;
    let _operator = world.operator();
    let cases = [
        ("at-once", "hang", "Cancel", "Canceled", "CANCELED"),
        ("tidy", "tidy", "Cancel", "Canceled", "CANCELED"),
        ("stubborn", "stubborn", "Cancel", "Terminated", "TERMINATED"),
        ("terminated", "stubborn", "Terminate", "Terminated", "TERMINATED"),
        ("finishing", "finishing", "Cancel", "Completed", "COMPLETED"),
    ];
    for (name, workflow, ..) in cases {
        let grace = if name == "stubborn" { 2 } else { 60 };
        world.execute(name, json!({ "workflowIdentifier": workflow, "terminationGracePeriodSeconds": grace })).await;
    }
    for (name, _, shutdown, ..) in cases {
        world.wait_for_reason(name, "Running").await;
        world.patch(name, json!({ "spec": { "shutdown": shutdown } })).await.unwrap();
    }
    for (name, .., reason, end) in cases {
        let ended = world.wait(name, SOON, is_finished).await;
        assert_eq!(ready_reason(&ended), Some(reason), "{name}");
        assert_eq!(
            (remote_status(&world, &ended).await, status(&ended).status),
            (json!(end), Some(end.into())),
            "{name}"
        );
    }
    // One call per run, not one per poll.
    assert_eq!((world.api.arrivals(Some(CANCEL)).await, world.api.arrivals(Some(TERMINATE)).await), (4, 2));
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 5);
}

#[tokio::test]
async fn a_run_that_answers_a_cancel_by_failing_is_failed_in_its_own_words() {
    let world = world("cancel-fails").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "tidy" })).await;
    let running = world.wait_for_reason("run", "Running").await;
    world.patch("run", json!({ "spec": { "shutdown": "Cancel" } })).await.unwrap();
    world.wait_for_reason("run", "Stopping").await;
    let failure = json!({ "outcome": "fail", "error": "could not clean up" });
    world.api.finish(&status(&running).execution_id.unwrap(), failure).await;
    let failed = world.wait_for_reason("run", "WorkflowFailed").await;
    assert_eq!(status(&failed).failure.unwrap().message, "could not clean up");
}

#[tokio::test]
async fn what_is_shut_down_before_it_starts_never_starts() {
    let world = world("shut-before").await;
    let _operator = world.operator();
    let spec = |shutdown: Value| json!({ "workflowIdentifier": "echo", "suspend": true, "shutdown": shutdown });
    world.execute("born-so", spec(json!("Terminate"))).await;
    world.execute("held", spec(Value::Null)).await;
    world.wait_for_reason("held", "Suspended").await;
    world.patch("held", json!({ "spec": { "shutdown": "Cancel", "suspend": false } })).await.unwrap();
    for (name, reason) in [("born-so", "Terminated"), ("held", "Canceled")] {
        let ended = world.wait_for_reason(name, reason).await;
        assert!(is_true(&ended, "Failed") && !is_true(&ended, "Started"));
        assert!(status(&ended).failure.unwrap().message.contains("before the run started"));
        assert!(is_true(&ended, "Ready") && !is_true(&ended, "Stalled"), "nobody has to act");
        world.patch(name, json!({ "spec": { "shutdown": null, "suspend": false } })).await.unwrap();
        let acknowledged =
            |object: &WorkflowExecution| status(object).observed_generation == object.metadata.generation;
        let ended = world.wait(name, SOON, acknowledged).await;
        assert!(is_true(&ended, "Failed"), "an end is an end");
        assert!(status(&ended).conditions.iter().all(|condition| !condition.message.is_empty()), "{ended:?}");
    }
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 0);
}

#[tokio::test]
async fn a_run_past_its_active_deadline_is_stopped_and_says_so_also_by_the_next_operator() {
    let world = world("deadline").await;
    let operator = world.process(&[]);
    let spec = |workflow, seconds| {
        json!({
            "workflowIdentifier": workflow, "activeDeadlineSeconds": seconds, "terminationGracePeriodSeconds": 1,
        })
    };
    world.execute("late", spec("hang", 4)).await;
    world.execute("stubborn", spec("stubborn", 4)).await;
    world.execute("in-time", spec("slow", 60)).await;
    for name in ["late", "stubborn"] {
        world.wait_for_reason(name, "Running").await;
    }
    drop(operator);
    let _next = world.process(&[]);
    for (name, end) in [("late", "CANCELED"), ("stubborn", "TERMINATED")] {
        let stopped = world.wait_for_reason(name, "DeadlineExceeded").await;
        assert_eq!(status(&stopped).status.as_deref(), Some(end));
        assert!(status(&stopped).failure.unwrap().message.contains("activeDeadlineSeconds"));
    }
    world.wait_for_reason("in-time", "Completed").await;
}

#[tokio::test]
async fn what_has_not_started_by_its_starting_deadline_fails_with_the_obstacle_and_never_starts() {
    let world = world("starting").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "later", "startingDeadlineSeconds": 5 })).await;
    world.wait_for_reason("run", "TargetNotFound").await;
    let failed = world.wait_for_reason("run", "StartingDeadlineExceeded").await;
    let message = status(&failed).failure.unwrap().message;
    assert!(message.contains("within 5 s") && message.contains("does not know workflow \"later\""), "{message}");
    let since = status(&failed).end_time.unwrap().0.duration_since(failed.metadata.creation_timestamp.unwrap().0);
    assert!((5..20).contains(&since.as_secs()), "after {since:?}");
    world.api.register(json!({ "name": "later" })).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.api.starts().await, 0);
}

#[tokio::test]
async fn a_stop_gets_through_when_the_api_comes_back_and_the_resource_waits_for_it() {
    let world = world("stop-down").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    let running = world.wait_for_reason("run", "Running").await;
    world.api.faults(json!({ "faults": [{ "route": "/v1/*", "kind": { "error": { "status": 503 } } }] })).await;
    world.patch("run", json!({ "spec": { "shutdown": "Cancel" } })).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(remote_status(&world, &running).await, "RUNNING");
    assert!(!is_finished(&world.executions().get("run").await.unwrap()));
    world.api.heal().await;
    world
        .wait(&running.metadata.name.unwrap(), Duration::from_secs(120), |it| ready_reason(it) == Some("Canceled"))
        .await;
}

#[tokio::test]
async fn everything_deleted_at_once_still_stops_the_run_with_the_last_good_key() {
    let world = world("all-gone").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    let running = world.wait_for_reason("run", "Running").await;
    // As in the deletion of a namespace, in the worst order.
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> =
        kube::Api::namespaced(world.client.clone(), &world.namespace);
    secrets.delete("mistral", &Default::default()).await.unwrap();
    world.workspaces().delete("default", &Default::default()).await.unwrap();
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
    assert_eq!(remote_status(&world, &running).await, "CANCELED");
}

#[tokio::test]
async fn a_shutdown_after_the_key_is_gone_uses_the_last_good_one() {
    let world = world("key-gone").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    world.wait_for_reason("run", "Running").await;
    world.workspaces().delete("default", &Default::default()).await.unwrap();
    world.wait_for_reason("run", "WorkspaceNotFound").await;
    world.patch("run", json!({ "spec": { "shutdown": "Terminate" } })).await.unwrap();
    world.wait_for_reason("run", "Terminated").await;
}

#[tokio::test]
async fn somebody_elses_run_is_left_alone_whatever_is_asked() {
    let world = world("not-ours").await;
    let body = json!({ "execution_id": "theirs", "input": {} });
    world.api.call("POST", "/v1/workflows/hang/execute", Some(body)).await;
    let _operator = world.operator();
    let spec = json!({ "workflowIdentifier": "hang", "executionId": "theirs", "activeDeadlineSeconds": 1 });
    world.execute("run", spec).await;
    world.wait_for_reason("run", "Running").await;
    world.patch("run", json!({ "spec": { "shutdown": "Terminate" } })).await.unwrap();
    let told = |object: &WorkflowExecution| {
        condition(object, "Ready").is_some_and(|ready| ready.message.contains("this resource does not own it"))
    };
    let running = world.wait("run", SOON, told).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(remote_status(&world, &running).await, "RUNNING");
    assert_eq!((world.api.arrivals(Some(CANCEL)).await, world.api.arrivals(Some(TERMINATE)).await), (0, 0));
}

#[tokio::test]
async fn a_deletion_that_takes_the_finalizer_with_it_in_the_moment_of_the_claim_stops_the_run() {
    let world = world("overtaken").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    for (name, workflow, policy, end) in [
        ("cancel", "hang", "Cancel", "CANCELED"),
        ("stubborn", "stubborn", "Cancel", "TERMINATED"),
        ("terminate", "stubborn", "Terminate", "TERMINATED"),
        ("orphan", "hang", "Orphan", "RUNNING"),
    ] {
        let hold = json!({ "method": EXECUTE.0, "route": EXECUTE.1, "times": 1, "kind": { "hold": "after_effect" } });
        world.api.faults(json!({ "faults": [hold] })).await;
        let spec = json!({
            "workflowIdentifier": workflow, "deletionPolicy": policy, "executionId": name,
            "terminationGracePeriodSeconds": 1,
        });
        world.execute(name, spec).await;
        until(SOON, "the held call", async || world.api.held().await.pop()).await;
        // What the API server does when both arrive at once: it removes the finalizer together with the resource.
        world.patch(name, json!({ "metadata": { "finalizers": null } })).await.unwrap();
        world.delete(name).await;
        world.wait_until_gone(name, SOON).await;
        world.api.release().await;
        world.api.heal().await;
        let ended = async || {
            let all = world.api.executions().await;
            all.into_iter().find(|run| run["execution_id"] == name && run["status"] == end)
        };
        if policy == "Orphan" {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        until(SOON, end, ended).await;
    }
}

#[tokio::test]
async fn a_resource_that_is_replaced_in_the_moment_of_the_claim_leaves_no_run_behind() {
    let world = world("replaced").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    let hold = json!({ "method": EXECUTE.0, "route": EXECUTE.1, "times": 1, "kind": { "hold": "after_effect" } });
    world.api.faults(json!({ "faults": [hold] })).await;
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    until(SOON, "the held call", async || world.api.held().await.pop()).await;
    let first = world.api.executions().await[0]["execution_id"].clone();
    // `kubectl replace --force` does the same.
    world.patch("run", json!({ "metadata": { "finalizers": null } })).await.unwrap();
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    world.api.release().await;
    world.api.heal().await;
    let ended = async || {
        let all = world.api.executions().await;
        all.into_iter().find(|run| run["execution_id"] == first && run["status"] == "CANCELED")
    };
    until(SOON, "the first run's end", ended).await;
    let second = world.wait_for_reason("run", "Running").await;
    assert_eq!(remote_status(&world, &second).await, "RUNNING");
}
