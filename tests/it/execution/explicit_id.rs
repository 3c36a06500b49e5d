//! One explicit id is one run, however many resources name it.

use super::*;

#[tokio::test]
async fn a_run_found_under_an_explicit_id_is_adopted_and_survives_the_deletion() {
    let world = World::new("explicit").await;
    let body = json!({ "execution_id": "nightly-1", "input": {} });
    world.api.call("POST", "/v1/workflows/hang/execute", Some(body)).await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang", "executionId": "nightly-1" })).await;
    let adopted = world.wait_for_reason("run", "Running").await;
    assert_eq!(condition(&adopted, "Started").unwrap().reason, "Adopted");
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
    assert_eq!(remote_status(&world, "nightly-1").await, "RUNNING");
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_resource_created_again_with_its_explicit_id_does_not_run_again() {
    let world = World::new("again").await;
    let _operator = world.operator();
    let spec = json!({ "workflowIdentifier": "echo", "executionId": "once", "input": { "n": 1 } });
    for _ in 0..2 {
        world.execute("run", spec.clone()).await;
        let done = world.wait_for_reason("run", "Completed").await;
        assert_eq!(result(&done), Some(json!({ "n": 1 })));
        world.delete("run").await;
        world.wait_until_gone("run", SOON).await;
    }
    assert_eq!(world.api.starts().await, 1);
    // Without an id it is a new run, as with a Job.
    for _ in 0..2 {
        world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
        world.wait_for_reason("run", "Completed").await;
        world.delete("run").await;
        world.wait_until_gone("run", SOON).await;
    }
    assert_eq!(world.api.starts().await, 3);
}

#[tokio::test]
async fn two_resources_on_one_id_are_one_run_even_if_it_ends_at_once_and_shows_late() {
    let world = World::new("two-quick").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.api.faults(json!({ "faults": [], "hide_new_executions_ms": 20_000 })).await;
    for name in ["one", "two", "three"] {
        world.execute(name, json!({ "workflowIdentifier": "echo", "executionId": "shared" })).await;
    }
    for name in ["one", "two", "three"] {
        world.wait(name, Duration::from_secs(120), |object| ready_reason(object) == Some("Completed")).await;
    }
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_resource_created_again_at_once_does_not_run_its_explicit_id_again() {
    let world = World::new("again-quick").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.api.faults(json!({ "faults": [], "hide_new_executions_ms": 20_000 })).await;
    let spec = json!({ "workflowIdentifier": "echo", "executionId": "once", "deletionPolicy": "Orphan" });
    world.execute("run", spec.clone()).await;
    until(SOON, "the start", async || (world.api.starts().await == 1).then_some(())).await;
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
    world.execute("run", spec).await;
    world.wait("run", Duration::from_secs(120), |object| ready_reason(object) == Some("Completed")).await;
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn two_resources_on_one_id_are_one_run() {
    let world = World::new("two").await;
    let _operator = world.operator();
    for name in ["one", "two"] {
        world.execute(name, json!({ "workflowIdentifier": "slow", "executionId": "shared" })).await;
    }
    for name in ["one", "two"] {
        world.wait_for_reason(name, "Completed").await;
    }
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn an_id_that_another_workflow_runs_under_is_refused() {
    let world = World::new("taken").await;
    let body = json!({ "execution_id": "taken", "input": {} });
    world.api.call("POST", "/v1/workflows/hang/execute", Some(body)).await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "echo", "executionId": "taken" })).await;
    let refused = world.wait_for_reason("run", "ExecutionIDTaken").await;
    assert!(condition(&refused, "Ready").unwrap().message.contains("workflow \"hang\""));
    assert_eq!(world.api.starts().await, 1);
}
